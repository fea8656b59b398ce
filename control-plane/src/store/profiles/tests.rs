use super::*;
use crate::store::tests::{NOW, enrol, id, stores};
use shared::profile::{Processor, Step};

fn report(device: &str, generation: u64, complete: bool) -> ProfileReport {
    ProfileReport {
        device: id(device),
        board: "x86-64".parse().unwrap(),
        agent_version: "0.1.0".to_owned(),
        generation,
        at: NOW,
        complete,
        cut_short: None,
        processor: Processor::default(),
        measured: Vec::new(),
    }
}

#[tokio::test]
async fn of_two_requests_the_answer_to_the_newer_is_kept_and_a_part_does_not_undo_the_whole() {
    for (_folder, store) in stores().await {
        enrol(&store, "cam-01").await;
        let board = "x86-64".parse().unwrap();
        let workloads = [Workload { input: vec![8, 4], steps: vec![Step::GlobalAverage] }];
        let ask = async || store.ask_profiles(&board, &[id("cam-01")], &workloads, NOW).await.unwrap();
        let set = async |generation, complete| {
            store.set_profile_report(&report("cam-01", generation, complete), NOW).await.unwrap()
        };
        assert!(!set(1, true).await, "nobody has asked");
        ask().await;
        assert!(set(1, false).await && set(1, true).await && !set(1, false).await);
        assert!(store.open_profiles().await.unwrap().is_empty());
        ask().await;
        assert_eq!(store.open_profiles().await.unwrap(), [(id("cam-01"), 2)]);
        assert!(!set(1, true).await, "it answers what was asked before");
        assert!(store.profile(&id("cam-01")).await.unwrap().unwrap().report.is_none());
        assert!(set(2, true).await);
        let found = store.profiles_of(&board).await.unwrap();
        assert_eq!((found.len(), found[0].is_complete(), &found[0].workloads[..]), (1, true, &workloads[..]));
        assert!(store.profiles_of(&"other".parse().unwrap()).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_revoked_device_is_asked_nothing_more() {
    for (_folder, store) in stores().await {
        enrol(&store, "cam-01").await;
        store.ask_profiles(&"x86-64".parse().unwrap(), &[id("cam-01")], &[], NOW).await.unwrap();
        store.revoke_device(&id("cam-01"), NOW).await.unwrap();
        assert!(store.open_profiles().await.unwrap().is_empty());
    }
}
