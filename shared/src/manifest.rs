//! The manifest of a bundle: what the model is, how to feed it, and which files it consists of.

mod preprocess;

pub use preprocess::{Column, Preprocess, standardise};

use crate::{
    BoardId, Digest, JobId, ModelName, ModelVersionId, Timestamp, VersionLabel, limits, signing, text::Align,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The manifest format that this code reads and writes.
pub const FORMAT: u32 = 1;
/// File of every bundle: the INT8 model.
pub const MODEL_FILE: &str = "model.onnx";
/// File of every bundle: golden inputs and outputs, safetensors with tensors `input` and `output`.
pub const GOLDEN_FILE: &str = "golden.safetensors";
/// Optional file: how the model came to be, one signed in-toto statement a line.
pub const LINEAGE_FILE: &str = "lineage.jsonl";
/// Optional file: a signature of all other files by OpenSSF Model Signing v1.0.
pub const SIGNATURE_FILE: &str = "model.sig";

/// What a model does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// One label for one image.
    ImageClassification,
    /// One label for one time series of one or many channels.
    SeriesClassification,
    /// One label for one sentence, and the words of it that fill slots.
    IntentSlots,
    /// The character that follows a text.
    TextGeneration,
    /// Whether one image, series or row of a table is unlike those that are normal: the label `anomaly` or `normal`.
    AnomalyDetection,
}

/// Labels of a model that finds anomalies, in this order.
pub const ANOMALY_LABELS: [&str; 2] = ["normal", "anomaly"];

/// Where a model that finds anomalies draws its line: its output is shifted so that the label `anomaly` is the likelier one
/// for at most this share of normal samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Alarm {
    /// The share, in thousandths.
    pub false_alarms_permille: u32,
    /// Normal samples held back from training by which the line was drawn.
    pub normal_samples: u64,
}

/// A tensor that goes into or comes out of a model, always f32 and always batch first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    /// The tensor's name in the graph.
    pub name: String,
    /// Shape without the batch: `[C, H, W]`, `[C, L]` or `[classes]`.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// Elements of one sample.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A further answer of a model, behind the probabilities of its labels in the one output: `[labels, positions]`, row
/// major, the probabilities of each position by themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Head {
    pub name: String,
    pub labels: Vec<String>,
    /// Positions of the input that each get a label.
    pub positions: usize,
}

impl Head {
    /// Values of one sample.
    pub fn elements(&self) -> usize {
        self.labels.len().saturating_mul(self.positions)
    }
}

/// One file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// A plain file name.
    pub name: String,
    /// SHA-256 of the content.
    pub digest: Digest,
    /// Exact size.
    pub size_bytes: u64,
}

/// Where a model came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// SHA-256 over the data set's files.
    pub dataset: Digest,
    /// The job that made the model; `None` for a model brought from elsewhere.
    pub job: Option<JobId>,
    /// The job's seed.
    pub seed: u64,
    /// The version whose architecture and weights it started from.
    pub parent: Option<ModelVersionId>,
}

/// What a bundle is. Signed by the release key; the SHA-256 of the signed envelope names the bundle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub model: ModelName,
    pub version: VersionLabel,
    pub version_id: ModelVersionId,
    pub task: Task,
    /// The board whose limits the search kept.
    pub board: BoardId,
    pub created_at: Timestamp,
    pub input: TensorSpec,
    pub output: TensorSpec,
    pub preprocess: Preprocess,
    /// Class names, in the order of the output.
    pub labels: Vec<String>,
    /// What stands in the output behind the classes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub heads: Vec<Head>,
    /// Of a model that finds anomalies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm: Option<Alarm>,
    /// Largest difference of a probability from its golden value, 0 to 1.
    pub golden_tolerance: f32,
    pub files: Vec<FileEntry>,
    pub lineage: Lineage,
}

impl Manifest {
    /// The entry of the file `name`.
    pub fn file(&self, name: &str) -> Option<&FileEntry> {
        self.files.iter().find(|file| file.name == name)
    }

    /// Bytes of all files.
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size_bytes).fold(0, u64::saturating_add)
    }
}

impl Manifest {
    fn check_text(&self) -> Result<(), String> {
        let Some(text) = &self.preprocess.text else {
            return match self.task {
                Task::IntentSlots | Task::TextGeneration => Err("preprocess.text is missing".to_owned()),
                Task::ImageClassification | Task::SeriesClassification | Task::AnomalyDetection => Ok(()),
            };
        };
        if self.task == Task::AnomalyDetection {
            return Err("preprocess.text is for models of text, this one finds anomalies".to_owned());
        }
        text.validate().map_err(|error| format!("preprocess.text: {error}"))?;
        let characters = text.alphabet.chars().count();
        match *self.input.shape {
            [channels, length] if channels == characters => {
                let longer = self.heads.iter().find(|head| head.positions > length);
                if let Some(head) = longer {
                    return Err(format!("head {:?} has more positions than the input's {length}", head.name));
                }
            }
            _ => return Err(format!("input.shape is not [{characters}, length], as the alphabet needs")),
        }
        if self.task == Task::TextGeneration {
            let spelled = self.labels.len() == characters && self.labels.concat() == text.alphabet;
            if text.align != Align::End || !spelled || !self.heads.is_empty() {
                return Err("what writes text reads to the end, and its labels are the alphabet".to_owned());
            }
        }
        Ok(())
    }

    fn check_alarm(&self) -> Result<(), String> {
        let finds = self.task == Task::AnomalyDetection;
        if finds && (self.labels != ANOMALY_LABELS || !self.heads.is_empty()) {
            return Err(format!("what finds anomalies has the labels {ANOMALY_LABELS:?} and no heads"));
        }
        match self.alarm {
            Some(_) if !finds => Err("alarm is for models that find anomalies".to_owned()),
            Some(alarm) if alarm.false_alarms_permille > 1000 => Err(format!(
                "alarm.false_alarms_permille is {}, allowed are 0 to 1000",
                alarm.false_alarms_permille
            )),
            Some(_) | None => Ok(()),
        }
    }
}

impl signing::Payload for Manifest {
    const TYPE: &'static str = "application/vnd.edgewright.manifest.v1+json";
    const ROLE: signing::Role = signing::Role::Release;

    fn validate(&self) -> Result<(), String> {
        if self.format != FORMAT {
            return Err(format!("format is {}; this agent reads {FORMAT}", self.format));
        }
        check_tensor("input", &self.input, 2..=3)?;
        check_tensor("output", &self.output, 1..=1)?;
        let behind = check_heads(&self.heads)?;
        let outputs = self.output.elements().saturating_sub(behind);
        if self.labels.len() > limits::LABELS_MAX || self.labels.len() != outputs {
            return Err(format!(
                "labels has {} names for {outputs} outputs (at most {})",
                self.labels.len(),
                limits::LABELS_MAX
            ));
        }
        self.check_text()?;
        self.check_alarm()?;
        if !(self.golden_tolerance > 0.0 && self.golden_tolerance <= 1.0) {
            return Err("golden_tolerance is over 0 and at most 1".to_owned());
        }
        self.preprocess.check(&self.input)?;
        check_files(&self.files)
    }
}

fn check_tensor(
    field: &str,
    tensor: &TensorSpec,
    ranks: std::ops::RangeInclusive<usize>,
) -> Result<(), String> {
    if tensor.name.is_empty() || tensor.name.len() > 64 {
        return Err(format!("{field}.name has 1 to 64 bytes"));
    }
    if !ranks.contains(&tensor.shape.len()) {
        return Err(format!("{field}.shape has {} dimensions, allowed are {ranks:?}", tensor.shape.len()));
    }
    let elements = tensor.shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
    match elements {
        Some(elements) if (1..=limits::TENSOR_ELEMENTS_MAX).contains(&elements) => Ok(()),
        _ => Err(format!("{field}.shape holds 1 to {} elements", limits::TENSOR_ELEMENTS_MAX)),
    }
}

/// Values of all heads together.
fn check_heads(heads: &[Head]) -> Result<usize, String> {
    if heads.len() > limits::HEADS_MAX {
        return Err(format!("heads has {} entries, at most {}", heads.len(), limits::HEADS_MAX));
    }
    let mut elements = 0usize;
    for head in heads {
        if head.name.is_empty() || head.name.len() > 64 {
            return Err("a head's name has 1 to 64 bytes".to_owned());
        }
        if !(1..=limits::LABELS_MAX).contains(&head.labels.len()) || head.positions == 0 {
            return Err(format!(
                "head {:?} has 1 to {} labels and a position",
                head.name,
                limits::LABELS_MAX
            ));
        }
        elements = elements.saturating_add(head.elements());
    }
    Ok(elements)
}

fn check_files(files: &[FileEntry]) -> Result<(), String> {
    if files.len() > limits::BUNDLE_FILES_MAX {
        return Err(format!("files has {} entries, at most {}", files.len(), limits::BUNDLE_FILES_MAX));
    }
    let mut names = BTreeSet::new();
    for file in files {
        if file.name.parse::<crate::SlotName>().is_err() {
            return Err(format!(
                "files has an unsafe name {:?}",
                file.name.chars().take(80).collect::<String>()
            ));
        }
        if !names.insert(file.name.as_str()) {
            return Err(format!("files names {:?} twice", file.name));
        }
        if file.size_bytes == 0 || file.size_bytes > limits::BUNDLE_FILE_BYTES_MAX {
            return Err(format!(
                "{:?} is {} bytes; a file has 1 to {}",
                file.name,
                file.size_bytes,
                limits::BUNDLE_FILE_BYTES_MAX
            ));
        }
    }
    for required in [MODEL_FILE, GOLDEN_FILE] {
        if !names.contains(required) {
            return Err(format!("files lacks {required:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
