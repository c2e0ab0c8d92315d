//! Pages in a real browser, where there is a Chromium.

use std::fs;

use serde_json::json;

use super::chromium::{chromium, parsed, run};
use super::folder::{Folder, said, xla_moco};

#[test]
fn charts_are_drawn_and_follow_the_keys() {
    let Some(browser) = chromium() else { return };
    let root = tempfile::tempdir().unwrap();
    let run_folder = Folder::new(root.path(), "mine</script>", 64);
    run_folder.steps(1, 5000, |step| {
        json!({
            "grad_norm": if step == 4321 { 99.0 } else { 1.0 },
            "grad_norm/patch_embed": if step == 4321 { 64.0 } else { 1.0 }, "grad_norm/blocks.0": 1.0,
        })
    });
    let page = run_folder.page();
    let script = "
        const of = (start) => [...document.querySelectorAll('canvas')].find((c) => c.getAttribute('aria-label').startsWith(start));
        const colours = (c) => new Set(new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer)).size;
        result.range = document.getElementById('range').textContent;
        result.heat = of('Gradient of each layer').getAttribute('aria-label');
        result.norm = of('Gradient norm:').getAttribute('aria-label');
        result.colours = [...document.querySelectorAll('canvas')].map(colours);
        const loss = of('Loss');
        loss.focus();
        result.focus = document.activeElement === loss;
        press('+', loss); press('+', loss); await frames();
        result.zoomed = document.getElementById('range').textContent;
        press('0', loss); await frames();
        result.reset = document.getElementById('range').textContent;
        const light = getComputedStyle(document.body).backgroundColor;
        document.getElementById('theme').click(); document.getElementById('theme').click(); await frames();
        result.theme = document.documentElement.dataset.theme;
        result.dark = getComputedStyle(document.body).backgroundColor !== light;
        result.named = [...document.querySelectorAll('button, select, canvas')].every((e) => e.textContent || e.ariaLabel);";
    let found = parsed(&run(&browser, root.path(), &page, script, "one.png"));
    assert_eq!(found["wrong"], json!([]), "{found}");
    assert_eq!(found["range"], "all 5,000 steps");
    // A quarter, around the middle.
    assert_eq!(found["zoomed"], "step 1,875 to 3,125 of 5,000");
    assert_eq!(found["reset"], "all 5,000 steps");
    let (heat, norm) = (
        found["heat"].as_str().unwrap(),
        found["norm"].as_str().unwrap(),
    );
    // 5000 steps in at most 1000 buckets are 5 each.
    assert!(
        heat.contains("2 layers; greatest 64× in patch_embed, steps 4,321–4,325"),
        "{heat}"
    );
    assert!(norm.contains("greatest 99"), "{norm}");
    let drawn = found["colours"].as_array().unwrap();
    assert!(
        drawn.len() >= 8 && drawn.iter().all(|n| n.as_u64() > Some(3)),
        "{drawn:?}"
    );
    for (key, expected) in [
        ("focus", json!(true)),
        ("theme", json!("dark")),
        ("dark", json!(true)),
        ("named", json!(true)),
    ] {
        assert_eq!(found[key], expected, "{key}");
    }
    assert!(fs::metadata(root.path().join("one.png")).is_ok_and(|m| m.len() > 20_000));
}

/// On a phone of 390 pixels nothing but tables and text of its own scrolls
/// sideways.
#[test]
fn runs_beside_each_other_fit_a_phone() {
    let Some(browser) = chromium() else { return };
    let root = tempfile::tempdir().unwrap();
    for name in [
        "one",
        "a-run-with-quite-a-long-name-that-does-not-break",
        "three",
    ] {
        let run = Folder::new(root.path(), name, 64);
        run.steps(
            1,
            40,
            |step| json!({ "grad_norm/blocks.0": 1.0, "knn_top1": step }),
        );
        run.event(3, "gradient_spike", "warning", &"wide".repeat(60));
    }
    let args = [
        "report",
        "one",
        "a-run-with-quite-a-long-name-that-does-not-break",
        "three",
        "--out",
        "all.html",
    ];
    assert_eq!(said(&xla_moco(&args, root.path())).0, 0);
    let page = fs::read_to_string(root.path().join("all.html")).unwrap();
    let inside = page.replace('&', "&amp;").replace('"', "&quot;");
    let wrapper = format!(
        "<!doctype html><meta charset=utf-8><body><iframe width=390 height=3000 srcdoc=\"{inside}\"></iframe></body>"
    );
    let script = "
        await new Promise((done) => setTimeout(done, 1500));
        const d = document.querySelector('iframe').contentDocument;
        d.querySelectorAll('details').forEach((e) => { e.open = true; });
        result.width = d.documentElement.scrollWidth;
        result.canvases = [...d.querySelectorAll('canvas')].map((c) => c.getBoundingClientRect().right);
        result.range = d.getElementById('range').textContent;";
    let found = parsed(&run(&browser, root.path(), &wrapper, script, "phone.png"));
    assert_eq!(found["wrong"], json!([]), "{found}");
    assert_eq!(found["range"], "all 40 steps");
    assert!(found["width"].as_f64() <= Some(390.0), "{found}");
    let rights = found["canvases"].as_array().unwrap();
    assert!(
        rights.len() >= 8 && rights.iter().all(|right| right.as_f64() <= Some(390.0)),
        "{found}"
    );
}
