//! Which runtime a model is run on: the fastest of those that give the golden outputs.

use crate::{Error, Golden, LoadOptions, Runnable, Runtime};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Runs before the clock starts.
const WARM_UP: usize = 10;
/// Most runs that are timed.
const RUNS: usize = 201;
/// Longest that one measurement takes; slow models get fewer runs, at least [`RUNS_MIN`].
const MEASURE_LIMIT: Duration = Duration::from_millis(400);
const RUNS_MIN: usize = 5;

/// How one runtime did.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub runtime: &'static str,
    /// Microseconds of one inference where it is right, else why it is not.
    pub result: Result<f64, String>,
    /// The runtime took the model in, whatever it answered then.
    pub loaded: bool,
}

/// A runtime to be tried.
pub type Candidate<'a> = &'a dyn Runtime;

/// The runtime that was chosen, and how each did.
#[derive(Debug)]
pub struct Choice {
    /// `None` where none is right.
    pub model: Option<Arc<dyn Runnable>>,
    pub verdicts: Vec<Verdict>,
}

/// Loads `model` on every candidate, checks the golden outputs, times what is right, and keeps the fastest.
pub fn choose(
    candidates: &[Candidate<'_>],
    model: &[u8],
    golden: &Golden,
    tolerance: f32,
    options: &LoadOptions,
) -> Choice {
    let mut best: Option<(f64, Arc<dyn Runnable>)> = None;
    let mut verdicts = Vec::new();
    for candidate in candidates {
        let verdict = |loaded, result| Verdict { runtime: candidate.name(), result, loaded };
        let runnable = match candidate.load(model, options) {
            Ok(runnable) => runnable,
            Err(error) => {
                verdicts.push(verdict(false, Err(error.to_string())));
                continue;
            }
        };
        let measured = golden
            .check(runnable.as_ref(), tolerance)
            .map_err(|mismatch| mismatch.to_string())
            .and_then(|_| measure_us(runnable.as_ref(), golden.input()).map_err(|error| error.to_string()));
        if let Ok(us) = measured
            && best.as_ref().is_none_or(|(least, _)| us < *least)
        {
            best = Some((us, runnable));
        }
        verdicts.push(verdict(true, measured));
    }
    Choice { model: best.map(|(_, model)| model), verdicts }
}

/// Median microseconds of one inference of one sample, taking the samples in `inputs` in turn, after a warm-up.
pub fn measure_us(model: &dyn Runnable, inputs: &[f32]) -> Result<f64, Error> {
    Ok(measure_spread(model, inputs, MEASURE_LIMIT)?.median_us)
}

/// What a measurement saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median_us: f64,
    /// A quarter of the runs took less.
    pub low_us: f64,
    /// A quarter of the runs took more.
    pub high_us: f64,
    pub runs: usize,
}

/// As [`measure_us`] for at most about `limit`, and as long before that to warm up; with what the runs differed by.
pub fn measure_spread(model: &dyn Runnable, inputs: &[f32], limit: Duration) -> Result<Spread, Error> {
    let each = model.input().elements();
    let mut output = Vec::with_capacity(model.output().elements());
    let mut samples = inputs.chunks_exact(each).cycle();
    let mut run = || match samples.next() {
        Some(sample) => model.run_into(sample, 1, &mut output),
        None => Err(Error::Input { got: inputs.len(), batch: 1, each, expected: each }),
    };
    let start = Instant::now();
    for _ in 0..WARM_UP {
        run()?;
        if start.elapsed() > limit {
            break;
        }
    }
    let start = Instant::now();
    let mut times = Vec::with_capacity(RUNS);
    while times.len() < RUNS && (times.len() < RUNS_MIN || start.elapsed() < limit) {
        let before = Instant::now();
        run()?;
        times.push(before.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    let at = |quarter: usize| times[(times.len() * quarter / 4).min(times.len() - 1)];
    Ok(Spread { median_us: times[times.len() / 2], low_us: at(1), high_us: at(3), runs: times.len() })
}
