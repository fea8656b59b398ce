//! What the device reports: retained, on every change, many changes at once as one. How far a download is interests only
//! now and then: a fleet that reports it with each chunk says more than it is sent.

use crate::link::{Link, Refused, Token};
use shared::{
    BoardId, DeviceId, Timestamp,
    topic::Topic,
    wire::{self, Phase, Reported, SlotReport},
};

/// Changes within this time go out together.
const COALESCE_MS: u64 = 200;
/// And those that are a download's progress and no more, within this one.
const PROGRESS_MS: u64 = 2_000;
/// After a refusal.
const RETRY_MS: u64 = 5_000;

/// The newest report and whether the broker has it.
#[derive(Debug)]
pub struct Reporter {
    newest: Reported,
    known: bool,
    unsent: bool,
    /// What is unsent is more than progress.
    urgent: bool,
    on_its_way: Option<Token>,
    sent_at: Option<Timestamp>,
    refused_at: Option<Timestamp>,
}

impl Reporter {
    /// Of a device that has not said anything yet.
    pub fn new(device: DeviceId, board: BoardId, api: String) -> Self {
        let newest = Reported {
            device,
            board,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            at: Timestamp(0),
            generation: 0,
            slots: Vec::new(),
            disk_free_bytes: None,
            api: Some(api),
        };
        Self {
            newest,
            known: false,
            unsent: true,
            urgent: true,
            on_its_way: None,
            sent_at: None,
            refused_at: None,
        }
    }

    /// Takes the state in, with the time on the wall; gives the report where it changed.
    pub fn update(
        &mut self,
        generation: u64,
        slots: Vec<SlotReport>,
        disk_free_bytes: impl FnOnce() -> Option<u64>,
        at: Timestamp,
    ) -> Option<Reported> {
        if self.known && self.newest.generation == generation && self.newest.slots == slots {
            return None;
        }
        let progress = self.known
            && self.newest.generation == generation
            && self.newest.slots.iter().map(without_progress).eq(slots.iter().map(without_progress));
        self.urgent |= !progress;
        self.known = true;
        self.unsent = true;
        self.newest.generation = generation;
        self.newest.slots = slots;
        self.newest.disk_free_bytes = disk_free_bytes();
        self.newest.at = at;
        Some(self.newest.clone())
    }

    /// Publishes what has not been published, not too often.
    pub fn publish(&mut self, link: &dyn Link, now: Timestamp) {
        if self.due().is_none_or(|due| due > now) {
            return;
        }
        let payload = match wire::encode_json("report", &self.newest) {
            Ok(payload) => payload,
            Err(error) => {
                tracing::error!(%error, "the report was not sent");
                self.unsent = false;
                return;
            }
        };
        self.sent_at = Some(now);
        if let Ok(token) =
            link.publish(Topic::Reported(self.newest.device.clone()).to_string(), payload, true)
        {
            self.on_its_way = Some(token);
            (self.unsent, self.urgent) = (false, false);
        }
    }

    /// The broker took a publish over, or refused it, at `now`.
    pub fn published(&mut self, token: Token, result: &Result<(), Refused>, now: Timestamp) {
        if self.on_its_way != Some(token) {
            return;
        }
        self.on_its_way = None;
        self.refused_at = None;
        if let Err(reason) = result {
            tracing::warn!(%reason, "the broker refused the report; trying again later");
            (self.unsent, self.urgent) = (true, true);
            self.refused_at = Some(now);
        }
    }

    /// The link is up: whatever was said before is said again.
    pub fn connected(&mut self) {
        (self.unsent, self.urgent) = (true, true);
        (self.sent_at, self.refused_at) = (None, None);
    }

    /// The link is down.
    pub fn disconnected(&mut self) {
        self.on_its_way = None;
        (self.unsent, self.urgent) = (true, true);
    }

    /// When what is unsent may be sent.
    pub fn due(&self) -> Option<Timestamp> {
        if !self.unsent || !self.known {
            return None;
        }
        let pace_ms = if self.urgent { COALESCE_MS } else { PROGRESS_MS };
        let paced = self.sent_at.map(|sent_at| sent_at.plus_ms(pace_ms));
        let refused = self.refused_at.map(|refused_at| refused_at.plus_ms(RETRY_MS));
        paced.max(refused).or(Some(Timestamp(0)))
    }
}

fn without_progress(slot: &SlotReport) -> SlotReport {
    let mut slot = slot.clone();
    if let Phase::Fetching { chunks_done, .. } = &mut slot.phase {
        *chunks_done = 0;
    }
    slot
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{NotSent, Receipt};
    use shared::Digest;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Counts(Mutex<u64>);

    impl Link for Counts {
        fn publish(&self, _: String, _: Vec<u8>, _: bool) -> Result<Token, NotSent> {
            let mut count = self.0.lock().unwrap();
            *count += 1;
            Ok(Token(*count))
        }
        fn subscribe(&self, _: String) {}
        fn unsubscribe(&self, _: String) {}
        fn acknowledge(&self, _: Receipt) {}
        fn close(&self) {}
    }

    fn fetching(chunks_done: u32) -> Vec<SlotReport> {
        vec![SlotReport {
            slot: "default".parse().unwrap(),
            active: None,
            last_good: None,
            runtime: None,
            phase: Phase::Fetching { bundle: Digest::of(b"bundle"), chunks_done, chunks_total: 1000 },
            attempt: None,
        }]
    }

    fn reporter() -> Reporter {
        Reporter::new("cam-01".parse().unwrap(), "x86-64".parse().unwrap(), String::new())
    }

    #[test]
    fn progress_is_told_now_and_then_and_everything_else_soon() {
        let (link, mut reporter) = (Counts::default(), reporter());
        let sent = |link: &Counts| *link.0.lock().unwrap();
        for ms in 0..4_000 {
            reporter.update(1, fetching(u32::try_from(ms).unwrap() / 5), || None, Timestamp(ms));
            reporter.publish(&link, Timestamp(ms));
        }
        assert_eq!(sent(&link), 2, "the first, and one of progress");
        reporter.update(2, fetching(1), || None, Timestamp(4_000));
        reporter.publish(&link, Timestamp(4_000));
        assert_eq!(sent(&link), 3, "a generation does not wait for that");
        reporter.update(3, fetching(1), || None, Timestamp(4_001));
        reporter.publish(&link, Timestamp(4_001));
        assert_eq!((sent(&link), reporter.due()), (3, Some(Timestamp(4_000 + COALESCE_MS))));
    }

    #[test]
    fn a_refused_report_is_sent_again_later_and_at_once_on_a_new_connection() {
        let (link, mut reporter) = (Counts::default(), reporter());
        reporter.update(1, fetching(0), || None, Timestamp(0));
        reporter.publish(&link, Timestamp(0));
        reporter.published(Token(1), &Err(Refused::Busy("full".to_owned())), Timestamp(10));
        assert_eq!(reporter.due(), Some(Timestamp(10 + RETRY_MS)));
        reporter.disconnected();
        reporter.connected();
        assert_eq!(reporter.due(), Some(Timestamp(0)));
    }
}
