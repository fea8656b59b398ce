//! What the planner sees: the fleet, who could join, and the evidence.

use super::{App, Result};
use control_core::{
    entity::{Device, Rollout},
    rollout::{Candidate, Evidence, Fleet, Input, Membership, Observed, Order},
};
use shared::{BoardId, DeviceId, SlotName, Timestamp, wire::Phase};
use std::collections::{BTreeSet, HashMap};

/// What is seen at one moment, for one rollout.
pub(super) struct Scene {
    pub(super) fleet: Fleet,
    candidates: Vec<Candidate>,
    evidence: Evidence,
}

impl Scene {
    pub(super) fn input<'a>(
        &'a self,
        rollout: &'a Rollout,
        order: Option<Order>,
        heard_since: Timestamp,
        now: Timestamp,
    ) -> Input<'a> {
        Input {
            rollout: rollout.id,
            bundle: rollout.bundle,
            policy: &rollout.policy,
            status: &rollout.status,
            members: &rollout.devices,
            fleet: &self.fleet,
            candidates: &self.candidates,
            evidence: &self.evidence,
            order,
            created_at: rollout.created_at,
            heard_since,
            now,
        }
    }
}

/// A device as the planner sees it.
pub(super) fn observed(
    device: &Device,
    slot: &SlotName,
    board: &BoardId,
    selected: bool,
    starts: u64,
) -> Observed {
    let reported = device.reported.as_ref();
    let slots = reported.map(|reported| reported.slots.as_slice()).unwrap_or_default();
    Observed {
        online: device.online,
        revoked: device.revoked_at.is_some(),
        desired_generation: device.generation,
        reported_generation: reported.map_or(0, |reported| reported.generation),
        slot: slots.iter().find(|report| report.slot == *slot).cloned(),
        labels: device.labels.clone(),
        fits: device.board == *board,
        selected,
        busy: slots.iter().any(|report| report.phase != Phase::Idle),
        starts,
    }
}

impl App {
    /// Looks at the fleet with the eyes of a rollout.
    pub(super) async fn scene(&self, rollout: &Rollout) -> Result<Scene> {
        self.see_all().await;
        let policy = &rollout.policy;
        let follows = policy.membership == Membership::Follow;
        let is_whole = follows || policy.disruption.is_some();
        let devices =
            if is_whole { self.store.fleet().await? } else { self.store.member_devices(rollout.id).await? };
        let candidates = if follows { self.candidates(rollout, &devices).await? } else { Vec::new() };
        let starts = match policy.health() {
            Some(_) => self.store.agent_starts(rollout.id).await?,
            None => HashMap::new(),
        };
        let seen = |device: &Device| {
            let selected = !follows || rollout.selector.matches(device);
            let starts = starts.get(&device.id).copied().unwrap_or_default();
            (device.id.clone(), observed(device, &rollout.slot, &rollout.board, selected, starts))
        };
        let fleet = devices.iter().map(seen).collect();
        Ok(Scene { fleet, candidates, evidence: self.evidence_for(rollout).await? })
    }

    /// Devices that are no members and could be.
    async fn candidates(&self, rollout: &Rollout, devices: &[Device]) -> Result<Vec<Candidate>> {
        let members: BTreeSet<&DeviceId> = rollout.devices.iter().map(|member| &member.device).collect();
        let could = |device: &&Device| {
            device.revoked_at.is_none()
                && device.board == rollout.board
                && rollout.selector.matches(device)
                && !members.contains(&device.id)
        };
        let mut could: Vec<&Device> = devices.iter().filter(could).collect();
        if !could.is_empty() {
            let taken = self.store.devices_without_room(rollout.id, &rollout.slot).await?;
            could.retain(|device| !taken.contains(&device.id));
        }
        let candidate =
            |device: &Device| Candidate { device: device.id.clone(), labels: device.labels.clone() };
        Ok(could.into_iter().map(candidate).collect())
    }
}
