//! `edgewright-agent run`: puts the parts together and takes them apart again.

use crate::{
    api::{self, Api, Limits},
    blobs::Blobs,
    config::{self, Config},
    data::{self, DataDir},
    engine::{self, Engine},
    identity::{self, Identity},
    installer::Installer,
    link::mqtt::{Mqtt, Settings},
    models::Models,
    store::{self, Store},
    updater::{self, Inputs, Parts, Updater},
};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
    sync::{Notify, mpsc},
};

/// Events of the link that may wait for the updater.
const LINK_EVENTS_MAX: usize = 256;
/// Longest wait for requests and the updater to finish.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is looked whether the first model answers.
const READY_TICK: Duration = Duration::from_millis(2);

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
    Api(#[from] api::Error),
    #[error(transparent)]
    Engine(#[from] engine::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("the system refused what the agent needs: {0}")]
    System(#[from] std::io::Error),
}

impl Error {
    /// 2 for what the person who started it can put right, 1 for the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Data(_) | Self::Identity(_) | Self::Api(_) | Self::Engine(_) => 2,
            Self::Store(_) | Self::System(_) => 1,
        }
    }
}

/// Runs until SIGTERM or SIGINT. `started` is the start of the process.
pub fn run(data: &Path, enrolment: Option<PathBuf>, config: &Config, started: Instant) -> Result<(), Error> {
    let data = DataDir::open(data)?;
    let engine = Arc::new(Engine::open(&config.runtimes, config.ort.as_deref())?);
    let identity = Identity::load_or_enrol(&data, enrolment.as_deref(), &config.board)?;
    let tls = Arc::new(identity.tls(&data)?);
    let serving = runtime("api", config.threads)?;
    let bound = serving.block_on(api::bind(&config.api))?;
    let address = bound.address();

    let store = Arc::new(Store::open(&data.store(), config.outbox_records_max)?);
    let blobs = Arc::new(Blobs::new(data.blobs(), store.clone()));
    let models = Arc::new(Models::default());
    let shared = Arc::new(updater::Shared::default());
    let seed = seed(&identity);

    // Two threads: one may wait for the disk while the other keeps the connection.
    let control = runtime("control", 2)?;
    let (done_sender, done) = mpsc::unbounded_channel();
    let installer = Installer {
        blobs: blobs.clone(),
        models: models.clone(),
        engine: engine.clone(),
        keyring: identity.keyring.clone(),
        disk_reserve_bytes: config.disk_reserve_bytes,
    }
    .start(move |outcome| {
        // The updater is gone only when the process ends.
        let _ = done_sender.send(outcome);
    })?;
    let (link_sender, link_events) = mpsc::channel(LINK_EVENTS_MAX);
    let settings = Settings { identity: identity.clone(), tls, keep_alive_ms: config.keep_alive_ms, seed };
    let (link, _connection) = {
        let _entered = control.enter();
        Mqtt::start(settings, link_sender)
    };
    let updater = Updater::start(Parts {
        device: identity.device.clone(),
        board: config.board.clone(),
        keyring: identity.keyring.clone(),
        api: address.clone(),
        telemetry_ms: config.telemetry_ms,
        seed,
        store: store.clone(),
        blobs,
        models: models.clone(),
        shared: shared.clone(),
        link: Arc::new(link),
        installer,
    })?;
    let limits = Limits {
        threads: config.threads,
        queue_max: config.queue_max,
        body_bytes_max: config.body_bytes_max,
    };
    let api = Arc::new(Api::new(models, store.clone(), shared, limits, engine.names(), started));
    tracing::info!(device = %identity.device, api = address, runtimes = ?engine.names(), "running");

    let stop_updater = Arc::new(Notify::new());
    let updating = control.spawn(updater.run(Inputs { link: link_events, done }, stop_updater.clone()));
    let stop_api = Arc::new(Notify::new());
    let stopped = stop_api.clone();
    let answering =
        serving.spawn(bound.serve(api::router(api.clone()), async move { stopped.notified().await }));
    control.block_on(async {
        let noticed = tokio::spawn(note_when_ready(api));
        let ended = stop_signal().await;
        noticed.abort();
        ended
    })?;

    tracing::info!("stopping");
    stop_api.notify_one();
    stop_updater.notify_one();
    control.block_on(async {
        let both = async { (updating.await, answering.await) };
        if tokio::time::timeout(STOP_TIMEOUT, both).await.is_err() {
            tracing::warn!("some requests did not finish in time");
        }
    });
    serving.shutdown_background();
    control.shutdown_background();
    store.flush()?;
    Ok(())
}

async fn note_when_ready(api: Arc<Api>) {
    while !api.models.all().iter().any(|serving| serving.current().is_some()) {
        tokio::time::sleep(READY_TICK).await;
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
