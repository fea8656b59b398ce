//! Exported models to be measured: those that a demo kept, or else made by a job; each precision published and rolled
//! out to a slot of its own.

use crate::{
    demo::{KEPT_FILES, Subject},
    harness::{Agent, ControlPlane, control::text_of},
};
use anyhow::{Context, Result, ensure};
use shared::{
    job::MODEL_FP32_FILE,
    manifest::{GOLDEN_FILE, MODEL_FILE},
};
use std::path::{Path, PathBuf};

/// The two files that a job exports.
pub const PRECISIONS: [(&str, &str); 2] = [("fp32", MODEL_FP32_FILE), ("int8", MODEL_FILE)];
/// The board that the bench's device is: this machine.
const BOARD: &str = "x86-64";

/// A model in one precision, published and answering in a slot.
#[derive(Clone, Debug)]
pub struct Exported {
    /// The data set's name.
    pub model: String,
    /// `fp32` or `int8`.
    pub precision: &'static str,
    pub path: PathBuf,
    /// Its slot on the agent.
    pub slot: String,
    /// The runtime that the agent chose.
    pub agent_runtime: String,
}

/// The first of `subjects` of which one of the folders keeps a model, in a result folder under `folder`.
///
/// # Errors
/// A folder that keeps a model without all that belongs to it.
pub fn kept<'a>(
    subjects: &'a [Subject],
    folders: &[PathBuf],
    folder: &Path,
) -> Result<Option<(&'a Subject, PathBuf)>> {
    for subject in subjects {
        for from in folders {
            let file = |ending: &str| from.join(format!("{}-{ending}", subject.name));
            if !KEPT_FILES.iter().any(|(_, ending)| file(ending).is_file()) {
                continue;
            }
            let result = folder.join(format!("{}-kept", subject.name));
            std::fs::create_dir_all(&result).with_context(|| format!("making {}", result.display()))?;
            for (name, ending) in KEPT_FILES {
                std::fs::copy(file(ending), result.join(name)).with_context(|| {
                    format!("copying {}; a demo with --report keeps it", file(ending).display())
                })?;
            }
            return Ok(Some((subject, result)));
        }
    }
    Ok(None)
}

/// The result folder of a quick search and training on `subject`.
pub fn make(control: &ControlPlane, subject: &Subject) -> Result<PathBuf> {
    control.add_dataset(&subject.name, &subject.path)?;
    let job = control.search(&subject.name, BOARD, &[])?;
    Ok(control.result_folder(text_of(&job, "/id")?))
}

/// Publishes both precisions of a result and rolls each out to a slot of its own.
pub fn install(
    control: &ControlPlane,
    agent: &Agent,
    subject: &Subject,
    result: &Path,
    folder: &Path,
) -> Result<Vec<Exported>> {
    let mut exported = Vec::new();
    for (precision, file) in PRECISIONS {
        let slot = format!("{}-{precision}", subject.name);
        let bundle = folder.join(&slot);
        as_bundle(result, file, &bundle)?;
        let text = bundle.to_str().context("the folder's name is not UTF-8")?;
        let shown = control.cli(&["model", "publish", text, "--model", &slot, "--board", BOARD])?;
        roll_out(control, text_of(&shown, "/name")?, &slot)?;
        let agent_runtime = agent.runtime(&slot)?;
        let (model, path) = (subject.name.clone(), bundle.join(MODEL_FILE));
        exported.push(Exported { model, precision, path, slot, agent_runtime });
    }
    Ok(exported)
}

/// The folder `bundle` with `file` of a result as the model, and what belongs to it.
fn as_bundle(result: &Path, file: &str, bundle: &Path) -> Result<()> {
    std::fs::create_dir_all(bundle).with_context(|| format!("making {}", bundle.display()))?;
    let golden = (GOLDEN_FILE, GOLDEN_FILE);
    let report = (shared::job::REPORT_FILE, shared::job::REPORT_FILE);
    for (from, to) in [(file, MODEL_FILE), golden, report] {
        std::fs::copy(result.join(from), bundle.join(to))
            .with_context(|| format!("copying {}", result.join(from).display()))?;
    }
    Ok(())
}

fn roll_out(control: &ControlPlane, version: &str, slot: &str) -> Result<()> {
    let id = control.start_rollout(version, slot, &["--wave", "100%", "--trial-duration-ms", "500"])?;
    let ended = control.wait_rollout(&id)?;
    ensure!(text_of(&ended, "/state")? == "completed", "the rollout of {version} ended as {ended}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::TestSplit;

    fn subject(name: &str) -> Subject {
        let test = TestSplit { shape: vec![1, 2], inputs: Vec::new(), labels: Vec::new() };
        Subject { name: name.to_owned(), path: PathBuf::new(), test, accuracy_min: None }
    }

    #[test]
    fn a_kept_model_becomes_a_result_folder_and_two_bundles() {
        let folder = tempfile::tempdir().unwrap();
        let kept_in = folder.path().join("r.models");
        std::fs::create_dir(&kept_in).unwrap();
        let subjects = [subject("other"), subject("set")];
        let folders = [folder.path().join("nowhere"), kept_in.clone()];
        assert!(kept(&subjects, &folders, folder.path()).unwrap().is_none());
        for (_, ending) in KEPT_FILES {
            std::fs::write(kept_in.join(format!("set-{ending}")), ending).unwrap();
        }
        let (found, result) = kept(&subjects, &folders, folder.path()).unwrap().unwrap();
        assert_eq!(found.name, "set");
        for (precision, file) in PRECISIONS {
            let bundle = folder.path().join(precision);
            as_bundle(&result, file, &bundle).unwrap();
            let model = std::fs::read_to_string(bundle.join(MODEL_FILE)).unwrap();
            assert_eq!(model, format!("{precision}.onnx"));
            assert!(bundle.join(GOLDEN_FILE).is_file() && bundle.join("report.json").is_file());
        }
    }

    #[test]
    fn a_kept_model_without_its_golden_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for ending in ["int8.onnx", "fp32.onnx"] {
            std::fs::write(folder.path().join(format!("set-{ending}")), "x").unwrap();
        }
        let error = kept(&[subject("set")], &[folder.path().to_path_buf()], folder.path()).unwrap_err();
        assert!(error.to_string().contains("set-golden.safetensors"), "{error}");
    }
}
