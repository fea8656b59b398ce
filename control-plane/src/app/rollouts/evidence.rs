//! What devices and users have said, counted for gates.

use super::{App, Result, now};
use control_core::{
    entity::Rollout,
    rollout::{Evidence, Signal, Stored},
};
use shared::RolloutId;
use std::{collections::HashMap, sync::PoisonError, time::Duration};
use tokio::time::Instant;

/// What is stored is counted at most this often for one rollout.
const PERIOD: Duration = Duration::from_secs(1);

/// The newest counts of each open rollout.
pub(crate) type Gathered = HashMap<RolloutId, (Instant, Evidence)>;

impl App {
    /// The evidence for a rollout's gates, at most a period old.
    pub(super) async fn evidence_for(&self, rollout: &Rollout) -> Result<Evidence> {
        if rollout.policy.gates.is_empty() {
            return Ok(Evidence::default());
        }
        let kept = {
            let gathered = self.evidence.lock().unwrap_or_else(PoisonError::into_inner);
            gathered.get(&rollout.id).filter(|(at, _)| at.elapsed() < PERIOD).map(|(_, kept)| kept.clone())
        };
        if let Some(kept) = kept {
            return Ok(kept);
        }
        let mut stored = Vec::with_capacity(rollout.policy.gates.len());
        for gate in &rollout.policy.gates {
            stored.push(match gate.signal {
                // Those are known of the members themselves.
                Signal::InstallSuccess | Signal::Health | Signal::Agreement => Stored::default(),
                Signal::Latency | Signal::ErrorRate => self.store.telemetry_evidence(rollout, gate).await?,
                Signal::Ctr | Signal::Conversion | Signal::Drift => {
                    self.store.feedback_evidence(rollout, gate, now()).await?
                }
            });
        }
        let evidence = Evidence::Stored(stored);
        if !rollout.status.state.is_final() {
            let mut gathered = self.evidence.lock().unwrap_or_else(PoisonError::into_inner);
            gathered.insert(rollout.id, (Instant::now(), evidence.clone()));
        }
        Ok(evidence)
    }

    /// Rollouts that are not open need no evidence any more.
    pub(super) fn forget_evidence(&self, open: &[RolloutId]) {
        let mut gathered = self.evidence.lock().unwrap_or_else(PoisonError::into_inner);
        gathered.retain(|id, _| open.contains(id));
    }
}
