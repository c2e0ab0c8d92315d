//! Everything that must be refused, and what the message must say.

use std::fs;

use super::*;
use crate::error::BadInput;

/// Fails unless `result` is a BadInput whose chain has every one of `parts`.
pub(super) fn check<T: std::fmt::Debug>(result: anyhow::Result<T>, parts: &[&str]) {
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
        (&["batch.x=1"], &["`batch` is 64", "no keys"]),
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
        (&["accumulate=0"], &["`accumulate` is 0; expected 1 to"]),
        (
            &["accumulate=12", "mesh.data=2"],
            &["`accumulate` (12)", "the 32 pictures", "do: 8, 16"],
        ),
        (&["accumulate=100"], &["`accumulate` (100)", "do: 32"]),
        (
            &["optimizer_sharding=zero3"],
            &["\"zero3\"", "\"replicated\" or \"zero1\""],
        ),
        (
            &["on_unhealthy=rewind"],
            &["\"rewind\"", "\"continue\" or \"stop\""],
        ),
        (
            &["model.attention=fused", "model.compute_dtype=f32"],
            &["`model.attention` is \"fused\"", "set one of them"],
        ),
        (
            &["gpu.memory_fraction=0"],
            &["`gpu.memory_fraction` is 0; expected more than 0"],
        ),
        (
            &["gpu.allocator=malloc"],
            &["`gpu.allocator` is \"malloc\"", "\"cuda_async\""],
        ),
        (
            &["compiler_options={\"fast\": true}"],
            &["`compiler_options.fast`", "begin with xla_"],
        ),
        (
            &["compiler_options={\"xla_a\": [1]}"],
            &["`compiler_options.xla_a` is [1]", "a number or text"],
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
            &["method.projector.out=64", "method.predictor.out=256"],
            &[
                "`method.projector.out` (64)",
                "`method.predictor.out` (256)",
            ],
        ),
        (
            &["method.name=mocov3"],
            &["`method.name` is \"mocov3\"", "\"moco_v3\"?"],
        ),
        (
            &["method.name=swav", "method.swav.queue=32"],
            &["`method.swav.queue` (32)", "`batch` (64)"],
        ),
        (
            &["method.name=swav", "method.swav.sinkhorn_epsilon=1e-3"],
            &["`method.swav.sinkhorn_epsilon` is 0.001", "0.03 to 10"],
        ),
        (&["batch=1"], &["`batch` is 1", "\"moco_v3\"", "2 or more"]),
        (
            &["optimizer.name=lars", "optimizer.beta1=0.8"],
            &["`optimizer.beta1` is 0.8", "\"lars\" has no such number"],
        ),
        (
            &["optimizer.name=sgd", "optimizer.momentum=1"],
            &["`optimizer.momentum` is 1", "less than 1"],
        ),
        (
            &["optimizer.groups=[{\"pattern\": \"*\", \"lr_scal\": 1}]"],
            &[
                "`optimizer.groups[0].lr_scal`",
                "`optimizer.groups[0].lr_scale`?",
                "pattern, lr_scale",
            ],
        ),
        (
            &["optimizer.groups=[{\"pattern\": \"*\", \"clip_norm\": 0}]"],
            &["`optimizer.groups[0].clip_norm` is 0", "more than 0"],
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
