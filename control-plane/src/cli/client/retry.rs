//! When a request is sent again: pure, the waiting is the caller's.

use std::time::Duration;
use ureq::{
    Error, Timeout,
    http::{HeaderMap, StatusCode, header},
};

/// How often a request is sent at most.
pub(super) const ATTEMPTS_MAX: u32 = 6;
/// The first pause; each is twice the one before.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
/// The longest pause of our own.
const PAUSE_MAX: Duration = Duration::from_secs(8);
/// A request that has taken so long is not sent again.
const TAKEN_MAX: Duration = Duration::from_secs(20);
/// A server that asks for a longer one is not waited for: the person shall know.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// What may come of sending a request twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Twice {
    /// It does the same as once: what only looks, what replaces, and what carries an idempotency key.
    AsOnce,
    /// Something else: sent again only when the server said that it did nothing.
    Other,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// With an answer that stands.
    Answered,
    /// The first of this request is still under way on the server (409 to an idempotency key).
    UnderWay,
    /// The server has too much to do: 429.
    Limited { after: Option<Duration> },
    /// The server cannot do it at the moment: 503.
    Unavailable { after: Option<Duration> },
    /// Nobody was there; nothing was sent.
    Unreached,
    /// Something was sent, and no answer came.
    Lost,
}

impl Ended {
    pub(super) fn by(status: StatusCode, headers: &HeaderMap) -> Self {
        let after = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let after = after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        match status {
            StatusCode::TOO_MANY_REQUESTS => Self::Limited { after },
            StatusCode::SERVICE_UNAVAILABLE => Self::Unavailable { after },
            StatusCode::CONFLICT => Self::UnderWay,
            _ => Self::Answered,
        }
    }

    pub(super) fn without_answer(error: &Error) -> Self {
        use std::io::ErrorKind;
        match error {
            Error::HostNotFound | Error::ConnectionFailed => Self::Unreached,
            Error::Timeout(Timeout::Resolve | Timeout::Connect) => Self::Unreached,
            Error::Io(error) => match error.kind() {
                ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
                    Self::Unreached
                }
                // What rustls says of a certificate that is not trusted, and of a request that cannot be made.
                ErrorKind::InvalidData | ErrorKind::InvalidInput => Self::Answered,
                _ => Self::Lost,
            },
            Error::Protocol(_) | Error::Timeout(_) => Self::Lost,
            _ => Self::Answered,
        }
    }
}

/// What was done for a request so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    /// How often it was sent.
    pub(super) attempts: u32,
    /// Since it was sent first.
    pub(super) taken: Duration,
}

/// How long to wait before the request is sent again; none where it is not. `spread` (0 to 255) keeps many that failed
/// together from coming again together.
pub(super) fn pause(ended: Ended, twice: Twice, effort: Effort, spread: u8) -> Option<Duration> {
    let Effort { attempts, taken } = effort;
    let again = attempts > 1;
    let asked = match (ended, twice) {
        (Ended::Answered, _) => return None,
        (Ended::Limited { after }, _) | (Ended::Unavailable { after }, Twice::AsOnce) => after,
        (Ended::Lost, Twice::AsOnce) => None,
        // A server that has just lost the request may be starting again; one that was never there is not.
        (Ended::Unreached | Ended::UnderWay, Twice::AsOnce) if again => None,
        (Ended::Unreached | Ended::UnderWay, _) | (Ended::Lost | Ended::Unavailable { .. }, Twice::Other) => {
            return None;
        }
    };
    if attempts >= ATTEMPTS_MAX || taken >= TAKEN_MAX || asked.is_some_and(|asked| asked > RETRY_AFTER_MAX) {
        return None;
    }
    let own = PAUSE_FIRST.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(PAUSE_MAX);
    let pause = asked.map_or(own, |asked| asked.max(PAUSE_FIRST));
    Some(pause + pause.mul_f64(f64::from(spread) / 1024.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITED: Ended = Ended::Limited { after: Some(Duration::from_secs(3)) };

    fn after(attempts: u32) -> Effort {
        Effort { attempts, taken: Duration::ZERO }
    }

    #[test]
    fn a_request_that_takes_long_each_time_is_given_up() {
        let slow = Effort { attempts: 2, taken: Duration::from_secs(25) };
        assert_eq!(pause(Ended::Unavailable { after: None }, Twice::AsOnce, slow, 0), None);
    }

    #[test]
    fn the_server_is_given_the_time_that_it_asks_for_but_not_any() {
        assert_eq!(pause(LIMITED, Twice::Other, after(1), 0), Some(Duration::from_secs(3)));
        let long = Ended::Limited { after: Some(Duration::from_secs(3600)) };
        assert_eq!(pause(long, Twice::AsOnce, after(1), 0), None);
        let at_once = Ended::Unavailable { after: Some(Duration::ZERO) };
        assert!(pause(at_once, Twice::AsOnce, after(1), 0) >= Some(PAUSE_FIRST));
    }

    #[test]
    fn what_may_have_been_done_is_sent_again_only_where_twice_is_as_once() {
        for ended in [Ended::Lost, Ended::Unavailable { after: None }] {
            assert!(pause(ended, Twice::AsOnce, after(1), 0).is_some());
            assert_eq!(pause(ended, Twice::Other, after(1), 0), None);
        }
    }

    #[test]
    fn nobody_there_is_said_at_once_but_a_restart_is_waited_for() {
        assert_eq!(pause(Ended::Unreached, Twice::AsOnce, after(1), 0), None);
        assert!(pause(Ended::Unreached, Twice::AsOnce, after(2), 0).is_some());
        assert_eq!(pause(Ended::Unreached, Twice::Other, after(2), 0), None);
    }

    #[test]
    fn a_conflict_is_an_answer_unless_the_request_was_sent_before() {
        assert_eq!(pause(Ended::UnderWay, Twice::AsOnce, after(1), 0), None);
        assert!(pause(Ended::UnderWay, Twice::AsOnce, after(2), 0).is_some());
    }

    #[test]
    fn the_pauses_grow_and_end() {
        let pauses: Vec<_> =
            (1..).map_while(|attempt| pause(Ended::Lost, Twice::AsOnce, after(attempt), 255)).collect();
        assert_eq!(pauses.len() as u32, ATTEMPTS_MAX - 1);
        assert!(pauses.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(pauses.iter().sum::<Duration>() < Duration::from_secs(30));
    }

    #[test]
    fn answers_and_errors_are_told_apart() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, "3".parse().unwrap());
        assert_eq!(Ended::by(StatusCode::TOO_MANY_REQUESTS, &headers), LIMITED);
        headers.insert(header::RETRY_AFTER, "soon".parse().unwrap());
        let unavailable = Ended::by(StatusCode::SERVICE_UNAVAILABLE, &headers);
        assert_eq!(unavailable, Ended::Unavailable { after: None });
        for status in [StatusCode::OK, StatusCode::NOT_FOUND, StatusCode::INTERNAL_SERVER_ERROR] {
            assert_eq!(Ended::by(status, &headers), Ended::Answered);
        }
        let io = |kind: std::io::ErrorKind| Ended::without_answer(&Error::Io(kind.into()));
        assert_eq!(io(std::io::ErrorKind::ConnectionRefused), Ended::Unreached);
        assert_eq!(io(std::io::ErrorKind::ConnectionReset), Ended::Lost);
        assert_eq!(Ended::without_answer(&Error::HostNotFound), Ended::Unreached);
    }
}
