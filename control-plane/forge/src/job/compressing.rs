//! The compression of a job: tries sequences of steps, takes the best in full, and makes its numbers small. What is done
//! is decided by [`crate::compress::sequence`]; every training goes on from the checkpoint, every decision is made again
//! from the same numbers.

mod forms;
mod journal;

use super::{Clock, Driver, Error, Phase, pace, plain, training};
use crate::{
    batch::Augment,
    checkpoint::Named,
    compress::{
        self, Answers, Judge, Parts, Plan, Retraining, Trainable,
        low_rank::low_rank,
        prune::{Scorer, prune},
        sequence::{self, Bound, Menu, Sequence, Step, Trial},
    },
    finish::Compressed,
    genotype::Dim,
    graph::Graph,
    network::{Network, broken_limit, latency},
    quantise, seeds,
};
pub(super) use journal::CompressState;
use journal::Journal;
use runtime::Ort;
use shared::job::{Budget, Compression, Progress, SequenceReport, Stage};

/// Batches by which the worth of channels is found.
const SCORE_BATCHES: u64 = 16;
/// A full retraining takes this share of the steps of the training before it.
const FULL_SHARE: f64 = 0.25;
/// A trial's, as a share of a full one.
const TRIAL_SHARE: f64 = 0.125;
/// A training with rounding, as a share of a full one.
const AWARE_SHARE: f64 = 0.5;
/// No training behind a step is shorter.
const STEPS_MIN: u64 = 8;
/// Highest rates: of a training behind a change of the structure, and of one with rounding.
const RATE: f64 = 0.02;
const AWARE_RATE: f64 = 0.004;

/// What is said of a compression that is asked for and not there.
const NOT_OF_TEXT: &str = "networks of text are not compressed beyond INT8";

/// What stays the same over a compression.
struct World<'a> {
    graph: Graph,
    menu: Menu,
    answers: Answers<'a>,
    judge: &'a Judge<'a>,
    parts: &'a Parts,
    bound: Bound,
    augment: Augment,
    /// Steps of a full retraining.
    full: u64,
    ort: &'a Ort,
}

/// What a full run came to.
enum Run {
    Kept(Box<Compressed>),
    /// Why not.
    Refused(String),
}

impl Driver<'_, '_> {
    /// Whether the time of the job has to hold a compression beyond INT8.
    pub(super) fn compresses_by_itself(&self) -> bool {
        self.spec.budget.compress == Compression::Auto && self.set.schema.text.is_none()
    }

    /// A smaller form of `net`; `None` where the budget asks for plain INT8, and for text.
    pub(super) fn compress(&mut self, net: &Network, ort: &Ort) -> Result<Option<Compressed>, Error> {
        if self.spec.budget.compress == Compression::Int8 {
            return Ok(None);
        }
        if self.set.schema.text.is_some() {
            self.state.paced.remarks.push(NOT_OF_TEXT.to_owned());
            return Ok(None);
        }
        if self.state.paced.left_out.compression {
            return Ok(None);
        }
        let saved = self.saved.take().unwrap_or_default();
        let mut journal = match &self.state.phase {
            Phase::Compress(state) => Journal::restore(state.clone(), &saved)?,
            _ => Journal::default(),
        };
        journal.base =
            vec![("weights".to_owned(), net.params.flat()), ("stats".to_owned(), net.stats.flat())];
        let graph = net.to_graph().map_err(compress::Error::from)?;
        let teacher = Trainable::new(&graph);
        let parts = Parts::of(self.samples.len(), self.spec.seed);
        let judge = Judge::new(self.set, self.samples, &parts, ort);
        let answers = Answers { samples: self.samples, used: &parts.used, teacher: &teacher };
        let permille = self.spec.budget.accuracy_loss_permille;
        let permille = permille.unwrap_or(Budget::ACCURACY_LOSS_PERMILLE_DEFAULT);
        let bound =
            Bound { whole: judge.of_graph(&graph), loss: f64::from(permille) / 1000.0, count: judge.count() };
        let dim = if graph.input_shape().spatial.len() == 2 { Dim::Image } else { Dim::Series };
        let augment = Augment::for_dim(dim);
        let mut clock = Clock::start(self.state.compress_seconds, self.hooks.checkpoint_every);
        let Some(full) = self.full_steps(&graph, answers, augment) else {
            self.state.paced.left_out.compression = true;
            // Decided once: a job that is killed after this ends as one that was not.
            self.save(&training::borrowed(&journal.base))?;
            return Ok(None);
        };
        let (judge, parts) = (&judge, &parts);
        let menu = Menu::of(self.spec.budget.compress);
        let world = World { graph, menu, answers, judge, parts, bound, augment, full, ort };
        let compressed = self.in_order(&world, &mut journal, &mut clock);
        self.state.compress_seconds = clock.seconds();
        compressed.map(Some)
    }

    /// Tries every sequence, then runs the best in full until one keeps the bound.
    fn in_order(
        &mut self,
        world: &World<'_>,
        journal: &mut Journal,
        clock: &mut Clock,
    ) -> Result<Compressed, Error> {
        while let Some(sequence) = world.menu.sequences.get(journal.state.trials.len()) {
            let trial = self.trial(sequence, world, journal, clock)?;
            journal.trial_done(trial);
            self.checkpoint_compression(journal, &[], clock)?;
        }
        let trials = journal.state.trials.clone();
        let order = sequence::order(&trials, &world.bound);
        let plain_trial = trials.first().and_then(Option::as_ref);
        for index in order.iter().copied() {
            if journal.refused(index).is_some() {
                continue;
            }
            let Some(sequence) = world.menu.sequences.get(index) else { continue };
            match self.full_run(index, sequence, world, journal, clock)? {
                Run::Kept(mut compressed) => {
                    compressed.tried = trials
                        .iter()
                        .enumerate()
                        .map(|(at, trial)| {
                            let known = journal.refused(at).map(str::to_owned);
                            let refused = if at == index {
                                None
                            } else {
                                let why = || sequence::refusal(trial.as_ref(), plain_trial, &world.bound);
                                Some(known.unwrap_or_else(why))
                            };
                            let sequence = world.menu.sequences.get(at).copied().unwrap_or_default();
                            report(sequence, trial.as_ref(), refused)
                        })
                        .collect();
                    compressed.seconds = clock.seconds();
                    return Ok(*compressed);
                }
                Run::Refused(why) => {
                    let told = format!("{} is refused: {why}", sequence::name(sequence));
                    self.say(world, journal, told);
                    journal.refuse(index, why);
                    self.checkpoint_compression(journal, &[], clock)?;
                }
            }
        }
        Err(Error::Input("no form of the network can be exported: delete the checkpoint folder".to_owned()))
    }

    /// A short run of a sequence; `None` where one of its steps changes nothing.
    fn trial(
        &mut self,
        sequence: Sequence,
        world: &World<'_>,
        journal: &mut Journal,
        clock: &mut Clock,
    ) -> Result<Option<Trial>, Error> {
        let mut graph = world.graph.clone();
        let steps = share_of(world.full, TRIAL_SHARE);
        let number = journal.state.trials.len();
        for (position, step) in sequence.iter().enumerate() {
            let key = format!("trial {number}.{position}");
            let Some(next) = self.step(&key, *step, &graph, steps, world, journal, clock)? else {
                return Ok(None);
            };
            graph = next;
        }
        let trial = Trial {
            bytes: quantise::weight_bytes(&graph) as u64,
            macs: graph.macs(),
            us: latency::estimate_us(&graph, &self.spec.board),
            accuracy: world.judge.of_graph(&graph) as f32,
            fits: broken_limit(&graph, &self.spec.board).is_none(),
        };
        let told = format!(
            "{}: {} bytes, {} operations, {:.4} right",
            sequence::name(sequence),
            trial.bytes,
            trial.macs,
            trial.accuracy
        );
        self.say(world, journal, told);
        Ok(Some(trial))
    }

    /// A sequence with its full retrainings and its numbers made small.
    fn full_run(
        &mut self,
        index: usize,
        sequence: Sequence,
        world: &World<'_>,
        journal: &mut Journal,
        clock: &mut Clock,
    ) -> Result<Run, Error> {
        let mut graph = world.graph.clone();
        let mut structures = Vec::new();
        for (position, step) in sequence.iter().enumerate() {
            let key = format!("full {index}.{position}");
            let Some(next) = self.step(&key, *step, &graph, world.full, world, journal, clock)? else {
                return Ok(Run::Refused("it changes nothing".to_owned()));
            };
            graph = next;
            structures.push((step.to_string(), graph.clone()));
        }
        let found = world.judge.of_graph(&graph);
        if !sequence.is_empty() && !world.bound.holds(found) {
            let least = world.bound.least();
            return Ok(Run::Refused(format!("{found:.4} right after its retraining, {least:.4} are needed")));
        }
        self.small_form(index, graph, structures, world, journal, clock)
    }

    /// One step and the training behind it; `None` where it changes nothing.
    #[expect(clippy::too_many_arguments, reason = "a step, its place, and what surrounds it")]
    fn step(
        &mut self,
        key: &str,
        step: Step,
        graph: &Graph,
        steps: u64,
        world: &World<'_>,
        journal: &mut Journal,
        clock: &mut Clock,
    ) -> Result<Option<Graph>, Error> {
        if let Some(done) = journal.graph(key) {
            return Ok(Some(done.clone()));
        }
        let seed = seed_of(self.spec.seed, key);
        let start = match journal.started(key) {
            Some(start) => Some(start.clone()),
            None => match step {
                Step::Prune { share } => {
                    let net = Trainable::new(graph);
                    let mut scorer = Scorer::new(&net);
                    world.answers.losses(&net, seed, SCORE_BATCHES).for_each(|loss| scorer.add(&loss));
                    prune(graph, &scorer.finish(), f64::from(share) / 100.0, &self.spec.board)
                }
                Step::LowRank { energy } => low_rank(graph, f64::from(energy) / 100.0),
            }
            .map_err(compress::Error::from)?,
        };
        let Some(start) = start else { return Ok(None) };
        let plan = Plan { steps, rate: RATE, augment: world.augment };
        let net = self.retrained(key, Trainable::new(&start), plan, world, journal, clock)?;
        let graph = net.to_graph().map_err(compress::Error::from)?;
        journal.keep(key, graph.clone());
        self.checkpoint_compression(journal, &[], clock)?;
        Ok(Some(graph))
    }

    /// Takes a training to its end, from the checkpoint where there is one of it.
    fn retrained(
        &mut self,
        key: &str,
        net: Trainable,
        plan: Plan,
        world: &World<'_>,
        journal: &mut Journal,
        clock: &mut Clock,
    ) -> Result<Trainable, Error> {
        let mut training = Retraining::new(net, world.answers, plan, seed_of(self.spec.seed, key));
        let mut resumed_from = journal.resume(key, |step, tensor| training.restore(step, tensor))?;
        let before = journal.state.steps - resumed_from.unwrap_or(0);
        loop {
            let (step, total) = training.progress();
            if step >= total {
                return Ok(training.finish());
            }
            let loss = training.step();
            let step = step + 1;
            if !loss.is_finite() {
                return Err(Error::Diverged { stage: "compression", step });
            }
            journal.state.steps = before + step;
            if clock.due_for_report() || step == total {
                let progress = Progress {
                    loss: Some(loss),
                    resumed_from: resumed_from.take(),
                    message: Some(key.to_owned()),
                    ..plain(Stage::Compress, journal.state.steps, planned(world, journal))
                };
                (self.hooks.progress)(&progress);
            }
            if clock.due_for_checkpoint() {
                let (step, tensors) = training.save();
                journal.under_way(key, training.graph(), step);
                self.checkpoint_compression(journal, &tensors, clock)?;
            }
            if (self.hooks.stop)() {
                return Err(Error::Stopped);
            }
        }
    }

    /// Writes the checkpoint down, with the tensors of the training under way.
    fn checkpoint_compression(
        &mut self,
        journal: &Journal,
        under_way: &[(&str, tch::Tensor)],
        clock: &Clock,
    ) -> Result<(), Error> {
        self.state.phase = Phase::Compress(journal.state.clone());
        self.state.compress_seconds = clock.seconds();
        let mut tensors = journal.tensors();
        tensors.extend(under_way.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.shallow_clone())));
        self.save(&training::borrowed(&tensors))
    }

    fn say(&mut self, world: &World<'_>, journal: &Journal, message: String) {
        let progress = plain(Stage::Compress, journal.state.steps, planned(world, journal));
        (self.hooks.progress)(&Progress { message: Some(message), ..progress });
    }

    /// Steps of a full retraining: a share of those of the training, or what there is time for. `None` where that is too
    /// little and nobody asked for a compression by name.
    fn full_steps(&mut self, graph: &Graph, answers: Answers<'_>, augment: Augment) -> Option<u64> {
        let passes = answers.steps_per_epoch() * u64::from(self.spec.budget.train_epochs);
        let trained = self.state.paced.train_steps.map_or(passes, |steps| steps.min(passes));
        let most = share_of(trained, FULL_SHARE);
        let Some(limit_s) = self.spec.budget.seconds else { return Some(most) };
        if self.state.paced.compress_steps.is_some() {
            return self.state.paced.compress_steps;
        }
        let plan = Plan { steps: most, rate: 0.0, augment };
        let mut trial = Retraining::new(Trainable::new(graph), answers, plan, 0);
        let step_s = pace::seconds_a_step(|| {
            trial.step();
        });
        let spent_s = self.state.search_seconds
            + self.state.teach_seconds
            + self.state.pretext_seconds
            + self.state.train_seconds;
        let fitting = pace::compress_steps(limit_s, spent_s, step_s, most.max(STEPS_MIN));
        if fitting < STEPS_MIN && self.compresses_by_itself() {
            return None;
        }
        self.state.paced.compress_steps = Some(fitting.max(STEPS_MIN));
        self.state.paced.compress_steps
    }
}

/// Steps in all, if the first full run is kept and needs no training with rounding; more once there are more.
fn planned(world: &World<'_>, journal: &Journal) -> u64 {
    let trials: u64 = world.menu.sequences.iter().map(|sequence| sequence.len() as u64).sum();
    (trials * share_of(world.full, TRIAL_SHARE) + world.full).max(journal.state.steps)
}

fn share_of(steps: u64, share: f64) -> u64 {
    ((steps as f64 * share) as u64).max(STEPS_MIN)
}

/// A seed of its own for each training.
fn seed_of(seed: u64, key: &str) -> u64 {
    let digest = key.bytes().fold(0u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
    seeds::derived(seed, digest)
}

fn report(sequence: Sequence, trial: Option<&Trial>, refused: Option<String>) -> SequenceReport {
    SequenceReport {
        sequence: sequence::name(sequence),
        bytes: trial.map_or(0, |trial| trial.bytes),
        macs: trial.map_or(0, |trial| trial.macs),
        us: trial.map_or(0, |trial| trial.us),
        accuracy: trial.map_or(0.0, |trial| f64::from(trial.accuracy)),
        refused,
    }
}

/// What a checkpoint lacks.
fn lacking(what: &str) -> Error {
    Error::Input(format!("the checkpoint lacks {what}: delete the checkpoint folder"))
}

/// A tensor of a checkpoint.
fn values<'n>(saved: &'n Named, name: &str) -> Result<&'n [f32], Error> {
    saved.get(name).map(|(_, values)| values.as_slice()).ok_or_else(|| lacking(name))
}
