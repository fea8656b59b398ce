//! The models that answer requests: one pointer for each slot, swapped in one step.

use crate::clock;
use agent_core::{latency::Histogram, trial::Statistics, window};
use arc_swap::{ArcSwap, ArcSwapOption};
use runtime::{Golden, Runnable};
use shared::{Digest, ModelVersionId, SlotName, Timestamp, manifest::Manifest, wire::VersionRef};
use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// A version in memory, tested and warm.
#[derive(Debug)]
pub struct Loaded {
    pub version: VersionRef,
    pub manifest: Manifest,
    pub runnable: Arc<dyn Runnable>,
    pub golden: Golden,
    /// Microseconds of one inference when it was tested.
    pub measured_us: f64,
}

/// A slot as requests see it.
pub struct Serving {
    pub slot: SlotName,
    current: ArcSwapOption<Loaded>,
    /// The version before, while the current one is on trial.
    former: ArcSwapOption<Loaded>,
    shadow: ArcSwapOption<ShadowQueue>,
    meter: Mutex<Meter>,
    swaps: AtomicU64,
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serving({})", self.slot)
    }
}

/// What a slot counted.
#[derive(Debug)]
pub struct Meter {
    window: Window,
    /// Of the version before, for requests that it had begun when the current one took over.
    late: Option<Window>,
    trial: Option<(Digest, Statistics)>,
    pub requests: u64,
    pub failed: u64,
    /// Samples that were inferred, a batch counting as many.
    pub samples: u64,
    pub latency: Histogram,
    /// All that the histogram counted, exact where its sum is in whole microseconds.
    pub busy: Duration,
    pub last_at: Option<Timestamp>,
}

/// A telemetry window that is open.
#[derive(Debug)]
struct Window {
    counts: window::Window,
    since: Instant,
}

impl Window {
    fn open(slot: SlotName, version_id: ModelVersionId, now: Timestamp) -> Self {
        Self { counts: window::Window::open(slot, version_id, now), since: Instant::now() }
    }

    fn roll(&mut self, version_id: ModelVersionId, now: Timestamp) -> Option<window::Closed> {
        let since = std::mem::replace(&mut self.since, Instant::now());
        self.counts.roll(version_id, now, clock::elapsed_ms(since))
    }
}

/// Stands in telemetry for no version.
const NOBODY: ModelVersionId = ModelVersionId(uuid::Uuid::nil());

/// Requests of a trial that the version before is asked too.
pub type ShadowQueue = std::sync::mpsc::SyncSender<ShadowRequest>;

/// One request with what the version on trial said.
#[derive(Debug)]
pub struct ShadowRequest {
    /// What the model reads; rows of a table as they were sent.
    pub input: Vec<f32>,
    pub batch: usize,
    pub labels: Vec<usize>,
}

impl Serving {
    fn new(slot: SlotName, now: Timestamp) -> Self {
        Self {
            current: ArcSwapOption::empty(),
            former: ArcSwapOption::empty(),
            shadow: ArcSwapOption::empty(),
            meter: Mutex::new(Meter {
                window: Window::open(slot.clone(), NOBODY, now),
                late: None,
                trial: None,
                requests: 0,
                failed: 0,
                samples: 0,
                latency: Histogram::new(),
                busy: Duration::ZERO,
                last_at: None,
            }),
            swaps: AtomicU64::new(0),
            slot,
        }
    }

    /// The version that answers.
    pub fn current(&self) -> Option<Arc<Loaded>> {
        self.current.load_full()
    }

    /// The version before it, while it is still in memory.
    pub fn former(&self) -> Option<Arc<Loaded>> {
        self.former.load_full()
    }

    /// Lets `loaded` answer from now on. Requests under way finish on the version that they began with. Gives the
    /// telemetry of the version before.
    pub fn swap(&self, loaded: Option<Arc<Loaded>>, now: Timestamp) -> Vec<window::Closed> {
        let version_id = loaded.as_ref().map(|loaded| loaded.version.version_id);
        let old = self.current.swap(loaded);
        self.former.store(old);
        self.shadow.store(None);
        self.swaps.fetch_add(1, Ordering::Relaxed);
        let mut meter = self.meter();
        meter.trial = None;
        meter.roll(version_id.unwrap_or(NOBODY), now)
    }

    /// Swaps so far.
    pub fn swaps(&self) -> u64 {
        self.swaps.load(Ordering::Relaxed)
    }

    /// Begins to count for the trial of `bundle`; `shadow` takes requests for the version before.
    pub fn begin_trial(&self, bundle: Digest, shadow: Option<ShadowQueue>) {
        self.meter().trial = Some((bundle, Statistics::default()));
        self.shadow.store(shadow.map(Arc::new));
    }

    /// What the trial of `bundle` counted so far.
    pub fn trial(&self, bundle: Digest) -> Option<Statistics> {
        self.meter().trial.as_ref().filter(|(on_trial, _)| *on_trial == bundle).map(|(_, seen)| seen.clone())
    }

    /// Notes whether the version before agreed with the one of `bundle` on a request.
    pub fn compared(&self, bundle: Digest, agreed: bool) {
        if let Some((on_trial, statistics)) = &mut self.meter().trial {
            if *on_trial == bundle {
                statistics.compared += 1;
                statistics.agreed += u64::from(agreed);
            }
        }
    }

    /// Stops comparing and drops the version before from memory.
    pub fn forget_former(&self) {
        self.shadow.store(None);
        self.former.store(None);
    }

    /// Counts a request whose inference took `loaded` that long, or failed.
    pub fn record(&self, loaded: &Loaded, batch: usize, took: Option<Duration>, now: Timestamp) {
        let latency_us = took.map(|took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        let mut meter = self.meter();
        meter.requests += 1;
        meter.last_at = Some(now);
        match latency_us {
            Some(latency_us) => {
                meter.samples += batch as u64;
                meter.latency.record(latency_us);
                meter.busy = meter.busy.saturating_add(took.unwrap_or_default());
            }
            None => meter.failed += 1,
        }
        meter.count(&self.slot, loaded.version.version_id, latency_us, now);
        if let Some((bundle, statistics)) = &mut meter.trial {
            if *bundle == loaded.version.bundle {
                statistics.requests += 1;
                match latency_us {
                    Some(latency_us) => statistics.latency.record(latency_us),
                    None => statistics.failed += 1,
                }
            }
        }
    }

    /// Offers a request to the version before, where a trial runs and there is room.
    pub fn offer_to_former(&self, loaded: &Loaded, input: &[f32], batch: usize, output: &[f32]) {
        let queue = self.shadow.load();
        let Some(queue) = queue.as_ref() else { return };
        let outputs = loaded.manifest.output.elements().max(1);
        let classes = loaded.manifest.labels.len().min(outputs);
        if input.len() > SHADOW_ELEMENTS_MAX {
            return;
        }
        // Of several answers the first is compared.
        let best = |row: &[f32]| runtime::golden::argmax(&row[..classes]);
        let labels = output.chunks_exact(outputs).map(best).collect();
        // A full queue means that enough is being compared.
        let _ = queue.try_send(ShadowRequest { input: input.to_vec(), batch, labels });
    }

    /// Closes the telemetry windows.
    pub fn roll_window(&self, now: Timestamp) -> Vec<window::Closed> {
        let mut meter = self.meter();
        let version_id = meter.window.counts.version_id();
        meter.roll(version_id, now)
    }

    /// The counters.
    pub fn meter(&self) -> MutexGuard<'_, Meter> {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Meter {
    fn roll(&mut self, version_id: ModelVersionId, now: Timestamp) -> Vec<window::Closed> {
        let late = self.late.take().and_then(|mut late| late.roll(NOBODY, now));
        late.into_iter().chain(self.window.roll(version_id, now)).collect()
    }

    /// Counts a request in the window of the version that answered it.
    fn count(
        &mut self,
        slot: &SlotName,
        version_id: ModelVersionId,
        latency_us: Option<u64>,
        now: Timestamp,
    ) {
        if self.window.counts.version_id() == version_id {
            self.window.counts.record(latency_us);
            return;
        }
        let late = self.late.get_or_insert_with(|| Window::open(slot.clone(), version_id, now));
        // Two swaps while one request ran: it belongs to neither window.
        if late.counts.version_id() == version_id {
            late.counts.record(latency_us);
        }
    }
}

/// Largest request that is compared, in values.
const SHADOW_ELEMENTS_MAX: usize = 1 << 20;

/// All slots.
#[derive(Debug)]
pub struct Models {
    slots: ArcSwap<Vec<Arc<Serving>>>,
}

impl Default for Models {
    fn default() -> Self {
        Self { slots: ArcSwap::from_pointee(Vec::new()) }
    }
}

impl Models {
    /// The slot of that name, made where it is missing.
    pub fn slot(&self, name: &SlotName, now: Timestamp) -> Arc<Serving> {
        if let Some(serving) = self.slots.load().iter().find(|serving| serving.slot == *name) {
            return serving.clone();
        }
        let made = Arc::new(Serving::new(name.clone(), now));
        let mut found = made.clone();
        self.slots.rcu(|slots| {
            if let Some(there) = slots.iter().find(|serving| serving.slot == *name) {
                found = there.clone();
                return slots.clone();
            }
            found = made.clone();
            let mut slots = slots.as_ref().clone();
            slots.push(made.clone());
            slots.sort_by(|a, b| a.slot.cmp(&b.slot));
            Arc::new(slots)
        });
        found
    }

    /// Takes a slot away and gives the telemetry of the version that answered in it.
    pub fn remove(&self, name: &SlotName, now: Timestamp) -> Vec<window::Closed> {
        let before = self
            .slots
            .rcu(|slots| slots.iter().filter(|serving| serving.slot != *name).cloned().collect::<Vec<_>>());
        let removed = before.iter().find(|serving| serving.slot == *name);
        removed.map_or_else(Vec::new, |serving| serving.swap(None, now))
    }

    /// All slots, by name.
    pub fn all(&self) -> Arc<Vec<Arc<Serving>>> {
        self.slots.load_full()
    }

    /// The slot named `name`, or else the first that serves a model named `name`.
    pub fn find(&self, name: &str) -> Option<(Arc<Serving>, Arc<Loaded>)> {
        let slots = self.slots.load();
        let by_slot = slots.iter().find(|serving| serving.slot.as_str() == name);
        if let Some(serving) = by_slot {
            if let Some(loaded) = serving.current() {
                return Some((serving.clone(), loaded));
            }
        }
        slots.iter().find_map(|serving| {
            let loaded = serving.current()?;
            (loaded.version.model.as_str() == name).then(|| (serving.clone(), loaded))
        })
    }
}

#[cfg(test)]
mod tests;
