//! Waiting for what changes: by the server's events where it gives them, else by the time alone.

use std::{
    io::{BufRead, BufReader, Read},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    thread,
    time::Duration,
};
use ureq::Agent;

/// Says when there may be something to see.
#[derive(Debug)]
pub(crate) struct Changes {
    told: Option<Receiver<()>>,
}

/// Many changes at one time are looked at together.
const GATHERED: Duration = Duration::from_millis(300);
/// Longest line of the stream that is read as one, in bytes.
const LINE_BYTES_MAX: u64 = 64 * 1024;
/// A stream that ended is opened again after this.
const AGAIN: Duration = Duration::from_secs(2);
/// So often at most in a row without an event.
const AGAIN_MAX: u32 = 100;
/// A server that does not begin to answer within this has no stream.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

impl Changes {
    /// By the time alone.
    pub(crate) fn polled() -> Self {
        Self { told: None }
    }

    /// By the events at `url`, which a thread listens to for as long as this lives.
    pub(super) fn of(agent: Agent, url: String, bearer: String) -> Self {
        let (tell, told) = sync_channel(1);
        let listener = thread::Builder::new().name("changes".to_owned());
        let listening = listener.spawn(move || listen(&agent, &url, &bearer, &tell));
        Self { told: listening.is_ok().then_some(told) }
    }

    /// Returns when something changed, and after `at_most` in any case.
    pub(crate) fn wait(&mut self, at_most: Duration) {
        let Some(told) = &self.told else { return thread::sleep(at_most) };
        thread::sleep(GATHERED.min(at_most));
        match told.recv_timeout(at_most.saturating_sub(GATHERED)) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            // There are no events: the time alone says when to look.
            Err(RecvTimeoutError::Disconnected) => {
                self.told = None;
                thread::sleep(at_most.saturating_sub(GATHERED));
            }
        }
    }
}

/// Ends when nobody waits any more, and where the server has no events for this client.
fn listen(agent: &Agent, url: &str, bearer: &str, tell: &SyncSender<()>) {
    let mut futile = 0;
    let mut opened = false;
    while futile < AGAIN_MAX {
        futile += 1;
        let request = agent.get(url).header("Authorization", bearer).header("Accept", "text/event-stream");
        let request =
            request.config().timeout_global(None).timeout_recv_response(Some(ANSWER_TIMEOUT)).build();
        match request.call() {
            Ok(answer) if answer.status().is_success() => {
                // Whatever happened while nobody listened.
                if opened && !told(tell) {
                    return;
                }
                opened = true;
                match follow(answer.into_body().into_reader(), || told(tell)) {
                    Followed::NobodyWaits => return,
                    Followed::Ended { events: 0 } => {}
                    Followed::Ended { .. } => futile = 0,
                }
            }
            Ok(answer) if answer.status().is_client_error() => return,
            Ok(_) => {}
            Err(_) if !opened => return,
            Err(_) => {}
        }
        thread::sleep(AGAIN);
    }
}

/// Whether somebody still waits. One word that waits to be heard is as good as many.
fn told(tell: &SyncSender<()>) -> bool {
    !matches!(tell.try_send(()), Err(TrySendError::Disconnected(())))
}

#[derive(Debug, PartialEq, Eq)]
enum Followed {
    NobodyWaits,
    Ended { events: u64 },
}

/// Calls `tell` for each event of the stream, until that says no or the stream ends.
fn follow(stream: impl Read, mut tell: impl FnMut() -> bool) -> Followed {
    let mut stream = BufReader::new(stream);
    let (mut line, mut events) = (Vec::new(), 0);
    loop {
        line.clear();
        match (&mut stream).take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return Followed::Ended { events },
            // Each event has data; comments keep the connection open.
            Ok(_) if line.starts_with(b"data") => {
                events += 1;
                if !tell() {
                    return Followed::NobodyWaits;
                }
            }
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    const STREAM: &[u8] =
        b": here\n\nevent: rollout\nid: 1\ndata: {\"kind\": \"rollout\"}\n\n: beat\n\nevent: reset\ndata: {}\n\n";

    #[test]
    fn events_are_told_and_heartbeats_are_not() {
        let mut told = 0;
        let tell = || {
            told += 1;
            true
        };
        assert_eq!(follow(STREAM, tell), Followed::Ended { events: 2 });
        assert_eq!(told, 2);
        assert_eq!(follow(STREAM, || false), Followed::NobodyWaits);
    }

    #[test]
    fn a_line_without_an_end_takes_no_memory_and_ends() {
        let long = std::io::repeat(b'x').take(LINE_BYTES_MAX * 3);
        assert_eq!(follow(long, || true), Followed::Ended { events: 0 });
    }

    #[test]
    fn without_events_the_time_is_waited() {
        let (tell, told) = sync_channel(1);
        drop(tell);
        let mut changes = Changes { told: Some(told) };
        let begun = Instant::now();
        changes.wait(Duration::from_millis(20));
        changes.wait(Duration::from_millis(20));
        assert!(begun.elapsed() >= Duration::from_millis(40) && changes.told.is_none());
    }

    #[test]
    fn a_change_ends_the_waiting() {
        let (tell, told) = sync_channel(1);
        assert!(super::told(&tell) && super::told(&tell));
        let mut changes = Changes { told: Some(told) };
        let begun = Instant::now();
        changes.wait(Duration::from_secs(60));
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}
