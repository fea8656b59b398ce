//! Requests that keep coming while something else happens.

use crate::harness::oip::Client;
use anyhow::{Context, Result};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// One request: when it was sent, how long it took, whether it was answered.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub sent: Instant,
    pub latency: Duration,
    pub ok: bool,
}

/// Threads that each send one request after another to one device, with a pause between.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Sample>>>,
}

/// Longest that a load runs, whatever happens to its owner.
const LOAD_LIMIT: Duration = Duration::from_secs(300);

/// As many senders as an agent on this machine answers at once, so that all its sessions are in use.
pub fn senders_per_device() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get).clamp(2, 16)
}

impl Load {
    /// Starts sending `inputs` in turn to `model`.
    pub fn start(
        client: Client,
        model: &str,
        shape: Vec<usize>,
        inputs: Arc<Vec<Vec<f32>>>,
        pause: Duration,
    ) -> Self {
        Self::start_many(1, &client, model, &shape, &inputs, pause)
    }

    /// The same from `senders` threads, each beginning at another input.
    pub fn start_many(
        senders: usize,
        client: &Client,
        model: &str,
        shape: &[usize],
        inputs: &Arc<Vec<Vec<f32>>>,
        pause: Duration,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sender = |index: usize| {
            let (stopping, inputs, client) = (Arc::clone(&stop), Arc::clone(inputs), client.clone());
            let (model, shape) = (model.to_owned(), shape.to_vec());
            std::thread::spawn(move || {
                let start = Instant::now();
                let mut samples = Vec::new();
                for input in inputs.iter().cycle().skip(index * inputs.len() / senders) {
                    if stopping.load(Ordering::Relaxed) || start.elapsed() > LOAD_LIMIT {
                        break;
                    }
                    let sent = Instant::now();
                    let ok = client.infer(&model, &shape, input).is_ok();
                    samples.push(Sample { sent, latency: sent.elapsed(), ok });
                    std::thread::sleep(pause);
                }
                samples
            })
        };
        let threads = (0..senders).map(sender).collect();
        Self { stop, threads }
    }

    /// Stops and gives every request that was sent.
    pub fn finish(self) -> Result<Vec<Sample>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut samples = Vec::new();
        for thread in self.threads {
            samples.extend(thread.join().ok().context("a load thread ended by itself")?);
        }
        Ok(samples)
    }
}

/// The `share` quantile (0 to 1) of the latencies in microseconds; zero of nothing.
pub fn quantile_us<'a>(samples: impl Iterator<Item = &'a Sample>, share: f64) -> u64 {
    let mut all: Vec<u128> = samples.map(|sample| sample.latency.as_micros()).collect();
    all.sort_unstable();
    if all.is_empty() {
        return 0;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let index = ((all.len() - 1) as f64 * share).round() as usize;
    u64::try_from(all[index]).unwrap_or(u64::MAX)
}
