//! The models that answer requests: one pointer for each slot, swapped in one step.

use agent_core::{latency::Histogram, trial::Statistics, window};
use arc_swap::{ArcSwap, ArcSwapOption};
use runtime::{Golden, Runnable};
use shared::{Digest, SlotName, Timestamp, limits, manifest::Manifest, wire::VersionRef};
use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
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
    window: window::Window,
    trial: Option<(Digest, Statistics)>,
    pub requests: u64,
    pub failed: u64,
    /// Samples that were inferred, a batch counting as many.
    pub samples: u64,
    pub latency: Histogram,
    pub last_at: Option<Timestamp>,
}

/// Requests of a trial that the version before is asked too.
pub type ShadowQueue = std::sync::mpsc::SyncSender<ShadowRequest>;

/// One request with what the version on trial said.
#[derive(Debug)]
pub struct ShadowRequest {
    pub input: Vec<f32>,
    pub batch: usize,
    pub labels: Vec<usize>,
}

impl Serving {
    fn new(slot: SlotName, now: Timestamp) -> Self {
        let nobody = shared::ModelVersionId(uuid::Uuid::nil());
        Self {
            current: ArcSwapOption::empty(),
            former: ArcSwapOption::empty(),
            shadow: ArcSwapOption::empty(),
            meter: Mutex::new(Meter {
                window: window::Window::open(slot.clone(), nobody, now),
                trial: None,
                requests: 0,
                failed: 0,
                samples: 0,
                latency: Histogram::new(),
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
    pub fn swap(&self, loaded: Option<Arc<Loaded>>, now: Timestamp) -> Option<window::Closed> {
        let version_id = loaded.as_ref().map(|loaded| loaded.version.version_id);
        let old = self.current.swap(loaded);
        self.former.store(old);
        self.shadow.store(None);
        self.swaps.fetch_add(1, Ordering::Relaxed);
        let mut meter = self.meter();
        meter.trial = None;
        meter.window.roll(version_id.unwrap_or(shared::ModelVersionId(uuid::Uuid::nil())), now)
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

    /// Counts a request that `loaded` answered in `latency_us`, or failed.
    pub fn record(&self, loaded: &Loaded, batch: usize, latency_us: Option<u64>, now: Timestamp) {
        let mut meter = self.meter();
        meter.requests += 1;
        meter.last_at = Some(now);
        match latency_us {
            Some(latency_us) => {
                meter.samples += batch as u64;
                meter.latency.record(latency_us);
            }
            None => meter.failed += 1,
        }
        meter.window.record(latency_us);
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
        let classes = loaded.manifest.output.elements().max(1);
        if input.len() > SHADOW_ELEMENTS_MAX {
            return;
        }
        let labels = output.chunks_exact(classes).map(runtime::golden::argmax).collect();
        // A full queue means that enough is being compared.
        let _ = queue.try_send(ShadowRequest { input: input.to_vec(), batch, labels });
    }

    /// Closes the telemetry window.
    pub fn roll_window(&self, now: Timestamp) -> Option<window::Closed> {
        let version_id = self.current.load().as_ref().map(|loaded| loaded.version.version_id);
        self.meter().window.roll(version_id.unwrap_or(shared::ModelVersionId(uuid::Uuid::nil())), now)
    }

    /// The counters.
    pub fn meter(&self) -> MutexGuard<'_, Meter> {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut slots = self.slots.load().as_ref().clone();
        debug_assert!(slots.len() < limits::SLOTS_MAX * 2);
        let serving = Arc::new(Serving::new(name.clone(), now));
        slots.push(serving.clone());
        slots.sort_by(|a, b| a.slot.cmp(&b.slot));
        self.slots.store(Arc::new(slots));
        serving
    }

    /// Takes a slot away.
    pub fn remove(&self, name: &SlotName) {
        let slots = self.slots.load().iter().filter(|serving| serving.slot != *name).cloned().collect();
        self.slots.store(Arc::new(slots));
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
