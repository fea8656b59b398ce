//! The training stages of a job: its teachers, where it has any, then the network, after its pretext.

use super::{
    Clock, Driver, Error, Phase, State,
    pace::{self, Held, Searched},
    plain,
    pretext::PretextState,
    spec, tensor,
};
use crate::{
    answer::Answer,
    batch::Augment,
    checkpoint::Named,
    data::Split,
    genotype::{Architecture, Dim},
    network::Network,
    seeds::{self, Purpose},
    supernet,
    train::{self, Course, Plan, TrainState, Training},
};
use serde::{Deserialize, Serialize};
use shared::job::{DatasetSchema, Progress, Stage, TeachersReport};
use tch::Tensor;

/// A training of weights that are good already starts with this share of the usual rate.
const WARM_RATE_SHARE: f64 = 0.3;
/// Longest side of what is erased of an image, as a share of the image's.
const ERASE: f32 = 0.4;
/// How often the accuracy of a training is looked at.
const ACCURACY_TIMES: u64 = 10;
/// How many times as wide as the network its teachers are: the board's limits are not theirs.
const TEACHER_WIDTH: usize = 3;
/// What is said of a training on mirrored images.
const MIRRORED: &str = "labels survive mirroring: trained on mirrored images too";
const AFRESH: &str = "the checkpoint does not fit its job: delete the checkpoint folder";

/// Where the training of the teachers stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TeachState {
    /// The one that is being trained; those before it are done.
    teacher: u32,
    /// Its steps.
    step: u64,
}

/// Who is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pupil {
    Teacher(u32),
    /// The network, by its pretext.
    Start,
    Network,
}

impl Pupil {
    fn phase(self, step: u64) -> Phase {
        match self {
            Self::Teacher(teacher) => Phase::Teach(TeachState { teacher, step }),
            Self::Start => Phase::Pretext(PretextState { step }),
            Self::Network => Phase::Train(TrainState { step }),
        }
    }
}

impl Driver<'_, '_> {
    /// Refuses a training that needs more memory than there is, else gives it the threads that it feeds.
    pub(super) fn make_room(&self, what: &str, architecture: &Architecture) -> Result<(), Error> {
        spec::check_memory(what, supernet::training_bytes(architecture, self.batch()))?;
        self.set_threads_for(architecture);
        Ok(())
    }

    /// How a network is trained. Where anomalies are to be found, one is all that an erased part of an image can be.
    fn plan(&self, network: &Architecture, warm: bool) -> Plan {
        let plan = plan(network, self.spec.budget.train_epochs, warm);
        match self.detecting {
            Some(_) => Plan { augment: Augment { erase: 0.0, mirror: false, ..plan.augment }, ..plan },
            None => plan,
        }
    }

    fn set_threads_for(&self, architecture: &Architecture) {
        spec::set_threads(
            self.spec.threads,
            self.batch() * supernet::largest_state(&architecture.skeleton()),
        );
    }

    /// Samples in one step.
    fn batch(&self) -> u64 {
        train::batch_of(self.samples.len()) as u64
    }

    /// The first phase behind the search.
    pub(super) fn after_search(&self) -> Phase {
        self.after_teacher(0).phase(0)
    }

    /// Who is trained when `done` teachers are.
    fn after_teacher(&self, done: u32) -> Pupil {
        let left_out = self.state.paced.left_out;
        if done < self.spec.budget.teachers && !left_out.teachers {
            Pupil::Teacher(done)
        } else if self.spec.budget.pretext.is_some() && !left_out.pretext {
            Pupil::Start
        } else {
            Pupil::Network
        }
    }

    /// Trains `net`, after its teachers.
    pub(super) fn train(&mut self, net: Network, retrain: bool) -> Result<Network, Error> {
        if matches!(self.state.phase, Phase::Search(_)) {
            self.state.phase = self.after_search();
        }
        if matches!(self.state.phase, Phase::Trained) {
            return restored(net, &self.saved.take().unwrap_or_default(), "");
        }
        if matches!(self.state.phase, Phase::Compress(_)) {
            return self.restored_here(net, "");
        }
        let teachers = self.teachers(net.architecture())?;
        let beside = kept(&teachers);
        let net = self.started(net, &beside)?;
        let mut plan = self.plan(net.architecture(), retrain);
        let net = self.pace_network(net, &mut plan, &teachers);
        let mut training = Training::new(net, self.samples, plan, self.spec.seed).taught_by(&teachers);
        self.steps(&mut training, Pupil::Network, &beside)?;
        if training.mirrors_images() {
            self.state.paced.remarks.push(MIRRORED.to_owned());
        }
        let net = training.finish();
        self.state.phase = Phase::Trained;
        self.save(&[("weights", net.params.flat()), ("stats", net.stats.flat())])?;
        Ok(net)
    }

    /// The teachers, each as the network but wider and with weights of its own.
    fn teachers(&mut self, network: &Architecture) -> Result<Vec<Network>, Error> {
        let count = self.spec.budget.teachers;
        if count == 0 || self.state.paced.left_out.teachers {
            return Ok(Vec::new());
        }
        let wide = Architecture { channels: network.channels * TEACHER_WIDTH, ..network.clone() };
        self.make_room("training of a teacher", &wide)?;
        self.pace_teachers(&wide)?;
        if self.state.paced.left_out.teachers {
            self.state.phase = self.after_teacher(0).phase(0);
            self.set_threads_for(network);
            return Ok(Vec::new());
        }
        let mut teachers = Vec::new();
        for index in 0..count {
            let mut rng = seeds::stream(self.spec.seed, Purpose::NetworkWeights, 1 + u64::from(index));
            let net = Network::new(wide.clone(), &mut rng).map_err(Error::Input)?;
            let trained = match self.state.phase {
                Phase::Teach(TeachState { teacher, .. }) if teacher == index => {
                    self.teach(net, index, &teachers)?
                }
                _ => self.restored_here(net, &prefix(index))?,
            };
            teachers.push(trained);
        }
        if self.state.teachers.is_none() {
            let right = teachers.iter().map(|teacher| accuracy(teacher, &self.set.test, &self.set.schema));
            let accuracy = right.sum::<f64>() / f64::from(count);
            let report = TeachersReport {
                count,
                parameters: teachers.first().map_or(0, |teacher| teacher.params.len() as u64),
                accuracy,
                seconds: self.state.teach_seconds,
            };
            let message = format!("{count} teachers answer {accuracy:.4} of the test split right");
            (self.hooks.progress)(&Progress { message: Some(message), ..plain(Stage::Train, 0, 1) });
            self.state.teachers = Some(report);
        }
        self.set_threads_for(network);
        Ok(teachers)
    }

    fn teach(&mut self, net: Network, index: u32, before: &[Network]) -> Result<Network, Error> {
        let mut plan = self.plan(net.architecture(), false);
        plan.steps_max = self.state.paced.teach_steps;
        // Another order of the samples for each.
        let seed = seeds::derived(self.spec.seed, index);
        let mut training = Training::new(net, self.samples, plan, seed);
        self.steps(&mut training, Pupil::Teacher(index), &kept(before))?;
        let net = training.finish();
        self.state.phase = self.after_teacher(index + 1).phase(0);
        let mut tensors = kept(before);
        tensors.extend(kept_one(index, &net));
        self.save(&borrowed(&tensors))?;
        Ok(net)
    }

    /// Takes a course to its end, from the checkpoint where there is one of it. `beside` goes into its checkpoints.
    pub(super) fn steps(
        &mut self,
        course: &mut dyn Course,
        pupil: Pupil,
        beside: &[(String, Tensor)],
    ) -> Result<(), Error> {
        let mut resumed_from = None;
        let at = match (pupil, &self.state.phase) {
            (Pupil::Network, Phase::Train(state)) => Some(state.step),
            (Pupil::Teacher(_), Phase::Teach(state)) => Some(state.step),
            (Pupil::Start, Phase::Pretext(state)) => Some(state.step),
            _ => None,
        };
        // Later trainings of this run begin at their beginning.
        let saved = self.saved.take();
        if let (Some(step), Some(saved)) = (at, saved)
            && step > 0
        {
            course.restore(step, &mut |name| tensor(&saved, name)).map_err(Error::Input)?;
            resumed_from = Some(step);
        }
        let before = match pupil {
            Pupil::Network => self.state.train_seconds,
            Pupil::Teacher(_) => self.state.teach_seconds,
            Pupil::Start => self.state.pretext_seconds,
        };
        let mut clock = Clock::start(before, self.hooks.checkpoint_every);
        loop {
            let (step, total) = course.progress();
            if step >= total {
                break;
            }
            let loss = course.step();
            let step = step + 1;
            if !loss.is_finite() {
                return Err(Error::Diverged { stage: "training", step });
            }
            let look = step == total || step % (total / ACCURACY_TIMES).max(1) == 0;
            let accuracy = if look { course.accuracy() } else { None };
            let curve = match pupil {
                Pupil::Network => &mut self.state.history.training,
                Pupil::Start => &mut self.state.history.pretext,
                Pupil::Teacher(index) => self.state.history.teacher(index as usize),
            };
            curve.push(step, loss, accuracy);
            if clock.due_for_report() || look {
                let progress = Progress {
                    loss: Some(loss),
                    accuracy,
                    resumed_from: resumed_from.take(),
                    message: match pupil {
                        Pupil::Network => None,
                        Pupil::Start => Some("without labels".to_owned()),
                        Pupil::Teacher(index) => Some(format!("teacher {}", index + 1)),
                    },
                    ..plain(Stage::Train, step, total)
                };
                (self.hooks.progress)(&progress);
            }
            if clock.due_for_checkpoint() {
                let mut tensors = course.save();
                self.state.phase = pupil.phase(step);
                self.spent(pupil, clock.seconds());
                tensors.extend(borrowed(beside));
                self.save(&tensors)?;
            }
            if (self.hooks.stop)() {
                return Err(Error::Stopped);
            }
        }
        self.spent(pupil, clock.seconds());
        Ok(())
    }

    fn spent(&mut self, pupil: Pupil, seconds: f64) {
        match pupil {
            Pupil::Network => self.state.train_seconds = seconds,
            Pupil::Teacher(_) => self.state.teach_seconds = seconds,
            Pupil::Start => self.state.pretext_seconds = seconds,
        }
    }

    /// Finds out how much there is time for with each teacher; less than a pass over the data teaches none.
    fn pace_teachers(&mut self, wide: &Architecture) -> Result<(), Error> {
        let Some(limit_s) = self.spec.budget.seconds else { return Ok(()) };
        if self.state.paced.teach_steps.is_some() {
            return Ok(());
        }
        let mut rng = seeds::stream(self.spec.seed, Purpose::NetworkWeights, 1);
        let net = Network::new(wide.clone(), &mut rng).map_err(Error::Input)?;
        let plan = self.plan(wide, false);
        let (_, measured) = self.measured(net, plan, &[]);
        let (spent_s, count) = (self.state.search_seconds, self.spec.budget.teachers);
        let steps = pace::teach_steps(limit_s, spent_s, count, measured.step_s, measured.most);
        if steps < measured.pass.min(measured.most) {
            self.state.paced.left_out.teachers = true;
        } else {
            self.state.paced.teach_steps = Some(steps);
        }
        Ok(())
    }

    /// Finds out how much of `plan` there is time for with the network, and says so.
    fn pace_network(&mut self, net: Network, plan: &mut Plan, teachers: &[Network]) -> Network {
        let Some(limit_s) = self.spec.budget.seconds else { return net };
        let mut net = net;
        if self.state.paced.train_steps.is_none() {
            let measured;
            (net, measured) = self.measured(net, *plan, teachers);
            let mut spent_s = self.spent_s();
            if self.compresses_by_itself() {
                spent_s += pace::compress_s(limit_s, spent_s);
            }
            let steps = pace::train_steps(limit_s, spent_s, measured.step_s, measured.most);
            let paced = &mut self.state.paced;
            paced.train_steps = Some(steps);
            paced.pass_steps = Some(measured.pass);
            paced.cut_short = steps < measured.most;
            let message = self.held().map(|held| held.told(None));
            (self.hooks.progress)(&Progress { message, ..plain(Stage::Train, 0, steps) });
        }
        plan.steps_max = self.state.paced.train_steps;
        net
    }

    /// Seconds of all stages so far.
    pub(super) fn spent_s(&self) -> f64 {
        let State { search_seconds, teach_seconds, pretext_seconds, train_seconds, compress_seconds, .. } =
            self.state;
        search_seconds + teach_seconds + pretext_seconds + train_seconds + compress_seconds
    }

    /// What the time of the job held, where it is limited.
    pub(super) fn held(&self) -> Option<Held> {
        let (budget, paced) = (&self.spec.budget, &self.state.paced);
        let (steps, pass) = paced.train_steps.zip(paced.pass_steps)?;
        let searched = self.state.search.as_ref();
        Some(Held {
            limit_s: budget.seconds?,
            search: searched.map(|search| Searched {
                steps: search.arch_steps,
                judged: search.cells_judged,
                most: budget.search_steps,
            }),
            passes: steps as f64 / pass.max(1) as f64,
            epochs: budget.train_epochs,
            teachers: budget.teachers,
            left_out: paced.left_out,
        })
    }

    /// `net` with the weights and statistics that the checkpoint holds under `prefix`, where it was read from one.
    pub(super) fn restored_here(&self, net: Network, prefix: &str) -> Result<Network, Error> {
        restored(net, self.saved.as_ref().unwrap_or(&Named::new()), prefix)
    }

    /// What a step of a training of `net` takes. Gives the network back as it was.
    fn measured(&self, net: Network, plan: Plan, teachers: &[Network]) -> (Network, Measured) {
        let before = (net.params.flat().copy(), net.stats.flat().copy());
        let mut trial = Training::new(net, self.samples, plan, self.spec.seed).taught_by(teachers);
        let step_s = pace::seconds_a_step(|| {
            trial.step();
        });
        let measured = Measured { step_s, most: trial.progress().1, pass: trial.steps_per_epoch() };
        let mut net = trial.finish();
        net.params.set_flat(&before.0);
        net.stats.set_flat(&before.1);
        (net, measured)
    }
}

struct Measured {
    step_s: f64,
    /// Steps of the whole plan.
    most: u64,
    /// Steps of one pass over the training data.
    pass: u64,
}

/// `net` with the weights and statistics that a checkpoint holds under `prefix`.
fn restored(mut net: Network, saved: &Named, prefix: &str) -> Result<Network, Error> {
    let take = |name: &str, len: usize| {
        tensor(saved, &format!("{prefix}{name}"))
            .filter(|found| found.numel() == len)
            .ok_or_else(|| Error::Input(AFRESH.to_owned()))
    };
    net.params.set_flat(&take("weights", net.params.len())?);
    net.stats.set_flat(&take("stats", net.stats.len())?);
    Ok(net)
}

fn prefix(teacher: u32) -> String {
    format!("teacher{teacher}.")
}

/// What a checkpoint needs of teachers that are done.
fn kept(teachers: &[Network]) -> Vec<(String, Tensor)> {
    (0..).zip(teachers).flat_map(|(index, teacher)| kept_one(index, teacher)).collect()
}

fn kept_one(index: u32, teacher: &Network) -> [(String, Tensor); 2] {
    let prefix = prefix(index);
    [(format!("{prefix}weights"), teacher.params.flat()), (format!("{prefix}stats"), teacher.stats.flat())]
}

pub(super) fn borrowed(tensors: &[(String, Tensor)]) -> Vec<(&str, Tensor)> {
    tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shallow_clone())).collect()
}

/// Share of right answers of `net` on a split.
fn accuracy(net: &Network, split: &Split, schema: &DatasetSchema) -> f64 {
    let samples = crate::batch::Samples::of(split, schema);
    let all: Vec<i64> = (0..).take(samples.len()).collect();
    train::accuracy(net, &samples, &all)
}

/// How a network is trained.
fn plan(network: &Architecture, epochs: u32, warm: bool) -> Plan {
    let rate = match (network.answer, network.dim) {
        (Answer::Class, Dim::Image) => 0.1,
        (Answer::Class, Dim::Series) => 0.05,
        // The mean over so many positions is a gradient with little noise.
        (Answer::Next | Answer::ClassAndSlots { .. }, _) => 0.3,
    };
    let share = if warm { WARM_RATE_SHARE } else { 1.0 };
    let image = network.dim == Dim::Image;
    let usual = Augment::for_dim(network.dim);
    let augment = Augment { mirror: image, erase: if image { ERASE } else { 0.0 }, ..usual };
    Plan { epochs, steps_max: None, rate: rate * share, augment }
}
