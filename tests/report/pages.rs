//! What a page holds.

use serde_json::{Value, json};

use super::folder::{Folder, numbers, said, xla_moco};

/// A value between 0 and 1 that looks like noise, with all its digits.
fn noise(step: u64, of: u64) -> f64 {
    let x = (step * 1_000_003 + of * 7_919).wrapping_mul(6_364_136_223_846_793_005);
    (x >> 11) as f64 / (1u64 << 53) as f64
}

fn list(value: &Value) -> Vec<f64> {
    let values = value.as_array().unwrap().iter();
    values.map(|v| v.as_f64().unwrap_or(f64::NAN)).collect()
}

/// 300 epochs of ImageNet at a batch of 4096: 94,000 steps.
#[test]
fn a_long_run_is_a_small_page_that_loses_no_spike() {
    const STEPS: u64 = 94_000;
    const SPIKE: u64 = 51_234;
    const HOLE: u64 = 70_001;
    let root = tempfile::tempdir().unwrap();
    let run = Folder::new(root.path(), "long", 4096);
    run.steps(1, STEPS, |step| {
        let mut more = json!({});
        for layer in 0..32 {
            let spikes = layer == 3 && step == SPIKE;
            let value = if spikes {
                777.5
            } else {
                1.0 + noise(step, layer)
            };
            more[format!("grad_norm/blocks.{layer}")] = (value as f32).into();
        }
        more["key_found"] = if step == HOLE {
            0.0125
        } else {
            0.5 + noise(step, 99) / 2.0
        }
        .into();
        if step % 50 == 0 {
            more["knn_top1"] = (50.0 + 10.0 * noise(step, 77)).into();
        }
        more
    });
    let page = run.page();
    assert!(page.len() < 2_000_000, "{} bytes", page.len());

    let found = numbers(&page);
    let run = &found["runs"][0];
    assert!(
        run["series"].as_object().unwrap().len() >= 39,
        "{}",
        run["series"]
    );
    let bucket = |series: &Value, step: u64| {
        let width = series["w"].as_u64().unwrap();
        ((step - 1) / width) as usize
    };
    let spiked = &run["series"]["grad_norm/blocks.3"];
    assert_eq!(list(&spiked["hi"])[bucket(spiked, SPIKE)], 777.5);
    let hole = &run["series"]["key_found"];
    assert_eq!(list(&hole["lo"])[bucket(hole, HOLE)], 0.0125);
    // Its median of 100 values between 1 and 2 is about 1.5.
    let heat = &run["heat"]["layers"][3];
    assert_eq!(heat["name"], "blocks.3");
    let ratios = list(&heat["v"]);
    let at = ((SPIKE - 1) / run["heat"]["w"].as_u64().unwrap()) as usize;
    assert!((400.0..=777.5).contains(&ratios[at]), "{}", ratios[at]);
    assert!(
        ratios
            .iter()
            .enumerate()
            .all(|(i, &r)| i == at || r < 2.1 || r.is_nan())
    );
    // No bucket of the others has it.
    assert!(
        list(&run["series"]["grad_norm/blocks.4"]["hi"])
            .iter()
            .all(|&hi| hi < 2.1)
    );
}

#[test]
fn nothing_is_asked_from_anywhere() {
    let root = tempfile::tempdir().unwrap();
    let run = Folder::new(root.path(), "mine", 64);
    run.steps(1, 20, |_| json!({}));
    let page = run.page();
    assert!(page.contains("default-src 'none'; style-src"), "no policy");
    for outside in [
        "://",
        " src=",
        " href=",
        "url(",
        "@import",
        "<link",
        "<iframe",
        "connect-src",
    ] {
        assert!(!page.contains(outside), "{outside:?} in the page");
    }
}

/// Names and texts of a run may come from anyone.
#[test]
fn what_a_run_says_is_never_markup() {
    let root = tempfile::tempdir().unwrap();
    let evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>";
    let name = "a<script>b & 'c' \"d\"";
    let run = Folder::new(root.path(), name, 64);
    run.steps(
        1,
        5,
        |step| json!({ evil: 1.5, format!("grad_norm/{evil}"): step }),
    );
    run.append(
        "metrics.jsonl",
        "{\"step\":6,\"loss\":null,\"nonfinite\":[\"loss\"]}\n",
    );
    run.append(
        "metrics.jsonl",
        "{\"step\":7,\"loss\":NaN}\n\0\0\n[1]\n{\"step\":\"x\"}\n",
    );
    run.append(
        "metrics.jsonl",
        "{\"step\":8,\"loss\":1e999}\n{\"step\":9,\"lo",
    );
    run.event(3, evil, "warning", evil);
    run.append("events.jsonl", "{\"time\":3}\n{\"time\":\"2026");
    let page = run.page();
    let found = numbers(&page);
    let series = &found["runs"][0]["series"];
    assert_eq!(found["runs"][0]["name"], name);
    assert_eq!(list(&series[evil]["y"]), [1.5; 5]);
    assert_eq!(list(&series["loss"]["x"]), [1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(
        (&series["loss"]["lost"], list(&series["loss"]["bad"])),
        (&json!(1), vec![6.0])
    );
    // Both scripts are the page's own, and no picture is one.
    assert_eq!(page.matches("<script").count(), 2);
    assert_eq!(page.matches("</script").count(), 2);
    assert!(!page.contains("<img"));
    assert!(page.contains("<h1>a&lt;script&gt;b &amp; &#39;c&#39; &quot;d&quot;</h1>"));
    assert!(page.contains("<b>Warning.</b> &lt;/script&gt;&lt;script&gt;alert(1)"));
}

#[test]
fn a_page_says_verdict_numbers_and_what_differs_from_the_paper() {
    let root = tempfile::tempdir().unwrap();
    let run = Folder::new(root.path(), "mine", 64);
    run.steps(1, 400, |step| match step % 10 {
        0 => json!({ "knn_top1": if step == 200 { 61.25 } else { 40.0 } }),
        _ => json!({}),
    });
    run.append(
        "events.jsonl",
        "{\"time\":\"t\",\"step\":0,\"kind\":\"heldout_knn\",\"severity\":\"info\",\"message\":\"m\",\"knn_top1\":12.5}\n\
         {\"time\":\"t\",\"step\":9,\"kind\":\"heldout_knn\",\"severity\":\"info\",\"message\":\"m\",\"knn_top1\":45.5}\n",
    );
    run.append(
        "metrics.jsonl",
        "{\"step\":401,\"loss\":null,\"nonfinite\":[\"loss\"]}\n",
    );
    let page = run.page();
    for part in [
        "<b>diverged</b>",
        "the loss is not finite since step 401",
        "<dd>61.2%<small>step 200,",
        "<dd>45.5%<small>12.5% at the start",
        "<dd>800<small>input wait 1.0%",
        "configs/paper/moco_v3_vit_s16_300ep.json",
        // Table 4's batch beside that of this folder.
        "<tr><th>batch</th><td>4096</td><td>64</td></tr>",
        "4.0 epochs, 6m 40s",
    ] {
        assert!(page.contains(part), "no {part:?}");
    }
    // The same verdict as `status` gives.
    let status = xla_moco(&["status", "."], &run.path);
    assert_eq!(said(&status).0, 3);
}

#[test]
fn runs_stand_beside_each_other() {
    let root = tempfile::tempdir().unwrap();
    let one = Folder::new(root.path(), "one", 64);
    let two = Folder::new(root.path(), "two", 128);
    one.steps(1, 30, |_| json!({}));
    two.steps(1, 20, |_| json!({ "knn_top1": 33.0 }));
    let args = [
        "report",
        "one",
        "two",
        "one",
        "--align",
        "samples",
        "--out",
        "both.html",
    ];
    let (code, out, err) = said(&xla_moco(&args, root.path()));
    assert_eq!((code, out.trim()), (0, "both.html"), "{err}");
    let page = std::fs::read_to_string(root.path().join("both.html")).unwrap();
    let found = numbers(&page);
    assert_eq!(found["align"], "samples");
    let runs = found["runs"].as_array().unwrap();
    let told = |key: &str| runs.iter().map(|run| run[key].clone()).collect::<Vec<_>>();
    assert_eq!(told("name"), ["one", "two", "one (2)"]);
    assert_eq!(told("batch"), [64, 128, 64]);
    assert!(
        page.contains("<tr><th>batch</th><td>64</td><td>128</td><td>64</td></tr>"),
        "no difference"
    );
    // Nothing else differs: the rest are the heads of two tables.
    let rows = page.matches("<tr><th>").count() - page.matches("<tr><th><i").count();
    assert_eq!(rows, 3);
}

#[test]
fn errors_say_what_was_expected() {
    let root = tempfile::tempdir().unwrap();
    Folder::new(root.path(), "fresh", 64);
    let good = Folder::new(root.path(), "good", 64);
    good.steps(1, 3, |_| json!({}));
    let bare = Folder::new(root.path(), "bare", 64);
    bare.steps(1, 3, |_| json!({}));
    std::fs::remove_file(bare.file("config.json")).unwrap();
    std::fs::create_dir(root.path().join("other")).unwrap();
    for (runs, expected) in [
        (&["good"; 7][..], "found 7 run folders; expected 1 to 6"),
        (&["good", "other"], "other is no run folder"),
        (&["nowhere"], "there is no run folder nowhere"),
        (&["good", "fresh"], "fresh has no metrics yet"),
        (
            &["bare", "--align", "samples"],
            "does not say the batch; use --align step",
        ),
        (&[], "required"),
    ] {
        let args: Vec<&str> = ["report"].iter().chain(runs).copied().collect();
        let (code, out, err) = said(&xla_moco(&args, root.path()));
        assert_eq!((code, &out[..]), (2, ""), "{runs:?}: {err}");
        assert!(err.contains(expected), "{runs:?}: {err}");
    }
    assert!(!root.path().join("report.html").exists());
    // Without a configuration there still is a page, by steps.
    let (code, _, err) = said(&xla_moco(&["report", "bare"], root.path()));
    assert_eq!(code, 0, "{err}");
}
