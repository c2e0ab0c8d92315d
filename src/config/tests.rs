use std::fs;

use serde_json::{Value, json};

use super::*;
use crate::error::BadInput;

/// The least that a file must say.
fn least() -> Value {
    json!({
        "batch": 64,
        "model": {"arch": "vit_small"},
        "optimizer": {"base_lr": 1e-3, "weight_decay": 0.1},
        "schedule": {"epochs": 10}
    })
}

fn with(overrides: &[&str]) -> anyhow::Result<RunConfig> {
    let overrides: Vec<Override> = overrides
        .iter()
        .map(|text| text.parse())
        .collect::<anyhow::Result<_>>()?;
    RunConfig::from_value(read::apply(least(), &overrides)?)
}

/// Fails unless `result` is a BadInput whose chain has every one of `parts`.
fn check<T: std::fmt::Debug>(result: anyhow::Result<T>, parts: &[&str]) {
    let error = result.expect_err("this input is wrong");
    let text = format!("{error:#}");
    assert!(
        error.chain().any(|cause| cause.is::<BadInput>()),
        "not the user's to mend: {text}"
    );
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[test]
fn what_is_wrong_is_named_with_its_path() {
    let cases: &[(&[&str], &[&str])] = &[
        (
            &["optimizer.base_lrr=1"],
            &[
                "unknown key `optimizer.base_lrr`",
                "did you mean `optimizer.base_lr`?",
            ],
        ),
        (
            &["method.projector.hiden=1"],
            &[
                "`method.projector.hiden`",
                "`method.projector.hidden`?",
                "layers, hidden, out",
            ],
        ),
        (&["modle=1"], &["`modle`", "`model`?", "the top level"]),
        (&["base_lr=1"], &["`base_lr`", "`optimizer.base_lr`?"]),
        (
            &["model.qqq=1"],
            &["`model.qqq` (known keys of `model`: arch, blocks"],
        ),
        (
            &["model.patch=\"8\""],
            &[
                "`model.patch`",
                "found string \"8\"",
                "expected a whole number",
            ],
        ),
        (
            &["model.patch=-8"],
            &["`model.patch`", "-8", "a whole number, 0 or more"],
        ),
        (
            &["augment.flip_p=yes"],
            &["`augment.flip_p`", "\"yes\"", "a number"],
        ),
        (
            &["augment.mean=[1,2]"],
            &["`augment.mean`", "length 2", "3"],
        ),
        (&["data=3"], &["`data`", "3", "an object {...}"]),
        (
            &["model.arch=vit_smal"],
            &[
                "`model.arch` is \"vit_smal\"",
                "\"vit_small\" or \"vit_base\"",
                "mean \"vit_small\"?",
            ],
        ),
        (
            &["optimizer.base_lr=null"],
            &["`optimizer.base_lr` is missing"],
        ),
        (&["batch=null"], &["`batch` is missing"]),
        (
            &["batch.x=1"],
            &["--set batch.x=1", "`batch` is 64", "no keys"],
        ),
        (&["base=other.json"], &["`base`", "only inside a file"]),
        (&["batch"], &["\"batch\"", "KEY=JSON"]),
        (&["a..b=1"], &["\"a..b\"", "joined by dots"]),
        (&["augment.mean=[1,"], &["[1,", "not valid JSON"]),
        (
            &["model.patch=15"],
            &["`model.patch` (15)", "`model.image_size` (224)", "210, 225"],
        ),
        (
            &[
                "model.arch=vit",
                "model.blocks=2",
                "model.dim=64",
                "model.heads=5",
            ],
            &["`model.heads` (5)", "`model.dim` (64)", "60, 65"],
        ),
        (
            &[
                "model.arch=vit",
                "model.blocks=2",
                "model.dim=66",
                "model.heads=3",
            ],
            &["`model.dim` (66)", "divisible by 4", "64, 68"],
        ),
        (
            &["model.arch=vit"],
            &["`model.blocks` is missing", "`model.arch` \"vit\""],
        ),
        (
            &["model.blocks=4"],
            &["`model.blocks` is 4", "\"vit_small\" has 12"],
        ),
        (
            &["model.patch=1", "model.image_size=512"],
            &["`model.patch` (1)", "262144"],
        ),
        (
            &["mesh.data=3"],
            &["`batch` (64)", "`mesh.data` (3 devices)", "63, 66"],
        ),
        (&["mesh.data=128"], &["`batch` (64)", "are: 128"]),
        (&["accumulate=2"], &["`accumulate` is 2; expected 1"]),
        (
            &["optimizer_sharding=zero1"],
            &["\"zero1\"", "\"replicated\""],
        ),
        (
            &["on_unhealthy=rewind"],
            &["\"rewind\"", "\"continue\" or \"stop\""],
        ),
        (
            &["schedule.total_steps=5"],
            &["`schedule.epochs` (10)", "`schedule.total_steps` (5)"],
        ),
        (&["schedule.epochs=null"], &["no length", "`total_steps`"]),
        (
            &["schedule.warmup_epochs=11"],
            &["`schedule.warmup_epochs` 11", "`schedule.epochs` 10"],
        ),
        (
            &["augment.blur_p=[1,1.5]"],
            &["`augment.blur_p[1]` is 1.5", "0 to 1"],
        ),
        (
            &["augment.crop_min=0"],
            &["`augment.crop_min` is 0", "more than 0"],
        ),
        (
            &["method.temperature=0"],
            &["`method.temperature` is 0", "more than 0"],
        ),
        (
            &["method.projector.out=64"],
            &[
                "`method.projector.out` (64)",
                "`method.predictor.out` (256)",
            ],
        ),
        (
            &["optimizer.beta2=1"],
            &["`optimizer.beta2` is 1", "less than 1"],
        ),
        (
            &["checkpoint.every_steps=100", "checkpoint.keep_every=150"],
            &[
                "`checkpoint.keep_every` (150)",
                "`checkpoint.every_steps` (100)",
            ],
        ),
        (
            &["monitor.queue=32"],
            &["`monitor.queue` (32)", "`batch` (64)"],
        ),
        (
            &["eval.every_steps=5", "eval.every_epochs=1"],
            &["`eval.every_epochs` (1)", "`eval.every_steps` (5)"],
        ),
        (&["data.path="], &["`data.path` is empty"]),
    ];
    for (overrides, parts) in cases {
        check(with(overrides), parts);
    }
}

#[test]
fn defaults_are_those_of_the_recipe() {
    let config = with(&[]).unwrap();
    // RECIPES: ViT-S has 12 heads; Sec. 4's heads; tau .2; m .99 cosine.
    assert_eq!(
        (config.model.blocks, config.model.dim, config.model.heads),
        (12, 384, 12)
    );
    assert_eq!(config.model.patches(), 196);
    assert_eq!(
        (config.method.temperature, config.method.momentum),
        (0.2, 0.99)
    );
    assert_eq!(
        config.method.projector,
        Head {
            layers: 3,
            hidden: 4096,
            out: 256
        }
    );
    assert_eq!(
        config.method.predictor,
        Head {
            layers: 2,
            hidden: 4096,
            out: 256
        }
    );
    assert_eq!(config.peak_lr(), 1e-3 * 64.0 / 256.0);
    let huge = with(&["model.arch=vit_huge"]).unwrap();
    assert_eq!((huge.model.patch, huge.model.patches()), (14, 256));
}

#[test]
fn a_resolved_configuration_resolves_to_itself() {
    for overrides in [
        &[][..],
        &[
            "schedule.warmup_epochs=1.5",
            "data.path=/some/where",
            "seed=18446744073709551615",
        ],
        &[
            "schedule.epochs=null",
            "schedule.total_steps=7",
            "eval.every_epochs=0.1",
        ],
        &[
            "model.arch=vit",
            "model.blocks=1",
            "model.dim=8",
            "model.heads=2",
            "about.x=[1]",
        ],
    ] {
        let config = with(overrides).unwrap();
        let text = serde_json::to_string(&config.to_value()).unwrap();
        let again = RunConfig::from_value(serde_json::from_str(&text).unwrap()).unwrap();
        assert_eq!(config, again);
        assert_eq!(config.fingerprint(), again.fingerprint());
    }
}

#[test]
fn an_override_is_json_or_a_bare_word() {
    for (text, expected) in [
        ("a.b=1e-3", json!(1e-3)),
        ("a.b=[1,2]", json!([1, 2])),
        ("a.b=null", Value::Null),
        ("a.b=\"8\"", json!("8")),
        ("a.b=/data/x=y", json!("/data/x=y")),
        ("a.b=", json!("")),
    ] {
        let entry: Override = text.parse().unwrap();
        assert_eq!((entry.key.as_str(), entry.value), ("a.b", expected));
    }
}

/// Writes the files into a fresh folder and loads `a/main.json`.
fn load_files(files: &[(&str, &str)]) -> anyhow::Result<RunConfig> {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    RunConfig::load(&folder.path().join("a/main.json"), &[])
}

#[test]
fn a_file_overrides_its_bases_key_by_key() {
    let mut base = least();
    base["about"] = json!({"title": "base", "note": "kept"});
    base["monitor"] = json!({"queue": 640});
    let config = load_files(&[
        ("base.json", &base.to_string()),
        (
            "a/middle.json",
            r#"{"base": "../base.json", "seed": 4, "batch": 32}"#,
        ),
        (
            "a/main.json",
            r#"{"base": "middle.json", "batch": 128, "about": {"title": "main"},
                "model": {"patch": 32}, "monitor": {"queue": null}}"#,
        ),
    ])
    .unwrap();
    assert_eq!(
        (config.seed, config.batch, config.model.patch),
        (4, 128, 32)
    );
    assert_eq!(config.about["title"], "main");
    assert_eq!(config.about["note"], "kept");
    assert_eq!(config.monitor.queue, None);
}

#[test]
fn wrong_files_and_bases_are_refused() {
    // The files, then parts of the message.
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);
    let cases: &[Case] = &[
        (&[], &["cannot open", "a/main.json"]),
        (&[("a/main.json", "[]")], &["a/main.json", "no object"]),
        (
            &[("a/main.json", "{\"seed\": 1,}")],
            &["not valid JSON", "line 1 column"],
        ),
        (
            &[("a/main.json", r#"{"base": 3}"#)],
            &["`base` is 3", "a path"],
        ),
        (
            &[("a/main.json", r#"{"base": "no.json"}"#)],
            &["cannot open the `base`", "no.json"],
        ),
        (
            &[("a/main.json", r#"{"base": "main.json"}"#)],
            &["leads back", "its own base"],
        ),
        (
            &[
                ("a/main.json", r#"{"base": "../b.json"}"#),
                ("b.json", r#"{"base": "a/main.json"}"#),
            ],
            &["leads back", "main.json"],
        ),
        (
            &[("a/main.json", r#"{"base": "/etc/passwd"}"#)],
            &["/etc/passwd", "relative path"],
        ),
        (
            &[("a/main.json", r#"{"base": "../../b.json"}"#)],
            &["../../b.json", "folder above"],
        ),
        (
            &[("a/main.json", r#"{"base": "x/../../../b.json"}"#)],
            &["folder above"],
        ),
    ];
    for (files, parts) in cases {
        check(load_files(files), parts);
    }
    let long = format!("{{\"about\": {{\"x\": \"{}\"}}}}", "y".repeat(1 << 20));
    check(
        load_files(&[("a/main.json", &long)]),
        &["longer than 1048576 bytes"],
    );
}

#[cfg(unix)]
#[test]
fn a_base_does_not_escape_through_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("x/a");
    fs::create_dir_all(&deep).unwrap();
    fs::write(folder.path().join("secret.json"), "{}").unwrap();
    std::os::unix::fs::symlink(folder.path().join("secret.json"), deep.join("b.json")).unwrap();
    fs::write(deep.join("main.json"), r#"{"base": "b.json"}"#).unwrap();
    check(
        RunConfig::load(&deep.join("main.json"), &[]),
        &["`base` is \"b.json\"", "folder above"],
    );
}

#[test]
fn only_what_changes_the_run_matters_on_resume() {
    let cases: &[(&str, Effect)] = &[
        ("seed=1", Effect::Run),
        ("batch=32", Effect::Run),
        ("model.compute_dtype=f32", Effect::Run),
        ("monitor.queue=128", Effect::Run),
        ("data.exif=false", Effect::Run),
        ("data.synthetic.seed=1", Effect::Run),
        ("augment.jitter=[0,0,0,0]", Effect::Run),
        ("schedule.warmup_steps=1", Effect::Run),
        ("mesh.data=2", Effect::Rounding),
        ("lowering=scan", Effect::Rounding),
        ("about.title=x", Effect::Nothing),
        ("checkpoint.every_steps=7", Effect::Nothing),
        ("monitor.knn_every=7", Effect::Nothing),
        ("data.workers=3", Effect::Nothing),
        ("data.prefetch=3", Effect::Nothing),
        ("eval.at_start=false", Effect::Nothing),
    ];
    let old = with(&[]).unwrap();
    for (change, effect) in cases {
        let new = with(&[change]).unwrap();
        let all = differences(&old, &new);
        let (key, _) = change.split_once('=').unwrap();
        assert_eq!(all.len(), 1, "{change}: {all:?}");
        assert_eq!((all[0].key.as_str(), all[0].effect), (key, *effect));
        let matters = *effect == Effect::Run;
        assert_eq!(
            !diff_that_matters(&old, &new).is_empty(),
            matters,
            "{change}"
        );
        assert_eq!(old.fingerprint() != new.fingerprint(), matters, "{change}");
    }
}

#[test]
fn pictures_may_move_but_not_become_others() {
    let here = with(&["data.path=/here"]).unwrap();
    let there = with(&["data.path=/there", "data.synthetic.seed=9"]).unwrap();
    assert!(diff_that_matters(&here, &there).is_empty());
    assert!(!diff_that_matters(&here, &with(&[]).unwrap()).is_empty());
}

#[test]
fn every_known_key_is_a_key_of_the_resolved_configuration_or_has_a_reason() {
    // What schedules and files may say in another way.
    let only_written = [
        "$schema",
        "base",
        "schedule.total_steps",
        "schedule.warmup_epochs",
    ];
    let resolved = with(&[]).unwrap().to_value();
    let keys = explain::known_keys();
    assert!(keys.len() > 60, "the schema lost its sections: {keys:?}");
    for key in keys
        .iter()
        .filter(|key| !only_written.contains(&key.as_str()))
    {
        let pointer = format!("/{}", key.replace('.', "/"));
        assert!(
            resolved.pointer(&pointer).is_some(),
            "{key} is not in config.json"
        );
    }
}

#[test]
fn schedules_follow_the_published_formulas() {
    // 312 steps an epoch at a batch of 4096 (RECIPES); ViT: 40 of 300 epochs.
    let config = with(&["schedule.epochs=300", "schedule.warmup_epochs=40"]).unwrap();
    let schedule = config.schedule.resolve(312).unwrap();
    assert_eq!(
        schedule,
        ResolvedSchedule {
            total_steps: 93_600,
            warmup_steps: 12_480
        }
    );
    let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} against {b}");
    close(schedule.lr(2.4e-3, 0), 0.0);
    close(schedule.lr(2.4e-3, 6_240), 1.2e-3);
    close(schedule.lr(2.4e-3, 12_480), 2.4e-3);
    // Half of the cosine is half of the peak, two thirds a quarter.
    close(schedule.lr(2.4e-3, 12_480 + 81_120 / 2), 1.2e-3);
    close(schedule.lr(2.4e-3, 12_480 + 81_120 * 2 / 3), 0.6e-3);
    close(schedule.lr(2.4e-3, 93_600), 0.0);
    close(schedule.momentum(&config.method, 0), 0.99);
    close(schedule.momentum(&config.method, 46_800), 0.995);
    close(schedule.momentum(&config.method, 93_600), 1.0);
    let constant = with(&["method.momentum_schedule=constant"]).unwrap();
    close(schedule.momentum(&constant.method, 46_800), 0.99);
}

#[test]
fn a_schedule_that_the_data_cannot_hold_is_refused() {
    let mixed = with(&["schedule.epochs=2", "schedule.warmup_steps=9"]).unwrap();
    check(
        mixed.schedule.resolve(4),
        &[
            "`schedule.warmup_steps` 9",
            "`schedule.epochs` 2",
            "9 steps against 8",
        ],
    );
    assert_eq!(mixed.schedule.resolve(5).unwrap().total_steps, 10);
    check(
        mixed.schedule.resolve(0),
        &["fewer pictures than one `batch`"],
    );
}

#[test]
fn the_queue_holds_a_tenth_but_at_most_half() {
    let monitor = Monitor::default();
    for (images, batch, expected) in [
        (1_281_167, 4096, 126_976), // 31 batches of 4096 in 128,116
        (50_000, 128, 4992),
        (10_000, 128, 4096),
        (256, 128, 128),
        (256, 256, 0),
    ] {
        assert_eq!(monitor.queue_size(images, batch), expected);
    }
}

#[test]
fn evaluation_intervals_come_from_epochs_or_steps() {
    let interval = |set: &[&str]| with(set).unwrap().eval.interval(10);
    assert_eq!(interval(&[]), None);
    assert_eq!(interval(&["eval.every_epochs=2.5"]), Some(25));
    assert_eq!(interval(&["eval.every_steps=7"]), Some(7));
}
