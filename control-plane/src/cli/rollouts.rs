//! `edgewright rollout`.

use super::{
    Failure, Outcome, PageArgs,
    client::Client,
    devices::pair,
    output::{ago, bytes, facts, plain, show, table, word},
};
use crate::{
    api::List,
    app::{rollouts::NewRollout, versions::VersionName},
};
use clap::{Args, Subcommand};
use control_core::{
    entity::{Rollout, Selector},
    rollout::{MemberState, Policy, State, WaveSize},
};
use indicatif::{ProgressBar, ProgressStyle};
use shared::{DeviceId, RolloutId, wire::TrialPolicy};
use std::time::Duration;

/// Rollouts.
#[derive(Debug, Subcommand)]
pub enum RolloutCommand {
    /// Bring a version to devices, in waves
    Create(Box<CreateArgs>),
    /// List them
    List(#[command(flatten)] PageArgs),
    /// Show one: every device, and why it is where it is
    Show { id: RolloutId },
    /// Watch one to its end
    Watch { id: RolloutId },
    /// Ask no more devices
    Pause { id: RolloutId },
    /// Go on
    Resume { id: RolloutId },
    /// End one; devices that have not finished get back what they had
    Abort { id: RolloutId },
}

/// A rollout to create.
#[derive(Debug, Args)]
pub struct CreateArgs {
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
    /// Watch it to its end
    #[arg(long)]
    wait: bool,
}

pub(super) fn wave(text: &str) -> Result<WaveSize, String> {
    let bad = || format!("{text:?} is no wave: write a count as 3, or per cent as 25%");
    match text.strip_suffix('%') {
        Some(percent) => percent.parse().map(WaveSize::Percent).map_err(|_| bad()),
        None => text.parse().map(WaveSize::Count).map_err(|_| bad()),
    }
}

impl CreateArgs {
    fn rollout(&self) -> NewRollout {
        let waves = if self.waves.is_empty() { Policy::default().waves } else { self.waves.clone() };
        NewRollout {
            version: self.version.clone(),
            slot: self.slot.clone(),
            selector: Selector {
                devices: self.devices.clone(),
                labels: self.labels.iter().cloned().collect(),
            },
            policy: Policy {
                waves,
                pause_ms: self.pause_s.saturating_mul(1000),
                failed_permille_max: self.failed_permille_max,
                device_timeout_ms: self.device_timeout_s.saturating_mul(1000),
                rollback_committed: self.rollback_committed,
                update_bytes_max: self.update_bytes_max,
            },
            trial: TrialPolicy {
                duration_ms: self.trial_duration_ms,
                requests_min: self.trial_requests_min,
                failed_permille_max: self.trial_failed_permille_max,
                latency_p99_us_max: self.latency_p99_us_max,
                agreement_permille_min: Some(self.agreement_permille_min).filter(|&permille| permille > 0),
            },
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
            let rollout: Rollout = client.post("/rollouts", &args.rollout())?;
            if args.wait { watch(client, rollout) } else { show(client.json, &rollout, describe) }
        }
        RolloutCommand::List(page) => {
            let list: List<Rollout> = client.get(&format!("/rollouts?{}", page.query()))?;
            show(client.json, &list, |list| {
                let rows = list.items.iter().map(|rollout| {
                    let committed = count(rollout, MemberState::Committed);
                    vec![
                        rollout.id.to_string(),
                        rollout.version.clone(),
                        rollout.slot.to_string(),
                        word(&rollout.status.state),
                        format!("{committed} of {}", rollout.devices.len()),
                        ago(rollout.created_at),
                    ]
                });
                table(&["rollout", "version", "slot", "state", "committed", "created"], rows)
            })
        }
        RolloutCommand::Show { id } => {
            let rollout: Rollout = client.get(&format!("/rollouts/{id}"))?;
            show(client.json, &rollout, describe)
        }
        RolloutCommand::Watch { id } => watch(client, client.get(&format!("/rollouts/{id}"))?),
        RolloutCommand::Pause { id } => order(id, "pause"),
        RolloutCommand::Resume { id } => order(id, "resume"),
        RolloutCommand::Abort { id } => order(id, "abort"),
    }
}

const POLL: Duration = Duration::from_millis(300);
/// A server that is being restarted is asked again this often.
const LOST_MAX: u32 = 100;

fn watch(client: &Client, mut rollout: Rollout) -> Outcome {
    let bar = ProgressBar::new(rollout.devices.len() as u64);
    let style = ProgressStyle::with_template("{bar:36} {pos}/{len} {elapsed} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style);
    let mut lost = 0;
    while !rollout.status.state.is_final() {
        bar.set_position(count(&rollout, MemberState::Committed) as u64);
        bar.set_message(plain(&rollout.status.reason, false));
        std::thread::sleep(POLL);
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
