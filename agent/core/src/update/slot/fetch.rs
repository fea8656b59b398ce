//! From a target to its files on disk: blob after blob, chunk after chunk.

use super::{Blob, Fetched, Receive, Slot, SlotAction, State, Step, Target, Wait};
use crate::chunks::ChunkSet;
use shared::{
    Digest, Timestamp, limits,
    manifest::{FileEntry, Manifest},
    wire::{self, Assignment, EventKind, Phase, Refusal},
};

/// Chunks that may be asked for and not have come.
pub(in super::super) const WINDOW_CHUNKS: u32 = 64;
/// Times that chunks are asked for again with none coming before the attempt is abandoned.
const WANT_TRIES_MAX: u32 = 60;
/// Times that the disk is waited for before the attempt is abandoned.
const SPACE_TRIES_MAX: u32 = 60;

impl Slot {
    /// The blob in work.
    pub(in crate::update) fn fetching(&self) -> Option<Digest> {
        match self.step()? {
            Step::Opening(blob) | Step::Verifying(blob) | Step::Applying(blob) => Some(blob.digest),
            Step::Receiving(receive) => Some(receive.blob.digest),
            Step::ReadingManifest | Step::Reserving | Step::Choosing { .. } => None,
        }
    }

    pub(in crate::update) fn handle_online(&mut self, online: bool, now: Timestamp) {
        self.online = online;
        if !online {
            return;
        }
        self.want_wait.reset();
        if matches!(self.step(), Some(Step::Receiving(_))) {
            let again_at = now.plus_ms(self.want_wait.next_ms());
            self.forget_asked(again_at);
        }
    }

    pub(in crate::update) fn handle_chunk(&mut self, digest: Digest, index: u32, now: Timestamp) {
        let State::Fetching { step: Step::Receiving(receive), .. } = &mut self.state else { return };
        if receive.blob.digest != digest || !receive.present.insert(index) {
            return;
        }
        receive.asked.remove(index);
        self.want_wait.reset();
        if receive.present.is_full() {
            let blob = receive.blob.clone();
            self.verify(blob);
            return;
        }
        receive.again_at = now.plus_ms(self.want_wait.next_ms());
        receive.hungry |= receive.asked.count() <= WINDOW_CHUNKS / 2;
    }

    pub(in crate::update) fn handle_chunk_not_stored(
        &mut self,
        digest: Digest,
        detail: &str,
        now: Timestamp,
    ) {
        let State::Fetching { step: Step::Receiving(receive), .. } = &self.state else { return };
        if receive.blob.digest == digest {
            self.wait_for_storage(detail, now);
        }
    }

    pub(super) fn begin_attempt(&mut self) {
        let Some(target) = &self.saved.target else { return };
        let (digest, size_bytes) = (target.bundle(), target.assignment.bundle_bytes);
        let blob = Blob { digest, size_bytes, file: None, delta: None };
        self.chunks_before = 0;
        self.open(None, blob);
    }

    pub(super) fn open(&mut self, manifest: Option<Box<Manifest>>, blob: Blob) {
        let chunk_bytes = self.chunk_bytes();
        self.actions.push_back(SlotAction::OpenBlob {
            digest: blob.digest,
            size_bytes: blob.size_bytes,
            chunk_bytes,
        });
        self.state = State::Fetching { manifest, step: Step::Opening(blob) };
    }

    pub(super) fn opened(&mut self, blob: Blob, fetched: Fetched, now: Timestamp) {
        let total = wire::chunk_count(blob.size_bytes, self.chunk_bytes());
        let present = match fetched {
            Fetched::Whole => {
                self.next_blob(&blob);
                return;
            }
            Fetched::Part(present) if present.total() == total => present,
            // The shell counts in other chunks: take none of them on trust.
            Fetched::Part(_) => ChunkSet::empty(total),
        };
        let mut what =
            blob.file.and_then(|at| self.file(at)).map_or_else(|| "manifest".to_owned(), |file| file.name);
        if blob.delta.is_some() {
            what.push_str(" as a delta");
        }
        let bundle = Some(self.target_bundle());
        if present.count() > 0 {
            let detail = format!("{what} from chunk {} of {total}", present.count());
            self.note(EventKind::DownloadResumed, bundle, detail);
            self.announced = true;
        } else if !self.announced {
            self.announced = true;
            let version = self.saved.target.as_ref().map(Target::version);
            let detail =
                version.map_or_else(String::new, |version| format!("{} {}", version.model, version.version));
            self.note(EventKind::DownloadStarted, bundle, detail);
        }
        if present.is_full() {
            self.verify(blob);
            return;
        }
        self.want_wait.reset();
        let again_at = now.plus_ms(self.want_wait.next_ms());
        let asked = ChunkSet::empty(total);
        let receive = Receive { blob, asked, present, again_at, under_way_bytes: 0, hungry: true };
        self.set_step(Step::Receiving(receive));
    }

    pub(super) fn ask_again(&mut self, now: Timestamp) {
        if self.want_wait.tries() > WANT_TRIES_MAX {
            let detail = format!("no chunk came although they were asked for {WANT_TRIES_MAX} times");
            let delta = match self.step() {
                Some(Step::Receiving(receive)) => receive.blob.delta,
                _ => None,
            };
            match delta {
                Some(delta) => self.refuse_delta(delta, &detail),
                None => self.refuse(Refusal::Abandoned, &detail, now),
            }
            return;
        }
        let again_at = now.plus_ms(self.want_wait.next_ms());
        self.forget_asked(again_at);
    }

    pub(super) fn verify(&mut self, blob: Blob) {
        self.drop_wants();
        self.actions.push_back(SlotAction::VerifyBlob { digest: blob.digest, size_bytes: blob.size_bytes });
        self.set_step(Step::Verifying(blob));
    }

    /// `blob` is there and right: goes on to the next.
    pub(super) fn next_blob(&mut self, blob: &Blob) {
        if let Some(delta) = blob.delta {
            self.apply(blob.clone(), delta);
        } else if blob.file.is_some() {
            self.next_file(blob);
        } else {
            self.chunks_before += wire::chunk_count(blob.size_bytes, self.chunk_bytes());
            if let Some(version) = self.saved.target.as_ref().map(Target::version) {
                // The machine knows what the device had.
                self.actions.push_back(SlotAction::ReadManifest { version, newest: None });
            }
            self.set_step(Step::ReadingManifest);
        }
    }

    /// The file for which `blob` came is there: goes on to the next.
    pub(super) fn next_file(&mut self, blob: &Blob) {
        self.chunks_before += wire::chunk_count(blob.size_bytes, self.chunk_bytes());
        self.open_file(blob.file.map_or(0, |at| at + 1));
    }

    pub(super) fn check_manifest(&mut self, manifest: Manifest, now: Timestamp) {
        let Some(target) = self.saved.target.clone() else { return };
        let Assignment { model, version, version_id, bundle, .. } = &target.assignment;
        if manifest.model != *model || manifest.version != *version || manifest.version_id != *version_id {
            let detail = format!(
                "the manifest is of {} {} ({}), the assignment names {model} {version} ({version_id})",
                manifest.model, manifest.version, manifest.version_id
            );
            self.refuse(Refusal::WrongVersion, &detail, now);
            return;
        }
        if manifest.board != self.board {
            let detail = format!("the bundle is for a {}, this is a {}", manifest.board, self.board);
            self.refuse(Refusal::WrongBoard, &detail, now);
            return;
        }
        let bundle = *bundle;
        let deltas = manifest.files.iter().filter_map(|file| {
            let delta = self.delta_to(file)?;
            Some(FileEntry { name: file.name.clone(), digest: delta.delta, size_bytes: delta.bytes })
        });
        let files = manifest.files.iter().cloned().chain(deltas).collect();
        self.actions.push_back(SlotAction::Reserve { bundle, files });
        self.state = State::Fetching { manifest: Some(Box::new(manifest)), step: Step::Reserving };
    }

    pub(super) fn open_file(&mut self, at: usize) {
        let delta = self.file(at).and_then(|file| self.delta_to(&file));
        let State::Fetching { manifest, .. } = &mut self.state else { return };
        let Some(manifest) = manifest.take() else { return };
        match (manifest.files.get(at), delta) {
            (Some(file), Some(delta)) => {
                let (digest, size_bytes) = (file.digest, file.size_bytes);
                self.actions.push_back(SlotAction::LookForBase { digest, size_bytes, from: delta.from });
                self.state = State::Fetching { manifest: Some(manifest), step: Step::Choosing { at, delta } };
            }
            (Some(file), None) => {
                let blob =
                    Blob { digest: file.digest, size_bytes: file.size_bytes, file: Some(at), delta: None };
                self.open(Some(manifest), blob);
            }
            (None, _) => self.test(manifest),
        }
    }

    pub(super) fn wait_for_storage(&mut self, detail: &str, now: Timestamp) {
        if self.space_wait.tries() >= SPACE_TRIES_MAX {
            self.refuse(Refusal::Abandoned, &format!("the disk gave no room: {detail}"), now);
            return;
        }
        let bundle = self.target_bundle();
        let until = now.plus_ms(self.space_wait.next_ms());
        if self.space_wait.tries() == 1 {
            self.note(EventKind::DiskFull, Some(bundle), wire::cut(detail));
        }
        // A test that the disk interrupted is not held against the bundle.
        if self.saved.test_starts.take().is_some() {
            self.dirty = true;
        }
        self.drop_actions();
        self.actions.extend([SlotAction::Discard { bundle }, SlotAction::Collect]);
        self.state = State::Waiting { until, reason: wire::cut(detail), wait: Wait::Storage };
    }

    pub(super) fn step(&self) -> Option<&Step> {
        match &self.state {
            State::Fetching { step, .. } => Some(step),
            State::Idle
            | State::Loading { .. }
            | State::Testing
            | State::Activating
            | State::Trial { .. }
            | State::Waiting { .. } => None,
        }
    }

    pub(super) fn set_step(&mut self, next: Step) {
        if let State::Fetching { step, .. } = &mut self.state {
            *step = next;
        }
    }

    pub(super) fn file(&self, at: usize) -> Option<FileEntry> {
        match &self.state {
            State::Fetching { manifest: Some(manifest), .. } => manifest.files.get(at).cloned(),
            _ => None,
        }
    }

    pub(super) fn chunk_bytes(&self) -> u32 {
        self.saved.target.as_ref().map_or(limits::CHUNK_BYTES_MAX, |target| target.chunk_bytes)
    }

    pub(super) fn fetching_phase(&self, manifest: Option<&Manifest>, step: &Step) -> Phase {
        let chunk_bytes = self.chunk_bytes();
        let envelope_bytes = self.saved.target.as_ref().map_or(0, |target| target.assignment.bundle_bytes);
        let files = manifest.map_or(&[][..], |manifest| &manifest.files);
        let size = |file: &FileEntry| self.delta_to(file).map_or(file.size_bytes, |delta| delta.bytes);
        let sizes = files.iter().map(size).chain([envelope_bytes]);
        let total = sizes.map(|size_bytes| wire::chunk_count(size_bytes, chunk_bytes)).sum();
        let part = match step {
            Step::Receiving(receive) => receive.present.count(),
            Step::Verifying(blob) | Step::Applying(blob) => wire::chunk_count(blob.size_bytes, chunk_bytes),
            Step::Opening(_) | Step::ReadingManifest | Step::Reserving | Step::Choosing { .. } => 0,
        };
        Phase::Fetching {
            bundle: self.target_bundle(),
            chunks_done: (self.chunks_before + part).min(total),
            chunks_total: total,
        }
    }
}
