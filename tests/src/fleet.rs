//! A simulated fleet: thousands of devices in one process.
//!
//! A device is the agent's own link, update machine, trust, reports and state over real MQTT and TLS. In place of a disk
//! it has memory, in place of a runtime one that runs nothing, and what many devices have the same of is there once:
//! trust metadata, bytes of blobs, what TLS needs beside a key. [`sim`] is the program, [`swarm`] the devices while they
//! live, [`enrol`] how they came to be; benches and tests use the same parts.

pub mod api;
pub mod blobs;
pub mod character;
pub mod counts;
pub mod device;
pub mod enrol;
pub mod files;
pub mod outbox;
pub mod runtime;
pub mod sim;
pub mod swarm;
pub mod tls;
pub mod wave;
pub mod work;

use agent_core::update::Saved;
use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use blobs::Blobs;
use character::Character;
use counts::Counts;
use edgewright_agent::{
    clock::elapsed_ms,
    identity::Identity,
    trust::{Heard, Trust},
};
use rustls::ClientConfig;
use shared::{BoardId, Digest, Timestamp, topic::TrustFile};
use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};
use tokio::sync::{Semaphore, watch};
use wave::Wave;
use work::Work;

/// Complaints that are kept; those beyond are counted.
const COMPLAINTS_MAX: usize = 16;
/// Pieces of trust metadata that are remembered.
const HEARD_MAX: usize = 4096;

/// What one device is before it lives.
#[derive(Debug)]
pub struct Seat {
    /// From 1; with the seed it says how the device behaves.
    pub number: u64,
    /// Without what only an enrolment needs.
    pub identity: Identity,
    pub tls: Arc<ClientConfig>,
    pub board: BoardId,
    pub character: Character,
    /// What it had persisted when it last lived.
    pub saved: Saved,
    /// Where that is kept for the next run, if it is.
    pub state: Option<PathBuf>,
}

/// What all devices have in common.
#[derive(Debug)]
pub struct Fleet {
    started: Instant,
    origin: Timestamp,
    /// Metadata is for everybody: each piece is checked once.
    pub trust: Trust,
    heard: Mutex<HashSet<(TrustFile, Digest)>>,
    pub blobs: Blobs,
    pub counts: Counts,
    wave: ArcSwap<Wave>,
    work: watch::Sender<Work>,
    /// Who makes a first connection.
    gate: Arc<Semaphore>,
    /// Who holds a connection: as many as there may be.
    berths: Arc<Semaphore>,
    /// Whoever has a connection keeps it.
    places_are_kept: AtomicBool,
    complaints: Mutex<Vec<String>>,
}

/// How many connect, and are connected, at one time.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub connecting_max: usize,
    pub connections_max: usize,
}

impl Default for Room {
    /// As many connections as one likes.
    fn default() -> Self {
        Self { connecting_max: CONNECTING_MAX, connections_max: Semaphore::MAX_PERMITS }
    }
}

/// Devices that make a first connection beside each other, where nothing else is asked for.
pub const CONNECTING_MAX: usize = 128;

impl Fleet {
    /// For devices that were given `root`; what is accepted is kept in the file `trust`.
    pub fn new(root: &[u8], trust: PathBuf, room: Room) -> Result<Self> {
        Ok(Self {
            started: Instant::now(),
            origin: edgewright_agent::clock::wall(),
            trust: Trust::open(trust, root).context("the devices' trust")?,
            heard: Mutex::default(),
            blobs: Blobs::default(),
            counts: Counts::default(),
            wave: ArcSwap::default(),
            work: watch::channel(Work::default()).0,
            gate: Arc::new(Semaphore::new(room.connecting_max)),
            berths: Arc::new(Semaphore::new(room.connections_max)),
            places_are_kept: AtomicBool::new(false),
            complaints: Mutex::default(),
        })
    }

    /// From here on chunks are lost from and counted for `wave`.
    pub fn set_wave(&self, wave: Arc<Wave>) {
        self.wave.store(wave);
    }

    /// What is being brought to them.
    pub fn wave(&self) -> Arc<Wave> {
        self.wave.load_full()
    }

    /// From here on devices say this much.
    pub fn set_work(&self, work: Work) {
        self.work.send_replace(work);
    }

    /// From here on nobody leaves for one that waits.
    pub fn keep_places(&self) {
        self.places_are_kept.store(true, Ordering::Relaxed);
    }

    /// Is there no place left, so that who has nothing to do shall leave?
    fn are_turns_taken(&self) -> bool {
        self.berths.available_permits() == 0 && !self.places_are_kept.load(Ordering::Relaxed)
    }

    /// By a clock that never steps.
    pub fn now(&self) -> Timestamp {
        self.origin.plus_ms(elapsed_ms(self.started))
    }

    /// Takes in a piece of trust metadata, once: what one device heard before another is not older news to it.
    pub fn offer(&self, file: TrustFile, bytes: &[u8]) -> Result<Heard> {
        let piece = (file.clone(), Digest::of(bytes));
        {
            let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            if heard.len() >= HEARD_MAX {
                heard.clear();
            }
            if !heard.insert(piece) {
                return Ok(Heard::Same);
            }
        }
        Ok(self.trust.offer(file, bytes)?)
    }

    /// Keeps what should not have happened.
    pub fn complain(&self, what: String) {
        self.counts.complaints.add(1);
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        if complaints.len() < COMPLAINTS_MAX {
            complaints.push(what);
        }
        self.wave().changed.notify_one();
    }

    /// The first of what should not have happened.
    pub fn complaints(&self) -> Vec<String> {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
