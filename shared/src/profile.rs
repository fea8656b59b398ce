//! Latency profiles: what the control plane asks devices to measure, and what they answer.
//!
//! No model travels. A request holds [`Workload`]s, numbers within the limits of [`limits`]; each device makes models
//! from them itself and times them on its own runtimes, in f32 and in INT8 (the form that exported models have).

mod workload;

pub use workload::{Node, Step, Workload};

use crate::{BoardId, DeviceId, Timestamp, board::RuntimeName, limits, signing};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What a device shall measure. Signed by the director; a device refuses a generation older than one it has seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileRequest {
    pub device: DeviceId,
    /// Raised by one with each request.
    pub generation: u64,
    pub issued_at: Timestamp,
    /// After so long the device sends what it has.
    pub duration_ms_max: u64,
    pub workloads: Vec<Workload>,
}

impl signing::Payload for ProfileRequest {
    const TYPE: &'static str = "application/vnd.edgewright.profile-request.v1+json";
    const ROLE: signing::Role = signing::Role::Director;

    fn validate(&self) -> Result<(), String> {
        let count = self.workloads.len();
        if count == 0 || count > limits::PROFILE_WORKLOADS_MAX {
            return Err(format!("{count} workloads, allowed are 1 to {}", limits::PROFILE_WORKLOADS_MAX));
        }
        if !(1..=limits::PROFILE_DURATION_MS_MAX).contains(&self.duration_ms_max) {
            return Err(format!(
                "duration_ms_max is {}, allowed are 1 to {}",
                self.duration_ms_max,
                limits::PROFILE_DURATION_MS_MAX
            ));
        }
        let mut macs = 0u64;
        for (index, workload) in self.workloads.iter().enumerate() {
            let nodes = workload.layout().map_err(|reason| format!("workload {index}: {reason}"))?;
            macs = macs.saturating_add(nodes.iter().map(Node::macs).sum());
        }
        if macs > limits::PROFILE_MACS_TOTAL_MAX {
            return Err(format!(
                "{macs} multiply-accumulates in all, at most {}",
                limits::PROFILE_MACS_TOTAL_MAX
            ));
        }
        Ok(())
    }
}

/// What a device measured. Retained, so that the newest is there for whoever asks; an incomplete one is followed by
/// others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileReport {
    pub device: DeviceId,
    pub board: BoardId,
    pub agent_version: String,
    /// Of the request.
    pub generation: u64,
    pub at: Timestamp,
    /// Nothing more comes for this generation.
    pub complete: bool,
    /// Why not everything was measured, where a complete report lacks something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_short: Option<String>,
    pub processor: Processor,
    /// In the order in which they were measured.
    pub measured: Vec<Measured>,
}

/// The processor, as far as the system tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processor {
    /// As in `aarch64`.
    pub architecture: String,
    /// Its name, or the machine's.
    pub name: Option<String>,
    pub cores: u32,
    /// Threads that wanted to run on average in the last minute, in thousandths; more than a thousand a core, and the
    /// times are those of a busy machine.
    pub load_permille: Option<u32>,
}

/// One workload on one runtime in one form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// Its place in the request.
    pub workload: u16,
    pub runtime: RuntimeName,
    pub form: Form,
    pub result: Timing,
}

/// How a model is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Form {
    Fp32,
    /// Pairs of QuantizeLinear and DequantizeLinear.
    Int8,
}

impl std::fmt::Display for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Fp32 => "FP32",
            Self::Int8 => "INT8",
        })
    }
}

/// What a measurement gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum Timing {
    /// Nanoseconds of one inference of one sample: the median of so many runs, and between what the middle half lies.
    Took { median_ns: u64, low_ns: u64, high_ns: u64, runs: u32 },
    /// It does not run here.
    Failed { reason: String },
}

/// Longest inference that a report may name: a minute.
const INFERENCE_NS_MAX: u64 = 60_000_000_000;

impl ProfileReport {
    /// Names the rule that is broken.
    pub fn validate(&self) -> Result<(), String> {
        if self.measured.len() > limits::PROFILE_MEASURED_MAX {
            return Err(format!(
                "{} measurements, at most {}",
                self.measured.len(),
                limits::PROFILE_MEASURED_MAX
            ));
        }
        let reasons = self.measured.iter().filter_map(|measured| match &measured.result {
            Timing::Failed { reason } => Some(("reason", reason, limits::PROFILE_REASON_BYTES_MAX)),
            Timing::Took { .. } => None,
        });
        let texts = [
            ("agent_version", Some(&self.agent_version), limits::AGENT_VERSION_BYTES_MAX),
            ("cut_short", self.cut_short.as_ref(), limits::PROFILE_REASON_BYTES_MAX),
            ("architecture", Some(&self.processor.architecture), limits::PROCESSOR_BYTES_MAX),
            ("processor", self.processor.name.as_ref(), limits::PROCESSOR_BYTES_MAX),
        ];
        let texts = texts.into_iter().filter_map(|(what, text, most)| Some((what, text?, most)));
        if let Some((what, _, most)) = texts.chain(reasons).find(|(_, text, most)| text.len() > *most) {
            return Err(format!("{what} is over {most} bytes"));
        }
        let mut seen = BTreeSet::new();
        for Measured { workload, runtime, form, result } in &self.measured {
            if usize::from(*workload) >= limits::PROFILE_WORKLOADS_MAX {
                return Err(format!("workload {workload} is none that can be asked for"));
            }
            if !seen.insert((workload, runtime, form)) {
                return Err(format!("workload {workload} is there twice for {runtime} and {form}"));
            }
            if let Timing::Took { median_ns, low_ns, high_ns, .. } = result
                && !(0 < *low_ns
                    && low_ns <= median_ns
                    && median_ns <= high_ns
                    && *high_ns <= INFERENCE_NS_MAX)
            {
                return Err(format!("the times of workload {workload} are no times"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
