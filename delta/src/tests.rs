use super::*;
use proptest::prelude::*;
use std::ops::Range;

const LIMITS: Limits = Limits { old_bytes_max: 1 << 20, new_bytes_max: 1 << 20 };

/// Bytes that look like noise to a compressor.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

/// Every byte up or down by at most one, as fine-tuning does to weights.
fn tuned(weights: &[u8]) -> Vec<u8> {
    let steps = noise(7, weights.len());
    weights.iter().zip(steps).map(|(weight, step)| weight.wrapping_add(step % 3).wrapping_sub(1)).collect()
}

fn field(number: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = payload.len();
    while length >= 0x80 {
        out.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap());
    out.extend_from_slice(payload);
    out
}

/// An ONNX file with these initialisers and a version number before the graph.
fn model(tensors: &[(&str, &[u8])]) -> Vec<u8> {
    let graph: Vec<u8> = tensors
        .iter()
        .flat_map(|(name, data)| {
            let tensor = [vec![0x10, 3], field(8, name.as_bytes()), field(9, data)].concat();
            field(5, &tensor)
        })
        .collect();
    [vec![0x08, 8], field(7, &graph)].concat()
}

fn method(delta: &[u8]) -> Method {
    Header::read(delta).unwrap().0.method
}

#[test]
fn the_weights_of_a_tuned_model_are_found_and_compress_to_a_fraction() {
    let (first, second) = (noise(1, 40_000), noise(2, 5_000));
    let (first_tuned, second_tuned) = (tuned(&first), tuned(&second));
    let old = model(&[("conv", &first), ("head", &second), ("gone", b"x")]);
    let new = model(&[("new", b"longer than before"), ("head", &second_tuned), ("conv", &first_tuned)]);
    let regions = onnx::regions(&old, &new);
    let found: Vec<(&[u8], &[u8])> =
        regions.iter().map(|(from, to)| (&old[from.clone()], &new[to.clone()])).collect();
    assert_eq!(found, [(&second[..], &second_tuned[..]), (&first[..], &first_tuned[..])]);
    let delta = make(&old, &new, &regions).unwrap();
    assert_eq!(method(&delta), Method::Diff);
    assert!(delta.len() * 3 < new.len(), "{} of {} bytes", delta.len(), new.len());
    let blind = make(&old, &new, &[]).unwrap();
    assert!(delta.len() * 2 < blind.len(), "{} and without the regions {}", delta.len(), blind.len());
    assert_eq!(apply(&old, &delta, LIMITS).unwrap(), new);
}

#[test]
fn parts_that_moved_are_patched() {
    let (head, tail) = (noise(3, 30_000), noise(4, 30_000));
    let (old, new) = ([head.clone(), tail.clone()].concat(), [&tail[..], b"between", &head[..]].concat());
    let delta = make(&old, &new, &[]).unwrap();
    assert_eq!(method(&delta), Method::Patch);
    assert!(delta.len() < 400, "{} bytes", delta.len());
    assert_eq!(apply(&old, &delta, LIMITS).unwrap(), new);
}

#[test]
fn regions_that_do_not_help_or_do_not_fit_are_left_out() {
    let (old, new) = (noise(5, 1000), noise(6, 1000));
    let far = usize::MAX - 100..usize::MAX;
    let bad: [Region; 4] = [(0..500, 0..400), (900..1100, 0..200), (0..200, 900..1100), (far.clone(), far)];
    for region in bad {
        let delta = make(&old, &new, &[region]).unwrap();
        assert_eq!(method(&delta), Method::Patch);
        assert_eq!(apply(&old, &delta, LIMITS).unwrap(), new);
    }
    let text = b"a text in which some letters come often and others never, ".repeat(20);
    let worse = make(&noise(8, text.len()), &text, &[(0..text.len(), 0..text.len())]).unwrap();
    assert_eq!(method(&worse), Method::Patch);
}

#[test]
fn the_wrong_base_is_told_from_a_damaged_delta() {
    let (old, new) = (noise(1, 2000), noise(2, 2000));
    let delta = make(&old, &new, &[]).unwrap();
    assert!(matches!(apply(&new, &delta, LIMITS), Err(Error::OtherBase { .. })));
    assert!(matches!(apply(&old, b"EWD2", LIMITS), Err(Error::Form(_))));
    assert!(matches!(apply(&old, &[], LIMITS), Err(Error::Form(_))));
}

#[test]
fn files_over_the_limits_are_refused_before_anything_is_allocated() {
    let (old, new) = (noise(1, 2000), vec![0; 1 << 20]);
    let delta = make(&old, &new, &[]).unwrap();
    let small = Limits { new_bytes_max: new.len() as u64 - 1, ..LIMITS };
    assert!(matches!(apply(&old, &delta, small), Err(Error::TooLarge { what: "new", .. })));
    let small = Limits { old_bytes_max: 1999, ..LIMITS };
    assert!(matches!(apply(&old, &delta, small), Err(Error::TooLarge { what: "old", .. })));
    // The header says less than the frame holds: a bomb.
    let mut bomb = delta.clone();
    bomb[77..85].copy_from_slice(&10u64.to_le_bytes());
    assert!(matches!(apply(&old, &bomb, LIMITS), Err(Error::Length { expected_bytes: 10, .. })));
    let mut huge = delta;
    huge[77..85].copy_from_slice(&u64::MAX.to_le_bytes());
    let any = Limits { old_bytes_max: u64::MAX, new_bytes_max: u64::MAX };
    assert!(apply(&old, &huge, any).is_err());
}

/// A delta by hand: instructions that nobody honest would write, with sections that are in order.
fn by_hand(old: &[u8], new: &[u8], instructions: &[(u8, u64, u64)], residuals: usize) -> Vec<u8> {
    let header = Header {
        method: Method::Diff,
        old: Digest::of(old),
        new: Digest::of(new),
        old_bytes: old.len() as u64,
        new_bytes: new.len() as u64,
    };
    let mut delta = Vec::new();
    header.write(&mut delta);
    let written: Vec<u8> = instructions
        .iter()
        .flat_map(|(kind, length, from)| {
            [&[*kind][..], &length.to_le_bytes()[..], &from.to_le_bytes()[..]].concat()
        })
        .collect();
    let sections = [(written, &[][..]), (vec![0; residuals], &[]), (vec![1; new.len() - residuals], old)];
    let frames: Vec<(usize, Vec<u8>)> =
        sections.iter().map(|(raw, prefix)| (raw.len(), frame::compress(raw, prefix).unwrap())).collect();
    for (raw, frame) in &frames {
        delta.extend_from_slice(&(*raw as u64).to_le_bytes());
        delta.extend_from_slice(&(frame.len() as u64).to_le_bytes());
    }
    frames.into_iter().for_each(|(_, frame)| delta.extend_from_slice(&frame));
    delta
}

#[test]
fn hostile_instructions_are_refused_each_for_its_own_reason() {
    let (old, new) = ([5u8; 20], [[5u8; 10], [1; 10]].concat());
    let good = by_hand(&old, &new, &[(0, 10, 3), (1, 10, 0)], 10);
    assert_eq!(apply(&old, &good, LIMITS).unwrap(), new);
    // Ranges of the old file may overlap: they are only read.
    let twice = by_hand(&old, &new, &[(0, 5, 3), (0, 5, 3), (1, 10, 0)], 10);
    assert_eq!(apply(&old, &twice, LIMITS).unwrap(), new);
    for (instructions, expected) in [
        (&[(0, 10, 11), (1, 10, 0)][..], "past the end of the old file"),
        (&[(0, 10, u64::MAX - 4), (1, 10, 0)], "past the end of the old file"),
        (&[(0, u64::MAX, 0)], "past the end of the new file"),
        (&[(1, 10, 0), (1, 1, 0)], "past the end of the literals"),
        (&[(0, 10, 0), (0, 1, 0)], "past the end of the residuals"),
        (&[(0, 10, 3), (1, 10, 0), (1, 1, 0)], "past the end of the new file"),
        (&[(0, 10, 3), (1, 9, 0)], "gives 19 bytes"),
        (&[(1, 10, 3)], "not known"),
        (&[(7, 10, 0)], "not known"),
    ] {
        let error = apply(&old, &by_hand(&old, &new, instructions, 10), LIMITS).unwrap_err().to_string();
        assert!(error.contains(expected), "{instructions:?}: {error}");
    }
    let longer = [good.clone(), vec![0]].concat();
    assert!(apply(&old, &longer, LIMITS).unwrap_err().to_string().contains("bytes after its end"));
    let many = vec![(1u8, 0u64, 0u64); INSTRUCTIONS_MAX + 1];
    assert!(matches!(apply(&old, &by_hand(&old, &new, &many, 10), LIMITS), Err(Error::Form(_))));
}

#[test]
fn sections_whose_sizes_wrap_around_are_refused() {
    let (old, new) = ([5u8; 20], [[5u8; 10], [1; 10]].concat());
    let good = by_hand(&old, &new, &[(0, 10, 3), (1, 10, 0)], 10);
    for at in 0..6 {
        for value in [u64::MAX, u64::MAX - 9, 1 << 40, 0] {
            let mut bad = good.clone();
            let place = HEADER_BYTES + at * 8;
            bad[place..place + 8].copy_from_slice(&value.to_le_bytes());
            assert!(apply(&old, &bad, LIMITS).is_err(), "size {at} as {value}");
        }
    }
}

fn files() -> impl Strategy<Value = (Vec<u8>, Vec<u8>, Vec<Region>)> {
    let edit = (any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..40), 0usize..40);
    (prop::collection::vec(0u8..8, 0..2000), prop::collection::vec(edit, 0..6)).prop_flat_map(
        |(old, edits)| {
            let mut new = old.clone();
            for (at, inserted, removed) in edits {
                let at = at.index(new.len() + 1);
                let end = new.len().min(at + removed);
                new.splice(at..end, inserted);
            }
            let length = old.len().min(new.len());
            let region = (0..=length, 0..=length, 0..=length).prop_map(|(from, to, length)| {
                let range = |start: usize| -> Range<usize> { start..start + length };
                (range(from), range(to))
            });
            (Just(old), Just(new), prop::collection::vec(region, 0..4))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_applied_is_the_new_file((old, new, regions) in files()) {
        let delta = make(&old, &new, &regions).unwrap();
        prop_assert_eq!(apply(&old, &delta, LIMITS).unwrap(), new);
    }

    #[test]
    fn a_flipped_bit_or_a_cut_gives_an_error_or_the_right_file(
        (old, new, regions) in files(),
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
        cut in any::<prop::sample::Index>(),
    ) {
        let delta = make(&old, &new, &regions).unwrap();
        let mut flipped = delta.clone();
        flipped[at.index(delta.len())] ^= 1 << bit;
        if let Ok(got) = apply(&old, &flipped, LIMITS) {
            prop_assert_eq!(got, new);
        }
        prop_assert!(apply(&old, &delta[..cut.index(delta.len())], LIMITS).is_err());
    }

    #[test]
    fn bytes_that_are_no_model_have_no_regions_past_their_end(old: Vec<u8>, at in any::<prop::sample::Index>(), byte: u8) {
        onnx::regions(&old, &old);
        let mut new = model(&[("a", &[1; 100]), ("b", &[2; 300])]);
        let place = at.index(new.len());
        new[place] = byte;
        for (from, to) in onnx::regions(&model(&[("a", &[3; 100]), ("b", &[4; 300])]), &new) {
            prop_assert!(from.len() == to.len() && new.get(to).is_some());
        }
    }
}
