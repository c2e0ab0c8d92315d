//! The guards: what is said, and that recipes are left in peace.

use super::*;

#[test]
fn slips_that_cost_hours_are_named_with_their_fix() {
    let small_vit = ["model.arch=vit", "model.blocks=12", "model.dim=384"];
    let cases: &[(&[&str], &[&str])] = &[
        (
            &["optimizer.base_lr=1.5e-4"],
            &["`batch` 64", "3.7e-5", "`optimizer.base_lr` to 2.0e-3"],
        ),
        (
            &["batch=4096"],
            &["`optimizer.base_lr` 0.001", "1.6e-2", "1.5e-4"],
        ),
        (
            &["schedule.warmup_epochs=6"],
            &["`schedule.warmup_epochs` 6", "`schedule.epochs` 10"],
        ),
        (
            &["method.temperature=1"],
            &["`method.temperature` 1", "to 0.2"],
        ),
        (
            &["monitor.queue=128"],
            &["`monitor.knn_k` (200)", "`monitor.queue` (128)"],
        ),
        (
            &["eval.bank_limit=10"],
            &["`eval.knn_k` (20)", "`eval.bank_limit` (10)"],
        ),
        (
            &[&small_vit[..], &["model.heads=6"]].concat(),
            &["`model.heads` to 12"],
        ),
        (
            &["model.image_size=32"],
            &["into 4 patches", "`model.patch` to 8"],
        ),
        (
            &["model.arch=resnet50", "model.image_size=32"],
            &["8x8 places", "`model.stem` to \"3x3\""],
        ),
        (
            &["method.name=byol", "method.predictor.layers=0"],
            &["collapses", "`method.predictor.layers` to 2"],
        ),
        (
            &["method.name=swav", "method.swav.sinkhorn_iterations=0"],
            &["collapses", "to 3"],
        ),
        (
            &[
                "method.name=swav",
                "schedule.epochs=null",
                "schedule.total_steps=600",
            ],
            &["`method.swav.freeze_prototypes_steps` (313)", "600"],
        ),
        (
            &[
                "batch=4096",
                "optimizer.base_lr=1.5e-4",
                "method.projector.norm=none",
            ],
            &["Sec. 6.2", "`batch` to 2048"],
        ),
    ];
    for (overrides, parts) in cases {
        let found = with(overrides).unwrap().warnings();
        assert_eq!(found.len(), 1, "{overrides:?}: {found:?}");
        for part in *parts {
            assert!(found[0].contains(part), "{part:?} is not in: {}", found[0]);
        }
    }
}

#[test]
fn recipes_are_left_in_peace() {
    for overrides in [
        &[][..],
        &["batch=4096", "optimizer.base_lr=1.5e-4"],
        &[
            "batch=4096",
            "optimizer.name=lamb",
            "optimizer.base_lr=5e-4",
        ],
        &["model.image_size=32", "model.patch=4"],
        &["schedule.warmup_epochs=4"],
        &["model.arch=resnet50", "method.temperature=1"],
        &[
            "model.arch=resnet18",
            "model.image_size=32",
            "model.stem=3x3",
        ],
    ] {
        let found = with(overrides).unwrap().warnings();
        assert!(found.is_empty(), "{overrides:?}: {found:?}");
    }
}
