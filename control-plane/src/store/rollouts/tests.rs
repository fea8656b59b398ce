use super::*;
use crate::store::{
    Page,
    tests::{NOW, enrol, id, stores, version},
};
use control_core::{
    entity::{Selector, Version, VersionState},
    rollout::{MemberState, Policy, State, Status, divide},
};
use shared::{ModelVersionId, wire::TrialPolicy};
use uuid::Uuid;

pub(crate) fn rollout(version: &Version, devices: &[&str]) -> Rollout {
    let policy = Policy::default();
    Rollout {
        id: RolloutId(Uuid::now_v7()),
        version: version.name.clone(),
        version_id: version.id,
        model: version.model.clone(),
        board: version.board.clone(),
        slot: "default".parse().unwrap(),
        bundle: version.bundle,
        selector: Selector::default(),
        devices: divide(&policy.waves, devices.iter().map(|device| id(device))),
        policy,
        trial: TrialPolicy::default(),
        status: Status::default(),
        gates: Vec::new(),
        history: Vec::new(),
        bytes_published: 0,
        created_at: NOW,
        finished_at: None,
        revision: 0,
    }
}

fn assignment(rollout: &Rollout, version: &Version) -> Assignment {
    version.assignment(rollout.slot.clone(), Some(rollout.id), rollout.trial.clone())
}

fn plan(rollout: &Rollout, state: State, action: Action) -> Plan {
    let mut members = rollout.devices.clone();
    members[0].state = if state == State::Running { MemberState::Assigned } else { MemberState::Failed };
    Plan {
        status: Status { state, reason: format!("{state:?}"), ..rollout.status.clone() },
        members,
        actions: vec![action],
        notes: vec!["a note".to_owned()],
        wake_at: None,
    }
}

#[tokio::test]
async fn a_stopped_rollout_gives_back_what_was_in_the_slot() {
    for (_folder, store) in stores().await {
        enrol(&store, "cam-01").await;
        let mut before: Option<Device> = None;
        for (label, content, end) in [("v1.0", "a", State::Completed), ("v1.1", "b", State::Stopped)] {
            let version = version(&store, label, content).await;
            let created = rollout(&version, &["cam-01"]);
            store.add_rollout(&created).await.unwrap();
            let read = store.rollout(created.id).await.unwrap().unwrap();
            let assignment = assignment(&read, &version);
            let generation = before.as_ref().map_or(0, |device| device.generation) + 1;
            let assign = plan(&read, State::Running, Action::Assign { device: id("cam-01"), generation });
            store.execute(&read, &assign, &assignment, &DeviceDeltas::new(), 4096, NOW).await.unwrap();
            let changed = store.device(&id("cam-01")).await.unwrap().unwrap();
            assert_eq!((changed.generation, changed.chunk_bytes), (generation, 4096));
            assert_eq!(changed.assignments, std::slice::from_ref(&assignment));
            assert_eq!(store.desired_generations().await.unwrap(), [(id("cam-01"), generation)]);
            assert!(matches!(
                store.execute(&read, &assign, &assignment, &DeviceDeltas::new(), 4096, NOW).await,
                Err(Error::Conflict(_))
            ));
            let read = store.rollout(created.id).await.unwrap().unwrap();
            let mut finish =
                plan(&read, end, Action::Restore { device: id("cam-01"), generation: generation + 1 });
            if end == State::Completed {
                finish.actions.clear();
            }
            store.execute(&read, &finish, &assignment, &DeviceDeltas::new(), 4096, NOW).await.unwrap();
            let device = store.device(&id("cam-01")).await.unwrap().unwrap();
            if let Some(before) = &before {
                assert_eq!(device.assignments, before.assignments);
                assert_eq!(device.generation, generation + 1);
            }
            before = Some(device);
        }
        assert!(store.open_rollouts().await.unwrap().is_empty());
        let newest = store.rollouts(&Page::default()).await.unwrap()[0].id;
        assert_eq!(store.rollout(newest).await.unwrap().unwrap().history.len(), 3);
    }
}

/// Brings a version to a device and ends the rollout.
async fn roll_out(store: &Store, version: &Version, device: &str, end: State, take_back: bool) {
    let created = rollout(version, &[device]);
    store.add_rollout(&created).await.unwrap();
    let assignment = assignment(&created, version);
    for (state, acts) in [(State::Running, true), (end, take_back)] {
        let read = store.rollout_to_plan(created.id).await.unwrap().unwrap();
        let generation = store.device(&id(device)).await.unwrap().unwrap().generation + 1;
        let action = match state {
            State::Running => Action::Assign { device: id(device), generation },
            _ => Action::Restore { device: id(device), generation },
        };
        let mut plan = plan(&read, state, action);
        plan.actions.retain(|_| acts);
        store.execute(&read, &plan, &assignment, &DeviceDeltas::new(), 4096, NOW).await.unwrap();
    }
}

#[tokio::test]
async fn the_state_of_a_version_follows_its_rollouts_in_the_same_transaction() {
    use VersionState::{Canary, Draft, Live, Retired};
    for (_folder, store) in stores().await {
        enrol(&store, "cam-01").await;
        enrol(&store, "cam-02").await;
        let (a, b) = (version(&store, "v1.0", "a").await, version(&store, "v1.1", "b").await);
        let mut other_board = a.clone();
        (other_board.id, other_board.version) = (ModelVersionId(Uuid::now_v7()), "v2.0".parse().unwrap());
        (other_board.board, other_board.state) = ("jetson".parse().unwrap(), Live);
        store.add_version(&other_board).await.unwrap();
        let states = async || {
            let mut states = Vec::new();
            for version in [&a, &b, &other_board] {
                states.push(store.version(version.id).await.unwrap().unwrap().state);
            }
            states
        };
        roll_out(&store, &a, "cam-01", State::Stopped, true).await;
        assert_eq!(states().await, [Draft, Draft, Live]);
        roll_out(&store, &a, "cam-01", State::Stopped, false).await;
        assert_eq!(states().await, [Canary, Draft, Live], "a device still runs it");
        roll_out(&store, &a, "cam-01", State::Completed, false).await;
        assert_eq!(states().await, [Live, Draft, Live]);
        roll_out(&store, &b, "cam-02", State::Completed, false).await;
        assert_eq!(states().await, [Retired, Live, Live], "live is for each model and board");
        store.add_rollout(&rollout(&a, &["cam-02"])).await.unwrap();
        assert_eq!(states().await, [Canary, Live, Live]);
        roll_out(&store, &a, "cam-01", State::Aborted, true).await;
        assert_eq!(states().await, [Canary, Live, Live], "another rollout of it is under way");
    }
}

#[tokio::test]
async fn of_a_long_history_the_newest_is_shown() {
    for (_folder, store) in stores().await {
        enrol(&store, "cam-01").await;
        let version = version(&store, "v1.0", "a").await;
        let created = rollout(&version, &["cam-01"]);
        store.add_rollout(&created).await.unwrap();
        let read = store.rollout_to_plan(created.id).await.unwrap().unwrap();
        let notes = (0..1500).map(|number| format!("note {number}")).collect();
        let plan = Plan {
            status: read.status.clone(),
            members: read.devices.clone(),
            actions: Vec::new(),
            notes,
            wake_at: None,
        };
        store
            .execute(&read, &plan, &assignment(&read, &version), &DeviceDeltas::new(), 4096, NOW)
            .await
            .unwrap();
        let history = store.rollout(created.id).await.unwrap().unwrap().history;
        assert_eq!((history.len(), history[0].text.as_str()), (1000, "note 500"));
        assert_eq!(history[999].text, "note 1499");
    }
}

#[tokio::test]
async fn a_list_counts_the_members_of_each_rollout_by_state() {
    use MemberState::{Assigned, Committed, Failed, Pending, Reverted, Skipped};
    for (_folder, store) in stores().await {
        assert!(store.rollouts(&Page::default()).await.unwrap().is_empty());
        let version = version(&store, "v1.0", "a").await;
        let mut expected = Vec::new();
        for (slot, states) in [
            ("one", vec![Committed, Committed, Failed, Reverted, Skipped]),
            ("two", vec![Pending, Pending, Pending, Assigned]),
            ("three", Vec::new()),
        ] {
            let devices: Vec<String> = (0..states.len()).map(|number| format!("cam-{number}")).collect();
            let devices: Vec<&str> = devices.iter().map(String::as_str).collect();
            let mut created = rollout(&version, &devices);
            created.slot = slot.parse().unwrap();
            let mut counts = MemberCounts::default();
            for (member, state) in created.devices.iter_mut().zip(states) {
                member.state = state;
                counts.add(state, 1);
            }
            store.add_rollout(&created).await.unwrap();
            expected.push(RolloutSummary::new(created, counts));
        }
        // The newest first.
        expected.reverse();
        assert_eq!(store.rollouts(&Page::default()).await.unwrap(), expected);
        let counted = MemberCounts { total: 4, pending: 3, assigned: 1, ..MemberCounts::default() };
        assert_eq!(expected[1].members, counted);
        let second = Page { limit: 1, after: Some(expected[0].id.to_string()) };
        let page = store.rollouts(&second).await.unwrap();
        assert_eq!(page, expected[1..], "one more than asked for says that there is more");
    }
}

#[tokio::test]
async fn a_member_in_a_state_that_is_none_is_named() {
    for (_folder, store) in stores().await {
        let version = version(&store, "v1.0", "a").await;
        store.add_rollout(&rollout(&version, &["cam-01"])).await.unwrap();
        sqlx::query("UPDATE rollout_members SET state = 'gone'").execute(&store.writer).await.unwrap();
        let error = store.rollouts(&Page::default()).await.unwrap_err().to_string();
        assert!(error.starts_with("rollout_members.state holds what is no state of a member"), "{error}");
    }
}

#[tokio::test]
async fn two_open_rollouts_for_one_slot_of_a_device_are_a_conflict() {
    for (_folder, store) in stores().await {
        enrol(&store, "cam-01").await;
        enrol(&store, "cam-02").await;
        let version = version(&store, "v1.0", "a").await;
        store.add_rollout(&rollout(&version, &["cam-01"])).await.unwrap();
        let other = store.add_rollout(&rollout(&version, &["cam-01", "cam-02"])).await;
        assert!(matches!(other, Err(Error::Conflict(_))));
        store.add_rollout(&rollout(&version, &["cam-02"])).await.unwrap();
        assert_eq!(store.open_rollouts().await.unwrap().len(), 2);
    }
}

#[tokio::test]
async fn counts_of_published_bytes_add_up() {
    for (_folder, store) in stores().await {
        enrol(&store, "cam-01").await;
        let version = version(&store, "v1.0", "a").await;
        let rollout = rollout(&version, &["cam-01"]);
        store.add_rollout(&rollout).await.unwrap();
        store.add_bytes_published(&[(rollout.id, 100)]).await.unwrap();
        store.add_bytes_published(&[(rollout.id, 23)]).await.unwrap();
        assert_eq!(store.rollout(rollout.id).await.unwrap().unwrap().bytes_published, 123);
    }
}
