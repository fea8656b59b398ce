//! A rollout before it runs: the planner on a clock of its own, with devices that do as well as they can.

mod objections;

pub use objections::{Problem, Severity, problems};

use super::{
    Candidate, Evidence, Fleet, Gate, MEMBERS_MAX, Member, MemberState, Observed, Policy, State, Status,
    divide,
    explain::explain,
    planner::{Input, Plan, plan},
};
use objections::warning;
use serde::{Deserialize, Serialize};
use shared::{
    DeviceId, Digest, ModelVersionId, RolloutId, Timestamp, VersionLabel,
    wire::{Attempt, Outcome, Phase, SlotReport, TrialPolicy, VersionRef},
};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// Looks times members that a preview may take.
const EFFORT_MAX: usize = 5_000_000;
/// Looks that it takes at most, however few the members.
const LOOKS_MAX: usize = 5_000;
/// Devices that a problem names.
const NAMED_MAX: usize = 3;
/// A rollout that takes longer than this is one that somebody should look at: 90 days.
const LONG_MS: u64 = 90 * 24 * 60 * 60 * 1000;

/// A rollout that somebody thinks of.
#[derive(Clone, Copy, Debug)]
pub struct Proposal<'a> {
    pub policy: &'a Policy,
    pub trial: &'a TrialPolicy,
    /// Whom the selector names.
    pub devices: &'a [Candidate],
    /// As the fleet is seen: those devices at least, all where the policy has a disruption budget.
    pub fleet: &'a Fleet,
    pub now: Timestamp,
}

/// What would come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Preview {
    pub waves: Vec<WavePreview>,
    pub gates: Vec<GatePreview>,
    /// Largest probability that a version within all limits is stopped by a gate.
    pub false_stop: f64,
    /// Devices that the selector names and no wave takes.
    pub left_out: Vec<DeviceId>,
    /// When all that are online would have it at the earliest; none where that cannot be told.
    pub ends_at: Option<Timestamp>,
    pub problems: Vec<Problem>,
}

/// One wave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WavePreview {
    /// From 0.
    pub wave: u32,
    /// As in `10 %` or `ring=canary`.
    pub takes: String,
    pub approval: bool,
    /// When its first device would be asked at the earliest.
    pub starts_at: Option<Timestamp>,
    pub devices: Vec<DevicePreview>,
}

/// One device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DevicePreview {
    pub device: DeviceId,
    pub online: bool,
    /// When it would be asked at the earliest.
    pub starts_at: Option<Timestamp>,
    /// Why it would not be, where that is so.
    pub waits_for: Option<String>,
}

/// One gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GatePreview {
    #[serde(flatten)]
    pub gate: Gate,
    /// Good observations, and no bad one, after which it opens at the earliest.
    pub needed: u64,
}

/// Plays a rollout through: every device that is online commits after its trial, whoever is offline stays so, gates on
/// what users and requests show are taken as good, approvals as given.
pub fn preview(proposal: Proposal<'_>) -> Preview {
    let Proposal { policy, devices, now, .. } = proposal;
    let members = divide(&policy.waves, devices.iter().cloned());
    let mut problems = problems(proposal);
    let taken: BTreeSet<&DeviceId> = members.iter().map(|member| &member.device).collect();
    let left_out = devices.iter().map(|device| &device.device).filter(|device| !taken.contains(device));
    let left_out = left_out.cloned().collect();
    let mut play = Play::new(proposal, members);
    let ended = play.run();
    if let Ended::Stuck(reason) = &ended {
        problems.push(warning(format!("as the fleet is, it comes to a halt: {reason}")));
    }
    let ends_at = (ended == Ended::Done).then_some(play.committed_at);
    if ends_at.is_some_and(|at| at.since_ms(now) > LONG_MS) {
        problems.push(warning(format!("it takes over {} days", LONG_MS / 86_400_000)));
    }
    let offline = play.members.iter().filter(|member| !play.is_online(&member.device));
    let names: Vec<_> = offline.clone().take(NAMED_MAX).map(|member| member.device.to_string()).collect();
    if !names.is_empty() {
        let (count, names) = (offline.count(), names.join(", "));
        problems.push(warning(format!("{count} devices are offline and get it when they are seen: {names}")));
    }
    let waves = play.waves();
    let gates = policy.gates.iter().map(|gate| GatePreview { needed: gate.needed(), gate: gate.clone() });
    Preview {
        waves,
        gates: gates.collect(),
        false_stop: policy.gates.iter().map(|gate| gate.false_stop).sum::<f64>().min(1.0),
        left_out,
        ends_at,
        problems,
    }
}

/// How the play ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// Everybody who is online is through.
    Done,
    /// Somebody who is online waits for ever.
    Stuck(String),
    /// It would take too many looks to tell.
    TooLong,
}

struct Play<'a> {
    proposal: Proposal<'a>,
    status: Status,
    members: Vec<Member>,
    fleet: Fleet,
    /// When each that was asked will have committed.
    commits: BTreeMap<DeviceId, Timestamp>,
    asked: BTreeMap<DeviceId, Timestamp>,
    reasons: BTreeMap<DeviceId, String>,
    committed_at: Timestamp,
    now: Timestamp,
}

/// A device that is on its way somewhere arrives there.
fn at_rest(seen: &Observed) -> Observed {
    let reported_generation = if seen.online { seen.desired_generation } else { seen.reported_generation };
    Observed { busy: false, reported_generation, slot: None, ..seen.clone() }
}

impl<'a> Play<'a> {
    fn new(proposal: Proposal<'a>, members: Vec<Member>) -> Self {
        let waves = u32::try_from(proposal.policy.waves.len()).unwrap_or(u32::MAX);
        Self {
            status: Status { approved: (0..waves).collect(), ..Status::default() },
            members,
            fleet: proposal.fleet.iter().map(|(device, seen)| (device.clone(), at_rest(seen))).collect(),
            commits: BTreeMap::new(),
            asked: BTreeMap::new(),
            reasons: BTreeMap::new(),
            committed_at: proposal.now,
            now: proposal.now,
            proposal,
        }
    }

    fn is_online(&self, device: &DeviceId) -> bool {
        self.fleet.get(device).is_some_and(|seen| seen.online)
    }

    fn input(&self) -> Input<'_> {
        Input {
            rollout: RolloutId(Uuid::nil()),
            bundle: bundle(),
            policy: self.proposal.policy,
            status: &self.status,
            members: &self.members,
            fleet: &self.fleet,
            candidates: &[],
            evidence: &Evidence::Favourable,
            order: None,
            created_at: self.proposal.now,
            heard_since: self.proposal.now,
            now: self.now,
        }
    }

    fn run(&mut self) -> Ended {
        let looks = (EFFORT_MAX / self.members.len().clamp(1, MEMBERS_MAX)).min(LOOKS_MAX);
        for _ in 0..looks {
            // A preview gives no order, so that none is refused.
            let Ok(next) = plan(self.input()) else { return Ended::TooLong };
            let changed = next.status != self.status || next.members != self.members;
            let wake_at = next.wake_at;
            self.take(next);
            if self.status.state.is_final() {
                return self.ended();
            }
            let commit_at = self.commits.values().min().copied();
            match [commit_at, wake_at].into_iter().flatten().min() {
                Some(at) if at > self.now => self.now = at,
                Some(_) | None if changed => {}
                Some(_) | None => return self.ended(),
            }
            self.commit();
        }
        Ended::TooLong
    }

    fn take(&mut self, next: Plan) {
        for member in next.members.iter().filter(|member| member.state == MemberState::Assigned) {
            if self.asked.contains_key(&member.device) {
                continue;
            }
            self.asked.insert(member.device.clone(), self.now);
            let trial_ms = self.proposal.trial.duration_ms;
            self.commits.insert(member.device.clone(), self.now.plus_ms(trial_ms));
            if let (Some(seen), Some(generation)) = (self.fleet.get_mut(&member.device), member.generation) {
                seen.desired_generation = generation;
            }
        }
        self.status = next.status;
        self.members = next.members;
    }

    /// Those whose trial is over have committed.
    fn commit(&mut self) {
        let now = self.now;
        let due: Vec<_> =
            self.commits.iter().filter(|(_, at)| **at <= now).map(|(id, _)| id.clone()).collect();
        for device in due {
            self.commits.remove(&device);
            self.committed_at = now;
            let Some(seen) = self.fleet.get_mut(&device) else { continue };
            seen.reported_generation = seen.desired_generation;
            seen.starts = 0;
            seen.slot = slot(seen.desired_generation, now);
        }
    }

    fn ended(&mut self) -> Ended {
        let explained = explain(self.input());
        let mut halted = None;
        for member in &explained.members {
            if member.state == MemberState::Pending {
                self.reasons.insert(member.device.clone(), member.reason.clone());
                if self.is_online(&member.device) {
                    halted.get_or_insert_with(|| format!("{} {}", member.device, member.reason));
                }
            }
        }
        match self.status.state {
            State::Completed => Ended::Done,
            State::Running | State::Paused if halted.is_none() && self.asked.len() == self.members.len() => {
                Ended::Stuck(explained.status.reason)
            }
            State::Running | State::Paused | State::Stopped | State::Aborted => match halted {
                Some(reason) => Ended::Stuck(format!("{}; {reason}", explained.status.reason)),
                None if self.asked.is_empty() => Ended::Stuck(explained.status.reason),
                None => Ended::Done,
            },
        }
    }

    fn waves(&self) -> Vec<WavePreview> {
        let wave = |(at, wave): (usize, &super::Wave)| {
            let members = self.members.iter().filter(|member| member.wave as usize == at);
            let device = |member: &Member| DevicePreview {
                online: self.is_online(&member.device),
                starts_at: self.asked.get(&member.device).copied(),
                waits_for: self.reasons.get(&member.device).cloned(),
                device: member.device.clone(),
            };
            let devices: Vec<DevicePreview> = members.map(device).collect();
            WavePreview {
                wave: u32::try_from(at).unwrap_or(u32::MAX),
                takes: wave.size.to_string(),
                approval: wave.approval,
                starts_at: devices.iter().filter_map(|device| device.starts_at).min(),
                devices,
            }
        };
        self.proposal.policy.waves.iter().enumerate().map(wave).collect()
    }
}

/// Stands for the version that would come.
fn bundle() -> Digest {
    Digest::of(b"a version that would come")
}

/// What a device reports that has committed it.
fn slot(generation: u64, at: Timestamp) -> Option<SlotReport> {
    let version = VersionRef {
        model: "preview".parse().ok()?,
        version: VersionLabel { major: 1, minor: 0 },
        version_id: ModelVersionId(Uuid::nil()),
        bundle: bundle(),
    };
    Some(SlotReport {
        slot: "preview".parse().ok()?,
        active: Some(version.clone()),
        last_good: Some(version.clone()),
        runtime: None,
        phase: Phase::Idle,
        attempt: Some(Attempt {
            generation,
            rollout: None,
            version,
            outcome: Outcome::Committed,
            at,
            trial: None,
        }),
    })
}
