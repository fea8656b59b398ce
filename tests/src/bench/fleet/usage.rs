//! What processes use, as the kernel counts it: processor seconds of a process, of its children, of its threads by name.

use anyhow::{Context, Result};
use serde::Serialize;
use std::{collections::BTreeMap, fs};

/// What the kernel counts processor time in (`USER_HZ`), on every machine that this runs on.
const TICKS_PER_S: f64 = 100.0;

/// Processor seconds of a process at a moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    pub cpu_s: f64,
    /// By the name of threads; numbers in names are left out, so that the workers of a pool are one.
    pub threads: BTreeMap<String, f64>,
}

/// The share of one processor that threads of a name took.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Share {
    pub thread: String,
    pub processors: f64,
}

impl Usage {
    /// Of a running process with those children that are alive.
    pub fn of(process: u32) -> Result<Self> {
        let mut usage = Self::of_one(process)?;
        for child in children(process) {
            // One that has ended meanwhile is not there any more.
            if let Ok(child) = Self::of_one(child) {
                usage.cpu_s += child.cpu_s;
                for (name, cpu_s) in child.threads {
                    *usage.threads.entry(name).or_default() += cpu_s;
                }
            }
        }
        Ok(usage)
    }

    /// Of this process, without its children.
    pub fn own() -> Result<Self> {
        Self::of_one(std::process::id())
    }

    fn of_one(process: u32) -> Result<Self> {
        let path = format!("/proc/{process}/stat");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let cpu_s = Stat::read(&text).with_context(|| format!("{path} reads otherwise than expected"))?.cpu_s;
        let mut threads: BTreeMap<String, f64> = BTreeMap::new();
        let tasks = format!("/proc/{process}/task");
        for task in fs::read_dir(&tasks).with_context(|| format!("reading {tasks}"))?.flatten() {
            let text = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            if let Some(stat) = Stat::read(&text) {
                *threads.entry(pool(&stat.name)).or_default() += stat.cpu_s;
            }
        }
        Ok(Self { cpu_s, threads })
    }

    /// What was used since `before`, as shares of one processor over `seconds`, the greatest first.
    pub fn shares_since(&self, before: &Self, seconds: f64) -> Vec<Share> {
        let mut shares: Vec<Share> = self
            .threads
            .iter()
            .map(|(name, cpu_s)| {
                let used_s = cpu_s - before.threads.get(name).copied().unwrap_or(0.0);
                Share { thread: name.clone(), processors: (used_s / seconds).max(0.0) }
            })
            .filter(|share| share.processors > 0.0)
            .collect();
        shares.sort_by(|one, other| other.processors.total_cmp(&one.processors));
        shares
    }
}

/// Of a line in `/proc/PID/stat` (proc(5)).
struct Stat {
    name: String,
    parent: u32,
    cpu_s: f64,
}

impl Stat {
    fn read(text: &str) -> Option<Self> {
        // A name may hold anything, also brackets: it ends with the last one.
        let (head, tail) = text.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        let fields: Vec<&str> = tail.split_whitespace().collect();
        let parent = fields.get(1)?.parse().ok()?;
        let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
        Some(Self { name: name.to_owned(), parent, cpu_s: (ticks(11)? + ticks(12)?) / TICKS_PER_S })
    }
}

fn children(process: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parent = |id: &u32| Some(Stat::read(&fs::read_to_string(format!("/proc/{id}/stat")).ok()?)?.parent);
    processes.filter(|id| parent(id) == Some(process)).collect()
}

/// The name of a thread without its number.
fn pool(name: &str) -> String {
    name.trim_end_matches(|letter: char| letter.is_ascii_digit() || "-_/#:".contains(letter)).to_owned()
}

/// What keeps more from being taken in: `used` are processors by each part, of `processors` that there are.
pub fn bottleneck(used: &[(&str, f64)], threads: &[Share], processors: usize) -> String {
    #[expect(clippy::cast_precision_loss)]
    let there = processors as f64;
    let all: f64 = used.iter().map(|(_, share)| share).sum();
    let parts: Vec<String> = used.iter().map(|(name, share)| format!("{name} {share:.2}")).collect();
    let parts = parts.join(", ");
    if all >= BUSY * there {
        return format!("the processor: {all:.2} of {processors} are used ({parts})");
    }
    match threads.iter().find(|share| (BUSY..=1.0 + (1.0 - BUSY)).contains(&share.processors)) {
        Some(share) => {
            format!("one thread: {} takes {:.2} of a processor ({parts})", share.thread, share.processors)
        }
        None => format!(
            "waiting, for the disk or for each other: {all:.2} of {processors} processors are used ({parts})"
        ),
    }
}

/// More than this share of what there is counts as all of it.
const BUSY: f64 = 0.9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernel_is_read_whatever_the_name_holds() {
        let stat = Stat::read("42 (tokio) rt-(0) S 7 1 1 0 -1 4194560 5 0 0 0 150 50 0 0 20 0 4 0").unwrap();
        assert_eq!((stat.name.as_str(), stat.parent, stat.cpu_s), ("tokio) rt-(0", 7, 2.0));
        assert!(Stat::read("42 (cut").is_none());
    }

    #[test]
    fn workers_of_a_pool_are_one_and_this_process_is_seen() {
        assert_eq!(
            (pool("sqlx-sqlite-worker-12"), pool("serve")),
            ("sqlx-sqlite-worker".into(), "serve".into())
        );
        let before = Usage::of(std::process::id()).unwrap();
        let began = std::time::Instant::now();
        let mut sum = 0u64;
        while began.elapsed().as_millis() < 60 {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(1));
        }
        let after = Usage::of(std::process::id()).unwrap();
        assert!(after.cpu_s > before.cpu_s, "{sum}");
        assert!(!after.shares_since(&before, 0.06).is_empty());
    }

    #[test]
    fn the_bottleneck_is_the_processor_a_thread_or_waiting() {
        let share = |thread: &str, processors| Share { thread: thread.to_owned(), processors };
        let named = |used, threads: &[Share]| bottleneck(&[("server", used), ("fleet", 0.5)], threads, 2);
        assert!(named(1.4, &[]).starts_with("the processor: 1.90 of 2"));
        assert!(named(1.0, &[share("writer", 0.97)]).starts_with("one thread: writer"));
        assert!(named(1.0, &[share("serve", 0.5)]).starts_with("waiting"));
    }
}
