//! Rollouts before they run: what is asked for, what would come of it, and making them.

use super::{App, Error, Result, now, scene::observed};
use crate::app::{changes::ChangeKind, versions::VersionName};
use control_core::{
    entity::{Device, Rollout, Selector, Version, VersionState},
    rollout::{self, Candidate, Fleet, MEMBERS_MAX, Policy, Preview, Proposal, Severity, Status, divide},
};
use serde::{Deserialize, Serialize};
use shared::{RolloutId, SlotName, wire::TrialPolicy};
use uuid::Uuid;

/// A rollout to create, or to look at before.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
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
    /// Also a version whose place another one took.
    #[serde(default)]
    pub allow_retired: bool,
}

fn default_slot() -> String {
    "default".to_owned()
}

/// What was asked for, with everything that it names.
struct Asked {
    new: NewRollout,
    version: Version,
    slot: SlotName,
    devices: Vec<Candidate>,
    fleet: Fleet,
}

impl Asked {
    fn proposal(&self) -> Proposal<'_> {
        Proposal {
            policy: &self.new.policy,
            trial: &self.new.trial,
            devices: &self.devices,
            fleet: &self.fleet,
            now: now(),
        }
    }
}

impl App {
    /// What a rollout would do. Nothing is kept.
    pub async fn plan_rollout(&self, new: NewRollout) -> Result<Preview> {
        let asked = self.ask(new).await?;
        // It plays a whole rollout: not on a thread that serves others.
        tokio::task::spawn_blocking(move || rollout::preview(asked.proposal()))
            .await
            .map_err(|error| Error::Internal(format!("the plan broke off: {error}")))
    }

    /// Creates a rollout for the devices of the version's board that the selector names at this moment.
    pub async fn create_rollout(&self, new: NewRollout) -> Result<Rollout> {
        let asked = self.ask(new).await?;
        let problems = rollout::problems(asked.proposal());
        if let Some(problem) = problems.into_iter().find(|problem| problem.severity == Severity::Error) {
            return Err(Error::Invalid(problem.text));
        }
        let Asked { new, version, slot, devices, .. } = asked;
        let members = divide(&new.policy.waves, devices);
        if members.is_empty() {
            return Err(Error::Invalid("no wave takes any device; see `edgewright rollout plan`".to_owned()));
        }
        self.vouch(&version).await?;
        tracing::info!("{} goes to {} devices", version.name, members.len());
        let rollout = Rollout {
            id: RolloutId(Uuid::now_v7()),
            version: version.name.clone(),
            version_id: version.id,
            model: version.model.clone(),
            board: version.board.clone(),
            slot,
            bundle: version.bundle,
            devices: members,
            selector: new.selector,
            policy: new.policy,
            trial: new.trial,
            status: Status::default(),
            gates: Vec::new(),
            history: Vec::new(),
            bytes_published: 0,
            created_at: now(),
            finished_at: None,
            revision: 0,
        };
        self.store.add_rollout(&rollout).await?;
        self.tell(ChangeKind::Rollout, rollout.id, "created");
        self.tell(ChangeKind::Version, version.id, "rolled_out");
        self.planner_wake.notify_one();
        self.rollout(rollout.id).await
    }

    /// Checks what was asked for and looks up what it names.
    async fn ask(&self, new: NewRollout) -> Result<Asked> {
        new.trial.validate().map_err(Error::Invalid)?;
        new.policy.validate(&new.trial).map_err(Error::Invalid)?;
        let slot: SlotName = new.slot.parse().map_err(|error| Error::Invalid(format!("{error}")))?;
        let version = self.version(&new.version).await?;
        if version.state == VersionState::Retired && !new.allow_retired {
            return Err(Error::Conflict(format!(
                "{} was retired when another version took its place; --allow-retired rolls it out all the same",
                version.name
            )));
        }
        let devices = self.store.fleet().await?;
        let named = self.eligible(&new.selector, &version, &devices).await?;
        let named = named
            .into_iter()
            .map(|device| Candidate { device: device.id.clone(), labels: device.labels.clone() });
        let named = named.collect();
        let seen = |device: &Device| {
            let selected = new.selector.matches(device);
            (device.id.clone(), observed(device, &slot, &version.board, selected, 0))
        };
        let fleet = devices.iter().map(seen).collect();
        Ok(Asked { version, slot, devices: named, fleet, new })
    }

    async fn eligible<'a>(
        &self,
        selector: &Selector,
        version: &Version,
        fleet: &'a [Device],
    ) -> Result<Vec<&'a Device>> {
        for id in &selector.devices {
            let device = self.device(id).await?;
            if device.revoked_at.is_some() {
                return Err(Error::Conflict(format!("device {id} was revoked; leave it out")));
            }
            if device.board != version.board {
                return Err(Error::Conflict(format!(
                    "device {id} is a {}, {} is for {}; leave it out",
                    device.board, version.name, version.board
                )));
            }
        }
        let (devices, others): (Vec<&Device>, Vec<&Device>) = fleet
            .iter()
            .filter(|device| device.revoked_at.is_none() && selector.matches(device))
            .partition(|device| device.board == version.board);
        if devices.is_empty() && !others.is_empty() {
            return Err(Error::Invalid(format!(
                "none of the {} devices that the selector matches is a {}, for which {} was made",
                others.len(),
                version.board,
                version.name
            )));
        }
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
        Ok(devices)
    }
}
