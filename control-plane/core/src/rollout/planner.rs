//! The next step of a rollout.

use super::{
    Candidate, Evidence, Fleet, Member, MemberState, Order, Policy, Reading, Scope, State, Status, Then,
    Verdict, evidence,
    hold::{Hold, Turns},
    membership,
    observe::{self, Look, deadline, health_due},
    tally::{Tally, tally},
};
use shared::{DeviceId, Digest, RolloutId, Timestamp};
use std::collections::BTreeMap;

mod orders;

pub use super::observe::RECONNECT_MS;

/// Everything that the planner reads.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    pub rollout: RolloutId,
    pub bundle: Digest,
    pub policy: &'a Policy,
    pub status: &'a Status,
    pub members: &'a [Member],
    /// Its members at least; all devices where the policy has a disruption budget.
    pub fleet: &'a Fleet,
    /// Devices that are no members and could be, where the membership follows the fleet.
    pub candidates: &'a [Candidate],
    /// Of the policy's gates.
    pub evidence: &'a Evidence,
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
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    #[error("a rollout that is {state:?} takes no {order:?}")]
    State { state: State, order: Order },
    /// The wave takes no such word.
    #[error("{0}")]
    Wave(String),
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
        if let Some(reason) = self.broken_gate().or_else(|| self.stopped_by_evidence()) {
            self.end(State::Stopped, reason);
            return Ok(());
        }
        let is_done = self.plan.members.iter().all(|member| member.state.is_final());
        if is_done && self.input.policy.gates.is_empty() {
            self.complete();
            return Ok(());
        }
        if self.plan.status.state == State::Running {
            self.advance();
        }
        let ends = is_done && self.plan.status.state == State::Running && self.is_through();
        match self.plan.status.state {
            State::Running if ends => self.complete(),
            State::Running => {
                let holds = self.assign();
                self.set_wake(&holds);
            }
            State::Paused => self.set_wake(&[]),
            State::Completed | State::Stopped | State::Aborted => {}
        }
        Ok(())
    }

    fn turn(&mut self, state: State, reason: String) {
        self.plan.notes.push(reason.clone());
        self.plan.status.state = state;
        self.plan.status.reason = reason;
    }

    /// Takes in who came and went, what members have reported, and who ran out of time.
    fn observe(&mut self) {
        let Input { now, bundle, policy, fleet, heard_since, candidates, .. } = self.input;
        // A clock that was set back: what lies ahead of it begins again.
        if let Some(closed_at) = &mut self.plan.status.wave_closed_at {
            *closed_at = now.min(*closed_at);
        }
        let look = Look { bundle, policy, fleet, heard_since, now };
        let members = &mut self.plan.members;
        self.plan.notes.extend(members.iter_mut().filter_map(|member| observe::observe(member, look)));
        self.plan.notes.extend(membership::follow(members, policy, fleet, candidates, now));
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

    /// What the gates behind a wave say.
    fn readings(&self, wave: u32) -> Vec<Reading> {
        evidence::read(self.input.policy, self.input.evidence, &self.plan.members, wave)
    }

    /// Why a gate stops the rollout, if one does: also behind waves that are through, where each is a test of its own.
    fn stopped_by_evidence(&self) -> Option<String> {
        let (policy, newest) = (self.input.policy, self.plan.status.wave);
        let is_of_wave = |at: usize| policy.gates.get(at).is_some_and(|gate| gate.scope == Scope::Wave);
        let first = if (0..policy.gates.len()).any(is_of_wave) { 0 } else { newest };
        let mut stops = (first..=newest).flat_map(|wave| self.readings(wave)).filter(|reading| {
            reading.verdict == Verdict::Stop && (reading.wave == newest || is_of_wave(reading.gate))
        });
        let stop = stops.next_back()?;
        Some(format!("stopped by the gate behind wave {}: {}", stop.wave + 1, stop.text))
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
    /// after the pause, once its gates are open and it is approved.
    fn advance(&mut self) {
        let Input { now, policy, .. } = self.input;
        let waves = self.waves();
        let last = waves.keys().next_back().copied().unwrap_or(0);
        let needs_end = !policy.gates.is_empty();
        while self.plan.status.wave < last || needs_end {
            let wave = self.plan.status.wave;
            let tally = waves.get(&wave).copied().unwrap_or_default();
            // Of a wave in which nobody is left, the gate has seen to it that one before has proved the version.
            let proved = tally.committed > 0 || tally.open() == 0;
            // The last wave is through when everybody is.
            if tally.is_under_way() || !proved || (wave >= last && tally.open() > 0) {
                self.plan.status.wave_closed_at = None;
                return;
            }
            let closed_at = *self.plan.status.wave_closed_at.get_or_insert_with(|| {
                self.plan.notes.push(format!("wave {} is through", wave + 1));
                now
            });
            if !self.gates_open(wave, closed_at) || wave >= last {
                return;
            }
            let approved =
                !policy.needs_approval(wave + 1) || self.plan.status.approved.contains(&(wave + 1));
            if now.since_ms(closed_at) < policy.pause_ms || !approved {
                return;
            }
            self.plan.status.wave += 1;
            self.plan.status.wave_closed_at = None;
            self.plan.notes.push(format!("wave {} opened", wave + 2));
        }
    }

    /// Are the gates behind a wave that is through open? Ends or pauses the rollout where one was not in its time.
    fn gates_open(&mut self, wave: u32, closed_at: Timestamp) -> bool {
        let Input { now, policy, .. } = self.input;
        if self.plan.status.waived.contains(&wave) {
            return true;
        }
        let mut open = true;
        for reading in self.readings(wave) {
            let Some(gate) = policy.gates.get(reading.gate) else { continue };
            if reading.verdict == Verdict::Open || gate.from_wave > wave + 1 {
                continue;
            }
            let overdue = now.since_ms(closed_at) >= gate.wait_ms;
            let text = format!("after {} s the gate behind wave {}", gate.wait_ms / 1000, wave + 1);
            match gate.then {
                Then::Open if overdue => {}
                Then::Stop if overdue => {
                    self.end(State::Stopped, format!("stopped: {text} has not opened: {}", reading.text));
                    return false;
                }
                Then::Pause if overdue => {
                    self.turn(State::Paused, format!("paused: {text} has not opened: {}", reading.text));
                    return false;
                }
                Then::Open | Then::Stop | Then::Pause => open = false,
            }
        }
        open
    }

    /// Do the gates behind the newest wave let the rollout end?
    fn is_through(&mut self) -> bool {
        let wave = self.plan.status.wave;
        match self.plan.status.wave_closed_at {
            _ if self.input.policy.gates.is_empty() => true,
            Some(closed_at) => self.gates_open(wave, closed_at),
            None => false,
        }
    }

    /// Asks whoever may be asked; gives what keeps the others.
    fn assign(&mut self) -> Vec<Hold> {
        let Input { now, policy, fleet, .. } = self.input;
        let mut turns = Turns::new(policy, fleet, &self.plan.members, now);
        let mut held = Vec::new();
        let Plan { status, members, actions, notes, .. } = &mut self.plan;
        let mut order: Vec<usize> = (0..members.len()).collect();
        order.sort_by_key(|&at| members.get(at).map(|member| member.wave));
        for at in order {
            let Some(member) = members.get_mut(at) else { continue };
            if member.state != MemberState::Pending || member.wave > status.wave {
                continue;
            }
            let seen = fleet.get(&member.device);
            let holds = turns.holds(status, member, seen);
            let (Some(seen), true) = (seen, holds.is_empty()) else {
                held.extend(holds.into_iter().filter(|hold| hold.until().is_some()));
                continue;
            };
            let generation = seen.desired_generation.saturating_add(1);
            member.state = MemberState::Assigned;
            member.generation = Some(generation);
            member.assigned_at = Some(now);
            member.reason = "has the assignment".to_owned();
            turns.take(fleet, member);
            notes.push(format!("{} got the assignment, generation {generation}", member.device));
            actions.push(Action::Assign { device: member.device.clone(), generation });
        }
        held
    }

    fn set_wake(&mut self, holds: &[Hold]) {
        let Input { policy, heard_since, now, .. } = self.input;
        let members = &self.plan.members;
        let deadlines = members.iter().filter_map(|member| deadline(member, policy, heard_since));
        let health = members.iter().filter_map(|member| health_due(member, policy, heard_since));
        let running = self.plan.status.state == State::Running;
        let closed_at = self.plan.status.wave_closed_at.filter(|_| running);
        let waits = policy.gates.iter().map(|gate| gate.wait_ms).chain([policy.pause_ms]);
        let waits = closed_at.into_iter().flat_map(|at| waits.clone().map(move |ms| at.plus_ms(ms)));
        // What was due and is not through waits for something else.
        let waits = waits.filter(|at| *at > now);
        let holds = holds.iter().filter_map(Hold::until);
        let times = deadlines.chain(health).chain(waits).chain(holds).chain(self.returning_until());
        self.plan.wake_at = times.min();
    }
}
