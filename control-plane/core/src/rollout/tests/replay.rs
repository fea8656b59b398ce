//! Scripted fleets against plans on file.
//!
//! `UPDATE_GOLDEN=1 cargo test -p control-core replay` writes the plans again.

use super::*;
use serde::Deserialize;
use std::{fmt::Write, fs, path::PathBuf};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Script {
    /// What it shows.
    about: String,
    start: String,
    policy: Policy,
    devices: Vec<Scripted>,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scripted {
    id: DeviceId,
    #[serde(default)]
    labels: Labels,
    #[serde(default)]
    offline: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    /// After the step before.
    after_s: u64,
    #[serde(default)]
    commit: Vec<DeviceId>,
    #[serde(default)]
    refuse: Vec<DeviceId>,
    #[serde(default)]
    online: Vec<DeviceId>,
    #[serde(default)]
    offline: Vec<DeviceId>,
    #[serde(default)]
    revoke: Vec<DeviceId>,
    #[serde(default)]
    label: BTreeMap<DeviceId, Labels>,
    #[serde(default)]
    join: Vec<Scripted>,
    /// Of each gate and wave: hits, and of how many.
    #[serde(default)]
    seen: Vec<Vec<(u64, u64)>>,
    #[serde(default)]
    before: Vec<(u64, u64)>,
    order: Option<String>,
}

fn order(text: &str) -> Order {
    match text {
        "pause" => Order::Pause,
        "resume" => Order::Resume,
        "abort" => Order::Abort,
        "approve" => Order::Approve { wave: None },
        "waive" => Order::Waive { wave: None },
        other => panic!("no order {other:?}"),
    }
}

fn play(script: &Script) -> String {
    let start: jiff::Timestamp = script.start.parse().unwrap();
    let devices = script.devices.iter().map(|device| (device.id.clone(), device.labels.clone()));
    let mut world = World::labelled(script.policy.clone(), devices);
    world.now = Timestamp(start.as_millisecond().try_into().unwrap());
    world.heard_since = world.now;
    for device in script.devices.iter().filter(|device| device.offline) {
        world.fleet.get_mut(&device.id).unwrap().online = false;
    }
    let mut text = format!("{}\n", script.about);
    let mut notes = Vec::new();
    for step in &script.steps {
        world.now = world.now.plus_ms(step.after_s * 1000);
        let mut change = |ids: &[DeviceId], change: &dyn Fn(&mut Observed)| {
            ids.iter().for_each(|id| change(world.fleet.get_mut(id).unwrap()));
        };
        change(&step.online, &|seen| seen.online = true);
        change(&step.offline, &|seen| seen.online = false);
        change(&step.revoke, &|seen| (seen.online, seen.revoked) = (false, true));
        for (device, labels) in &step.label {
            world.fleet.get_mut(device).unwrap().labels = labels.clone();
        }
        for device in &step.join {
            let labels = device.labels.clone();
            world.candidates.push(Candidate { device: device.id.clone(), labels: labels.clone() });
            world.fleet.insert(
                device.id.clone(),
                Observed { labels, online: !device.offline, ..Observed::default() },
            );
        }
        step.commit.iter().for_each(|device| world.report_of(device, Outcome::Committed, None));
        step.refuse.iter().for_each(|device| world.report_of(device, refused(), None));
        let sample = |(hits, of): (u64, u64)| Sample { hits, of };
        if !step.seen.is_empty() {
            let stored = step.seen.iter().enumerate().map(|(gate, waves)| Stored {
                waves: (0..).zip(waves.iter().copied().map(sample)).collect(),
                before: step.before.get(gate).copied().map(sample).unwrap_or_default(),
            });
            world.evidence = Evidence::Stored(stored.collect());
        }
        let wrote = world.step(step.order.as_deref().map(order));
        let at = jiff::Timestamp::from_millisecond(world.now.0.try_into().unwrap()).unwrap();
        write!(text, "\n{at}").unwrap();
        match wrote {
            Ok(plan) => notes = plan.notes,
            Err(rejected) => notes.push(format!("refused: {rejected}")),
        }
        let explained = explain(world.input(None));
        writeln!(text, "  {:?}: {}", explained.status.state, explained.status.reason).unwrap();
        notes.drain(..).for_each(|note| writeln!(text, "  * {note}").unwrap());
        for member in &explained.members {
            let (device, state) = (&member.device, format!("{:?}", member.state));
            writeln!(text, "  {device} {} {state:9} {}", member.wave + 1, member.reason).unwrap();
        }
    }
    text
}

#[test]
fn scripted_fleets_get_the_plans_on_file() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/rollout/tests/replays");
    let mut played = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let script: Script = toml::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        script.policy.validate(&TrialPolicy::default()).unwrap();
        let plan = play(&script);
        let file = path.with_extension("plan");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&file, &plan).unwrap();
        }
        let expected = fs::read_to_string(&file).unwrap();
        assert_eq!(plan, expected, "{} is planned differently than on file", path.display());
        played += 1;
    }
    assert!(played >= 5, "only {played} scripts were found");
}
