//! python-tuf reads and verifies the model repository that our command line writes.

use anyhow::{Context, Result, ensure};
use edgewright_tests::harness::{
    ControlPlane, ServeOptions, binary,
    control::{number_of, text_of},
    python,
};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A data folder without a server, and the offline keys beside it.
struct Founded {
    _folder: tempfile::TempDir,
    data: PathBuf,
    keys: PathBuf,
}

impl Founded {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (data, keys) = (folder.path().join("data"), folder.path().join("keys"));
        let founded = Self { _folder: folder, data, keys };
        founded.trust(&["init", "--count", "3", "--threshold", "2"])?;
        Ok(founded)
    }

    /// Runs `edgewright trust` on both folders.
    fn trust(&self, arguments: &[&str]) -> Result<()> {
        let output = Command::new(binary("edgewright")?)
            .arg("trust")
            .args(arguments)
            .arg("--data")
            .arg(&self.data)
            .arg("--keys")
            .arg(&self.keys)
            .stdin(Stdio::null())
            .output()
            .context("running edgewright")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "edgewright trust {}: {said}", arguments.join(" "));
        Ok(())
    }

    fn checked(&self) -> Result<Value> {
        checked(&self.data.join("trust"))
    }
}

/// What python-tuf says of the metadata in `folder`, all of which it has verified.
fn checked(folder: &Path) -> Result<Value> {
    python("check_tuf.py", &[text(folder)?])
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("path is not UTF-8")
}

pub(crate) fn python_tuf_verifies_what_init_and_each_rotation_write() -> Result<()> {
    let founded = Founded::new()?;
    let keys = text(&founded.keys)?;
    let mut before = founded.checked()?;
    let first = json!({ "root": 1, "targets": 1, "snapshot": 1, "timestamp": 1 });
    ensure!(before["versions"] == first, "a new repository: {before}");
    for rotated in ["root", "targets", "snapshot", "timestamp", "director", "release"] {
        let new_keys = if matches!(rotated, "root" | "targets") { vec!["--new-keys", keys] } else { vec![] };
        founded.trust(&[&["rotate", rotated], new_keys.as_slice()].concat())?;
        let after = founded.checked().with_context(|| format!("after rotate {rotated}"))?;
        for role in ["root", "targets", "snapshot", "timestamp"] {
            let same = before["keys"][role] == after["keys"][role];
            ensure!(same == (role != rotated), "{role} after rotate {rotated}: {before} {after}");
        }
        let grown = |role| -> Result<bool> {
            let version = format!("/versions/{role}");
            Ok(number_of(&after, &version)? > number_of(&before, &version)?)
        };
        let vouched_for = matches!(rotated, "director" | "release");
        ensure!(grown("root")? != vouched_for, "the root after rotate {rotated}: {after}");
        ensure!(grown("targets")? == (vouched_for || rotated == "targets"), "rotate {rotated}: {after}");
        ensure!((before["targets"] != after["targets"]) == vouched_for, "rotate {rotated}: {after}");
        before = after;
    }
    // Roots 1 to 5: founded, then new keys of root, targets, snapshot and timestamp. What old keys signed has ended.
    let vouched = json!({
        "1.root.json": [1], "1.targets.json": [1, 2], "2.targets.json": [3, 4, 5],
        "1.snapshot.json": [1, 2, 3], "timestamp.json": [5],
    });
    for (file, roots) in vouched.as_object().into_iter().flatten() {
        ensure!(before["vouched"][file] == *roots, "{file} is signed by the keys of other roots: {before}");
    }
    Ok(())
}

pub(crate) fn python_tuf_refuses_metadata_that_was_changed() -> Result<()> {
    let founded = Founded::new()?;
    for file in ["1.root.json", "1.targets.json", "1.snapshot.json", "timestamp.json"] {
        let path = founded.data.join("trust").join(file);
        let good = std::fs::read_to_string(&path)?;
        let changed = good.replace("\"spec_version\":\"1.0.31\"", "\"spec_version\":\"1.0.30\"");
        ensure!(changed != good, "{file} has another version of the specification");
        std::fs::write(&path, changed)?;
        ensure!(founded.checked().is_err(), "python-tuf takes a changed {file}");
        std::fs::write(&path, good)?;
    }
    founded.checked().map(drop)
}

pub(crate) fn python_tuf_verifies_a_team_and_what_a_server_exports() -> Result<()> {
    let founded = Founded::new()?;
    let control = ControlPlane::start(&founded.data, ServeOptions::default())?;
    let keys = text(&founded.keys)?;
    let key = control.cli(&["trust", "key", "team", "--keys", keys])?;
    let delegate = ["--delegate", "team", "--team-key", text_of(&key, "/key")?];
    control.cli(&[&["trust", "sign", "--keys", keys], delegate.as_slice()].concat())?;
    control.cli(&["trust", "sign", "--keys", keys, "--role", "team"])?;
    let out = founded.data.join("exported");
    control.cli(&["trust", "export", "--out", text(&out)?])?;
    let exported = checked(&out)?;
    ensure!(exported["versions"]["team"] == 1 && exported["versions"]["targets"] == 2, "{exported}");
    Ok(())
}
