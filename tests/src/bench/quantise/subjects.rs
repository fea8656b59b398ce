//! The models of the bench: two that the forge makes, and those that come out of packages of others.

use crate::{
    bench::infer::exported,
    data::TestSplit,
    demo::{self, TaskChoice},
    harness::{ControlPlane, ServeOptions, cache, python, root},
};
use anyhow::{Context, Result, ensure};
use shared::job::MODEL_FP32_FILE;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// Models of others: name, file in the cache, and what an import has to be told.
const REAL: [(&str, &str, &[&str]); 4] = [
    ("magika", "models/magika/standard_v3_3/model.onnx", &[]),
    (
        "silero-vad",
        "models/silero-vad/data/silero_vad_16k_sequence.onnx",
        &["--output=speech_probs", "--freeze=h", "--freeze=c"],
    ),
    ("basic-pitch", "models/basic-pitch/icassp_2022/nmp.onnx", &["--output=StatefulPartitionedCall:1"]),
    ("rapidocr-cls", "models/rapidocr/models/ch_ppocr_mobile_v2.0_cls_infer.onnx", &[]),
];
/// Samples of a test split on which models are measured, at most and as a share of all; others of it calibrate them.
const EVALUATED: usize = 1000;
const EVALUATED_SHARE: f64 = 0.67;
const CALIBRATED: usize = 512;
/// In the folder of a purpose.
const FILE: &str = "samples.npy";

/// A model to quantise.
#[derive(Debug)]
pub struct Subject {
    pub name: String,
    /// The f32 file.
    pub model: PathBuf,
    /// Further options of an import.
    pub options: Vec<String>,
    /// Holds a folder with an array for each purpose.
    samples: PathBuf,
    /// The right class of each sample to evaluate by.
    pub labels: Option<Vec<usize>>,
}

impl Subject {
    /// What `--calibrate` names.
    pub fn calibrate(&self) -> PathBuf {
        self.samples.join("calibrate")
    }

    /// The array in it.
    pub fn calibrate_file(&self) -> PathBuf {
        self.calibrate().join(FILE)
    }

    /// The array to evaluate by.
    pub fn evaluate_file(&self) -> PathBuf {
        self.samples.join("evaluate").join(FILE)
    }
}

/// The models, all or `only` those, with their samples under `folder`.
pub fn all(kept: &[PathBuf], only: &[String], folder: &Path) -> Result<Vec<Subject>> {
    let wanted = |name: &str| only.is_empty() || only.iter().any(|only| only == name);
    let mut subjects = Vec::new();
    let mut control = None;
    for (name, task) in [("mnist", TaskChoice::Image), ("gunpoint", TaskChoice::Series)] {
        if wanted(name) {
            subjects.push(made(name, task, kept, folder, &mut control)?);
        }
    }
    for (name, file, options) in REAL.into_iter().filter(|(name, ..)| wanted(name)) {
        let model = cache()?.join(file);
        ensure!(model.is_file(), "{} is not there: `cargo xtask bench quantise` brings it", model.display());
        let out = folder.join(format!("{name}-samples"));
        let data = cache()?.join("data");
        let arguments = [Path::new(name), root(), data.as_path(), out.as_path()]
            .map(|path| path.to_str().context("not UTF-8"));
        let arguments = arguments.into_iter().collect::<Result<Vec<_>>>()?;
        python("samples.py", &arguments)?;
        subjects.push(Subject {
            name: name.to_owned(),
            model,
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            samples: out,
            labels: None,
        });
    }
    ensure!(
        !subjects.is_empty(),
        "--only names no model; there are mnist, gunpoint and {}",
        REAL.map(|(name, ..)| name).join(", ")
    );
    Ok(subjects)
}

/// A model of the forge: kept by a demo, or made.
fn made(
    name: &str,
    task: TaskChoice,
    kept: &[PathBuf],
    folder: &Path,
    control: &mut Option<ControlPlane>,
) -> Result<Subject> {
    let sets: Vec<_> = demo::subjects(task, None)?.into_iter().filter(|set| set.name == name).collect();
    let set = sets.first().with_context(|| format!("no data set {name}"))?;
    let result = match exported::kept(&sets, kept, folder)? {
        Some((_, result)) => result,
        None => {
            eprintln!("training a model of {name}");
            if control.is_none() {
                *control = Some(ControlPlane::start(&folder.join("control"), ServeOptions::default())?);
            }
            let control = control.as_ref().context("no control plane")?;
            exported::make(control, set)?
        }
    };
    let samples = folder.join(format!("{name}-samples"));
    let labels = write_samples(&set.test, &samples)?;
    let model = result.join(MODEL_FP32_FILE);
    Ok(Subject { name: name.to_owned(), model, options: Vec::new(), samples, labels: Some(labels) })
}

/// Writes the arrays of a test split: the first of it to evaluate by, the last to calibrate. Gives the classes of the
/// former, counted in the order of their names as the forge does.
fn write_samples(test: &TestSplit, folder: &Path) -> Result<Vec<usize>> {
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let evaluated = EVALUATED.min((test.inputs.len() as f64 * EVALUATED_SHARE) as usize);
    let (evaluate, rest) = test.inputs.split_at(evaluated);
    let calibrate = &rest[rest.len().saturating_sub(CALIBRATED)..];
    for (purpose, rows) in [("evaluate", evaluate), ("calibrate", calibrate)] {
        let file = folder.join(purpose).join(FILE);
        std::fs::create_dir_all(folder.join(purpose))
            .with_context(|| format!("making {}", file.display()))?;
        std::fs::write(&file, npy(&test.shape, rows)?)
            .with_context(|| format!("writing {}", file.display()))?;
    }
    let names: BTreeSet<&String> = test.labels.iter().collect();
    let class =
        |label: &String| names.iter().position(|name| *name == label).context("a label without a class");
    test.labels[..evaluated].iter().map(class).collect()
}

/// An f32 array of rows of `shape`, as numpy saves it (format 1.0).
fn npy(shape: &[usize], rows: &[Vec<f32>]) -> Result<Vec<u8>> {
    let axes: Vec<String> = std::iter::once(&rows.len()).chain(shape).map(ToString::to_string).collect();
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({},), }}\n", axes.join(", "));
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(header.len())?.to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(rows.iter().flat_map(|row| row.iter()).flat_map(|value| value.to_le_bytes()));
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_split_gives_both_arrays_and_classes_in_the_order_of_their_names() {
        let labels = ["b", "a", "b"].map(str::to_owned).to_vec();
        let test = TestSplit { shape: vec![1], inputs: vec![vec![0.5], vec![1.0], vec![2.0]], labels };
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(write_samples(&test, folder.path()).unwrap(), [1, 0]);
        let read = |purpose: &str| std::fs::read(folder.path().join(purpose).join(FILE)).unwrap();
        assert!(read("evaluate").ends_with(&[0, 0, 0, 63, 0, 0, 128, 63]));
        assert!(read("calibrate").ends_with(&[b'\n', 0, 0, 0, 64]));
        assert!(String::from_utf8_lossy(&read("evaluate")).contains("(2, 1,)"));
    }
}
