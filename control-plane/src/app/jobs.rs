//! Jobs of the forge: creating them, running them one after the other, and making versions of what comes out.

mod load;

use super::{App, Error, Page, Result, chain, changes::ChangeKind, now, versions::VersionName};
use crate::{jobs as worker, store::jobs::JobEnd};
use control_core::{
    entity::{Job, JobProgress, JobState, JobTask},
    restart::{Restarts, Verdict},
    scheduling::may_start,
};
use serde::{Deserialize, Serialize};
use shared::{
    BoardId, DatasetId, JobId, ModelName, ModelVersionId,
    board::Board,
    job::{
        Budget, Compression, DatasetRef, FrontRef, JobKind, JobSpec, Pretext, Progress, SearchMethod, Stage,
    },
    space::SearchSpace,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

const SEED_DEFAULT: u64 = 1;
const THREADS_MAX: u32 = 256;
/// The largest seed that the store keeps.
const SEED_MAX: u64 = i64::MAX as u64;
/// Progress goes into the store at most this often.
const PROGRESS_PERIOD: Duration = Duration::from_millis(200);
/// The runner looks at least this often.
const TICK: Duration = Duration::from_secs(5);

/// A search to start.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSearch {
    pub dataset: DatasetId,
    pub board: BoardId,
    pub model: ModelName,
    #[serde(default)]
    pub method: SearchMethod,
    /// What may be found; what is usual for the data where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space: Option<SearchSpace>,
    #[serde(flatten)]
    pub effort: Effort,
}

/// A training of a network that a search judged, for that search's data set and board.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTraining {
    pub point: FrontRef,
    /// The search's where not given.
    #[serde(default)]
    pub model: Option<ModelName>,
    #[serde(flatten)]
    pub effort: Effort,
}

/// A retraining to start.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRetrain {
    /// The version whose architecture and weights it starts from.
    pub version: VersionName,
    pub dataset: DatasetId,
    #[serde(flatten)]
    pub effort: Effort,
}

/// How much work a job may do; what is not given is as in the quick budget.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Effort {
    #[serde(default)]
    pub seed: Option<u64>,
    #[serde(default)]
    pub threads: Option<u32>,
    /// A whole budget in place of the quick one.
    #[serde(default)]
    pub budget: Option<Budget>,
    /// Time in place of a budget: as good as can be had in so many seconds.
    #[serde(default)]
    pub seconds: Option<u32>,
    #[serde(default)]
    pub search_steps: Option<u32>,
    #[serde(default)]
    pub epochs: Option<u32>,
    /// Teachers to train first and to learn from.
    #[serde(default)]
    pub teachers: Option<u32>,
    /// What to learn from the samples alone, first.
    #[serde(default)]
    pub pretext: Option<Pretext>,
    /// Passes over all training samples for that.
    #[serde(default)]
    pub pretext_epochs: Option<u32>,
    /// Per cent of the training samples whose labels are used.
    #[serde(default)]
    pub labelled_percent: Option<u32>,
    /// What is done to the trained network before it is exported.
    #[serde(default)]
    pub compress: Option<Compression>,
    /// See [`Budget::accuracy_loss_permille`].
    #[serde(default)]
    pub accuracy_loss_permille: Option<u32>,
}

/// What a job is to do.
enum Work {
    Search(SearchMethod, Option<SearchSpace>),
    /// Of this judged network.
    Train(FrontRef),
    /// Of this version.
    Retrain(ModelVersionId),
}

/// How the work on a job ended.
enum Worked {
    /// Its result is there.
    Finished,
    /// Nobody wants it any more.
    Cancelled,
}

impl App {
    /// Queues a search.
    pub async fn start_search(&self, new: NewSearch) -> Result<Job> {
        self.board(&new.board)?;
        let work = Work::Search(new.method, new.space);
        self.queue(work, new.model, new.dataset, new.board, new.effort).await
    }

    /// Queues a training of a network that a search judged.
    pub async fn start_training(&self, new: NewTraining) -> Result<Job> {
        let search = self.job(new.point.search).await?;
        self.judged(new.point)?;
        let model = new.model.unwrap_or(search.model);
        let effort = Effort { seed: new.effort.seed.or(Some(search.seed)), ..new.effort };
        self.queue(Work::Train(new.point), model, search.dataset, search.board, effort).await
    }

    /// The architecture of a judged network, as JSON.
    fn judged(&self, point: FrontRef) -> Result<serde_json::Value> {
        let front = worker::read_front(&self.result_folder(point.search))?.unwrap_or_default();
        let count = front.points.len();
        let found = front.points.into_iter().find(|entry| entry.point.index == point.index);
        found.map(|entry| entry.architecture).ok_or_else(|| {
            Error::NotFound(format!(
                "job {} has no judged network {}, it has {count}; a finished search has some, see `edgewright search show`",
                point.search, point.index
            ))
        })
    }

    /// Queues a retraining.
    pub async fn start_retrain(&self, new: NewRetrain) -> Result<Job> {
        let version = self.version(&new.version).await?;
        let trained = version.job.is_some_and(|job| self.result_folder(job).is_dir());
        if !trained {
            return Err(Error::Conflict(format!(
                "{} was not trained here, so its weights are not known; retrain a version that came out of a search",
                version.name
            )));
        }
        let (model, board) = (version.model, version.board);
        self.queue(Work::Retrain(version.id), model, new.dataset, board, new.effort).await
    }

    async fn queue(
        &self,
        work: Work,
        model: ModelName,
        dataset: DatasetId,
        board: BoardId,
        effort: Effort,
    ) -> Result<Job> {
        let dataset = self.dataset(&dataset).await?;
        let task_of_data = dataset.schema.task;
        let mut budget = match (effort.budget, effort.seconds) {
            (Some(_), Some(_)) => {
                return Err(Error::Invalid("budget and seconds are given; give one of them".to_owned()));
            }
            (Some(budget), None) => budget,
            (None, Some(seconds)) => Budget::within(task_of_data, seconds),
            (None, None) => Budget::quick(task_of_data),
        };
        budget.search_steps = effort.search_steps.unwrap_or(budget.search_steps);
        budget.train_epochs = effort.epochs.unwrap_or(budget.train_epochs);
        budget.teachers = effort.teachers.unwrap_or(budget.teachers);
        budget.compress = effort.compress.unwrap_or(budget.compress);
        budget.accuracy_loss_permille = effort.accuracy_loss_permille.or(budget.accuracy_loss_permille);
        budget.pretext = effort.pretext.or(budget.pretext);
        budget.pretext_epochs = effort.pretext_epochs.or(budget.pretext_epochs);
        budget.labelled_percent = effort.labelled_percent.or(budget.labelled_percent);
        let (mut method, mut space, mut point, mut parent) = (None, None, None, None);
        let task = match work {
            Work::Search(by, within) => {
                (method, space) = (Some(by), within);
                JobTask::Search
            }
            Work::Train(of) => {
                point = Some(of);
                JobTask::Train
            }
            Work::Retrain(of) => {
                parent = Some(of);
                JobTask::Retrain
            }
        };
        if let Some(space) = &space {
            space.check("space").map_err(|error| Error::Invalid(error.to_string()))?;
            space.check_samples(&dataset.schema.shape).map_err(Error::Invalid)?;
            budget = space.applied(budget);
        }
        budget.validate().map_err(Error::Invalid)?;
        budget.validate_for(task_of_data).map_err(Error::Invalid)?;
        if let Some(method) = method {
            method.validate(&budget).map_err(Error::Invalid)?;
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = effort.threads.unwrap_or_else(|| u32::try_from(cores).unwrap_or(1));
        if !(1..=THREADS_MAX).contains(&threads) {
            return Err(Error::Invalid(format!("threads is {threads}, allowed are 1 to {THREADS_MAX}")));
        }
        let seed = effort.seed.unwrap_or(SEED_DEFAULT);
        if seed > SEED_MAX {
            return Err(Error::Invalid(format!("seed is {seed}, at most {SEED_MAX}")));
        }
        let latency = self.latency_of(&board).await?;
        let job = Job {
            id: JobId(Uuid::now_v7()),
            task,
            model,
            dataset: dataset.id,
            board,
            seed,
            threads,
            budget,
            method,
            space,
            point,
            latency,
            parent,
            state: JobState::Queued,
            progress: JobProgress::default(),
            error: None,
            version: None,
            report: None,
            cell: None,
            pid: None,
            created_at: now(),
            started_at: None,
            finished_at: None,
        };
        self.store.add_job(&job).await?;
        self.tell(ChangeKind::Job, job.id, "queued");
        self.jobs_wake.notify_one();
        Ok(job)
    }

    /// One job.
    pub async fn job(&self, id: JobId) -> Result<Job> {
        let job = self.store.job(id).await?;
        job.ok_or_else(|| Error::NotFound(format!("job {id} is not known; see `edgewright search list`")))
    }

    /// A chart of a finished job, as SVG; `file` is its name in the result.
    pub async fn plot(&self, id: JobId, file: &str) -> Result<String> {
        let job = self.job(id).await?;
        let Some(plot) = worker::Plot::ALL.into_iter().find(|plot| plot.file() == file) else {
            let known = worker::Plot::ALL.map(worker::Plot::file).join(", ");
            return Err(Error::NotFound(format!("there is no plot {file:?}; there are {known}")));
        };
        worker::read_plot(&self.result_folder(id), plot)?.ok_or_else(|| {
            let state = format!("{:?}", job.state).to_lowercase();
            Error::NotFound(format!(
                "job {id} is {state} and has no {file}; a finished job has loss.svg, a finished search pareto.svg too, and \
                 alpha.svg where its method has architecture weights"
            ))
        })
    }

    /// Jobs, the newest first.
    pub async fn jobs(&self, page: &Page) -> Result<Vec<Job>> {
        Ok(self.store.jobs(page).await?)
    }

    /// Ends a job that has not ended.
    pub async fn cancel_job(&self, id: JobId) -> Result<Job> {
        let job = self.job(id).await?;
        if !self.store.cancel_job(id, now()).await? {
            return Err(Error::Conflict(format!("job {id} is {:?} already", job.state).to_lowercase()));
        }
        self.tell(ChangeKind::Job, id, "cancelled");
        if let Some(cancel) = self.running.lock().await.get(&id) {
            cancel.send_replace(true);
        }
        self.job(id).await
    }

    /// A job's folder.
    pub fn job_folder(&self, id: JobId) -> PathBuf {
        self.settings.data.join("jobs").join(id.to_string())
    }

    /// Runs jobs until the application stops. Jobs that ran when the server ended go on first, from their
    /// checkpoints.
    pub async fn run_jobs(self: Arc<Self>) {
        match self.store.jobs_in(JobState::Running).await {
            Ok(jobs) => jobs.iter().for_each(|job| worker::end_leftovers(&self.job_folder(job.id))),
            Err(error) => tracing::error!("interrupted jobs cannot be looked up: {}", chain(&error)),
        }
        let mut workers = tokio::task::JoinSet::new();
        let mut meter = load::Meter::default();
        loop {
            if let Err(error) = self.fill_workers(&mut workers, &mut meter).await {
                tracing::error!("no job can be started: {}", chain(&error));
            }
            tokio::select! {
                () = self.jobs_wake.notified() => {}
                Some(ended) = workers.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!("a job's task broke off: {error}");
                    }
                }
                () = tokio::time::sleep(TICK) => {}
                // Dropping the tasks ends the workers; their jobs stay as running and go on after the next start.
                () = self.stopped() => return,
            }
        }
    }

    async fn fill_workers(
        self: &Arc<Self>,
        workers: &mut tokio::task::JoinSet<()>,
        meter: &mut load::Meter,
    ) -> Result<()> {
        if self.store.is_shared() {
            self.end_cancelled().await?;
        }
        let mut load = meter.look();
        for state in [JobState::Running, JobState::Queued] {
            let jobs = self.store.jobs_in(state).await?;
            for (index, job) in jobs.iter().enumerate() {
                let mut running = self.running.lock().await;
                if running.contains_key(&job.id) {
                    continue;
                }
                let waiting = jobs.len() - index;
                if let Err(wait) = may_start(workers.len(), waiting, self.settings.jobs, load) {
                    tracing::debug!("job {} waits: {wait}", job.id);
                    return Ok(());
                }
                // What it takes shows in the next measurement.
                load = None;
                meter.restart();
                let job = job.clone();
                let (cancel, cancelled) = watch::channel(false);
                running.insert(job.id, cancel);
                drop(running);
                let app = Arc::clone(self);
                workers.spawn(async move {
                    let id = job.id;
                    app.run_job(job, cancelled).await;
                    app.running.lock().await.remove(&id);
                });
            }
        }
        Ok(())
    }

    /// Ends the workers of jobs that a person has ended at another server.
    async fn end_cancelled(&self) -> Result<()> {
        let running: Vec<JobId> = self.running.lock().await.keys().copied().collect();
        for id in running {
            if self.store.job(id).await?.is_none_or(|job| job.state.is_final())
                && let Some(cancel) = self.running.lock().await.get(&id)
            {
                cancel.send_replace(true);
            }
        }
        Ok(())
    }

    async fn run_job(&self, job: Job, cancelled: watch::Receiver<bool>) {
        let id = job.id;
        let end = match self.try_job(job, cancelled).await {
            Ok(end) => end,
            Err(Error::Unavailable(reason)) => {
                // It goes on from where it is at the next look.
                tracing::warn!("job {id} waits: {reason}");
                return;
            }
            Err(error) => JobEnd::Failed { error: error.to_string() },
        };
        match &end {
            JobEnd::Done { version, .. } => tracing::info!("job {id} gave {version}"),
            JobEnd::Failed { error } => tracing::warn!("job {id} failed: {error}"),
            JobEnd::Cancelled => tracing::info!("job {id} was cancelled"),
        }
        worker::remove_samples(&self.job_folder(id));
        if let Err(error) = self.store.end_job(id, &end, now()).await {
            tracing::error!("the end of job {id} is not on record: {}", chain(&error));
        }
        let change = match &end {
            JobEnd::Done { .. } => "done",
            JobEnd::Failed { .. } => "failed",
            JobEnd::Cancelled => "cancelled",
        };
        self.tell(ChangeKind::Job, id, change);
    }

    async fn try_job(&self, job: Job, cancelled: watch::Receiver<bool>) -> Result<JobEnd> {
        // It may have ended since it was looked up.
        if !self.store.set_job_running(job.id, None, now()).await? {
            return Ok(JobEnd::Cancelled);
        }
        let dataset = self.dataset(&job.dataset).await?;
        if !self.result_folder(job.id).is_dir() {
            let spec = self.spec(&job, &dataset).await?;
            worker::write_spec(&self.job_folder(job.id), &spec)?;
            match self.work(job.id, cancelled).await? {
                Worked::Finished => {}
                Worked::Cancelled => return Ok(JobEnd::Cancelled),
            }
        }
        let result = self.result_folder(job.id);
        let report = worker::read_report(&result)?
            .ok_or_else(|| Error::Forge("edgewright-forge ended without a report".to_owned()))?;
        let cell = worker::read_cell(&result)?;
        // A job that was cancelled while its worker ended gives no version.
        if self.job(job.id).await?.state.is_final() {
            return Ok(JobEnd::Cancelled);
        }
        let version = self.version_of(&job, &dataset, report.clone()).await?;
        Ok(JobEnd::Done { version: version.name, report: Box::new(report), cell })
    }

    async fn spec(&self, job: &Job, dataset: &control_core::entity::Dataset) -> Result<JobSpec> {
        let kind = match (job.task, job.parent) {
            (JobTask::Search, _) => JobKind::Search { method: job.method.unwrap_or_default() },
            (JobTask::Retrain, Some(parent)) => {
                let version = self.version(&VersionName::Id(parent)).await?;
                let from = version.job.map(|job| self.result_folder(job));
                let from = from.ok_or_else(|| Error::Conflict(format!("{} has no weights", version.name)))?;
                JobKind::Retrain { from, parent }
            }
            (JobTask::Train, _) => {
                let nothing = || Error::Internal("a training of nothing".to_owned());
                let architecture = self.judged(job.point.ok_or_else(nothing)?)?;
                let architecture = worker::write_architecture(&self.job_folder(job.id), &architecture)?;
                JobKind::Train { architecture, weights: None }
            }
            (JobTask::Retrain, None) => {
                return Err(Error::Internal("a retraining without a parent".to_owned()));
            }
        };
        Ok(JobSpec {
            id: job.id,
            seed: job.seed,
            threads: job.threads,
            dataset: DatasetRef {
                path: dataset.path.clone(),
                format: dataset.schema.format,
                digest: Some(dataset.schema.digest),
                reading: dataset.schema.reading.clone(),
            },
            board: Board { latency: job.latency.clone(), ..self.board(&job.board)?.clone() },
            kind,
            budget: job.budget,
            space: job.space.clone(),
        })
    }

    /// Has a worker run the job to its result. One that is killed is started again, and goes on from its checkpoint.
    async fn work(&self, job: JobId, mut cancelled: watch::Receiver<bool>) -> Result<Worked> {
        let folder = self.job_folder(job);
        let mut restarts = Restarts::default();
        loop {
            let (result, reached) = self.attempt(job, &folder, cancelled.clone()).await;
            let killed = match result {
                Ok(()) => return Ok(Worked::Finished),
                Err(worker::Error::Cancelled) => return Ok(Worked::Cancelled),
                Err(killed @ worker::Error::Killed { .. }) => killed,
                Err(error) => return Err(error.into()),
            };
            match restarts.killed(reached) {
                Verdict::GiveUp { kills } => {
                    let text = format!("{killed} It was started {kills} times and got no further");
                    return Err(Error::Forge(text));
                }
                Verdict::Again { after_ms } => {
                    tracing::warn!("the worker of job {job} starts again in {after_ms} ms: {killed}");
                    tokio::select! {
                        () = tokio::time::sleep(Duration::from_millis(after_ms)) => {}
                        Ok(_) = cancelled.wait_for(|&cancelled| cancelled) => return Ok(Worked::Cancelled),
                    }
                    if !self.store.set_job_running(job, None, now()).await? {
                        return Ok(Worked::Cancelled);
                    }
                }
            }
        }
    }

    /// Runs one worker; how it ended, and how far it had come.
    async fn attempt(
        &self,
        job: JobId,
        folder: &Path,
        cancelled: watch::Receiver<bool>,
    ) -> (std::result::Result<(), worker::Error>, Option<(Stage, u64)>) {
        let (started, mut pids) = mpsc::channel(1);
        let (said, mut progress) = watch::channel(None::<Progress>);
        let newest = progress.clone();
        let run = self.forge.run(folder, started, said, cancelled);
        let record = async {
            if let Some(pid) = pids.recv().await
                && let Err(error) = self.store.set_job_running(job, Some(pid), now()).await
            {
                tracing::warn!("the worker of job {job} is not on record: {}", chain(&error));
            }
            self.tell(ChangeKind::Job, job, "running");
            while progress.changed().await.is_ok() {
                let Some(newest) = progress.borrow_and_update().clone() else { continue };
                if let Err(error) = self.store.set_job_progress(job, &progress_of(newest)).await {
                    tracing::warn!("the progress of job {job} is not on record: {}", chain(&error));
                }
                self.tell(ChangeKind::Job, job, "progress");
                tokio::time::sleep(PROGRESS_PERIOD).await;
            }
        };
        let (result, ()) = tokio::join!(run, record);
        let reached = newest.borrow().as_ref().map(|said| (said.stage, said.step));
        (result, reached)
    }
}

fn progress_of(said: Progress) -> JobProgress {
    JobProgress {
        stage: Some(said.stage),
        step: said.step,
        total: said.total,
        loss: said.loss,
        accuracy: said.accuracy,
        resumed_from: said.resumed_from,
        message: said.message.as_deref().map(shared::wire::cut),
    }
}

#[cfg(test)]
mod tests;
