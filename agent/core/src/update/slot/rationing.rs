//! Asking for chunks, as many as the budget of the update and of the day allow.

use super::{Receive, Slot, SlotAction, State, Step, WINDOW_CHUNKS, Wait};
use crate::{budget::DAY_MS, chunks::ChunkSet};
use shared::{
    Digest, Timestamp, limits,
    wire::{self, EventKind, Want},
};

/// What a slot may ask for.
#[derive(Clone, Copy, Debug)]
pub(in crate::update) struct Allowance {
    pub(in crate::update) day_room_bytes: u64,
    pub(in crate::update) day_bytes_max: Option<u64>,
    pub(in crate::update) day_ends_at: Timestamp,
    /// Of the device, for one update.
    pub(in crate::update) update_bytes_max: Option<u64>,
}

impl Receive {
    /// Bytes of `count` chunks, the last of the blob among them or not.
    fn bytes_of(&self, count: u32, with_last: bool, chunk_bytes: u32) -> u64 {
        let whole = u64::from(count) * u64::from(chunk_bytes);
        let short = u64::from(self.present.total()) * u64::from(chunk_bytes) - self.blob.size_bytes;
        if with_last { whole.saturating_sub(short) } else { whole }
    }

    fn last(&self) -> u32 {
        self.present.total().saturating_sub(1)
    }

    /// Bytes that have not come, asked for or not.
    fn missing_bytes(&self, chunk_bytes: u32) -> u64 {
        let count = self.present.total() - self.present.count();
        self.bytes_of(count, !self.present.contains(self.last()), chunk_bytes)
    }

    /// At most `count` chunks to ask for.
    fn ranges(&self, count: u32) -> Vec<(u32, u32)> {
        self.present.missing(&self.asked, count, limits::WANT_RANGES_MAX)
    }

    fn bytes_in(&self, ranges: &[(u32, u32)], chunk_bytes: u32) -> u64 {
        let count = ranges.iter().map(|(start, end)| end - start).sum();
        let with_last = ranges.last().is_some_and(|&(_, end)| end == self.present.total());
        self.bytes_of(count, with_last, chunk_bytes)
    }
}

impl Slot {
    /// Bytes that are under way.
    pub(in crate::update) fn asked_bytes(&self) -> u64 {
        match self.step() {
            Some(Step::Receiving(receive)) => receive.under_way_bytes,
            _ => 0,
        }
    }

    /// There is something to ask for, and somebody to ask.
    pub(in crate::update) fn is_hungry(&self) -> bool {
        self.online && matches!(self.step(), Some(Step::Receiving(receive)) if receive.hungry)
    }

    /// The blob whose part stays on disk until there is budget for the rest.
    pub(in crate::update) fn resting(&self) -> Option<Digest> {
        match &self.state {
            State::Waiting { wait: Wait::Budget { blob }, .. } => Some(*blob),
            _ => None,
        }
    }

    /// Counts the bytes that came of a blob, and gives how many of those that no other slot had asked for are the answer
    /// to what this one asked for.
    pub(in crate::update) fn count(&mut self, digest: Digest, bytes: u64, unclaimed: u64) -> u64 {
        if self.fetching() == Some(digest) || self.resting() == Some(digest) {
            self.saved.update_bytes = self.saved.update_bytes.saturating_add(bytes);
        }
        let State::Fetching { step: Step::Receiving(receive), .. } = &mut self.state else { return 0 };
        if receive.blob.digest != digest {
            return 0;
        }
        let mine = unclaimed.min(receive.under_way_bytes);
        receive.under_way_bytes -= mine;
        mine
    }

    /// What was asked for has not come, and is asked for anew.
    pub(super) fn forget_asked(&mut self, again_at: Timestamp) {
        self.drop_wants();
        if let State::Fetching { step: Step::Receiving(receive), .. } = &mut self.state {
            receive.asked = ChunkSet::empty(receive.present.total());
            receive.under_way_bytes = 0;
            receive.again_at = again_at;
            receive.hungry = true;
        }
    }

    /// Requests that have not gone out are void.
    pub(super) fn drop_wants(&mut self) {
        self.actions.retain(|action| !matches!(action, SlotAction::Want(_)));
    }

    /// Asks for as many missing chunks as the window and the budget take. What was asked for is counted, and is to be
    /// persisted before the request goes out.
    pub(in crate::update) fn ask(&mut self, allowance: &Allowance) {
        let chunk_bytes = self.chunk_bytes();
        let update_max = self.update_bytes_max(allowance);
        let update_used = self.saved.update_bytes;
        let State::Fetching { step: Step::Receiving(receive), .. } = &mut self.state else { return };
        if !std::mem::take(&mut receive.hungry) {
            return;
        }
        let under_way = receive.under_way_bytes;
        let missing = receive.missing_bytes(chunk_bytes);
        let update_left = update_max.map_or(u64::MAX, |most| most.saturating_sub(update_used));
        // What cannot come to its end does not begin.
        let update_room = if missing > update_left { 0 } else { update_left - under_way.min(update_left) };
        let room = update_room.min(allowance.day_room_bytes);
        let mut ranges = receive.ranges(WINDOW_CHUNKS.saturating_sub(receive.asked.count()));
        if ranges.is_empty() {
            return;
        }
        if receive.bytes_in(&ranges, chunk_bytes) > room {
            let count = u32::try_from(room / u64::from(chunk_bytes)).unwrap_or(WINDOW_CHUNKS);
            ranges = receive.ranges(count.min(WINDOW_CHUNKS));
        }
        if ranges.is_empty() {
            if under_way == 0 {
                let blob = receive.blob.digest;
                self.wait_for_budget(blob, missing, update_left, update_max, allowance);
            }
            return;
        }
        for index in ranges.iter().flat_map(|&(start, end)| start..end) {
            receive.asked.insert(index);
        }
        receive.under_way_bytes += receive.bytes_in(&ranges, chunk_bytes);
        let digest = receive.blob.digest;
        self.actions.push_back(SlotAction::Want(Want { digest, chunk_bytes, ranges }));
        self.dirty = true;
    }

    /// The smaller of what the device and what the assignment allow.
    fn update_bytes_max(&self, allowance: &Allowance) -> Option<u64> {
        let assigned = self.saved.target.as_ref().and_then(|target| target.assignment.update_bytes_max);
        [allowance.update_bytes_max, assigned].into_iter().flatten().min()
    }

    fn wait_for_budget(
        &mut self,
        blob: Digest,
        missing: u64,
        update_left: u64,
        update_max: Option<u64>,
        allowance: &Allowance,
    ) {
        let reason = match (update_max, allowance.day_bytes_max) {
            (Some(most), _) if missing > update_left => format!(
                "budget: {missing} bytes are missing and {update_left} are left of the {most} for this update; allow \
                 more with update_bytes_max"
            ),
            (_, most) => format!(
                "budget: {missing} bytes are missing and {} are left of the day's {}; it goes on the next day",
                allowance.day_room_bytes,
                most.unwrap_or_default()
            ),
        };
        if !std::mem::replace(&mut self.saved.budget_told, true) {
            self.note(EventKind::BudgetSpent, Some(self.target_bundle()), reason.clone());
        }
        self.dirty = true;
        self.actions.push_back(SlotAction::StopListening);
        let until = if missing > update_left {
            // Nothing but another assignment or another configuration changes it.
            allowance.day_ends_at.plus_ms(DAY_MS)
        } else {
            allowance.day_ends_at
        };
        self.state = State::Waiting { until, reason: wire::cut(&reason), wait: Wait::Budget { blob } };
    }
}
