//! A thread of low priority that does for the updater what takes long: hashing files, testing and loading
//! models. Requests go on beside it with bounded latency.

use crate::{
    blobs::{self, Blobs},
    clock::wall,
    engine::{self, Engine},
    models::{Loaded, Models, Serving, ShadowQueue, ShadowRequest},
    trust::Trust,
};
use agent_core::{
    update::{Base, SlotAction, SlotInput},
    window,
};
use shared::{
    Digest, SlotName, limits,
    manifest::standardise,
    signing::Keyring,
    wire::{Refusal, VersionRef},
};
use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread,
};
use tokio::sync::mpsc as queue;

/// Jobs that wait for the thread, and outcomes that wait for the updater. While there is no room for a job the updater
/// takes nothing more from its machine and its link; the thread waits for room for an outcome. The updater never waits
/// for the thread, so neither waits for the other.
pub const JOBS_MAX: usize = 64;
/// Requests that wait to be compared with the version before.
const SHADOW_QUEUE_MAX: usize = 8;
/// Lowers the priority of the calling thread by this much.
const NICE: i32 = 10;

/// What the thread works with.
#[derive(Debug)]
pub struct Installer {
    pub blobs: Arc<Blobs>,
    pub models: Arc<Models>,
    pub engine: Arc<Engine>,
    pub trust: Arc<Trust>,
    pub disk_reserve_bytes: u64,
}

/// A piece of work.
#[derive(Debug)]
pub struct Job {
    pub slot: SlotName,
    pub work: Work,
    /// The runtime that the slot's version was put on when it was installed.
    pub runtime: Option<String>,
}

/// What shall be done.
#[derive(Debug)]
pub enum Work {
    /// As the update machine asks.
    Action(SlotAction),
    /// Begin to count for the trial of `bundle`, and ask `fallback` the same requests.
    BeginTrial { bundle: Digest, fallback: Option<VersionRef> },
}

/// What came of a job; there is one for each, which also tells that there is room for another.
#[derive(Debug)]
pub struct Done {
    pub slot: SlotName,
    /// The answer to the action, where it has one.
    pub input: Option<SlotInput>,
    /// Telemetry of the version that stopped answering.
    pub closed: Vec<window::Closed>,
}

/// What the thread remembers between jobs.
#[derive(Debug, Default)]
struct Desk {
    /// One tested version for each slot, waiting to be activated.
    staged: HashMap<SlotName, Arc<Loaded>>,
    /// Files that each slot has been promised room for.
    claims: HashMap<SlotName, Vec<(Digest, u64)>>,
}

impl Installer {
    /// Starts the thread. `done` is called on it with the outcome of each job.
    pub fn start(self, done: impl Fn(Done) + Send + 'static) -> std::io::Result<queue::Sender<Job>> {
        let (sender, mut jobs) = queue::channel::<Job>(JOBS_MAX);
        thread::Builder::new().name("installer".to_owned()).spawn(move || {
            lower_priority();
            let mut desk = Desk::default();
            while let Some(job) = jobs.blocking_recv() {
                let slot = job.slot.clone();
                let refusal = refusal_after_a_panic(&job.work);
                // A bundle that makes a library panic is refused; the thread goes on with the next.
                let worked = catch_unwind(AssertUnwindSafe(|| self.work(job, &mut desk)));
                let (input, closed) = worked.unwrap_or((refusal, Vec::new()));
                done(Done { slot, input, closed });
            }
        })?;
        Ok(sender)
    }

    fn work(&self, job: Job, desk: &mut Desk) -> (Option<SlotInput>, Vec<window::Closed>) {
        let Job { slot, work, runtime } = job;
        let action = match work {
            Work::Action(action) => action,
            Work::BeginTrial { bundle, fallback } => {
                self.begin_trial(&slot, bundle, fallback);
                return (None, Vec::new());
            }
        };
        let input = match action {
            SlotAction::Activate { version } => {
                return self.activate(&slot, &version, runtime.as_deref(), desk);
            }
            SlotAction::Deactivate => {
                desk.staged.remove(&slot);
                desk.claims.remove(&slot);
                return (None, self.models.remove(&slot, wall()));
            }
            SlotAction::OpenBlob { digest, size_bytes, chunk_bytes } => {
                match self.blobs.open(digest, size_bytes, chunk_bytes) {
                    Ok(fetched) => SlotInput::BlobOpened { digest, fetched },
                    Err(error) => storage_failed(digest, &error),
                }
            }
            SlotAction::VerifyBlob { digest, size_bytes } => match self.blobs.finish(digest, size_bytes) {
                Ok(()) => SlotInput::BlobVerified { digest },
                Err(error @ blobs::Error::Corrupt { .. }) => {
                    SlotInput::BlobCorrupt { digest, detail: crate::chain(&error) }
                }
                Err(error) => storage_failed(digest, &error),
            },
            SlotAction::LookForBase { digest, size_bytes, from } => {
                match self.blobs.look_for_base(digest, size_bytes, from) {
                    Ok(base) => SlotInput::BaseLookedFor { digest, base },
                    Err(error) => storage_failed(digest, &error),
                }
            }
            SlotAction::ApplyDelta { delta, size_bytes } => {
                let digest = delta.delta;
                match self.blobs.apply_delta(&delta, size_bytes) {
                    Ok(()) => SlotInput::DeltaApplied { delta: digest },
                    Err(error) if error.is_transient() && !error.is_missing() => {
                        storage_failed(digest, &error)
                    }
                    Err(error) => SlotInput::DeltaRefused { delta: digest, detail: crate::chain(&error) },
                }
            }
            SlotAction::ReadManifest { version, newest } => self.read_manifest(&version, newest.as_ref()),
            SlotAction::Reserve { bundle, files } => {
                let files: Vec<_> = files.iter().map(|file| (file.digest, file.size_bytes)).collect();
                let others = desk.claims.iter().filter(|(claimant, _)| **claimant != slot);
                let claimed: Vec<_> = others.flat_map(|(_, files)| files.iter().copied()).collect();
                match self.blobs.check_space(&files, &claimed, self.disk_reserve_bytes) {
                    Ok(()) => {
                        desk.claims.insert(slot, files);
                        SlotInput::Reserved { bundle }
                    }
                    Err(detail) => SlotInput::StorageFailed { bundle, detail },
                }
            }
            SlotAction::Test { version, manifest } => {
                let bundle = version.bundle;
                match self.engine.load(&self.blobs, &version, &manifest, None) {
                    Ok(loaded) => {
                        let runtime = loaded.runnable.runtime().to_owned();
                        desk.claims.remove(&slot);
                        desk.staged.insert(slot, Arc::new(loaded));
                        SlotInput::Tested { bundle, runtime }
                    }
                    Err(error) if error.is_transient() => storage_failed(bundle, &error),
                    Err(error) => SlotInput::TestRefused {
                        bundle,
                        reason: error.refusal(),
                        detail: crate::chain(&error),
                    },
                }
            }
            SlotAction::ConcludeTrial { version } => {
                let serving = self.models.slot(&slot, wall());
                let statistics = serving.trial(version.bundle).unwrap_or_default();
                let golden = match (statistics.requests, serving.current()) {
                    (0, Some(loaded)) => loaded
                        .golden
                        .check(loaded.runnable.as_ref(), loaded.manifest.golden_tolerance)
                        .map(|_| ())
                        .map_err(|mismatch| mismatch.to_string()),
                    _ => Ok(()),
                };
                SlotInput::TrialConcluded { bundle: version.bundle, statistics: Box::new(statistics), golden }
            }
            SlotAction::Discard { bundle } => {
                desk.staged.retain(|_, loaded| loaded.version.bundle != bundle);
                desk.claims.remove(&slot);
                return (None, Vec::new());
            }
            // The updater does these itself.
            SlotAction::Want(_)
            | SlotAction::Collect
            | SlotAction::GiveUpBlob { .. }
            | SlotAction::StopListening => return (None, Vec::new()),
        };
        (Some(input), Vec::new())
    }

    fn read_manifest(&self, version: &VersionRef, newest: Option<&VersionRef>) -> SlotInput {
        let bundle = version.bundle;
        if let Err(denied) = self.trust.allows(version, newest) {
            return SlotInput::ManifestRefused {
                bundle,
                reason: denied.refusal(),
                detail: denied.to_string(),
            };
        }
        match engine::read_manifest(&self.blobs, bundle, &self.trust.keyring()) {
            Ok(manifest) => SlotInput::ManifestRead { bundle, manifest: Box::new(manifest) },
            Err(error) if error.is_transient() => storage_failed(bundle, &error),
            Err(error) => SlotInput::ManifestRefused {
                bundle,
                reason: Refusal::BadManifest,
                detail: crate::chain(&error),
            },
        }
    }

    /// Finds the version in memory or loads it, lets it answer, and begins its trial's count.
    fn activate(
        &self,
        slot: &SlotName,
        version: &VersionRef,
        runtime: Option<&str>,
        desk: &mut Desk,
    ) -> (Option<SlotInput>, Vec<window::Closed>) {
        let bundle = version.bundle;
        let serving = self.models.slot(slot, wall());
        let held =
            |loaded: &Option<Arc<Loaded>>| loaded.as_ref().is_some_and(|held| held.version.bundle == bundle);
        let current = serving.current();
        if held(&current) {
            let runtime = current.map_or_else(String::new, |loaded| loaded.runnable.runtime().to_owned());
            return (Some(SlotInput::Activated { bundle, runtime }), Vec::new());
        }
        let staged = desk.staged.get(slot).cloned();
        if held(&staged) {
            desk.staged.remove(slot);
        }
        let found = [staged, serving.former()].into_iter().find(held).flatten();
        let loaded = match found {
            Some(loaded) => loaded,
            None => match self.load(version, runtime) {
                Ok(loaded) => Arc::new(loaded),
                Err(error) => {
                    return (
                        Some(SlotInput::NotActivated { bundle, detail: crate::chain(&error) }),
                        Vec::new(),
                    );
                }
            },
        };
        let runtime = loaded.runnable.runtime().to_owned();
        let closed = serving.swap(Some(loaded), wall());
        (Some(SlotInput::Activated { bundle, runtime }), closed)
    }

    fn begin_trial(&self, slot: &SlotName, bundle: Digest, fallback: Option<VersionRef>) {
        let serving = self.models.slot(slot, wall());
        let former = fallback.and_then(|version| {
            let held = serving.former().filter(|former| former.version.bundle == version.bundle);
            // After a restart only the version on trial is in memory.
            held.or_else(|| self.load(&version, None).ok().map(Arc::new))
        });
        let comparable = former.filter(|former| {
            serving
                .current()
                .is_some_and(|current| current.manifest.input.shape == former.manifest.input.shape)
        });
        let queue = comparable.and_then(|former| match shadow(serving.clone(), bundle, former) {
            Ok(queue) => Some(queue),
            Err(error) => {
                tracing::warn!(%error, "no thread to compare with the version before");
                None
            }
        });
        serving.begin_trial(bundle, queue);
    }

    fn load(&self, version: &VersionRef, runtime: Option<&str>) -> Result<Loaded, engine::Error> {
        let manifest = engine::read_manifest(&self.blobs, version.bundle, &self.trust.keyring())?;
        self.engine.load(&self.blobs, version, &manifest, runtime)
    }
}

/// Asks `former` every request that comes over the queue, on a thread of its own that ends when the queue does.
fn shadow(serving: Arc<Serving>, bundle: Digest, former: Arc<Loaded>) -> std::io::Result<ShadowQueue> {
    let (queue, requests) = mpsc::sync_channel::<ShadowRequest>(SHADOW_QUEUE_MAX);
    thread::Builder::new().name("shadow".to_owned()).spawn(move || {
        lower_priority();
        let labels = |loaded: &Loaded, index: usize| loaded.manifest.labels.get(index).cloned();
        let mut output = Vec::new();
        while let Ok(request) = requests.recv() {
            let Some(current) = serving.current() else { return };
            // Rows of a table come as they were sent: each version has its own way to standardise them.
            let mut input = request.input;
            standardise(&former.manifest.preprocess.columns, &mut input);
            let ran = former.runnable.run_into(&input, request.batch, &mut output);
            let agreed = ran.is_ok()
                && output
                    .chunks_exact(former.manifest.output.elements().max(1))
                    .map(|row| runtime::golden::argmax(&row[..former.manifest.labels.len().min(row.len())]))
                    .zip(&request.labels)
                    .all(|(was, is)| labels(&former, was) == labels(&current, *is));
            serving.compared(bundle, agreed);
        }
    })?;
    Ok(queue)
}

/// The files of `bundle`, for keeping; none before its manifest has come.
///
/// # Errors
/// The manifest is there and cannot be read: nobody knows which files are needed.
pub fn files_of(blobs: &Blobs, bundle: Digest, keyring: &Keyring) -> Result<Vec<Digest>, engine::Error> {
    match engine::read_manifest(blobs, bundle, keyring) {
        Ok(manifest) => {
            Ok(manifest.files.iter().map(|file| file.digest).take(limits::BUNDLE_FILES_MAX).collect())
        }
        Err(engine::Error::Blob(error)) if error.is_missing() => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The machine waits and tries again, whatever the disk's reason. `digest` is the bundle's or the blob's.
fn storage_failed(digest: Digest, error: &dyn std::error::Error) -> SlotInput {
    SlotInput::StorageFailed { bundle: digest, detail: crate::chain(error) }
}

/// What the machine hears of work that panicked; the panic itself is on standard error.
fn refusal_after_a_panic(work: &Work) -> Option<SlotInput> {
    let Work::Action(action) = work else { return None };
    let detail = "the agent panicked at it".to_owned();
    match action {
        SlotAction::OpenBlob { digest, .. } | SlotAction::VerifyBlob { digest, .. } => {
            Some(SlotInput::StorageFailed { bundle: *digest, detail })
        }
        SlotAction::LookForBase { digest, .. } => {
            Some(SlotInput::BaseLookedFor { digest: *digest, base: Base::Missing })
        }
        SlotAction::ApplyDelta { delta, .. } => Some(SlotInput::DeltaRefused { delta: delta.delta, detail }),
        SlotAction::Reserve { bundle, .. } => Some(SlotInput::StorageFailed { bundle: *bundle, detail }),
        SlotAction::ReadManifest { version, .. } => {
            Some(SlotInput::ManifestRefused { bundle: version.bundle, reason: Refusal::BadManifest, detail })
        }
        SlotAction::Test { version, .. } => {
            Some(SlotInput::TestRefused { bundle: version.bundle, reason: Refusal::NotLoadable, detail })
        }
        SlotAction::Activate { version } => Some(SlotInput::NotActivated { bundle: version.bundle, detail }),
        SlotAction::ConcludeTrial { version } => Some(SlotInput::TrialConcluded {
            bundle: version.bundle,
            statistics: Box::default(),
            golden: Err(detail),
        }),
        SlotAction::Deactivate
        | SlotAction::Discard { .. }
        | SlotAction::Want(_)
        | SlotAction::Collect
        | SlotAction::GiveUpBlob { .. }
        | SlotAction::StopListening => None,
    }
}

/// Linux keeps a priority for each thread; the identifier zero is the caller.
pub(crate) fn lower_priority() {
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "the priority of a background thread stays as it is");
    }
}

#[cfg(test)]
mod tests;
