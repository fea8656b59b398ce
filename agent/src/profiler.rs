//! A thread of low priority that measures workloads for a latency profile, one at a time, on each runtime and in each
//! form.

use crate::{engine::Engine, installer::lower_priority};
use agent_core::profile::Task;
use runtime::{LoadOptions, Runtime, measure_spread, workload};
use shared::{
    board::RuntimeName,
    limits,
    profile::{Form, Measured, Processor, Timing, Workload},
    wire::cut_to,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// Tasks that wait for the thread. One is under way at a time; more only where a newer request takes over.
const TASKS_MAX: usize = 4;
/// For about so long one model is timed.
const MEASURE_LIMIT: Duration = Duration::from_millis(30);

/// What the thread works with.
#[derive(Debug)]
pub struct Profiler {
    pub engine: Arc<Engine>,
}

/// What came of a task.
#[derive(Debug)]
pub struct Outcome {
    pub generation: u64,
    pub measured: Vec<Measured>,
    pub took_ms: u64,
}

impl Profiler {
    /// Starts the thread; it ends when nobody gives it tasks any more.
    pub fn start(self) -> std::io::Result<(mpsc::Sender<Task>, mpsc::Receiver<Outcome>)> {
        let (sender, mut tasks) = mpsc::channel::<Task>(TASKS_MAX);
        let (outcomes, receiver) = mpsc::channel(TASKS_MAX);
        thread::Builder::new().name("profiler".to_owned()).spawn(move || {
            lower_priority();
            while let Some(task) = tasks.blocking_recv() {
                let start = Instant::now();
                let measured = self.measure(&task);
                let took_ms = crate::clock::elapsed_ms(start);
                let outcome = Outcome { generation: task.generation, measured, took_ms };
                if outcomes.blocking_send(outcome).is_err() {
                    return;
                }
            }
        })?;
        Ok((sender, receiver))
    }

    fn measure(&self, task: &Task) -> Vec<Measured> {
        let mut measured = Vec::new();
        for form in [Form::Fp32, Form::Int8] {
            for runtime in self.engine.runtimes() {
                let Some(name) = name_of(runtime) else { continue };
                let time = || time(runtime, &task.workload, form, self.engine.threads());
                // A model that makes a library panic is one that does not run here.
                let timed =
                    catch_unwind(AssertUnwindSafe(time)).unwrap_or_else(|_| Err("it panicked".to_owned()));
                let failed = |reason: String| Timing::Failed {
                    reason: cut_to(&reason, limits::PROFILE_REASON_BYTES_MAX),
                };
                let result = timed.unwrap_or_else(failed);
                measured.push(Measured { workload: task.index, runtime: name, form, result });
            }
        }
        measured
    }
}

fn name_of(runtime: &dyn Runtime) -> Option<RuntimeName> {
    [RuntimeName::Tract, RuntimeName::OnnxRuntime].into_iter().find(|name| name.to_string() == runtime.name())
}

fn time(runtime: &dyn Runtime, load: &Workload, form: Form, threads: usize) -> Result<Timing, String> {
    let model = workload::write(load, form)?;
    let options = LoadOptions { threads, sessions: 1, samples: 1 };
    let model = runtime.load(&model, &options).map_err(|error| crate::chain(&error))?;
    let spread = measure_spread(model.as_ref(), &workload::input(load), MEASURE_LIMIT)
        .map_err(|error| crate::chain(&error))?;
    // At least one: a clock may be coarser than a model is slow.
    let ns = |us: f64| ((us * 1000.0) as u64).max(1);
    Ok(Timing::Took {
        median_ns: ns(spread.median_us),
        low_ns: ns(spread.low_us),
        high_ns: ns(spread.high_us),
        runs: u32::try_from(spread.runs).unwrap_or(u32::MAX),
    })
}

/// The processor, as far as the system tells.
pub fn processor() -> Processor {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let of_cpu = read("/proc/cpuinfo").and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    let name = of_cpu.or_else(|| read("/proc/device-tree/model"));
    let name = name.map(|name| name.replace(char::is_control, "")).filter(|name| !name.is_empty());
    let load = read("/proc/loadavg").and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    Processor {
        architecture: std::env::consts::ARCH.to_owned(),
        name: name.map(|name| cut_to(&name, limits::PROCESSOR_BYTES_MAX)),
        cores: thread::available_parallelism()
            .map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX)),
        load_permille: load.map(|load| (load * 1000.0) as u32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::profile::Step;

    #[test]
    fn a_workload_is_timed_in_both_forms_and_one_beyond_the_limits_says_why_not() {
        let engine = Arc::new(Engine::open(&[RuntimeName::Tract], None).unwrap());
        let profiler = Profiler { engine };
        let conv = |channels| Step::Conv { channels, kernel: 3, stride: 1, groups: 1, relu: true };
        let task = |channels| Task {
            generation: 1,
            index: 7,
            workload: Workload { input: vec![4, 6, 6], steps: vec![conv(channels)] },
        };
        let measured = profiler.measure(&task(4));
        assert_eq!(measured.iter().map(|one| one.form).collect::<Vec<_>>(), [Form::Fp32, Form::Int8]);
        assert!(measured.iter().all(|one| one.workload == 7 && one.runtime == RuntimeName::Tract));
        let timed = |one: &Measured| matches!(one.result, Timing::Took { median_ns: 1.., runs: 5.., .. });
        assert!(measured.iter().all(timed), "{measured:?}");
        let refused = profiler.measure(&task(1_000_000));
        let says = |one: &Measured| matches!(&one.result, Timing::Failed { reason } if reason.contains("channels is 1000000"));
        assert!(refused.iter().all(says), "{refused:?}");
    }

    #[test]
    fn the_processor_is_described_within_limits() {
        let found = processor();
        assert!(found.cores >= 1 && !found.architecture.is_empty());
        assert!(found.name.is_none_or(|name| name.len() <= limits::PROCESSOR_BYTES_MAX));
    }
}
