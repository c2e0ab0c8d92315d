//! Backbones that do not fit together, and what the message must say.

use super::refused::check;
use super::*;

#[test]
fn backbones_that_cannot_be_are_refused() {
    let resnet = ["model.arch=resnet", "model.block=basic"];
    let cases: &[(&[&str], &[&str])] = &[
        (
            &["model.arch=resnet50", "model.patch=16"],
            &[
                "`model.patch` is given",
                "\"resnet50\" is a ResNet",
                "to null",
            ],
        ),
        (
            &["model.arch=resnet18", "model.position=learned"],
            &["`model.position` is given"],
        ),
        (
            &["model.stages=[1]"],
            &["`model.stages` is given", "\"vit_small\" is a ViT"],
        ),
        (
            &["model.arch=resnet50", "model.stages=[3,4,23,3]"],
            &[
                "`model.stages` is [3,4,23,3]",
                "\"resnet50\" has [3,4,6,3]",
                "`model.arch` to \"resnet\" and give `block` and `stages`",
            ],
        ),
        (&resnet, &["`model.stages` is missing", "\"resnet\" needs"]),
        (
            &[&resnet[..], &["model.stages=[1,0]"]].concat(),
            &["`model.stages[1]` is 0", "1 to 1024"],
        ),
        (
            &[&resnet[..], &["model.stages=[]"]].concat(),
            &["`model.stages` has 0 stages"],
        ),
        (
            &[
                "model.arch=vit_conv_small",
                "model.patch_projection=\"frozen\"",
            ],
            &["`model.patch_projection` is \"frozen\"", "\"conv_stem\""],
        ),
        (
            &["model.patch_projection=conv_stem", "model.patch=14"],
            &["`model.patch` is 14", "2, 4, 8, 16 or 32"],
        ),
        (
            &[
                "model.arch=vit",
                "model.blocks=1",
                "model.dim=20",
                "model.heads=1",
                "model.patch_projection=conv_stem",
            ],
            &["`model.dim` (20)", "divisible by 8", "16, 24"],
        ),
        (
            &["model.mlp_norm=batch", "lowering=scan"],
            &["`lowering` is \"scan\"", "running statistics", "\"remat\""],
        ),
        (
            &["model.arch=resnet50", "lowering=scan"],
            &["`lowering` is \"scan\"", "\"resnet50\" has not"],
        ),
        (
            &["model.arch=resnet50", "lowering=remat_mlp"],
            &["`lowering` is \"remat_mlp\"", "to \"remat\""],
        ),
    ];
    for (overrides, parts) in cases {
        check(with(overrides), parts);
    }
    // A loop needs equal blocks of LN, not more.
    with(&["model.patch_projection=conv_stem", "lowering=scan"]).unwrap();
    with(&["model.dim=null", "model.position=none"]).unwrap();
}

/// What `accumulate` must know: who looks at the batch.
#[test]
fn backbones_with_batch_norm_are_told_apart() {
    for (overrides, expected) in [
        (&[][..], false),
        (&["model.patch_projection=weight_norm"], false),
        (&["model.patch_projection=batch_norm"], true),
        (&["model.arch=vit_conv_base"], true),
        (&["model.mlp_norm=batch"], true),
        (&["model.arch=resnet18"], true),
    ] {
        let model = with(overrides).unwrap().model;
        assert_eq!(model.has_batch_norm(), expected, "{overrides:?}");
    }
}

/// RECIPES, "Architecture" and the table; the originals of the other methods.
#[test]
fn defaults_on_a_resnet_are_those_of_the_original_code() {
    use HeadNorm::{All, Hidden};
    let head = |layers, hidden, out, norm| Head {
        layers,
        hidden,
        out,
        norm,
    };
    for (name, tau, projector, predictor) in [
        (
            "moco_v3",
            Some(1.0),
            head(2, 4096, 256, All),
            Some(head(2, 4096, 256, Hidden)),
        ),
        ("simclr", Some(0.1), head(2, 2048, 128, All), None),
        (
            "byol",
            None,
            head(2, 4096, 256, Hidden),
            Some(head(2, 4096, 256, Hidden)),
        ),
        ("swav", Some(0.1), head(2, 2048, 128, Hidden), None),
    ] {
        let set = format!("method.name={name}");
        let method = with(&["model.arch=resnet50", &set]).unwrap().method;
        assert_eq!((method.temperature, &method.projector), (tau, &projector));
        match predictor {
            Some(predictor) => assert_eq!(method.predictor, predictor),
            None => assert_eq!(method.predictor.layers, 0),
        }
    }
    assert_eq!(
        with(&["model.arch=resnet50"]).unwrap().model.features(),
        2048
    );
    assert_eq!(
        with(&["model.arch=resnet18"]).unwrap().model.features(),
        512
    );
}
