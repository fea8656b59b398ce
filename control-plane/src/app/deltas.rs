//! Deltas between the files of versions: made once for each pair of files, beside the planner, and named in the
//! assignments of devices that have the older file.

use super::{App, Error, Result, chain, now};
use crate::store::{
    blobs::Blobs,
    deltas::{DeviceDeltas, Made},
};
use control_core::{
    entity::Version,
    rollout::{Action, Fleet, Plan},
};
use shared::{
    Digest, ModelVersionId, Timestamp, limits,
    manifest::{FileEntry, MODEL_FILE},
    wire::DeltaRef,
};
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, PoisonError},
};
use tokio::sync::Semaphore;

/// A delta is named only where it saves at least this part of the file.
pub const SAVED_PERCENT_MIN: u64 = 10;
/// Files below this size come whole.
pub const FILE_BYTES_MIN: u64 = 4096;
/// How long a rollout waits for a delta to be made before it goes on without.
pub const WAIT_MS_MAX: u64 = 30_000;
/// Most deltas that are being made or wait for their turn.
pub const MAKING_MAX: usize = 32;
/// Most deltas that are remembered as impossible.
const FAILED_MAX: usize = 1024;
/// How soon a rollout looks again for a delta, unless it is woken.
pub(super) const LOOK_MS: u64 = 250;

/// What is being made.
#[derive(Debug)]
pub(super) struct Deltas {
    pairs: std::sync::Mutex<HashMap<(Digest, Digest), Making>>,
    /// One at a time: it takes a processor.
    turn: Semaphore,
}

impl Default for Deltas {
    fn default() -> Self {
        Self { pairs: std::sync::Mutex::default(), turn: Semaphore::new(1) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Making {
    Since(Timestamp),
    /// The log says why; not tried again before the next start.
    Failed,
}

impl Deltas {
    fn pairs(&self) -> std::sync::MutexGuard<'_, HashMap<(Digest, Digest), Making>> {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the devices of a plan can be told.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) devices: DeviceDeltas,
    /// More are being made and are worth the wait.
    pub(super) pending: bool,
}

impl App {
    /// The deltas to the files of `version` for the devices that `plan` assigns it to, from what they say they have in
    /// the slot. Those that are not there begin to be made.
    pub(super) async fn find_deltas(
        self: &Arc<Self>,
        version: &Version,
        plan: &Plan,
        fleet: &Fleet,
    ) -> Result<Found> {
        let mut found = Found::default();
        let mut by_base: HashMap<ModelVersionId, Vec<DeltaRef>> = HashMap::new();
        for action in &plan.actions {
            let Action::Assign { device, .. } = action else { continue };
            let Some(slot) = fleet.get(device).and_then(|seen| seen.slot.as_ref()) else { continue };
            let Some(base) = slot.active.as_ref().or(slot.last_good.as_ref()) else { continue };
            let deltas = match by_base.entry(base.version_id) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    new.insert(self.deltas_between(base.version_id, version, &mut found.pending).await?)
                }
            };
            if !deltas.is_empty() {
                found.devices.insert(device.clone(), deltas.clone());
            }
        }
        Ok(found)
    }

    async fn deltas_between(
        self: &Arc<Self>,
        base: ModelVersionId,
        version: &Version,
        pending: &mut bool,
    ) -> Result<Vec<DeltaRef>> {
        let Some(base) = self.store.version(base).await? else { return Ok(Vec::new()) };
        let mut deltas = Vec::new();
        for file in &version.files {
            let from = base.files.iter().find(|from| from.name == file.name);
            let Some(from) = from.filter(|from| is_worth_a_try(from, file)) else { continue };
            match self.store.delta(from.digest, file.digest).await? {
                Some(Made::Delta(delta)) => deltas.push(delta),
                Some(Made::NotWorthIt) => {}
                None => *pending |= self.is_being_made(from, file),
            }
        }
        deltas.truncate(limits::DELTAS_MAX);
        Ok(deltas)
    }

    /// Is the delta being made, and worth the wait? Begins to make it where nobody has.
    fn is_being_made(self: &Arc<Self>, from: &FileEntry, to: &FileEntry) -> bool {
        let pair = (from.digest, to.digest);
        let mut pairs = self.deltas.pairs();
        match pairs.get(&pair) {
            Some(Making::Failed) => return false,
            Some(Making::Since(since)) => return now().since_ms(*since) < WAIT_MS_MAX,
            None => {}
        }
        let making = pairs.values().filter(|making| **making != Making::Failed).count();
        if making >= MAKING_MAX {
            return false;
        }
        if pairs.len() - making >= FAILED_MAX {
            pairs.retain(|_, making| *making != Making::Failed);
        }
        pairs.insert(pair, Making::Since(now()));
        drop(pairs);
        let (app, from, to) = (Arc::clone(self), from.clone(), to.clone());
        tokio::spawn(async move {
            let made = app.make_delta(&from, &to).await;
            let mut pairs = app.deltas.pairs();
            match made {
                Ok(()) => {
                    pairs.remove(&pair);
                }
                Err(error) => {
                    tracing::error!("no delta to {} of {}: {}", to.name, to.digest, chain(&error));
                    pairs.insert(pair, Making::Failed);
                }
            }
            drop(pairs);
            app.planner_wake.notify_one();
        });
        true
    }

    async fn make_delta(&self, from: &FileEntry, to: &FileEntry) -> Result<()> {
        let internal = |error: &dyn std::error::Error| Error::Internal(chain(error));
        let _turn = self.deltas.turn.acquire().await.map_err(|error| internal(&error))?;
        if self.is_stopping() {
            return Ok(());
        }
        let blobs = self.store.blobs.clone();
        let (old, new) = (from.clone(), to.clone());
        let made = tokio::task::spawn_blocking(move || make(&blobs, &old, &new)).await;
        let made = made.map_err(|error| internal(&error))??;
        if let Made::Delta(delta) = made {
            tracing::info!("{} of {} bytes is a delta of {}", to.name, to.size_bytes, delta.bytes);
        }
        Ok(self.store.add_delta(from.digest, to.digest, made, now()).await?)
    }
}

fn is_worth_a_try(from: &FileEntry, to: &FileEntry) -> bool {
    from.digest != to.digest
        && to.size_bytes >= FILE_BYTES_MIN
        && from.size_bytes.max(to.size_bytes) <= limits::DELTA_FILE_BYTES_MAX
}

fn make(blobs: &Blobs, from: &FileEntry, to: &FileEntry) -> Result<Made> {
    let failed = |error: delta::Error| Error::Internal(chain(&error));
    let (old, new) = (blobs.read(&from.digest)?, blobs.read(&to.digest)?);
    let regions = if to.name == MODEL_FILE { delta::onnx::regions(&old, &new) } else { Vec::new() };
    let bytes = delta::make(&old, &new, &regions).map_err(failed)?;
    let size_bytes = bytes.len() as u64;
    if size_bytes * 100 > to.size_bytes * (100 - SAVED_PERCENT_MIN) {
        return Ok(Made::NotWorthIt);
    }
    // As a device will, once, before a fleet does.
    let limits = delta::Limits { old_bytes_max: from.size_bytes, new_bytes_max: to.size_bytes };
    delta::apply(&old, &bytes, limits).map_err(failed)?;
    let (digest, bytes) = blobs.put(&bytes[..])?;
    Ok(Made::Delta(DeltaRef { from: from.digest, to: to.digest, delta: digest, bytes }))
}

#[cfg(test)]
mod tests;
