//! A flush of sled that ends also where the disk fails under it.
//!
//! sled 0.34 notes the error of a write that a worker thread did, but where the last writer of a buffer handed that
//! write over it wakes nobody who waits for it (`Log::exit_reservation`): a flush that waits already, sled's own among
//! them, would wait for ever. Every new flush looks for such an error first and wakes all others with it, so one that
//! takes long gets another beside it.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

/// A flush that takes longer gets a second beside it; every further one waits twice as long.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longest time between two of them.
const PATIENCE_MAX: Duration = Duration::from_secs(30);

/// Makes everything durable that `db` has taken so far. Holds the thread.
///
/// # Errors
/// The disk, from this write or one before it.
pub(super) fn flush(db: &sled::Db) -> sled::Result<()> {
    first_to_end(|| db.flush_async(), PATIENCE).map(|_| ())
}

/// Starts `work`, starts it once more whenever none has ended in time, and gives what the first to end gives.
fn first_to_end<F: Future>(work: impl Fn() -> F, mut patience: Duration) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut running: Vec<Pin<Box<F>>> = Vec::new();
    loop {
        running.push(Box::pin(work()));
        let started = Instant::now();
        loop {
            for one in &mut running {
                if let Poll::Ready(ended) = one.as_mut().poll(&mut context) {
                    return ended;
                }
            }
            let left = patience.saturating_sub(started.elapsed());
            if left.is_zero() {
                break;
            }
            thread::park_timeout(left);
        }
        patience = (patience * 2).min(PATIENCE_MAX);
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::Cell, future::poll_fn};

    #[test]
    fn what_is_not_woken_is_found_by_the_next() {
        let started = Cell::new(0);
        let given = first_to_end(
            || {
                let number = started.get() + 1;
                started.set(number);
                poll_fn(move |_| if number < 3 { Poll::Pending } else { Poll::Ready(number) })
            },
            Duration::from_millis(1),
        );
        assert_eq!((given, started.get()), (3, 3));
    }

    #[test]
    fn what_is_woken_in_time_runs_once() {
        let started = Cell::new(0);
        let given = first_to_end(
            || {
                started.set(started.get() + 1);
                let (sender, receiver) = tokio::sync::oneshot::channel();
                thread::spawn(move || sender.send(7));
                receiver
            },
            Duration::from_secs(60),
        );
        assert_eq!((given, started.get()), (Ok(7), 1));
    }
}
