//! The stage of a job in which the network learns a pretext over all training samples, without their labels.

use super::{Driver, Error, Phase, pace, plain, training::Pupil};
use crate::{
    network::Network,
    pretext::Pretraining,
    train::{Course, TrainState},
};
use serde::{Deserialize, Serialize};
use shared::job::{Pretext, PretextReport, Progress, Stage};
use tch::Tensor;

/// Names the network in a checkpoint between its pretext and its training.
const START: &str = "start.";

/// Where a pretext stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PretextState {
    /// Steps done.
    pub(super) step: u64,
}

impl Driver<'_, '_> {
    /// `net` with what it learns from the samples alone; `beside` goes into checkpoints.
    pub(super) fn started(&mut self, net: Network, beside: &[(String, Tensor)]) -> Result<Network, Error> {
        let (Some(pretext), Some(all)) = (self.spec.budget.pretext, self.all) else { return Ok(net) };
        if self.state.paced.left_out.pretext {
            return Ok(net);
        }
        match self.state.phase {
            Phase::Train(TrainState { step: 0 }) => {
                return self.restored_here(net, START);
            }
            // The training's own checkpoint holds the weights.
            Phase::Train(_) => return Ok(net),
            Phase::Search(_) | Phase::Teach(_) | Phase::Pretext(_) | Phase::Trained | Phase::Compress(_) => {}
        }
        let budget = &self.spec.budget;
        let epochs = budget.pretext_epochs.unwrap_or(budget.train_epochs);
        let seed = self.spec.seed;
        let course = |net, steps_max| Pretraining::new(pretext, net, all, epochs, steps_max, seed);
        let mut net = net;
        if let (Some(limit_s), None) = (budget.seconds, self.state.paced.pretext_steps) {
            let before = (net.params.flat().copy(), net.stats.flat().copy());
            let mut trial = course(net, None);
            let step_s = pace::seconds_a_step(|| {
                trial.step();
            });
            let spent_s = self.state.search_seconds + self.state.teach_seconds;
            let (most, pass) = (trial.progress().1, trial.steps_per_epoch());
            let steps = pace::pretext_steps(limit_s, spent_s, step_s, most);
            net = trial.finish();
            net.params.set_flat(&before.0);
            net.stats.set_flat(&before.1);
            if steps < pass.min(most) {
                self.state.paced.left_out.pretext = true;
                self.state.phase = Phase::Train(TrainState { step: 0 });
                return Ok(net);
            }
            self.state.paced.pretext_steps = Some(steps);
        }
        let mut course = course(net, self.state.paced.pretext_steps);
        self.steps(&mut course, Pupil::Start, beside)?;
        let report = PretextReport {
            pretext,
            steps: course.progress().1,
            samples: all.len() as u64,
            loss: course.loss(),
            seconds: self.state.pretext_seconds,
        };
        let message = Some(told(&report));
        (self.hooks.progress)(&Progress { message, ..plain(Stage::Train, report.steps, report.steps) });
        self.state.pretext = Some(report);
        let net = course.finish();
        self.state.phase = Phase::Train(TrainState { step: 0 });
        let (weights, stats) = (format!("{START}weights"), format!("{START}stats"));
        let mut tensors: Vec<(&str, Tensor)> =
            vec![(&weights, net.params.flat()), (&stats, net.stats.flat())];
        tensors.extend(beside.iter().map(|(name, tensor)| (name.as_str(), tensor.shallow_clone())));
        self.save(&tensors)?;
        Ok(net)
    }
}

fn told(report: &PretextReport) -> String {
    let learned = match report.pretext {
        Pretext::Masked => format!("what was hidden is known but for {:.3} of its variance", report.loss),
        Pretext::Contrastive => format!("a loss of {:.3}", report.loss),
    };
    format!("{learned}, learned from {} samples without labels", report.samples)
}
