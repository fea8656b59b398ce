//! What a device says at its pace.

use super::Device;
use crate::fleet::work;
use agent_core::outbox::Kind;
use shared::Timestamp;

impl Device {
    /// The first record comes at a moment of its own, so that a fleet does not speak as one.
    pub(super) fn plan_to_speak(&mut self) {
        let period = self.work.borrow_and_update().period;
        self.speaks_at = period.map(|period| {
            let period_ms = u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
            self.fleet.now().plus_ms(self.lots.next_u64() % period_ms.max(1))
        });
    }

    /// Makes the record that is due.
    pub(super) fn speak(&mut self, now: Timestamp) {
        let Some(due) = self.speaks_at.filter(|at| *at <= now) else { return };
        let work = *self.work.borrow();
        let Some(period) = work.period else {
            self.speaks_at = None;
            return;
        };
        let period_ms = u64::try_from(period.as_millis()).unwrap_or(u64::MAX).max(1);
        // The pace is kept, and what was missed is not made up for.
        let next = due.plus_ms(period_ms);
        self.speaks_at = Some(if next > now { next } else { now.plus_ms(period_ms) });
        let is_feedback = work.feedback && self.said % 2 == 1;
        let kind = if is_feedback { Kind::Feedback } else { Kind::Telemetry };
        if work.held && (!self.outbox.is_free(kind) || !self.is_up()) {
            self.fleet.counts.held.add(1);
            return;
        }
        self.said += 1;
        let wall = self.character.wall(now);
        if is_feedback {
            let feedback = work::feedback(&self.subject, wall, self.said / 2, &mut self.lots);
            self.outbox.put_feedback(feedback, &self.fleet.counts);
        } else {
            let began = Timestamp(wall.0.saturating_sub(period_ms));
            let telemetry = work::telemetry(&self.subject, began, period, &mut self.lots);
            self.outbox.put_telemetry(telemetry, &self.fleet.counts);
        }
    }
}
