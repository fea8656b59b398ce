//! Rollouts: creating them, ordering them about, and the loop that carries out what the planner says.

mod evidence;
mod proposal;
mod scene;

pub use proposal::NewRollout;

pub(super) use evidence::Gathered;

use super::{App, Error, Page, Result, chain, changes::ChangeKind, deltas::LOOK_MS, now};
use crate::broker::Broker;
use control_core::{
    entity::{Rollout, RolloutSummary, VersionState},
    rollout::{self, Fleet, Order, Plan, Why},
};
use shared::{DeviceId, ModelVersionId, RolloutId, Timestamp, wire::Assignment};
use std::{
    collections::BTreeSet,
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// The planner looks at least this often.
const TICK: Duration = Duration::from_secs(1);
/// And at most this often: what a fleet reports in between is looked at together.
const LOOK_PERIOD_MIN: Duration = Duration::from_millis(50);
/// A look at a large fleet takes its time; so many times as long nothing is looked at, up to [`TICK`], unless ordered.
const REST_SHARE: u32 = 3;
/// A plan that met a change is made again this often.
const ATTEMPTS_MAX: usize = 5;

impl App {
    /// One rollout, with the reasons as they are at this moment. Of one that was stopped, the gates say what is known by now.
    pub async fn rollout(&self, id: RolloutId) -> Result<Rollout> {
        let mut rollout = self.store.rollout(id).await?.ok_or_else(|| not_known(id))?;
        let state = rollout.status.state;
        if !state.is_final() || state == rollout::State::Stopped {
            self.explain(&mut rollout).await?;
        }
        Ok(rollout)
    }

    /// Rollouts with their members in numbers, the newest first; their reasons are those of a glance.
    pub async fn rollouts(&self, page: &Page) -> Result<Vec<RolloutSummary>> {
        let mut rollouts = self.store.rollouts(page).await?;
        let now = now();
        for rollout in &mut rollouts {
            rollout.status.reason = rollout::glance(&rollout.status, &rollout.policy, &rollout.members, now);
        }
        Ok(rollouts)
    }

    /// Fills in the reasons, and what the gates say.
    async fn explain(&self, rollout: &mut Rollout) -> Result<()> {
        let scene = self.scene(rollout).await?;
        let explained = rollout::explain(scene.input(rollout, None, now(), now()));
        (rollout.status, rollout.devices) = (explained.status, explained.members);
        rollout.gates = explained.gates;
        Ok(())
    }

    /// Why a device is where it is in a rollout.
    pub async fn why(&self, id: RolloutId, device: &DeviceId) -> Result<Why> {
        let rollout = self.store.rollout_to_plan(id).await?.ok_or_else(|| not_known(id))?;
        let scene = self.scene(&rollout).await?;
        let why = rollout::why(scene.input(&rollout, None, now(), now()), device);
        if let Some(why) = why {
            return Ok(why);
        }
        let seen = self.device(device).await?;
        let why_not = if seen.revoked_at.is_some() {
            "it was revoked".to_owned()
        } else if seen.board != rollout.board {
            format!("it is a {}, {} is for {}", seen.board, rollout.version, rollout.board)
        } else if rollout.selector.matches(&seen) {
            "it came or was labelled later, or no wave takes it; see `membership` and `waves` of the policy"
                .to_owned()
        } else {
            "the selector does not name it".to_owned()
        };
        Err(Error::NotFound(format!("device {device} is not in rollout {id}: {why_not}")))
    }

    /// Pauses, resumes, aborts, approves or waives. Once begun it is carried through, whether or not the caller waits.
    pub async fn order_rollout(self: &Arc<Self>, id: RolloutId, order: Order) -> Result<Rollout> {
        let app = Arc::clone(self);
        let carried_out = tokio::spawn(async move {
            app.step(id, Some(order)).await?;
            app.publish_desired().await?;
            app.rollout(id).await
        });
        let result = carried_out.await;
        self.planner_wake.notify_one();
        result.map_err(|error| Error::Internal(format!("the order broke off: {error}")))?
    }

    /// Runs until the application stops.
    pub async fn run_planner(self: Arc<Self>) {
        let mut wake_at: Option<Timestamp> = None;
        if let Err(error) = self.find_withdrawals().await {
            tracing::error!("what earlier rollouts left is not known: {}", chain(&error));
        }
        loop {
            let wait = wake_at.map_or(TICK, |at| Duration::from_millis(at.since_ms(now()).max(1)).min(TICK));
            tokio::select! {
                () = self.planner_wake.notified() => {}
                () = tokio::time::sleep(wait) => {}
                () = self.stopped() => return,
            }
            let began = Instant::now();
            wake_at = match self.look().await {
                Ok(at) => at,
                Err(error) => {
                    tracing::error!("the planner could not do its work: {}", chain(&error));
                    None
                }
            };
            let rest = began.elapsed().saturating_mul(REST_SHARE).min(TICK);
            tokio::select! {
                () = tokio::time::sleep_until((began + LOOK_PERIOD_MIN).max(Instant::now() + rest)) => {}
                () = self.stopped() => return,
            }
        }
    }

    /// One look of the planner at everything that is open, whatever became of the look before.
    async fn look(self: &Arc<Self>) -> Result<Option<Timestamp>> {
        self.heard_since(now());
        let mut wake_at = None;
        let open = self.store.open_rollouts().await?;
        self.forget_evidence(&open);
        for id in open {
            match self.step(id, None).await {
                Ok(at) => wake_at = [wake_at, at].into_iter().flatten().min(),
                Err(error) => tracing::error!("rollout {id} is stuck: {}", chain(&error)),
            }
        }
        self.withdraw_unused().await;
        if self.store.is_shared() {
            // What another server has vouched for is known before anybody is told to run it.
            self.publish_trust().await;
            self.kick_revoked().await?;
        }
        self.publish_desired().await?;
        Ok(wake_at)
    }

    /// Ends the sessions of devices that another server has revoked.
    async fn kick_revoked(&self) -> Result<()> {
        let Some(broker) = self.broker().filter(Broker::is_connected) else { return Ok(()) };
        let revoked = self.store.revoked_devices().await?;
        let left: Vec<DeviceId> = {
            let mut out = self.put_out.lock().unwrap_or_else(PoisonError::into_inner);
            let known = out.get_or_insert_with(|| revoked.iter().cloned().collect());
            revoked.into_iter().filter(|device| known.insert(device.clone())).collect()
        };
        for device in &left {
            broker.kick(device).await;
        }
        Ok(())
    }

    /// Since when the fleet has been listened to without a break.
    fn heard_since(&self, now: Timestamp) -> Timestamp {
        if !self.hears_devices() {
            // Nobody looks: where it goes on for longer it shows as a gap.
            return now;
        }
        let mut attention = self.attention.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        attention.look(now)
    }

    /// Reads, plans, executes. Meeting a change, it begins again.
    async fn step(self: &Arc<Self>, id: RolloutId, order: Option<Order>) -> Result<Option<Timestamp>> {
        let _one_at_a_time = self.planner.lock().await;
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.step_once(id, order).await {
                // Another server may have changed it too.
                Err(Error::Conflict(reason)) if attempt < ATTEMPTS_MAX => {
                    tracing::debug!("planning rollout {id} again: {reason}");
                }
                result => return result,
            }
        }
    }

    async fn step_once(self: &Arc<Self>, id: RolloutId, order: Option<Order>) -> Result<Option<Timestamp>> {
        let rollout = self.store.rollout_to_plan(id).await?.ok_or_else(|| not_known(id))?;
        let scene = self.scene(&rollout).await?;
        let now = now();
        let plan = rollout::plan(scene.input(&rollout, order, self.heard_since(now), now))
            .map_err(|rejected| Error::Conflict(rejected.to_string()))?;
        if plan.status != rollout.status || plan.members != rollout.devices {
            return self.execute(&rollout, &plan, &scene.fleet, order.is_some(), now).await;
        }
        Ok(plan.wake_at)
    }

    /// Carries out a plan, unless it is worth the wait for deltas; gives when to look again.
    async fn execute(
        self: &Arc<Self>,
        rollout: &Rollout,
        plan: &Plan,
        fleet: &Fleet,
        at_once: bool,
        now: Timestamp,
    ) -> Result<Option<Timestamp>> {
        let version = self.store.version(rollout.version_id).await?;
        let version = version.ok_or_else(|| Error::Internal(format!("{} is gone", rollout.version)))?;
        let found = self.find_deltas(&version, plan, fleet).await?;
        if found.pending && !at_once {
            return Ok(Some(now.plus_ms(LOOK_MS)));
        }
        let assignment = version.assignment(rollout.slot.clone(), Some(rollout.id), rollout.trial.clone());
        let assignment = Assignment { update_bytes_max: rollout.policy.update_bytes_max, ..assignment };
        self.flush_published().await?;
        let chunk_bytes = self.settings.chunk_bytes;
        if at_once {
            self.store.execute_order(rollout, plan, &assignment, &found.devices, chunk_bytes, now).await?;
        } else {
            self.store.execute(rollout, plan, &assignment, &found.devices, chunk_bytes, now).await?;
        }
        self.tell(ChangeKind::Rollout, rollout.id, plan.status.state.as_str());
        if plan.status.state.is_final() {
            self.tell(ChangeKind::Version, rollout.version_id, "rollout_ended");
            self.withdrawals().insert(rollout.version_id);
            self.withdraw_unused().await;
        }
        for note in &plan.notes {
            tracing::info!("rollout {} of {}: {note}", rollout.id, rollout.version);
        }
        Ok(plan.wake_at)
    }
}

impl App {
    fn withdrawals(&self) -> MutexGuard<'_, BTreeSet<ModelVersionId>> {
        self.withdrawals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// At a start: versions of rollouts that ended early, whose withdrawal may not have been reached. A person who keeps
    /// the offline keys was told then.
    async fn find_withdrawals(&self) -> Result<()> {
        if self.vouches_by_itself().await? {
            let ended = self.store.versions_of_ended_rollouts().await?;
            self.withdrawals().extend(ended);
        }
        Ok(())
    }

    /// Versions that rollouts have left on no device are vouched for no more: those that had begun to run one go back
    /// to an older one, which they would refuse otherwise. What fails is tried again at the next look.
    async fn withdraw_unused(&self) {
        let ended = self.withdrawals().clone();
        for version in ended {
            match self.withdraw_where_unused(version).await {
                Ok(()) => {
                    self.withdrawals().remove(&version);
                }
                Err(error) => tracing::error!("a version is still vouched for: {}", chain(&error)),
            }
        }
    }

    async fn withdraw_where_unused(&self, version: ModelVersionId) -> Result<()> {
        let Some(version) = self.store.version(version).await? else { return Ok(()) };
        match version.state {
            VersionState::Draft | VersionState::Retired => {}
            VersionState::Canary | VersionState::Live => return Ok(()),
        }
        match self.withdraw(&version).await {
            Err(Error::Conflict(text)) => {
                self.note_refusal("trust", "withdrawal_needed", &text);
                Ok(())
            }
            withdrawn => withdrawn,
        }
    }
}

fn not_known(id: RolloutId) -> Error {
    Error::NotFound(format!("rollout {id} is not known; see `edgewright rollout list`"))
}

#[cfg(test)]
mod tests;
