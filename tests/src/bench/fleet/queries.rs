//! What a dashboard asks, at a low steady rate while other things go on.

use crate::fleet::api::Api;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Between two queries, of all kinds by turns.
const PERIOD: Duration = Duration::from_millis(100);
/// Queries that may be under way: a dashboard has several open.
const CLIENTS: usize = 4;

/// A kind of query.
#[derive(Clone, Debug)]
struct Kind {
    name: &'static str,
    path: String,
}

/// Milliseconds of each answer, by kind.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    taken_ms: BTreeMap<&'static str, Vec<f64>>,
    /// Those that were no success, with the first of them.
    pub failed: usize,
    pub failure: Option<String>,
}

/// What is told of one kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KindReport {
    pub query: &'static str,
    pub count: usize,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// Asks until it is ended.
#[derive(Debug)]
pub struct Queries {
    ending: Arc<AtomicBool>,
    answers: Arc<Mutex<Answers>>,
    asking: Vec<JoinHandle<()>>,
}

impl Queries {
    /// Asks the server behind `api`.
    pub fn begin(api: &Api) -> Self {
        let kinds = Arc::new(kinds(metric(api)));
        let (ending, answers) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let began = Instant::now();
        let asking = (0..CLIENTS)
            .map(|client| {
                let (api, kinds) = (api.clone(), Arc::clone(&kinds));
                let (ending, answers) = (Arc::clone(&ending), Arc::clone(&answers));
                std::thread::spawn(move || ask(client, &api, &kinds, began, &ending, &answers))
            })
            .collect();
        Self { ending, answers, asking }
    }

    /// Ends, and gives what was answered.
    pub fn end(mut self) -> Answers {
        self.stop();
        lock(&self.answers).clone()
    }

    fn stop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        for asking in self.asking.drain(..) {
            let _ = asking.join();
        }
    }
}

impl Drop for Queries {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Answers {
    /// The 99th percentile over all kinds; zero without an answer.
    pub fn p99_ms(&self) -> f64 {
        let mut all: Vec<f64> = self.taken_ms.values().flatten().copied().collect();
        quantile(&mut all, 0.99)
    }

    /// Each kind for itself.
    pub fn kinds(&self) -> Vec<KindReport> {
        let kinds = self.taken_ms.iter().map(|(&query, taken_ms)| {
            let mut taken_ms = taken_ms.clone();
            KindReport {
                query,
                count: taken_ms.len(),
                p50_ms: quantile(&mut taken_ms, 0.5),
                p99_ms: quantile(&mut taken_ms, 0.99),
            }
        });
        kinds.collect()
    }

    fn add(&mut self, kind: &Kind, taken: Duration, answer: anyhow::Result<(u16, usize)>) {
        let failure = match answer {
            Ok((200, _)) => {
                self.taken_ms.entry(kind.name).or_default().push(taken.as_secs_f64() * 1000.0);
                return;
            }
            Ok((status, _)) => format!("{} answered {status}", kind.path),
            Err(error) => format!("{error:#}"),
        };
        self.failed += 1;
        self.failure.get_or_insert(failure);
    }
}

/// The first metric that is there, or else the one that every agent sends.
fn metric(api: &Api) -> String {
    let metrics = api.get("/telemetry/metrics").unwrap_or_default();
    metrics["items"][0]["name"].as_str().unwrap_or("requests").to_owned()
}

fn kinds(metric: String) -> Vec<Kind> {
    let of = |name, path: &str| Kind { name, path: path.to_owned() };
    vec![
        of("overview", "/overview"),
        of("devices", "/devices?limit=100"),
        of("telemetry", &format!("/telemetry/query?metric={metric}&step=60s")),
    ]
}

/// Each client has its moments; one that comes late because the answer before was, counts from when it was due.
fn ask(
    client: usize,
    api: &Api,
    kinds: &[Kind],
    began: Instant,
    ending: &AtomicBool,
    answers: &Mutex<Answers>,
) {
    for turn in (client..).step_by(CLIENTS) {
        let due = began + PERIOD * u32::try_from(turn).unwrap_or(u32::MAX);
        while Instant::now() < due {
            if ending.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()).min(PERIOD));
        }
        if ending.load(Ordering::Relaxed) {
            return;
        }
        let kind = &kinds[turn % kinds.len()];
        let answer = api.fetch(&kind.path);
        lock(answers).add(kind, due.elapsed(), answer);
    }
}

fn lock(answers: &Mutex<Answers>) -> MutexGuard<'_, Answers> {
    answers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The value that a share `q` of all are at most; zero of none.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * q).ceil() as usize;
    values.get(rank.max(1) - 1).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_by_kind_and_failures_apart() {
        let mut answers = Answers::default();
        let kinds = kinds("requests".to_owned());
        for ms in 1..=100 {
            answers.add(&kinds[ms as usize % 2], Duration::from_millis(ms), Ok((200, 10)));
        }
        answers.add(&kinds[2], Duration::from_secs(9), Ok((503, 0)));
        answers.add(&kinds[2], Duration::from_secs(9), Err(anyhow::anyhow!("cut")));
        assert_eq!((answers.p99_ms(), answers.failed), (99.0, 2));
        let told = answers.kinds();
        assert_eq!(
            told.iter().map(|kind| (kind.query, kind.count)).collect::<Vec<_>>(),
            [("devices", 50), ("overview", 50)]
        );
        assert!(answers.failure.unwrap().contains("503"));
    }

    #[test]
    fn no_answer_has_the_quantile_zero_and_one_has_its_own() {
        assert_eq!(quantile(&mut [], 0.99), 0.0);
        assert_eq!(quantile(&mut [4.0], 0.5), 4.0);
        assert_eq!(quantile(&mut [3.0, 1.0, 2.0], 0.5), 2.0);
    }
}
