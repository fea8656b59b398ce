//! Which operations of an update get which fault.

use crate::powercut::{Fault, Operation, Record};
use std::collections::BTreeMap;

/// A fault at one operation of an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    pub fault: Fault,
    /// The operation, counted from 1.
    pub at: u64,
}

/// Calls that only a write that is cut short tells from a power cut before them.
const WRITES: [&str; 2] = ["write", "pwrite64"];
/// Calls that a full disk does not touch.
const FREEING: [&str; 4] = ["unlink", "unlinkat", "rmdir", "msync"];
/// Of six points so many have the power go before an operation; each other fault has one.
const KILLS: usize = 3;
const SHARES: usize = KILLS + Fault::ALL.len() - 1;

/// Every fault at every operation of `life` that can have it.
pub fn all(life: &Record) -> Vec<Point> {
    Fault::ALL.into_iter().flat_map(|fault| points(fault, &eligible(fault, life))).collect()
}

/// About `count` of [`all`]: no more of one call than of another while that other has some left, and those of one
/// call spread over the whole life.
pub fn sample(life: &Record, count: usize) -> Vec<Point> {
    let mut chosen = Vec::new();
    for fault in Fault::ALL {
        let share = if fault == Fault::Kill { count * KILLS } else { count };
        let mut groups: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for at in eligible(fault, life) {
            groups.entry(call(life, at)).or_default().push(at);
        }
        let mut numbers = spread(groups.into_values().collect(), share.div_ceil(SHARES));
        numbers.sort_unstable();
        chosen.extend(points(fault, &numbers));
    }
    chosen
}

fn points(fault: Fault, numbers: &[u64]) -> Vec<Point> {
    numbers.iter().map(|&at| Point { fault, at }).collect()
}

fn call(life: &Record, at: u64) -> &str {
    operation(life, at).map_or("", |operation| operation.call.as_str())
}

/// Operation `at` of a life, counted from 1.
pub fn operation(life: &Record, at: u64) -> Option<&Operation> {
    life.operations.get(usize::try_from(at.checked_sub(1)?).ok()?)
}

fn eligible(fault: Fault, life: &Record) -> Vec<u64> {
    let fits = |call: &str| match fault {
        Fault::Kill => true,
        Fault::Torn => WRITES.contains(&call),
        Fault::FullOnce | Fault::FullOn => !FREEING.contains(&call),
    };
    (1..=life.operations.len() as u64).filter(|&at| fits(call(life, at))).collect()
}

/// At most `count` numbers out of all groups, small groups whole.
fn spread(mut groups: Vec<Vec<u64>>, count: usize) -> Vec<u64> {
    groups.sort_by_key(Vec::len);
    let mut left = count;
    let mut chosen = Vec::new();
    let total = groups.len();
    for (index, group) in groups.into_iter().enumerate() {
        let quota = (left / (total - index)).min(group.len());
        // The middle of each of `quota` equal parts.
        chosen.extend((0..quota).map(|part| group[(2 * part + 1) * group.len() / (2 * quota)]));
        left -= quota;
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(calls: &[(&str, usize)]) -> Record {
        let operation = |call: &str| Operation {
            call: call.to_owned(),
            path: "x".to_owned(),
            size_bytes: 0,
            offset: None,
            refused: false,
        };
        let operations =
            calls.iter().flat_map(|&(call, count)| std::iter::repeat_n(operation(call), count)).collect();
        Record { process: 1, operations }
    }

    #[test]
    fn all_is_every_operation_with_every_fault_that_it_can_have() {
        let all = all(&life(&[("pwrite64", 3), ("fsync", 2), ("unlink", 1)]));
        let of =
            |fault: Fault| all.iter().filter(|point| point.fault == fault).map(|point| point.at).collect();
        let expected: [(Fault, Vec<u64>); 4] = [
            (Fault::Kill, vec![1, 2, 3, 4, 5, 6]),
            (Fault::Torn, vec![1, 2, 3]),
            (Fault::FullOnce, vec![1, 2, 3, 4, 5]),
            (Fault::FullOn, vec![1, 2, 3, 4, 5]),
        ];
        for (fault, numbers) in expected {
            let found: Vec<u64> = of(fault);
            assert_eq!(found, numbers, "{fault:?}");
        }
    }

    #[test]
    fn a_sample_has_every_rare_call_and_spreads_over_the_common_ones() {
        let life = life(&[("rename", 3), ("pwrite64", 500), ("fsync", 200), ("unlink", 2)]);
        let sample = sample(&life, 120);
        assert!((100..=124).contains(&sample.len()), "{}", sample.len());
        let kills: Vec<u64> =
            sample.iter().filter(|point| point.fault == Fault::Kill).map(|point| point.at).collect();
        for rare in [1, 2, 3, 704, 705] {
            assert!(kills.contains(&rare), "{rare} is not in {kills:?}");
        }
        let writes = kills.iter().filter(|&&at| (4..=503).contains(&at)).count();
        assert!((25..=30).contains(&writes), "{writes} of 500 writes");
        assert!(kills.iter().any(|&at| at < 30) && kills.iter().any(|&at| (480..=503).contains(&at)));
        assert!(sample.iter().all(|point| point.at >= 1 && point.at <= 705));
        let mut once = sample.iter().map(|point| (point.fault, point.at)).collect::<Vec<_>>();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), sample.len(), "a point is there twice");
    }

    #[test]
    fn a_sample_of_more_than_there_is_is_all() {
        let life = life(&[("rename", 3), ("pwrite64", 5)]);
        let mut all: Vec<_> = all(&life).iter().map(|point| (point.fault, point.at)).collect();
        let mut sample: Vec<_> = sample(&life, 1000).iter().map(|point| (point.fault, point.at)).collect();
        all.sort_unstable();
        sample.sort_unstable();
        assert_eq!(sample, all);
    }
}
