//! Sends the outbox: one batch of each kind at a time, forgotten when the broker has taken it over.

use crate::{
    link::{Link, Refused, Token},
    store::{self, Outgoing, Store},
};
use agent_core::outbox::Kind;
use shared::{
    DeviceId, Timestamp,
    backoff::Backoff,
    topic::Topic,
    wire::{Event, Feedback, Telemetry},
};

const RETRY_MS: u64 = 1_000;
const RETRY_MS_MAX: u64 = 60_000;

/// Which batches are on their way.
#[derive(Debug)]
pub(super) struct Sender {
    device: DeviceId,
    lanes: [Lane; 3],
}

#[derive(Debug)]
struct Lane {
    kind: Kind,
    sent: Option<(Token, Outgoing)>,
    /// Records of the next batch: fewer after a batch that nobody understood.
    records_max: usize,
    /// After a refusal, not before this.
    not_before: Option<Timestamp>,
    backoff: Backoff,
}

impl Sender {
    pub(super) fn new(device: DeviceId, seed: u64) -> Self {
        let lane = |kind: Kind| Lane {
            kind,
            sent: None,
            records_max: usize::MAX,
            not_before: None,
            backoff: Backoff::new(RETRY_MS, RETRY_MS_MAX, seed ^ u64::from(kind.code())),
        };
        // Events first: they say what became of a rollout.
        Self { device, lanes: [lane(Kind::Event), lane(Kind::Feedback), lane(Kind::Telemetry)] }
    }

    /// Sends the next batch of each kind of which none is on its way.
    pub(super) fn send(&mut self, store: &Store, link: &dyn Link, now: Timestamp) {
        for lane in &mut self.lanes {
            if lane.sent.is_some() || lane.not_before.is_some_and(|at| at > now) {
                continue;
            }
            lane.not_before = None;
            let most = lane.records_max;
            let (next, topic) = match lane.kind {
                Kind::Event => {
                    (store.outgoing_up_to::<Event>(&self.device, most), Topic::Event(self.device.clone()))
                }
                Kind::Feedback => (
                    store.outgoing_up_to::<Feedback>(&self.device, most),
                    Topic::Feedback(self.device.clone()),
                ),
                Kind::Telemetry => (
                    store.outgoing_up_to::<Telemetry>(&self.device, most),
                    Topic::Telemetry(self.device.clone()),
                ),
            };
            match flushed(store, next) {
                Ok(None) => {}
                Ok(Some(outgoing)) => {
                    match link.publish(topic.to_string(), outgoing.payload.clone(), false) {
                        Ok(token) => lane.sent = Some((token, outgoing)),
                        Err(_) => lane.wait(now),
                    }
                }
                Err(error) => {
                    tracing::warn!(error = crate::chain(&error), "the outbox could not be read");
                    lane.wait(now);
                }
            }
        }
    }

    /// The broker answered.
    pub(super) fn published(
        &mut self,
        store: &Store,
        token: Token,
        result: Result<(), Refused>,
        now: Timestamp,
    ) {
        let mine = |lane: &&mut Lane| lane.sent.as_ref().is_some_and(|(sent, _)| *sent == token);
        let Some(lane) = self.lanes.iter_mut().find(mine) else { return };
        let Some((_, outgoing)) = lane.sent.take() else { return };
        match result {
            Ok(()) => {
                lane.backoff.reset();
                lane.records_max = usize::MAX;
                if let Err(error) = store.delivered(&outgoing) {
                    tracing::warn!(
                        error = crate::chain(&error),
                        "delivered records are still in the outbox and will be sent again"
                    );
                }
            }
            Err(Refused::Malformed(reason)) if outgoing.records() <= 1 => {
                tracing::error!(reason, kind = ?lane.kind, "the broker takes a record for no record; it is dropped");
                lane.records_max = usize::MAX;
                if let Err(error) = store.give_up(&outgoing) {
                    tracing::warn!(
                        error = crate::chain(&error),
                        "the record could not be dropped; trying again later"
                    );
                    lane.wait(now);
                }
            }
            Err(Refused::Malformed(reason)) => {
                // One of them is what the server does not understand: the others get through without it.
                lane.records_max = outgoing.records().div_ceil(2);
                let records_max = lane.records_max;
                tracing::warn!(reason, kind = ?lane.kind, records_max, "the broker takes a batch for none; halving it");
                lane.wait(now);
            }
            Err(Refused::Busy(reason)) => {
                tracing::warn!(reason, kind = ?lane.kind, "the broker refused a batch; trying again later");
                lane.wait(now);
            }
        }
    }

    pub(super) fn connected(&mut self) {
        for lane in &mut self.lanes {
            lane.sent = None;
            lane.not_before = None;
        }
    }

    /// What was on its way is sent again on the next connection.
    pub(super) fn disconnected(&mut self, now: Timestamp) {
        for lane in &mut self.lanes {
            if lane.sent.take().is_some() {
                lane.not_before = Some(now);
            }
        }
    }

    /// When the next try is due.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.lanes.iter().filter_map(|lane| lane.not_before).min()
    }
}

impl Lane {
    fn wait(&mut self, now: Timestamp) {
        self.not_before = Some(now.plus_ms(self.backoff.next_ms()));
    }
}

/// A record leaves only once it is on disk: a power cut after its delivery would give its place to another.
fn flushed(
    store: &Store,
    next: Result<Option<Outgoing>, store::Error>,
) -> Result<Option<Outgoing>, store::Error> {
    let next = next?;
    if next.is_some() {
        store.flush()?;
    }
    Ok(next)
}

#[cfg(test)]
mod tests;
