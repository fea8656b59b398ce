//! The rollout planner: a function of the rollout as it is, the fleet as it is seen, and the time.
//!
//! Waves are fixed when a rollout is made. A wave opens when the one before is closed and the pause has passed; it
//! is closed when no member is under way and none that is online still waits. Members that are offline stay
//! pending and get the version as soon as they are seen, as long as the rollout runs. When the share of failed
//! members of any wave is over what is allowed, the rollout stops at once: members that failed or had not finished
//! get back what they had, pending ones never see the version, committed ones keep it unless the policy says
//! otherwise.

use serde::{Deserialize, Serialize};
use shared::{
    DeviceId, Digest, RolloutId, Timestamp,
    wire::{Outcome, Phase, SlotReport},
};
use std::collections::BTreeMap;

/// Most waves of one rollout.
pub const WAVES_MAX: usize = 32;
/// Longest pause and longest device time-out: a week.
pub const WAIT_MS_MAX: u64 = 7 * 24 * 60 * 60 * 1000;
/// Most devices of one rollout.
pub const MEMBERS_MAX: usize = 100_000;

/// How many devices a wave takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaveSize {
    Count(u32),
    /// Of all eligible devices, rounded up, at least one.
    Percent(u32),
}

/// How a rollout goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// In order; the last takes all the rest, whatever its size.
    pub waves: Vec<WaveSize>,
    /// Between the close of a wave and the opening of the next.
    pub pause_ms: u64,
    /// Failed devices in a thousand of a wave that are still accepted.
    pub failed_permille_max: u16,
    /// A device that has not finished this long after its assignment has failed.
    pub device_timeout_ms: u64,
    /// When stopped, take the version from devices that committed it, too.
    pub rollback_committed: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            waves: vec![WaveSize::Percent(10), WaveSize::Percent(100)],
            pause_ms: 10_000,
            failed_permille_max: 0,
            device_timeout_ms: 15 * 60 * 1000,
            rollback_committed: false,
        }
    }
}

impl Policy {
    /// Names the field that is out of range and what is allowed.
    pub fn validate(&self) -> Result<(), String> {
        if self.waves.is_empty() || self.waves.len() > WAVES_MAX {
            return Err(format!("policy.waves has {} waves, allowed are 1 to {WAVES_MAX}", self.waves.len()));
        }
        for wave in &self.waves {
            match wave {
                WaveSize::Count(0) => {
                    return Err("policy.waves has a wave of 0 devices, at least 1".to_owned());
                }
                WaveSize::Percent(percent) if !(1..=100).contains(percent) => {
                    return Err(format!("policy.waves has a wave of {percent} %, allowed are 1 to 100"));
                }
                WaveSize::Count(_) | WaveSize::Percent(_) => {}
            }
        }
        if self.pause_ms > WAIT_MS_MAX {
            return Err(format!("policy.pause_ms is {}, at most {WAIT_MS_MAX}", self.pause_ms));
        }
        if self.failed_permille_max > 1000 {
            return Err(format!("policy.failed_permille_max is {}, at most 1000", self.failed_permille_max));
        }
        if !(1..=WAIT_MS_MAX).contains(&self.device_timeout_ms) {
            return Err(format!(
                "policy.device_timeout_ms is {}, allowed are 1 to {WAIT_MS_MAX}",
                self.device_timeout_ms
            ));
        }
        Ok(())
    }
}

/// Where a device is in a rollout. The last four are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// Has not been asked yet.
    Pending,
    /// Has the assignment; the outcome is open.
    Assigned,
    /// Passed its trial.
    Committed,
    /// Refused it, rolled it back, or took too long.
    Failed,
    /// Had not finished, or had committed, when the rollout ended, and got back what it had.
    Reverted,
    /// The rollout ended before it was asked, or the device was revoked.
    Skipped,
}

impl MemberState {
    /// Will nothing change any more?
    pub fn is_final(self) -> bool {
        match self {
            Self::Pending | Self::Assigned => false,
            Self::Committed | Self::Failed | Self::Reverted | Self::Skipped => true,
        }
    }
}

/// A device in a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub device: DeviceId,
    /// From 0.
    pub wave: u32,
    pub state: MemberState,
    /// Why it is in this state, for people.
    pub reason: String,
    /// The desired generation that carries the assignment.
    pub generation: Option<u64>,
    pub assigned_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

/// Where a rollout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Running,
    /// By an operator: nobody is asked; who was asked goes on, and gates still hold.
    Paused,
    /// Every device committed or failed within what is allowed.
    Completed,
    /// By a gate.
    Stopped,
    /// By an operator.
    Aborted,
}

impl State {
    /// Will nothing change any more?
    pub fn is_final(self) -> bool {
        match self {
            Self::Running | Self::Paused => false,
            Self::Completed | Self::Stopped | Self::Aborted => true,
        }
    }
}

/// How far a rollout is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub state: State,
    /// The newest open wave, from 0.
    pub wave: u32,
    /// When that wave was closed, and the pause began.
    pub wave_closed_at: Option<Timestamp>,
    /// Why it is as it is, for people.
    pub reason: String,
}

impl Default for Status {
    fn default() -> Self {
        Self { state: State::Running, wave: 0, wave_closed_at: None, reason: "started".to_owned() }
    }
}

/// What an operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    Pause,
    Resume,
    Abort,
}

/// What is seen of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    pub online: bool,
    pub revoked: bool,
    /// The newest desired generation that was made for it.
    pub desired_generation: u64,
    /// The newest that it has accepted.
    pub reported_generation: u64,
    /// Its report on the rollout's slot.
    pub slot: Option<SlotReport>,
}

/// Everything that the planner reads.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    pub rollout: RolloutId,
    pub bundle: Digest,
    pub policy: &'a Policy,
    pub status: &'a Status,
    pub members: &'a [Member],
    pub fleet: &'a BTreeMap<DeviceId, Observed>,
    pub order: Option<Order>,
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

/// Puts devices, in the order of their ids, into waves.
pub fn divide(policy: &Policy, mut devices: Vec<DeviceId>) -> Vec<Member> {
    devices.sort();
    devices.dedup();
    let total = devices.len();
    let mut rest = devices.into_iter();
    let mut members = Vec::with_capacity(total);
    for (wave, size) in policy.waves.iter().enumerate() {
        let last = wave + 1 == policy.waves.len();
        let size = match size {
            _ if last => total,
            WaveSize::Count(count) => *count as usize,
            WaveSize::Percent(percent) => (total * *percent as usize).div_ceil(100).max(1),
        };
        for device in rest.by_ref().take(size) {
            members.push(Member {
                device,
                wave: u32::try_from(wave).unwrap_or(u32::MAX),
                state: MemberState::Pending,
                reason: "waits for its wave".to_owned(),
                generation: None,
                assigned_at: None,
                finished_at: None,
            });
        }
    }
    members
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
        if let Some(wave) = self.broken_gate() {
            self.stop_by_gate(wave);
            return Ok(());
        }
        if self.plan.members.iter().all(|member| member.state.is_final()) {
            return self.complete();
        }
        if self.plan.status.state == State::Running {
            self.advance();
            self.assign();
        }
        self.explain();
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
        let (now, bundle, timeout_ms) =
            (self.input.now, self.input.bundle, self.input.policy.device_timeout_ms);
        for member in &mut self.plan.members {
            if member.state.is_final() {
                continue;
            }
            let seen = self.input.fleet.get(&member.device);
            let gone = seen.is_none_or(|seen| seen.revoked);
            let verdict = if gone {
                Some((MemberState::Skipped, "the device was revoked".to_owned()))
            } else if member.state == MemberState::Assigned {
                judge(member, seen, bundle).or_else(|| {
                    let late = member.assigned_at.is_some_and(|at| now.since_ms(at) >= timeout_ms);
                    late.then(|| {
                        (
                            MemberState::Failed,
                            format!("not finished after {} s: {}", timeout_ms / 1000, member.reason),
                        )
                    })
                })
            } else {
                None
            };
            if let Some((state, reason)) = verdict {
                self.plan.notes.push(format!("{} {}: {reason}", member.device, word(state)));
                member.state = state;
                member.reason = reason;
                member.finished_at = Some(now);
            }
        }
    }

    fn broken_gate(&self) -> Option<u32> {
        (0..=self.plan.status.wave).find(|&wave| {
            let (failed, size) = self.count_failed(wave);
            failed * 1000 > u64::from(self.input.policy.failed_permille_max) * size
        })
    }

    fn count_failed(&self, wave: u32) -> (u64, u64) {
        let members = || self.plan.members.iter().filter(move |member| member.wave == wave);
        let failed = members().filter(|member| member.state == MemberState::Failed).count();
        (failed as u64, members().count() as u64)
    }

    fn stop_by_gate(&mut self, wave: u32) {
        let (failed, size) = self.count_failed(wave);
        let reason = format!(
            "stopped by the gate: {failed} of {size} devices of wave {} failed, allowed are {} in a thousand",
            wave + 1,
            self.input.policy.failed_permille_max
        );
        self.end(State::Stopped, reason);
    }

    /// Ends the rollout; every member gets a final state and whoever holds the version without having committed
    /// it gets back what it had.
    fn end(&mut self, state: State, reason: String) {
        let (now, rollback_committed) = (self.input.now, self.input.policy.rollback_committed);
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
                MemberState::Committed if rollback_committed => {
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
    fn complete(&mut self) -> Result<(), Rejected> {
        let committed =
            self.plan.members.iter().filter(|member| member.state == MemberState::Committed).count();
        let failed = self.plan.members.iter().filter(|member| member.state == MemberState::Failed).count();
        for member in &self.plan.members {
            let seen = self.input.fleet.get(&member.device).filter(|seen| !seen.revoked);
            if let (MemberState::Failed, Some(_), Some(seen)) = (member.state, member.generation, seen) {
                self.plan.actions.push(Action::Restore {
                    device: member.device.clone(),
                    generation: seen.desired_generation.saturating_add(1),
                });
            }
        }
        self.turn(State::Completed, format!("completed: {committed} devices committed, {failed} failed"));
        Ok(())
    }

    fn is_online(&self, device: &DeviceId) -> bool {
        self.input.fleet.get(device).is_some_and(|seen| seen.online)
    }

    /// Closes the newest wave when nobody in it is under way, and opens the next after the pause.
    fn advance(&mut self) {
        let last = self.plan.members.iter().map(|member| member.wave).max().unwrap_or(0);
        while self.plan.status.wave < last {
            let wave = self.plan.status.wave;
            let members: Vec<_> = self.plan.members.iter().filter(|member| member.wave == wave).collect();
            let under_way = members.iter().any(|member| {
                member.state == MemberState::Assigned
                    || (member.state == MemberState::Pending && self.is_online(&member.device))
            });
            let nobody =
                !members.is_empty() && members.iter().all(|member| member.state == MemberState::Pending);
            if under_way || nobody {
                self.plan.status.wave_closed_at = None;
                return;
            }
            let closed_at = match self.plan.status.wave_closed_at {
                Some(at) => at,
                None => {
                    self.plan.status.wave_closed_at = Some(self.input.now);
                    self.plan.notes.push(format!("wave {} is through", wave + 1));
                    self.input.now
                }
            };
            if self.input.now.since_ms(closed_at) < self.input.policy.pause_ms {
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

    /// Says of every member that is not through why it is where it is, and of the rollout what it waits for.
    fn explain(&mut self) {
        let wave = self.plan.status.wave;
        let paused = self.plan.status.state == State::Paused;
        let (mut assigned, mut offline) = (0usize, 0usize);
        for member in &mut self.plan.members {
            let seen = self.input.fleet.get(&member.device);
            let online = seen.is_some_and(|seen| seen.online);
            match member.state {
                MemberState::Assigned => {
                    assigned += 1;
                    member.reason = progress(member, seen);
                }
                MemberState::Pending if member.wave > wave => {
                    member.reason = format!("waits for wave {}", member.wave + 1);
                }
                MemberState::Pending if !online => {
                    offline += 1;
                    member.reason = "offline; gets the version when it is seen".to_owned();
                }
                MemberState::Pending => member.reason = "waits for the rollout to be resumed".to_owned(),
                MemberState::Committed
                | MemberState::Failed
                | MemberState::Reverted
                | MemberState::Skipped => {}
            }
        }
        if paused {
            return;
        }
        self.plan.status.reason = match self.plan.status.wave_closed_at {
            Some(_) => format!("pause after wave {}", wave + 1),
            None => format!("wave {}: {assigned} devices under way, {offline} offline", wave + 1),
        };
    }

    fn set_wake(&mut self) {
        let policy = self.input.policy;
        let deadlines = self
            .plan
            .members
            .iter()
            .filter(|member| member.state == MemberState::Assigned)
            .filter_map(|member| member.assigned_at.map(|at| at.plus_ms(policy.device_timeout_ms)));
        let pause = self.plan.status.wave_closed_at.map(|at| at.plus_ms(policy.pause_ms));
        let pause = pause.filter(|_| self.plan.status.state == State::Running);
        self.plan.wake_at = deadlines.chain(pause).min();
    }
}

/// Has the device finished, and how?
fn judge(member: &Member, seen: Option<&Observed>, bundle: Digest) -> Option<(MemberState, String)> {
    let seen = seen?;
    let generation = member.generation?;
    let slot = seen.slot.as_ref()?;
    if let Some(attempt) = &slot.attempt
        && attempt.generation >= generation
        && attempt.version.bundle == bundle
    {
        return Some(match &attempt.outcome {
            Outcome::Committed => (MemberState::Committed, "passed its trial".to_owned()),
            Outcome::Refused { reason, detail } => {
                (MemberState::Failed, format!("refused, {}: {detail}", refusal(*reason)))
            }
            Outcome::RolledBack { detail } => (MemberState::Failed, format!("rolled back: {detail}")),
        });
    }
    let holds = |version: &Option<shared::wire::VersionRef>| {
        version.as_ref().is_some_and(|version| version.bundle == bundle)
    };
    let settled = seen.reported_generation >= generation
        && slot.phase == Phase::Idle
        && holds(&slot.active)
        && holds(&slot.last_good);
    settled.then(|| (MemberState::Committed, "ran it already".to_owned()))
}

/// The wire's word for a refusal.
fn refusal(reason: shared::wire::Refusal) -> &'static str {
    use shared::wire::Refusal;
    match reason {
        Refusal::DigestMismatch => "digest_mismatch",
        Refusal::BadManifest => "bad_manifest",
        Refusal::WrongVersion => "wrong_version",
        Refusal::GoldenMismatch => "golden_mismatch",
        Refusal::NotLoadable => "not_loadable",
        Refusal::Abandoned => "abandoned",
    }
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

fn progress(member: &Member, seen: Option<&Observed>) -> String {
    let Some(seen) = seen else { return "not seen".to_owned() };
    if !seen.online {
        return "went offline with the assignment".to_owned();
    }
    if member.generation.is_some_and(|generation| seen.reported_generation < generation) {
        return "has not accepted the assignment yet".to_owned();
    }
    match seen.slot.as_ref().map(|slot| &slot.phase) {
        None | Some(Phase::Idle) => "accepted the assignment".to_owned(),
        Some(Phase::Fetching { chunks_done, chunks_total, .. }) => {
            format!("fetching, {chunks_done} of {chunks_total} chunks")
        }
        Some(Phase::Testing { .. }) => "testing the golden inputs".to_owned(),
        Some(Phase::Trial { .. }) => "in its trial".to_owned(),
        Some(Phase::Waiting { reason, .. }) => format!("waiting: {reason}"),
    }
}

#[cfg(test)]
mod tests;
