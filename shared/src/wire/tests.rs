use super::*;
use crate::signing::Payload;
use proptest::prelude::*;

fn event(n: u128) -> Event {
    Event {
        id: Uuid::from_u128(n),
        at: Timestamp(5),
        slot: Some("default".parse().unwrap()),
        bundle: Some(Digest::of(b"b")),
        kind: EventKind::TrialPassed,
        detail: "20 requests".to_owned(),
    }
}

fn device() -> DeviceId {
    "cam-01".parse().unwrap()
}

#[test]
fn a_batch_round_trips() {
    let batch = Batch { device: device(), records: vec![event(1), event(2)] };
    assert_eq!(Batch::<Event>::decode(&batch.encode().unwrap(), &device()).unwrap(), batch);
}

#[test]
fn an_event_of_a_kind_that_only_a_newer_peer_knows_is_read() {
    #[derive(Serialize)]
    struct Newer {
        id: Uuid,
        at: Timestamp,
        slot: Option<crate::SlotName>,
        bundle: Option<Digest>,
        kind: &'static str,
        detail: &'static str,
    }
    let newer = Newer {
        id: Uuid::nil(),
        at: Timestamp(1),
        slot: None,
        bundle: None,
        kind: "fan_stopped",
        detail: "",
    };
    let mut cbor = Vec::new();
    ciborium::into_writer(&newer, &mut cbor).unwrap();
    let event: Event = ciborium::from_reader(cbor.as_slice()).unwrap();
    assert_eq!(event.kind, EventKind::Unknown);
    let json = serde_json::to_vec(&newer).unwrap();
    assert_eq!(serde_json::from_slice::<Event>(&json).unwrap(), event);
    let known: EventKind = serde_json::from_str("\"slot_emptied\"").unwrap();
    assert_eq!(known, EventKind::SlotEmptied);
}

#[test]
fn a_batch_in_anothers_name_is_refused() {
    let bytes = Batch { device: device(), records: vec![event(1)] }.encode().unwrap();
    let error = Batch::<Event>::decode(&bytes, &"cam-02".parse().unwrap()).unwrap_err();
    assert!(error.to_string().contains("another device"), "{error}");
}

#[test]
fn a_batch_cut_short_or_too_long_is_refused() {
    let mut bytes = Batch { device: device(), records: vec![event(1)] }.encode().unwrap();
    for end in 0..bytes.len() {
        assert!(Batch::<Event>::decode(&bytes[..end], &device()).is_err(), "cut at {end} passed");
    }
    bytes.push(0);
    assert!(Batch::<Event>::decode(&bytes, &device()).is_err());
    assert!(Batch::<Event>::decode(&vec![0; limits::BATCH_BYTES_MAX + 1], &device()).is_err());
}

#[test]
fn deep_nesting_is_refused_and_does_not_overflow_the_stack() {
    let bytes = vec![0x81; 60_000];
    assert!(Batch::<Event>::decode(&bytes, &device()).is_err());
}

#[test]
fn a_want_keeps_its_rules() {
    let want =
        |ranges: &[(u32, u32)]| Want { digest: Digest::of(b"x"), chunk_bytes: 4096, ranges: ranges.to_vec() };
    want(&[(0, 1), (2, 5)]).validate().unwrap();
    assert_eq!(want(&[(0, 1), (2, 5)]).indices().collect::<Vec<_>>(), [0, 2, 3, 4]);
    for bad in
        [&[][..], &[(1, 1)], &[(2, 1)], &[(0, 2), (1, 3)], &[(0, 2), (2, 3)], &[(0, u32::MAX)], &[(0, 257)]]
    {
        assert!(want(bad).validate().is_err(), "{bad:?} passed");
    }
    assert!(Want { chunk_bytes: 0, ..want(&[(0, 1)]) }.validate().is_err());
}

#[test]
fn chunk_counts_round_up() {
    assert_eq!(chunk_count(0, 4096), 0);
    assert_eq!(chunk_count(1, 4096), 1);
    assert_eq!(chunk_count(4096, 4096), 1);
    assert_eq!(chunk_count(4097, 4096), 2);
    assert_eq!(chunk_count(u64::MAX, 1), u32::MAX);
}

#[test]
fn a_desired_state_keeps_its_rules() {
    let assignment = Assignment {
        slot: "default".parse().unwrap(),
        model: "mnist".parse().unwrap(),
        version: "v1.0".parse().unwrap(),
        version_id: ModelVersionId(Uuid::from_u128(1)),
        bundle: Digest::of(b"b"),
        bundle_bytes: 100,
        rollout: None,
        trial: TrialPolicy::default(),
        deltas: Vec::new(),
        update_bytes_max: None,
    };
    let desired = Desired {
        device: device(),
        generation: 1,
        issued_at: Timestamp(1),
        chunk_bytes: 65_536,
        assignments: vec![assignment.clone()],
    };
    desired.validate().unwrap();
    let twice = Desired { assignments: vec![assignment.clone(); 2], ..desired.clone() };
    assert!(twice.validate().unwrap_err().contains("twice"));
    let huge = Assignment { bundle_bytes: u64::MAX, ..assignment.clone() };
    assert!(Desired { assignments: vec![huge], ..desired.clone() }.validate().is_err());
    let trial = TrialPolicy { agreement_permille_min: Some(1001), ..TrialPolicy::default() };
    let refused = |assignment: Assignment| {
        Desired { assignments: vec![assignment], ..desired.clone() }.validate().unwrap_err()
    };
    refused(Assignment { trial, ..assignment.clone() });
    assert!(
        refused(Assignment { update_bytes_max: Some(0), ..assignment.clone() }).contains("update_bytes_max")
    );
    let delta = |number: u8| DeltaRef {
        from: Digest::of(b"from"),
        to: Digest::of(&[number]),
        delta: Digest::of(&[number, number]),
        bytes: 100,
    };
    let with = |deltas: Vec<DeltaRef>| Assignment { deltas, ..assignment.clone() };
    let most: Vec<DeltaRef> = (0..8).map(delta).collect();
    Desired { assignments: vec![with(most.clone())], ..desired.clone() }.validate().unwrap();
    for (deltas, why) in [
        ((0..9).map(delta).collect(), "9 deltas"),
        (vec![DeltaRef { bytes: 0, ..delta(1) }], "0 bytes"),
        (vec![DeltaRef { bytes: u64::MAX, ..delta(1) }], "allowed are"),
        (vec![DeltaRef { from: delta(1).to, ..delta(1) }], "twice"),
        (vec![DeltaRef { delta: delta(1).to, ..delta(1) }], "twice"),
        (vec![delta(1), DeltaRef { from: Digest::of(b"other"), ..delta(1) }], "two deltas"),
    ] {
        let reason = refused(with(deltas));
        assert!(reason.contains(why), "{reason}");
    }
}

#[test]
fn what_a_newer_device_waits_for_is_understood_as_waiting() {
    let waiting = |waits_for: &str| {
        let text = format!(
            r#"{{"name":"waiting","bundle":"{}","until":1,"reason":"r"{waits_for}}}"#,
            Digest::of(b"b")
        );
        match serde_json::from_str(&text).unwrap() {
            Phase::Waiting { waits_for, .. } => waits_for,
            phase => panic!("{phase:?}"),
        }
    };
    assert_eq!(waiting(""), WaitsFor::Storage);
    assert_eq!(waiting(r#","waits_for":"budget""#), WaitsFor::Budget);
    assert_eq!(waiting(r#","waits_for":"daylight""#), WaitsFor::Unknown);
}

#[test]
fn a_report_keeps_its_rules() {
    let slot = |number: usize| SlotReport {
        slot: format!("s{number}").parse().unwrap(),
        active: None,
        last_good: None,
        runtime: Some("tract".to_owned()),
        phase: Phase::Waiting {
            bundle: Digest::of(b"b"),
            until: Timestamp(1),
            reason: "no space".to_owned(),
            waits_for: WaitsFor::Storage,
        },
        attempt: None,
    };
    let good = Reported {
        device: device(),
        board: "x86-64".parse().unwrap(),
        agent_version: "0.1.0".to_owned(),
        at: Timestamp(1),
        generation: 1,
        slots: (0..limits::REPORTED_SLOTS_MAX).map(slot).collect(),
        disk_free_bytes: None,
        api: Some("127.0.0.1:8700".to_owned()),
    };
    good.validate().unwrap();
    let long = "x".repeat(limits::REASON_BYTES_MAX + 1);
    let phase = Phase::Waiting {
        bundle: Digest::of(b"b"),
        until: Timestamp(1),
        reason: long.clone(),
        waits_for: WaitsFor::Budget,
    };
    let version = VersionRef {
        model: "m".parse().unwrap(),
        version: "v1.0".parse().unwrap(),
        version_id: ModelVersionId(Uuid::from_u128(1)),
        bundle: Digest::of(b"b"),
    };
    let attempt = Attempt {
        generation: 1,
        rollout: None,
        version,
        outcome: Outcome::RolledBack { detail: long.clone() },
        at: Timestamp(1),
        trial: None,
    };
    let slots = |slot: SlotReport| Reported { slots: vec![slot], ..good.clone() };
    for (bad, says) in [
        (Reported { agent_version: long.clone(), ..good.clone() }, "agent_version is over 64 bytes"),
        (Reported { api: Some(long.clone()), ..good.clone() }, "api is over 256 bytes"),
        (Reported { slots: vec![slot(1), slot(1)], ..good.clone() }, "slot s1 is there twice"),
        (Reported { slots: (0..17).map(slot).collect(), ..good.clone() }, "17 slots, at most 16"),
        (slots(SlotReport { runtime: Some(long), ..slot(1) }), "runtime is over 32 bytes"),
        (slots(SlotReport { phase, ..slot(1) }), "reason is over 512 bytes"),
        (slots(SlotReport { attempt: Some(attempt), ..slot(1) }), "detail is over 512 bytes"),
    ] {
        assert_eq!(bad.validate().unwrap_err(), says);
    }
}

#[test]
fn reasons_are_cut_at_a_characters_end() {
    let text = "ä".repeat(limits::REASON_BYTES_MAX);
    let short = cut(&text);
    assert!(short.len() <= limits::REASON_BYTES_MAX && text.starts_with(&short));
}

proptest! {
    #[test]
    fn hostile_batches_never_panic(bytes: Vec<u8>) {
        let _ = Batch::<Event>::decode(&bytes, &device());
        let _ = Batch::<Feedback>::decode(&bytes, &device());
        let _ = Batch::<Telemetry>::decode(&bytes, &device());
    }

    #[test]
    fn hostile_control_messages_never_panic(bytes: Vec<u8>) {
        let _ = decode_json::<Reported>("reported", &bytes);
        let _ = decode_json::<Want>("want", &bytes);
        let _ = decode_json::<Presence>("presence", &bytes);
    }

    #[test]
    fn a_flipped_byte_in_a_batch_never_panics(at: prop::sample::Index, to: u8) {
        let mut bytes = Batch { device: device(), records: vec![event(1), event(2)] }.encode().unwrap();
        let at = at.index(bytes.len());
        bytes[at] = to;
        let _ = Batch::<Event>::decode(&bytes, &device());
    }

    #[test]
    fn valid_wants_ask_for_a_bounded_number(ranges in prop::collection::vec((0u32..500, 0u32..500), 0..80)) {
        let want = Want { digest: Digest::of(b"x"), chunk_bytes: 4096, ranges };
        if want.validate().is_ok() {
            prop_assert!(want.indices().count() <= limits::WANT_CHUNKS_MAX as usize);
        }
    }
}
