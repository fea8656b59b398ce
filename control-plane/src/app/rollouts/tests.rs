//! Rollouts through the application, with a real store; with a real broker where it has to hear of them.

mod policies;

use super::*;
use crate::{
    app::{
        Parts, Settings,
        testing::{self, Enrolled, wait_for},
        trust::Trust,
    },
    broker::{self, Broker, Ingest},
    jobs::Forge,
    signer::Signer,
    store::Store,
    testing as fixtures,
};
use control_core::{
    entity::{Selector, Version, VersionState},
    rollout::{MemberState, Policy, State, WaveSize},
};
use rumqttc::{
    Transport,
    v5::{
        AsyncClient, Event, MqttOptions,
        mqttbytes::{QoS, v5::Packet},
    },
};
use shared::{
    BoardId, Signed,
    board::Board,
    limits,
    topic::Topic,
    wire::{self, Attempt, Desired, Outcome, Phase, Presence, Reported, SlotReport, TrialCounts, VersionRef},
};
use std::net::{SocketAddr, TcpListener};

const LIMIT: Duration = Duration::from_secs(20);
const BOARDS: [&str; 2] = ["x86-64", "jetson"];

struct World {
    folder: tempfile::TempDir,
    app: Arc<App>,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let app = application(folder.path(), limits::CHUNK_BYTES_MAX).await;
        Self { folder, app }
    }

    /// The same data folder under a server with another size of chunks.
    async fn restart(&mut self, chunk_bytes: u32) {
        self.app.stop();
        self.app.close().await;
        self.app = application(self.folder.path(), chunk_bytes).await;
    }

    async fn enrol(&self, device: &str, board: &str) -> Enrolled {
        testing::enrol(&self.app, device, board).await
    }

    async fn set_online(&self, device: &str, online: bool) {
        let payload = wire::encode_json("presence", &Presence { online }).unwrap();
        let device: DeviceId = device.parse().unwrap();
        self.app.receive(&device, &Topic::Presence(device.clone()), payload.into()).await.unwrap();
    }

    /// The device says that it has accepted what it was told, and where its slot is.
    async fn report(&self, rollout: &Rollout, device: &str, phase: Phase, outcome: Option<Outcome>) {
        self.report_trial(rollout, device, phase, outcome, None).await;
    }

    async fn report_trial(
        &self,
        rollout: &Rollout,
        device: &str,
        phase: Phase,
        outcome: Option<Outcome>,
        trial: Option<TrialCounts>,
    ) {
        let device = self.app.device(&device.parse().unwrap()).await.unwrap();
        let version = self.app.store.version(rollout.version_id).await.unwrap().unwrap();
        let attempt = outcome.map(|outcome| Attempt {
            generation: device.generation,
            rollout: Some(rollout.id),
            version: VersionRef {
                model: version.model,
                version: version.version,
                version_id: version.id,
                bundle: version.bundle,
            },
            outcome,
            at: now(),
            trial,
        });
        let slot = SlotReport {
            slot: rollout.slot.clone(),
            active: None,
            last_good: None,
            runtime: None,
            phase,
            attempt,
        };
        let reported = Reported {
            device: device.id.clone(),
            board: device.board,
            agent_version: device.agent_version,
            at: now(),
            generation: device.generation,
            slots: vec![slot],
            disk_free_bytes: None,
            api: None,
        };
        let payload = wire::encode_json("report", &reported).unwrap();
        self.app.receive(&device.id, &Topic::Reported(device.id.clone()), payload.into()).await.unwrap();
    }

    async fn version(&self, label: &str, board: &str) -> Version {
        let version =
            Version { board: board.parse().unwrap(), ..fixtures::version(label, label, Vec::new()) };
        self.app.store.add_version(&version).await.unwrap();
        version
    }

    async fn create(&self, version: &Version, slot: &str, devices: &[&str]) -> Result<Rollout> {
        let selector = Selector {
            devices: devices.iter().map(|device| device.parse().unwrap()).collect(),
            ..Selector::default()
        };
        let policy = Policy { waves: vec![WaveSize::Percent(100).into()], ..Policy::default() };
        let new = NewRollout { slot: slot.to_owned(), selector, ..testing::rollout_of(version, policy) };
        self.app.create_rollout(new).await
    }

    async fn state_of(&self, version: &Version) -> VersionState {
        self.app.store.version(version.id).await.unwrap().unwrap().state
    }

    /// Starts the broker and gives its port.
    async fn attach(&self) -> u16 {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let config =
            broker::Config { address, files: self.app.broker_files(), session_life: broker::SESSION_LIFE };
        let ingest = Arc::clone(&self.app) as Arc<dyn Ingest>;
        self.app.attach(Broker::embedded(config, ingest).await.unwrap());
        port
    }

    /// What a device that connects is told to run.
    async fn told(&self, identity: &Enrolled, port: u16) -> Desired {
        let device = identity.device.clone();
        let mut options = MqttOptions::new(device.as_str(), "localhost", port);
        options.set_max_packet_size(Some(limits::MQTT_PACKET_BYTES_MAX));
        options.set_transport(Transport::tls(
            self.app.signer().ca_pem().into_bytes(),
            Some((identity.certificate_pem.as_bytes().to_vec(), identity.key.serialize_pem().into_bytes())),
            None,
        ));
        let (client, mut events) = AsyncClient::new(options, 10);
        let topic = Topic::Desired(device);
        client.subscribe(topic.to_string(), QoS::AtLeastOnce).await.unwrap();
        let work = async {
            loop {
                if let Event::Incoming(Packet::Publish(publish)) = events.poll().await.unwrap() {
                    let signed = Signed::<Desired>::parse(&publish.payload).unwrap();
                    return signed.verify(&self.app.signer().keyring()).unwrap().into_inner();
                }
            }
        };
        tokio::time::timeout(LIMIT, work).await.unwrap()
    }
}

async fn application(data: &std::path::Path, chunk_bytes: u32) -> Arc<App> {
    let board = |id: &str| {
        let text = include_str!("../../../../firmware-configs/x86-64.toml")
            .replace("id = \"x86-64\"", &format!("id = \"{id}\""));
        (id.parse::<BoardId>().unwrap(), Board::from_toml(&text, "a board").unwrap())
    };
    let signer = Signer::open(&data.join("keys"), &[], now()).unwrap();
    let parts = Parts {
        store: Store::open(data).await.unwrap(),
        trust: Trust::open(data, &signer, now()).unwrap(),
        signer,
        forge: Forge::new("no worker".into()),
        boards: BOARDS.into_iter().map(board).collect(),
    };
    let settings = Settings {
        data: data.to_path_buf(),
        chunk_bytes,
        blob_bytes_per_s: 0,
        jobs: 1,
        mqtt_host: "localhost".to_owned(),
        mqtt_port: 8883,
        certificate_days: 7,
        public_api: "https://localhost:8443".to_owned(),
        broker_crl: None,
    };
    App::new(settings, parts)
}

fn members(rollout: &Rollout) -> Vec<(&str, MemberState)> {
    rollout.devices.iter().map(|member| (member.device.as_str(), member.state)).collect()
}

#[tokio::test]
async fn a_version_goes_to_devices_of_its_board_only() {
    let world = World::new().await;
    for (device, board) in [("cam-01", BOARDS[0]), ("cam-02", BOARDS[1]), ("cam-03", BOARDS[0])] {
        world.enrol(device, board).await;
    }
    let version = world.version("v1.0", BOARDS[0]).await;
    let named = world.create(&version, "default", &["cam-01", "cam-02"]).await.unwrap_err();
    assert!(matches!(named, Error::Conflict(_)), "{named}");
    assert_eq!(named.to_string(), "device cam-02 is a jetson, m@v1.0 is for x86-64; leave it out");
    let rollout = world.create(&version, "default", &[]).await.unwrap();
    assert_eq!(members(&rollout), [("cam-01", MemberState::Pending), ("cam-03", MemberState::Pending)]);
    let strange = world.version("v1.1", "abacus").await;
    let none = world.create(&strange, "other", &[]).await.unwrap_err().to_string();
    assert!(none.contains("none of the 3 devices that the selector matches is a abacus"), "{none}");
}

#[tokio::test]
async fn slots_that_open_rollouts_promise_count() {
    let world = World::new().await;
    world.enrol("cam-01", BOARDS[0]).await;
    let version = world.version("v1.0", BOARDS[0]).await;
    let mut rollouts = Vec::new();
    for number in 0..limits::SLOTS_MAX {
        if number == limits::SLOTS_MAX / 2 {
            world.set_online("cam-01", true).await;
            world.app.look().await.unwrap();
        }
        rollouts.push(world.create(&version, &format!("slot-{number}"), &[]).await.unwrap());
    }
    let full = world.create(&version, "one-more", &[]).await.unwrap_err();
    assert!(matches!(full, Error::Conflict(_)), "{full}");
    assert!(full.to_string().contains("cam-01") && full.to_string().contains("8 slots"), "{full}");
    let taken = world.create(&version, "slot-0", &[]).await.unwrap_err();
    assert!(taken.to_string().contains("is under way in slot slot-0 of cam-01"), "{taken}");
    world.app.order_rollout(rollouts[7].id, Order::Abort).await.unwrap();
    world.create(&version, "one-more", &[]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_desired_state_that_did_not_go_out_goes_out_with_the_next_look() {
    let world = World::new().await;
    let identity = world.enrol("cam-01", BOARDS[0]).await;
    let version = world.version("v1.0", BOARDS[0]).await;
    let rollout = world.create(&version, "default", &[]).await.unwrap();
    world.set_online("cam-01", true).await;
    world.app.look().await.unwrap();
    let port = world.attach().await;
    world.app.look().await.unwrap();
    assert_eq!(world.told(&identity, port).await.generation, 1);
    world.set_online("cam-01", true).await;
    world.app.order_rollout(rollout.id, Order::Abort).await.unwrap();
    let told = world.told(&identity, port).await;
    assert_eq!((told.generation, told.assignments.len()), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_desired_state_that_cannot_go_out_keeps_nobody_waiting() {
    let mut world = World::new().await;
    world.restart(limits::CHUNK_BYTES_MIN - 1).await;
    world.enrol("cam-01", BOARDS[0]).await;
    let identity = world.enrol("cam-02", BOARDS[0]).await;
    let version = world.version("v1.0", BOARDS[0]).await;
    for device in ["cam-01", "cam-02"] {
        world.set_online(device, true).await;
        world.create(&version, "default", &[device]).await.unwrap();
        world.app.look().await.unwrap();
        world.restart(limits::CHUNK_BYTES_MAX).await;
    }
    let port = world.attach().await;
    world.app.publish_desired().await.unwrap();
    assert_eq!(world.told(&identity, port).await.chunk_bytes, limits::CHUNK_BYTES_MAX);
}

#[tokio::test]
async fn an_order_is_carried_through_when_nobody_waits_for_it() {
    let world = World::new().await;
    world.enrol("cam-01", BOARDS[0]).await;
    let version = world.version("v1.0", BOARDS[0]).await;
    let rollout = world.create(&version, "default", &[]).await.unwrap();
    let given_up = tokio::time::timeout(Duration::ZERO, world.app.order_rollout(rollout.id, Order::Abort));
    assert!(given_up.await.is_err(), "it was over before it could be given up");
    wait_for(async || {
        let state = world.app.rollout(rollout.id).await.unwrap().status.state;
        (state == State::Aborted).then_some(())
    })
    .await;
    assert_eq!(world.state_of(&version).await, VersionState::Draft);
}

#[tokio::test]
async fn a_withdrawal_that_was_not_reached_is_made_at_the_next_start() {
    let world = World::new().await;
    world.enrol("cam-01", BOARDS[0]).await;
    let version = world.version("v1.0", BOARDS[0]).await;
    let rollout = world.create(&version, "default", &[]).await.unwrap();
    world.app.order_rollout(rollout.id, Order::Abort).await.unwrap();
    let vouched_for = async || world.app.trust_status().await.unwrap().targets;
    assert!(vouched_for().await.is_empty());
    // As it stands where the power went between the end of the rollout and the withdrawal.
    world.app.vouch(&version).await.unwrap();
    assert_eq!(vouched_for().await, ["models/m/v1.0"]);
    world.app.find_withdrawals().await.unwrap();
    world.app.look().await.unwrap();
    assert!(vouched_for().await.is_empty());
}

#[tokio::test]
async fn a_download_is_told_to_whoever_looks_and_leaves_no_trace() {
    let world = World::new().await;
    world.enrol("cam-01", BOARDS[0]).await;
    let version = world.version("v1.0", BOARDS[0]).await;
    let created = world.create(&version, "default", &[]).await.unwrap();
    assert_eq!(world.state_of(&version).await, VersionState::Canary);
    world.set_online("cam-01", true).await;
    world.app.look().await.unwrap();
    let kept = world.app.store.rollout(created.id).await.unwrap();
    for chunks_done in [3, 4] {
        let phase = Phase::Fetching { bundle: version.bundle, chunks_done, chunks_total: 7 };
        world.report(&created, "cam-01", phase, None).await;
        world.app.look().await.unwrap();
        let told = world.app.rollout(created.id).await.unwrap();
        assert_eq!(told.devices[0].reason, format!("fetching, {chunks_done} of 7 chunks"));
        assert_eq!(world.app.store.rollout(created.id).await.unwrap(), kept);
    }
    world.report(&created, "cam-01", Phase::Idle, Some(Outcome::Committed)).await;
    world.app.look().await.unwrap();
    assert_eq!(world.app.rollout(created.id).await.unwrap().status.state, State::Completed);
    assert_eq!(world.state_of(&version).await, VersionState::Live);
}
