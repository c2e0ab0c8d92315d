//! Runs that fail, and what is said of them.

use super::support::{Ended, STEPS, Site, binary, text};

/// A learning rate that no model survives: after the first step with it all is
/// infinite or NaN.
const DIVERGES: [&str; 4] = [
    "--set",
    "optimizer.base_lr=1e30",
    "--set",
    "schedule.warmup_steps=0",
];

#[test]
fn it_stops_the_run_where_that_is_asked_for() {
    let site = Site::new();
    let ended = site.train(&[&DIVERGES[..], &["--set", "on_unhealthy=stop"]].concat());
    assert_eq!(ended.code, Some(3), "{ended:?}");
    ended.says(&["the run has diverged", "optimizer.base_lr"]);
    let told = site.events("non_finite_loss");
    assert_eq!(told.len(), 1);
    // What is known is written: the line of that step has no loss.
    let step = told[0]["step"].as_u64().unwrap() as usize;
    let lines = site.lines("metrics.jsonl");
    assert_eq!(lines.len(), step);
    assert!(lines[step - 1]["loss"].is_null());
    assert!(site.run().join("report.html").is_file());
}

#[test]
fn it_is_told_once_and_the_run_goes_on_otherwise() {
    let site = Site::new();
    let ended = site.train(&DIVERGES);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    ended.says(&["the run is unhealthy: diverged"]);
    assert!(ended.stdout.contains("health: diverged: the loss"));
    assert_eq!(site.lines("metrics.jsonl").len(), STEPS);
    assert_eq!(site.events("non_finite_loss").len(), 1);

    let status = status(&site, &["--json"]);
    assert_eq!(status.code, Some(3), "{status:?}");
    let said: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(said["verdict"], "diverged");
    assert_eq!(said["step"], STEPS);
    assert!(said["now"]["loss"].is_null());
    let page = std::fs::read_to_string(site.run().join("report.html")).unwrap();
    assert!(page.contains("<b>diverged</b>"));
}

fn status(site: &Site, more: &[&str]) -> Ended {
    Ended::of(binary().args(["status", text(&site.run())]).args(more))
}

/// No run of a few steps is unhealthy by chance.
#[test]
fn a_run_of_a_few_steps_is_too_early_to_tell() {
    let site = Site::new();
    let learned = ["--set", "model.patch_projection=learned"];
    let early = site.trained(&[&learned[..], &["--steps", "4"]].concat());
    assert!(early.stdout.contains("health: too early to tell\n"));
    let ended = site.trained(&learned);
    assert!(ended.stdout.contains("health: too early to tell\n"));
    let status = status(&site, &[]);
    assert_eq!(status.code, Some(0), "{status:?}");
    assert!(status.stdout.starts_with("too early to tell\n"));

    // What a step tells: every layer's gradients, the loss's logits, spreads.
    let lines = site.lines("metrics.jsonl");
    let value = |line: &serde_json::Value, key: &str| {
        let value = line[key].as_f64();
        value.unwrap_or_else(|| panic!("no {key} in {line}"))
    };
    for (at, line) in lines.iter().enumerate() {
        let layers = [
            "patch_embed",
            "cls_token",
            "blocks.0",
            "norm",
            "head",
            "predictor",
        ];
        let squares = layers.map(|layer| value(line, &format!("grad_norm/{layer}")).powi(2));
        let all = value(line, "grad_norm");
        let sum = squares.iter().sum::<f64>().sqrt();
        assert!((sum - all).abs() < 1e-4 * all, "{sum} {all}");
        // Cosines over the temperature 0.2.
        let [positive, negative] = ["positive_logit", "negative_logit"].map(|key| value(line, key));
        assert!(positive.abs() <= 5.001 && negative.abs() <= 5.001);
        let sixteenths = 16.0 * value(line, "key_found");
        assert!((sixteenths - sixteenths.round()).abs() < 1e-4);
        for key in ["output_std", "feature_std"] {
            assert!((0.0..1.001).contains(&value(line, key)), "{line}");
        }
        // At most as many directions as the features have.
        let classified = at > 0 && (at + 1) % 5 == 0;
        assert_eq!(line.get("effective_rank").is_some(), classified, "{line}");
        if classified {
            let rank = value(line, "effective_rank");
            assert!((0.9..=32.1).contains(&rank), "{rank}");
        }
    }
    assert_eq!(lines.len(), STEPS);
}

/// The optimizer does nothing: the loss stays what chance is, or above.
#[test]
fn a_frozen_model_is_stalled_at_chance() {
    let site = Site::new();
    let ended = site.train(&[
        "--set",
        "schedule.total_steps=240",
        "--set",
        "optimizer.base_lr=1e-30",
        "--set",
        "monitor.in_step=false",
    ]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stdout.contains("health: stalled at chance"));
    assert_eq!(site.events("at_chance").len(), 1);
    assert!(
        site.lines("metrics.jsonl")[0]
            .get("grad_norm/head")
            .is_none()
    );
}
