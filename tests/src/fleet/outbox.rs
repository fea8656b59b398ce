//! What a device has to say, in memory: one batch of each kind on its way at a time, forgotten when the broker has taken
//! it over, sent again under the same ids when the connection was lost.

use super::counts::Counts;
use agent_core::outbox::Kind;
use edgewright_agent::link::{Link, Refused, Token};
use shared::{
    DeviceId, Timestamp,
    backoff::Backoff,
    limits,
    topic::Topic,
    wire::{Batch, Event, Feedback, Record, Telemetry},
};
use std::{collections::VecDeque, time::Instant};

/// As the agent's.
const RETRY_MS: u64 = 1_000;
const RETRY_MS_MAX: u64 = 60_000;
/// Records of one kind that wait.
const WAITING_MAX: usize = 4 * limits::BATCH_RECORDS_MAX;
/// Records that always fit into one batch, but for the longest details.
const TOGETHER_MAX: usize = 128;

/// The outbox of one device.
#[derive(Debug)]
pub struct Outbox {
    device: DeviceId,
    events: Lane<Event>,
    feedback: Lane<Feedback>,
    telemetry: Lane<Telemetry>,
}

#[derive(Debug)]
struct Lane<R> {
    kind: Kind,
    waiting: VecDeque<R>,
    /// The first so many of them are on their way, since when.
    sent: Option<(Token, usize, Instant)>,
    not_before: Option<Timestamp>,
    backoff: Backoff,
}

impl Outbox {
    pub fn new(device: DeviceId, seed: u64) -> Self {
        Self {
            device,
            events: Lane::new(Kind::Event, seed),
            feedback: Lane::new(Kind::Feedback, seed),
            telemetry: Lane::new(Kind::Telemetry, seed),
        }
    }

    pub fn put_event(&mut self, event: Event, counts: &Counts) {
        self.events.put(event, counts);
    }

    pub fn put_feedback(&mut self, feedback: Feedback, counts: &Counts) {
        self.feedback.put(feedback, counts);
    }

    pub fn put_telemetry(&mut self, telemetry: Telemetry, counts: &Counts) {
        self.telemetry.put(telemetry, counts);
    }

    /// Is nothing waiting of the kind?
    pub fn is_free(&self, kind: Kind) -> bool {
        match kind {
            Kind::Event => self.events.waiting.is_empty(),
            Kind::Feedback => self.feedback.waiting.is_empty(),
            Kind::Telemetry => self.telemetry.waiting.is_empty(),
        }
    }

    /// Is nothing waiting at all?
    pub fn is_empty(&self) -> bool {
        Kind::ALL.into_iter().all(|kind| self.is_free(kind))
    }

    /// Sends the next batch of each kind of which none is on its way.
    pub fn send(&mut self, link: &dyn Link, now: Timestamp) {
        self.events.send(&self.device, link, now, Topic::Event);
        self.feedback.send(&self.device, link, now, Topic::Feedback);
        self.telemetry.send(&self.device, link, now, Topic::Telemetry);
    }

    /// The broker answered; an error is a batch that it takes for none, which is dropped.
    pub fn published(
        &mut self,
        token: Token,
        result: &Result<(), Refused>,
        now: Timestamp,
        counts: &Counts,
    ) -> Result<(), String> {
        self.events.published(token, result, now, counts)?;
        self.feedback.published(token, result, now, counts)?;
        self.telemetry.published(token, result, now, counts)
    }

    /// What was on its way is sent again on the next connection.
    pub fn disconnected(&mut self) {
        self.events.disconnected();
        self.feedback.disconnected();
        self.telemetry.disconnected();
    }

    /// When the next try after a refusal is due.
    pub fn due(&self) -> Option<Timestamp> {
        let due = [self.events.not_before, self.feedback.not_before, self.telemetry.not_before];
        due.into_iter().flatten().min()
    }
}

impl<R: Record + Clone> Lane<R> {
    fn new(kind: Kind, seed: u64) -> Self {
        let backoff = Backoff::new(RETRY_MS, RETRY_MS_MAX, seed ^ u64::from(kind.code()));
        Self { kind, waiting: VecDeque::new(), sent: None, not_before: None, backoff }
    }

    fn put(&mut self, record: R, counts: &Counts) {
        if self.waiting.len() >= WAITING_MAX {
            counts.dropped.add(1);
            return;
        }
        counts.of(self.kind).made.add(1);
        self.waiting.push_back(record);
    }

    fn send(&mut self, device: &DeviceId, link: &dyn Link, now: Timestamp, topic: fn(DeviceId) -> Topic) {
        if self.sent.is_some() || self.waiting.is_empty() || self.not_before.is_some_and(|at| at > now) {
            return;
        }
        self.not_before = None;
        let Some((records, payload)) = self.batch(device) else { return };
        match link.publish(topic(device.clone()).to_string(), payload, false) {
            Ok(token) => self.sent = Some((token, records, Instant::now())),
            Err(_) => self.wait(now),
        }
    }

    /// The first records, as many as fit.
    fn batch(&self, device: &DeviceId) -> Option<(usize, Vec<u8>)> {
        let mut records = self.waiting.len().min(TOGETHER_MAX);
        while records > 0 {
            let batch = Batch {
                device: device.clone(),
                records: self.waiting.iter().take(records).cloned().collect::<Vec<_>>(),
            };
            match batch.encode() {
                Ok(payload) => return Some((records, payload)),
                Err(_) => records /= 2,
            }
        }
        None
    }

    fn published(
        &mut self,
        token: Token,
        result: &Result<(), Refused>,
        now: Timestamp,
        counts: &Counts,
    ) -> Result<(), String> {
        let Some((_, records, sent_at)) = self.sent.take_if(|(sent, ..)| *sent == token) else {
            return Ok(());
        };
        match result {
            Ok(()) => {
                self.backoff.reset();
                self.waiting.drain(..records.min(self.waiting.len()));
                counts.of(self.kind).delivered.add(records as u64);
                counts.acknowledged(u64::try_from(sent_at.elapsed().as_micros()).unwrap_or(u64::MAX));
                Ok(())
            }
            Err(Refused::Busy(_)) => {
                counts.messages_refused.add(1);
                self.wait(now);
                Ok(())
            }
            Err(Refused::Malformed(reason)) => {
                counts.messages_refused.add(1);
                self.waiting.drain(..records.min(self.waiting.len()));
                Err(format!("{records} records of {:?} were taken for none: {reason}", self.kind))
            }
        }
    }

    fn disconnected(&mut self) {
        self.sent = None;
        self.not_before = None;
    }

    fn wait(&mut self, now: Timestamp) {
        self.not_before = Some(now.plus_ms(self.backoff.next_ms()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgewright_agent::link::{NotSent, Receipt};
    use shared::wire::EventKind;
    use std::sync::Mutex;
    use uuid::Uuid;

    /// Keeps what is published; the tokens count from 1.
    #[derive(Default)]
    struct Kept(Mutex<Vec<Vec<u8>>>);

    impl Link for Kept {
        fn publish(&self, _: String, payload: Vec<u8>, _: bool) -> Result<Token, NotSent> {
            let mut kept = self.0.lock().unwrap();
            kept.push(payload);
            Ok(Token(kept.len() as u64))
        }
        fn subscribe(&self, _: String) {}
        fn unsubscribe(&self, _: String) {}
        fn acknowledge(&self, _: Receipt) {}
        fn close(&self) {}
    }

    fn event() -> Event {
        Event {
            id: Uuid::now_v7(),
            at: Timestamp(0),
            slot: None,
            bundle: None,
            kind: EventKind::AgentStarted,
            detail: "x".repeat(500),
        }
    }

    fn ids(payload: &[u8]) -> Vec<Uuid> {
        let batch = Batch::<Event>::decode(payload, &"cam-01".parse().unwrap()).unwrap();
        batch.records.iter().map(|event| event.id).collect()
    }

    #[test]
    fn what_is_under_way_when_the_link_breaks_is_sent_again_under_its_ids() {
        let (link, counts) = (Kept::default(), Counts::default());
        let mut outbox = Outbox::new("cam-01".parse().unwrap(), 1);
        (0..2).for_each(|_| outbox.put_event(event(), &counts));
        outbox.send(&link, Timestamp(0));
        outbox.put_event(event(), &counts);
        outbox.send(&link, Timestamp(0));
        assert_eq!(link.0.lock().unwrap().len(), 1, "one batch of a kind at a time");
        outbox.disconnected();
        outbox.published(Token(1), &Ok(()), Timestamp(1), &counts).unwrap();
        outbox.send(&link, Timestamp(1));
        let sent = link.0.lock().unwrap().clone();
        assert_eq!((ids(&sent[0]).len(), ids(&sent[1]).len()), (2, 3));
        assert_eq!(ids(&sent[0]), ids(&sent[1])[..2]);
        outbox.published(Token(2), &Ok(()), Timestamp(2), &counts).unwrap();
        assert!(outbox.is_empty());
        assert_eq!((counts.events.made.get(), counts.events.delivered.get()), (3, 3));
    }

    #[test]
    fn a_batch_fits_a_busy_broker_is_waited_for_and_a_malformed_batch_is_told() {
        let (link, counts) = (Kept::default(), Counts::default());
        let mut outbox = Outbox::new("cam-01".parse().unwrap(), 1);
        (0..TOGETHER_MAX + 1).for_each(|_| outbox.put_event(event(), &counts));
        outbox.send(&link, Timestamp(0));
        let first = ids(&link.0.lock().unwrap()[0]).len();
        assert!((1..=TOGETHER_MAX).contains(&first));
        outbox.published(Token(1), &Err(Refused::Busy("full".to_owned())), Timestamp(5), &counts).unwrap();
        let due = outbox.due().unwrap();
        outbox.send(&link, Timestamp(5));
        assert_eq!(link.0.lock().unwrap().len(), 1);
        outbox.send(&link, due);
        let refused = Err(Refused::Malformed("no".to_owned()));
        assert!(outbox.published(Token(2), &refused, due, &counts).unwrap_err().contains("Event"));
        assert_eq!(counts.messages_refused.get(), 2);
    }
}
