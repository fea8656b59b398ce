//! The job driver: takes a folder with `job.json` through loading, search, training, quantising and checking to a
//! `result/` that appears whole or not at all. A killed job goes on from its checkpoint and ends the same.

mod result;

use crate::{
    batch::{Augment, Samples},
    checkpoint::{self, Checkpoint, Named},
    data::{self, Dataset},
    finish,
    genotype::{self, Architecture, Dim},
    network::{FitError, Network, broken_limit},
    search::{Search, SearchState},
    seeds::{self, Purpose},
    train::{Plan, TrainState, Training},
};
use serde::{Deserialize, Serialize};
use shared::{
    Digest,
    job::{self, JobKind, JobReport, JobSpec, Progress, SearchReport, Stage},
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tch::Tensor;

/// Largest `job.json`.
const SPEC_BYTES_MAX: u64 = 1 << 20;
/// Most threads of libtorch.
const THREADS_MAX: u32 = 256;
/// A retraining starts with this share of the usual rate: its weights are already good.
const RETRAIN_RATE_SHARE: f64 = 0.3;
/// How much wider the derived network may be than the supernet was.
const WIDTH_FACTOR: usize = 2;

/// Why a job did not finish.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The job, its data or its parent cannot be used; a person has to change something.
    #[error("{0}")]
    Input(String),
    /// The data set cannot be used.
    #[error(transparent)]
    Data(#[from] data::Error),
    /// No network fits the board.
    #[error(transparent)]
    Fit(#[from] FitError),
    /// Checkpoint or result cannot be written.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// The trained network could not be exported, or its export is wrong.
    #[error(transparent)]
    Finish(#[from] finish::Error),
    /// Training gave values that are not finite.
    #[error(
        "{stage} diverged at step {step}: the loss is not a number; look for wild values in the data set"
    )]
    Diverged {
        /// `search` or `training`.
        stage: &'static str,
        /// The step.
        step: u64,
    },
    /// The caller asked to stop; the checkpoint is there.
    #[error("stopped; run it again to go on")]
    Stopped,
}

impl Error {
    /// Whether a person has to change the input; exit code 2.
    pub fn is_input(&self) -> bool {
        matches!(self, Self::Input(_) | Self::Data(_) | Self::Fit(_))
    }
}

/// What surrounds a running job.
pub struct Hooks<'a> {
    /// Gets every progress report.
    pub progress: &'a mut dyn FnMut(&Progress),
    /// Asked after each step; `true` ends the job at once, as a crash would.
    pub stop: &'a mut dyn FnMut() -> bool,
    /// Time between checkpoints.
    pub checkpoint_every: Duration,
}

impl std::fmt::Debug for Hooks<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hooks").field("checkpoint_every", &self.checkpoint_every).finish_non_exhaustive()
    }
}

/// What a checkpoint says beside its tensors.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    /// Digest of `job.json`: a checkpoint of another job is not taken.
    spec: Digest,
    phase: Phase,
    search_seconds: f64,
    train_seconds: f64,
    architecture: Option<Architecture>,
    search: Option<SearchReport>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    Search(SearchState),
    Train(TrainState),
    Trained,
}

/// Runs the job in `dir` to its result. A job whose result is there is done.
///
/// # Errors
/// [`Error`]; `result/` is then not there.
pub fn run(dir: &Path, hooks: Hooks<'_>) -> Result<(), Error> {
    if dir.join(job::RESULT_DIR).join(job::REPORT_FILE).is_file() {
        let message = Some("the result is there already".to_owned());
        let done = Progress { message, ..plain(Stage::Done, 1, 1) };
        (hooks.progress)(&done);
        return Ok(());
    }
    let (spec, digest) = read_spec(dir)?;
    tch::set_num_threads(spec.threads as i32);
    (hooks.progress)(&plain(Stage::Load, 0, 1));
    let set = data::open_ref(&spec.dataset)?;
    (hooks.progress)(&plain(Stage::Load, 1, 1));
    let samples = Samples::new(&set.train, &set.schema.shape);
    let checkpoint = Checkpoint::open(&dir.join(job::CHECKPOINT_DIR))?;
    let found = checkpoint.load::<State>()?.filter(|(state, _)| state.spec == digest);
    let fresh = State {
        spec: digest,
        phase: Phase::Search(SearchState { step: 0, arch_steps: 0, masks: Vec::new() }),
        search_seconds: 0.0,
        train_seconds: 0.0,
        architecture: None,
        search: None,
    };
    let (state, saved) = found.map_or((fresh, None), |(state, named)| (state, Some(named)));
    let mut driver = Driver { spec, set: &set, samples: &samples, checkpoint, hooks, state, saved };
    let net = driver.network()?;
    driver.finish(dir, &net)
}

/// A job under way.
struct Driver<'a, 'h> {
    spec: JobSpec,
    set: &'a Dataset,
    samples: &'a Samples,
    checkpoint: Checkpoint,
    hooks: Hooks<'h>,
    state: State,
    /// Tensors of the checkpoint, until they are used.
    saved: Option<Named>,
}

impl Driver<'_, '_> {
    /// Search, or the parent's architecture; then training.
    fn network(&mut self) -> Result<Network, Error> {
        let parent = match &self.spec.kind {
            JobKind::Search => None,
            JobKind::Retrain { from, .. } => Some(from.clone()),
        };
        let weights = match &parent {
            None => {
                if self.state.architecture.is_none() {
                    self.search()?;
                }
                None
            }
            Some(from) => {
                let (architecture, weights) = result::read_parent(from)?;
                self.check_parent(from, &architecture)?;
                self.state.architecture = Some(architecture);
                Some(weights)
            }
        };
        let Some(architecture) = self.state.architecture.clone() else {
            return Err(Error::Input(
                "the checkpoint lacks its architecture: delete the checkpoint folder".into(),
            ));
        };
        let mut rng = seeds::stream(self.spec.seed, Purpose::NetworkWeights, 0);
        let mut net = Network::new(architecture, &mut rng).map_err(Error::Input)?;
        if let (Some(from), Some(weights)) = (&parent, weights) {
            let path = from.join(job::WEIGHTS_FILE);
            net.load(|name| weights.get(name).cloned())
                .map_err(|error| Error::Input(format!("{}: {error}", path.display())))?;
            if let Some((limit, allowed, needed)) =
                broken_limit(&net.to_graph().map_err(finish::Error::from)?, &self.spec.board.limits)
            {
                return Err(Error::Input(format!(
                    "{}: the model needs {needed}, board {} allows {limit} = {allowed}: search anew for this board",
                    from.display(),
                    self.spec.board.id
                )));
            }
        }
        self.train(net, parent.is_some())
    }

    fn check_parent(&self, from: &Path, parent: &Architecture) -> Result<(), Error> {
        let schema = &self.set.schema;
        if parent.input != schema.shape || parent.classes != schema.labels.len() {
            return Err(Error::Input(format!(
                "{}: the model takes {:?} and knows {} classes, the data set has {:?} and {}",
                from.display(),
                parent.input,
                parent.classes,
                schema.shape,
                schema.labels.len()
            )));
        }
        Ok(())
    }

    fn search(&mut self) -> Result<(), Error> {
        let spec = &self.spec;
        let schema = &self.set.schema;
        let mut search = Search::new(
            self.samples,
            &schema.shape,
            schema.labels.len(),
            &spec.budget,
            &spec.board.limits,
            spec.seed,
        )
        .map_err(Error::Input)?;
        let mut resumed_from = None;
        if let (Phase::Search(state), Some(saved)) = (&self.state.phase, self.saved.take()) {
            search.restore(state, |name| tensor(&saved, name)).map_err(Error::Input)?;
            resumed_from = Some(state.step);
        }
        let mut clock = Clock::start(self.state.search_seconds, self.hooks.checkpoint_every);
        loop {
            let (step, total) = search.progress();
            if step >= total {
                break;
            }
            let outcome = search.step();
            let step = step + 1;
            if !outcome.loss.is_finite() {
                return Err(Error::Diverged { stage: "search", step });
            }
            if clock.due_for_report() || step == total {
                let accuracy = (step == total || step % 20 == 0).then(|| search.accuracy());
                let progress = Progress {
                    loss: Some(outcome.loss),
                    accuracy,
                    resumed_from: resumed_from.take(),
                    ..plain(Stage::Search, step, total)
                };
                (self.hooks.progress)(&progress);
            }
            if clock.due_for_checkpoint() {
                let (state, tensors) = search.save();
                self.state.phase = Phase::Search(state);
                self.state.search_seconds = clock.seconds();
                self.checkpoint.save(&self.state, &tensors)?;
            }
            if (self.hooks.stop)() {
                return Err(Error::Stopped);
            }
        }
        let mut found = search.derive();
        found.channels *= WIDTH_FACTOR;
        let found = found.fit(&self.spec.board)?;
        self.state.search_seconds = clock.seconds();
        self.state.search = Some(SearchReport {
            seconds: clock.seconds(),
            arch_steps: search.arch_steps(),
            skip_share: found.genotype.skip_share(),
            cell: found.genotype.line(found.dim),
        });
        let (step, total) = search.progress();
        let mut message = format!("found {}", found.genotype.line(found.dim));
        if found.genotype.skip_share() > 0.5 {
            message.push_str("; most edges are skip connections: the search may have collapsed");
        }
        self.state.architecture = Some(found);
        self.state.phase = Phase::Train(TrainState { step: 0 });
        self.checkpoint.save(&self.state, &[])?;
        (self.hooks.progress)(&Progress { message: Some(message), ..plain(Stage::Search, step, total) });
        Ok(())
    }

    fn train(&mut self, net: Network, retrain: bool) -> Result<Network, Error> {
        if matches!(self.state.phase, Phase::Search(_)) {
            self.state.phase = Phase::Train(TrainState { step: 0 });
        }
        let saved = self.saved.take();
        if matches!(self.state.phase, Phase::Trained) {
            let mut net = net;
            let saved = saved.unwrap_or_default();
            let take = |name: &str, len: usize| {
                tensor(&saved, name).filter(|found| found.numel() == len).ok_or_else(|| {
                    Error::Input(
                        "the checkpoint does not fit its job: delete the checkpoint folder".to_owned(),
                    )
                })
            };
            net.params.set_flat(&take("weights", net.params.len())?);
            net.stats.set_flat(&take("stats", net.stats.len())?);
            return Ok(net);
        }
        let dim = net.architecture().dim;
        let plan = plan(dim, self.spec.budget.train_epochs, retrain);
        let mut training = Training::new(net, self.samples, plan, self.spec.seed);
        let mut resumed_from = None;
        if let (Phase::Train(state), Some(saved)) = (&self.state.phase, saved)
            && !saved.is_empty()
        {
            training.restore(state, |name| tensor(&saved, name)).map_err(Error::Input)?;
            resumed_from = Some(state.step);
        }
        let mut clock = Clock::start(self.state.train_seconds, self.hooks.checkpoint_every);
        loop {
            let (step, total) = training.progress();
            if step >= total {
                break;
            }
            let loss = training.step();
            let step = step + 1;
            if !loss.is_finite() {
                return Err(Error::Diverged { stage: "training", step });
            }
            if clock.due_for_report() || step == total {
                let tenth = (total / 10).max(1);
                let accuracy = if step % tenth == 0 || step == total { training.accuracy() } else { None };
                let progress = Progress {
                    loss: Some(loss),
                    accuracy,
                    resumed_from: resumed_from.take(),
                    ..plain(Stage::Train, step, total)
                };
                (self.hooks.progress)(&progress);
            }
            if clock.due_for_checkpoint() {
                let (state, tensors) = training.save();
                self.state.phase = Phase::Train(state);
                self.state.train_seconds = clock.seconds();
                self.checkpoint.save(&self.state, &tensors)?;
            }
            if (self.hooks.stop)() {
                return Err(Error::Stopped);
            }
        }
        let net = training.finish();
        self.state.phase = Phase::Trained;
        self.state.train_seconds = clock.seconds();
        self.checkpoint.save(&self.state, &[("weights", net.params.flat()), ("stats", net.stats.flat())])?;
        Ok(net)
    }

    fn finish(mut self, dir: &Path, net: &Network) -> Result<(), Error> {
        (self.hooks.progress)(&plain(Stage::Quantise, 0, 1));
        let start = Instant::now();
        let exported = finish::export(net, self.set, &self.spec.board, self.spec.seed)?;
        let quantise_seconds = start.elapsed().as_secs_f64();
        (self.hooks.progress)(&Progress {
            accuracy: Some(exported.report.accuracy_int8),
            ..plain(Stage::Check, 1, 1)
        });
        let report = JobReport {
            job: self.spec.id,
            seed: self.spec.seed,
            dataset: self.set.schema.clone(),
            search: self.state.search.take(),
            train_seconds: self.state.train_seconds,
            train_epochs: self.spec.budget.train_epochs,
            quantise_seconds,
            model: exported.report.clone(),
        };
        result::write(dir, net, &exported, &report)?;
        self.checkpoint.remove()?;
        (self.hooks.progress)(&plain(Stage::Done, 1, 1));
        Ok(())
    }
}

/// How a network of these axes is trained.
fn plan(dim: Dim, epochs: u32, retrain: bool) -> Plan {
    let rate = match dim {
        Dim::Image => 0.1,
        Dim::Series => 0.05,
    };
    let share = if retrain { RETRAIN_RATE_SHARE } else { 1.0 };
    Plan { epochs, rate: rate * share, augment: Augment::for_dim(dim) }
}

fn plain(stage: Stage, step: u64, total: u64) -> Progress {
    Progress { stage, step, total, loss: None, accuracy: None, resumed_from: None, message: None }
}

fn tensor(named: &Named, name: &str) -> Option<Tensor> {
    let (shape, values) = named.get(name)?;
    let shape: Vec<i64> = shape.iter().map(|axis| *axis as i64).collect();
    Some(Tensor::from_slice(values).reshape(shape))
}

fn read_spec(dir: &Path) -> Result<(JobSpec, Digest), Error> {
    let path = dir.join(job::SPEC_FILE);
    let input = |message: String| Error::Input(format!("{}: {message}", path.display()));
    let size = fs::metadata(&path).map_err(|error| input(format!("cannot be read: {error}")))?.len();
    if size > SPEC_BYTES_MAX {
        return Err(input(format!("{size} bytes, at most {SPEC_BYTES_MAX} are read")));
    }
    let bytes = fs::read(&path).map_err(|error| input(format!("cannot be read: {error}")))?;
    let spec: JobSpec = serde_json::from_slice(&bytes).map_err(|error| input(format!("no job: {error}")))?;
    spec.budget.validate().map_err(input)?;
    if spec.budget.nodes as usize > genotype::NODES_MAX || !(1..=THREADS_MAX).contains(&spec.threads) {
        return Err(input(format!("threads is {}, allowed are 1 to {THREADS_MAX}", spec.threads)));
    }
    Ok((spec, Digest::of(&bytes)))
}

/// Measures a stage over restarts, and says when something is due.
struct Clock {
    start: Instant,
    before: f64,
    every: Duration,
    saved: Instant,
    reported: Option<Instant>,
}

/// Time between progress reports.
const REPORT_EVERY: Duration = Duration::from_millis(250);

impl Clock {
    fn start(before: f64, every: Duration) -> Self {
        let now = Instant::now();
        Self { start: now, before, every, saved: now, reported: None }
    }

    fn seconds(&self) -> f64 {
        self.before + self.start.elapsed().as_secs_f64()
    }

    fn due_for_report(&mut self) -> bool {
        let due = self.reported.is_none_or(|last| last.elapsed() >= REPORT_EVERY);
        if due {
            self.reported = Some(Instant::now());
        }
        due
    }

    fn due_for_checkpoint(&mut self) -> bool {
        let due = self.saved.elapsed() >= self.every;
        if due {
            self.saved = Instant::now();
        }
        due
    }
}

/// Where a job keeps its result.
pub fn result_dir(dir: &Path) -> PathBuf {
    dir.join(job::RESULT_DIR)
}

#[cfg(test)]
mod tests;
