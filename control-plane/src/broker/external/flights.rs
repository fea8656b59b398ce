//! Publishes that are on their way: each has a number until the broker has acknowledged it, and no more are on their way
//! than the broker takes.

use rumqttc::v5::mqttbytes::v5::Publish;
use std::collections::{HashMap, VecDeque};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// One publish, as long as nobody knows what became of it.
#[derive(Debug)]
pub(super) struct Flight {
    /// Its place in the window.
    pub(super) _place: OwnedSemaphorePermit,
    /// Whoever waits for it may have gone.
    pub(super) landed: oneshot::Sender<Result<(), String>>,
}

/// Those of one connection. Dropped, everybody who waits learns that the connection has ended.
#[derive(Debug)]
pub(super) struct Flights {
    waiting: VecDeque<(Publish, Flight)>,
    flying: HashMap<u16, Flight>,
    most: u16,
    last: u16,
}

impl Flights {
    /// Of which the broker takes `most` at a time.
    pub(super) fn new(most: u16) -> Self {
        Self { waiting: VecDeque::new(), flying: HashMap::new(), most: most.max(1), last: 0 }
    }

    pub(super) fn set_most(&mut self, most: u16) {
        self.most = most.max(1);
    }

    /// To be sent when its turn comes.
    pub(super) fn add(&mut self, publish: Publish, flight: Flight) {
        self.waiting.push_back((publish, flight));
    }

    /// The next one that may go out, with its number.
    pub(super) fn next(&mut self) -> Option<Publish> {
        if self.flying.len() >= usize::from(self.most) {
            return None;
        }
        let (mut publish, flight) = self.waiting.pop_front()?;
        // There is always a free one: no more fly than there are numbers.
        loop {
            self.last = if self.last >= self.most { 1 } else { self.last + 1 };
            if !self.flying.contains_key(&self.last) {
                break;
            }
        }
        publish.pkid = self.last;
        self.flying.insert(self.last, flight);
        Some(publish)
    }

    /// The broker has answered.
    pub(super) fn landed(&mut self, number: u16, result: Result<(), String>) {
        if let Some(flight) = self.flying.remove(&number) {
            // A chunk is not waited for.
            let _ = flight.landed.send(result);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rumqttc::v5::mqttbytes::QoS;
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    #[test]
    fn each_answer_goes_to_its_own_publish_and_gives_its_place_back() {
        let window = Arc::new(Semaphore::new(3));
        let mut flights = Flights::new(2);
        let mut start = || {
            let (landed, answer) = oneshot::channel();
            let flight = Flight { _place: Arc::clone(&window).try_acquire_owned().unwrap(), landed };
            flights.add(Publish::new("t", QoS::AtLeastOnce, "", None), flight);
            answer
        };
        let (mut first, mut second, mut third) = (start(), start(), start());
        let number = |flights: &mut Flights| flights.next().map(|publish| publish.pkid);
        assert_eq!(
            (number(&mut flights), number(&mut flights), number(&mut flights)),
            (Some(1), Some(2), None)
        );
        flights.landed(2, Err("refused".to_owned()));
        flights.landed(7, Ok(()));
        assert_eq!(second.try_recv(), Ok(Err("refused".to_owned())));
        assert!(first.try_recv().is_err(), "it was not answered");
        assert_eq!(window.available_permits(), 1);
        assert_eq!(number(&mut flights), Some(2), "the number that is free");
        drop(flights);
        assert_eq!(window.available_permits(), 3);
        assert_eq!(third.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }
}
