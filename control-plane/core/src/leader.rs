//! Which of several servers on one database acts for the fleet: when a server asks for the lease, renews it, begins and
//! ends.
//!
//! The lease itself is in the database, which lets one holder have it at a time. Here is what a server does about it. Times
//! are of this server's own clock, which must not jump; it is never compared with another's. A holder ends before the
//! database can give the lease to somebody else, however late the answers come: its time counts from before it asked.

use shared::Timestamp;

/// So long a lease lasts without being renewed.
pub const LEASE_MS: u64 = 10_000;
/// A holder renews it this often.
pub const RENEW_MS: u64 = 2_500;
/// A server that waits asks this often, and a holder whose renewal failed.
pub const ASK_MS: u64 = 1_000;
/// An answer is waited for so long; then it counts as none.
pub const ANSWER_MS_MAX: u64 = 2_000;

/// One server's part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// It cannot end and begin again, for its broker lives and dies with it: it ends only where another one has taken the
    /// lease, and nothing that it does without the database is of consequence.
    keeps: bool,
    state: State,
    begin: Option<u64>,
    end: Option<End>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Another server has the lease, or nobody.
    Waiting { ask_at: Timestamp },
    /// This one has it.
    Holding { epoch: u64, renew_at: Timestamp, until: Timestamp },
}

/// What the server does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask the database for the lease.
    Take,
    /// Ask it for more time.
    Renew { epoch: u64 },
    /// Act for the fleet.
    Begin { epoch: u64 },
    /// Act no more.
    End(End),
}

/// Why a server acts no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The database has not answered for so long that another server may have the lease.
    Silence,
    /// Another server has it.
    Deposed,
}

/// What the database answered, and when it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`Action::Take`]: the epoch, if it was free.
    Taken(Option<u64>),
    /// To [`Action::Renew`]: is it still this server's?
    Renewed(bool),
    /// Nothing, or an error.
    None,
}

impl Candidate {
    /// A server that has just started; `keeps` where it cannot end and begin again.
    pub fn new(keeps: bool, now: Timestamp) -> Self {
        Self { keeps, state: State::Waiting { ask_at: now }, begin: None, end: None }
    }

    /// One that has taken the lease already, at `asked_at`, and acts.
    pub fn holding(keeps: bool, epoch: u64, asked_at: Timestamp) -> Self {
        Self { state: held(epoch, asked_at), ..Self::new(keeps, asked_at) }
    }

    /// The epoch, while this server has the lease as far as it knows.
    pub fn epoch(&self) -> Option<u64> {
        match self.state {
            State::Holding { epoch, .. } => Some(epoch),
            State::Waiting { .. } => None,
        }
    }

    /// Takes an answer to what was asked at `asked_at`.
    pub fn handle(&mut self, answer: Answer, asked_at: Timestamp, now: Timestamp) {
        let later = now.plus_ms(ASK_MS);
        match (answer, &mut self.state) {
            (Answer::Taken(Some(epoch)), State::Waiting { .. }) => {
                self.state = held(epoch, asked_at);
                self.begin = Some(epoch);
            }
            (Answer::Renewed(true), State::Holding { epoch, .. }) => self.state = held(*epoch, asked_at),
            (Answer::Renewed(false), State::Holding { .. }) => self.end(End::Deposed, later),
            (Answer::None, State::Holding { renew_at, .. }) => *renew_at = later,
            (_, State::Waiting { ask_at }) => *ask_at = later,
            (Answer::Taken(_), State::Holding { .. }) => {}
        }
    }

    /// What could not be begun, or broke off: the lease is to be given up by whoever says so.
    pub fn give_up(&mut self, now: Timestamp) {
        self.begin = None;
        self.state = State::Waiting { ask_at: now.plus_ms(ASK_MS) };
    }

    /// What to do now, if anything.
    pub fn poll_action(&mut self, now: Timestamp) -> Option<Action> {
        if let State::Holding { until, .. } = self.state
            && now >= until
            && !self.keeps
        {
            self.end(End::Silence, now);
        }
        if let Some(end) = self.end.take() {
            return Some(Action::End(end));
        }
        if let Some(epoch) = self.begin.take() {
            return Some(Action::Begin { epoch });
        }
        match self.state {
            State::Waiting { ask_at } => (now >= ask_at).then_some(Action::Take),
            State::Holding { epoch, renew_at, .. } => (now >= renew_at).then_some(Action::Renew { epoch }),
        }
    }

    /// When to look again.
    pub fn poll_timeout(&self) -> Timestamp {
        match self.state {
            State::Waiting { ask_at } => ask_at,
            State::Holding { renew_at, .. } if self.keeps => renew_at,
            State::Holding { renew_at, until, .. } => renew_at.min(until),
        }
    }

    fn end(&mut self, end: End, ask_at: Timestamp) {
        // What has not begun need not end.
        if self.begin.take().is_none() {
            self.end = Some(end);
        }
        self.state = State::Waiting { ask_at };
    }
}

fn held(epoch: u64, asked_at: Timestamp) -> State {
    State::Holding {
        epoch,
        renew_at: asked_at.plus_ms(RENEW_MS),
        until: asked_at.plus_ms(LEASE_MS - ANSWER_MS_MAX),
    }
}

#[cfg(test)]
mod tests;
