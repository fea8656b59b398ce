//! `edgewright-agent selftest`: does this device do what the agent needs?

use crate::{blobs, data, engine::Engine, store::Store};
use runtime::{Golden, golden};
use serde::Serialize;
use shared::{
    Signed, Timestamp,
    board::RuntimeName,
    manifest::{GOLDEN_FILE, MODEL_FILE},
    signing::{Keyring, Role, SigningKey, TrustedKey},
    wire::{Desired, Event, EventKind},
};
use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

const MODEL: &[u8] = include_bytes!("../assets/selftest.onnx");
const GOLDEN: &[u8] = include_bytes!("../assets/selftest.safetensors");
/// Of a golden file that comes without a manifest.
const TOLERANCE: f32 = 0.05;
/// A clock before this (2024-01-01) was never set.
const CLOCK_MS_MIN: u64 = 1_704_067_200_000;

/// How the device did.
#[derive(Debug, Serialize)]
pub struct Report {
    pub ok: bool,
    pub checks: Vec<Check>,
    /// One for each runtime.
    pub runtimes: Vec<RuntimeReport>,
}

/// One thing that was tried.
#[derive(Debug, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub ok: bool,
    /// What is missing does not keep the agent from running.
    pub optional: bool,
    pub detail: String,
}

/// How one runtime did on the golden inputs.
#[derive(Debug, Serialize)]
pub struct RuntimeReport {
    pub runtime: &'static str,
    pub ok: bool,
    /// Of one inference of one sample.
    pub us: Option<f64>,
    pub error: Option<String>,
    /// The class of each golden input, and the one that was expected.
    pub classes: Vec<Class>,
}

/// A golden input's class.
#[derive(Debug, Serialize)]
pub struct Class {
    pub got: usize,
    pub expected: usize,
    pub probability: f32,
}

/// Tries everything; with `model`, the files in that folder instead of the ones built in.
pub fn run(model: Option<&Path>, ort: Option<&Path>) -> Report {
    let mut checks = vec![
        check("store", store()),
        check("files", files()),
        check("signatures", signatures()),
        Check { optional: true, ..check("clock", clock()) },
    ];
    let mut runtimes = Vec::new();
    match read_model(model) {
        Ok((bytes, golden)) => {
            for name in [RuntimeName::Tract, RuntimeName::OnnxRuntime] {
                let (check, report) = try_runtime(name, ort, &bytes, &golden);
                checks.push(check);
                runtimes.extend(report);
            }
        }
        Err(error) => checks.push(check("model", Err(error))),
    }
    let ok = checks.iter().all(|check| check.ok || check.optional);
    Report { ok, checks, runtimes }
}

/// A table for people.
pub fn describe(report: &Report) -> String {
    let mut lines = Vec::new();
    for check in &report.checks {
        let mark = match (check.ok, check.optional) {
            (true, _) => "ok  ",
            (false, true) => "none",
            (false, false) => "FAIL",
        };
        lines.push(format!("{mark}  {:<12} {}", check.name, check.detail));
    }
    for runtime in &report.runtimes {
        let classes: Vec<_> = runtime
            .classes
            .iter()
            .map(|class| format!("{}{}", class.got, if class.got == class.expected { "" } else { "!" }))
            .collect();
        lines.push(format!("      {:<12} classes {}", runtime.runtime, classes.join(" ")));
    }
    lines.push(if report.ok { "passed".to_owned() } else { "failed".to_owned() });
    lines.join("\n")
}

fn check(name: &'static str, result: Result<String, String>) -> Check {
    let ok = result.is_ok();
    Check { name, ok, optional: false, detail: result.unwrap_or_else(|error| error) }
}

fn try_runtime(
    name: RuntimeName,
    ort: Option<&Path>,
    model: &[u8],
    golden: &Golden,
) -> (Check, Option<RuntimeReport>) {
    let label = match name {
        RuntimeName::Tract => "tract",
        RuntimeName::OnnxRuntime => "onnxruntime",
    };
    let engine = match Engine::open(&[name], ort) {
        Ok(engine) => engine,
        Err(error) => {
            // A library that was named has to be there.
            let optional = name == RuntimeName::OnnxRuntime && ort.is_none();
            return (Check { optional, ..check(label, Err(crate::chain(&error))) }, None);
        }
    };
    let (chosen, verdicts) = engine.choose(model, golden, TOLERANCE);
    let Some(verdict) = verdicts.into_iter().next() else {
        return (check(label, Err("gave no verdict".to_owned())), None);
    };
    let classes = chosen.map_or_else(Vec::new, |chosen| classify(chosen.runnable.as_ref(), golden));
    let detail = verdict.result.as_ref().map(|us| format!("{us:.0} us an inference")).map_err(Clone::clone);
    let report = RuntimeReport {
        runtime: label,
        ok: verdict.result.is_ok(),
        us: verdict.result.as_ref().ok().copied(),
        error: verdict.result.err(),
        classes,
    };
    (check(label, detail), Some(report))
}

fn classify(model: &dyn runtime::Runnable, golden: &Golden) -> Vec<Class> {
    let mut output = Vec::new();
    if model.run_into(golden.input(), golden.samples(), &mut output).is_err() {
        return Vec::new();
    }
    let classes = golden.classes().max(1);
    let rows = output.chunks_exact(classes).zip(golden.output().chunks_exact(classes));
    rows.map(|(got, expected)| {
        let top = golden::argmax(got);
        Class { got: top, expected: golden::argmax(expected), probability: got[top] }
    })
    .collect()
}

fn read_model(folder: Option<&Path>) -> Result<(Vec<u8>, Golden), String> {
    let (model, golden) = match folder {
        None => (MODEL.to_vec(), GOLDEN.to_vec()),
        Some(folder) => {
            let read = |name: &str, limit_bytes: u64| {
                let path: PathBuf = folder.join(name);
                blobs::read_limited(&path, limit_bytes)
                    .map_err(|error| format!("{}: {error}", path.display()))
            };
            (read(MODEL_FILE, blobs::READ_BYTES_MAX)?, read(GOLDEN_FILE, golden::GOLDEN_BYTES_MAX as u64)?)
        }
    };
    Golden::read(&golden).map(|golden| (model, golden)).map_err(|error| error.to_string())
}

fn store() -> Result<String, String> {
    let folder = TemporaryFolder::new()?;
    let path = folder.0.join("store.sled");
    let event = Event {
        id: uuid::Uuid::now_v7(),
        at: Timestamp(0),
        slot: None,
        bundle: None,
        kind: EventKind::AgentStarted,
        detail: "selftest".to_owned(),
    };
    let text = |error: crate::store::Error| crate::chain(&error);
    let store = Store::open(&path, 100).map_err(text)?;
    store.put(std::slice::from_ref(&event)).map_err(text)?;
    store.flush().map_err(text)?;
    drop(store);
    let depth = Store::open(&path, 100).map_err(text)?.depth();
    if depth.event == 1 {
        Ok("a record was written, flushed and read back".to_owned())
    } else {
        Err(format!("{} records were read back, one was written", depth.event))
    }
}

fn files() -> Result<String, String> {
    let folder = TemporaryFolder::new()?;
    let path = folder.0.join("file");
    data::write_atomically(&path, b"edgewright", 0o600).map_err(|error| error.to_string())?;
    let read = blobs::read_limited(&path, 100).map_err(|error| error.to_string())?;
    let free = data::free_bytes(&folder.0).map_err(|error| error.to_string())?;
    if read == b"edgewright" {
        Ok(format!("written, synced and renamed; {free} bytes free"))
    } else {
        Err("read other bytes".to_owned())
    }
}

fn signatures() -> Result<String, String> {
    let text = |error: shared::signing::Error| crate::chain(&error);
    let key = SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().map_err(text)?).map_err(text)?;
    let keyring = Keyring::new([TrustedKey { role: Role::Director, key: key.public().clone() }]);
    let desired = Desired {
        device: "selftest".parse().map_err(|error: shared::id::Error| error.to_string())?,
        generation: 1,
        issued_at: Timestamp(0),
        chunk_bytes: 65536,
        assignments: Vec::new(),
    };
    let mut envelope = Signed::sign(&desired, &[&key]).map_err(text)?;
    let accepts = |envelope: &[u8]| {
        Signed::<Desired>::parse(envelope).and_then(|signed| signed.verify(&keyring)).is_ok()
    };
    let good = accepts(&envelope);
    let middle = envelope.windows(9).position(|window| window == b"\"payload\"").unwrap_or(0) + 14;
    if let Some(byte) = envelope.get_mut(middle) {
        *byte ^= 1;
    }
    match (good, accepts(&envelope)) {
        (true, false) => Ok("a signature was made and checked, a forged one refused".to_owned()),
        (false, _) => Err("a good signature was refused".to_owned()),
        (true, true) => Err("a forged signature was accepted".to_owned()),
    }
}

fn clock() -> Result<String, String> {
    let now: Timestamp = SystemTime::now().into();
    if now.0 >= CLOCK_MS_MIN {
        Ok(format!("{} ms since 1970", now.0))
    } else {
        Err("the clock was never set; records will carry wrong times".to_owned())
    }
}

/// Removed when it goes out of scope.
struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    fn new() -> Result<Self, String> {
        let path = std::env::temp_dir().join(format!("edgewright-selftest-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // What stays is in the temporary folder, where the system removes it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_here_with_tract_at_least() {
        let report = run(None, None);
        assert!(report.ok, "{}", describe(&report));
        let tract = report.runtimes.iter().find(|runtime| runtime.runtime == "tract").unwrap();
        assert_eq!(tract.classes.len(), 6);
        assert!(tract.classes.iter().all(|class| class.got == class.expected));
    }

    #[test]
    fn a_model_that_answers_otherwise_fails() {
        let folder = tempfile::tempdir().unwrap();
        let golden = Golden::read(GOLDEN).unwrap();
        let mut output = golden.output().to_vec();
        output[..3].rotate_left(1);
        let wrong = Golden::new(vec![1, 8, 8], golden.input().to_vec(), output).unwrap();
        std::fs::write(folder.path().join(MODEL_FILE), MODEL).unwrap();
        std::fs::write(folder.path().join(GOLDEN_FILE), wrong.write().unwrap()).unwrap();
        assert!(!run(Some(folder.path()), None).ok);
        std::fs::write(folder.path().join(MODEL_FILE), b"no model").unwrap();
        assert!(!run(Some(folder.path()), None).ok);
    }

    #[test]
    fn a_missing_file_is_named() {
        let report = run(Some(Path::new("/nowhere")), None);
        assert!(!report.ok && describe(&report).contains("/nowhere/model.onnx"));
    }
}
