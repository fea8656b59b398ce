//! Rollouts: creating them, ordering them about, and the loop that carries out what the planner says.

use super::{App, Error, Page, Result, chain, now, versions::VersionName};
use control_core::{
    entity::{Device, Rollout, Selector, Version, VersionState},
    rollout::{self, Input, MEMBERS_MAX, Observed, Order, Plan, Policy, State, Status, divide},
};
use serde::{Deserialize, Serialize};
use shared::{
    DeviceId, RolloutId, SlotName, Timestamp, limits,
    wire::{Assignment, TrialPolicy},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use uuid::Uuid;

/// The planner looks at least this often.
const TICK: Duration = Duration::from_secs(1);
/// A plan that met a change is made again this often.
const ATTEMPTS_MAX: usize = 5;

/// A rollout to create.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewRollout {
    /// As in `mnist@v1.0`, or the version's id.
    pub version: VersionName,
    #[serde(default = "default_slot")]
    pub slot: String,
    #[serde(default)]
    pub selector: Selector,
    #[serde(default)]
    pub policy: Policy,
    #[serde(default)]
    pub trial: TrialPolicy,
}

fn default_slot() -> String {
    "default".to_owned()
}

impl App {
    /// Creates a rollout for the devices that the selector names at this moment.
    pub async fn create_rollout(&self, new: NewRollout) -> Result<Rollout> {
        new.policy.validate().map_err(Error::Invalid)?;
        new.trial.validate().map_err(Error::Invalid)?;
        let slot: SlotName = new.slot.parse().map_err(|error| Error::Invalid(format!("{error}")))?;
        let version = self.version(&new.version).await?;
        let devices = self.eligible(&new.selector, &version, &slot).await?;
        let rollout = Rollout {
            id: RolloutId(Uuid::now_v7()),
            version: version.name.clone(),
            version_id: version.id,
            model: version.model.clone(),
            slot,
            bundle: version.bundle,
            devices: divide(&new.policy, devices),
            selector: new.selector,
            policy: new.policy,
            trial: new.trial,
            status: Status::default(),
            history: Vec::new(),
            bytes_published: 0,
            created_at: now(),
            finished_at: None,
        };
        self.store.add_rollout(&rollout).await?;
        if version.state == VersionState::Draft || version.state == VersionState::Retired {
            self.store.set_version_state(version.id, VersionState::Canary).await?;
        }
        self.planner_wake.notify_one();
        self.rollout(rollout.id).await
    }

    async fn eligible(
        &self,
        selector: &Selector,
        version: &Version,
        slot: &SlotName,
    ) -> Result<Vec<DeviceId>> {
        for id in &selector.devices {
            let device = self.device(id).await?;
            if device.revoked_at.is_some() {
                return Err(Error::Conflict(format!("device {id} was revoked; leave it out")));
            }
        }
        let fleet = self.store.fleet().await?;
        let devices: Vec<&Device> =
            fleet.iter().filter(|device| device.revoked_at.is_none() && selector.matches(device)).collect();
        if devices.is_empty() {
            return Err(Error::Invalid(
                "the selector matches no device; see `edgewright device list`".to_owned(),
            ));
        }
        if devices.len() > MEMBERS_MAX {
            return Err(Error::Invalid(format!(
                "the selector matches {} devices, at most {MEMBERS_MAX}",
                devices.len()
            )));
        }
        for device in &devices {
            let other_slots = device.assignments.iter().filter(|assignment| assignment.slot != *slot).count();
            if other_slots >= limits::SLOTS_MAX {
                return Err(Error::Conflict(format!(
                    "device {} has {} slots in use, at most {}; use one of them",
                    device.id,
                    other_slots,
                    limits::SLOTS_MAX
                )));
            }
        }
        tracing::info!("{} goes to {} devices", version.name, devices.len());
        Ok(devices.into_iter().map(|device| device.id.clone()).collect())
    }

    /// One rollout.
    pub async fn rollout(&self, id: RolloutId) -> Result<Rollout> {
        let rollout = self.store.rollout(id).await?;
        rollout.ok_or_else(|| {
            Error::NotFound(format!("rollout {id} is not known; see `edgewright rollout list`"))
        })
    }

    /// Rollouts, the newest first.
    pub async fn rollouts(&self, page: Page) -> Result<Vec<Rollout>> {
        Ok(self.store.rollouts(page).await?)
    }

    /// Pauses, resumes or aborts a rollout.
    pub async fn order_rollout(&self, id: RolloutId, order: Order) -> Result<Rollout> {
        self.rollout(id).await?;
        self.step(id, Some(order)).await?;
        self.planner_wake.notify_one();
        self.rollout(id).await
    }

    /// Runs until the application stops.
    pub async fn run_planner(self: Arc<Self>) {
        let mut wake_at: Option<Timestamp> = None;
        loop {
            let wait = wake_at.map_or(TICK, |at| Duration::from_millis(at.since_ms(now()).max(1)).min(TICK));
            tokio::select! {
                () = self.planner_wake.notified() => {}
                () = tokio::time::sleep(wait) => {}
                () = self.stopped() => return,
            }
            wake_at = match self.step_all().await {
                Ok(at) => at,
                Err(error) => {
                    tracing::error!("the planner could not do its work: {}", chain(&error));
                    None
                }
            };
        }
    }

    async fn step_all(&self) -> Result<Option<Timestamp>> {
        let mut wake_at = None;
        for rollout in self.store.open_rollouts().await? {
            match self.step(rollout.id, None).await {
                Ok(at) => wake_at = [wake_at, at].into_iter().flatten().min(),
                Err(error) => tracing::error!("rollout {} is stuck: {}", rollout.id, chain(&error)),
            }
        }
        Ok(wake_at)
    }

    /// Reads, plans, executes, publishes. Meeting a change, it begins again.
    async fn step(&self, id: RolloutId, order: Option<Order>) -> Result<Option<Timestamp>> {
        let _one_at_a_time = self.planner.lock().await;
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.step_once(id, order).await {
                Err(Error::Conflict(reason)) if order.is_none() && attempt < ATTEMPTS_MAX => {
                    tracing::debug!("planning rollout {id} again: {reason}");
                }
                result => return result,
            }
        }
    }

    async fn step_once(&self, id: RolloutId, order: Option<Order>) -> Result<Option<Timestamp>> {
        let rollout = self.rollout(id).await?;
        let fleet = self.observe(&rollout).await?;
        let now = now();
        let plan = rollout::plan(Input {
            rollout: id,
            bundle: rollout.bundle,
            policy: &rollout.policy,
            status: &rollout.status,
            members: &rollout.devices,
            fleet: &fleet,
            order,
            now,
        })
        .map_err(|rejected| Error::Conflict(rejected.to_string()))?;
        if plan.status != rollout.status || plan.members != rollout.devices {
            self.execute(&rollout, &plan, now).await?;
        }
        Ok(plan.wake_at)
    }

    async fn observe(&self, rollout: &Rollout) -> Result<BTreeMap<DeviceId, Observed>> {
        let fleet = self.store.fleet().await?;
        let observed = fleet.into_iter().map(|device| {
            let slot = device
                .reported
                .as_ref()
                .and_then(|reported| reported.slots.iter().find(|slot| slot.slot == rollout.slot).cloned());
            let seen = Observed {
                online: device.online,
                revoked: device.revoked_at.is_some(),
                desired_generation: device.generation,
                reported_generation: device.reported.as_ref().map_or(0, |reported| reported.generation),
                slot,
            };
            (device.id, seen)
        });
        Ok(observed.collect())
    }

    async fn execute(&self, rollout: &Rollout, plan: &Plan, now: Timestamp) -> Result<()> {
        let version = self.store.version(rollout.version_id).await?;
        let version = version.ok_or_else(|| Error::Internal(format!("{} is gone", rollout.version)))?;
        let assignment = Assignment {
            slot: rollout.slot.clone(),
            model: version.model.clone(),
            version: version.version,
            version_id: version.id,
            bundle: version.bundle,
            bundle_bytes: version.bundle_bytes,
            rollout: Some(rollout.id),
            trial: rollout.trial.clone(),
        };
        self.flush_published().await?;
        let changed = self.store.execute(rollout, plan, &assignment, self.settings.chunk_bytes, now).await?;
        for note in &plan.notes {
            tracing::info!("rollout {} of {}: {note}", rollout.id, rollout.version);
        }
        for device in &changed {
            self.publish_desired(device).await?;
        }
        match plan.status.state {
            State::Completed => self.store.set_version_state(version.id, VersionState::Live).await?,
            State::Stopped | State::Aborted if version.state == VersionState::Canary => {
                self.store.set_version_state(version.id, VersionState::Draft).await?;
            }
            State::Running | State::Paused | State::Stopped | State::Aborted => {}
        }
        Ok(())
    }
}
