//! Made-up runs of which it is known what is wrong with them.

use serde_json::{Map, Value, json};

use super::{Finding, Health, Kind, Monitor, Reading, Setting, Verdict};

const STEPS: u64 = 2000;
const BATCH: usize = 4096;
const LAYERS: [&str; 4] = ["patch_embed", "blocks.0", "blocks.11", "head"];

/// Numbers that look normally distributed, the same ones for a seed.
struct Noise(u64);

impl Noise {
    fn uniform(&mut self) -> f64 {
        // Knuth's MMIX generator; its high bits are good enough here.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        // Twelve uniform numbers have variance 1.
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}

/// A healthy run's line: loss and gradients fall, kNN rises, all noisy.
fn line(step: u64, noise: &mut Noise) -> Map<String, Value> {
    let t = step as f64 / STEPS as f64;
    let mut line = json!({
        "step": step,
        "loss": 6.65 - 4.0 * (1.0 - (-5.0 * t).exp()) + 0.05 * noise.normal(),
        "chance_loss": 6.65,
        "output_std": 0.98 + 0.01 * noise.normal(),
        "feature_std": 0.4 + 0.02 * noise.normal(),
    });
    for layer in LAYERS {
        let norm = (-2.0 * t + 0.3 * noise.normal()).exp();
        line[format!("grad_norm/{layer}")] = norm.into();
    }
    if step.is_multiple_of(10) {
        let level: f64 = 5.0 + 60.0 * (1.0 - (-3.0 * t).exp());
        let sigma = (level * (100.0 - level) / BATCH as f64).sqrt();
        line["knn_top1"] = (level + sigma * noise.normal()).into();
    }
    line.as_object().unwrap().clone()
}

/// Runs the detectors over a run of which `change` has spoilt the lines.
fn run(seed: u64, steps: u64, change: impl Fn(u64, &mut Map<String, Value>)) -> Told {
    let setting = Setting {
        batch: BATCH,
        warmup_steps: 100,
    };
    let (mut monitor, mut noise) = (Monitor::new(setting), Noise(seed));
    let (mut lines, mut findings) = (Vec::new(), Vec::new());
    for step in 1..=steps {
        let mut line = line(step, &mut noise);
        change(step, &mut line);
        findings.extend(monitor.observe(&Reading::of(&line).unwrap()));
        lines.push(line);
    }
    // Nothing is remembered that is not in the lines.
    let again = Monitor::of_lines(setting, &lines);
    assert_eq!(again.health(), monitor.health());
    Told {
        health: monitor.health(),
        findings,
    }
}

struct Told {
    health: Health,
    findings: Vec<Finding>,
}

impl Told {
    /// Asserts the verdict; gives the findings of a kind, and that there are
    /// none of another.
    fn only(&self, verdict: Verdict, kind: Kind) -> &[Finding] {
        assert_eq!(self.health.verdict, verdict, "{:?}", self.findings);
        let others = self.findings.iter().filter(|f| f.kind != kind);
        assert_eq!(others.count(), 0, "{:?}", self.findings);
        &self.findings
    }
}

fn scale(line: &mut Map<String, Value>, key: &str, factor: f64) {
    let value = line[key].as_f64().unwrap();
    line[key] = (factor * value).into();
}

fn lower_knn(line: &mut Map<String, Value>, points: f64) {
    if let Some(value) = line.get("knn_top1").and_then(Value::as_f64) {
        line["knn_top1"] = (value - points).into();
    }
}

#[test]
fn noise_alone_finds_nothing() {
    for seed in 0..50 {
        let told = run(seed, STEPS, |_, _| {});
        assert_eq!(told.findings, [], "seed {seed}");
        assert_eq!(told.health.verdict, Verdict::Healthy);
        assert_eq!(told.health.reasons, [""; 0]);
    }
}

#[test]
fn few_steps_are_too_early_whatever_they_look_like() {
    for steps in [0, 1, 4, 30, 120] {
        let told = run(1, steps, |_, line| {
            line["loss"] = 6.7.into();
            lower_knn(line, 3.0);
        });
        assert_eq!(told.findings, []);
        assert_eq!(told.health.verdict, Verdict::TooEarly);
        assert!(!told.health.verdict.is_fatal());
    }
}

#[test]
fn a_spike_is_found_in_its_layer_with_its_lead() {
    for lead in [0, 1, 27] {
        let told = run(2, STEPS, |step, line| {
            for (layer, at) in [("patch_embed", 1000), ("blocks.11", 1000 + lead)] {
                if (at..at + 5).contains(&step) {
                    scale(line, &format!("grad_norm/{layer}"), 60.0);
                }
            }
        });
        // One spike alone, of which the kNN shows nothing, is told and no more.
        let found = told.only(Verdict::Healthy, Kind::GradientSpike);
        assert_eq!(found.len(), 1);
        let evidence = &found[0].evidence;
        assert_eq!(evidence["first_layer"], "patch_embed");
        assert_eq!(evidence["first_step"], 1000);
        assert_eq!(evidence["lead_steps"], lead);
        let times = evidence["times_median"].as_f64().unwrap();
        assert!((25.0..150.0).contains(&times), "{times}");
        assert!(found[0].message.contains("model.patch_projection=frozen"));
    }
}

#[test]
fn a_spike_in_one_layer_is_of_that_layer_and_many_make_a_run_unstable() {
    let told = run(3, STEPS, |step, line| {
        if step >= 500 && step % 300 == 0 {
            scale(line, "grad_norm/blocks.0", 40.0);
        }
    });
    let found = told.only(Verdict::Unstable, Kind::GradientSpike);
    assert_eq!(found.len(), 5);
    for spike in found {
        assert_eq!(spike.evidence["first_layer"], "blocks.0");
        assert_eq!(spike.evidence["lead_steps"], Value::Null);
    }
}

#[test]
fn dips_are_found_with_depth_and_length() {
    for (depth, length, restart) in [(6.0, 60, false), (30.0, 200, true)] {
        let told = run(4, STEPS, |step, line| {
            if (1200..1200 + length).contains(&step) {
                lower_knn(line, depth);
            }
        });
        let found = told.only(Verdict::Unstable, Kind::KnnDip);
        assert_eq!(found.len(), 1);
        let evidence = &found[0].evidence;
        assert_eq!(evidence["first_step"], 1200);
        assert_eq!(evidence["steps"], length);
        assert_eq!(evidence["partial_restart"], restart);
        // The lowest of several noisy readings, from a level that lags.
        let found = evidence["depth"].as_f64().unwrap();
        assert!((found - depth).abs() < 3.0, "{found} for {depth}");
    }
}

#[test]
fn a_slow_fall_is_degradation_and_no_dip() {
    let told = run(5, STEPS, |step, line| {
        lower_knn(line, 0.015 * step.saturating_sub(1000) as f64);
    });
    assert_eq!(told.only(Verdict::Degrading, Kind::Degradation).len(), 1);
}

#[test]
fn a_fall_that_never_comes_back_is_degradation() {
    let told = run(6, STEPS, |step, line| {
        lower_knn(line, if step >= 1000 { 25.0 } else { 0.0 });
    });
    assert_eq!(told.only(Verdict::Degrading, Kind::Degradation).len(), 1);
}

#[test]
fn outputs_that_are_all_one_are_a_collapse() {
    let told = run(7, STEPS, |step, line| {
        if step >= 700 {
            line["output_std"] = 0.003.into();
        }
    });
    let found = told.only(Verdict::Collapsed, Kind::Collapse);
    assert_eq!(found[0].evidence["first_step"], 700);
    assert_eq!(found.len(), 1);
    // What has passed by the end is not the verdict.
    let told = run(7, STEPS, |step, line| {
        if (700..800).contains(&step) {
            line["output_std"] = 0.003.into();
        }
    });
    assert_eq!(told.health.verdict, Verdict::Healthy);
    assert_eq!(told.findings.len(), 1);
}

#[test]
fn a_loss_that_is_not_finite_is_a_divergence_at_once() {
    let told = run(8, 30, |step, line| {
        if step == 19 {
            line["grad_norm/head"] = Value::Null;
            line.insert("nonfinite".into(), json!(["grad_norm/head"]));
        }
        if step >= 20 {
            line["loss"] = Value::Null;
            line.insert("nonfinite".into(), json!(["loss", "grad_norm/head"]));
        }
    });
    let found = told.only(Verdict::Diverged, Kind::Divergence);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].step, 19);
    assert_eq!(found[0].evidence["layers"], json!(["head"]));
    assert!(told.health.reasons[0].contains("since step 20"));
}

#[test]
fn a_loss_that_stays_at_chance_is_stalled() {
    let told = run(9, STEPS, |_, line| line["loss"] = 6.66.into());
    let found = told.only(Verdict::StalledAtChance, Kind::AtChance);
    // Warm-up 100 and 200 more.
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].step, 300);
}
