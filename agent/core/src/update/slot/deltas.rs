//! Files that are made from what the device has: fetched as a delta, and whole where that does not work.

use super::{Base, Blob, Slot, SlotAction, State, Step};
use shared::{
    Digest,
    manifest::FileEntry,
    wire::{DeltaRef, EventKind},
};

impl Slot {
    /// Deltas and what they start from, while the attempt that may use them goes on.
    pub(in crate::update) fn pinned_blobs(&self) -> Vec<Digest> {
        let target = self.saved.target.as_ref().filter(|_| self.is_attempt_due());
        let deltas = target.into_iter().flat_map(|target| &target.assignment.deltas);
        deltas.filter(|delta| self.may_use(delta)).flat_map(|delta| [delta.delta, delta.from]).collect()
    }

    fn may_use(&self, delta: &DeltaRef) -> bool {
        !self.saved.deltas_refused.contains(&delta.delta)
    }

    /// The delta that gives `file`, where one is worth its bytes.
    pub(super) fn delta_to(&self, file: &FileEntry) -> Option<DeltaRef> {
        let target = self.saved.target.as_ref()?;
        let good = |delta: &&DeltaRef| {
            delta.to == file.digest && delta.bytes < file.size_bytes && self.may_use(delta)
        };
        target.assignment.deltas.iter().find(good).copied()
    }

    /// It is known what there is to make the file from.
    pub(super) fn chosen(&mut self, base: Base) {
        let Some(&Step::Choosing { at, delta }) = self.step() else { return };
        match base {
            Base::Whole => {
                let size_bytes = delta.bytes;
                self.next_file(&Blob { digest: delta.to, size_bytes, file: Some(at), delta: None });
            }
            Base::There => {
                let blob =
                    Blob { digest: delta.delta, size_bytes: delta.bytes, file: Some(at), delta: Some(delta) };
                let State::Fetching { manifest, .. } = &mut self.state else { return };
                let manifest = manifest.take();
                self.open(manifest, blob);
            }
            Base::Missing => self.refuse_delta(delta, "the file that it starts from is not on the device"),
        }
    }

    pub(super) fn apply(&mut self, blob: Blob, delta: DeltaRef) {
        let size_bytes = blob.file.and_then(|at| self.file(at)).map_or(0, |file| file.size_bytes);
        self.actions.push_back(SlotAction::ApplyDelta { delta, size_bytes });
        self.set_step(Step::Applying(blob));
    }

    /// The delta is of no use: its file comes whole, as far as the budget allows that.
    pub(super) fn refuse_delta(&mut self, delta: DeltaRef, detail: &str) {
        let at = match self.step() {
            Some(Step::Choosing { at, .. }) => *at,
            Some(Step::Receiving(receive)) => receive.blob.file.unwrap_or(0),
            Some(Step::Opening(blob) | Step::Verifying(blob) | Step::Applying(blob)) => {
                blob.file.unwrap_or(0)
            }
            Some(Step::ReadingManifest | Step::Reserving) | None => return,
        };
        let name = self.file(at).map_or_else(String::new, |file| file.name);
        self.note(
            EventKind::DeltaRefused,
            Some(self.target_bundle()),
            format!("{name} comes whole: {detail}"),
        );
        self.saved.deltas_refused.push(delta.delta);
        self.dirty = true;
        self.drop_wants();
        self.actions.push_back(SlotAction::GiveUpBlob { digest: delta.delta });
        self.open_file(at);
    }
}
