//! When to renew the device's certificate.
//!
//! The clock on the wall may be wrong in either direction, so it alone decides nothing that cannot be undone: where it
//! lies outside the certificate's life a renewal is tried, and the server says whether the certificate has expired.
//! What the clock that never steps has counted since a renewal decides as well.

use shared::{
    Timestamp,
    backoff::{Backoff, Jitter},
};

/// First wait after a renewal that failed.
pub const RETRY_MS: u64 = 30_000;
/// Longest wait after renewals that failed.
pub const RETRY_MS_MAX: u64 = 60 * 60 * 1000;
/// Longest time without a look at the clock on the wall, which may have been put right.
pub const LOOK_MS: u64 = 60 * 60 * 1000;
/// The jitter is at most this part of the certificate's life.
const JITTER_PART: u64 = 20;
/// A certificate that has just come is in this part of its life: servers let it begin a little earlier.
const FRESH_PART: u64 = 6;

/// From when to when a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

impl Lifetime {
    fn ms(self) -> u64 {
        self.not_after.since_ms(self.not_before)
    }

    fn contains(self, wall: Timestamp) -> bool {
        (self.not_before..=self.not_after).contains(&wall)
    }
}

/// Both clocks of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// May step, and may be wrong.
    pub wall: Timestamp,
    /// Never steps; starts anywhere.
    pub monotonic: Timestamp,
}

/// How the certificate stands by the clock on the wall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not due.
    Fresh,
    /// To be renewed.
    Due,
    /// Over, if the clock is right.
    Expired,
}

/// Decides when to try.
#[derive(Clone, Debug)]
pub struct Renewal {
    lifetime: Lifetime,
    /// Of the certificate's life, from its start until it is due.
    due_after_ms: u64,
    /// When this process got the certificate, and whether the clock on the wall was believable then.
    obtained: Option<(Timestamp, bool)>,
    retry_at: Option<Timestamp>,
    backoff: Backoff,
    jitter: Jitter,
}

impl Renewal {
    /// For a certificate that was there at the start. `seed` differs between devices.
    pub fn new(lifetime: Lifetime, seed: u64) -> Self {
        let mut jitter = Jitter::new(seed);
        let due_after_ms = due_after_ms(lifetime, &mut jitter);
        let backoff = Backoff::new(RETRY_MS, RETRY_MS_MAX, jitter.next_u64());
        Self { lifetime, due_after_ms, obtained: None, retry_at: None, backoff, jitter }
    }

    /// Until when to wait before the next look, in milliseconds; zero says to renew now.
    pub fn wait_ms(&self, now: Now) -> u64 {
        let due_ms = self.due_in_ms(now);
        let retry_ms = self.retry_at.map_or(0, |at| at.since_ms(now.monotonic));
        match due_ms.max(retry_ms) {
            0 => 0,
            ms => ms.min(LOOK_MS),
        }
    }

    /// How the certificate stands.
    pub fn standing(&self, now: Now) -> Standing {
        if now.wall > self.lifetime.not_after {
            Standing::Expired
        } else if self.due_in_ms(now) == 0 {
            Standing::Due
        } else {
            Standing::Fresh
        }
    }

    /// Another certificate is in place.
    pub fn renewed(&mut self, lifetime: Lifetime, now: Now) {
        self.lifetime = lifetime;
        self.due_after_ms = due_after_ms(lifetime, &mut self.jitter);
        // A fresh certificate has just begun; a clock that says otherwise would have it renewed at once, again and again.
        let believable = lifetime.contains(now.wall)
            && now.wall.since_ms(lifetime.not_before) <= lifetime.ms() / FRESH_PART;
        self.obtained = Some((now.monotonic, believable));
        self.retry_at = None;
        self.backoff.reset();
    }

    /// A renewal failed: the next is tried after a while, which grows with each.
    pub fn failed(&mut self, now: Now) {
        self.retry_at = Some(now.monotonic.plus_ms(self.backoff.next_ms()));
    }

    fn due_in_ms(&self, now: Now) -> u64 {
        let by_wall_ms = if self.lifetime.contains(now.wall) {
            self.lifetime.not_before.plus_ms(self.due_after_ms).since_ms(now.wall)
        } else {
            0
        };
        match self.obtained {
            None => by_wall_ms,
            Some((at, believable)) => {
                let counted_ms = at.plus_ms(self.due_after_ms).since_ms(now.monotonic);
                if believable { by_wall_ms.min(counted_ms) } else { counted_ms }
            }
        }
    }
}

/// Two thirds of the life and a little more, so that a fleet does not come at one moment.
fn due_after_ms(lifetime: Lifetime, jitter: &mut Jitter) -> u64 {
    let life_ms = lifetime.ms();
    life_ms / 3 * 2 + jitter.next_u64() % (life_ms / JITTER_PART + 1)
}

#[cfg(test)]
mod tests;
