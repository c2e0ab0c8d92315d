use std::fs;

use serde_json::{Value, json};

use super::*;

mod model;
mod refused;
mod warned;

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

#[test]
fn defaults_are_those_of_the_recipe() {
    let config = with(&[]).unwrap();
    // RECIPES: ViT-S has 12 heads; Sec. 5's heads; tau .2; m .99 cosine.
    let vit = config.model.vit().unwrap();
    assert_eq!((vit.blocks, vit.dim, vit.heads), (12, 384, 12));
    assert_eq!(vit.tokens(224), 1 + 196);
    assert_eq!(
        (config.method.temperature, config.method.momentum),
        (Some(0.2), 0.99)
    );
    assert_eq!(
        config.method.projector,
        Head {
            layers: 3,
            hidden: 4096,
            out: 256,
            norm: HeadNorm::All,
        }
    );
    assert_eq!(
        config.method.predictor,
        Head {
            layers: 2,
            hidden: 4096,
            out: 256,
            norm: HeadNorm::All,
        }
    );
    assert_eq!(config.peak_lr(), 1e-3 * 64.0 / 256.0);
    let huge = with(&["model.arch=vit_huge"]).unwrap().model;
    let huge = huge.vit().unwrap();
    assert_eq!((huge.patch, huge.tokens(224)), (14, 1 + 256));
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
        &["method.predictor.layers=0", "method.loss_scale=one"],
        &["model.arch=resnet50", "method.name=swav"],
        &[
            "model.arch=resnet",
            "model.block=basic",
            "model.stages=[1,2]",
            "model.width=16",
            "model.stem=3x3",
        ],
        &["model.arch=vit_conv_small", "model.output=norm_pool"],
        &[
            "model.mlp_norm=batch",
            "model.position=none",
            "model.patch=7",
        ],
        &["method.name=simclr", "optimizer.name=lamb"],
        &[
            "method.name=byol",
            "optimizer.name=sgd",
            "optimizer.clip_norm=1",
        ],
        &[
            "method.name=swav",
            "optimizer.name=lars",
            "optimizer.groups=[{\"pattern\": \"*.bias\", \"weight_decay\": 0}]",
        ],
    ] {
        let config = with(overrides).unwrap();
        let text = serde_json::to_string(&config.to_value()).unwrap();
        let again = RunConfig::from_value(serde_json::from_str(&text).unwrap()).unwrap();
        assert_eq!(config, again);
        assert_eq!(config.fingerprint(), again.fingerprint());
    }
}

/// Parsing must give back the very number that was printed, or a resume would
/// be refused for a last bit.
#[test]
fn numbers_survive_config_json_to_the_last_bit() {
    let mut stream = crate::rng::Stream::new(0, crate::rng::Purpose::Test, (0, 0));
    let mut config = with(&[]).unwrap();
    for _ in 0..2000 {
        config.optimizer.base_lr = stream.range(1e-7, 1e-3);
        let text = config.to_value().to_string();
        let again = RunConfig::from_value(serde_json::from_str(&text).unwrap()).unwrap();
        assert_eq!(again.optimizer.base_lr, config.optimizer.base_lr);
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
        (config.seed, config.batch, config.model.vit().unwrap().patch),
        (4, 128, 32)
    );
    assert_eq!(config.about["title"], "main");
    assert_eq!(config.about["note"], "kept");
    assert_eq!(config.monitor.queue, None);
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
        ("method.bn_crops=together", Effect::Run),
        ("method.projector.norm=none", Effect::Run),
        ("optimizer.clip_norm=1", Effect::Run),
        ("optimizer.groups=[{\"pattern\":\"*\"}]", Effect::Run),
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
    // Some keys are of one method, optimizer or kind of backbone only.
    let resolved = [
        &["optimizer.groups=[{\"pattern\": \"*\"}]"][..],
        &["method.name=simclr", "optimizer.name=lars"],
        &["method.name=swav", "model.arch=resnet18"],
        &[
            "method.name=supervised",
            "method.supervised.classes=10",
            "augment.rand_augment={}",
        ],
    ]
    .map(|overrides| with(overrides).unwrap().to_value());
    let keys = explain::known_keys();
    assert!(keys.len() > 60, "the schema lost its sections: {keys:?}");
    for key in keys
        .iter()
        .filter(|key| !only_written.contains(&key.as_str()))
    {
        let pointer = format!("/{}", key.replace("[]", ".0").replace('.', "/"));
        assert!(
            resolved.iter().any(|c| c.pointer(&pointer).is_some()),
            "{key} is not in config.json"
        );
    }
}

/// RECIPES, "Other methods": what each has, and that keys of others are
/// neither kept nor in the way.
#[test]
fn a_method_has_what_is_its_own() {
    let of_all = [
        "method.momentum=0.9",
        "method.loss_scale=two_tau",
        "method.predictor.layers=2",
        "method.negatives=other_view",
        "method.swav.prototypes=30",
    ];
    for (name, temperature, momentum, predictor, negatives, swav) in [
        ("moco_v3", Some(0.2), 0.9, 2, None, false),
        (
            "simclr",
            Some(0.1),
            0.0,
            0,
            Some(Negatives::OtherView),
            false,
        ),
        ("byol", None, 0.9, 2, None, false),
        ("swav", Some(0.1), 0.0, 0, None, true),
    ] {
        let named = format!("method.name={name}");
        let m = with(&[&[named.as_str()][..], &of_all].concat())
            .unwrap()
            .method;
        assert_eq!(
            (m.temperature, m.momentum),
            (temperature, momentum),
            "{name}"
        );
        assert_eq!(
            (m.predictor.layers, m.negatives),
            (predictor, negatives),
            "{name}"
        );
        assert_eq!(
            m.swav.map(|swav| swav.prototypes),
            swav.then_some(30),
            "{name}"
        );
    }
    let norms = |name: &str| {
        let m = with(&[&format!("method.name={name}")]).unwrap().method;
        (m.projector.norm, m.bn_crops)
    };
    assert_eq!(norms("simclr"), (HeadNorm::All, Crops::Together));
    assert_eq!(norms("byol"), (HeadNorm::Hidden, Crops::Apart));
    assert_eq!(norms("swav"), (HeadNorm::None, Crops::Together));
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
