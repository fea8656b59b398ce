//! `edgewright rollout`.

mod plan;
mod policy;

use super::{
    Failure, Outcome, PageArgs,
    client::Client,
    devices::pair,
    groups,
    output::{ago, bytes, ends, facts, plain, show, table, word},
    query::Query,
};
use crate::{
    api::{List, OfWave},
    app::{rollouts::NewRollout, versions::VersionName},
};
use clap::{Args, Subcommand};
use control_core::{
    entity::{Rollout, RolloutSummary, Selector},
    rollout::{MemberState, Policy, Preview, Reading, Severity, State, Verdict, Wave, WaveSize, Why},
};
use indicatif::{ProgressBar, ProgressStyle};
use shared::{DeviceId, RolloutId, wire::TrialPolicy};
use std::{path::PathBuf, time::Duration};

/// Rollouts.
#[derive(Debug, Subcommand)]
pub enum RolloutCommand {
    /// Bring a version to devices, in waves
    #[command(after_help = "\
Examples:
  edgewright rollout create --version mnist@v1.1 --wave 1 --wave 10% --wave 100% --pause-s 600
  edgewright rollout create --version mnist@v1.1 --group pilots --policy policy.toml --wait

`edgewright rollout plan` with the same options shows what it would do.")]
    Create(Box<CreateArgs>),
    /// Show what one would do: who would be asked when, which gates hold, what speaks against it
    Plan(Box<RolloutArgs>),
    /// List them
    List(#[command(flatten)] PageArgs),
    /// Show one: every device, and why it is where it is
    Show { id: RolloutId },
    /// Watch one to its end; that it was stopped or aborted is a failure
    Watch { id: RolloutId },
    /// Ask no more devices
    Pause { id: RolloutId },
    /// Go on
    Resume { id: RolloutId },
    /// End one; devices that have not finished get back what they had
    Abort { id: RolloutId },
    /// Let a wave begin that needs an approval
    Approve {
        id: RolloutId,
        /// From 1; without it the next that needs one
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        wave: Option<u32>,
    },
    /// Ask for no more evidence behind the newest wave; what a gate stops is stopped still
    Waive {
        id: RolloutId,
        /// From 1; without it the newest that is open
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        wave: Option<u32>,
    },
    /// Say why a device is where it is
    #[command(after_help = "\
Example:
  edgewright rollout why 01890a5d-ac96-774b-bcce-b302099a8057 cam-01 --watch")]
    Why { id: RolloutId, device: DeviceId },
}

/// A rollout to create.
#[derive(Debug, Args)]
pub struct CreateArgs {
    #[command(flatten)]
    rollout: RolloutArgs,
    /// Watch it to its end
    #[arg(long)]
    wait: bool,
}

/// What a rollout is.
#[derive(Debug, Args)]
pub struct RolloutArgs {
    /// As in mnist@v1.0, or the version's id
    #[arg(long)]
    version: VersionName,
    /// Where the model goes on the device
    #[arg(long, default_value = "default")]
    slot: String,
    /// Only this device; may be given again
    #[arg(long = "device", value_name = "ID")]
    devices: Vec<DeviceId>,
    /// Only devices with this label; may be given again
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// Only the devices of this group, as `edgewright group list` names it
    #[arg(long, value_name = "NAME", conflicts_with_all = ["devices", "labels"])]
    group: Option<String>,
    /// Also a version whose place another one took
    #[arg(long)]
    allow_retired: bool,
    /// How it goes on, as TOML or JSON: waves, rate, windows, gates and more; in place of the options that follow
    #[arg(long, value_name = "FILE", conflicts_with_all = ["waves", "pause_s", "failed_permille_max",
        "device_timeout_s", "rollback_committed", "update_bytes_max"])]
    policy: Option<PathBuf>,
    /// Size of the next wave, as a count or per cent; the last takes all the rest [default: 10%, 100%]
    #[arg(long = "wave", value_name = "N|N%", value_parser = wave)]
    waves: Vec<WaveSize>,
    /// Seconds between two waves
    #[arg(long, default_value_t = 10)]
    pause_s: u64,
    /// Failed devices in a thousand of a wave that are still accepted
    #[arg(long, default_value_t = 0)]
    failed_permille_max: u16,
    /// Seconds after which a device that has not finished has failed
    #[arg(long, default_value_t = 900)]
    device_timeout_s: u64,
    /// When stopped, take the version from devices that committed it, too
    #[arg(long)]
    rollback_committed: bool,
    /// Most bytes that a device may receive for this version; where they do not suffice it waits
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    update_bytes_max: Option<u64>,
    /// Milliseconds in which the version proves itself on a device
    #[arg(long, default_value_t = TrialPolicy::default().duration_ms)]
    trial_duration_ms: u64,
    /// Requests after which a broken bound ends a trial at once
    #[arg(long, default_value_t = TrialPolicy::default().requests_min)]
    trial_requests_min: u64,
    /// Failed requests in a thousand that are still accepted in a trial
    #[arg(long, default_value_t = TrialPolicy::default().failed_permille_max)]
    trial_failed_permille_max: u16,
    /// Bound on the 99th percentile of one inference in a trial
    #[arg(long)]
    latency_p99_us_max: Option<u64>,
    /// Requests in a thousand on which the version before must agree; 0 does not ask
    #[arg(long, default_value_t = TrialPolicy::default().agreement_permille_min.unwrap_or(0))]
    agreement_permille_min: u16,
}

pub(super) fn wave(text: &str) -> Result<WaveSize, String> {
    let bad = || format!("{text:?} is no wave: write a count as 3, or per cent as 25%");
    match text.strip_suffix('%') {
        Some(percent) => percent.parse().map(WaveSize::Percent).map_err(|_| bad()),
        None => text.parse().map(WaveSize::Count).map_err(|_| bad()),
    }
}

impl RolloutArgs {
    fn rollout(&self, client: &Client) -> Result<NewRollout, Failure> {
        let policy = match &self.policy {
            Some(path) => policy::read(path)?,
            None => self.policy(),
        };
        let selector = match &self.group {
            Some(group) => groups::selector_of(client, group)?,
            None => Selector { devices: self.devices.clone(), labels: self.labels.iter().cloned().collect() },
        };
        Ok(NewRollout {
            version: self.version.clone(),
            slot: self.slot.clone(),
            selector,
            policy,
            trial: TrialPolicy {
                duration_ms: self.trial_duration_ms,
                requests_min: self.trial_requests_min,
                failed_permille_max: self.trial_failed_permille_max,
                latency_p99_us_max: self.latency_p99_us_max,
                agreement_permille_min: Some(self.agreement_permille_min).filter(|&permille| permille > 0),
            },
            allow_retired: self.allow_retired,
        })
    }

    fn policy(&self) -> Policy {
        let default = Policy::default();
        let waves = self.waves.iter().cloned().map(Wave::from).collect();
        Policy {
            waves: if self.waves.is_empty() { default.waves } else { waves },
            pause_ms: self.pause_s.saturating_mul(1000),
            failed_permille_max: self.failed_permille_max,
            device_timeout_ms: self.device_timeout_s.saturating_mul(1000),
            rollback_committed: self.rollback_committed,
            update_bytes_max: self.update_bytes_max,
            ..default
        }
    }
}

pub(super) fn run(command: &RolloutCommand, client: &Client) -> Outcome {
    let order = |id: &RolloutId, order: &str| {
        let rollout: Rollout = client.post(&format!("/rollouts/{id}/{order}"), &())?;
        show(client.json, &rollout, describe)
    };
    match command {
        RolloutCommand::Create(args) => {
            let rollout: Rollout = client.create("/rollouts", &args.rollout.rollout(client)?)?;
            if args.wait { watch(client, rollout) } else { show(client.json, &rollout, describe) }
        }
        RolloutCommand::Plan(args) => {
            let preview: Preview = client.post("/rollouts/plan", &args.rollout(client)?)?;
            show(client.json, &preview, plan::describe)?;
            match preview.problems.into_iter().find(|problem| problem.severity == Severity::Error) {
                Some(problem) => Err(Failure::Usage(format!("it would be refused: {}", problem.text))),
                None => Ok(()),
            }
        }
        RolloutCommand::List(page) => {
            let list: List<RolloutSummary> = page.list(client, "/rollouts", Query::default())?;
            show(client.json, &list, |list| {
                let rows = list.items.iter().map(|rollout| {
                    vec![
                        rollout.id.to_string(),
                        rollout.version.clone(),
                        rollout.slot.to_string(),
                        word(&rollout.status.state),
                        format!("{} of {}", rollout.members.committed, rollout.members.total),
                        ago(rollout.created_at),
                    ]
                });
                table(&["rollout", "version", "slot", "state", "committed", "created"], rows)
            })
        }
        RolloutCommand::Show { id } => {
            let rollout: Rollout = client.get(&format!("/rollouts/{id}"))?;
            ends(rollout.status.state.is_final());
            show(client.json, &rollout, describe)
        }
        RolloutCommand::Watch { id } => watch(client, client.get(&format!("/rollouts/{id}"))?),
        RolloutCommand::Pause { id } => order(id, "pause"),
        RolloutCommand::Resume { id } => order(id, "resume"),
        RolloutCommand::Abort { id } => order(id, "abort"),
        RolloutCommand::Approve { id, wave } => of_wave(client, id, "approve", *wave),
        RolloutCommand::Waive { id, wave } => of_wave(client, id, "waive", *wave),
        RolloutCommand::Why { id, device } => {
            let why: Why = client.get(&format!("/rollouts/{id}/why/{device}"))?;
            show(client.json, &why, explain)
        }
    }
}

/// `wave` is counted from 1.
fn of_wave(client: &Client, id: &RolloutId, order: &str, wave: Option<u32>) -> Outcome {
    let body = OfWave { wave: wave.map(|wave| wave.saturating_sub(1)) };
    let rollout: Rollout = client.post(&format!("/rollouts/{id}/{order}"), &body)?;
    show(client.json, &rollout, describe)
}

fn explain(why: &Why) -> String {
    let mut text = facts(&[
        ("device", why.member.device.to_string()),
        ("wave", (why.member.wave + 1).to_string()),
        ("state", word(&why.member.state)),
        ("why", why.member.reason.clone()),
        ("rollout", why.rollout.clone()),
    ]);
    for reason in &why.waits_for {
        text.push_str(&facts(&[("held", reason.clone())]));
    }
    text + &gates(&why.gates)
}

fn gates(readings: &[Reading]) -> String {
    let line = |reading: &Reading| {
        let verdict = match reading.verdict {
            Verdict::Open => "open",
            Verdict::Stop => "stop",
            Verdict::More => "more",
        };
        facts(&[("gate", format!("{verdict}: {}", reading.text))])
    };
    readings.iter().map(line).collect()
}

/// A rollout is looked at this often at least, and when the server says that it changed.
const POLL: Duration = Duration::from_secs(1);
/// A server that is being restarted is asked again this often.
const LOST_MAX: u32 = 100;

fn watch(client: &Client, mut rollout: Rollout) -> Outcome {
    let bar = ProgressBar::new(rollout.devices.len() as u64);
    let style = ProgressStyle::with_template("{bar:36} {pos}/{len} {elapsed} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style);
    let mut changes = client.changes("rollout");
    let mut lost = 0;
    while !rollout.status.state.is_final() {
        bar.set_position(count(&rollout, MemberState::Committed) as u64);
        bar.set_message(plain(&rollout.status.reason, false));
        changes.wait(POLL);
        match client.get(&format!("/rollouts/{}", rollout.id)) {
            Ok(newer) => (rollout, lost) = (newer, 0),
            Err(Failure::Failed(_)) if lost < LOST_MAX => lost += 1,
            Err(error) => return Err(error),
        }
    }
    bar.finish_and_clear();
    show(client.json, &rollout, describe)?;
    match rollout.status.state {
        State::Running | State::Paused | State::Completed => Ok(()),
        State::Stopped | State::Aborted => Err(Failure::Failed(rollout.status.reason)),
    }
}

fn count(rollout: &Rollout, state: MemberState) -> usize {
    rollout.devices.iter().filter(|member| member.state == state).count()
}

fn describe(rollout: &Rollout) -> String {
    let mut text = facts(&[
        ("rollout", rollout.id.to_string()),
        ("version", rollout.version.clone()),
        ("slot", rollout.slot.to_string()),
        ("state", word(&rollout.status.state)),
        ("why", rollout.status.reason.clone()),
        ("published", bytes(rollout.bytes_published)),
        ("created", ago(rollout.created_at)),
    ]);
    text.push_str(&gates(&rollout.gates));
    let rows = rollout.devices.iter().map(|member| {
        vec![
            member.device.to_string(),
            (member.wave + 1).to_string(),
            word(&member.state),
            member.reason.clone(),
        ]
    });
    text.push_str(&table(&["device", "wave", "state", "why"], rows));
    text
}
