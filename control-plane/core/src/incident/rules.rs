//! The rules: what of all that is known somebody should look at.

use super::{Evidence, Finding, Found, Kind, Severity};
use shared::{DeviceId, JobId, RolloutId, Timestamp};

/// A rollout that stopped is an incident for so long, unless a newer one takes its place.
pub const STOPPED_WITHIN_MS: u64 = 7 * DAY_MS;
/// Devices that were seen within this and are offline went at once.
pub const LOST_WITHIN_MS: u64 = 60 * 60 * 1000;
/// What was refused is counted over this.
pub const REFUSED_WITHIN_MS: u64 = 10 * 60 * 1000;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// A failed job is an incident for so long.
const JOB_WITHIN_MS: u64 = DAY_MS;
/// After the last device went back a version is left alone for so long before that is over.
const ROLLED_BACK_QUIET_MS: u64 = 60 * 60 * 1000;
/// So many devices, and such a share of the fleet, make it an incident that they are offline.
const LOST_MIN: u64 = 3;
const LOST_PERMILLE: u64 = 200;
/// It is over at half of that.
const LOST_OVER_PERMILLE: u64 = LOST_PERMILLE / 2;
const LOST_CRITICAL_PERMILLE: u64 = 500;
/// So many refusals of a kind within [`REFUSED_WITHIN_MS`] are more than mistakes, and so many an attack.
const REFUSED_MIN: u64 = 100;
const REFUSED_CRITICAL: u64 = 10_000;
/// A disk is nearly full when less than this is free, of all and in bytes.
const FREE_PERMILLE_MIN: u64 = 100;
const FREE_BYTES_MIN: u64 = 10 << 30;
const FREE_BYTES_CRITICAL: u64 = 1 << 30;
/// What was out of reach for longer is worth a word.
const OUTAGE_MS_MIN: u64 = 30_000;

/// What is known. A part that is `None` could not be looked at.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub stopped: Option<Vec<StoppedRollout>>,
    pub presence: Option<Presence>,
    pub rolled_back: Option<Vec<RolledBack>>,
    pub refused: Option<Vec<Refused>>,
    pub failed_jobs: Option<Vec<FailedJob>>,
    pub disk: Option<Disk>,
    pub database: Option<Outage>,
    pub broker: Option<Outage>,
}

/// A rollout that was stopped and that no newer completed one of its model and board followed.
#[derive(Clone, Debug)]
pub struct StoppedRollout {
    pub id: RolloutId,
    /// As in `mnist@v1.1`.
    pub version: String,
    pub at: Timestamp,
    pub reason: String,
    /// Devices on which it failed.
    pub failed: u64,
}

/// Who is there.
#[derive(Clone, Debug)]
pub struct Presence {
    /// Devices that are not revoked and were seen once.
    pub total: u64,
    /// Those that are offline and were seen within [`LOST_WITHIN_MS`], or since the open incident began and that before.
    pub lost: u64,
    /// Some of them.
    pub such_as: Vec<DeviceId>,
    /// Such an incident is open.
    pub open: bool,
}

/// A version that devices went back from.
#[derive(Clone, Debug)]
pub struct RolledBack {
    /// The version, or its bundle where that is not known.
    pub version: String,
    pub devices: u64,
    pub last_device: DeviceId,
    pub last_at: Timestamp,
}

/// What was refused of one kind within [`REFUSED_WITHIN_MS`].
#[derive(Clone, Debug)]
pub struct Refused {
    pub kind: String,
    pub count: u64,
    pub last_subject: String,
    pub last_at: Timestamp,
}

/// A job that failed.
#[derive(Clone, Debug)]
pub struct FailedJob {
    pub id: JobId,
    pub model: String,
    pub at: Timestamp,
    pub error: String,
}

/// The disk with the data folder.
#[derive(Clone, Copy, Debug)]
pub struct Disk {
    pub free_bytes: u64,
    pub total_bytes: u64,
}

/// A part that is reached, or was out of reach.
#[derive(Clone, Debug, Default)]
pub struct Outage {
    /// Since when, and why as far as known; none while it is reached.
    pub since: Option<(Timestamp, String)>,
}

/// What is wrong.
pub fn findings(facts: &Facts, now: Timestamp) -> Found {
    let mut found = Found::default();
    let mut take = |kind: Kind, findings: Option<Vec<Finding>>| match findings {
        Some(findings) => found.findings.extend(findings),
        None => {
            found.blind.insert(kind);
        }
    };
    take(Kind::RolloutStopped, each(&facts.stopped, |rollout| stopped(rollout, now)));
    take(
        Kind::DevicesOffline,
        facts.presence.as_ref().map(|presence| offline(presence, now).into_iter().collect()),
    );
    take(Kind::VersionRolledBack, each(&facts.rolled_back, |version| rolled_back(version, now)));
    take(Kind::Refusals, each(&facts.refused, refused));
    take(Kind::JobFailed, each(&facts.failed_jobs, |job| failed(job, now)));
    take(Kind::DiskNearlyFull, facts.disk.map(|disk| nearly_full(disk, now).into_iter().collect()));
    for (kind, what, outage) in [
        (Kind::DatabaseUnreachable, "database", &facts.database),
        (Kind::BrokerUnreachable, "broker", &facts.broker),
    ] {
        let of = |outage: &Outage| unreachable(kind, what, outage, now).into_iter().collect();
        take(kind, outage.as_ref().map(of));
    }
    found
}

fn each<T>(facts: &Option<Vec<T>>, rule: impl Fn(&T) -> Option<Finding>) -> Option<Vec<Finding>> {
    facts.as_ref().map(|facts| facts.iter().filter_map(rule).collect())
}

fn stopped(rollout: &StoppedRollout, now: Timestamp) -> Option<Finding> {
    (now.since_ms(rollout.at) <= STOPPED_WITHIN_MS).then(|| Finding {
        kind: Kind::RolloutStopped,
        severity: Severity::Critical,
        subject: rollout.id.to_string(),
        title: format!("the rollout of {} was stopped", rollout.version),
        count: rollout.failed,
        evidence: Evidence {
            at: rollout.at,
            text: rollout.reason.clone(),
            link: Some(format!("/rollouts/{}", rollout.id)),
        },
        happened_at: Some(rollout.at),
    })
}

fn offline(presence: &Presence, now: Timestamp) -> Option<Finding> {
    let permille = presence.lost.saturating_mul(1000) / presence.total.max(1);
    let (least, permille_min) =
        if presence.open { (1, LOST_OVER_PERMILLE) } else { (LOST_MIN, LOST_PERMILLE) };
    if presence.lost < least || permille < permille_min {
        return None;
    }
    let names: Vec<&str> = presence.such_as.iter().map(DeviceId::as_str).collect();
    let severity = if permille >= LOST_CRITICAL_PERMILLE { Severity::Critical } else { Severity::Warning };
    Some(Finding {
        kind: Kind::DevicesOffline,
        severity,
        subject: "fleet".to_owned(),
        title: format!("{} of {} devices went offline", presence.lost, presence.total),
        count: presence.lost,
        evidence: Evidence {
            at: now,
            text: format!("{} offline, among them {}", presence.lost, names.join(", ")),
            link: Some("/devices?online=false".to_owned()),
        },
        happened_at: None,
    })
}

fn rolled_back(version: &RolledBack, now: Timestamp) -> Option<Finding> {
    let devices = if version.devices == 1 { "device" } else { "devices" };
    (now.since_ms(version.last_at) <= ROLLED_BACK_QUIET_MS).then(|| Finding {
        kind: Kind::VersionRolledBack,
        severity: Severity::Warning,
        subject: version.version.clone(),
        title: format!("{} {devices} went back from {}", version.devices, version.version),
        count: version.devices,
        evidence: Evidence {
            at: version.last_at,
            text: format!("{} went back", version.last_device),
            link: Some(format!("/devices/{}", version.last_device)),
        },
        happened_at: Some(version.last_at),
    })
}

fn refused(refused: &Refused) -> Option<Finding> {
    let severity = if refused.count >= REFUSED_CRITICAL { Severity::Critical } else { Severity::Warning };
    (refused.count >= REFUSED_MIN).then(|| Finding {
        kind: Kind::Refusals,
        severity,
        subject: refused.kind.clone(),
        title: format!(
            "{} was refused {} times or more in ten minutes",
            refused.kind,
            magnitude(refused.count)
        ),
        count: refused.count,
        evidence: Evidence {
            at: refused.last_at,
            text: format!("of {}", refused.last_subject),
            link: Some("/security-events".to_owned()),
        },
        happened_at: None,
    })
}

/// The power of ten at or below: a title that does not change with each refusal.
fn magnitude(count: u64) -> u64 {
    10u64.pow(count.max(1).ilog10())
}

fn failed(job: &FailedJob, now: Timestamp) -> Option<Finding> {
    (now.since_ms(job.at) <= JOB_WITHIN_MS).then(|| Finding {
        kind: Kind::JobFailed,
        severity: Severity::Warning,
        subject: job.id.to_string(),
        title: format!("a job for {} failed", job.model),
        count: 1,
        evidence: Evidence { at: job.at, text: job.error.clone(), link: Some(format!("/jobs/{}", job.id)) },
        happened_at: Some(job.at),
    })
}

fn nearly_full(disk: Disk, now: Timestamp) -> Option<Finding> {
    let permille = u128::from(disk.free_bytes) * 1000 / u128::from(disk.total_bytes.max(1));
    let low = permille < u128::from(FREE_PERMILLE_MIN) && disk.free_bytes < FREE_BYTES_MIN;
    let critical = disk.free_bytes < FREE_BYTES_CRITICAL;
    (low || critical).then(|| Finding {
        kind: Kind::DiskNearlyFull,
        severity: if critical { Severity::Critical } else { Severity::Warning },
        subject: "data".to_owned(),
        title: "the disk with the data folder is nearly full".to_owned(),
        count: 1,
        evidence: Evidence {
            at: now,
            text: format!("less than {} GiB free", disk.free_bytes / (1 << 30) + 1),
            link: None,
        },
        happened_at: None,
    })
}

fn unreachable(kind: Kind, what: &str, outage: &Outage, now: Timestamp) -> Option<Finding> {
    let (since, why) = outage.since.as_ref()?;
    (now.since_ms(*since) >= OUTAGE_MS_MIN).then(|| Finding {
        kind,
        severity: Severity::Critical,
        subject: what.to_owned(),
        title: format!("the {what} was out of reach"),
        count: 1,
        evidence: Evidence { at: *since, text: why.clone(), link: None },
        happened_at: None,
    })
}
