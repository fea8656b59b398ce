//! How loaded this machine is.

use control_core::scheduling::Load;
use std::{
    fs,
    time::{Duration, Instant},
};

/// A shorter measurement says little.
const PERIOD_MIN: Duration = Duration::from_secs(2);

/// Measures from one look to the next.
#[derive(Debug, Default)]
pub(super) struct Meter {
    last: Option<(Times, Instant)>,
}

/// Processor time since the start of the machine, in ticks of all processors together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    all: u64,
    idle: u64,
}

impl Meter {
    /// The load since [`Self::restart`], or since the last look that gave one; none where that is not long ago, or where
    /// the system does not say.
    pub(super) fn look(&mut self) -> Option<Load> {
        let times = times_of(&fs::read_to_string("/proc/stat").ok()?)?;
        let memory = memory_of(&fs::read_to_string("/proc/meminfo").ok()?)?;
        let (before, at) = *self.last.get_or_insert((times, Instant::now()));
        if at.elapsed() < PERIOD_MIN {
            return None;
        }
        self.last = Some((times, Instant::now()));
        let all = times.all.saturating_sub(before.all).max(1);
        let busy = 1.0 - times.idle.saturating_sub(before.idle) as f64 / all as f64;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Some(Load { busy: busy.clamp(0.0, 1.0), memory, cores })
    }

    /// What was measured is out of date: a job has started.
    pub(super) fn restart(&mut self) {
        self.last = None;
    }
}

/// The first line of `/proc/stat`; waiting for a disk is idle.
fn times_of(stat: &str) -> Option<Times> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    // user nice system idle iowait irq softirq steal; what guests take is in user already.
    let fields: Vec<u64> = line.split_whitespace().take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    let idle = fields.get(3)?.saturating_add(*fields.get(4)?);
    Some(Times { all: fields.iter().fold(0u64, |sum, field| sum.saturating_add(*field)), idle })
}

/// Share of the memory that is in use.
fn memory_of(meminfo: &str) -> Option<f64> {
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').trim().strip_suffix("kB")?.trim().parse::<f64>().ok()
    };
    let (total, available) = (field("MemTotal")?, field("MemAvailable")?);
    (total > 0.0).then(|| (1.0 - available / total).clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_says() {
        let stat = "cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1 2 3\n";
        assert_eq!(times_of(stat), Some(Times { all: 1000, idle: 850 }));
        assert_eq!(times_of("intr 1\n"), None);
        let memory = memory_of("MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:   250 kB\n");
        assert_eq!(memory, Some(0.75));
        assert_eq!(memory_of("MemTotal: 1000 kB\n"), None);
    }

    #[test]
    fn a_first_look_and_one_right_after_a_start_measure_nothing() {
        let mut meter = Meter::default();
        assert_eq!(meter.look(), None);
        meter.restart();
        assert_eq!(meter.look(), None);
    }
}
