//! The whole life of a model, as the demo plays it.

use super::world::World;
use anyhow::{Context, Result, ensure};
use edgewright_tests::demo::{self, Options, TaskChoice};
use serde_json::Value;

pub(crate) fn a_series_model_lives_its_whole_life(_: &mut World) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let report = folder.path().join("r.json");
    demo::run(Options {
        devices: 2,
        task: TaskChoice::Series,
        data: None,
        seed: 1,
        hold: false,
        report: Some(report.clone()),
    })?;
    let report: Value = serde_json::from_slice(&std::fs::read(report)?)?;
    for name in ["gunpoint", "italypowerdemand"] {
        let model = &report["models"][name];
        let accuracy = model["accuracy_int8"].as_f64().context("no accuracy")?;
        ensure!(accuracy >= 0.95, "{name} has accuracy {accuracy}");
    }
    ensure!(
        report["swap"]["failed"] == 0 && report["swap"]["requests"].as_u64() > Some(100),
        "{}",
        report["swap"]
    );
    ensure!(report["offline"]["duplicates"] == 0, "{}", report["offline"]);
    ensure!(
        report["offline"]["events_stored"] == report["offline"]["events_delivered"],
        "{}",
        report["offline"]
    );
    ensure!(report["refused"]["flipped_byte"] == true && report["refused"]["wrong_golden"] == true);
    ensure!(report["trial"]["rolled_back"] == true && report["rollout"]["stopped_by_gate"] == true);
    ensure!(report["kill"]["resumed_from_chunk"].as_u64() > Some(0), "{}", report["kill"]);
    Ok(())
}
