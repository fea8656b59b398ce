//! Publishes that are on their way. The client numbers them when it sends them, in the order in which it was given them,
//! and the broker acknowledges by that number.

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
#[derive(Debug, Default)]
pub(super) struct Flights {
    unnumbered: VecDeque<Flight>,
    numbered: HashMap<u16, Flight>,
}

impl Flights {
    /// The client was given a publish.
    pub(super) fn add(&mut self, flight: Flight) {
        self.unnumbered.push_back(flight);
    }

    /// The client has sent the oldest under this number.
    pub(super) fn sent(&mut self, number: u16) {
        if let Some(flight) = self.unnumbered.pop_front() {
            self.numbered.insert(number, flight);
        }
    }

    /// The broker has answered.
    pub(super) fn landed(&mut self, number: u16, result: Result<(), String>) {
        if let Some(flight) = self.numbered.remove(&number) {
            // A chunk is not waited for.
            let _ = flight.landed.send(result);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    #[test]
    fn each_answer_goes_to_its_own_publish_and_gives_its_place_back() {
        let window = Arc::new(Semaphore::new(3));
        let mut flights = Flights::default();
        let mut start = || {
            let (landed, answer) = oneshot::channel();
            flights.add(Flight { _place: Arc::clone(&window).try_acquire_owned().unwrap(), landed });
            answer
        };
        let (mut first, mut second, mut third) = (start(), start(), start());
        flights.sent(1);
        flights.sent(2);
        flights.landed(2, Err("refused".to_owned()));
        flights.landed(7, Ok(()));
        assert_eq!(second.try_recv(), Ok(Err("refused".to_owned())));
        assert!(first.try_recv().is_err(), "it was not answered");
        assert_eq!(window.available_permits(), 1);
        drop(flights);
        assert_eq!(window.available_permits(), 3);
        assert_eq!(third.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }
}
