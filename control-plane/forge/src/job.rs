//! The job driver: takes a folder with `job.json` through loading, search, training, quantising and checking to a
//! `result/` that appears whole or not at all. A killed job goes on from its checkpoint and ends the same.

mod clock;
mod compressing;
mod detecting;
mod gain;
mod labels;
mod lock;
mod pace;
mod pretext;
mod result;
mod spec;
mod training;

use crate::{
    answer::Answer,
    batch::Samples,
    checkpoint::{self, Checkpoint, Named},
    compress,
    data::{self, Dataset, Room, Split},
    device,
    finish::{self, Compressed, Terms},
    genotype::Architecture,
    history::{History, Shares},
    memory,
    network::{FitError, Network, broken_limit, latency},
    precision::Precision,
    search::{self, Point, SearchState, Setting},
    seeds::{self, Purpose},
    supernet,
    train::TrainState,
};
use clock::Clock;
use compressing::CompressState;
use detecting::Detecting;
use pace::Paced;
use pretext::PretextState;
use runtime::Ort;
use serde::{Deserialize, Serialize};
use shared::{
    Digest,
    job::{
        self, JobKind, JobReport, JobSpec, PretextReport, Progress, SearchMethod, SearchReport, Stage,
        TeachersReport,
    },
};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tch::Tensor;
use training::TeachState;

/// How long a worker waits for another one on its folder to end.
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// Steps of the search between two looks at its accuracy.
const ACCURACY_EVERY: u64 = 20;
/// What is said of a search that was set back.
const REPAIRED: &str = "skip connections had taken over the cell and begin anew";
/// What is said of a space that loses operations.
const SPACE_CUT: &str =
    "se is left out of the space: in a network that writes nothing may see what comes later";

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
    /// A step of the compression failed.
    #[error(transparent)]
    Compress(#[from] compress::Error),
    /// Training gave values that are not finite.
    #[error("{stage} diverged at step {step}: a loss is not a number; look for wild values in the data set")]
    Diverged {
        /// `search`, `training` or `compression`.
        stage: &'static str,
        /// The step.
        step: u64,
    },
    /// Another worker is at it.
    #[error("{}: another worker is at this job; wait for it, or end it", dir.display())]
    Busy {
        /// The job's folder.
        dir: PathBuf,
    },
    /// The caller asked to stop; the checkpoint is there.
    #[error("stopped; run it again to go on")]
    Stopped,
}

impl Error {
    /// Whether a person has to change the input; exit code 2.
    pub fn is_input(&self) -> bool {
        use finish::Error::{Blind, Inaccurate, TooLarge, TooSlow};
        matches!(
            self,
            Self::Input(_)
                | Self::Data(_)
                | Self::Fit(_)
                | Self::Finish(Inaccurate { .. } | Blind { .. } | TooLarge { .. } | TooSlow { .. })
        )
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
    /// Most bytes of memory for the samples of the data set, which lie in a file of the job's folder where they take more; a
    /// share of what is to be had where not given.
    pub data_bytes: Option<u64>,
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
    #[serde(default)]
    teach_seconds: f64,
    train_seconds: f64,
    #[serde(default)]
    compress_seconds: f64,
    architecture: Option<Architecture>,
    search: Option<SearchReport>,
    #[serde(default)]
    teachers: Option<TeachersReport>,
    #[serde(default)]
    pretext_seconds: f64,
    #[serde(default)]
    pretext: Option<PretextReport>,
    #[serde(default)]
    paced: Paced,
    #[serde(default)]
    history: History,
    /// What it was computed on; its tensors are the same on any.
    #[serde(default)]
    device: Option<String>,
    /// What the search judged, once it is over.
    #[serde(default)]
    front: Vec<Point>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    Search(SearchState),
    Teach(TeachState),
    Pretext(PretextState),
    Train(TrainState),
    Trained,
    Compress(CompressState),
}

impl State {
    /// Notes what computes from here on, and says so where something else did before.
    fn computed_on(&mut self, device: String) {
        if let Some(before) = self.device.replace(device.clone())
            && before != device
        {
            self.paced.remarks.push(format!("computed on {before} until it was ended, then on {device}"));
        }
    }
}

/// Runs the job in `dir` to its result. A job whose result is there is done. No other worker runs it meanwhile.
///
/// # Errors
/// [`Error`]; `result/` is then not there.
pub fn run(dir: &Path, hooks: Hooks<'_>) -> Result<(), Error> {
    let _alone = lock::take(dir, LOCK_WAIT)?;
    let room = Room {
        file: dir.join(job::DATA_FILE),
        memory_bytes: hooks.data_bytes.unwrap_or_else(memory::for_data),
    };
    if dir.join(job::RESULT_DIR).join(job::REPORT_FILE).is_file() {
        // A worker that was ended after its result was in place has left these.
        Checkpoint::at(&dir.join(job::CHECKPOINT_DIR)).remove()?;
        forget(&room);
        let message = Some("the result is there already".to_owned());
        let done = Progress { message, ..plain(Stage::Done, 1, 1) };
        (hooks.progress)(&done);
        return Ok(());
    }
    let (spec, digest) = spec::read(dir)?;
    let chosen = device::chosen();
    let message = chosen.map(|it| format!("computes in {} on {it}", Precision::of(it.device).name()));
    (hooks.progress)(&Progress { message, ..plain(Stage::Load, 0, 1) });
    let mut set = data::open_ref(&spec.dataset, &room)?;
    if set.train.stored.is_some() {
        let message = Some(format!(
            "memory has room for {} MiB of samples: they are read from {} as they are needed",
            room.memory_bytes >> 20,
            job::DATA_FILE
        ));
        (hooks.progress)(&Progress { message, ..plain(Stage::Load, 0, 1) });
    }
    // Needed at the end: better to know at the beginning.
    let ort = Ort::open(None).map_err(|error| Error::Input(error.to_string()))?;
    spec.budget.validate_for(set.schema.task).map_err(Error::Input)?;
    let all = spec.budget.pretext.is_some().then(|| Samples::of(&set.train, &set.schema));
    if let Some(percent) = spec.budget.labelled_percent {
        set.train = labels::part(&set.train, percent, spec.seed);
    }
    let detecting = detecting::prepare(&mut set, &spec)?;
    let samples = Samples::of(&set.train, &set.schema);
    let samples = match &detecting {
        Some(detecting) => detecting.samples(samples, &set),
        None => samples,
    };
    let checkpoint = Checkpoint::open(&dir.join(job::CHECKPOINT_DIR))?;
    let mut found = checkpoint.load::<State>()?;
    let mut message = None;
    if found.as_ref().is_some_and(|(state, _)| state.spec != digest) {
        message = Some(format!("{} changed since the checkpoint: the job starts afresh", job::SPEC_FILE));
        found = None;
    }
    (hooks.progress)(&Progress { message, ..plain(Stage::Load, 1, 1) });
    let fresh = State {
        spec: digest,
        phase: Phase::Search(SearchState::default()),
        search_seconds: 0.0,
        teach_seconds: 0.0,
        train_seconds: 0.0,
        compress_seconds: 0.0,
        architecture: None,
        search: None,
        teachers: None,
        pretext_seconds: 0.0,
        pretext: None,
        paced: Paced::default(),
        history: History::default(),
        device: None,
        front: Vec::new(),
    };
    let (mut state, saved) = found.map_or((fresh, None), |(state, named)| (state, Some(named)));
    state.computed_on(device::name(device::get()));
    let (set, samples, all) = (&set, &samples, all.as_ref());
    let mut driver = Driver { spec, set, samples, all, detecting, checkpoint, hooks, state, saved };
    // What is exported is compared with the network bit by bit, or nearly so: both are the processor's.
    let net = driver.network()?.on_cpu();
    let compressed = driver.compress(&net, &ort)?;
    driver.finish(dir, &net, compressed, &ort)?;
    forget(&room);
    Ok(())
}

/// Removes the samples of a job that is done, and what a killed worker left of them. Where that fails they only take room.
fn forget(room: &Room) {
    for file in [&room.file, &room.file.with_extension("tmp")] {
        let _ = std::fs::remove_file(file);
    }
}

/// A job under way.
struct Driver<'a, 'h> {
    spec: JobSpec,
    set: &'a Dataset,
    /// Those with labels.
    samples: &'a Samples,
    /// All, where their labels are not needed.
    all: Option<&'a Samples>,
    /// Where anomalies are to be found.
    detecting: Option<Detecting>,
    checkpoint: Checkpoint,
    hooks: Hooks<'h>,
    state: State,
    /// Tensors of the checkpoint, until they are used.
    saved: Option<Named>,
}

impl Driver<'_, '_> {
    /// Search, the given architecture, or the parent's; then training.
    fn network(&mut self) -> Result<Network, Error> {
        let (method, parent) = match self.spec.kind.clone() {
            JobKind::Search { method } => (method, None),
            JobKind::Train { architecture, weights } => {
                self.state.architecture = Some(self.given(&architecture, weights)?);
                (SearchMethod::default(), None)
            }
            JobKind::Retrain { from, .. } => (SearchMethod::default(), Some(from)),
        };
        let weights = match &parent {
            None => {
                if self.state.architecture.is_none() {
                    self.search(method)?;
                }
                None
            }
            Some(from) => {
                let (architecture, weights) = result::read_parent(from)?;
                self.check_fits_data(from, &architecture)?;
                let parent = result::read_report(from)?.dataset.labels;
                result::check_labels(from, &parent, &self.set.schema.labels)?;
                self.state.architecture = Some(architecture);
                Some(weights)
            }
        };
        let Some(architecture) = self.state.architecture.clone() else {
            return Err(Error::Input(
                "the checkpoint lacks its architecture: delete the checkpoint folder".into(),
            ));
        };
        self.make_room("training", &architecture)?;
        let mut rng = seeds::stream(self.spec.seed, Purpose::NetworkWeights, 0);
        let mut net = Network::new(architecture, &mut rng).map_err(Error::Input)?;
        if let (Some(from), Some(weights)) = (&parent, weights) {
            let path = from.join(job::WEIGHTS_FILE);
            net.load(|name| weights.get(name).cloned())
                .map_err(|error| Error::Input(format!("{}: {error}", path.display())))?;
            if let Some((limit, allowed, needed)) =
                broken_limit(&net.to_graph().map_err(finish::Error::from)?, &self.spec.board)
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

    /// Replaces the checkpoint, unless what would go into it was learned from samples that could not be read.
    fn save(&self, tensors: &[(&str, Tensor)]) -> Result<(), Error> {
        self.check_data()?;
        Ok(self.checkpoint.save(&self.state, tensors)?)
    }

    fn check_data(&self) -> Result<(), Error> {
        let failed = [&self.set.train, &self.set.test].into_iter().find_map(Split::failure);
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// The architecture of a file, as wide as is asked for and as the board allows.
    fn given(&self, path: &Path, weights: Option<u64>) -> Result<Architecture, Error> {
        let found = result::read_architecture(path, "`architecture` must name a file like arch.json")?;
        self.check_fits_data(path, &found)?;
        let found = weights.map_or_else(|| found.clone(), |weights| found.with_weights(weights));
        Ok(found.fit(&self.spec.board)?)
    }

    fn check_fits_data(&self, path: &Path, found: &Architecture) -> Result<(), Error> {
        let schema = &self.set.schema;
        let answer = Answer::of(schema);
        if found.answer != answer {
            return Err(Error::Input(format!(
                "{}: the model answers {:?}, the data set asks for {answer:?}",
                path.display(),
                found.answer
            )));
        }
        if found.input != schema.shape || found.classes != schema.labels.len() {
            return Err(Error::Input(format!(
                "{}: the model takes {:?} and knows {} classes, the data set has {:?} and {}",
                path.display(),
                found.input,
                found.classes,
                schema.shape,
                schema.labels.len()
            )));
        }
        Ok(())
    }

    fn search(&mut self, method: SearchMethod) -> Result<(), Error> {
        let spec = &self.spec;
        let choices = search::choices(spec.space.as_ref(), self.samples.answer(), &self.set.schema.shape)
            .map_err(Error::Input)?;
        if spec.space.as_ref().is_some_and(|asked| asked.operations.len() > choices.operations.len()) {
            let message = Some(SPACE_CUT.to_owned());
            (self.hooks.progress)(&Progress { message, ..plain(Stage::Search, 0, 1) });
        }
        let setting = |budget| Setting {
            samples: self.samples,
            input: &self.set.schema.shape,
            classes: self.set.schema.labels.len(),
            budget,
            board: &spec.board,
            choices: &choices,
            seed: spec.seed,
        };
        let whole = setting(&spec.budget);
        let batch = whole.batch() as u64;
        spec::set_threads(spec.threads, batch * supernet::largest_state(&whole.skeleton()));
        spec::check_memory("search", search::bytes(method, &whole))?;
        let mut budget = spec.budget;
        if let Some(limit_s) = budget.seconds {
            let most = budget.search_steps;
            if self.state.paced.search_steps.is_none() {
                let mut trial = search::begin(method, whole).map_err(Error::Input)?;
                let step_s = pace::seconds_a_step(|| {
                    trial.step();
                });
                self.state.paced.search_steps = Some(pace::search_steps(limit_s, step_s, most));
            }
            budget.search_steps = self.state.paced.search_steps.unwrap_or(most);
        }
        let mut search = search::begin(method, setting(&budget)).map_err(Error::Input)?;
        let mut resumed_from = None;
        if let (Phase::Search(state), Some(saved)) = (&self.state.phase, self.saved.take()) {
            search.restore(state, &mut |name| tensor(&saved, name)).map_err(Error::Input)?;
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
            if !outcome.finite {
                return Err(Error::Diverged { stage: "search", step });
            }
            let look = step == total || step % ACCURACY_EVERY == 0;
            let accuracy = if look { search.accuracy() } else { None };
            let message = outcome.repaired.then(|| REPAIRED.to_owned());
            self.state.history.search.push(step, outcome.loss, accuracy);
            watch(&mut self.state.history.alpha, step, search.as_ref(), &whole);
            if clock.due_for_report() || look || message.is_some() {
                let progress = Progress {
                    loss: Some(outcome.loss),
                    accuracy,
                    resumed_from: resumed_from.take(),
                    message,
                    ..plain(Stage::Search, step, total)
                };
                (self.hooks.progress)(&progress);
            }
            if clock.due_for_checkpoint() {
                let (state, tensors) = search.save();
                self.state.phase = Phase::Search(state);
                self.state.search_seconds = clock.seconds();
                self.save(&tensors)?;
            }
            if (self.hooks.stop)() {
                return Err(Error::Stopped);
            }
            if look && gain::is_over(&self.state.history.search.accuracy, step, total) {
                let said = format!("the search ended at step {step} of {total}: nothing more to gain");
                (self.hooks.progress)(&Progress {
                    message: Some(said.clone()),
                    ..plain(Stage::Search, step, total)
                });
                self.state.paced.remarks.push(said);
                break;
            }
        }
        let found = search.derive().fit(&self.spec.board)?;
        self.state.front = search::front(search.as_ref(), &setting(&budget));
        self.state.search_seconds = clock.seconds();
        let (end, _) = search.save();
        self.state.search = Some(SearchReport {
            method,
            seconds: clock.seconds(),
            arch_steps: end.arch_steps,
            cells_judged: end.judged.len() as u64,
            repairs: end.repairs.len() as u64,
            skip_share: found.genotype.skip_share(),
            cell: found.genotype.line(found.dim),
            space: Some(choices.name.clone()),
            front: result::shown(search::points(&self.state.front, &found)),
        });
        let (step, total) = search.progress();
        let message = format!("found {}", found.genotype.line(found.dim));
        self.state.architecture = Some(found);
        self.state.phase = self.after_search();
        self.save(&[])?;
        (self.hooks.progress)(&Progress { message: Some(message), ..plain(Stage::Search, step, total) });
        Ok(())
    }

    fn finish(
        mut self,
        dir: &Path,
        net: &Network,
        compressed: Option<Compressed>,
        ort: &Ort,
    ) -> Result<(), Error> {
        (self.hooks.progress)(&plain(Stage::Quantise, 0, 1));
        let start = Instant::now();
        let cut_short = self.state.paced.cut_short;
        let terms = Terms { board: &self.spec.board, seed: self.spec.seed, cut_short };
        let held = self.detecting.as_ref().map(|detecting| &detecting.held);
        let mut exported = finish::export(net, compressed, self.set, terms, ort, held)?;
        self.check_data()?;
        exported.report.remarks.extend(self.detecting.as_ref().and_then(Detecting::remark));
        let quantise_seconds = start.elapsed().as_secs_f64();
        let held = self.held().map(|held| held.told(Some(self.spent_s() + quantise_seconds)));
        exported.report.remarks.extend(held.clone());
        exported.report.remarks.append(&mut self.state.paced.remarks);
        (self.hooks.progress)(&Progress {
            accuracy: exported.report.accuracy_int8,
            ..plain(Stage::Check, 1, 1)
        });
        let graph = net.to_graph().map_err(finish::Error::from)?;
        let estimate = latency::estimate(&graph, &self.spec.board);
        let estimate = latency::beside(estimate, &exported.report.us_per_inference, &self.spec.board);
        let report = JobReport {
            job: Some(self.spec.id),
            seed: self.spec.seed,
            dataset: self.set.schema.clone(),
            search: self.state.search.take(),
            teachers: self.state.teachers.take(),
            pretext: self.state.pretext.take(),
            labelled: self.labelled(),
            device: Some(device::name(device::get())),
            precision: Some(Precision::of(device::get()).name().to_owned()),
            alarm: exported.alarm,
            train_seconds: self.state.train_seconds,
            train_epochs: self.spec.budget.train_epochs,
            quantise_seconds,
            compression: Some(exported.compression.clone()),
            model: exported.report.clone(),
            estimate: Some(estimate),
            import: None,
        };
        result::write(dir, net, &exported, &report, &self.state.history, &self.state.front)?;
        self.checkpoint.remove()?;
        (self.hooks.progress)(&Progress { message: held, ..plain(Stage::Done, 1, 1) });
        Ok(())
    }
}

impl Driver<'_, '_> {
    /// Training samples whose labels were used, where that is not all.
    fn labelled(&self) -> Option<u64> {
        let known = self.detecting.as_ref().map_or(self.samples.len(), |detecting| detecting.normal);
        self.spec.budget.labelled_percent.map(|_| known as u64)
    }
}

/// Notes how the architecture weights stand, where there are some.
fn watch(alpha: &mut Option<Shares>, step: u64, search: &dyn search::Search, setting: &Setting<'_>) {
    if alpha.as_ref().is_some_and(|shares| !shares.is_due(step)) {
        return;
    }
    let Some(values) = search.shares() else { return };
    let known = || {
        let space = setting.space();
        let operations = space.operations().iter().map(ToString::to_string).collect();
        Shares::new(space.edges().to_vec(), operations)
    };
    alpha.get_or_insert_with(known).push(step, values);
}

fn plain(stage: Stage, step: u64, total: u64) -> Progress {
    Progress { stage, step, total, loss: None, accuracy: None, resumed_from: None, message: None }
}

fn tensor(named: &Named, name: &str) -> Option<Tensor> {
    let (shape, values) = named.get(name)?;
    let shape: Vec<i64> = shape.iter().map(|axis| *axis as i64).collect();
    Some(Tensor::from_slice(values).reshape(shape))
}

#[cfg(test)]
mod tests;
