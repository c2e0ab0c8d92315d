//! What the shipped configurations are: recipes of the paper and their sources.

use serde_json::{Value, json};
use xla_moco::config::{Head, Length, Rule, Warmup};

use super::{MICRO, QUICKSTART, VIT_B, VIT_S, load, shipped, xla_moco};

#[test]
fn every_shipped_configuration_says_where_it_comes_from() {
    for file in shipped() {
        let config = load(&file);
        let told = |key: &str| {
            let text = config.about.get(key).and_then(Value::as_str);
            text.filter(|text| !text.is_empty())
                .unwrap_or_else(|| panic!("{file}: about.{key}"))
        };
        told("title");
        told("source");
        assert!(
            told("command").contains(&file),
            "{file}: {}",
            told("command")
        );
        if file.starts_with("configs/paper") {
            told("hours");
            // By tools/pod_configs.py.
            assert!(told("hours_estimated").contains("estimate"), "{file}");
            let number = told("published");
            assert!(number.contains('%') || number == "none", "{file}: {number}");
        }
    }
}

/// Builds every train step: gradients, optimizer and all.
#[test]
fn every_shipped_configuration_builds() {
    let output = xla_moco(&["configs", "--check"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let listed: Vec<&str> = text
        .lines()
        .map(|line| line.strip_prefix("ok     ").expect("only good ones"))
        .collect();
    assert_eq!(listed, shipped());
    assert!(listed.len() >= 75, "{} configurations", listed.len());
}

/// DESIGN 8: works with 256 pictures, and is warm well before step 100.
#[test]
fn the_quickstart_keeps_its_promises() {
    let config = load(QUICKSTART);
    assert!(config.data.is_synthetic());
    assert!(config.batch <= 256 && config.batch.is_multiple_of(4));
    let schedule = config
        .schedule
        .resolve((256 / config.batch) as u64)
        .unwrap();
    assert!(schedule.warmup_steps <= 60);
    assert!(schedule.total_steps > 120);
    assert!(config.monitor.queue_size(256, config.batch) > 0);
}

/// YARDSTICKS, "Learning".
#[test]
fn the_micro_recipe_is_that_of_the_yardstick() {
    let config = load(MICRO);
    let (model, method) = (&config.model, &config.method);
    let vit = model.vit().unwrap();
    assert_eq!((vit.blocks, vit.dim, vit.heads), (4, 128, 4));
    assert_eq!((model.image_size, vit.patch), (32, 8));
    assert_eq!((method.projector.hidden, method.projector.out), (512, 128));
    assert_eq!((method.predictor.hidden, method.predictor.out), (512, 128));
    assert_eq!((config.batch, config.peak_lr()), (128, 5e-4));
    assert_eq!(config.schedule.length, Length::Steps(1500));
    assert_eq!(config.schedule.warmup, Warmup::Steps(150));
    assert_eq!(
        (config.augment.crop_min, config.augment.blur_p),
        (0.25, [0.0, 0.0])
    );
    assert_eq!((config.eval.knn_k, config.eval.knn_temperature), (20, 0.07));
}

/// RECIPES, the table: base lr 1.5e-4 at 4096 pictures, 40 of 300 epochs.
#[test]
fn the_papers_recipes_differ_only_in_the_model() {
    let (small, base) = (load(VIT_S), load(VIT_B));
    assert!((base.peak_lr() - 2.4e-3).abs() < 1e-12);
    assert_eq!(base.schedule.length, Length::Epochs(300.0));
    assert_eq!(base.schedule.warmup, Warmup::Epochs(40.0));
    // The authors' 312 steps an epoch.
    assert_eq!(1_281_167 / base.batch, 312);
    let changed: Vec<String> = xla_moco::config::diff_that_matters(&small, &base)
        .into_iter()
        .map(|difference| difference.key)
        .collect();
    assert_eq!(changed, ["model.arch", "model.dim"]);
}

/// RECIPES, the table's rows of ResNet-50; appendix A for 800 epochs.
#[test]
fn the_recipes_of_resnet_50_are_the_tables() {
    for (epochs, base_lr, weight_decay, momentum) in [
        (100, 0.6, 1e-6, 0.99),
        (300, 0.3, 1e-6, 0.99),
        (800, 0.3, 1.5e-6, 0.996),
        (1000, 0.3, 1.5e-6, 0.996),
    ] {
        let config = load(&format!("configs/paper/moco_v3_r50_{epochs}ep.json"));
        let (optimizer, method) = (&config.optimizer, &config.method);
        assert_eq!(optimizer.base_lr, base_lr, "{epochs}");
        assert_eq!(optimizer.weight_decay, weight_decay, "{epochs}");
        assert_eq!(method.momentum, momentum, "{epochs}");
        assert_eq!((config.batch, method.temperature), (4096, Some(1.0)));
        assert_eq!(config.augment.crop_min, 0.2);
        assert_eq!(config.schedule.warmup, Warmup::Epochs(10.0));
        assert_eq!(config.schedule.length, Length::Epochs(f64::from(epochs)));
    }
}

/// The public code of SimCLR, BYOL and SwAV, as `about.recipe` of each says.
#[test]
fn the_recipes_of_other_methods_on_resnets_are_their_authors() {
    let strong = ([0.8, 0.8, 0.8, 0.2], [0.5, 0.5], [0.0, 0.0]);
    let asymmetric = ([0.4, 0.4, 0.2, 0.1], [1.0, 0.1], [0.0, 0.2]);
    for (file, base_lr, weight_decay, (jitter, blur_p, solarize_p), heads) in [
        (
            "simclr_r50_800ep",
            0.3,
            1e-6,
            strong,
            [(2, 2048, 128), (0, 4096, 128)],
        ),
        (
            "byol_r50_800ep",
            0.2,
            1.5e-6,
            asymmetric,
            [(2, 4096, 256); 2],
        ),
        (
            "byol_r200_2x_1000ep",
            0.2,
            1.5e-6,
            asymmetric,
            [(2, 4096, 256); 2],
        ),
        (
            "swav_r50_800ep",
            0.3,
            1e-6,
            strong,
            [(2, 2048, 128), (0, 4096, 128)],
        ),
    ] {
        let config = load(&format!("configs/paper/{file}.json"));
        let (optimizer, method, augment) = (&config.optimizer, &config.method, &config.augment);
        assert_eq!(optimizer.base_lr, base_lr, "{file}");
        assert_eq!(optimizer.weight_decay, weight_decay, "{file}");
        let lars = Rule::Lars {
            momentum: 0.9,
            trust_coefficient: 0.001,
        };
        assert_eq!(optimizer.rule, lars, "{file}");
        assert_eq!(config.batch, 4096);
        assert_eq!(config.schedule.warmup, Warmup::Epochs(10.0), "{file}");
        let sizes = |head: &Head| (head.layers, head.hidden, head.out);
        assert_eq!(
            [&method.projector, &method.predictor].map(sizes),
            heads,
            "{file}"
        );
        assert_eq!(augment.crop_min, 0.08, "{file}");
        assert_eq!((augment.jitter, augment.jitter_p), (jitter, 0.8), "{file}");
        assert_eq!(
            (augment.blur_p, augment.solarize_p),
            (blur_p, solarize_p),
            "{file}"
        );
        assert_eq!(
            (augment.gray_p, augment.blur_sigma),
            (0.2, [0.1, 2.0]),
            "{file}"
        );
        match file.starts_with("byol") {
            true => assert_eq!((method.momentum, method.temperature), (0.996, None)),
            false => assert_eq!(method.temperature, Some(0.1), "{file}"),
        }
        if let Some(swav) = &method.swav {
            assert_eq!((swav.prototypes, swav.freeze_prototypes_steps), (3000, 313));
            assert_eq!((swav.sinkhorn_epsilon, swav.sinkhorn_iterations), (0.05, 3));
            assert_eq!(swav.queue, 0);
        }
    }
}

/// The paper's ablations, against the recipe they vary: the keys in which
/// they differ, with the paper's values.
#[test]
fn an_ablation_changes_what_its_name_says_and_nothing_else() {
    let cases: &[(&str, &[(&str, Value)])] = &[
        (
            "moco_v3_vit_b16_600ep",
            &[("schedule.epochs", json!(600.0))],
        ),
        (
            "moco_v3_vit_b16_100ep_batch_1024",
            &[
                ("batch", json!(1024)),
                ("model.patch_projection", json!("learned")),
                ("optimizer.base_lr", json!(1e-4)),
                ("schedule.epochs", json!(100.0)),
            ],
        ),
        (
            "moco_v3_vit_b16_100ep_lamb_lr_6e-4",
            &[
                ("model.patch_projection", json!("learned")),
                ("optimizer.name", json!("lamb")),
                ("optimizer.eps", json!(1e-6)),
                ("optimizer.base_lr", json!(6e-4)),
                ("optimizer.weight_decay", json!(1e-3)),
                ("schedule.epochs", json!(100.0)),
            ],
        ),
        (
            "moco_v3_vit_b16_100ep_frozen_patch_lr_0.5e-4",
            &[
                ("optimizer.base_lr", json!(0.5e-4)),
                ("schedule.epochs", json!(100.0)),
            ],
        ),
        (
            "moco_v3_vit_b16_300ep_heads_without_bn",
            &[
                ("batch", json!(2048)),
                ("method.projector.norm", json!("none")),
                ("method.predictor.norm", json!("none")),
            ],
        ),
        (
            "moco_v3_vit_b16_300ep_without_predictor",
            &[("method.predictor.layers", json!(0))],
        ),
        (
            "moco_v3_vit_b16_300ep_momentum_0.9",
            &[
                ("method.momentum", json!(0.9)),
                ("method.momentum_schedule", json!("constant")),
            ],
        ),
        (
            "moco_v3_vit_b16_300ep_learned_position",
            &[("model.position", json!("learned"))],
        ),
        (
            "moco_v3_vit_b16_300ep_no_position",
            &[("model.position", json!("none"))],
        ),
        (
            "moco_v3_vit_b16_300ep_norm_pool",
            &[("model.output", json!("norm_pool"))],
        ),
        (
            "moco_v3_vit_b16_300ep_pool",
            &[("model.output", json!("pool"))],
        ),
        (
            "moco_v3_vit_b16_100ep_patch_wn",
            &[
                ("model.patch_projection", json!("weight_norm")),
                ("schedule.epochs", json!(100.0)),
            ],
        ),
        (
            "moco_v3_vit_bn_b16_600ep",
            &[
                ("model.mlp_norm", json!("batch")),
                ("schedule.epochs", json!(600.0)),
            ],
        ),
        (
            "moco_v3_vit_b16_300ep_bn_crops_together",
            &[("method.bn_crops", json!("together"))],
        ),
        (
            "byol_vit_b16_300ep",
            &[
                ("method.name", json!("byol")),
                ("method.temperature", Value::Null),
                ("method.loss_scale", json!("one")),
                ("method.projector.norm", json!("hidden")),
                ("method.predictor.norm", json!("hidden")),
                ("optimizer.base_lr", json!(1e-4)),
                ("optimizer.weight_decay", json!(0.03)),
            ],
        ),
    ];
    let base = load(VIT_B);
    for (name, expected) in cases {
        let varied = load(&format!("configs/paper/{name}.json"));
        let found: Vec<(String, Value)> = xla_moco::config::diff_that_matters(&base, &varied)
            .into_iter()
            .map(|difference| (difference.key, difference.new))
            .collect();
        let expected: Vec<(String, Value)> = expected
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone()))
            .collect();
        assert_eq!(found, expected, "{name}");
    }
}
