//! The next step of a rollout.

use super::{
    Fleet, Member, MemberState, Observed, Order, Policy, State, Status,
    explain::progress,
    tally::{Tally, tally},
    verdict::judge,
};
use shared::{DeviceId, Digest, RolloutId, Timestamp};
use std::collections::BTreeMap;

/// After a break in listening, devices have this long to come back: neither does their time count, nor is a wave
/// closed because they are offline.
pub const RECONNECT_MS: u64 = 60_000;

/// That a device waits for its budget is noted this often within its time-out.
const WAIT_NOTED_PARTS: u64 = 4;

/// Everything that the planner reads.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    pub rollout: RolloutId,
    pub bundle: Digest,
    pub policy: &'a Policy,
    pub status: &'a Status,
    pub members: &'a [Member],
    /// Its members at least.
    pub fleet: &'a Fleet,
    pub order: Option<Order>,
    /// When the rollout was made.
    pub created_at: Timestamp,
    /// Since when the fleet has been listened to without a break, see [`Attention`](super::Attention).
    pub heard_since: Timestamp,
    pub now: Timestamp,
}

/// What has to be done for one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Put the version into the slot, with this generation.
    Assign { device: DeviceId, generation: u64 },
    /// Put back what was in the slot, with this generation.
    Restore { device: DeviceId, generation: u64 },
}

/// What follows. Executing it leaves no choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub status: Status,
    pub members: Vec<Member>,
    pub actions: Vec<Action>,
    /// What happened, for people.
    pub notes: Vec<String>,
    /// When time alone could change the plan.
    pub wake_at: Option<Timestamp>,
}

/// An order that cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a rollout that is {state:?} takes no {order:?}")]
pub struct Rejected {
    pub state: State,
    pub order: Order,
}

/// The next step of a rollout.
pub fn plan(input: Input<'_>) -> Result<Plan, Rejected> {
    let mut planner = Planner {
        input,
        plan: Plan {
            status: input.status.clone(),
            members: input.members.to_vec(),
            actions: Vec::new(),
            notes: Vec::new(),
            wake_at: None,
        },
    };
    planner.run()?;
    Ok(planner.plan)
}

struct Planner<'a> {
    input: Input<'a>,
    plan: Plan,
}

impl Planner<'_> {
    fn run(&mut self) -> Result<(), Rejected> {
        if let Some(order) = self.input.order {
            self.follow(order)?;
        }
        if self.plan.status.state.is_final() {
            return Ok(());
        }
        self.observe();
        if let Some(reason) = self.broken_gate() {
            self.end(State::Stopped, reason);
            return Ok(());
        }
        if self.plan.members.iter().all(|member| member.state.is_final()) {
            self.complete();
            return Ok(());
        }
        if self.plan.status.state == State::Running {
            self.advance();
            self.assign();
        }
        self.set_wake();
        Ok(())
    }

    fn follow(&mut self, order: Order) -> Result<(), Rejected> {
        let state = self.plan.status.state;
        match (state, order) {
            (State::Running, Order::Pause) => self.turn(State::Paused, "paused by an operator".to_owned()),
            (State::Paused, Order::Resume) => self.turn(State::Running, "resumed by an operator".to_owned()),
            (State::Running | State::Paused, Order::Abort) => {
                self.observe();
                self.end(State::Aborted, "aborted by an operator".to_owned());
            }
            (State::Running, Order::Resume)
            | (State::Paused, Order::Pause)
            | (State::Completed | State::Stopped | State::Aborted, _) => {
                return Err(Rejected { state, order });
            }
        }
        Ok(())
    }

    fn turn(&mut self, state: State, reason: String) {
        self.plan.notes.push(reason.clone());
        self.plan.status.state = state;
        self.plan.status.reason = reason;
    }

    /// Takes in what assigned devices have reported, and who ran out of time.
    fn observe(&mut self) {
        let Input { now, bundle, policy, fleet, heard_since, .. } = self.input;
        // A clock that was set back: what lies ahead of it begins again.
        if let Some(closed_at) = &mut self.plan.status.wave_closed_at {
            *closed_at = now.min(*closed_at);
        }
        for member in self.plan.members.iter_mut().filter(|member| !member.state.is_final()) {
            if let Some(assigned_at) = &mut member.assigned_at {
                *assigned_at = now.min(*assigned_at);
            }
            let seen = fleet.get(&member.device);
            if member.state == MemberState::Assigned {
                wait_for_budget(member, seen, policy, now);
            }
            let gone = seen.is_none_or(|seen| seen.revoked);
            let late = deadline(member, policy, heard_since).is_some_and(|at| at <= now);
            let verdict = match member.state {
                _ if gone => Some((MemberState::Skipped, "the device was revoked".to_owned())),
                MemberState::Assigned => judge(member, seen, bundle).or_else(|| {
                    let waited_s = policy.device_timeout_ms / 1000;
                    late.then(|| {
                        let reason = format!("not finished after {waited_s} s: {}", progress(member, seen));
                        (MemberState::Failed, reason)
                    })
                }),
                MemberState::Pending
                | MemberState::Committed
                | MemberState::Failed
                | MemberState::Reverted
                | MemberState::Skipped => None,
            };
            if let Some((state, reason)) = verdict {
                self.plan.notes.push(format!("{} {}: {reason}", member.device, word(state)));
                member.state = state;
                member.reason = reason;
                member.finished_at = Some(now);
            }
        }
    }

    fn waves(&self) -> BTreeMap<u32, Tally> {
        tally(&self.plan.members, self.input.fleet, self.returning_until().is_some())
    }

    /// Until when whoever is offline is expected back, after a break in listening.
    fn returning_until(&self) -> Option<Timestamp> {
        let Input { created_at, heard_since, now, .. } = self.input;
        let until = heard_since.plus_ms(RECONNECT_MS);
        (created_at < heard_since && now < until).then_some(until)
    }

    /// Why the rollout has to stop, if it has to.
    fn broken_gate(&self) -> Option<String> {
        let permille = self.input.policy.failed_permille_max;
        let waves = self.waves();
        let last = waves.keys().next_back().copied()?;
        let over = |failed: u64, of: u64| failed * 1000 > u64::from(permille) * of;
        let mut committed = 0;
        for (&wave, tally) in waves.range(..=self.plan.status.wave) {
            committed += tally.committed;
            let Tally { failed, size, .. } = *tally;
            let (number, tried) = (wave + 1, tally.tried());
            // The last wave has nothing behind it that opens too early: it is through when everybody is.
            let through = !tally.is_under_way() && (wave < last || tally.pending == 0);
            if over(failed, size) {
                return Some(format!(
                    "stopped by the gate: {failed} of {size} devices of wave {number} failed, allowed are {permille} \
                     in a thousand"
                ));
            }
            if through && over(failed, tried) {
                return Some(format!(
                    "stopped by the gate: {failed} of the {tried} devices of wave {number} that finished failed, \
                     allowed are {permille} in a thousand"
                ));
            }
            if committed == 0 && tally.open() == 0 {
                return Some(format!(
                    "stopped by the gate: nobody has committed, and nobody is left in wave {number} who could"
                ));
            }
        }
        None
    }

    /// Ends the rollout; every member gets a final state and whoever holds the version without having committed
    /// it gets back what it had.
    fn end(&mut self, state: State, reason: String) {
        let now = self.input.now;
        let take_back = state != State::Completed && self.input.policy.rollback_committed;
        for member in &mut self.plan.members {
            let restore = match member.state {
                MemberState::Pending => {
                    member.state = MemberState::Skipped;
                    member.reason = "the rollout ended before its turn".to_owned();
                    false
                }
                MemberState::Assigned => {
                    member.state = MemberState::Reverted;
                    member.reason = "had not finished when the rollout ended".to_owned();
                    true
                }
                MemberState::Committed if take_back => {
                    member.state = MemberState::Reverted;
                    member.reason = "had committed; rolled back with the rollout".to_owned();
                    true
                }
                MemberState::Failed => member.generation.is_some(),
                MemberState::Committed | MemberState::Reverted | MemberState::Skipped => false,
            };
            member.finished_at.get_or_insert(now);
            let seen = self.input.fleet.get(&member.device).filter(|seen| !seen.revoked);
            if let (true, Some(seen)) = (restore, seen) {
                self.plan.actions.push(Action::Restore {
                    device: member.device.clone(),
                    generation: seen.desired_generation.saturating_add(1),
                });
            }
        }
        self.turn(state, reason);
    }

    /// The end without a broken gate. Who failed within what is allowed gets back what it had.
    fn complete(&mut self) {
        let count =
            |state: MemberState| self.plan.members.iter().filter(|member| member.state == state).count();
        let (committed, failed) = (count(MemberState::Committed), count(MemberState::Failed));
        self.end(State::Completed, format!("completed: {committed} devices committed, {failed} failed"));
    }

    /// Closes the newest wave when nobody in it is under way and the version has proved itself, and opens the next
    /// after the pause.
    fn advance(&mut self) {
        let now = self.input.now;
        let waves = self.waves();
        let last = waves.keys().next_back().copied().unwrap_or(0);
        while self.plan.status.wave < last {
            let wave = self.plan.status.wave;
            let tally = waves.get(&wave).copied().unwrap_or_default();
            // Of a wave in which nobody is left, the gate has seen to it that one before has proved the version.
            let proved = tally.committed > 0 || tally.open() == 0;
            if tally.is_under_way() || !proved {
                self.plan.status.wave_closed_at = None;
                return;
            }
            let closed_at = *self.plan.status.wave_closed_at.get_or_insert_with(|| {
                self.plan.notes.push(format!("wave {} is through", wave + 1));
                now
            });
            if now.since_ms(closed_at) < self.input.policy.pause_ms {
                return;
            }
            self.plan.status.wave += 1;
            self.plan.status.wave_closed_at = None;
            self.plan.notes.push(format!("wave {} opened", wave + 2));
        }
    }

    fn assign(&mut self) {
        let now = self.input.now;
        for member in &mut self.plan.members {
            if member.state != MemberState::Pending || member.wave > self.plan.status.wave {
                continue;
            }
            let Some(seen) = self.input.fleet.get(&member.device).filter(|seen| seen.online && !seen.revoked)
            else {
                continue;
            };
            let generation = seen.desired_generation.saturating_add(1);
            member.state = MemberState::Assigned;
            member.generation = Some(generation);
            member.assigned_at = Some(now);
            member.reason = "has the assignment".to_owned();
            self.plan.notes.push(format!("{} got the assignment, generation {generation}", member.device));
            self.plan.actions.push(Action::Assign { device: member.device.clone(), generation });
        }
    }

    fn set_wake(&mut self) {
        let Input { policy, heard_since, .. } = self.input;
        let deadlines = self.plan.members.iter().filter_map(|member| deadline(member, policy, heard_since));
        let pause = self.plan.status.wave_closed_at.map(|at| at.plus_ms(policy.pause_ms));
        let pause = pause.filter(|_| self.plan.status.state == State::Running);
        self.plan.wake_at = deadlines.chain(pause).chain(self.returning_until()).min();
    }
}

/// A device that waits for its budget loses no time by it. That is noted from time to time, not at every look.
fn wait_for_budget(member: &mut Member, seen: Option<&Observed>, policy: &Policy, now: Timestamp) {
    if let Some(until) = &mut member.waited_until {
        *until = now.min(*until);
    }
    let waits = seen.is_some_and(|seen| {
        seen.waits_for_budget()
            && member.generation.is_some_and(|generation| seen.reported_generation >= generation)
    });
    let noted = member.waited_until.max(member.assigned_at).unwrap_or_default();
    if waits && now.since_ms(noted) >= policy.device_timeout_ms / WAIT_NOTED_PARTS {
        member.waited_until = Some(now);
    }
}

/// When a device that has the assignment has run out of time. Only time in which it was listened to counts.
fn deadline(member: &Member, policy: &Policy, heard_since: Timestamp) -> Option<Timestamp> {
    let assigned_at = member.assigned_at.filter(|_| member.state == MemberState::Assigned)?;
    let begun_at = member.waited_until.map_or(assigned_at, |until| until.max(assigned_at));
    let from = if begun_at < heard_since { heard_since.plus_ms(RECONNECT_MS) } else { begun_at };
    Some(from.plus_ms(policy.device_timeout_ms))
}

fn word(state: MemberState) -> &'static str {
    match state {
        MemberState::Pending => "waits",
        MemberState::Assigned => "assigned",
        MemberState::Committed => "committed",
        MemberState::Failed => "failed",
        MemberState::Reverted => "reverted",
        MemberState::Skipped => "skipped",
    }
}
