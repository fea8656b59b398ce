use super::*;
use proptest::prelude::*;

fn id(number: u32) -> DeviceId {
    format!("d{number}").parse().unwrap()
}

fn chunk(index: u32) -> Chunk {
    Chunk { digest: Digest::of(b"blob"), index, chunk_bytes: 1024 }
}

fn drain(delivery: &mut Delivery, mut now: Timestamp) -> Vec<(Timestamp, Send)> {
    let mut sent = Vec::new();
    loop {
        while let Some(send) = delivery.poll_send(now) {
            sent.push((now, send));
        }
        match delivery.poll_timeout() {
            Some(at) => now = at.max(now.plus_ms(1)),
            None => return sent,
        }
    }
}

#[test]
fn what_two_devices_fetch_goes_out_once_to_both_whoever_asks_first() {
    let mut delivery = Delivery::new(0, 1024, false);
    delivery.want(&id(1), [chunk(0), chunk(1)], 0, Timestamp(1000)).unwrap();
    assert_eq!(delivery.poll_send(Timestamp(1000 + WINDOW_MS - 1)), None);
    delivery.want(&id(2), [chunk(1)], 0, Timestamp(1020)).unwrap();
    let sent: Vec<Send> = drain(&mut delivery, Timestamp(1050)).into_iter().map(|(_, send)| send).collect();
    assert_eq!(
        sent,
        [
            Send { chunk: chunk(0), target: Target::Everybody },
            Send { chunk: chunk(1), target: Target::Everybody },
        ]
    );
    assert!(delivery.is_empty());
}

#[test]
fn devices_take_turns_whatever_they_want() {
    let mut delivery = Delivery::new(0, 1024, false);
    delivery.want(&id(1), (0..100).map(chunk), 0, Timestamp(0)).unwrap();
    delivery.want(&id(2), (200..202).map(chunk), 0, Timestamp(0)).unwrap();
    let first: Vec<u32> =
        drain(&mut delivery, Timestamp(50)).iter().take(4).map(|(_, s)| s.chunk.index).collect();
    assert_eq!(first, [0, 200, 1, 201]);
}

#[test]
fn keeps_the_byte_rate() {
    let mut delivery = Delivery::new(10 * 1024, 1024, false);
    delivery.want(&id(1), (0..264).map(chunk), 0, Timestamp(0)).unwrap();
    let sent = drain(&mut delivery, Timestamp(50));
    assert_eq!(sent.len(), 264);
    // 64 KiB of burst, then 200 chunks at ten a second.
    let last = sent.last().unwrap().0;
    assert!((20_000..21_000).contains(&last.0), "{last:?}");
}

#[test]
fn refuses_more_than_it_holds_and_goes_on() {
    let mut delivery = Delivery::new(0, 1024, false);
    let many = u32::try_from(WAITING_PER_DEVICE_MAX).unwrap() + 1;
    assert_eq!(delivery.want(&id(1), (0..many).map(chunk), 0, Timestamp(0)), Err(Full));
    assert_eq!(drain(&mut delivery, Timestamp(50)).len(), WAITING_PER_DEVICE_MAX);
    delivery.want(&id(1), [chunk(0)], 0, Timestamp(10_000)).unwrap();
    assert_eq!(delivery.len(), 1);
}

#[test]
fn chunks_of_another_size_than_that_of_the_broadcast_go_to_each_device_alone() {
    let mut delivery = Delivery::new(0, 4096, false);
    for number in 1..=2 {
        delivery.want(&id(number), [chunk(0)], 0, Timestamp(0)).unwrap();
    }
    let sent: Vec<Send> = drain(&mut delivery, Timestamp(50)).into_iter().map(|(_, send)| send).collect();
    assert_eq!(sent, [1, 2].map(|number| Send { chunk: chunk(0), target: Target::Device(id(number)) }));
    assert!(delivery.is_empty());
}

#[test]
fn what_waits_is_bounded_over_all_devices_however_few_chunks_they_share() {
    let mut delivery = Delivery::new(0, 1024, false);
    let per_device = u32::try_from(WAITING_PER_DEVICE_MAX).unwrap();
    let devices = u32::try_from(WAITING_MAX / WAITING_PER_DEVICE_MAX).unwrap();
    for number in 0..devices {
        delivery.want(&id(number), (0..per_device).map(chunk), 0, Timestamp(0)).unwrap();
    }
    assert_eq!(delivery.len(), WAITING_PER_DEVICE_MAX);
    assert_eq!(delivery.want(&id(devices), (0..per_device).map(chunk), 0, Timestamp(0)), Err(Full));
    assert_eq!(drain(&mut delivery, Timestamp(50)).len(), WAITING_PER_DEVICE_MAX);
    assert_eq!(delivery.pairs, 0);
}

#[test]
fn what_a_lost_device_wanted_is_forgotten() {
    let mut delivery = Delivery::new(0, 1024, false);
    delivery.want(&id(1), [chunk(0), chunk(1)], 0, Timestamp(0)).unwrap();
    delivery.want(&id(2), [chunk(1)], 0, Timestamp(0)).unwrap();
    delivery.forget(&id(1));
    let sent: Vec<Send> = drain(&mut delivery, Timestamp(50)).into_iter().map(|(_, send)| send).collect();
    assert_eq!(sent, [Send { chunk: chunk(1), target: Target::Device(id(2)) }]);
}

proptest! {
    #[test]
    fn every_wanted_chunk_goes_out_once(wants in prop::collection::vec((0u32..4, 0u32..30, 0u64..40), 1..80)) {
        let mut delivery = Delivery::new(0, 1024, false);
        let mut wanted: BTreeMap<u32, BTreeSet<DeviceId>> = BTreeMap::new();
        for (device, index, at) in wants {
            delivery.want(&id(device), [chunk(index)], 0, Timestamp(at)).unwrap();
            wanted.entry(index).or_default().insert(id(device));
        }
        let sent = drain(&mut delivery, Timestamp(WINDOW_MS + 40));
        prop_assert_eq!(sent.len(), wanted.len());
        let fetch: BTreeSet<DeviceId> = wanted.values().flatten().cloned().collect();
        for (_, send) in sent {
            let devices = wanted.remove(&send.chunk.index).unwrap();
            match send.target {
                Target::Device(device) => prop_assert_eq!(devices, BTreeSet::from([device])),
                Target::Everybody => prop_assert!(fetch.len() >= 2),
            }
        }
        prop_assert!(delivery.is_empty());
        prop_assert_eq!(delivery.pairs, 0);
    }
}

fn targets(sent: &[(Timestamp, Send)]) -> Vec<(u32, &Target)> {
    sent.iter().map(|(_, send)| (send.chunk.index, &send.target)).collect()
}

#[test]
fn a_wave_is_waited_for_as_long_as_its_devices_come_one_after_the_other() {
    let mut delivery = Delivery::new(0, 1024, false);
    for (number, at) in [(1, 0), (2, 250), (3, 500), (4, 900)] {
        assert_eq!(delivery.poll_send(Timestamp(at)), None);
        delivery.want(&id(number), [chunk(0)], 5, Timestamp(at)).unwrap();
    }
    // The fifth does not come: they are waited for as long again as they had been coming.
    assert_eq!(delivery.poll_timeout(), Some(Timestamp(1_800)));
    assert_eq!(targets(&drain(&mut delivery, Timestamp(1_800))), [(0, &Target::Everybody)]);

    let mut delivery = Delivery::new(0, 1024, false);
    delivery.want(&id(1), [chunk(0)], 2, Timestamp(0)).unwrap();
    assert_eq!(delivery.poll_timeout(), Some(Timestamp(300)), "one that is late does not hold up the other");

    let mut delivery = Delivery::new(0, 1024, false);
    delivery.want(&id(1), [chunk(0)], 3, Timestamp(0)).unwrap();
    assert_eq!(
        delivery.poll_timeout(),
        Some(Timestamp(1_000)),
        "two that are late hold it up a little longer"
    );

    let mut delivery = Delivery::new(0, 1024, false);
    for number in 1..=2 {
        delivery.want(&id(number), [chunk(0)], 2, Timestamp(0)).unwrap();
    }
    assert_eq!(delivery.poll_timeout(), Some(Timestamp(WINDOW_MS)), "all are there");

    let mut delivery = Delivery::new(0, 1024, false);
    for number in 0..100 {
        delivery.want(&id(number), [chunk(0)], 1000, Timestamp(u64::from(number) * 200)).unwrap();
    }
    assert_eq!(delivery.poll_timeout(), Some(Timestamp(10_000)), "the first waits no longer");
}

#[test]
fn who_asks_for_what_is_on_its_way_is_not_heard_and_who_asks_again_is() {
    let mut delivery = Delivery::new(0, 1024, false);
    for number in 1..=3 {
        delivery.want(&id(number), [chunk(0)], 3, Timestamp(0)).unwrap();
    }
    delivery.want(&id(1), [chunk(1)], 3, Timestamp(10)).unwrap();
    let sent = drain(&mut delivery, Timestamp(60));
    assert_eq!(targets(&sent), [(0, &Target::Everybody), (1, &Target::Everybody)]);
    // Not asked for by the second before it went out: it is not known that it came.
    delivery.want(&id(2), [chunk(1)], 3, Timestamp(500)).unwrap();
    assert!(delivery.is_empty());
    delivery.want(&id(2), [chunk(1)], 3, Timestamp(2_500)).unwrap();
    assert_eq!(targets(&drain(&mut delivery, Timestamp(2_600))), [(1, &Target::Device(id(2)))]);
    // What it asked for before it went out did not come.
    delivery.want(&id(3), [chunk(0)], 3, Timestamp(2_700)).unwrap();
    delivery.want(&id(1), [chunk(0)], 3, Timestamp(2_700)).unwrap();
    delivery.want(&id(2), [chunk(0)], 3, Timestamp(2_700)).unwrap();
    assert_eq!(targets(&drain(&mut delivery, Timestamp(2_800))), [(0, &Target::Everybody)], "most want it");
}

#[test]
fn who_comes_when_a_chunk_has_long_gone_out_gets_it_alone() {
    let mut delivery = Delivery::new(0, 1024, false);
    for number in 1..=2 {
        delivery.want(&id(number), [chunk(0)], 2, Timestamp(0)).unwrap();
    }
    assert_eq!(drain(&mut delivery, Timestamp(50)).len(), 1);
    delivery.want(&id(3), [chunk(0)], 3, Timestamp(10_000)).unwrap();
    assert_eq!(targets(&drain(&mut delivery, Timestamp(10_050))), [(0, &Target::Device(id(3)))]);
}

#[test]
fn those_who_come_late_are_waited_for_and_get_it_together() {
    let mut delivery = Delivery::new(0, 1024, true);
    for number in 0..10 {
        delivery.want(&id(number), [chunk(0)], 14, Timestamp(0)).unwrap();
    }
    let sent = drain(&mut delivery, Timestamp(50));
    assert_eq!(targets(&sent), [(0, &Target::Everybody)]);
    let at = sent[0].0;
    for number in 0..10 {
        delivery.settle(&id(number), &chunk(0).digest, 0, at.plus_ms(5));
    }
    for (number, ms) in [(10, 100), (11, 300), (12, 550)] {
        delivery.want(&id(number), [chunk(0)], 14, at.plus_ms(ms)).unwrap();
    }
    let sent = drain(&mut delivery, at.plus_ms(551));
    // The ten have it and do not listen.
    assert_eq!(targets(&sent), [(0, &Target::Everybody)]);
    assert_eq!(sent[0].0, at.plus_ms(100 + LATE_WINDOW_MS));
    // The last one is all that is left.
    for number in 10..13 {
        delivery.settle(&id(number), &chunk(0).digest, 0, at.plus_ms(700));
    }
    delivery.want(&id(13), [chunk(0)], 14, at.plus_ms(800)).unwrap();
    let sent = drain(&mut delivery, at.plus_ms(801));
    assert_eq!(targets(&sent), [(0, &Target::Device(id(13)))]);
    assert_eq!(sent[0].0, at.plus_ms(800 + WINDOW_MS), "nobody else is expected");
}

#[test]
fn the_next_wave_starts_anew() {
    let mut delivery = Delivery::new(0, 1024, false);
    for number in 1..=2 {
        delivery.want(&id(number), [chunk(0)], 2, Timestamp(0)).unwrap();
    }
    assert_eq!(drain(&mut delivery, Timestamp(50)).len(), 1);
    delivery.retain(|_, device| *device == id(3));
    assert!(!delivery.is_fetched(&Digest::of(b"blob")));
    for number in 3..=4 {
        delivery.want(&id(number), [chunk(0)], 2, Timestamp(1_000)).unwrap();
    }
    assert_eq!(targets(&drain(&mut delivery, Timestamp(1_050))), [(0, &Target::Everybody)]);
}

#[test]
fn what_settled_is_missed_at_once_and_what_has_not_is_on_its_way() {
    let mut delivery = Delivery::new(0, 1024, true);
    let blob = Digest::of(b"blob");
    for number in 1..=3 {
        delivery.want(&id(number), (0..3).map(chunk), 3, Timestamp(0)).unwrap();
    }
    assert_eq!(drain(&mut delivery, Timestamp(50)).len(), 3);
    // In the order in which they went out, the second has come: the first was lost, the third is under way.
    delivery.settle(&id(1), &blob, 1, Timestamp(60));
    delivery.want(&id(1), [chunk(0), chunk(2)], 3, Timestamp(61)).unwrap();
    assert_eq!(targets(&drain(&mut delivery, Timestamp(120))), [(0, &Target::Device(id(1)))]);
    delivery.want(&id(1), [chunk(0), chunk(2)], 3, Timestamp(700)).unwrap();
    assert!(delivery.is_empty(), "the first is under way again, the third is still");
    delivery.settle(&id(1), &blob, 0, Timestamp(800));
    delivery.want(&id(1), [chunk(0), chunk(2)], 3, Timestamp(900)).unwrap();
    assert_eq!(
        drain(&mut delivery, Timestamp(1_000)).len(),
        2,
        "all that went out has come, and neither is there"
    );
}

#[test]
fn a_broadcast_does_not_run_ahead_of_its_audience() {
    let mut delivery = Delivery::new(0, 1024, true);
    let blob = Digest::of(b"blob");
    for number in 1..=3 {
        delivery.want(&id(number), (0..30).map(chunk), 3, Timestamp(0)).unwrap();
    }
    let mut sent = 0;
    let mut count = |delivery: &mut Delivery, now| {
        sent += std::iter::from_fn(|| delivery.poll_send(Timestamp(now))).count();
        sent
    };
    assert_eq!(count(&mut delivery, 50), 8);
    delivery.settle(&id(1), &blob, 7, Timestamp(60));
    assert_eq!(count(&mut delivery, 60), 8, "most have none yet");
    assert_eq!(delivery.poll_timeout(), Some(Timestamp(65)));
    delivery.settle(&id(2), &blob, 3, Timestamp(70));
    assert_eq!(count(&mut delivery, 70), 12);
    assert_eq!(count(&mut delivery, 1_070), 13, "who tells nothing is not waited for without end");
}

/// A device as the planner sees it: it wants all that it has not got, waits, and wants again.
struct Fetcher {
    id: DeviceId,
    has: BTreeSet<u32>,
    asks_at: u64,
}

proptest! {
    #[test]
    fn everybody_gets_everything_and_without_loss_everything_goes_out_once(
        starts in prop::collection::vec(0u64..250, 1..12),
        total in 1u32..30,
        losses in prop::collection::vec(any::<bool>(), 0..400),
        settles: bool,
    ) {
        let mut delivery = Delivery::new(0, 1024, settles);
        let expected = starts.len();
        let mut fetchers: Vec<Fetcher> = starts
            .iter()
            .enumerate()
            .map(|(number, &asks_at)| Fetcher { id: id(number as u32), has: BTreeSet::new(), asks_at })
            .collect();
        let lossless = losses.iter().all(|lost| !lost);
        let mut losses = losses.into_iter();
        let mut published = 0;
        for now in (0..600_000).step_by(10) {
            for fetcher in fetchers.iter_mut().filter(|fetcher| fetcher.asks_at <= now) {
                let missing: Vec<u32> = (0..total).filter(|index| !fetcher.has.contains(index)).collect();
                delivery.want(&fetcher.id, missing.into_iter().map(chunk), expected, Timestamp(now)).unwrap();
                fetcher.asks_at = now + 2_000;
            }
            while let Some(send) = delivery.poll_send(Timestamp(now)) {
                published += 1;
                for fetcher in &mut fetchers {
                    let hears = match &send.target {
                        Target::Everybody => fetcher.asks_at > 250,
                        Target::Device(device) => *device == fetcher.id,
                    };
                    if hears && !losses.next().unwrap_or(false) {
                        fetcher.has.insert(send.chunk.index);
                    }
                    if hears && settles {
                        delivery.settle(&fetcher.id, &send.chunk.digest, send.chunk.index, Timestamp(now));
                    }
                }
            }
            fetchers.retain(|fetcher| fetcher.has.len() < total as usize);
            if fetchers.is_empty() {
                break;
            }
        }
        prop_assert!(fetchers.is_empty(), "{} have not got everything", fetchers.len());
        if lossless {
            prop_assert_eq!(published, total);
        }
    }
}
