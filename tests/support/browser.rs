//! Pages in a real browser, where there is a Chromium.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Chromium by its usual names; none with a word about it.
pub fn chromium() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome", "chrome"];
    let found = std::env::split_paths(&path)
        .flat_map(|folder| names.map(|name| folder.join(name)))
        .find(|file| file.is_file());
    if found.is_none() {
        eprintln!("skipped: no Chromium on the PATH");
    }
    found
}

/// The page's elements after its script has run. `script` runs two frames
/// after it, and says what it found in `result`.
pub fn run(browser: &Path, folder: &Path, page: &str, script: &str, shot: &str) -> String {
    // A headless browser that only dumps the page draws no frame.
    let watch = "<script>window.requestAnimationFrame = (f) => setTimeout(f, 16); var wrong = []; addEventListener('error', (e) => wrong.push(e.message)); \
                 addEventListener('securitypolicyviolation', (e) => wrong.push(e.violatedDirective));</script>";
    let probe = format!(
        "<script>const frames = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));\
         const press = (key, at) => at.dispatchEvent(new KeyboardEvent('keydown', {{ key, bubbles: true, cancelable: true }}));\
         const result = {{}}; frames().then(async () => {{ {script} }}).catch((e) => wrong.push(String(e)))\
         .finally(() => {{ const p = document.createElement('pre'); p.id = 'found'; \
         p.textContent = 'FOUND' + JSON.stringify({{ ...result, wrong }}) + 'END'; document.body.append(p); }});</script>"
    );
    let page = page.replacen("<body>", &format!("<body>{watch}"), 1);
    let (page, end) = page.rsplit_once("</body>").unwrap();
    let page = format!("{page}{probe}</body>{end}");
    let file = folder.join("probe.html");
    fs::write(&file, page).unwrap();
    let output = Command::new(browser)
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
        ])
        .args([
            "--virtual-time-budget=8000",
            "--window-size=1280,2400",
            "--dump-dom",
        ])
        .arg(format!(
            "--user-data-dir={}",
            folder.join("profile").display()
        ))
        .arg(format!("--screenshot={}", folder.join(shot).display()))
        .arg(format!("file://{}", file.display()))
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = dom
        .rsplit_once("FOUND")
        .and_then(|(_, rest)| rest.split_once("END"));
    found.map(|(json, _)| json.to_owned()).unwrap_or_else(|| {
        let error = String::from_utf8_lossy(&output.stderr);
        panic!("the page's script did not end: {error}\n{dom}")
    })
}

pub fn parsed(text: &str) -> serde_json::Value {
    let text = text
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}
