//! What the demo measured; `--report` writes it as JSON.

use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub task: String,
    pub seed: u64,
    /// Seconds of the demo's own work, after set-up and build.
    pub seconds: f64,
    pub search: SearchFigures,
    pub model: ModelFigures,
    /// Every model that was made for the task, by data set.
    pub models: BTreeMap<String, ModelFigures>,
    pub rollout: RolloutFigures,
    pub device_accuracy: Vec<DeviceAccuracy>,
    pub swap: Swap,
    pub offline: Offline,
    pub refused: Refused,
    pub trial: Trial,
    pub kill: Kill,
    pub agent: AgentFigures,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct SearchFigures {
    pub seconds: f64,
    pub arch_steps: u64,
    pub skip_share: f64,
    pub cell: String,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct ModelFigures {
    pub parameters: u64,
    /// 0 to 1, ONNX Runtime, whole test split.
    pub accuracy_fp32: f64,
    pub accuracy_int8: f64,
    pub bytes_fp32_onnx: u64,
    pub bytes_int8_onnx: u64,
    pub path_int8_onnx: String,
    /// `{tract, ort}` x `{fp32, int8}`.
    pub us_per_inference: BTreeMap<String, BTreeMap<String, f64>>,
    pub train_seconds: f64,
    pub quantise_seconds: f64,
    pub remarks: Vec<String>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct RolloutFigures {
    pub devices: u64,
    pub waves: u64,
    pub converged_s: f64,
    pub bytes_published: u64,
    pub stopped_by_gate: bool,
}

#[derive(Clone, Debug, Serialize)]
pub struct DeviceAccuracy {
    pub device: String,
    pub runtime: String,
    pub samples: usize,
    pub accuracy: f64,
    /// The exported model in this process, same runtime, same samples.
    pub exported_accuracy: f64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Swap {
    pub requests: u64,
    pub failed: u64,
    pub p99_us_steady: u64,
    pub p99_us_during: u64,
    pub p50_us_steady: u64,
    pub p50_us_during: u64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Offline {
    pub inferences: u64,
    pub events_stored: u64,
    pub events_delivered: u64,
    pub duplicates: u64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Refused {
    pub flipped_byte: bool,
    pub wrong_golden: bool,
    /// What the device said.
    pub reasons: Vec<String>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Trial {
    pub rolled_back: bool,
    pub reason: String,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Kill {
    pub resumed_from_chunk: u64,
    pub chunks_total: u64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct AgentFigures {
    pub rss_bytes: Rss,
    pub start_to_first_answer_ms: u64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Rss {
    pub idle: u64,
    pub with_model: u64,
}

impl ModelFigures {
    /// From a version's report as the control plane gives it ([`shared::job::JobReport`]).
    pub fn new(report: &shared::job::JobReport, path_int8_onnx: String) -> Self {
        let model = &report.model;
        let us = model.us_per_inference;
        let pair =
            |fp32: f64, int8: f64| BTreeMap::from([("fp32".to_owned(), fp32), ("int8".to_owned(), int8)]);
        // What was not measured is no number.
        let tract = |us: Option<f64>| us.unwrap_or(f64::NAN);
        Self {
            parameters: model.parameters,
            accuracy_fp32: model.accuracy_fp32.unwrap_or(f64::NAN),
            accuracy_int8: model.accuracy_int8.unwrap_or(f64::NAN),
            bytes_fp32_onnx: model.bytes_fp32_onnx,
            bytes_int8_onnx: model.bytes_int8_onnx,
            path_int8_onnx,
            us_per_inference: BTreeMap::from([
                ("tract".to_owned(), pair(tract(us.tract_fp32), tract(us.tract_int8))),
                ("ort".to_owned(), pair(us.ort_fp32, us.ort_int8)),
            ]),
            train_seconds: report.train_seconds,
            quantise_seconds: report.quantise_seconds,
            remarks: model.remarks.clone(),
        }
    }
}

impl Report {
    /// Pretty JSON.
    pub fn to_json(&self) -> serde_json::Result<String> {
        let value: Value = serde_json::to_value(self)?;
        serde_json::to_string_pretty(&value)
    }
}
