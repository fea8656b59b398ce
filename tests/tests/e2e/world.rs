//! What the tests share: a control plane, two devices and a model of each task.

use anyhow::Result;
use edgewright_tests::{
    data::TestSplit,
    harness::{Agent, AgentOptions, ControlPlane, ServeOptions, cache, control::text_of},
};
use serde_json::Value;
use shared::job::JobReport;
use std::path::PathBuf;

/// A trained, exported and signed model with the data it was tested on.
pub(crate) struct Model {
    pub(crate) name: &'static str,
    pub(crate) result: PathBuf,
    pub(crate) report: JobReport,
    pub(crate) test: TestSplit,
}

pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) control: ControlPlane,
    pub(crate) agents: Vec<Agent>,
    pub(crate) series: Model,
    pub(crate) image: Model,
}

impl World {
    pub(crate) fn build() -> Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir()?;
        let control = ControlPlane::start(&folder.path().join("control"), ServeOptions::default())?;
        let data = cache()?.join("data");
        let italy = data.join("aeon/ItalyPowerDemand/ItalyPowerDemand");
        let series = Model::make(&control, "italy", &italy, TestSplit::series(&italy)?, &[])?;
        let mnist = data.join("mnist");
        let quick = ["--search-steps", "12", "--epochs", "1"];
        let image = Model::make(&control, "mnist", &mnist, TestSplit::idx(&mnist)?, &quick)?;
        let mut world = Self { folder, control, agents: Vec::new(), series, image };
        for id in ["device-1", "device-2"] {
            let devices = world.folder.path().join("devices");
            let agent = Agent::enrol(&world.control, id, &devices, AgentOptions::default())?;
            world.agents.push(agent);
        }
        for model in [world.series.name, world.image.name] {
            let shown = world.roll_out(&format!("{model}@v1.0"), model)?;
            anyhow::ensure!(text_of(&shown, "/state")? == "completed", "rollout of {model} ended as {shown}");
        }
        Ok(world)
    }

    /// Rolls out to everybody and waits for the end.
    pub(crate) fn roll_out(&self, version: &str, slot: &str) -> Result<Value> {
        let policy = ["--wave", "100%", "--trial-duration-ms", "500", "--failed-permille-max", "0"];
        let id = self.control.start_rollout(version, slot, &policy)?;
        self.control.wait_rollout(&id)
    }
}

impl Model {
    fn make(
        control: &ControlPlane,
        name: &'static str,
        path: &std::path::Path,
        test: TestSplit,
        extra: &[&str],
    ) -> Result<Self> {
        control.add_dataset(name, path)?;
        let mut options = vec!["--seed", "7"];
        options.extend_from_slice(extra);
        let job = control.search(name, "x86-64", &options)?;
        let result = control.result_folder(text_of(&job, "/id")?);
        let report = serde_json::from_slice(&std::fs::read(result.join(shared::job::REPORT_FILE))?)?;
        Ok(Self { name, result, report, test })
    }
}
