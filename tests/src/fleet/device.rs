//! A simulated device: the agent's own link, update machine, trust and reports, with memory in place of a disk and a
//! runtime that runs nothing.

mod actions;
mod inbox;
mod speech;

use super::{
    Fleet, Seat,
    blobs::Blob,
    character::{Character, between_ms},
    outbox::Outbox,
    work::{self, Subject, Work},
};
use agent_core::{
    budget,
    update::{Action, Input, Machine, Note, Saved, SlotInput},
};
use bytes::Bytes;
use edgewright_agent::{
    identity::Identity,
    link::{Link, LinkEvent, Token, mqtt},
    updater::report::Reporter,
};
use rustls::ClientConfig;
use shared::{
    DeviceId, Digest, SlotName, Timestamp,
    backoff::Jitter,
    topic::Topic,
    wire::{self, Event, EventKind},
};
use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, watch},
    task::JoinHandle,
};
use uuid::Uuid;

/// Fewer than the agent's: each may hold a chunk, and there are many devices.
const LINK_EVENTS_MAX: usize = 32;
/// As the agent's.
const KEEP_ALIVE_MS: u64 = 60_000;
/// A first connection that takes longer than this lets the next one begin.
const GATE_MS: u64 = 20_000;
/// A device whose network comes and goes is there, and away, for as long as this.
const THERE_MS: (u64, u64) = (20_000, 60_000);
const AWAY_MS: (u64, u64) = (5_000, 30_000);
/// Where there is not room for all, a device with nothing to do leaves after this long for one that waits.
const STAY_MS: u64 = 30_000;
/// And does not come back for as long as this: those who were not there yet come first.
const GAVE_WAY_MS: (u64, u64) = (60_000, 120_000);
/// How often it looks whether there is a place.
const BERTH_MS: (u64, u64) = (200, 1_000);
/// A goodbye that takes longer than this is cut short.
const GOODBYE: Duration = Duration::from_secs(5);
/// It sleeps no longer than this.
const LOOK_MS: u64 = 60_000;
/// Where nothing listens.
const API: &str = "127.0.0.1:0";

/// One device.
pub struct Device {
    fleet: Arc<Fleet>,
    id: DeviceId,
    identity: Identity,
    tls: Arc<ClientConfig>,
    character: Character,
    state: Option<PathBuf>,
    machine: Machine,
    reporter: Reporter,
    outbox: Outbox,
    blobs: HashMap<Digest, Blob>,
    /// Broadcasts that are subscribed, for as long as they are.
    listening: HashSet<Digest>,
    /// Answers of the null runtime that take their time.
    later: Vec<(Timestamp, SlotName, SlotInput)>,
    /// A desired state whose signer is not trusted yet.
    unsigned: Option<Bytes>,
    /// The version that it speaks of.
    subject: Subject,
    connection: Option<Connection>,
    /// When it connects next, while it has no connection.
    connect_at: Timestamp,
    was_seen: bool,
    work: watch::Receiver<Work>,
    speaks_at: Option<Timestamp>,
    said: u64,
    lots: Jitter,
}

/// One connection of the link, over as many of the broker's as it takes.
struct Connection {
    link: mqtt::Mqtt,
    task: JoinHandle<()>,
    events: mpsc::Receiver<LinkEvent>,
    up: bool,
    since: Timestamp,
    /// When it breaks, where it does.
    breaks_at: Option<Timestamp>,
    leaving: bool,
    /// Held until it is up for the first time.
    gate: Option<OwnedSemaphorePermit>,
    _berth: OwnedSemaphorePermit,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Device({})", self.id)
    }
}

impl Device {
    /// A device that has not connected yet. `seed` is that of the whole fleet.
    pub fn new(fleet: Arc<Fleet>, seat: Seat, seed: u64) -> Self {
        let Seat { number, identity, tls, board, character, saved, state } = seat;
        let id = identity.device.clone();
        let mut lots = Jitter::new(seed ^ !number);
        let seed = lots.next_u64();
        let now = fleet.now();
        let limits = budget::Limits::default();
        let mut machine = Machine::restore(id.clone(), board.clone(), limits, saved, seed, now);
        machine.set_wall_ahead_ms(character.clock_ahead_ms);
        let slot = "default".parse().expect("a slot's name");
        Self {
            reporter: Reporter::new(id.clone(), board, API.to_owned()),
            outbox: Outbox::new(id.clone(), seed),
            work: fleet.work.subscribe(),
            connect_at: now,
            fleet,
            id,
            identity,
            tls,
            character,
            state,
            machine,
            blobs: HashMap::new(),
            listening: HashSet::new(),
            later: Vec::new(),
            unsigned: None,
            subject: Subject { slot, version_id: work::NOBODY },
            connection: None,
            was_seen: false,
            speaks_at: None,
            said: 0,
            lots,
        }
    }

    /// Lives until `stop` says so; then says what is queued, goes, and keeps its state.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        self.tell(Note {
            slot: None,
            bundle: None,
            kind: EventKind::AgentStarted,
            detail: "simulated".to_owned(),
        });
        self.settle();
        let mut work = self.work.clone();
        self.plan_to_speak();
        while !*stop.borrow() {
            let now = self.fleet.now();
            if self.connection.is_none() && self.connect_at <= now {
                tokio::select! {
                    () = self.connect() => {}
                    _ = stop.changed() => break,
                }
                continue;
            }
            let wait = Duration::from_millis(self.due(now).since_ms(now));
            tokio::select! {
                event = next(&mut self.connection) => self.hear(event),
                () = tokio::time::sleep(wait) => {}
                Ok(()) = work.changed() => self.plan_to_speak(),
                _ = stop.changed() => break,
            }
            self.look();
        }
        self.leave_for_good().await;
    }

    /// Does what is due.
    fn look(&mut self) {
        let now = self.fleet.now();
        let is_due = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
        let mut answered = false;
        while let Some(at) = self.later.iter().position(|(at, ..)| *at <= now) {
            let (_, slot, input) = self.later.swap_remove(at);
            self.input(Input::Slot(slot, input));
            answered = true;
        }
        if answered || is_due(self.machine.poll_timeout()) {
            self.machine.handle_timeout(now);
            self.settle();
        }
        self.speak(now);
        self.send(now);
        let is_busy =
            !self.outbox.is_empty() || !self.machine.fetching().is_empty() || !self.later.is_empty();
        let Some(connection) = &mut self.connection else { return };
        if connection.gate.is_some() && connection.since.plus_ms(GATE_MS) <= now {
            connection.gate = None;
        }
        if is_due(connection.breaks_at) {
            self.break_off();
            return;
        }
        if self.fleet.are_turns_taken()
            && !is_busy
            && !connection.leaving
            && connection.since.plus_ms(STAY_MS) <= now
        {
            connection.leaving = true;
            let _ = say_offline(&connection.link, &self.id);
            connection.link.close();
        }
    }

    /// When there is something to do, at the latest.
    fn due(&self, now: Timestamp) -> Timestamp {
        let (mut at, up) = (now.plus_ms(LOOK_MS), self.is_up());
        let mut by = |due: Option<Timestamp>| at = due.map_or(at, |due| due.min(at));
        by(self.machine.poll_timeout());
        by(self.later.iter().map(|(at, ..)| *at).min());
        by(self.reporter.due().filter(|_| up));
        by(self.outbox.due().filter(|_| up));
        by(self.speaks_at);
        match &self.connection {
            Some(connection) => {
                by(connection.breaks_at);
                by(connection.gate.as_ref().map(|_| connection.since.plus_ms(GATE_MS)));
                // Whether somebody waits is looked at from then on.
                let stays = connection.since.plus_ms(STAY_MS);
                by(Some(if stays > now { stays } else { now.plus_ms(STAY_MS) }));
            }
            None => by(Some(self.connect_at)),
        }
        at
    }

    fn is_up(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.up)
    }

    /// Begins to connect where there is a place, as soon as not too many do so; otherwise looks again soon.
    async fn connect(&mut self) {
        let Ok(berth) = Arc::clone(&self.fleet.berths).try_acquire_owned() else {
            let wait_ms = between_ms(&mut self.lots, BERTH_MS.0, BERTH_MS.1);
            self.connect_at = self.fleet.now().plus_ms(wait_ms);
            return;
        };
        let Ok(gate) = Arc::clone(&self.fleet.gate).acquire_owned().await else { return };
        let (sender, events) = mpsc::channel(LINK_EVENTS_MAX);
        let settings = mqtt::Settings {
            identity: self.identity.clone(),
            tls: Arc::new(arc_swap::ArcSwap::new(Arc::clone(&self.tls))),
            keep_alive_ms: KEEP_ALIVE_MS,
            seed: self.lots.next_u64(),
        };
        let (link, task) = mqtt::Mqtt::start(settings, sender);
        let since = self.fleet.now();
        let stays_ms = between_ms(&mut self.lots, THERE_MS.0, THERE_MS.1);
        self.connection = Some(Connection {
            link,
            task,
            events,
            up: false,
            since,
            breaks_at: self.character.comes_and_goes.then(|| since.plus_ms(stays_ms)),
            leaving: false,
            gate: Some(gate),
            _berth: berth,
        });
    }

    /// The network is gone, without a goodbye: the broker says so by the last will.
    fn break_off(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.task.abort();
            self.handle_down(connection.up);
            self.settle();
        }
        self.connect_at = self.fleet.now().plus_ms(between_ms(&mut self.lots, AWAY_MS.0, AWAY_MS.1));
    }

    /// Something came over the link, or it has ended.
    fn hear(&mut self, event: Option<LinkEvent>) {
        let Some(event) = event else {
            let ended = self.connection.take();
            self.handle_down(ended.as_ref().is_some_and(|connection| connection.up));
            self.settle();
            let gave_way = ended.is_some_and(|connection| connection.leaving);
            let (least, most) = if gave_way { GAVE_WAY_MS } else { AWAY_MS };
            self.connect_at = self.fleet.now().plus_ms(between_ms(&mut self.lots, least, most));
            return;
        };
        let mut machine_was_told = self.handle(event);
        // A flood of chunks is worked off before the machine is asked.
        while let Some(event) =
            self.connection.as_mut().and_then(|connection| connection.events.try_recv().ok())
        {
            machine_was_told |= self.handle(event);
        }
        if machine_was_told {
            self.machine.handle_timeout(self.fleet.now());
            self.settle();
        }
    }

    fn input(&mut self, input: Input) {
        // What does not fit belongs to an attempt that is over, or is a wish that came again.
        let _ = self.machine.handle(input, self.fleet.now());
    }

    /// Does what the machine asks for, and takes in what the device has to report.
    fn settle(&mut self) {
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::Persist { notes, .. } => {
                    notes.into_iter().for_each(|note| self.tell(note));
                    self.input(Input::Persisted);
                }
                Action::Slot(slot, action) => self.act(slot, action),
            }
        }
        let now = self.fleet.now();
        let reports = self.machine.reports();
        let answering = reports.iter().find_map(|slot| Some((&slot.slot, slot.active.as_ref()?)));
        if let Some((slot, version)) = answering
            && version.version_id != self.subject.version_id
        {
            self.subject = Subject { slot: slot.clone(), version_id: version.version_id };
        }
        self.reporter.update(self.machine.generation(), reports, || None, self.character.wall(now));
        self.send(now);
    }

    /// An event for the fleet.
    fn tell(&mut self, note: Note) {
        let Note { slot, bundle, kind, detail } = note;
        self.fleet.counts.note(kind);
        let at = self.character.wall(self.fleet.now());
        let event = Event { id: Uuid::now_v7(), at, slot, bundle, kind, detail: wire::cut(&detail) };
        self.outbox.put_event(event, &self.fleet.counts);
    }

    fn send(&mut self, now: Timestamp) {
        if let Some(connection) = self.connection.as_ref().filter(|connection| connection.up) {
            self.reporter.publish(&connection.link, now);
            self.outbox.send(&connection.link, now);
        }
    }

    /// Offline on purpose: says so, and gives the connection a moment to take it.
    async fn leave_for_good(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            let sent = if connection.up { say_offline(&connection.link, &self.id) } else { None };
            if let Some(sent) = sent {
                let taken = async {
                    while let Some(event) = connection.events.recv().await {
                        let LinkEvent::Published { token, result } = event else { continue };
                        let now = self.fleet.now();
                        let _ = self.outbox.published(token, &result, now, &self.fleet.counts);
                        if token == sent {
                            break;
                        }
                    }
                };
                let _ = tokio::time::timeout(GOODBYE, taken).await;
            }
            connection.link.close();
            let closed = async { while connection.events.recv().await.is_some() {} };
            if tokio::time::timeout(GOODBYE, closed).await.is_err() {
                connection.task.abort();
            }
            self.handle_down(connection.up);
        }
        if let Some(path) = &self.state {
            let saved: Saved = self.machine.saved();
            if let Err(error) = super::files::write_state(path, &saved) {
                self.fleet.complain(format!("{}: its state is not kept: {error:#}", self.id));
            }
        }
    }
}

/// Says that the device goes; gives the token of that where it was sent.
fn say_offline(link: &mqtt::Mqtt, id: &DeviceId) -> Option<Token> {
    let offline = wire::encode_json("presence", &wire::Presence { online: false }).ok()?;
    link.publish(Topic::Presence(id.clone()).to_string(), offline, true).ok()
}

/// The next thing that comes over the link; never, without one.
async fn next(connection: &mut Option<Connection>) -> Option<LinkEvent> {
    match connection {
        Some(connection) => connection.events.recv().await,
        None => std::future::pending().await,
    }
}
