//! Latency profiles, as the fleet sees them.

use super::{
    world::{Keys, Running, TestLink, device, start},
    *,
};
use shared::profile::{ProfileReport, ProfileRequest, Step, Timing, Workload};

fn workload(channels: u32) -> Workload {
    let conv = Step::Conv { channels, kernel: 3, stride: 1, groups: 1, relu: true };
    Workload { input: vec![4, 6, 6], steps: vec![conv] }
}

fn ask(keys: &Keys, generation: u64, count: u32) -> Vec<u8> {
    let request = ProfileRequest {
        device: device(),
        generation,
        issued_at: Timestamp(0),
        duration_ms_max: 60_000,
        workloads: (1..=count).map(workload).collect(),
    };
    Signed::sign(&request, &[&keys.director]).unwrap()
}

impl Running {
    fn profiles(&self) -> Vec<ProfileReport> {
        let sent = self.link.sent.lock().unwrap();
        let reports = sent.iter().filter(|(topic, _)| matches!(topic, Topic::ProfileReport(_)));
        reports.map(|(_, payload)| wire::decode_json("profile report", payload).unwrap()).collect()
    }

    async fn until_profile(&self, generation: u64) -> ProfileReport {
        let complete = |report: &ProfileReport| report.complete && report.generation == generation;
        self.until("a complete profile", |running| running.profiles().iter().any(complete)).await;
        self.profiles().into_iter().find(complete).unwrap()
    }

    fn refusals(&self) -> Vec<String> {
        let refused = |event: &Event| event.kind == EventKind::DesiredRefused;
        self.link.events().into_iter().filter(refused).map(|event| event.detail).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_director_asks_for_is_measured_once_also_when_it_comes_again() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    let running = start(folder.path(), link, &keys, true);
    let envelope = ask(&keys, 1, 3);
    running.link.message(&Topic::ProfileAsk(device()), envelope.clone());
    let report = running.until_profile(1).await;
    report.validate().unwrap();
    assert_eq!((report.measured.len(), report.board.as_str(), &report.cut_short), (3 * 2, "x86-64", &None));
    assert!(report.measured.iter().all(|one| matches!(one.result, Timing::Took { .. })), "{report:?}");
    assert!(running.link.subscribed.lock().unwrap().contains(&Filter::ProfileAsk(device()).to_string()));
    let state = || std::fs::read_to_string(folder.path().join("profile.json")).unwrap();
    running.until("the report to be forgotten", |_| state().contains("\"report\":null")).await;
    let link = running.stop().await;

    // As a retained message does, after a restart too.
    let running = start(folder.path(), link, &keys, true);
    running.link.message(&Topic::ProfileAsk(device()), envelope);
    running.link.message(&Topic::ProfileAsk(device()), ask(&keys, 2, 1));
    running.until_profile(2).await;
    assert_eq!(running.profiles().iter().filter(|report| report.complete).count(), 2);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_killed_while_it_measures_measures_again_when_it_is_back() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    let running = start(folder.path(), link, &keys, true);
    running.link.message(&Topic::ProfileAsk(device()), ask(&keys, 1, 40));
    let path = folder.path().join("profile.json");
    running.until("the request to be accepted", |_| path.exists()).await;
    let link = running.kill().await;
    let running = start(folder.path(), link, &keys, true);
    running.link.message(&Topic::ProfileAsk(device()), ask(&keys, 1, 40));
    assert_eq!(running.until_profile(1).await.measured.len(), 40 * 2);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_older_and_boundless_requests_are_refused_and_said_once() {
    let (folder, keys, link) = (tempfile::tempdir().unwrap(), Keys::new(), Arc::<TestLink>::default());
    let running = start(folder.path(), link, &keys, true);
    let say = |bytes: Vec<u8>| running.link.message(&Topic::ProfileAsk(device()), bytes);
    // Known keys first.
    let wish = keys.wish(&running.link, 1, 0, GOLDEN);
    running.link.message(&Topic::Desired(device()), wish);
    running.until_outcome(1).await;
    say(ask(&keys, 5, 1));
    running.until_profile(5).await;
    say(ask(&Keys::new(), 6, 1));
    say(ask(&keys, 4, 1));
    say(ask(&keys, 4, 1));
    say(b"{".to_vec());
    running.until("three refusals", |running| running.refusals().len() == 3).await;
    let refusals = running.refusals();
    for said in ["no valid signature", "profile request 4 is older than 5", "not a signed envelope"] {
        assert!(refusals.iter().any(|refusal| refusal.contains(said)), "{said:?} is not in {refusals:?}");
    }
    assert_eq!(running.profiles().iter().map(|report| report.generation).max(), Some(5));
    running.stop().await;
}
