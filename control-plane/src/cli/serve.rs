//! `edgewright serve`.

use super::{Failure, Outcome, database::DatabaseArgs, trust};
use crate::{
    broker::Address,
    serve::{self, Mqtt, Options},
    signer::CERTIFICATE_DAYS_DEFAULT,
    store::Database,
};
use clap::Args;
use shared::{
    job::{FORGE_DEVICE_ENV, ForgeDevice},
    limits,
};
use std::{
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::signal::unix::{SignalKind, signal};

/// How the control plane runs.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Folder that holds everything: keys, database, blobs, jobs
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    #[command(flatten)]
    database: DatabaseArgs,
    /// Name of this server among several that work on one such database, each with the same data folder and a broker that
    /// all reach; without it, made of the machine's name and the API's port
    #[arg(long, requires = "database")]
    name: Option<String>,
    /// Where the API listens
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8443")]
    api: SocketAddr,
    /// Where the broker of this server listens
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8883")]
    mqtt: SocketAddr,
    /// A broker of your own in place of it, by the name under which this server and the devices reach it; see
    /// `edgewright broker files`
    #[arg(long, value_name = "mqtts://HOST:PORT", conflicts_with = "mqtt")]
    broker: Option<Address>,
    /// File to keep the list of revoked certificates in, for that broker
    #[arg(long, value_name = "FILE", requires = "broker")]
    broker_crl: Option<PathBuf>,
    /// Name under which devices reach this machine; the first is told to them
    #[arg(long = "public-host", value_name = "NAME")]
    public_hosts: Vec<String>,
    /// The worker program; without it, edgewright-forge beside this program or on the path
    #[arg(long, value_name = "PATH")]
    forge: Option<PathBuf>,
    /// What jobs compute on: the first GPU where there is one that libtorch can use (auto), the processor (cpu), or a GPU by
    /// its number (cuda:N)
    #[arg(long, value_name = "auto|cpu|cuda[:N]", env = FORGE_DEVICE_ENV, default_value_t)]
    forge_device: ForgeDevice,
    /// Folder with the boards
    #[arg(long, value_name = "DIR", default_value = "firmware-configs")]
    boards: PathBuf,
    /// Most bytes a second that go out as blobs; 0 is no limit
    #[arg(long, value_name = "N", default_value_t = 0)]
    blob_bytes_per_s: u64,
    /// Bytes of one chunk of a blob
    #[arg(long, value_name = "N", default_value_t = limits::CHUNK_BYTES_MAX)]
    chunk_bytes: u32,
    /// Most jobs at one time, where the machine has room for more than one; as many as it has processors where not given
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Days that a device's certificate lives; devices renew theirs by themselves
    #[arg(long, value_name = "N", default_value_t = CERTIFICATE_DAYS_DEFAULT)]
    certificate_days: u32,
}

const LOG_DEFAULT: &str = "info,rmqtt=error,rmqtt_net=error,rmqtt_codec=error,rumqttc=off,sqlx=warn";
/// How a profile names the threads that serve.
const THREADS: &str = "serve";
/// Tasks that do not end by themselves get this long.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(2);

/// Runs until SIGTERM or SIGINT.
pub(super) fn run(args: &ServeArgs, json: bool) -> Outcome {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(LOG_DEFAULT));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
    // What the server and its workers write is for nobody else's eyes, also in a folder that was there before.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let database = args.database.chosen()?;
    settle(&args.data, &database)?;
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name(THREADS)
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("the runtime cannot start: {error}")))?;
    let options = Options {
        data: args.data.clone(),
        database,
        name: args.name.clone(),
        api: args.api,
        mqtt: match &args.broker {
            Some(address) => Mqtt::External { address: address.clone(), crl: args.broker_crl.clone() },
            None => Mqtt::Embedded(args.mqtt),
        },
        public_hosts: args.public_hosts.clone(),
        forge: args.forge.clone(),
        forge_device: args.forge_device,
        boards: args.boards.clone(),
        blob_bytes_per_s: args.blob_bytes_per_s,
        chunk_bytes: args.chunk_bytes,
        jobs: args
            .jobs
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get)),
        certificate_days: args.certificate_days,
    };
    let outcome = runtime.block_on(serve(options, json));
    runtime.shutdown_timeout(SHUTDOWN_LIMIT);
    outcome
}

/// Ends what a crash of `trust rotate` left half done: the server reads its keys once.
fn settle(data: &Path, database: &Database) -> Outcome {
    if !data.join("keys").is_dir() {
        return Ok(());
    }
    let unusable = |error| Failure::Usage(one_line(&error));
    let _lock = match serve::try_lock(data).map_err(unusable)? {
        Some(lock) => lock,
        // The servers that run on it have done so.
        None if database.is_shared() => return Ok(()),
        None => serve::lock(data).map_err(unusable)?,
    };
    trust::settle(data)
}

/// Each device's connection is a file; the usual soft limit of 1024 is far below what the system allows.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!("at most {} open files: {error}", current.unwrap_or(u64::MAX));
    }
}

async fn serve(options: Options, json: bool) -> Outcome {
    let failed = |error: anyhow::Error| Failure::Failed(one_line(&error));
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| failed(error.into()))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| failed(error.into()))?;
    let mut server = tokio::select! {
        // What keeps a server from starting is what it was given: an address, a folder.
        server = serve::start(options) => server.map_err(|error| Failure::Usage(one_line(&error)))?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let ready = &server.ready;
    let line = if json {
        serde_json::to_string(ready).map_err(|error| failed(error.into()))?
    } else {
        format!("ready: API {}, MQTT {}, context {}", ready.api, ready.mqtt, ready.context.display())
    };
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(|error| failed(error.into()))?;
    let outcome = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        error = server.failed() => Err(failed(error)),
    };
    server.stop().await;
    outcome
}

fn one_line(error: &anyhow::Error) -> String {
    format!("{error:#}").lines().collect::<Vec<_>>().join(" ")
}
