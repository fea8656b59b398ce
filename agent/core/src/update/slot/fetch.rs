//! From a target to its files on disk: blob after blob, chunk after chunk.

use super::{Blob, Fetched, Receive, Slot, SlotAction, State, Step, Target};
use crate::chunks::ChunkSet;
use shared::{
    Digest, Timestamp, limits,
    manifest::{FileEntry, Manifest},
    wire::{self, Assignment, EventKind, Phase, Refusal, Want},
};

/// Chunks that may be asked for and not have come.
pub const WINDOW_CHUNKS: u32 = 64;
/// Times that chunks are asked for again with none coming before the attempt is abandoned.
pub const WANT_TRIES_MAX: u32 = 12;
/// Times that the disk is waited for before the attempt is abandoned.
pub const SPACE_TRIES_MAX: u32 = 60;

impl Slot {
    /// The blob in work.
    pub(in crate::update) fn fetching(&self) -> Option<Digest> {
        match self.step()? {
            Step::Opening(blob) | Step::Verifying(blob) => Some(blob.digest),
            Step::Receiving(receive) => Some(receive.blob.digest),
            Step::ReadingManifest | Step::Reserving => None,
        }
    }

    pub(in crate::update) fn handle_online(&mut self, online: bool, now: Timestamp) {
        self.online = online;
        if !online {
            return;
        }
        self.want_wait.reset();
        if let State::Fetching { step: Step::Receiving(receive), .. } = &mut self.state {
            receive.asked = ChunkSet::empty(receive.present.total());
            receive.again_at = now.plus_ms(self.want_wait.next_ms());
            self.ask();
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
        if receive.asked.count() <= WINDOW_CHUNKS / 2 {
            self.ask();
        }
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
        let blob = Blob { digest: target.bundle(), size_bytes: target.assignment.bundle_bytes, file: None };
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
        let what =
            blob.file.and_then(|at| self.file(at)).map_or_else(|| "manifest".to_owned(), |file| file.name);
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
        let receive = Receive { blob, asked: ChunkSet::empty(total), present, again_at };
        if let State::Fetching { step, .. } = &mut self.state {
            *step = Step::Receiving(receive);
        }
        if self.online {
            self.ask();
        }
    }

    /// Asks for as many missing chunks as the window takes.
    pub(super) fn ask(&mut self) {
        let chunk_bytes = self.chunk_bytes();
        let State::Fetching { step: Step::Receiving(receive), .. } = &mut self.state else { return };
        let room = WINDOW_CHUNKS.saturating_sub(receive.asked.count());
        let ranges = receive.present.missing(&receive.asked, room, limits::WANT_RANGES_MAX);
        if ranges.is_empty() {
            return;
        }
        for index in ranges.iter().flat_map(|&(start, end)| start..end) {
            receive.asked.insert(index);
        }
        let digest = receive.blob.digest;
        self.actions.push_back(SlotAction::Want(Want { digest, chunk_bytes, ranges }));
    }

    pub(super) fn ask_again(&mut self, now: Timestamp) {
        if self.want_wait.tries() > WANT_TRIES_MAX {
            let detail = format!("no chunk came although they were asked for {WANT_TRIES_MAX} times");
            self.refuse(Refusal::Abandoned, &detail, now);
            return;
        }
        let wait_ms = self.want_wait.next_ms();
        if let State::Fetching { step: Step::Receiving(receive), .. } = &mut self.state {
            receive.asked = ChunkSet::empty(receive.present.total());
            receive.again_at = now.plus_ms(wait_ms);
        }
        self.ask();
    }

    pub(super) fn verify(&mut self, blob: Blob) {
        self.actions.push_back(SlotAction::VerifyBlob { digest: blob.digest, size_bytes: blob.size_bytes });
        self.set_step(Step::Verifying(blob));
    }

    /// `blob` is there and right: goes on to the next.
    pub(super) fn next_blob(&mut self, blob: &Blob) {
        match blob.file {
            None => {
                self.actions.push_back(SlotAction::ReadManifest { bundle: blob.digest });
                self.set_step(Step::ReadingManifest);
            }
            Some(at) => self.open_file(at + 1),
        }
        self.chunks_before += wire::chunk_count(blob.size_bytes, self.chunk_bytes());
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
        self.actions.push_back(SlotAction::Reserve { bundle: *bundle, files: manifest.files.clone() });
        self.state = State::Fetching { manifest: Some(Box::new(manifest)), step: Step::Reserving };
    }

    pub(super) fn open_file(&mut self, at: usize) {
        let State::Fetching { manifest, .. } = &mut self.state else { return };
        let Some(manifest) = manifest.take() else { return };
        match manifest.files.get(at) {
            Some(file) => {
                let blob = Blob { digest: file.digest, size_bytes: file.size_bytes, file: Some(at) };
                self.open(Some(manifest), blob);
            }
            None => self.test(manifest),
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
        self.state = State::Waiting { until, reason: wire::cut(detail) };
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
        let sizes = files.iter().map(|file| file.size_bytes).chain([envelope_bytes]);
        let total = sizes.map(|size_bytes| wire::chunk_count(size_bytes, chunk_bytes)).sum();
        let part = match step {
            Step::Receiving(receive) => receive.present.count(),
            Step::Verifying(blob) => wire::chunk_count(blob.size_bytes, chunk_bytes),
            Step::Opening(_) | Step::ReadingManifest | Step::Reserving => 0,
        };
        Phase::Fetching {
            bundle: self.target_bundle(),
            chunks_done: (self.chunks_before + part).min(total),
            chunks_total: total,
        }
    }
}
