//! The broker goes away and comes back; nothing that a device has to say is lost or said twice.

use super::{Demo, Subject, report::Offline};
use crate::harness::{control::count_of, wait_for};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::time::{Duration, Instant};

/// Inferences of each device while the broker is away.
const INFERENCES: usize = 100;
/// Feedback records of each device while the broker is away.
const FEEDBACK: usize = 50;
const BACK_LIMIT: Duration = Duration::from_secs(90);

impl Demo {
    pub(super) fn broker_outage(&mut self, subject: &Subject) -> Result<()> {
        let before = self.control.cli(&["status"])?;
        self.control.stop()?;
        for agent in &self.agents {
            wait_for("the device to notice that the broker is gone", BACK_LIMIT, || {
                Ok((agent.metric("edgewright_mqtt_connected")? == 0.0).then_some(()))
            })?;
        }
        let mut inferences = 0;
        for agent in &self.agents {
            let client = agent.client();
            let shape = subject.test.batch_shape(1);
            for index in 0..INFERENCES {
                let input = &subject.test.inputs[index % subject.test.inputs.len()];
                client
                    .infer(&subject.name, &shape, input)
                    .context("a device without a broker must answer")?;
                inferences += 1;
            }
            let path = format!("/v2/models/{}/feedback", subject.name);
            for index in 0..FEEDBACK {
                let body = json!({ "request_id": format!("offline-{index}"), "kind": "click" });
                let (status, answer) = client.post_json(&path, &body)?;
                ensure!(status == 202, "feedback answered {status}: {answer}");
            }
        }
        let waiting = self.sum("edgewright_outbox_records")?;
        let least = self.agents.len() * FEEDBACK;
        #[expect(clippy::cast_precision_loss)]
        let enough = waiting >= least as f64;
        ensure!(enough, "only {waiting} records wait in the outboxes, {least} were handed over");
        // One device also loses its power while the broker is away.
        let last = self.agents.last_mut().context("no device")?;
        last.kill()?;
        last.start()?;
        let kept = self.sum("edgewright_outbox_records")?;
        ensure!(kept >= waiting, "{waiting} records before the kill, {kept} after");
        let came_back = Instant::now();
        self.control.resume()?;
        let busy = self.screen.busy("waiting for the outboxes to empty");
        wait_for("every stored event to arrive", BACK_LIMIT, || {
            Ok((self.sum("edgewright_outbox_records")? == 0.0).then_some(()))
        })?;
        drop(busy);
        let after = self.control.cli(&["status"])?;
        let counted = |field: &str| -> Result<u64> {
            Ok(count_of(&after, field)?.saturating_sub(count_of(&before, field)?))
        };
        let records =
            counted("/ingest/events")? + counted("/ingest/feedback")? + counted("/ingest/telemetry")?;
        let feedback = counted("/ingest/feedback")?;
        let offline = Offline {
            inferences,
            events_stored: least as u64,
            events_delivered: feedback,
            duplicates: count_of(&after, "/ingest/duplicate_rows")?,
        };
        ensure!(feedback == least as u64, "{least} feedback records were handed over, {feedback} arrived");
        #[expect(clippy::cast_precision_loss)]
        let all = records as f64 >= kept;
        ensure!(all, "{kept} records of all kinds were kept, {records} arrived");
        ensure!(offline.duplicates == 0, "{} records are in the store twice", offline.duplicates);
        self.screen.tick(
            "broker stopped and back",
            &format!(
                "{} inferences offline, {} events kept (one agent killed on the way), {} delivered in {:.1} s, {} twice",
                offline.inferences,
                offline.events_stored,
                offline.events_delivered,
                came_back.elapsed().as_secs_f64(),
                offline.duplicates
            ),
        );
        self.report.offline = offline;
        Ok(())
    }

    fn sum(&self, metric: &str) -> Result<f64> {
        self.agents.iter().map(|agent| agent.metric(metric)).sum()
    }
}
