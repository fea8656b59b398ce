//! `edgewright-agent run`: puts the parts together and takes them apart again.

use crate::{
    api::{self, Api, Limits},
    blobs::Blobs,
    config::{self, Config},
    data::{self, DataDir},
    engine::{self, Engine},
    identity::{self, Identity},
    installer::{Done, Installer, JOBS_MAX},
    link::mqtt::{Mqtt, Settings},
    models::Models,
    profiler::Profiler,
    renewal::{self, Renewer},
    store::{self, Store},
    trust::{self, Trust},
    updater::{self, Inputs, Parts, Updater},
};
use agent_core::update::SlotInput;
use arc_swap::ArcSwap;
use runtime::LoadOptions;
use std::{
    future::Future,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
    sync::{Notify, mpsc},
    task::JoinHandle,
};

/// Events of the link that may wait for the updater.
const LINK_EVENTS_MAX: usize = 256;
/// Longest wait for requests and the updater to finish.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the agent does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    Data(#[from] data::Error),
    #[error(transparent)]
    Identity(#[from] identity::Error),
    #[error(transparent)]
    Trust(#[from] trust::Error),
    #[error(transparent)]
    Renewal(#[from] renewal::StartError),
    #[error(transparent)]
    Api(#[from] api::Error),
    #[error(transparent)]
    Engine(#[from] engine::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("the system refused what the agent needs")]
    System(#[from] std::io::Error),
    /// A part that works as long as the agent does has stopped. Whoever started the agent starts it again.
    #[error("{part} ended by itself: {reason}")]
    Ended { part: &'static str, reason: String },
}

impl Error {
    /// 2 for what the person who started it can put right, 1 for the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_)
            | Self::Data(_)
            | Self::Identity(_)
            | Self::Trust(_)
            | Self::Api(_)
            | Self::Engine(_) => 2,
            Self::Renewal(_) | Self::Store(_) | Self::System(_) | Self::Ended { .. } => 1,
        }
    }
}

/// Runs until SIGTERM or SIGINT. `started` is the start of the process.
///
/// # Errors
/// It cannot start, or a part of it ended while it should work: the process is to be started again.
pub fn run(data: &Path, enrolment: Option<PathBuf>, config: &Config, started: Instant) -> Result<(), Error> {
    let data = Arc::new(DataDir::open(data)?);
    let options =
        LoadOptions { threads: config.inference_threads, sessions: config.threads, ..LoadOptions::default() };
    let engine = Arc::new(Engine::open(&config.runtimes, config.ort.as_deref())?.with(options));
    let identity = Identity::load_or_enrol(&data, enrolment.as_deref(), &config.board)?;
    let tls = Arc::new(ArcSwap::from_pointee(identity.tls(&data)?));
    let trust = Arc::new(Trust::open(data.trust(), identity.root.get().as_bytes())?);
    let serving = runtime("api", config.threads)?;
    let bound = serving.block_on(api::bind(&config.api))?;
    let address = bound.address();

    let store = Arc::new(Store::open(&data.store(), config.outbox_records_max)?);
    let blobs = Arc::new(Blobs::new(data.blobs(), store.clone()));
    let models = Arc::new(Models::default());
    let shared = Arc::new(updater::Shared::default());
    let seed = seed(&identity);
    let activated = Arc::new(Notify::new());

    // Two threads: one may wait for the disk while the other keeps the connection.
    let control = runtime("control", 2)?;
    let (done_sender, done) = mpsc::channel(JOBS_MAX);
    let installer = Installer {
        blobs: blobs.clone(),
        models: models.clone(),
        engine: engine.clone(),
        trust: trust.clone(),
        disk_reserve_bytes: config.disk_reserve_bytes,
    }
    .start(tell(done_sender, activated.clone()))?;
    let (profiler, measured) = Profiler { engine: engine.clone() }.start()?;
    let (link_sender, link_events) = mpsc::channel(LINK_EVENTS_MAX);
    let settings =
        Settings { identity: identity.clone(), tls: tls.clone(), keep_alive_ms: config.keep_alive_ms, seed };
    let (link, connecting) = {
        let _entered = control.enter();
        Mqtt::start(settings, link_sender)
    };
    let renewer = Renewer {
        identity: identity.clone(),
        data: data.clone(),
        tls,
        link: link.clone(),
        store: store.clone(),
        shared: shared.clone(),
        seed,
    };
    let renewing = {
        let _entered = control.enter();
        control.spawn(renewer.start()?)
    };
    let updater = Updater::start(Parts {
        device: identity.device.clone(),
        board: config.board.clone(),
        trust: trust.clone(),
        api: address.clone(),
        telemetry_ms: config.telemetry_ms,
        budget: config.budget,
        seed,
        store: store.clone(),
        blobs,
        models: models.clone(),
        shared: shared.clone(),
        link: Arc::new(link),
        installer,
        profiler,
        profile_file: data.profile(),
    })?;
    let limits = Limits {
        threads: config.threads,
        queue_max: config.queue_max,
        body_bytes_max: config.body_bytes_max,
        bodies_bytes_max: config.bodies_bytes_max,
    };
    let api = Arc::new(Api::new(models, store.clone(), shared, limits, engine.names(), started));
    tracing::info!(device = %identity.device, api = address, runtimes = ?engine.names(), "running");

    let (stop_updater, stop_api) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let stopped = stop_api.clone();
    let tasks = Tasks {
        updating: control
            .spawn(updater.run(Inputs { link: link_events, done, measured }, stop_updater.clone())),
        answering: serving
            .spawn(bound.serve(api::router(api.clone()), async move { stopped.notified().await })),
        connecting,
        renewing,
    };
    let noticed = control.spawn(note_when_ready(api, activated));
    let ended = control.block_on(tasks.work(stop_signal(), || {
        tracing::info!("stopping");
        noticed.abort();
        stop_api.notify_one();
        stop_updater.notify_one();
    }));
    serving.shutdown_background();
    control.shutdown_background();
    if let Err(error) = store.flush() {
        tracing::warn!(error = crate::chain(&error), "the last records may be lost");
    }
    ended
}

/// Takes in the trust metadata in `folder`; gives the roles that are newer now.
///
/// # Errors
/// The agent runs, was never enrolled, or the folder brings nothing.
pub fn import_trust(data: &Path, folder: &Path) -> Result<String, Error> {
    let data = DataDir::open(data)?;
    let identity = Identity::load(&data)?
        .ok_or_else(|| identity::Error::NotEnrolled { data: data.root().to_owned() })?;
    let trust = Trust::open(data.trust(), identity.root.get().as_bytes())?;
    Ok(trust.import(folder)?)
}

/// What works as long as the agent does.
struct Tasks {
    updating: JoinHandle<()>,
    answering: JoinHandle<std::io::Result<()>>,
    connecting: JoinHandle<()>,
    renewing: JoinHandle<()>,
}

impl Tasks {
    /// Waits for `signal`, or for a task that ends without it; then calls `stop` and gives those that are left a
    /// moment to finish.
    async fn work(
        mut self,
        signal: impl Future<Output = std::io::Result<()>>,
        stop: impl FnOnce(),
    ) -> Result<(), Error> {
        let ended = |part, joined: Result<(), tokio::task::JoinError>| {
            let reason =
                joined.map_or_else(|error| error.to_string(), |()| "it had nothing left to do".to_owned());
            Err(Error::Ended { part, reason })
        };
        let ended = tokio::select! {
            signal = signal => signal.map_err(Error::from),
            joined = &mut self.updating => ended("the updater", joined),
            joined = &mut self.answering => match joined {
                Ok(Err(error)) => Err(Error::Ended { part: "the local API", reason: error.to_string() }),
                joined => ended("the local API", joined.map(|_| ())),
            },
            joined = &mut self.connecting => ended("the link to the broker", joined),
            joined = &mut self.renewing => ended("the renewal of the certificate", joined),
        };
        stop();
        self.renewing.abort();
        let left = async {
            // The updater closes the link when it has said goodbye.
            for task in [&mut self.updating, &mut self.connecting] {
                if !task.is_finished() {
                    let _ = task.await;
                }
            }
            if !self.answering.is_finished() {
                let _ = (&mut self.answering).await;
            }
        };
        if tokio::time::timeout(STOP_TIMEOUT, left).await.is_err() {
            tracing::warn!("some requests did not finish in time");
        }
        ended
    }
}

/// Hands the installer's outcomes to the updater, and tells when a version began to answer.
fn tell(done: mpsc::Sender<Done>, activated: Arc<Notify>) -> impl Fn(Done) + Send + 'static {
    move |outcome| {
        if matches!(outcome.input, Some(SlotInput::Activated { .. })) {
            activated.notify_one();
        }
        // The updater is gone only when the process ends.
        let _ = done.blocking_send(outcome);
    }
}

async fn note_when_ready(api: Arc<Api>, activated: Arc<Notify>) {
    while !api.models.all().iter().any(|serving| serving.current().is_some()) {
        activated.notified().await;
    }
    let ready_ms = u64::try_from(api.started.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
    api.start_to_ready_ms.store(ready_ms, Ordering::Relaxed);
    tracing::info!(ready_ms, "a model answers");
}

async fn stop_signal() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

fn runtime(name: &'static str, threads: usize) -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(threads).thread_name(name).enable_all().build()
}

/// Differs between devices and between starts.
fn seed(identity: &Identity) -> u64 {
    let device =
        identity.device.as_str().bytes().fold(0u64, |seed, byte| seed.rotate_left(7) ^ u64::from(byte));
    let random = uuid::Uuid::new_v4().as_u64_pair();
    device ^ random.0 ^ random.1
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    fn idle<T: Send + 'static>() -> JoinHandle<T> {
        tokio::spawn(std::future::pending())
    }

    #[tokio::test]
    async fn a_part_that_ends_by_itself_stops_the_agent_with_an_error_that_names_it() {
        type Spoil = fn(&mut Tasks);
        let cases: [(&str, Spoil); 5] = [
            ("the renewal", |tasks| tasks.renewing = tokio::spawn(async { panic!("as asked") })),
            ("the updater", |tasks| tasks.updating = tokio::spawn(async { panic!("as asked") })),
            ("the link", |tasks| tasks.connecting = tokio::spawn(async {})),
            ("the local API", |tasks| tasks.answering = tokio::spawn(async { Ok(()) })),
            ("the local API", |tasks| {
                tasks.answering = tokio::spawn(async { Err(std::io::Error::other("no more files")) });
            }),
        ];
        for (part, spoil) in cases {
            let mut tasks =
                Tasks { updating: idle(), answering: idle(), connecting: idle(), renewing: idle() };
            spoil(&mut tasks);
            let left = [tasks.updating.abort_handle(), tasks.connecting.abort_handle()];
            let answering = tasks.answering.abort_handle();
            let stopped = AtomicBool::new(false);
            let stop = || {
                stopped.store(true, Ordering::Relaxed);
                left.iter().for_each(tokio::task::AbortHandle::abort);
                answering.abort();
            };
            let error = tasks.work(std::future::pending(), stop).await.unwrap_err();
            assert!(error.to_string().starts_with(part), "{error}");
            assert_eq!(error.exit_code(), 1);
            assert!(stopped.load(Ordering::Relaxed));
        }
    }

    #[tokio::test]
    async fn a_signal_stops_the_agent_without_an_error() {
        let tasks = Tasks { updating: idle(), answering: idle(), connecting: idle(), renewing: idle() };
        let handles = [tasks.updating.abort_handle(), tasks.connecting.abort_handle()];
        let answering = tasks.answering.abort_handle();
        let stop = || {
            handles.iter().for_each(tokio::task::AbortHandle::abort);
            answering.abort();
        };
        tasks.work(std::future::ready(Ok(())), stop).await.unwrap();
    }
}
