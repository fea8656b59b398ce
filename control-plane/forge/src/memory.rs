//! Memory: what is to be had, and the allocator's settings for training.

use std::fs;

/// Bytes above which glibc would map and unmap each allocation.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const THRESHOLD_BYTES: i32 = 1 << 30;

/// Keeps freed memory in the process. Every step allocates the same large activations again; mapping them anew makes
/// the kernel zero each page, which costs more than many of the operations on them.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn mallopt(param: i32, value: i32) -> i32;
        }
        const M_TRIM_THRESHOLD: i32 = -1;
        const M_TOP_PAD: i32 = -2;
        const M_MMAP_THRESHOLD: i32 = -3;
        // SAFETY: glibc's mallopt takes any two integers; it is called before threads that allocate exist.
        unsafe {
            mallopt(M_MMAP_THRESHOLD, THRESHOLD_BYTES);
            mallopt(M_TRIM_THRESHOLD, THRESHOLD_BYTES);
            mallopt(M_TOP_PAD, 64 << 20);
        }
    }
}

/// Of so many bytes that are to be had, one is for the samples of a data set: they lie in memory up to three times (as they
/// were read, as they are trained on, and all of them where only some have labels), and the training needs most of it.
const DATA_ONE_OF: u64 = 8;

/// Bytes of memory that the samples of a data set may take before they are read from a file instead. Where the system does
/// not say what there is, no limit.
pub fn for_data() -> u64 {
    available_bytes().map_or(u64::MAX, |bytes| bytes / DATA_ONE_OF)
}

/// Bytes that this process may still take: what the machine has left, or its control group (version 2 or 1) if that is
/// less. `None` where neither says.
pub fn available_bytes() -> Option<u64> {
    let read = |path: &str| fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo").as_deref().and_then(available_of);
    let group = |limit: &str, statistics: &str, used: &str| left_of(&read(limit)?, &read(statistics)?, used);
    [
        machine,
        group("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.stat", "anon"),
        group(
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.stat",
            "total_rss",
        ),
    ]
    .into_iter()
    .flatten()
    .min()
}

/// `MemAvailable` of `/proc/meminfo`.
fn available_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What a control group has left under its limit. Of its memory only `used` counts: the kernel gives up cached files.
fn left_of(limit: &str, statistics: &str, used: &str) -> Option<u64> {
    let limit: u64 = limit.trim().parse().ok()?;
    let used = statistics.lines().find_map(|line| line.strip_prefix(used)?.strip_prefix(' '))?;
    Some(limit.saturating_sub(used.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_machine_and_the_group_have_left() {
        let meminfo = "MemTotal:       8000000 kB\nMemFree:  1 kB\nMemAvailable:    4000 kB\n";
        assert_eq!(available_of(meminfo), Some(4_096_000));
        assert_eq!(available_of("MemTotal: 1 kB\n"), None);
        let statistics = "anon_thp 7\nanon 1000\nfile 500\n";
        assert_eq!(left_of("5000\n", statistics, "anon"), Some(4000));
        assert_eq!(left_of("500\n", statistics, "anon"), Some(0));
        assert_eq!(left_of("max\n", statistics, "anon"), None);
        assert!(available_bytes().is_none_or(|bytes| bytes > 0));
    }
}
