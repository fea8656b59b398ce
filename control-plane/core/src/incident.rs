//! Incidents: what somebody should look at, decided by rules from what is known.
//!
//! [`findings`] says what is wrong at this moment, [`decide`] what becomes of incidents by that. Of one kind and subject
//! one incident is open at a time. It is closed when its cause is gone, or by an operator: then it stays closed until
//! the cause has gone and come back, or happens anew.

mod rules;

pub use rules::{
    Disk, Facts, FailedJob, LOST_WITHIN_MS, Outage, Presence, REFUSED_WITHIN_MS, Refused, RolledBack,
    STOPPED_WITHIN_MS, StoppedRollout, findings,
};

use serde::{Deserialize, Serialize};
use shared::{Timestamp, wire};
use std::collections::BTreeSet;
use uuid::Uuid;

/// Most pieces of evidence of one incident: the first and the newest.
pub const EVIDENCE_MAX: usize = 20;

/// What kind of thing is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "IncidentKind"))]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A gate, or too many failed devices, stopped a rollout.
    RolloutStopped,
    /// Many devices went offline at once.
    DevicesOffline,
    /// Devices went back from a version that failed its trial.
    VersionRolledBack,
    /// More was refused than somebody's mistakes explain.
    Refusals,
    JobFailed,
    DiskNearlyFull,
    DatabaseUnreachable,
    BrokerUnreachable,
}

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "IncidentSeverity"))]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Warning,
    /// Somebody should look at once.
    Critical,
}

/// Something that speaks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "IncidentEvidence"))]
pub struct Evidence {
    pub at: Timestamp,
    pub text: String,
    /// Where in the API there is more, as in `/rollouts/ID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}

/// Something that somebody should look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Incident {
    pub id: Uuid,
    pub kind: Kind,
    pub severity: Severity,
    pub title: String,
    /// What it is about: an id, or the name of a part.
    pub subject: String,
    pub opened_at: Timestamp,
    pub updated_at: Timestamp,
    /// When somebody said that they look at it.
    pub acknowledged_at: Option<Timestamp>,
    pub resolved_at: Option<Timestamp>,
    /// How many devices, refusals or times, as the kind counts.
    pub count: u64,
    pub evidence: Vec<Evidence>,
}

/// Something that is wrong at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub kind: Kind,
    pub severity: Severity,
    pub subject: String,
    pub title: String,
    pub count: u64,
    pub evidence: Evidence,
    /// When it happened last, where it is something that happens and not a state.
    pub happened_at: Option<Timestamp>,
}

/// What was found, and which kinds nothing is known of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub findings: Vec<Finding>,
    /// Incidents of these kinds stay as they are.
    pub blind: BTreeSet<Kind>,
}

/// What becomes of an incident. All but [`Change::Unmuted`] are told to whoever watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Opened(Incident),
    Updated(Incident),
    Resolved(Incident),
    /// The cause of one that an operator had closed is gone.
    Unmuted(Uuid),
}

/// Works out what becomes of incidents. `known` are those that are open, and those that an operator closed while their
/// cause was there. Ids of those that are opened come from `id`.
pub fn decide(found: Found, known: &[Incident], now: Timestamp, mut id: impl FnMut() -> Uuid) -> Vec<Change> {
    let mut changes = Vec::new();
    let about = |incident: &Incident, finding: &Finding| {
        incident.kind == finding.kind && incident.subject == finding.subject
    };
    for incident in known {
        let there = found.findings.iter().any(|finding| about(incident, finding));
        if there || found.blind.contains(&incident.kind) {
            continue;
        }
        changes.push(match incident.resolved_at {
            Some(_) => Change::Unmuted(incident.id),
            None => Change::Resolved(closed(incident, now)),
        });
    }
    for finding in found.findings {
        let of_it = || known.iter().filter(|incident| about(incident, &finding));
        if let Some(open) = of_it().find(|incident| incident.resolved_at.is_none()) {
            changes.extend(updated(open, finding, now).map(Change::Updated));
            continue;
        }
        let closed_at = of_it().filter_map(|incident| incident.resolved_at).max();
        let anew = |closed_at: Timestamp| finding.happened_at.is_some_and(|at| at > closed_at);
        if closed_at.is_none_or(anew) {
            changes.extend(of_it().map(|incident| Change::Unmuted(incident.id)));
            changes.push(Change::Opened(opened(finding, now, id())));
        }
    }
    changes
}

fn opened(finding: Finding, now: Timestamp, id: Uuid) -> Incident {
    Incident {
        id,
        kind: finding.kind,
        severity: finding.severity,
        title: wire::cut(&finding.title),
        subject: finding.subject,
        opened_at: now,
        updated_at: now,
        acknowledged_at: None,
        resolved_at: None,
        count: finding.count,
        evidence: vec![cut(finding.evidence)],
    }
}

/// The incident with what was found, where that says anything that it does not say yet. It never matters less than before.
fn updated(open: &Incident, finding: Finding, now: Timestamp) -> Option<Incident> {
    let evidence = cut(finding.evidence);
    let told = open.evidence.iter().any(|told| told.text == evidence.text);
    let (severity, title) = (open.severity.max(finding.severity), wire::cut(&finding.title));
    let count = open.count.max(finding.count);
    if told && (severity, count, &title) == (open.severity, open.count, &open.title) {
        return None;
    }
    let mut incident = Incident { severity, title, count, updated_at: now, ..open.clone() };
    if !told {
        tell(&mut incident, evidence);
    }
    Some(incident)
}

fn closed(open: &Incident, now: Timestamp) -> Incident {
    let mut incident = Incident { resolved_at: Some(now), updated_at: now, ..open.clone() };
    tell(&mut incident, Evidence { at: now, text: "its cause is gone".to_owned(), link: None });
    incident
}

fn tell(incident: &mut Incident, evidence: Evidence) {
    if incident.evidence.len() >= EVIDENCE_MAX {
        incident.evidence.remove(1);
    }
    incident.evidence.push(evidence);
}

fn cut(evidence: Evidence) -> Evidence {
    Evidence { text: wire::one_line(&evidence.text), ..evidence }
}

impl Incident {
    /// Somebody looks at it: `None` where that was known, or it is over.
    pub fn acknowledged(&self, by: &str, now: Timestamp) -> Option<Self> {
        if self.acknowledged_at.is_some() || self.resolved_at.is_some() {
            return None;
        }
        let mut incident = Self { acknowledged_at: Some(now), updated_at: now, ..self.clone() };
        tell(&mut incident, Evidence { at: now, text: format!("{by} looks at it"), link: None });
        Some(incident)
    }

    /// Somebody closes it: `None` where it is over already.
    pub fn resolved(&self, by: &str, now: Timestamp) -> Option<Self> {
        if self.resolved_at.is_some() {
            return None;
        }
        let mut incident = Self { resolved_at: Some(now), updated_at: now, ..self.clone() };
        tell(&mut incident, Evidence { at: now, text: format!("closed by {by}"), link: None });
        Some(incident)
    }
}

#[cfg(test)]
mod tests;
