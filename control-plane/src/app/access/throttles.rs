//! How often anybody may ask, and how often somebody may fail to log in.

use crate::app::{Error, Result};
use control_core::{admission::place, throttle::Throttle};
use shared::{
    Timestamp, UserName,
    limits::{
        AUDITED_REFUSALS_BURST, AUDITED_REFUSALS_PER_S, COUNTED_MAX, FAILED_LOGIN_S, FAILED_LOGINS_BURST,
        PASSWORD_CHECKS_MAX, REQUESTS_PER_ADDRESS_BURST, REQUESTS_PER_ADDRESS_PER_S, REQUESTS_PER_USER_BURST,
        REQUESTS_PER_USER_PER_S, STREAMS_MAX,
    },
};
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

/// The use of an API token goes into the store at most this often.
const USE_PERIOD_MS: u64 = 60_000;

/// Who has asked how often.
#[derive(Debug)]
pub(in crate::app) struct Access {
    users: Mutex<Throttle<UserName>>,
    addresses: Mutex<Throttle<IpAddr>>,
    /// Failed log-ins, in seconds of waiting.
    logins_of_users: Mutex<Throttle<UserName>>,
    logins_from: Mutex<Throttle<IpAddr>>,
    audited_refusals: Mutex<Throttle<()>>,
    uses: Mutex<HashMap<Uuid, Timestamp>>,
    pub(super) checks: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

impl Default for Access {
    fn default() -> Self {
        let logins = FAILED_LOGINS_BURST * FAILED_LOGIN_S;
        Self {
            users: Mutex::new(Throttle::new(REQUESTS_PER_USER_PER_S, REQUESTS_PER_USER_BURST)),
            addresses: Mutex::new(Throttle::new(REQUESTS_PER_ADDRESS_PER_S, REQUESTS_PER_ADDRESS_BURST)),
            logins_of_users: Mutex::new(Throttle::new(1, logins)),
            logins_from: Mutex::new(Throttle::new(1, logins)),
            audited_refusals: Mutex::new(Throttle::new(AUDITED_REFUSALS_PER_S, AUDITED_REFUSALS_BURST)),
            uses: Mutex::default(),
            checks: Arc::new(Semaphore::new(PASSWORD_CHECKS_MAX)),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
        }
    }
}

/// Counting does not panic, so what the lock guards is whole.
fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

fn throttled(wait_ms: u64) -> Error {
    Error::Throttled { wait_ms }
}

impl Access {
    /// Counts one request.
    pub(super) fn admit(&self, user: Option<&UserName>, peer: IpAddr, now: Timestamp) -> Result<()> {
        match user {
            Some(user) => held(&self.users).take(user.clone(), 1, now).map_err(throttled),
            None => held(&self.addresses).take(place(peer), 1, now).map_err(throttled),
        }
    }

    /// Takes what a failed log-in costs; [`Access::end_login`] gives it back. An address runs out of it soon; a user late,
    /// so that others cannot shut somebody out by a few wrong guesses.
    pub(super) fn begin_login(&self, user: &UserName, peer: IpAddr, now: Timestamp) -> Result<()> {
        held(&self.logins_from).take(place(peer), FAILED_LOGIN_S, now).map_err(throttled)?;
        held(&self.logins_of_users).take(user.clone(), 1, now).map_err(throttled)
    }

    /// The log-in was none that failed.
    pub(super) fn end_login(&self, user: &UserName, peer: IpAddr) {
        held(&self.logins_from).give_back(&place(peer), FAILED_LOGIN_S);
        held(&self.logins_of_users).give_back(user, 1);
    }

    /// Shall this refused request go on the audit log?
    pub(in crate::app) fn is_audited_refusal(&self, now: Timestamp) -> bool {
        held(&self.audited_refusals).take((), 1, now).is_ok()
    }

    /// Shall this use of an API token go into the store?
    pub(super) fn is_use_due(&self, token: Uuid, now: Timestamp) -> bool {
        let mut uses = held(&self.uses);
        if uses.get(&token).is_some_and(|at| now.since_ms(*at) < USE_PERIOD_MS) {
            return false;
        }
        if uses.len() >= COUNTED_MAX {
            uses.clear();
        }
        uses.insert(token, now);
        true
    }

    /// Room for one more stream.
    pub(super) fn admit_stream(&self) -> Result<OwnedSemaphorePermit> {
        Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
            Error::Busy(format!("{STREAMS_MAX} streams are open, which is the most there may be"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn one_user_that_asks_without_end_holds_up_no_other_and_nobody_unknown() {
        let access = Access::default();
        let (loud, calm): (UserName, UserName) = ("loud".parse().unwrap(), "calm".parse().unwrap());
        let admitted = (0..10_000).filter(|_| access.admit(Some(&loud), HERE, Timestamp(0)).is_ok()).count();
        assert_eq!(admitted as u64, REQUESTS_PER_USER_BURST);
        assert!(access.admit(Some(&calm), HERE, Timestamp(0)).is_ok());
        assert!(access.admit(None, HERE, Timestamp(0)).is_ok());
        assert!(access.admit(Some(&loud), HERE, Timestamp(1000)).is_ok());
    }

    #[test]
    fn log_ins_that_succeed_cost_nothing() {
        let access = Access::default();
        let user: UserName = "user".parse().unwrap();
        for _ in 0..100 {
            access.begin_login(&user, HERE, Timestamp(0)).unwrap();
            access.end_login(&user, HERE);
        }
        let failed = (0..100).filter(|_| access.begin_login(&user, HERE, Timestamp(0)).is_ok()).count();
        assert_eq!(failed as u64, FAILED_LOGINS_BURST);
        let elsewhere = IpAddr::from([192, 0, 2, 1]);
        assert!(access.begin_login(&user, elsewhere, Timestamp(0)).is_ok());
        assert!(access.begin_login(&user, HERE, Timestamp(FAILED_LOGIN_S * 1000)).is_ok());
    }

    #[test]
    fn a_token_that_is_used_all_the_time_is_noted_once_a_minute() {
        let access = Access::default();
        let token = Uuid::from_u128(1);
        assert!(access.is_use_due(token, Timestamp(0)));
        assert!(!access.is_use_due(token, Timestamp(USE_PERIOD_MS - 1)));
        assert!(access.is_use_due(token, Timestamp(USE_PERIOD_MS)));
    }
}
