//! The page in a real browser, where there is a Chromium.

use serde_json::json;

use super::support::browser;
use super::support::evaluation::{json, run_folder};
use super::{page, run};

/// The page of a browser: nothing wrong, the map is drawn, keys move from point
/// to point, and on a phone nothing is wider than it.
#[test]
fn the_page_works_in_a_browser() {
    let Some(chromium) = browser::chromium() else {
        return;
    };
    let temp = tempfile::tempdir().unwrap();
    let run_dir = run_folder(&temp.path().join("run"), &[]);
    json(&run("show", run_dir.root(), &["--json"]));
    let (page, _) = page(&run_dir.root().join("show.html"));
    let script = "
        const canvas = document.getElementById('points');
        const colours = (c) => new Set(new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer)).size;
        result.colours = colours(canvas);
        canvas.focus();
        press('ArrowLeft', canvas); await frames();
        const first = document.getElementById('pointed').textContent;
        press('ArrowRight', canvas); await frames();
        result.moved = first !== document.getElementById('pointed').textContent;
        result.words = document.getElementById('planewords').textContent;
        document.querySelectorAll('#planes button')[1].click(); await frames();
        result.plane = document.getElementById('planewords').textContent;
        const [, none, one] = document.querySelectorAll('#legend button');
        none.click(); await frames(); result.empty = colours(canvas);
        one.click(); await frames(); result.one = colours(canvas);
        const tile = document.querySelector('[data-at=\"2\"]');
        tile.focus(); press('ArrowDown', tile);
        result.read = tile.closest('.looks').querySelector('output').textContent;
        const light = getComputedStyle(document.body).backgroundColor;
        document.getElementById('theme').click(); document.getElementById('theme').click(); await frames();
        result.dark = getComputedStyle(document.body).backgroundColor !== light;
        result.broken = [...document.images].filter((i) => !i.complete || !i.naturalWidth).length;
        result.named = [...document.querySelectorAll('button, canvas, input')].every((e) => e.textContent || e.ariaLabel || e.labels?.length);
        result.wide = document.documentElement.scrollWidth <= innerWidth;";
    let found = browser::parsed(&browser::run(
        &chromium,
        temp.path(),
        &page,
        script,
        "one.png",
    ));
    assert_eq!(found["wrong"], json!([]), "{found}");
    for key in ["moved", "dark", "named", "wide"] {
        assert_eq!(found[key], true, "{key}: {found}");
    }
    assert_eq!(
        (&found["broken"], &found["empty"]),
        (&json!(0), &json!(1)),
        "{found}"
    );
    assert!(
        found["colours"].as_u64() > Some(8) && found["one"].as_u64() > Some(1),
        "{found}"
    );
    let has =
        |key: &str, words: &str| assert!(found[key].as_str().unwrap().contains(words), "{found}");
    has("words", "perplexity");
    has("plane", "of the variance");
    has("read", "head 2: ");
    has("read", "row 4, column 3");

    let inside = page.replace('&', "&amp;").replace('"', "&quot;");
    let wrapper = format!(
        "<!doctype html><meta charset=utf-8><body><iframe width=390 height=3000 srcdoc=\"{inside}\"></iframe></body>"
    );
    let script = "
        await new Promise((done) => setTimeout(done, 1500));
        result.width = document.querySelector('iframe').contentDocument.documentElement.scrollWidth;";
    let found = browser::parsed(&browser::run(
        &chromium,
        temp.path(),
        &wrapper,
        script,
        "phone.png",
    ));
    assert_eq!(found["wrong"], json!([]), "{found}");
    assert!(found["width"].as_f64() <= Some(390.0), "{found}");
}
