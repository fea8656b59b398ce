//! Starting everything on a data folder, and ending it.

mod acting;
mod boards;
mod leadership;
mod locks;
mod names;

use crate::{
    api,
    app::{App, Parts, Settings, chain, now, trust::Trust},
    broker::Address,
    jobs::Forge,
    signer::{self, CERTIFICATE_DAYS_MAX, Signer},
    store::{Database, Store},
};
use anyhow::{Context, Result, anyhow, bail};
use leadership::Leadership;
pub(crate) use locks::{lock, try_lock};
use names::Names;
use serde::{Deserialize, Serialize};
use shared::{job::ForgeDevice, limits};
use std::{
    fs::{self, DirBuilder, File},
    io,
    net::{SocketAddr, TcpListener},
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::{sync::watch, task::JoinHandle};

/// What `edgewright serve` is given.
#[derive(Clone, Debug)]
pub struct Options {
    pub data: PathBuf,
    pub database: Database,
    /// Tells several servers on one database apart; made of the machine's name and the API's port where not given.
    pub name: Option<String>,
    pub api: SocketAddr,
    pub mqtt: Mqtt,
    /// Names under which devices reach the server; the first is told to them.
    pub public_hosts: Vec<String>,
    pub forge: Option<PathBuf>,
    /// What jobs compute on.
    pub forge_device: ForgeDevice,
    pub boards: PathBuf,
    pub blob_bytes_per_s: u64,
    pub chunk_bytes: u32,
    /// Most at one time.
    pub jobs: usize,
    /// Life of a device's certificate.
    pub certificate_days: u32,
}

/// Which broker the server works with.
#[derive(Clone, Debug)]
pub enum Mqtt {
    /// One in this process.
    Embedded(SocketAddr),
    /// One elsewhere, with the file for the list of revoked certificates that it reads.
    External { address: Address, crl: Option<PathBuf> },
}

/// What the command line needs to talk to a server; kept in `DATA/context.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContextFile {
    /// As in `https://127.0.0.1:8443`.
    pub server: String,
    pub ca_pem: String,
    pub token: String,
}

/// Where a started server is.
#[derive(Clone, Debug, Serialize)]
pub struct Ready {
    pub api: String,
    pub mqtt: String,
    pub context: PathBuf,
}

/// Requests that are under way get this long to end.
const GRACE: Duration = Duration::from_millis(500);
const WORKER_NAME: &str = "edgewright-forge";

/// A server that is up.
#[derive(Debug)]
pub struct Server {
    pub app: Arc<App>,
    pub ready: Ready,
    api: api::Serving,
    /// Decides when this server acts for the fleet, and has it act.
    leadership: JoinHandle<Result<()>>,
    /// Each gives its name when it ends.
    loops: tokio::task::JoinSet<&'static str>,
    /// Held as long as the server lives: nobody else works on the folder who must not.
    _locks: Vec<File>,
}

/// Starts everything. When it returns the API and the embedded broker answer; a broker elsewhere is waited for afterwards,
/// and so is the turn of this server where another one acts on the same database.
pub async fn start(options: Options) -> Result<Server> {
    let within = limits::CHUNK_BYTES_MIN..=limits::CHUNK_BYTES_MAX;
    if !within.contains(&options.chunk_bytes) {
        bail!(
            "--chunk-bytes is {}, allowed are {} to {}",
            options.chunk_bytes,
            limits::CHUNK_BYTES_MIN,
            limits::CHUNK_BYTES_MAX
        );
    }
    if options.jobs == 0 {
        bail!("--jobs is 0, at least 1");
    }
    if !(1..=CERTIFICATE_DAYS_MAX).contains(&options.certificate_days) {
        bail!("--certificate-days is {}, allowed are 1 to {CERTIFICATE_DAYS_MAX}", options.certificate_days);
    }
    let data = &options.data;
    // Keys, the database, data of jobs: for nobody else's eyes.
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data)
        .with_context(|| format!("the data folder {} cannot be made", data.display()))?;
    let data = &fs::canonicalize(data).with_context(|| format!("the data folder {}", data.display()))?;
    let shared = options.database.is_shared();
    let listener = listen(options.api)?;
    let api_address = listener.local_addr().context("the API's address")?;
    let name = match options.name {
        Some(name) => name,
        None => format!("{}-{}", machine(), api_address.port()),
    };
    let locks = if shared { locks::beside_others(data, &name)? } else { vec![lock(data)?] };
    let mqtt = match options.mqtt {
        Mqtt::Embedded(address) => Mqtt::Embedded(with_port(address)?),
        external @ Mqtt::External { .. } => external,
    };
    let (names, mqtt_port, broker_crl) = match &mqtt {
        Mqtt::Embedded(address) => {
            (Names::new(&options.public_hosts, api_address, Some(*address))?, address.port(), None)
        }
        Mqtt::External { address, crl } => {
            let mut names = Names::new(&options.public_hosts, api_address, None)?;
            names.mqtt_host.clone_from(&address.host);
            (names, address.port, crl.clone())
        }
    };
    let boards = boards::read(&options.boards)?;
    // Of several servers that start at once on an empty folder one makes the keys.
    let starting = if shared { Some(locks::turn(data).await?) } else { None };
    let signer = Signer::open(&data.join("keys"), &names.certificate, now())?;
    let trust = Trust::open(data, &signer, now())?.shared(shared);
    let store = Store::connect(data, &options.database).await?;
    drop(starting);
    let settings = Settings {
        data: data.clone(),
        chunk_bytes: options.chunk_bytes,
        blob_bytes_per_s: options.blob_bytes_per_s,
        jobs: options.jobs,
        mqtt_host: names.mqtt_host.clone(),
        mqtt_port,
        certificate_days: options.certificate_days,
        public_api: format!("https://{}", names::with_port(&names.api_host, api_address.port())),
        broker_crl,
    };
    let forge =
        Forge::new(options.forge.clone().unwrap_or_else(beside_this_program)).on(options.forge_device);
    let app = App::new(settings, Parts { store, signer, trust, forge, boards });
    app.clear_uploads()?;
    let server = format!("https://{}", SocketAddr::new(reachable(api_address), api_address.port()));
    let context = if shared { locks::context_of(data, &name) } else { data.join("context.json") };
    let changes = app.tls_changes();
    let mut contexts = vec![context.clone()];
    if shared {
        // Of whichever server wrote it last: any of them answers.
        contexts.push(data.join("context.json"));
    }
    write_contexts(&contexts, &app, &server)?;
    let mqtt_told = names::with_port(&names.mqtt_host, mqtt_port);
    let leadership = Leadership::start(Arc::clone(&app), mqtt, name).await?;
    let api = api::serve(Arc::clone(&app), listener).await?;
    let mut loops = tokio::task::JoinSet::new();
    loops.spawn(named("the security log", Arc::clone(&app).run_refusals()));
    loops.spawn(named("the taker of CAs", Arc::clone(&app).run_authorities()));
    loops
        .spawn(named("the context file", keep_contexts(contexts, Arc::clone(&app), server.clone(), changes)));
    let ready = Ready { api: server, mqtt: mqtt_told, context };
    let leadership = tokio::spawn(leadership.run());
    Ok(Server { app, ready, api, leadership, loops, _locks: locks })
}

async fn named(name: &'static str, work: impl Future<Output = ()>) -> &'static str {
    work.await;
    name
}

/// What this machine is called, in letters that a file may be called by.
fn machine() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect()
}

impl Server {
    /// Ends quickly: workers stop where their checkpoints are, everything else is in the store already.
    pub async fn stop(mut self) {
        self.app.stop();
        self.api.stop(GRACE).await;
        if !self.leadership.is_finished() {
            // What went wrong at the very end is in the log.
            let _ = (&mut self.leadership).await;
        }
        while self.loops.join_next().await.is_some() {}
        self.app.close().await;
    }

    /// Resolves with an error when a part has ended without which the server is none.
    pub async fn failed(&mut self) -> anyhow::Error {
        tokio::select! {
            error = self.api.failed() => error,
            ended = &mut self.leadership => match ended {
                Ok(Ok(())) => anyhow!("nothing acts for the fleet any more"),
                Ok(Err(error)) => error,
                Err(error) => anyhow!("what acts for the fleet broke off: {error}"),
            },
            Some(ended) = self.loops.join_next() => match ended {
                Ok(name) => anyhow!("{name} has ended"),
                Err(error) => anyhow!("a part of the server broke off: {error}"),
            },
        }
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            anyhow!("port {} is in use; choose another with --api ADDRESS:PORT", address.port())
        }
        _ => anyhow!("the API cannot listen on {address}: {error}"),
    })?;
    listener.set_nonblocking(true).context("the API's socket")?;
    Ok(listener)
}

/// The broker does not tell which port it got for 0, so one is looked for before.
fn with_port(address: SocketAddr) -> Result<SocketAddr> {
    if address.port() != 0 {
        return Ok(address);
    }
    let free = TcpListener::bind(address).and_then(|listener| listener.local_addr());
    free.with_context(|| format!("no port is free on {}", address.ip()))
}

fn reachable(address: SocketAddr) -> std::net::IpAddr {
    match address.ip() {
        ip if ip.is_unspecified() => std::net::Ipv4Addr::LOCALHOST.into(),
        ip => ip,
    }
}

fn beside_this_program() -> PathBuf {
    let beside = std::env::current_exe().ok().map(|path| path.with_file_name(WORKER_NAME));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| WORKER_NAME.into())
}

/// Writes the files again whenever the CAs have changed.
async fn keep_contexts(
    paths: Vec<PathBuf>,
    app: Arc<App>,
    server: String,
    mut changes: watch::Receiver<u64>,
) {
    loop {
        tokio::select! {
            () = app.stopped() => return,
            Ok(()) = changes.changed() => {
                if let Err(error) = write_contexts(&paths, &app, &server) {
                    tracing::error!("the command line will not trust this server: {error:#}");
                }
            }
        }
    }
}

fn write_contexts(paths: &[PathBuf], app: &App, server: &str) -> Result<()> {
    let signer = app.signer();
    let server = server.to_owned();
    let context = ContextFile { server, ca_pem: signer.ca_pem(), token: signer.admin_token().to_owned() };
    let text = serde_json::to_vec_pretty(&context).context("the context file")?;
    for path in paths {
        signer::write(path, &text).map_err(|error| anyhow!(chain(&error)))?;
    }
    Ok(())
}
