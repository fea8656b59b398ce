//! Starting everything on a data folder, and ending it.

mod boards;
mod names;

use crate::{
    api,
    app::{App, Parts, Settings, chain, delivery, now, trust::Trust},
    broker::{self, Address, Broker, Identities, Ingest},
    jobs::Forge,
    signer::{self, CERTIFICATE_DAYS_MAX, Signer},
    store::Store,
};
use anyhow::{Context, Result, bail};
use names::Names;
use serde::{Deserialize, Serialize};
use shared::limits;
use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io,
    net::{SocketAddr, TcpListener},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;

/// What `edgewright serve` is given.
#[derive(Clone, Debug)]
pub struct Options {
    pub data: PathBuf,
    pub api: SocketAddr,
    pub mqtt: Mqtt,
    /// Names under which devices reach the server; the first is told to them.
    pub public_hosts: Vec<String>,
    pub forge: Option<PathBuf>,
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
    broker: Broker,
    /// Each gives its name when it ends.
    loops: tokio::task::JoinSet<&'static str>,
    /// Held as long as the server lives: nobody else works on the folder.
    _lock: File,
}

/// Starts everything. When it returns the API and the embedded broker answer; one elsewhere is waited for afterwards.
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
    let lock = lock(data)?;
    let listener = listen(options.api)?;
    let api_address = listener.local_addr().context("the API's address")?;
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
    let signer = Signer::open(&data.join("keys"), &names.certificate, now())?;
    let trust = Trust::open(data, &signer, now())?;
    let store = Store::open(data).await?;
    store.set_all_offline().await?;
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
    let forge = Forge::new(options.forge.clone().unwrap_or_else(beside_this_program));
    let app = App::new(settings, Parts { store, signer, trust, forge, boards });
    app.clear_uploads()?;
    app.begin_ingest().await?;
    let broker = start_broker(&app, &mqtt).await?;
    app.attach(broker.clone());
    app.publish_trust().await;
    app.publish_desired().await?;
    let api = api::serve(Arc::clone(&app), listener).await?;
    let mut loops = tokio::task::JoinSet::new();
    loops.spawn(named("delivery", delivery::run(Arc::clone(&app))));
    loops.spawn(named("the planner", Arc::clone(&app).run_planner()));
    loops.spawn(named("the job runner", Arc::clone(&app).run_jobs()));
    loops.spawn(named("the asker of profiles", Arc::clone(&app).run_profiles()));
    loops.spawn(named("the security log", Arc::clone(&app).run_refusals()));
    loops.spawn(named("the keeper of trust", Arc::clone(&app).run_trust()));
    loops.spawn(named("the broker's prompter", Arc::clone(&app).run_broker()));
    loops.spawn(named("the list of revoked certificates", Arc::clone(&app).run_revocation_lists()));
    loops.spawn(named("the watch for incidents", Arc::clone(&app).run_incidents()));
    loops.spawn(named("the keeper of what is not too old", Arc::clone(&app).run_retention()));
    let server = format!("https://{}", SocketAddr::new(reachable(api_address), api_address.port()));
    let context = data.join("context.json");
    let changes = app.tls_changes();
    write_context(&context, &app, server.clone())?;
    loops.spawn(named(
        "the context file",
        keep_context(context.clone(), Arc::clone(&app), server.clone(), changes),
    ));
    let mqtt = names::with_port(&names.mqtt_host, mqtt_port);
    let ready = Ready { api: server, mqtt, context };
    Ok(Server { app, ready, api, broker, loops, _lock: lock })
}

async fn named(name: &'static str, work: impl Future<Output = ()>) -> &'static str {
    work.await;
    name
}

impl Server {
    /// Ends quickly: workers stop where their checkpoints are, everything else is in the store already.
    pub async fn stop(mut self) {
        self.app.stop();
        self.api.stop(GRACE).await;
        while self.loops.join_next().await.is_some() {}
        self.broker.close().await;
        self.app.close().await;
    }

    /// Resolves with an error when a part has ended without which the server is none.
    pub async fn failed(&mut self) -> anyhow::Error {
        tokio::select! {
            error = self.api.failed() => error,
            () = self.broker.ended() => anyhow::anyhow!("the broker has ended"),
            Some(ended) = self.loops.join_next() => match ended {
                Ok(name) => anyhow::anyhow!("{name} has ended"),
                Err(error) => anyhow::anyhow!("a part of the server broke off: {error}"),
            },
        }
    }
}

async fn start_broker(app: &Arc<App>, mqtt: &Mqtt) -> Result<Broker, broker::Error> {
    let ingest = Arc::clone(app) as Arc<dyn Ingest>;
    match mqtt {
        Mqtt::Embedded(address) => {
            let config = broker::Config { address: *address, files: app.broker_files() };
            Broker::embedded(config, ingest).await
        }
        Mqtt::External { address, .. } => {
            let identities = Arc::clone(app) as Arc<dyn Identities>;
            Ok(Broker::external(address.clone(), identities, ingest))
        }
    }
}

pub(crate) fn lock(data: &Path) -> Result<File> {
    let path = data.join("lock");
    let file = File::create(&path).with_context(|| format!("{} cannot be made", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!(
                "{} is in use by another edgewright serve; stop that one, or choose another --data",
                data.display()
            )
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("{} cannot be locked", path.display()))
        }
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            anyhow::anyhow!("port {} is in use; choose another with --api ADDRESS:PORT", address.port())
        }
        _ => anyhow::anyhow!("the API cannot listen on {address}: {error}"),
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

/// Writes the file again whenever the CAs have changed.
async fn keep_context(path: PathBuf, app: Arc<App>, server: String, mut changes: watch::Receiver<u64>) {
    loop {
        tokio::select! {
            () = app.stopped() => return,
            Ok(()) = changes.changed() => {
                if let Err(error) = write_context(&path, &app, server.clone()) {
                    tracing::error!("the command line will not trust this server: {error:#}");
                }
            }
        }
    }
}

fn write_context(path: &Path, app: &App, server: String) -> Result<()> {
    let signer = app.signer();
    let context = ContextFile { server, ca_pem: signer.ca_pem(), token: signer.admin_token().to_owned() };
    let text = serde_json::to_vec_pretty(&context).context("the context file")?;
    signer::write(path, &text).map_err(|error| anyhow::anyhow!(chain(&error)))
}
