//! Policies with evidence, approvals and a fleet that changes, through the store.

use super::*;
use control_core::rollout::{Gate, Membership, Signal, WavePreview};
use shared::wire::{Batch, Telemetry, TrialCounts};

fn policy(toml: &str) -> Policy {
    let policy: Policy = toml::from_str(toml).unwrap();
    Policy { pause_ms: 0, ..policy }
}

impl World {
    async fn label(&self, device: &str, key: &str, value: &str) {
        let labels = [(key.to_owned(), value.to_owned())].into();
        self.app.label_device(&device.parse().unwrap(), labels).await.unwrap();
    }

    async fn enrol_online(&self, device: &str) {
        self.enrol(device, BOARDS[0]).await;
        self.set_online(device, true).await;
    }

    async fn states(&self, rollout: &Rollout) -> Vec<(String, MemberState)> {
        self.app.look().await.unwrap();
        let shown = self.app.rollout(rollout.id).await.unwrap();
        shown.devices.iter().map(|member| (member.device.to_string(), member.state)).collect()
    }

    /// A window of telemetry of the version from a device.
    async fn requests(&self, rollout: &Rollout, device: &str, requests: u64, failed: u64) {
        let device: DeviceId = device.parse().unwrap();
        let record = Telemetry {
            id: uuid::Uuid::now_v7(),
            at: now(),
            duration_ms: 60_000,
            slot: rollout.slot.clone(),
            version_id: rollout.version_id,
            requests,
            failed,
            latency_p50_us: Some(10),
            latency_p99_us: Some(20),
            rss_bytes: None,
        };
        let payload = Batch { device: device.clone(), records: vec![record] }.encode().unwrap();
        self.app.receive(&device, &Topic::Telemetry(device.clone()), payload.into()).await.unwrap();
        // What was counted before is not looked at again for a while.
        self.app.forget_evidence(&[]);
    }
}

const GATED: &str = "waves = [{ count = 1 }, { percent = 100, approval = true }]\n\
                     gates = [{ signal = 'error_rate', max = 0.05 }]";

#[tokio::test]
async fn a_gate_opens_by_what_devices_said_and_a_wave_by_its_approval() {
    let world = World::new().await;
    world.enrol_online("cam-01").await;
    world.enrol_online("cam-02").await;
    let version = world.version("v1.0", BOARDS[0]).await;
    let rollout = world.app.create_rollout(testing::rollout_of(&version, policy(GATED))).await.unwrap();
    world.app.look().await.unwrap();
    world.report(&rollout, "cam-01", Phase::Idle, Some(Outcome::Committed)).await;
    world.app.look().await.unwrap();
    let shown = world.app.rollout(rollout.id).await.unwrap();
    assert!(
        shown.status.reason.contains("waits for its gates: error_rate: 0 of 0"),
        "{}",
        shown.status.reason
    );
    world.requests(&rollout, "cam-01", 900, 9).await;
    world.app.look().await.unwrap();
    let shown = world.app.rollout(rollout.id).await.unwrap();
    assert_eq!((shown.gates[0].hits, shown.gates[0].of), (9, 900));
    assert!(shown.status.reason.starts_with("wave 2 waits for an approval"), "{}", shown.status.reason);
    let cam: DeviceId = "cam-02".parse().unwrap();
    let why = world.app.why(rollout.id, &cam).await.unwrap();
    assert_eq!(why.waits_for.len(), 2, "{:?}", why.waits_for);
    let approved = world.app.order_rollout(rollout.id, Order::Approve { wave: Some(1) }).await.unwrap();
    assert_eq!(approved.devices[1].state, MemberState::Assigned);
    let again = world.app.order_rollout(rollout.id, Order::Approve { wave: Some(1) }).await.unwrap_err();
    assert_eq!(again.to_string(), "wave 2 was approved already");
    world.requests(&rollout, "cam-02", 100, 90).await;
    world.app.look().await.unwrap();
    let shown = world.app.rollout(rollout.id).await.unwrap();
    assert_eq!(shown.status.state, State::Stopped);
    assert!(shown.status.reason.contains("99 of 1000 requests failed"), "{}", shown.status.reason);
    assert_eq!(shown.devices[1].state, MemberState::Reverted);
}

#[tokio::test]
async fn what_trials_counted_comes_with_the_report() {
    let world = World::new().await;
    world.enrol_online("cam-01").await;
    let version = world.version("v1.0", BOARDS[0]).await;
    let policy =
        Policy { gates: vec![Gate::new(Signal::Agreement, 0.8)], ..policy("waves = [{ percent = 100 }]") };
    let rollout = world.app.create_rollout(testing::rollout_of(&version, policy)).await.unwrap();
    world.app.look().await.unwrap();
    let trial = Some(TrialCounts { requests: 500, failed: 0, compared: 400, agreed: 396 });
    world.report_trial(&rollout, "cam-01", Phase::Idle, Some(Outcome::Committed), trial).await;
    assert_eq!(world.states(&rollout).await, [("cam-01".to_owned(), MemberState::Committed)]);
    let ended = world.app.rollout(rollout.id).await.unwrap();
    assert_eq!((ended.status.state, ended.devices[0].trial), (State::Completed, trial));
}

#[tokio::test]
async fn a_followed_fleet_brings_devices_that_come_later_unless_their_slot_is_taken() {
    let world = World::new().await;
    world.enrol_online("cam-01").await;
    world.label("cam-01", "ring", "canary").await;
    let version = world.version("v1.0", BOARDS[0]).await;
    let rings = Policy {
        membership: Membership::Follow,
        ..policy("waves = { label = 'ring', order = ['canary', 'broad'] }")
    };
    let rollout = world.app.create_rollout(testing::rollout_of(&version, rings)).await.unwrap();
    world.app.look().await.unwrap();
    for device in ["cam-02", "cam-03", "cam-04"] {
        world.enrol_online(device).await;
    }
    world.enrol("jet-01", BOARDS[1]).await;
    let other = world.create(&version, "default", &["cam-03"]).await.unwrap();
    for device in ["cam-02", "cam-03", "cam-04", "jet-01"] {
        world.label(device, "ring", "broad").await;
    }
    let states = world.states(&rollout).await;
    let expected = [
        ("cam-01", MemberState::Assigned),
        ("cam-02", MemberState::Pending),
        ("cam-04", MemberState::Pending),
    ];
    assert_eq!(states, expected.map(|(device, state)| (device.to_owned(), state)));
    for (device, says) in [("jet-01", "it is a jetson"), ("cam-03", "it came or was labelled later")] {
        let error = world.app.why(rollout.id, &device.parse().unwrap()).await.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    world.label("cam-04", "ring", "none").await;
    world.app.order_rollout(other.id, Order::Abort).await.unwrap();
    let states = world.states(&rollout).await;
    assert_eq!(
        states[2..],
        [("cam-03".to_owned(), MemberState::Pending), ("cam-04".to_owned(), MemberState::Skipped)]
    );
    world.report(&rollout, "cam-01", Phase::Idle, Some(Outcome::Committed)).await;
    assert_eq!(world.states(&rollout).await[1], ("cam-02".to_owned(), MemberState::Assigned));
}

#[tokio::test]
async fn a_budget_counts_devices_of_other_boards_and_rollouts() {
    let world = World::new().await;
    world.enrol_online("cam-01").await;
    world.enrol("jet-01", BOARDS[1]).await;
    let version = world.version("v1.0", BOARDS[0]).await;
    let budget = policy("waves = [{ percent = 100 }]\ndisruption = { unavailable_max = { count = 1 } }");
    let rollout = world.app.create_rollout(testing::rollout_of(&version, budget)).await.unwrap();
    world.app.look().await.unwrap();
    let reason = world.app.rollout(rollout.id).await.unwrap().devices[0].reason.clone();
    assert_eq!(
        reason,
        "waits for the disruption budget: of the fleet 1 are unavailable (jet-01), allowed are 1"
    );
    world.set_online("jet-01", true).await;
    assert_eq!(world.states(&rollout).await[0].1, MemberState::Assigned);
}

#[tokio::test]
async fn a_plan_says_what_would_come_and_keeps_nothing() {
    let world = World::new().await;
    world.enrol_online("cam-01").await;
    world.enrol_online("cam-02").await;
    let version = world.version("v1.0", BOARDS[0]).await;
    let preview = world.app.plan_rollout(testing::rollout_of(&version, policy(GATED))).await.unwrap();
    let sizes: Vec<usize> = preview.waves.iter().map(|wave: &WavePreview| wave.devices.len()).collect();
    assert_eq!(sizes, [1, 1]);
    assert!(preview.waves[1].starts_at > preview.waves[0].starts_at && preview.problems.is_empty());
    assert!(world.app.rollouts(&Page::default()).await.unwrap().is_empty());
    assert_eq!(world.state_of(&version).await, VersionState::Draft);
    let ring = policy("waves = { label = 'ring', order = ['canary'] }");
    let refused = world.app.create_rollout(testing::rollout_of(&version, ring.clone())).await.unwrap_err();
    assert!(matches!(&refused, Error::Invalid(text) if text.contains("wave 1 matches nothing")), "{refused}");
    let follow = Policy { membership: Membership::Follow, ..ring };
    let refused = world.app.create_rollout(testing::rollout_of(&version, follow)).await.unwrap_err();
    assert!(refused.to_string().contains("no wave takes any device"), "{refused}");
}

#[tokio::test]
async fn a_retired_version_is_rolled_out_only_where_that_is_meant() {
    let world = World::new().await;
    world.enrol_online("cam-01").await;
    let versions = [world.version("v1.0", BOARDS[0]).await, world.version("v1.1", BOARDS[0]).await];
    for version in &versions {
        let rollout = world.create(version, "default", &[]).await.unwrap();
        world.app.look().await.unwrap();
        world.report(&rollout, "cam-01", Phase::Idle, Some(Outcome::Committed)).await;
        world.app.look().await.unwrap();
        assert_eq!(world.state_of(version).await, VersionState::Live);
    }
    assert_eq!(world.state_of(&versions[0]).await, VersionState::Retired);
    let refused = world.create(&versions[0], "default", &[]).await.unwrap_err();
    assert!(matches!(&refused, Error::Conflict(text) if text.contains("was retired")), "{refused}");
    let asked = testing::rollout_of(&versions[0], Policy::default());
    world.app.create_rollout(NewRollout { allow_retired: true, ..asked }).await.unwrap();
}
