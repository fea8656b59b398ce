//! From a data set to devices that answer with its model.

use super::{
    BOARD, Demo, RELATIVE_LOSS_MAX, SIZE_SHARE_MAX, Subject,
    report::{DeviceAccuracy, ModelFigures, SearchFigures},
    screen,
};
use crate::{
    data::TestSplit,
    harness::{
        Agent,
        control::{count_of, text_of},
        oip::argmax,
        ort_library,
    },
};
use anyhow::{Context, Result, bail, ensure};
use runtime::{LoadOptions, Runtime};
use serde_json::Value;
use shared::{Digest, Signed, job::JobReport, manifest::Manifest, signing::Keyring};
use std::{
    path::{Path, PathBuf},
    time::Instant,
};

/// A version that the control plane holds.
#[derive(Clone, Debug)]
pub struct Version {
    /// As in `mnist@v1.0`.
    pub name: String,
    /// As in `v1.0`.
    pub label: String,
    pub bundle: Digest,
    /// The folder of the job that made it.
    pub result: PathBuf,
    /// Class names in the order of the model's output.
    pub labels: Vec<String>,
}

/// Images or series that each device classifies.
const SAMPLES: usize = 1000;

impl Demo {
    /// Registers the data set, searches, trains, quantises and signs.
    pub(super) fn make_model(&mut self, subject: &Subject) -> Result<Version> {
        let dataset = self.control.add_dataset(&subject.name, &subject.path)?;
        self.screen.tick(
            "data set registered",
            &format!(
                "{}, {} training and {} test samples",
                subject.name,
                count_of(&dataset, "/schema/train_count")?,
                count_of(&dataset, "/schema/test_count")?
            ),
        );
        let seed = self.options.seed.to_string();
        let job = self.control.search(&subject.name, BOARD, &["--seed", &seed])?;
        let version = self.version(text_of(&job, "/version")?)?;
        let report = self.job_report(&version)?;
        self.show_model(subject, &version, &report)?;
        self.check_signature(&version)?;
        Ok(version)
    }

    /// What the control plane knows of `name`, as in `mnist@v1.0`.
    pub(super) fn version(&self, name: &str) -> Result<Version> {
        let shown = self.control.cli(&["model", "show", name])?;
        let job = text_of(&shown, "/job").map(|id| self.control.result_folder(id));
        let manifest = self.manifest(&text_of(&shown, "/bundle")?.parse()?)?;
        Ok(Version {
            name: name.to_owned(),
            label: text_of(&shown, "/version")?.to_owned(),
            bundle: text_of(&shown, "/bundle")?.parse()?,
            result: job.unwrap_or_default(),
            labels: manifest.labels,
        })
    }

    fn job_report(&self, version: &Version) -> Result<JobReport> {
        let path = version.result.join(shared::job::REPORT_FILE);
        let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))
    }

    /// The manifest of a bundle, verified with the keys that devices get.
    fn manifest(&self, bundle: &Digest) -> Result<Manifest> {
        let path = self.control.data.join("blobs").join(bundle.to_string());
        let envelope = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        ensure!(Digest::of(&envelope) == *bundle, "the signed manifest has another digest than its name");
        let keyring: Keyring = serde_json::from_value(self.control.cli(&["status"])?["keyring"].clone())
            .context("the control plane shows no keyring")?;
        Ok(Signed::<Manifest>::parse(&envelope)?.verify(&keyring)?.into_inner())
    }

    fn show_model(&mut self, subject: &Subject, version: &Version, report: &JobReport) -> Result<()> {
        let model = &report.model;
        if let Some(search) = &report.search {
            let figure = format!(
                "{:.0} s, {}, {} architecture steps, {}",
                search.seconds, search.method, search.arch_steps, search.cell
            );
            self.screen.tick("searched", &figure);
            let cell = std::fs::read_to_string(version.result.join(shared::job::CELL_FILE));
            self.screen.block(&cell.context("the result has no picture of the cell")?);
            if self.report.search.arch_steps == 0 {
                self.report.search = SearchFigures {
                    seconds: search.seconds,
                    arch_steps: search.arch_steps,
                    skip_share: search.skip_share,
                    cell: search.cell.clone(),
                };
            }
        }
        self.screen.tick(
            "trained",
            &format!(
                "{:.0} s, {} epochs, {} parameters",
                report.train_seconds, report.train_epochs, model.parameters
            ),
        );
        let us = model.us_per_inference;
        self.screen.tick(
            "quantised",
            &format!(
                "{}; {} to {}; µs FP32/INT8: ONNX Runtime {:.0}/{:.0}, tract {:.0}/{:.0}",
                report.quality(),
                screen::bytes(model.bytes_fp32_onnx),
                screen::bytes(model.bytes_int8_onnx),
                us.ort_fp32,
                us.ort_int8,
                us.tract_fp32.context("tract was not measured")?,
                us.tract_int8.context("tract was not measured")?
            ),
        );
        self.screen.block(&model.remarks.join("\n"));
        let path = version.result.join(shared::manifest::MODEL_FILE).display().to_string();
        let figures = ModelFigures::new(report, path);
        check_model(subject, &figures)?;
        if self.report.models.is_empty() {
            self.report.model = figures.clone();
        }
        self.report.models.insert(subject.name.clone(), figures);
        Ok(())
    }

    fn check_signature(&self, version: &Version) -> Result<()> {
        let manifest = self.manifest(&version.bundle)?;
        let figure = format!(
            "{}, bundle {}, {} files, {}",
            version.name,
            version.bundle.short(),
            manifest.files.len(),
            screen::bytes(manifest.size_bytes())
        );
        self.screen.tick("signed", &figure);
        Ok(())
    }

    /// The first version goes to one device, then to the rest.
    pub(super) fn roll_out_first(&mut self, subject: &Subject, version: &Version) -> Result<()> {
        let started = Instant::now();
        let rollout = self.roll_out(subject, &version.name, &[])?;
        ensure!(text_of(&rollout, "/state")? == "completed", "the first rollout ended as {rollout}");
        self.report.rollout.devices = self.agents.len() as u64;
        self.report.rollout.waves = 2;
        self.report.rollout.converged_s = started.elapsed().as_secs_f64();
        self.report.rollout.bytes_published = count_of(&rollout, "/bytes_published")?;
        for agent in &self.agents {
            let active = agent.active_version(&subject.name)?;
            ensure!(active.as_deref() == Some(&version.label), "{} runs {active:?}", agent.id);
        }
        let agent = self.agents.first_mut().context("no device")?;
        agent.client().infer(&subject.name, &subject.test.batch_shape(1), &subject.test.inputs[0])?;
        self.report.agent.rss_bytes.with_model = agent.process()?.rss_bytes()?;
        self.screen.tick(
            "rolled out in two waves",
            &format!(
                "{} devices in {:.1} s, {} published, {} of memory each with the model",
                self.agents.len(),
                self.report.rollout.converged_s,
                screen::bytes(self.report.rollout.bytes_published),
                screen::bytes(self.report.agent.rss_bytes.with_model)
            ),
        );
        Ok(())
    }

    /// A model of another data set goes into a slot of its own, beside the one that is there.
    pub(super) fn roll_out_beside(&mut self, subject: &Subject, version: &Version) -> Result<()> {
        let started = Instant::now();
        let rollout = self.roll_out(subject, &version.name, &[])?;
        ensure!(text_of(&rollout, "/state")? == "completed", "the rollout ended as {rollout}");
        let figure = format!(
            "{} on {} devices in {:.1} s",
            version.name,
            self.agents.len(),
            started.elapsed().as_secs_f64()
        );
        self.screen.tick("rolled out beside the first", &figure);
        Ok(())
    }

    /// Rolls a version out in two waves, one device and then all, and waits for the end, whatever it is.
    pub(super) fn roll_out(&self, subject: &Subject, version: &str, extra: &[&str]) -> Result<Value> {
        let _busy = self.screen.busy(&format!("rolling out {version}"));
        let id = self.start_rollout(subject, version, extra)?;
        self.control.wait_rollout(&id)
    }

    /// Creates the rollout and gives its id.
    pub(super) fn start_rollout(&self, subject: &Subject, version: &str, extra: &[&str]) -> Result<String> {
        let mut policy = vec!["--wave", "1", "--wave", "100%", "--pause-s", "1"];
        policy.extend(["--trial-duration-ms", "1500", "--failed-permille-max", "0"]);
        policy.extend_from_slice(extra);
        self.control.start_rollout(version, &subject.name, &policy)
    }

    /// Each device classifies real test samples through its own endpoint.
    pub(super) fn classify(&mut self, subject: &Subject, version: &Version) -> Result<()> {
        let samples = subject.test.cycled(SAMPLES.min(subject.test.inputs.len().max(SAMPLES)));
        let mut lines = Vec::new();
        for agent in &self.agents {
            let _busy = self.screen.busy(&format!("{} classifies {SAMPLES} samples", agent.id));
            let runtime = agent.runtime(&subject.name)?;
            let accuracy = device_accuracy(agent, subject, &samples, &version.labels)?;
            let path = version.result.join(shared::manifest::MODEL_FILE);
            let exported_accuracy = exported_accuracy(&path, &runtime, &samples, &version.labels)?;
            ensure!(
                (accuracy - exported_accuracy).abs() < 1e-9,
                "{} has accuracy {accuracy}, the exported model {exported_accuracy}",
                agent.id
            );
            lines.push(format!("{} {accuracy:.4} on {runtime}", agent.id));
            self.report.device_accuracy.push(DeviceAccuracy {
                device: agent.id.clone(),
                runtime,
                samples: samples.inputs.len(),
                accuracy,
                exported_accuracy,
            });
        }
        let what = format!("{SAMPLES} real test samples through each device's endpoint");
        self.screen.tick(&what, &lines.join(", "));
        Ok(())
    }
}

fn check_model(subject: &Subject, model: &ModelFigures) -> Result<()> {
    if let Some(least) = subject.accuracy_min {
        ensure!(
            model.accuracy_int8 >= least,
            "{}: INT8 accuracy {} is below {least}",
            subject.name,
            model.accuracy_int8
        );
    }
    ensure!(
        model.accuracy_int8 >= model.accuracy_fp32 * (1.0 - RELATIVE_LOSS_MAX),
        "{}: INT8 accuracy {} is more than 1 % below FP32's {}",
        subject.name,
        model.accuracy_int8,
        model.accuracy_fp32
    );
    #[expect(clippy::cast_precision_loss)]
    let share = model.bytes_int8_onnx as f64 / model.bytes_fp32_onnx as f64;
    ensure!(
        share <= SIZE_SHARE_MAX,
        "{}: the INT8 model has {:.0} % of the FP32 bytes",
        subject.name,
        share * 100.0
    );
    Ok(())
}

/// Share of `samples` that the device labels right, in requests of a few at a time.
pub fn device_accuracy(
    agent: &Agent,
    subject: &Subject,
    samples: &TestSplit,
    labels: &[String],
) -> Result<f64> {
    const BATCH: usize = 10;
    let client = agent.client();
    let mut right = 0usize;
    for (inputs, truths) in samples.inputs.chunks(BATCH).zip(samples.labels.chunks(BATCH)) {
        let output = client.infer(&subject.name, &samples.batch_shape(inputs.len()), &inputs.concat())?;
        ensure!(output.len() == inputs.len() * labels.len(), "{} answered {} values", agent.id, output.len());
        right += right_count(&output, truths, labels);
    }
    Ok(share(right, samples.inputs.len()))
}

/// The same for the exported file, run in this process on the runtime that the device chose.
pub fn exported_accuracy(path: &Path, runtime: &str, samples: &TestSplit, labels: &[String]) -> Result<f64> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let runnable = match runtime {
        "tract" => runtime::Tract.load(&bytes, &LoadOptions::default())?,
        "onnxruntime" => runtime::Ort::open(Some(&ort_library()?))?.load(&bytes, &LoadOptions::default())?,
        other => bail!("{other:?} is no runtime"),
    };
    let mut right = 0;
    let mut output = Vec::new();
    for (inputs, truths) in samples.inputs.chunks(10).zip(samples.labels.chunks(10)) {
        runnable.run_into(&inputs.concat(), inputs.len(), &mut output)?;
        right += right_count(&output, truths, labels);
    }
    Ok(share(right, samples.inputs.len()))
}

fn right_count(output: &[f32], truths: &[String], labels: &[String]) -> usize {
    let answers = output.chunks_exact(labels.len().max(1)).map(|row| &labels[argmax(row)]);
    answers.zip(truths).filter(|(answer, truth)| answer == truth).count()
}

#[expect(clippy::cast_precision_loss)]
fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}
