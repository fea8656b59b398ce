//! The application: what the control plane does, tying store, broker, signer and worker together.

pub mod access;
pub mod audit;
pub mod authorities;
pub mod changes;
pub mod datasets;
pub mod delivery;
pub mod deltas;
mod desired;
pub mod devices;
pub mod enrol;
pub mod external;
pub mod groups;
pub mod incidents;
mod ingest;
mod intake;
pub mod jobs;
mod listing;
mod numbers;
pub mod overview;
pub mod profiles;
mod refusals;
mod retention;
pub mod rollouts;
pub mod telemetry;
pub mod traffic;
pub mod trust;
pub mod versions;

use crate::{broker, broker::Broker, jobs::Forge, signer::Signer, store, store::Store};
use control_core::{admission::Admission, entity::IngestCounts, refusals::Refusals, rollout::Attention};
use serde::{Deserialize, Serialize};
use shared::{BoardId, ModelVersionId, RolloutId, Timestamp, board::Board, signing::Keyring};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};
use subtle::ConstantTimeEq;
use tokio::sync::{Mutex, Notify, watch};

pub use crate::store::{DeviceFilter, Page};
pub use listing::Keyed;

/// Why something was not done. The API gives each a status of its own.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name that is not known; says which is near.
    #[error("{0}")]
    NotFound(String),
    /// A value that is not allowed; says which are.
    #[error("{0}")]
    Invalid(String),
    /// Not in this state, or taken.
    #[error("{0}")]
    Conflict(String),
    /// Not with this token.
    #[error("{0}")]
    Unauthorized(String),
    /// Not with this certificate.
    #[error("{0}")]
    Forbidden(String),
    /// Too often.
    #[error("{0}")]
    Busy(String),
    /// More requests than anybody may send; there is room again after `wait_ms`.
    #[error("too many requests; try again in {} s", wait_ms.div_ceil(1000))]
    Throttled { wait_ms: u64 },
    /// An idempotency key that came with another request.
    #[error("{0}")]
    Mismatch(String),
    /// No room on the disk.
    #[error("the control plane's disk is full; free some space under its data folder")]
    Full,
    /// Not at this moment: the database does not answer, or it is for another server to do.
    #[error("{0}")]
    Unavailable(String),
    /// The forge cannot be used.
    #[error("{0}")]
    Forge(String),
    /// Anything else; the log has the causes.
    #[error("internal error: {0}")]
    Internal(String),
}

/// The application's result.
pub type Result<T> = std::result::Result<T, Error>;

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Full => Self::Full,
            store::Error::Conflict(text) => Self::Conflict(text),
            store::Error::Cursor(_) => Self::Invalid(error.to_string()),
            store::Error::Unreachable(_) => {
                Self::Unavailable(format!("{}; try again in a moment", chain(&error)))
            }
            store::Error::NotLeader => Self::Unavailable(error.to_string()),
            store::Error::Newer { .. }
            | store::Error::Open { .. }
            | store::Error::Migrate { .. }
            | store::Error::Corrupt { .. }
            | store::Error::Database(_)
            | store::Error::File { .. } => Self::Internal(chain(&error)),
        }
    }
}

impl From<crate::jobs::Error> for Error {
    fn from(error: crate::jobs::Error) -> Self {
        use crate::jobs::Error as Job;
        match error {
            Job::Input(text) => Self::Invalid(text),
            Job::Cancelled => Self::Conflict(error.to_string()),
            Job::File { ref source, .. } if source.kind() == std::io::ErrorKind::StorageFull => Self::Full,
            Job::File { .. } => Self::Internal(chain(&error)),
            Job::Start { .. }
            | Job::Failed { .. }
            | Job::Killed { .. }
            | Job::Answer { .. }
            | Job::Slow { .. } => Self::Forge(chain(&error)),
        }
    }
}

/// An error with all its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text.lines().collect::<Vec<_>>().join(" ")
}

/// The time of this machine.
pub fn now() -> Timestamp {
    SystemTime::now().into()
}

/// What stays the same while the server runs.
#[derive(Clone, Debug)]
pub struct Settings {
    pub data: PathBuf,
    pub chunk_bytes: u32,
    /// Zero is no limit.
    pub blob_bytes_per_s: u64,
    /// Most jobs at one time, where the machine has room for more than one.
    pub jobs: usize,
    /// Where devices find the broker.
    pub mqtt_host: String,
    pub mqtt_port: u16,
    /// Life of a device's certificate.
    pub certificate_days: u32,
    /// Where devices find the API, as in `https://edge.example:8443`.
    pub public_api: String,
    /// File for the list of revoked certificates that a broker elsewhere reads.
    pub broker_crl: Option<PathBuf>,
}

/// Counted since the start.
#[derive(Debug, Default)]
pub struct Counters {
    pub chunks_broadcast: AtomicU64,
    pub chunks_unicast: AtomicU64,
    pub bytes_published: AtomicU64,
    pub chunks_waiting: AtomicU64,
}

/// The application.
#[derive(Debug)]
pub struct App {
    pub settings: Settings,
    store: Store,
    signer: Signer,
    trust: trust::Trust,
    forge: Forge,
    boards: BTreeMap<BoardId, Board>,
    /// Only the server that acts for the fleet has one.
    broker: RwLock<Option<Broker>>,
    started_at: Timestamp,
    counters: Counters,
    /// The planner looks again.
    planner_wake: Notify,
    /// The job runner looks again.
    jobs_wake: Notify,
    /// Devices were asked to measure.
    profiles_wake: Notify,
    /// Plans are made and executed one at a time.
    planner: Mutex<()>,
    /// Whether the fleet was listened to all the time.
    attention: std::sync::Mutex<Attention>,
    /// Which desired states the broker has.
    told: Mutex<desired::Told>,
    /// Deltas that are being made.
    deltas: deltas::Deltas,
    /// Labels of versions are given one at a time.
    labels: Mutex<()>,
    /// What devices ask for.
    inbox: delivery::Inbox,
    /// What was refused and is not in the store yet.
    refusals: std::sync::Mutex<Refusals>,
    /// Who may try to enrol.
    admission: std::sync::Mutex<Admission>,
    /// Who has asked how often.
    access: access::Access,
    /// What is written to the audit log together.
    ledger: audit::Ledger,
    /// What was told to listeners.
    changes: changes::Changes,
    /// Running jobs and how to end them.
    running: Mutex<HashMap<shared::JobId, watch::Sender<bool>>>,
    /// Revoked devices whose sessions were ended or were over when this server began to act.
    put_out: std::sync::Mutex<Option<BTreeSet<shared::DeviceId>>>,
    /// Versions that ended rollouts may have left nowhere, to be vouched for no more.
    withdrawals: std::sync::Mutex<BTreeSet<ModelVersionId>>,
    /// Payload bytes that went out for rollouts and are not in the store yet.
    published: std::sync::Mutex<HashMap<RolloutId, u64>>,
    /// What gates are judged by, as it was counted last.
    evidence: std::sync::Mutex<rollouts::Gathered>,
    stopping: watch::Sender<bool>,
    /// CAs are added and retired one at a time.
    rotation: Mutex<()>,
    /// Counts changes of the CAs or of the server's certificate.
    tls_changes: watch::Sender<u64>,
    /// Certificates were revoked, or CAs changed.
    revocations: Notify,
    /// What is counted and measured.
    numbers: numbers::Numbers,
}

/// The parts that an application is made of.
#[derive(Debug)]
pub struct Parts {
    pub store: Store,
    pub signer: Signer,
    pub trust: trust::Trust,
    pub forge: Forge,
    pub boards: BTreeMap<BoardId, Board>,
}

/// What `status` shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Status {
    pub version: String,
    pub started_at: Timestamp,
    pub mqtt: String,
    pub broker: broker::Standing,
    /// Which server acts for the fleet, where several may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<Leader>,
    pub keyring: Keyring,
    pub devices: DeviceCounts,
    /// To the broker; to one elsewhere, those of devices that say that they are there.
    pub connections: u64,
    pub ingest: IngestCounts,
    pub open_rollouts: u64,
    pub open_jobs: u64,
    pub delivery: DeliveryCounts,
}

/// Which of several servers acts for the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Leader {
    /// The server that acts, or acted last.
    pub name: String,
    /// Counts who came after whom.
    pub epoch: u64,
    /// It is this one.
    pub here: bool,
    /// It has not been silent for too long.
    pub alive: bool,
}

/// Devices by what is seen of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DeviceCounts {
    pub total: u64,
    pub online: u64,
}

/// What delivery did since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DeliveryCounts {
    pub chunks_broadcast: u64,
    pub chunks_unicast: u64,
    pub bytes_published: u64,
    pub chunks_waiting: u64,
}

impl App {
    /// Puts the parts together; [`App::attach`] and its loops make it live.
    pub fn new(settings: Settings, parts: Parts) -> Arc<Self> {
        let numbers = numbers::Numbers::new(&parts.store);
        Arc::new(Self {
            settings,
            store: parts.store,
            signer: parts.signer,
            trust: parts.trust,
            forge: parts.forge,
            boards: parts.boards,
            broker: RwLock::new(None),
            started_at: now(),
            counters: Counters::default(),
            planner_wake: Notify::new(),
            jobs_wake: Notify::new(),
            profiles_wake: Notify::new(),
            planner: Mutex::new(()),
            attention: std::sync::Mutex::new(Attention::new(now())),
            told: Mutex::default(),
            deltas: deltas::Deltas::default(),
            labels: Mutex::new(()),
            inbox: delivery::Inbox::default(),
            refusals: std::sync::Mutex::default(),
            admission: std::sync::Mutex::default(),
            access: access::Access::default(),
            ledger: audit::Ledger::default(),
            changes: changes::Changes::new(now()),
            running: Mutex::new(HashMap::new()),
            put_out: std::sync::Mutex::default(),
            withdrawals: std::sync::Mutex::default(),
            published: std::sync::Mutex::new(HashMap::new()),
            evidence: std::sync::Mutex::default(),
            stopping: watch::channel(false).0,
            rotation: Mutex::new(()),
            tls_changes: watch::channel(0).0,
            revocations: Notify::new(),
            numbers,
        })
    }

    /// Gives the application its broker.
    pub fn attach(&self, broker: Broker) {
        *self.broker.write().unwrap_or_else(PoisonError::into_inner) = Some(broker);
    }

    /// The broker, where this server acts for the fleet.
    pub fn broker(&self) -> Option<Broker> {
        self.broker.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Begins to act for the fleet: nobody is connected until they say so.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn take_up(&self) -> Result<()> {
        *self.attention.lock().unwrap_or_else(PoisonError::into_inner) = Attention::new(now());
        self.store.set_all_offline().await?;
        self.begin_ingest().await
    }

    /// Puts into the store what was counted on the way.
    pub async fn settle(&self) {
        self.flush_refusals().await;
        if let Err(error) = self.flush_published().await {
            tracing::warn!("the count of published bytes is not complete: {}", chain(&error));
        }
    }

    /// Forgets what only a server knows that acts for the fleet, whose loops have ended: another one acts from here on,
    /// and when this one does again it begins as after a start.
    pub async fn lay_down(&self) {
        *self.broker.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.store.lay_down_lead();
        self.forget_told_trust().await;
        self.forget_told_desired().await;
        self.running.lock().await.clear();
        *self.put_out.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.inbox.take();
        self.numbers.intake.forget();
        self.withdrawals.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.published.lock().unwrap_or_else(PoisonError::into_inner).clear();
        *self.attention.lock().unwrap_or_else(PoisonError::into_inner) = Attention::new(now());
    }

    /// The store, for those who decide which server acts.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The keys and certificates.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// Tells all loops to end.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Has [`App::stop`] been called?
    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Takes up what was left by a server before: the time that was noted, and what devices said and nobody has taken apart.
    async fn begin_ingest(&self) -> Result<()> {
        self.numbers.restore_clock(&self.store).await?;
        Ok(self.numbers.intake.start().await?)
    }

    /// Has what was acknowledged show where it is looked for, unless that is much at this moment.
    async fn see_all(&self) {
        self.numbers.intake.settle().await;
    }

    /// Counts a request of the API.
    pub fn count_request(&self, method: &str, status: u16, took: std::time::Duration) {
        self.numbers.traffic.add(method, status, took);
    }

    /// Ends the store's connections.
    pub async fn close(&self) {
        self.numbers.intake.end();
        self.settle().await;
        self.store.close().await;
    }

    /// Resolves when [`App::stop`] was called.
    pub async fn stopped(&self) {
        let mut stopping = self.stopping.subscribe();
        // The sender lives as long as the application.
        let _ = stopping.wait_for(|&stopping| stopping).await;
    }

    /// Is this the administrator's token?
    pub fn is_admin(&self, token: &str) -> bool {
        let (ours, theirs) =
            (shared::Digest::of(self.signer.admin_token().as_bytes()), shared::Digest::of(token.as_bytes()));
        ours.as_bytes().as_slice().ct_eq(theirs.as_bytes().as_slice()).into()
    }

    /// The boards that models can be made for.
    pub fn boards(&self) -> impl Iterator<Item = &Board> {
        self.boards.values()
    }

    /// One board; the error names those that are near.
    pub fn board(&self, id: &BoardId) -> Result<&Board> {
        self.boards.get(id).ok_or_else(|| {
            let known = self.boards.keys().map(BoardId::as_str);
            Error::NotFound(unknown("board", id.as_str(), known, "edgewright board list"))
        })
    }

    /// What only the server may do that acts for the fleet.
    async fn refuse_beside_leader(&self) -> Result<()> {
        match self.leader().await? {
            Some(leader) if !leader.here => {
                Err(Error::Conflict(format!("server {} acts for this fleet: ask that one", leader.name)))
            }
            _ => Ok(()),
        }
    }

    async fn leader(&self) -> Result<Option<Leader>> {
        if !self.store.is_shared() {
            return Ok(None);
        }
        let here = self.store.leads();
        let holder = self.store.holder().await?;
        Ok(holder.map(|holder| Leader { name: holder.name, epoch: holder.epoch, here, alive: holder.holds }))
    }

    /// What there is to say at a glance.
    pub async fn status(&self) -> Result<Status> {
        self.flush_refusals().await;
        self.see_all().await;
        let (total, online) = self.store.count_devices().await?;
        let open_rollouts = self.store.open_rollouts().await?.len() as u64;
        let open_jobs = self.store.count_open_jobs().await?;
        let counters = &self.counters;
        let attached = self.broker();
        let broker = attached.as_ref().map_or_else(broker::Standing::absent, Broker::standing);
        let connections = attached.map_or(0, |broker| broker.connections().unwrap_or(online));
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            mqtt: format!("{}:{}", self.settings.mqtt_host, self.settings.mqtt_port),
            broker,
            leader: self.leader().await?,
            keyring: self.signer.keyring_to_read(),
            devices: DeviceCounts { total, online },
            connections,
            ingest: self.store.ingest_counts().await?,
            open_rollouts,
            open_jobs,
            delivery: DeliveryCounts {
                chunks_broadcast: counters.chunks_broadcast.load(Ordering::Relaxed),
                chunks_unicast: counters.chunks_unicast.load(Ordering::Relaxed),
                bytes_published: counters.bytes_published.load(Ordering::Relaxed),
                chunks_waiting: counters.chunks_waiting.load(Ordering::Relaxed),
            },
        })
    }
}

/// Says that a name is not known, which known one is near, and where to look.
pub fn unknown<'a>(kind: &str, name: &str, known: impl Iterator<Item = &'a str>, look: &str) -> String {
    let near = known.map(|known| (distance(name, known), known)).min().filter(|(far, _)| *far <= 3);
    match near {
        Some((_, near)) => format!("{kind} {name:?} is not known; did you mean {near:?}? See `{look}`"),
        None => format!("{kind} {name:?} is not known; see `{look}`"),
    }
}

/// Edits between two names (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_answered_with_a_near_one() {
        let text = unknown("data set", "mnst", ["gunpoint", "mnist"].into_iter(), "edgewright dataset list");
        assert_eq!(
            text,
            "data set \"mnst\" is not known; did you mean \"mnist\"? See `edgewright dataset list`"
        );
        let text = unknown("data set", "cifar", ["gunpoint"].into_iter(), "edgewright dataset list");
        assert_eq!(text, "data set \"cifar\" is not known; see `edgewright dataset list`");
    }
}
