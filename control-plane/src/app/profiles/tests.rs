use super::*;
use crate::{
    app::{DeviceFilter, Page, testing},
    broker::{Ingest, Refused},
};
use control_core::profile::BoardProfile;
use shared::{
    Timestamp,
    board::RuntimeName,
    profile::{Form, Measured, Processor, ProfileReport, Timing},
};

struct World {
    _folder: tempfile::TempDir,
    app: Arc<App>,
    board: BoardId,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let app = testing::app(folder.path(), "exit 1").await;
        for device in ["cam-01", "cam-02"] {
            testing::enrol(&app, device, "x86-64").await;
        }
        Self { _folder: folder, app, board: "x86-64".parse().unwrap() }
    }

    async fn ask(&self, devices: &[&str]) -> Result<BoardProfile> {
        let devices = devices.iter().map(|id| id.parse().unwrap()).collect();
        self.app.profile_board(&self.board, &NewProfile { devices }).await
    }

    async fn say(&self, device: &str, report: &ProfileReport) -> std::result::Result<(), Refused> {
        let device: DeviceId = device.parse().unwrap();
        let payload = shared::wire::encode_json("profile report", report).unwrap();
        self.app.receive(&device, &Topic::ProfileReport(device.clone()), payload.into()).await
    }
}

/// As a device would that takes a microsecond for each thousand elements that it moves, and ten for itself.
fn report(device: &str, generation: u64) -> ProfileReport {
    let measured = workloads().into_iter().enumerate().map(|(index, workload)| {
        let counts = workload.features().unwrap().counts();
        let ns = 10_000 + counts[shared::latency::Feature::MovedElement as usize];
        Measured {
            workload: index as u16,
            runtime: RuntimeName::Tract,
            form: Form::Int8,
            result: Timing::Took { median_ns: ns, low_ns: ns, high_ns: ns, runs: 9 },
        }
    });
    ProfileReport {
        device: device.parse().unwrap(),
        board: "x86-64".parse().unwrap(),
        agent_version: "0.1.0".to_owned(),
        generation,
        at: Timestamp(1),
        complete: true,
        cut_short: None,
        processor: Processor::default(),
        measured: measured.collect(),
    }
}

#[tokio::test]
async fn what_a_device_measured_is_kept_shown_and_given_to_jobs() {
    let world = World::new().await;
    assert_eq!(world.app.latency_of(&world.board).await.unwrap(), None);
    let asked = world.ask(&["cam-01"]).await.unwrap();
    assert_eq!((asked.devices.len(), asked.devices[0].generation, asked.latency), (1, 1, None));
    world.say("cam-01", &report("cam-01", 1)).await.unwrap();
    let shown = world.app.board_profile(&world.board).await.unwrap();
    assert!(shown.devices[0].complete && shown.refused.is_none());
    assert!(shown.rows.len() > 100);
    let latency = world.app.latency_of(&world.board).await.unwrap().unwrap();
    assert!(latency.models[0].check().is_ok());
}

#[tokio::test]
async fn reports_of_others_of_earlier_requests_and_without_sense_change_nothing() {
    let world = World::new().await;
    world.ask(&["cam-01", "cam-02"]).await.unwrap();
    world.ask(&["cam-01"]).await.unwrap();
    let refused = world.say("cam-02", &report("cam-01", 2)).await;
    assert!(matches!(refused, Err(Refused::Invalid(reason)) if reason.contains("another device")));
    // Acknowledged, so that it does not come again, and not kept.
    world.say("cam-01", &report("cam-01", 1)).await.unwrap();
    let mut wild = report("cam-01", 2);
    wild.measured[0].result = Timing::Took { median_ns: 0, low_ns: 5, high_ns: 1, runs: 0 };
    assert!(matches!(world.say("cam-01", &wild).await, Err(Refused::Invalid(_))));
    let shown = world.app.board_profile(&world.board).await.unwrap();
    assert!(shown.devices.iter().all(|device| device.measured == 0 && !device.complete));
}

#[tokio::test]
async fn a_request_names_devices_of_the_board_or_says_what_is_wrong() {
    let world = World::new().await;
    let pi = testing::enrol(&world.app, "pi-01", "x86-64").await.device;
    world.app.store.set_board(&pi, &"raspberry-pi-4".parse().unwrap(), "0.1.0").await.unwrap();
    for (devices, said) in [
        (&["cam-1"][..], "did you mean \"cam-01\"?"),
        (&["pi-01"], "is of board raspberry-pi-4, not of x86-64"),
        (&[], "no device of board x86-64 is online"),
    ] {
        let reason = world.ask(devices).await.unwrap_err().to_string();
        assert!(reason.contains(said), "{reason:?} does not say {said:?}");
    }
    let id: DeviceId = "cam-01".parse().unwrap();
    let online = "{\"online\":true}";
    world.app.receive(&id, &Topic::Presence(id.clone()), online.into()).await.unwrap();
    let asked = world.ask(&[]).await.unwrap();
    assert_eq!(asked.devices.iter().map(|device| device.device.as_str()).collect::<Vec<_>>(), ["cam-01"]);
    assert!(world.app.devices(&DeviceFilter::default(), &Page::default()).await.unwrap().len() >= 3);
}
