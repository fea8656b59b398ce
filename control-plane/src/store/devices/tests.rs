use super::*;
use crate::store::{
    ingest::{Came, Input},
    tests::{enrol, id, stores, version},
};
use control_core::entity::{DeviceState, Selector};
use shared::wire::TrialPolicy;

fn reported(device: &str, generation: u64) -> Reported {
    Reported {
        device: id(device),
        board: "x86-64".parse().unwrap(),
        agent_version: "0.1.0".to_owned(),
        at: Timestamp(1),
        generation,
        slots: Vec::new(),
        disk_free_bytes: None,
        api: None,
    }
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

async fn found(store: &Store, filter: DeviceFilter) -> Vec<String> {
    let devices = store.devices(&filter, &Page::default()).await.unwrap();
    devices.into_iter().map(|device| device.id.to_string()).collect()
}

fn looking_for(text: &str) -> DeviceFilter {
    DeviceFilter { search: Some(text.to_owned()), ..DeviceFilter::default() }
}

#[tokio::test]
async fn a_search_finds_parts_of_ids_and_of_labels_as_they_are_written() {
    for (_folder, store) in stores().await {
        for device in ["cam-01", "cam-02", "door-01"] {
            enrol(&store, device).await;
        }
        store.set_labels(&id("door-01"), &labels(&[("site", "Berlin 100%")])).await.unwrap();
        assert_eq!(found(&store, looking_for("CAM")).await, ["cam-01", "cam-02"]);
        assert_eq!(found(&store, looking_for("berlin")).await, ["door-01"]);
        assert_eq!(found(&store, looking_for("0%")).await, ["door-01"]);
        assert!(found(&store, looking_for("c%m")).await.is_empty());
        assert!(found(&store, looking_for("cam_01")).await.is_empty());
        assert!(found(&store, looking_for("site")).await.is_empty(), "a key is no value");
        assert!(found(&store, looking_for("'; DROP TABLE devices; --")).await.is_empty());
    }
}

#[tokio::test]
async fn of_what_comes_at_once_each_devices_last_word_counts() {
    for (_folder, store) in stores().await {
        // More than one statement takes.
        let devices: Vec<DeviceId> = (0..300).map(|number| id(&format!("cam-{number:03}"))).collect();
        for device in &devices {
            enrol(&store, device.as_str()).await;
        }
        store.revoke_device(&devices[2], Timestamp(5)).await.unwrap();
        let told = |device: &DeviceId, generation, at| Input::Reported {
            reported: Box::new(reported(device.as_str(), generation)),
            seen: at,
        };
        let is = |device: &DeviceId, online, seen| Input::Presence { device: device.clone(), online, seen };
        let mut inputs: Vec<Input> = devices.iter().map(|device| told(device, 1, None)).collect();
        inputs.extend([
            told(&devices[0], 3, Some(Timestamp(10))),
            is(&devices[0], true, Some(Timestamp(11))),
            told(&devices[0], 2, None),
            is(&devices[1], true, Some(Timestamp(12))),
            is(&devices[1], false, Some(Timestamp(13))),
            is(&devices[2], true, Some(Timestamp(14))),
            is(&id("nobody"), true, Some(Timestamp(15))),
        ]);
        let now = Timestamp(20);
        assert_eq!(store.take_in(&inputs, Came { received: now, steady: now }).await.unwrap(), None);
        let known = |device: Device| {
            let generation = device.reported.map(|reported| reported.generation);
            (generation, device.online, device.seen_at)
        };
        let found: Vec<_> = store.devices_of(&devices).await.unwrap().into_iter().map(known).collect();
        assert_eq!(found.len(), 300);
        assert_eq!(found[0], (Some(2), true, Some(Timestamp(11))));
        assert_eq!(found[1], (Some(1), false, Some(Timestamp(13))));
        assert_eq!((found[2].0, found[2].1), (Some(1), false), "revoked");
        assert!(found[3..].iter().all(|found| *found == (Some(1), false, None)));
        assert!(store.devices_of(&[id("nobody")]).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_filter_names_the_devices_for_which_everything_holds() {
    for (_folder, store) in stores().await {
        for device in ["a", "b", "c", "d"] {
            enrol(&store, device).await;
        }
        let version = version(&store, "v1.0", "bundle").await;
        let assignment = version.assignment("default".parse().unwrap(), None, TrialPolicy::default());
        store.assign(&id("a"), std::slice::from_ref(&assignment), 4096).await;
        store.assign(&id("b"), std::slice::from_ref(&assignment), 4096).await;
        store.set_reported(&reported("a", 1), None).await.unwrap();
        store.set_online(&id("b"), true, None).await.unwrap();
        store.set_board(&id("c"), &"jetson".parse().unwrap(), "0.1.0").await.unwrap();
        store.set_labels(&id("a"), &labels(&[("ring", "1"), ("site", "x")])).await.unwrap();
        store.set_labels(&id("b"), &labels(&[("ring", "1")])).await.unwrap();
        store.revoke_device(&id("d"), Timestamp(5)).await.unwrap();
        let all = DeviceFilter::default;
        let cases = [
            (DeviceFilter { version: Some(version.id), ..all() }, "a b"),
            (DeviceFilter { online: Some(true), ..all() }, "b"),
            (DeviceFilter { online: Some(false), ..all() }, "a c d"),
            (DeviceFilter { board: Some("jetson".parse().unwrap()), ..all() }, "c"),
            (DeviceFilter { labels: labels(&[("ring", "1")]), ..all() }, "a b"),
            (DeviceFilter { labels: labels(&[("ring", "1"), ("site", "x")]), ..all() }, "a"),
            (DeviceFilter { labels: labels(&[("ring", "2")]), ..all() }, ""),
            (
                DeviceFilter {
                    group: Some(Selector {
                        devices: vec![id("a"), id("c")],
                        labels: labels(&[("ring", "1")]),
                    }),
                    ..all()
                },
                "a",
            ),
            (DeviceFilter { group: Some(Selector::default()), ..all() }, "a b c d"),
            (DeviceFilter { state: Some(DeviceState::Current), ..all() }, "a c"),
            (DeviceFilter { state: Some(DeviceState::Behind), ..all() }, "b"),
            (DeviceFilter { state: Some(DeviceState::Revoked), ..all() }, "d"),
            (
                DeviceFilter {
                    version: Some(version.id),
                    labels: labels(&[("site", "x")]),
                    ..looking_for("A")
                },
                "a",
            ),
        ];
        for (filter, expected) in cases {
            assert_eq!(found(&store, filter.clone()).await.join(" "), expected, "{filter:?}");
            if let Some(state) = filter.state {
                // What is asked of the database is what a device says of itself.
                let devices = store.devices(&filter, &Page::default()).await.unwrap();
                assert!(devices.iter().all(|device| device.state() == state));
            }
        }
        // Labels that are replaced are found no more.
        store.set_labels(&id("a"), &labels(&[("ring", "2")])).await.unwrap();
        assert_eq!(
            found(&store, DeviceFilter { labels: labels(&[("ring", "1")]), ..all() }).await.join(" "),
            "b"
        );
    }
}
