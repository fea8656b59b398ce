//! Latency profiles of a board: what its devices are asked to measure, what their answers say together, and what is
//! fitted to them.

mod fit;
mod workloads;

pub use workloads::workloads;

use serde::{Deserialize, Serialize};
use shared::{
    BoardId, DeviceId, Timestamp,
    board::RuntimeName,
    latency::{BoardLatency, LatencyModel},
    profile::{Form, ProfileReport, Timing, Workload},
};
use std::collections::{BTreeMap, BTreeSet};

/// What a device was asked, and what it answered so far.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceProfile {
    pub device: DeviceId,
    pub generation: u64,
    pub asked_at: Timestamp,
    pub workloads: Vec<Workload>,
    pub report: Option<ProfileReport>,
    /// When the newest report came.
    pub received_at: Option<Timestamp>,
}

impl DeviceProfile {
    /// Does nothing more come?
    pub fn is_complete(&self) -> bool {
        self.report.as_ref().is_some_and(|report| report.complete)
    }
}

/// A board's profile, as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BoardProfile {
    pub board: BoardId,
    /// Devices that were asked.
    pub devices: Vec<DeviceStanding>,
    /// What was measured, the median over devices.
    pub rows: Vec<Row>,
    /// What predicts latencies; `None` before anything was measured.
    pub latency: Option<BoardLatency>,
    /// Why searches for this board do not use it, or those over series or images do not, where that is so.
    pub refused: Option<String>,
}

/// How far a device is with what it was asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DeviceStanding {
    pub device: DeviceId,
    pub generation: u64,
    pub asked_at: Timestamp,
    pub received_at: Option<Timestamp>,
    /// Workloads that it was asked for.
    pub asked: u32,
    /// Of those it has measured so many.
    pub measured: u32,
    pub complete: bool,
    pub cut_short: Option<String>,
    /// Its processor, as it says.
    pub processor: Option<String>,
    /// Threads that wanted to run on average when it reported, in thousandths.
    pub load_permille: Option<u32>,
}

/// One workload on one runtime in one form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Row {
    pub workload: Workload,
    pub runtime: RuntimeName,
    pub form: Form,
    /// Median microseconds of one inference; `None` where no device could run it.
    pub us: Option<f64>,
    /// Width of the middle half of the runs as a share of the median.
    pub spread: Option<f64>,
    pub devices: u32,
    /// By the fitted model.
    pub predicted_us: Option<f64>,
    /// Was it kept from the fit, to say how far off predictions are?
    pub held_out: bool,
    /// Why it was not measured.
    pub failed: Option<String>,
}

/// Measurements of one row, before they become one.
#[derive(Default)]
struct Gathered {
    took: Vec<(f64, f64)>,
    failed: Option<String>,
}

impl BoardProfile {
    /// What the answers of devices say together.
    pub fn of(board: BoardId, profiles: &[DeviceProfile]) -> Self {
        let mut rows = rows(profiles);
        let models = fit::models(&mut rows);
        let measured: BTreeSet<_> = answers(profiles).map(|(profile, _)| &profile.device).collect();
        let latency = (!models.is_empty()).then(|| BoardLatency {
            devices: u32::try_from(measured.len()).unwrap_or(u32::MAX),
            measured_at: profiles.iter().filter_map(|profile| profile.received_at).max().unwrap_or_default(),
            models,
        });
        let refused = latency.as_ref().and_then(refusal);
        let devices = profiles.iter().map(standing).collect();
        Self { board, devices, rows, latency, refused }
    }
}

/// For what of series and images no search can use any of the INT8 models, and why; `None` where there is nothing.
fn refusal(latency: &BoardLatency) -> Option<String> {
    let mut reasons = Vec::new();
    for (subject, spatial_axes) in [("series", 1), ("images", 2)] {
        let of_subject =
            |model: &&LatencyModel| model.form == Form::Int8 && model.spatial_axes == spatial_axes;
        let checks: Vec<_> = latency.models.iter().filter(of_subject).map(LatencyModel::check).collect();
        if checks.iter().any(Result::is_ok) {
            continue;
        }
        if checks.is_empty() {
            reasons.push(format!("no INT8 model over {subject} ran"));
        }
        reasons.extend(checks.into_iter().filter_map(Result::err));
    }
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

fn answers(profiles: &[DeviceProfile]) -> impl Iterator<Item = (&DeviceProfile, &ProfileReport)> {
    let answer = |profile| Some((profile, DeviceProfile::report(profile)?));
    profiles.iter().filter_map(answer).filter(|(_, report)| !report.measured.is_empty())
}

impl DeviceProfile {
    fn report(&self) -> Option<&ProfileReport> {
        self.report.as_ref()
    }
}

fn rows(profiles: &[DeviceProfile]) -> Vec<Row> {
    let mut gathered: BTreeMap<(Workload, RuntimeName, Form), Gathered> = BTreeMap::new();
    for (profile, report) in answers(profiles) {
        for measured in &report.measured {
            let Some(workload) = profile.workloads.get(usize::from(measured.workload)) else { continue };
            let key = (workload.clone(), measured.runtime, measured.form);
            let row = gathered.entry(key).or_default();
            match &measured.result {
                Timing::Took { median_ns, low_ns, high_ns, .. } => {
                    let spread = high_ns.saturating_sub(*low_ns) as f64 / (*median_ns).max(1) as f64;
                    row.took.push((*median_ns as f64 / 1000.0, spread));
                }
                Timing::Failed { reason } => row.failed = Some(reason.clone()),
            }
        }
    }
    let row = |((workload, runtime, form), Gathered { took, failed }): ((_, _, _), Gathered)| Row {
        workload,
        runtime,
        form,
        us: median(took.iter().map(|(us, _)| *us).collect()),
        spread: median(took.iter().map(|(_, spread)| *spread).collect()),
        devices: u32::try_from(took.len()).unwrap_or(u32::MAX),
        predicted_us: None,
        held_out: false,
        failed: if took.is_empty() { failed } else { None },
    };
    gathered.into_iter().map(row).collect()
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn standing(profile: &DeviceProfile) -> DeviceStanding {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let report = profile.report.as_ref();
    let measured: BTreeSet<u16> = report
        .map(|report| report.measured.iter().map(|measured| measured.workload).collect())
        .unwrap_or_default();
    DeviceStanding {
        device: profile.device.clone(),
        generation: profile.generation,
        asked_at: profile.asked_at,
        received_at: profile.received_at,
        asked: count(profile.workloads.len()),
        measured: count(measured.len()),
        complete: profile.is_complete(),
        cut_short: report.and_then(|report| report.cut_short.clone()),
        processor: report.map(|report| {
            let processor = &report.processor;
            let name = processor.name.as_ref().unwrap_or(&processor.architecture);
            format!("{name}, {} core(s)", processor.cores)
        }),
        load_permille: report.and_then(|report| report.processor.load_permille),
    }
}

#[cfg(test)]
mod tests;
