//! A second version takes over while requests keep coming.

use super::{Demo, Subject, life::Version, report::Swap};
use crate::{
    harness::control::text_of,
    load::{Load, quantile_us, senders_per_device},
};
use anyhow::{Context, Result, ensure};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How long requests come before the rollout begins.
const STEADY: Duration = Duration::from_secs(4);
/// Pause between two requests of one sender.
const PAUSE: Duration = Duration::from_millis(4);

impl Demo {
    /// Trains the same architecture on, from the first version's weights.
    pub(super) fn retrain(&self, subject: &Subject, dataset: &str, seed: u64, from: &str) -> Result<Version> {
        let seed = seed.to_string();
        let epochs = match subject.test.shape.len() {
            3 => "1",
            _ => "20",
        };
        let job = self.control.cli_shown(&[
            "model",
            "retrain",
            from,
            "--dataset",
            dataset,
            "--epochs",
            epochs,
            "--seed",
            &seed,
            "--wait",
        ])?;
        self.version(text_of(&job, "/version")?)
    }

    pub(super) fn swap_under_load(&mut self, subject: &Subject) -> Result<()> {
        let first = format!("{}@v1.0", subject.name);
        let second = self.retrain(subject, &subject.name, self.options.seed + 1, &first)?;
        let inputs = Arc::new(subject.test.inputs.iter().take(200).cloned().collect::<Vec<_>>());
        let shape = subject.test.batch_shape(1);
        let loads: Vec<Load> = self
            .agents
            .iter()
            .map(|agent| {
                let senders = senders_per_device();
                Load::start_many(senders, &agent.client(), &subject.name, &shape, &inputs, PAUSE)
            })
            .collect();
        std::thread::sleep(STEADY);
        let began = Instant::now();
        let rollout = self.roll_out(subject, &second.name, &["--agreement-permille-min", "800"])?;
        let ended = Instant::now();
        let mut samples = Vec::new();
        for load in loads {
            samples.extend(load.finish()?);
        }
        ensure!(text_of(&rollout, "/state")? == "completed", "the second rollout ended as {rollout}");
        let during = |sent: Instant| sent >= began && sent <= ended;
        let steady = || samples.iter().filter(|sample| sample.sent < began);
        let moving = || samples.iter().filter(|sample| during(sample.sent));
        let swap = Swap {
            requests: samples.len() as u64,
            failed: samples.iter().filter(|sample| !sample.ok).count() as u64,
            p99_us_steady: quantile_us(steady(), 0.99),
            p99_us_during: quantile_us(moving(), 0.99),
            p50_us_steady: quantile_us(steady(), 0.5),
            p50_us_during: quantile_us(moving(), 0.5),
        };
        ensure!(swap.failed == 0, "{} of {} requests failed during the swap", swap.failed, swap.requests);
        ensure!(moving().count() > 0, "no request came during the rollout");
        for agent in &self.agents {
            let active = agent.active_version(&subject.name)?.context("no active version")?;
            ensure!(active == second.label, "{} runs {active} after the second rollout", agent.id);
        }
        self.screen.tick(
            &format!("{} took over under load", second.name),
            &format!(
                "{} requests, {} failed, p99 {} µs before, {} µs during",
                swap.requests, swap.failed, swap.p99_us_steady, swap.p99_us_during
            ),
        );
        self.report.swap = swap;
        Ok(())
    }
}
