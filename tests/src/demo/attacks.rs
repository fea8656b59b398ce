//! What must not get in, or must not stay: damaged bytes, wrong answers, a version that fails its trial, and a
//! power cut in the middle of a download.

use super::{BOARD, Demo, Subject, variants};
use crate::{
    data,
    harness::{
        control::{list_of, text_of},
        wait_for,
    },
};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use shared::{Signed, manifest::MODEL_FILE, manifest::Manifest, wire::Phase};
use std::{
    path::Path,
    time::{Duration, Instant},
};

const STEP_LIMIT: Duration = Duration::from_secs(60);
/// Bytes added to the model whose download is cut: enough chunks to be in the middle of them.
const PADDING_BYTES: usize = 800_000;

impl Demo {
    fn publish(&self, subject: &Subject, folder: &Path, extra: &[&str]) -> Result<Value> {
        let folder = folder.to_str().context("folder name is not UTF-8")?;
        let mut arguments = vec![
            "model",
            "publish",
            folder,
            "--model",
            &subject.name,
            "--board",
            BOARD,
            "--dataset",
            &subject.name,
        ];
        arguments.extend_from_slice(extra);
        self.control.cli(&arguments)
    }

    fn versions(&self, subject: &Subject) -> Result<Vec<Option<String>>> {
        self.agents.iter().map(|agent| agent.active_version(&subject.name)).collect()
    }

    /// Rolls out what devices must not keep; gives the stopped rollout and what the first device said.
    fn rolled_out_in_vain(
        &self,
        subject: &Subject,
        version: &str,
        extra: &[&str],
    ) -> Result<(Value, String)> {
        let before = self.versions(subject)?;
        let rollout = self.roll_out(subject, version, extra)?;
        ensure!(text_of(&rollout, "/state")? == "stopped", "the rollout of {version} ended as {rollout}");
        let failed = list_of(&rollout, "/devices")?;
        let failed =
            failed.iter().find(|device| text_of(device, "/state").is_ok_and(|state| state == "failed"));
        let reason = text_of(failed.context("no device failed")?, "/reason")?.to_owned();
        let back = |_: &()| -> Result<Option<()>> { Ok((self.versions(subject)? == before).then_some(())) };
        wait_for("every device to answer with the version before", STEP_LIMIT, || back(&()))?;
        for agent in &self.agents {
            agent.client().infer(&subject.name, &subject.test.batch_shape(1), &subject.test.inputs[0])?;
        }
        Ok((rollout, reason))
    }

    pub(super) fn refuse_flipped_byte(&mut self, subject: &Subject) -> Result<()> {
        let good = self.version(&format!("{}@v1.1", subject.name))?;
        let folder = self.folder.join("flipped");
        variants::with_doc_string(&good.result, &folder, "the next version")?;
        let published = self.publish(subject, &folder, &[])?;
        let version = self.version(text_of(&published, "/name")?)?;
        let blobs = self.control.data.join("blobs");
        let envelope = std::fs::read(blobs.join(version.bundle.to_string())).context("reading the bundle")?;
        let keyring = serde_json::from_value(self.control.cli(&["status"])?["keyring"].clone())?;
        let manifest = Signed::<Manifest>::parse(&envelope)?.verify(&keyring)?;
        let model = manifest.file(MODEL_FILE).context("the manifest names no model")?;
        let path = blobs.join(model.digest.to_string());
        let good_bytes = std::fs::read(&path).context("reading the model")?;
        let mut bad_bytes = good_bytes.clone();
        bad_bytes[good_bytes.len() / 2] ^= 1;
        std::fs::write(&path, bad_bytes).context("damaging the model")?;
        let (_, reason) = self.rolled_out_in_vain(subject, &version.name, &[])?;
        std::fs::write(&path, good_bytes).context("mending the model")?;
        ensure!(reason.contains("digest_mismatch"), "refused for another reason: {reason}");
        self.screen.tick("a bundle with one flipped byte refused", &reason);
        self.report.refused.flipped_byte = true;
        self.report.refused.reasons.push(reason);
        Ok(())
    }

    pub(super) fn refuse_wrong_golden(&mut self, subject: &Subject) -> Result<()> {
        let good = self.version(&format!("{}@v1.1", subject.name))?;
        let folder = self.folder.join("wrong-golden");
        variants::with_wrong_golden(&good.result, &folder)?;
        let checked = self.control.cli_refused(&[
            "model",
            "publish",
            folder.to_str().context("folder name is not UTF-8")?,
            "--model",
            &subject.name,
            "--board",
            BOARD,
        ]);
        let (code, said) = checked.context("the control plane signed wrong golden outputs")?;
        ensure!(code != 0 && !said.is_empty(), "the control plane refused without a reason");
        let published = self.publish(subject, &folder, &["--unsafe-skip-check"])?;
        let (_, reason) = self.rolled_out_in_vain(subject, text_of(&published, "/name")?, &[])?;
        ensure!(reason.contains("golden_mismatch"), "refused for another reason: {reason}");
        self.screen.tick("a bundle with wrong golden outputs refused before activation", &reason);
        self.report.refused.wrong_golden = true;
        self.report.refused.reasons.push(reason);
        Ok(())
    }

    /// A model trained on labels that slipped by one is sound in itself and wrong about everything: its own
    /// golden outputs agree, the version before does not.
    pub(super) fn roll_back_failing_trial(&mut self, subject: &Subject) -> Result<()> {
        let slipped = data::with_slipped_labels(&subject.path, &self.folder.join("slipped"))?;
        let name = format!("{}-slipped", subject.name);
        self.control.cli(&[
            "dataset",
            "add",
            &name,
            "--path",
            slipped.to_str().context("path is not UTF-8")?,
        ])?;
        let bad = self.retrain(subject, &name, self.options.seed + 2, &format!("{}@v1.1", subject.name))?;
        let inputs = std::sync::Arc::new(subject.test.inputs.iter().take(100).cloned().collect::<Vec<_>>());
        let loads: Vec<_> = self
            .agents
            .iter()
            .map(|agent| {
                let shape = subject.test.batch_shape(1);
                let pause = Duration::from_millis(10);
                crate::load::Load::start(agent.client(), &subject.name, shape, inputs.clone(), pause)
            })
            .collect();
        let (rollout, reason) =
            self.rolled_out_in_vain(subject, &bad.name, &["--agreement-permille-min", "800"])?;
        let mut failed = 0;
        for load in loads {
            failed += load.finish()?.iter().filter(|sample| !sample.ok).count();
        }
        ensure!(failed == 0, "{failed} requests failed while the bad version came and went");
        ensure!(
            reason.contains("agrees with the version before"),
            "rolled back for another reason: {reason}"
        );
        let untouched = list_of(&rollout, "/devices")?
            .iter()
            .filter(|device| text_of(device, "/state").is_ok_and(|state| state != "failed"))
            .count();
        ensure!(untouched == self.agents.len() - 1, "{untouched} devices were spared");
        self.screen.tick("a version that fails in its trial rolled back", &reason);
        self.screen.tick(
            "the rollout stopped by itself",
            &format!("{untouched} of {} devices never saw it", self.agents.len()),
        );
        self.report.trial.rolled_back = true;
        self.report.trial.reason = reason;
        self.report.rollout.stopped_by_gate = true;
        Ok(())
    }

    pub(super) fn kill_while_downloading(&mut self, subject: &Subject) -> Result<()> {
        let good = self.version(&format!("{}@v1.1", subject.name))?;
        let folder = self.folder.join("padded");
        variants::with_doc_string(&good.result, &folder, &variants::noise(PADDING_BYTES))?;
        let published = self.publish(subject, &folder, &[])?;
        let version = self.version(text_of(&published, "/name")?)?;
        let id = self.agents.first().context("no device")?.id.clone();
        let rollout = self.start_rollout(subject, &version.name, &["--device", &id])?;
        let agent = self.agents.first_mut().context("no device")?;
        let done = wait_for("the download to be in its middle", STEP_LIMIT, || {
            Ok(match agent.phase(&subject.name)? {
                Phase::Fetching { chunks_done, chunks_total, .. }
                    if chunks_total > 60 && chunks_done > 20 =>
                {
                    Some(chunks_done)
                }
                _ => None,
            })
        })?;
        agent.kill()?;
        agent.start()?;
        let client = agent.client();
        wait_for("an answer of the last good model after the kill", STEP_LIMIT, || {
            client.infer(&subject.name, &subject.test.batch_shape(1), &subject.test.inputs[0]).map(Some)
        })?;
        let ended = self.control.wait_rollout(&rollout)?;
        ensure!(text_of(&ended, "/state")? == "completed", "the rollout ended as {ended}");
        let (from, total) =
            wait_for("the event of the resumed download", STEP_LIMIT, || self.resumed_from(&id))?;
        ensure!(from > 0, "the download began again from its start");
        self.report.kill.resumed_from_chunk = from;
        self.report.kill.chunks_total = total;
        self.screen.tick(
            "an agent killed with -9 in the middle of a download",
            &format!("killed after {done} chunks, resumed from chunk {from} of {total}"),
        );
        Ok(())
    }

    /// From the device's newest event of a resumed download: `from chunk N of M`.
    fn resumed_from(&self, device: &str) -> Result<Option<(u64, u64)>> {
        let events = self.control.cli(&["device", "events", device])?;
        for event in list_of(&events, "/items")? {
            if text_of(event, "/kind")? != "download_resumed" {
                continue;
            }
            let numbers: Vec<u64> =
                text_of(event, "/detail")?.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            if let [from, total] = numbers[..]
                && total > 60
            {
                return Ok(Some((from, total)));
            }
        }
        Ok(None)
    }

    /// From the start of the process to its first answer, without a download.
    pub(super) fn start_to_first_answer(&mut self, subject: &Subject) -> Result<()> {
        let shape = subject.test.batch_shape(1);
        let agent = self.agents.first_mut().context("no device")?;
        agent.stop()?;
        let started = Instant::now();
        agent.start()?;
        let client = agent.client();
        wait_for("the first answer", STEP_LIMIT, || {
            Ok(client.infer(&subject.name, &shape, &subject.test.inputs[0]).ok().map(|_| ()))
        })?;
        let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.report.agent.start_to_first_answer_ms = ms;
        self.screen.tick("agent started again", &format!("first answer after {ms} ms"));
        Ok(())
    }
}
