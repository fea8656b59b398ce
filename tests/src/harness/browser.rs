//! The dashboard's tests in a browser: Playwright drives Chromium over a running server.

use super::{ControlPlane, cache, control::text_of};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

/// Plays the tests of `spec` over the server; `scene` says what there is to look at. `false` where this machine has no
/// Chromium.
///
/// # Errors
/// What Playwright said, where a test failed.
pub fn play(control: &ControlPlane, spec: &str, mut scene: Value) -> Result<bool> {
    let Some(chromium) = chromium() else { return Ok(false) };
    let context = fs::read_to_string(control.context()).context("reading the server's context")?;
    let context: Value = serde_json::from_str(&context).context("reading the server's context")?;
    scene["url"] = json!(format!("https://127.0.0.1:{}", control.api));
    scene["user"] = json!("admin");
    scene["password"] = json!(text_of(&context, "/token")?);
    let told = control.data.with_extension("scene.json");
    fs::write(&told, scene.to_string()).with_context(|| format!("writing {}", told.display()))?;
    let work = cache()?.join("dashboard/work");
    let output = Command::new(work.join("node_modules/.bin/playwright"))
        .args(["test", spec])
        .current_dir(&work)
        .env("EDGEWRIGHT_SCENE", &told)
        .env("EDGEWRIGHT_CHROMIUM", chromium)
        .env("EDGEWRIGHT_ARTIFACTS", pictures()?)
        .stdin(Stdio::null())
        .output()
        .with_context(|| {
            format!("running Playwright in {}: `cargo xtask setup` brings it", work.display())
        })?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{spec} failed: {said}{}", String::from_utf8_lossy(&output.stderr));
    Ok(true)
}

/// Where pictures are kept: `EDGEWRIGHT_ARTIFACTS`, else a folder beside what cargo builds.
fn pictures() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(folder) = set("EDGEWRIGHT_ARTIFACTS") {
        return Ok(folder);
    }
    let target = match set("CARGO_TARGET_DIR") {
        Some(target) => target,
        None => cache()?.join("target"),
    };
    Ok(target.join("screenshots"))
}

fn chromium() -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join("chromium")).find(|path| path.is_file())
}
