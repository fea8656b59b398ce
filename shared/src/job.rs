//! Jobs of the forge, as the control plane writes them and the worker `edgewright-forge` reads them.
//!
//! A job is a folder: `job.json` ([`JobSpec`]) goes in; `checkpoint/` is the worker's own; `result/` appears, whole
//! or not at all, when the job is done. On its standard output the worker writes one [`Progress`] a line.

mod forge_device;
mod front;
mod reading;

pub use forge_device::{FORGE_DEVICE_ENV, ForgeDevice, NoForgeDevice};
pub use front::{FrontEntry, FrontFile, FrontPoint, FrontRef, NoFrontRef};
pub use reading::Reading;

use crate::{
    Digest, JobId, ModelVersionId,
    board::{Board, RuntimeName},
    latency::{PredictionError, percent},
    manifest::{Alarm, Column, Head, Task},
    space::SearchSpace,
    text::TextPreprocess,
};
use serde::{Deserialize, Serialize};
use std::{fmt, path::PathBuf, str::FromStr};

/// The file in a job's folder that says what to do.
pub const SPEC_FILE: &str = "job.json";
/// The folder that holds the result.
pub const RESULT_DIR: &str = "result";
/// The folder that holds checkpoints.
pub const CHECKPOINT_DIR: &str = "checkpoint";
/// The file in a job's folder that holds the samples of a data set beyond memory, while the job runs.
pub const DATA_FILE: &str = "samples.bin";
/// In the result: [`JobReport`].
pub const REPORT_FILE: &str = "report.json";
/// In the result: the architecture that was found.
pub const ARCH_FILE: &str = "arch.json";
/// In the result: the found cell as text, for people.
pub const CELL_FILE: &str = "cell.txt";
/// In the result: how loss and accuracy went, as JSON.
pub const HISTORY_FILE: &str = "history.json";
/// In the result: the same as a chart.
pub const LOSS_PLOT_FILE: &str = "loss.svg";
/// In the result: how the architecture weights went, as a chart; only of a search that has some.
pub const ALPHA_PLOT_FILE: &str = "alpha.svg";
/// In the result: the architectures that a search judged ([`FrontFile`]).
pub const FRONT_FILE: &str = "pareto.json";
/// In the result: the same as a chart.
pub const FRONT_PLOT_FILE: &str = "pareto.svg";
/// In the result: the trained weights before quantisation.
pub const WEIGHTS_FILE: &str = "weights.safetensors";
/// In the result: the model before quantisation.
pub const MODEL_FP32_FILE: &str = "model-fp32.onnx";

/// Formats of data sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum DataFormat {
    /// A folder with the four files of MNIST, plain or gzip.
    Idx,
    /// A folder of PNG or JPEG files for each class, in `train` and `test` or split by the reader.
    ImageFolder,
    /// `NAME_TRAIN.tsv` and `NAME_TEST.tsv`, label first.
    UcrTsv,
    /// `NAME_TRAIN.ts` and `NAME_TEST.ts`.
    Ts,
    /// `.npy` arrays without labels: they calibrate a model from elsewhere, and train none.
    Npy,
    /// Plain text: a `.txt` file, or a folder of them.
    Text,
    /// Sentences with their intent and slots, one a line of a `.jsonl` file.
    IntentJsonl,
    /// Templates of sentences with a grammar, as Home Assistant writes them, in a `.json` file.
    IntentJson,
    /// A table of numbers with a column of labels: a `.csv` file, or `NAME_TRAIN.csv` and `NAME_TEST.csv`, plain or gzip.
    Csv,
}

/// A data set on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetRef {
    /// A folder, for the pair formats also `FOLDER/NAME`.
    pub path: PathBuf,
    pub format: DataFormat,
    /// SHA-256 over the files, as it was when the set was registered; a set that changed is refused.
    pub digest: Option<Digest>,
    #[serde(default, skip_serializing_if = "Reading::is_default")]
    pub reading: Reading,
}

/// What `edgewright-forge inspect` says of a data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DatasetSchema {
    pub format: DataFormat,
    pub task: Task,
    /// SHA-256 over the files, and over what was said of how to read them.
    pub digest: Digest,
    #[serde(default, skip_serializing_if = "Reading::is_default")]
    pub reading: Reading,
    /// Shape of one sample: `[C, H, W]` or `[C, L]`.
    pub shape: Vec<usize>,
    pub labels: Vec<String>,
    /// What a model answers behind its classes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub heads: Vec<Head>,
    /// How text becomes a sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<TextPreprocess>,
    /// Of a table: its columns, and how their numbers are standardised.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<Column>,
    pub train_count: u64,
    pub test_count: u64,
    /// How the set was split, and what a person should know of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

/// What a job has to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    pub id: JobId,
    pub seed: u64,
    /// Most threads of libtorch; a small network gets fewer.
    pub threads: u32,
    pub dataset: DatasetRef,
    pub board: Board,
    pub kind: JobKind,
    pub budget: Budget,
    /// What a search may find; what is usual for the data where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space: Option<SearchSpace>,
}

/// Kinds of jobs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum JobKind {
    /// Search an architecture, train it, quantise it, export it.
    Search {
        #[serde(default, skip_serializing_if = "SearchMethod::is_default")]
        method: SearchMethod,
    },
    /// Train a known architecture from random weights, quantise it, export it: what a search is compared with, and
    /// what takes the place of one where somebody knows better.
    Train {
        /// A file like [`ARCH_FILE`]; its input shape and number of classes must be the data set's.
        architecture: PathBuf,
        /// Make it as wide as brings it closest to this many weights; as wide as the file says where not given.
        weights: Option<u64>,
    },
    /// Train a known architecture on, from known weights, then quantise and export it.
    Retrain {
        /// The `result/` folder of the job that it starts from.
        from: PathBuf,
        parent: ModelVersionId,
    },
}

/// How a cell is found. Within one budget all methods take equally many weight steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum SearchMethod {
    /// First-order bilevel search in a supernet of mixed operations (Liu, Simonyan and Yang 2019).
    #[default]
    Darts,
    /// The same with the gradient through one weight step (section 2.3 there).
    DartsSecondOrder,
    /// One sampled operation an edge, by the Gumbel-softmax (Dong and Yang 2019).
    Gdas,
    /// A share of the channels goes through the operations, the rest passes by (Xu et al. 2020).
    PartialChannels,
    /// Cells drawn at random, each trained for itself.
    Random,
    /// The same; the better half of them is trained on (Jamieson and Talwalkar 2016).
    SuccessiveHalving,
    /// Evolution of cells on the shared weights of a supernet (Guo et al. 2020).
    Evolution,
    /// The same on kernels that a small network generates from a code for each layer and operation (Brock et al. 2018,
    /// "SMASH"; Ha, Dai and Le 2017, "HyperNetworks").
    Hypernetwork,
}

/// No search method has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no search method {name:?}, allowed are {}", SearchMethod::ALL.map(SearchMethod::name).join(", "))]
pub struct UnknownMethod {
    name: String,
}

impl SearchMethod {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Darts,
        Self::DartsSecondOrder,
        Self::Gdas,
        Self::PartialChannels,
        Self::Random,
        Self::SuccessiveHalving,
        Self::Evolution,
        Self::Hypernetwork,
    ];

    /// As in JSON and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Darts => "darts",
            Self::DartsSecondOrder => "darts-second-order",
            Self::Gdas => "gdas",
            Self::PartialChannels => "partial-channels",
            Self::Random => "random",
            Self::SuccessiveHalving => "successive-halving",
            Self::Evolution => "evolution",
            Self::Hypernetwork => "hypernetwork",
        }
    }

    /// Names what of a budget the method cannot work with.
    pub fn validate(self, budget: &Budget) -> Result<(), String> {
        if self == Self::PartialChannels && !budget.channels.is_multiple_of(2) {
            return Err(format!("budget.channels is {}, {self} needs an even number", budget.channels));
        }
        Ok(())
    }

    /// A job without a method is searched by this one.
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for SearchMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for SearchMethod {
    type Err = UnknownMethod;

    fn from_str(name: &str) -> Result<Self, UnknownMethod> {
        let found = Self::ALL.into_iter().find(|method| method.name() == name);
        found.ok_or_else(|| UnknownMethod { name: name.to_owned() })
    }
}

/// What a network can learn from samples without labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Pretext {
    /// To fill in what was hidden of a sample: three patches of ten (He et al. 2022).
    Masked,
    /// To tell which of many changed samples was the same one before (van den Oord, Li and Vinyals 2018; Chen et al.
    /// 2020).
    Contrastive,
}

/// No pretext has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no pretext {name:?}, allowed are {}", Pretext::ALL.map(Pretext::name).join(", "))]
pub struct UnknownPretext {
    name: String,
}

impl Pretext {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Masked, Self::Contrastive];

    /// As in JSON and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Masked => "masked",
            Self::Contrastive => "contrastive",
        }
    }
}

impl fmt::Display for Pretext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Pretext {
    type Err = UnknownPretext;

    fn from_str(name: &str) -> Result<Self, UnknownPretext> {
        let found = Self::ALL.into_iter().find(|pretext| pretext.name() == name);
        found.ok_or_else(|| UnknownPretext { name: name.to_owned() })
    }
}

/// What is done to a trained network to make it smaller and faster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// Post-training INT8.
    #[default]
    Int8,
    /// Structured pruning as far as the budget's loss of accuracy allows, then INT8.
    Prune,
    /// Low-rank factors of its layers, then INT8.
    LowRank,
    /// INT8 with the rounding of every weight learned.
    AdaptiveRounding,
    /// INT8 with a training that rounds.
    QuantisationAware,
    /// Weights as 16-bit floats.
    Fp16,
    /// The sequence of all of these that makes the model smallest and fastest within the budget's loss of accuracy.
    Auto,
}

/// No way to compress has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no way to compress {name:?}, allowed are {}", Compression::ALL.map(Compression::name).join(", "))]
pub struct UnknownCompression {
    name: String,
}

impl Compression {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Int8,
        Self::Prune,
        Self::LowRank,
        Self::AdaptiveRounding,
        Self::QuantisationAware,
        Self::Fp16,
        Self::Auto,
    ];

    /// As in JSON and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Int8 => "int8",
            Self::Prune => "prune",
            Self::LowRank => "low-rank",
            Self::AdaptiveRounding => "adaptive-rounding",
            Self::QuantisationAware => "quantisation-aware",
            Self::Fp16 => "fp16",
            Self::Auto => "auto",
        }
    }

    /// A job that names none keeps its bytes.
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(name: &str) -> Result<Self, UnknownCompression> {
        let found = Self::ALL.into_iter().find(|way| way.name() == name);
        found.ok_or_else(|| UnknownCompression { name: name.to_owned() })
    }
}

/// Least and most time that a job may be given: what loading and measuring alone take, and four weeks.
const SECONDS_MIN: u32 = 10;
const SECONDS_MAX: u32 = 4 * 7 * 24 * 3600;

/// How much work a job may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Architecture steps of a search by gradients, each beside one weight step. Warm-up and settling take three
    /// weight steps for ten of these.
    pub search_steps: u32,
    /// Samples in one step of the search.
    pub search_batch: u32,
    /// Passes over the training split for the derived network.
    pub train_epochs: u32,
    /// Channels of the first stage of the supernet.
    pub channels: u32,
    /// Cells of the derived network.
    pub cells: u32,
    /// Intermediate nodes of a cell.
    pub nodes: u32,
    /// Teachers to train first, each as the found network but wider than the board allows; the network then learns from
    /// their answers too.
    #[serde(default)]
    pub teachers: u32,
    /// What the network learns from the samples alone, before it learns their labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretext: Option<Pretext>,
    /// Passes over all training samples for that; as many as over the labelled ones where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretext_epochs: Option<u32>,
    /// Per cent of the training samples whose labels are used, the same share of each class and at least one; all where not
    /// given. The others are seen without their labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labelled_percent: Option<u32>,
    /// Seconds for everything, if they are limited: the steps and passes above are then the most that is done, and the
    /// worker takes as many of them as it measures that there is time for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u32>,
    /// What is done to the trained network before it is exported.
    #[serde(default, skip_serializing_if = "Compression::is_default")]
    pub compress: Compression,
    /// How many right answers of those of the FP32 network compression may cost, in thousandths; 10 where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy_loss_permille: Option<u32>,
}

impl Budget {
    /// See [`Self::accuracy_loss_permille`].
    pub const ACCURACY_LOSS_PERMILLE_DEFAULT: u32 = 10;

    /// Minutes on two cores; what the demo takes.
    pub fn quick(task: Task) -> Self {
        let usual = Self {
            search_steps: 100,
            search_batch: 32,
            train_epochs: 150,
            channels: 16,
            cells: 3,
            nodes: 2,
            teachers: 0,
            pretext: None,
            pretext_epochs: None,
            labelled_percent: None,
            seconds: None,
            compress: Compression::Int8,
            accuracy_loss_permille: None,
        };
        match task {
            Task::SeriesClassification => usual,
            Task::ImageClassification => {
                Self { search_steps: 120, search_batch: 64, train_epochs: 3, channels: 8, ..usual }
            }
            Task::IntentSlots => {
                Self { search_steps: 150, train_epochs: 10, channels: 24, cells: 2, ..usual }
            }
            Task::AnomalyDetection => Self { search_batch: 64, train_epochs: 30, channels: 8, ..usual },
            Task::TextGeneration => {
                Self { search_steps: 300, search_batch: 16, train_epochs: 1, channels: 24, cells: 2, ..usual }
            }
        }
    }

    /// As good as can be had in `seconds` by the clock.
    pub fn within(task: Task, seconds: u32) -> Self {
        let (search_steps, train_epochs) = match task {
            Task::ImageClassification => (1000, 60),
            Task::SeriesClassification => (1000, 1000),
            Task::IntentSlots => (1000, 100),
            Task::TextGeneration => (1000, 30),
            Task::AnomalyDetection => (1000, 300),
        };
        let compress = Compression::Auto;
        Self { search_steps, train_epochs, seconds: Some(seconds), compress, ..Self::quick(task) }
    }

    /// Names the field that is out of range and what is allowed.
    pub fn validate(&self) -> Result<(), String> {
        for (key, value, low, high) in [
            ("search_steps", self.search_steps, 1, 1_000_000),
            ("search_batch", self.search_batch, 2, 4096),
            ("train_epochs", self.train_epochs, 1, 100_000),
            ("channels", self.channels, 2, 512),
            ("cells", self.cells, 1, 32),
            ("nodes", self.nodes, 1, 8),
            ("teachers", self.teachers, 0, 8),
            ("accuracy_loss_permille", self.accuracy_loss_permille.unwrap_or_default(), 0, 500),
        ] {
            if !(low..=high).contains(&value) {
                return Err(format!("budget.{key} is {value}, allowed are {low} to {high}"));
            }
        }
        for (key, value, low, high) in [
            ("pretext_epochs", self.pretext_epochs, 1, 100_000),
            ("labelled_percent", self.labelled_percent, 1, 100),
            ("seconds", self.seconds, SECONDS_MIN, SECONDS_MAX),
        ] {
            if let Some(value) = value
                && !(low..=high).contains(&value)
            {
                return Err(format!("budget.{key} is {value}, allowed are {low} to {high}"));
            }
        }
        if self.pretext_epochs.is_some() && self.pretext.is_none() {
            return Err("budget.pretext_epochs is given without budget.pretext".to_owned());
        }
        Ok(())
    }

    /// Names the field that a job of this task cannot have: text has no pretext, and keeps all of its labels.
    pub fn validate_for(&self, task: Task) -> Result<(), String> {
        let given = [
            ("pretext", self.pretext.is_some()),
            ("pretext_epochs", self.pretext_epochs.is_some()),
            ("labelled_percent", self.labelled_percent.is_some()),
        ];
        match (task, given.into_iter().find(|(_, given)| *given)) {
            (Task::IntentSlots | Task::TextGeneration, Some((key, _))) => {
                Err(format!("budget.{key} is for images and series, the data set holds text: leave it out"))
            }
            (Task::ImageClassification | Task::SeriesClassification | Task::AnomalyDetection, Some(_))
            | (_, None) => Ok(()),
        }
    }
}

/// Stages of a job, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    Load,
    Search,
    Train,
    Compress,
    Quantise,
    Check,
    Done,
}

impl Stage {
    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Search => "search",
            Self::Train => "train",
            Self::Compress => "compress",
            Self::Quantise => "quantise",
            Self::Check => "check",
            Self::Done => "done",
        }
    }
}

/// One line of a worker's standard output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    pub stage: Stage,
    pub step: u64,
    pub total: u64,
    /// The newest loss, where the stage has one.
    pub loss: Option<f64>,
    /// The newest accuracy on data held back, 0 to 1, where the stage has one.
    pub accuracy: Option<f64>,
    /// The step that a killed job went on from.
    pub resumed_from: Option<u64>,
    /// For people.
    pub message: Option<String>,
}

/// What a finished job, or the import of a model from elsewhere, measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JobReport {
    /// `None` for an import.
    pub job: Option<JobId>,
    pub seed: u64,
    /// Of an import: what it was calibrated by. Its training samples gave the ranges.
    pub dataset: DatasetSchema,
    /// `None` where nothing was searched.
    pub search: Option<SearchReport>,
    /// `None` without teachers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teachers: Option<TeachersReport>,
    /// `None` where the network began at random weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretext: Option<PretextReport>,
    /// Training samples whose labels were used; `None` where that is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labelled: Option<u64>,
    /// What the job computed on when it ended, as in `cpu` or `cuda:0`; `None` for an import, and in reports from before it
    /// was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// In which numbers it trained there: `f32`, or `f16 and f32`; `None` as `device` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<String>,
    /// Of a model that finds anomalies: where it draws its line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm: Option<Alarm>,
    pub train_seconds: f64,
    pub train_epochs: u32,
    pub quantise_seconds: f64,
    /// How the model became small; `None` for an import, and in reports from before there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<CompressionReport>,
    pub model: ModelReport,
    /// What was reckoned of the model's latency on the board; `None` for an import.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<EstimateReport>,
    /// Where the model came from, and how it was quantised; `None` for a job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub import: Option<ImportReport>,
}

impl JobReport {
    /// How good the model is, for people: its accuracy where there were labels, else how close INT8 is to f32.
    pub fn quality(&self) -> String {
        let mut said = self.of_answers();
        for MetricReport { metric, fp32, int8 } in &self.model.metrics {
            said.push_str(&format!("; {metric} {fp32:.4} FP32, {int8:.4} INT8"));
        }
        said
    }

    fn of_answers(&self) -> String {
        match (self.model.accuracy_fp32.zip(self.model.accuracy_int8), &self.import) {
            (Some((fp32, small)), _) => {
                format!("accuracy {fp32:.4} FP32, {small:.4} {}", self.model.form.name())
            }
            (None, Some(ImportReport { closeness, .. })) => format!(
                "INT8 at {:.1} dB of FP32, {:.4} of the samples with the same answer",
                closeness.sqnr_db, closeness.agreement
            ),
            (None, None) => "accuracy not known".to_owned(),
        }
    }
}

/// How a trained network became the model of a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CompressionReport {
    /// The trained network, the network after every step that was kept, and plain INT8 to compare them with. The last is
    /// the exported model.
    pub steps: Vec<StepReport>,
    /// The sequences of pruning and low rank that were tried; empty where none was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<SequenceReport>,
    /// Of the trials, the retraining and the rounding.
    pub seconds: f64,
}

/// A network after one step of its compression, as one file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StepReport {
    /// What was done, for people.
    pub step: String,
    pub parameters: u64,
    /// Of the ONNX file.
    pub bytes: u64,
    pub macs: u64,
    /// Share of right answers on the test split on ONNX Runtime, 0 to 1.
    pub accuracy: f64,
    /// One thread, one sample, median.
    pub us_ort: f64,
    /// The same; tract computes every form in f32. `None` where it does not run the form.
    pub us_tract: Option<f64>,
    /// How ONNX Runtime really computes it.
    pub kernels: KernelReport,
}

/// Nodes with weights in the graph that ONNX Runtime runs after all of its own rewriting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KernelReport {
    /// That multiply integers.
    pub integer: u64,
    /// That multiply f32.
    pub float: u64,
}

/// One sequence of steps, after a short retraining of each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SequenceReport {
    /// Its steps, for people.
    pub sequence: String,
    /// Bytes of the weights as INT8, estimated.
    pub bytes: u64,
    pub macs: u64,
    /// Microseconds on the board, estimated.
    pub us: u64,
    /// Share of right answers on training samples held back from the retraining, before quantisation, 0 to 1.
    pub accuracy: f64,
    /// Why it was not taken; `None` for the one that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// What a search reckons one inference on the board to take: its cost, and what `limits.latency_us_max` is held against.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EstimateReport {
    /// Of the INT8 model, one thread, one sample, on the fastest runtime that the board allows.
    pub us: u64,
    pub by: EstimateSource,
    /// Median of the exported model on the worker, on the same runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub here_us: Option<u64>,
}

/// What an estimate rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum EstimateSource {
    /// On what devices of the board measured.
    Profile { devices: u32, runtime: RuntimeName, error: PredictionError },
    /// On the board's description alone; `why_not_profile` says why measurements that are there do not count.
    Description { why_not_profile: Option<String> },
}

impl EstimateReport {
    /// One line for people.
    pub fn line(&self) -> String {
        let here = self.here_us.map_or_else(String::new, |us| format!("; {us} us measured on the worker"));
        match &self.by {
            EstimateSource::Profile { devices, runtime, error } => format!(
                "{} us on {runtime} by the profile of {devices} device(s), whose median error on networks is {} % \
                 (worst {} %){here}",
                self.us,
                percent(error.median_permille),
                percent(error.worst_permille)
            ),
            EstimateSource::Description { why_not_profile: None } => {
                format!("{} us by the board's description alone{here}", self.us)
            }
            EstimateSource::Description { why_not_profile: Some(reason) } => {
                format!("{} us by the board's description, not by its profile: {reason}{here}", self.us)
            }
        }
    }
}

/// How a model from elsewhere was taken in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ImportReport {
    /// Name of the file that it came in.
    pub source: String,
    /// SHA-256 of that file.
    pub source_digest: Digest,
    /// Calibrator and corrections.
    pub way: String,
    /// The INT8 model against the f32 one, over samples that gave no ranges where there are enough.
    pub closeness: ClosenessReport,
    /// Every way that was tried with all nodes on integers.
    pub tried: Vec<TriedReport>,
    /// Nodes with weights that run on integers.
    pub integer_nodes: u64,
    /// Nodes with weights that stay f32 so that the model keeps its bound, the most sensitive first.
    pub kept_f32: Vec<KeptReport>,
    /// Why devices cannot run it, where that is so.
    pub not_for_devices: Option<String>,
}

/// How close an INT8 model is to its f32 one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ClosenessReport {
    /// Signal to noise of the output, in decibels; at most 200.
    pub sqnr_db: f64,
    /// Share of samples with the same largest output, 0 to 1.
    pub agreement: f64,
    /// Largest difference of an output value.
    pub difference_max: f32,
}

/// One way to choose ranges and weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TriedReport {
    /// Calibrator and corrections.
    pub way: String,
    pub closeness: ClosenessReport,
}

/// A node that stays f32.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KeptReport {
    /// Operator and name.
    pub node: String,
    /// Signal to noise of the output with this node alone on integers, in decibels.
    pub alone_db: f64,
}

/// What the search did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SearchReport {
    /// A report without it is of a search by the default one.
    #[serde(default)]
    pub method: SearchMethod,
    pub seconds: f64,
    /// Steps that moved architecture weights; 0 where the method has none.
    pub arch_steps: u64,
    /// Cells that were judged one by one; 0 where the method judges them by architecture weights.
    #[serde(default)]
    pub cells_judged: u64,
    /// How often skip connections had taken over and were set back.
    #[serde(default)]
    pub repairs: u64,
    /// Share of skip connections in the found cell, 0 to 1.
    pub skip_share: f64,
    /// The found cell in one line, such as `0->2 conv3 | 1->2 sep5`.
    pub cell: String,
    /// Name of the space; a report without it is of what was usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space: Option<String>,
    /// Of the networks that were judged, those that no other one beats in accuracy, weights and latency at once, the most
    /// accurate first; and the one that was trained, if it is none of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub front: Vec<FrontPoint>,
}

/// What the network learned from beside the labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TeachersReport {
    pub count: u32,
    /// Of each.
    pub parameters: u64,
    /// Mean share of right answers on the test split, in FP32, 0 to 1.
    pub accuracy: f64,
    /// Of the training of all.
    pub seconds: f64,
}

/// What the network learned from samples without labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PretextReport {
    pub pretext: Pretext,
    pub steps: u64,
    /// Training samples that it saw.
    pub samples: u64,
    /// Mean loss of its last tenth. Masked: the error over the variance of the data; contrastive: cross-entropy.
    pub loss: f64,
    pub seconds: f64,
}

/// What the model is and does, measured on the exported files with the real test split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ModelReport {
    /// What `model.onnx` is; what is said below of INT8 is said of it.
    #[serde(default, skip_serializing_if = "ModelForm::is_int8")]
    pub form: ModelForm,
    pub parameters: u64,
    pub macs: u64,
    pub activation_bytes: u64,
    /// On ONNX Runtime, 0 to 1; `None` without labels.
    pub accuracy_fp32: Option<f64>,
    /// On ONNX Runtime, 0 to 1; `None` without labels.
    pub accuracy_int8: Option<f64>,
    /// On tract, 0 to 1; `None` without labels, and where tract does not run the model.
    pub accuracy_int8_tract: Option<f64>,
    pub bytes_fp32_onnx: u64,
    pub bytes_int8_onnx: u64,
    /// One thread, one sample, median.
    pub us_per_inference: LatencyTable,
    /// Largest difference of a golden output between runtimes and the trained network.
    pub golden_difference_max: f32,
    /// What the manifest shall allow.
    pub golden_tolerance: f32,
    /// What the task is judged by beside right answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<MetricReport>,
    /// One row an activation of the INT8 model, in the order of the network.
    #[serde(default)]
    pub tensors: Vec<TensorReport>,
    /// Says so where INT8 is not faster than FP32, less accurate than it should be, or slower than the board's target.
    pub remarks: Vec<String>,
}

/// How the numbers of an exported model are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ModelForm {
    /// Weights and activations as 8-bit integers.
    #[default]
    Int8,
    /// Weights as 16-bit floats; the arithmetic is in f32.
    Fp16,
}

impl ModelForm {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Int8 => "INT8",
            Self::Fp16 => "FP16",
        }
    }

    fn is_int8(&self) -> bool {
        *self == Self::Int8
    }
}

/// A measure of one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Mean of `-log2` of the probability that the model gave the character that came; less is better.
    BitsPerCharacter,
    /// Harmonic mean of precision and recall of whole slots; more is better, 1 at most.
    SlotF1,
    /// Mean over the classes of the share of their samples that was answered right; more is better, 1 at most. Where classes
    /// are unbalanced.
    BalancedAccuracy,
    /// Area under the receiver operating characteristic: how likely an anomaly gets a higher probability of being one than a
    /// normal sample, a tie counting half; more is better, 1 at most.
    Auroc,
    /// Share of the anomalies that are reported as such; more is better, 1 at most.
    DetectionRate,
    /// Share of the normal samples that are reported as anomalies; less is better.
    FalseAlarmRate,
}

impl Metric {
    /// Whether `value` is worse than `than` by more than the share `loss` of it. Rates at one point of a curve are judged by
    /// the curve, not by themselves.
    pub fn is_worse(self, value: f64, than: f64, loss: f64) -> bool {
        match self {
            Self::BitsPerCharacter => value > than * (1.0 + loss),
            Self::SlotF1 | Self::BalancedAccuracy | Self::Auroc => value < than * (1.0 - loss),
            Self::DetectionRate | Self::FalseAlarmRate => false,
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::BitsPerCharacter => "bits per character",
            Self::SlotF1 => "slot F1",
            Self::BalancedAccuracy => "balanced accuracy",
            Self::Auroc => "AUROC",
            Self::DetectionRate => "anomalies found",
            Self::FalseAlarmRate => "false alarms",
        })
    }
}

/// One measure of a model, on the exported files with the real test split, on ONNX Runtime.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MetricReport {
    pub metric: Metric,
    pub fp32: f64,
    pub int8: f64,
}

/// One activation of an INT8 model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TensorReport {
    /// `input`, or node index and operation.
    pub name: String,
    /// Smallest value that the integers can hold.
    pub low: f32,
    /// Largest value that the integers can hold.
    pub high: f32,
    /// Value of one integer step.
    pub scale: f32,
    /// The integer that stands for zero.
    pub zero_point: u8,
    /// Signal to quantisation noise over the calibration samples, in decibels; at most 200.
    pub sqnr_db: f64,
}

/// Microseconds of one inference.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LatencyTable {
    /// `None` where tract does not run the model.
    pub tract_fp32: Option<f64>,
    /// `None` where tract does not run the model.
    pub tract_int8: Option<f64>,
    pub ort_fp32: f64,
    pub ort_int8: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quick_budgets_are_valid_and_bad_ones_are_named() {
        for task in [
            Task::ImageClassification,
            Task::SeriesClassification,
            Task::IntentSlots,
            Task::TextGeneration,
            Task::AnomalyDetection,
        ] {
            Budget::quick(task).validate().unwrap();
            Budget::within(task, 60).validate().unwrap();
            assert_eq!(
                Budget::within(task, 1).validate().unwrap_err(),
                "budget.seconds is 1, allowed are 10 to 2419200"
            );
        }
        let bad = Budget { cells: 0, ..Budget::quick(Task::ImageClassification) };
        assert_eq!(bad.validate().unwrap_err(), "budget.cells is 0, allowed are 1 to 32");
    }

    #[test]
    fn a_method_has_one_name_everywhere_and_a_job_without_one_is_as_before() {
        for method in SearchMethod::ALL {
            assert_eq!(serde_json::to_value(method).unwrap(), method.name());
            assert_eq!(method.name().parse(), Ok(method));
        }
        let unknown = "dart".parse::<SearchMethod>().unwrap_err().to_string();
        assert!(
            unknown.starts_with("no search method \"dart\", allowed are darts, darts-second-order,"),
            "{unknown}"
        );
        let read = |text: &str| serde_json::from_str::<JobKind>(text).unwrap();
        let old = JobKind::Search { method: SearchMethod::Darts };
        assert_eq!(read(r#"{"name":"search"}"#), old);
        // A job that the control plane writes anew keeps its bytes, and with them its checkpoint.
        assert_eq!(serde_json::to_string(&old).unwrap(), r#"{"name":"search"}"#);
        let gdas = JobKind::Search { method: SearchMethod::Gdas };
        assert_eq!(read(r#"{"name":"search","method":"gdas"}"#), gdas);
        assert_eq!(read(&serde_json::to_string(&gdas).unwrap()), gdas);
    }

    #[test]
    fn a_budget_says_how_to_compress_and_one_from_before_is_as_it_was() {
        let quick = Budget::quick(Task::ImageClassification);
        let text = serde_json::to_string(&quick).unwrap();
        assert!(!text.contains("compress") && !text.contains("permille"), "{text}");
        assert_eq!(serde_json::from_str::<Budget>(&text).unwrap(), quick);
        let within = Budget::within(Task::ImageClassification, 60);
        assert_eq!(within.compress, Compression::Auto);
        assert_eq!(serde_json::from_str::<Budget>(&serde_json::to_string(&within).unwrap()).unwrap(), within);
        for way in Compression::ALL {
            assert_eq!(serde_json::to_value(way).unwrap(), way.name());
            assert_eq!(way.name().parse(), Ok(way));
        }
        let unknown = "zip".parse::<Compression>().unwrap_err().to_string();
        assert_eq!(
            unknown,
            "no way to compress \"zip\", allowed are int8, prune, low-rank, adaptive-rounding, quantisation-aware, fp16, auto"
        );
        let bad = Budget { accuracy_loss_permille: Some(501), ..quick };
        assert_eq!(bad.validate().unwrap_err(), "budget.accuracy_loss_permille is 501, allowed are 0 to 500");
    }

    #[test]
    fn a_budget_that_a_method_cannot_work_with_is_named() {
        let odd = Budget { channels: 7, ..Budget::quick(Task::ImageClassification) };
        SearchMethod::Darts.validate(&odd).unwrap();
        assert_eq!(
            SearchMethod::PartialChannels.validate(&odd).unwrap_err(),
            "budget.channels is 7, partial-channels needs an even number"
        );
    }

    #[test]
    fn what_a_budget_says_of_labels_is_checked() {
        let quick = Budget::quick(Task::ImageClassification);
        let masked = Budget { pretext: Some(Pretext::Masked), labelled_percent: Some(1), ..quick };
        masked.validate().unwrap();
        assert_eq!(serde_json::from_str::<Budget>(&serde_json::to_string(&masked).unwrap()).unwrap(), masked);
        let none = Budget { labelled_percent: Some(0), ..quick };
        assert_eq!(none.validate().unwrap_err(), "budget.labelled_percent is 0, allowed are 1 to 100");
        let idle = Budget { pretext_epochs: Some(3), ..quick };
        assert_eq!(idle.validate().unwrap_err(), "budget.pretext_epochs is given without budget.pretext");
        masked.validate_for(Task::SeriesClassification).unwrap();
        quick.validate_for(Task::TextGeneration).unwrap();
        for task in [Task::IntentSlots, Task::TextGeneration] {
            assert_eq!(
                masked.validate_for(task).unwrap_err(),
                "budget.pretext is for images and series, the data set holds text: leave it out"
            );
        }
        assert!("mask".parse::<Pretext>().unwrap_err().to_string().ends_with("masked, contrastive"));
    }

    #[test]
    fn a_report_from_before_there_were_methods_still_reads() {
        let old = r#"{"seconds":1.5,"arch_steps":100,"skip_share":0.25,"cell":"0->2 conv3 | 1->2 skip"}"#;
        let report: SearchReport = serde_json::from_str(old).unwrap();
        assert_eq!((report.method, report.repairs, report.cells_judged), (SearchMethod::Darts, 0, 0));
        assert!(report.front.is_empty() && report.space.is_none());
    }
}
