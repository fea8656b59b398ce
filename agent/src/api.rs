//! The local API: the Open Inference Protocol v2 over HTTP, `/metrics` and `/status`.
//!
//! A request is parsed, run and answered on the thread that took it while inference is short; a longer one moves
//! the thread's other work elsewhere first. At most `threads` inferences run at once, `queue_max` wait, and more
//! are refused with 503.

mod error;
mod feedback;
mod infer;
mod metadata;
mod metrics;
mod protocol;
mod serve;
mod status;
pub use status::Status;

pub use error::ApiError;
pub use serve::{Bound, Error, bind};

use crate::{models::Models, store::Store, updater};
use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{get, post},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};
use tokio::sync::{Semaphore, SemaphorePermit};

/// What the handlers work with.
#[derive(Debug)]
pub struct Api {
    pub models: Arc<Models>,
    pub store: Arc<Store>,
    pub updater: Arc<updater::Shared>,
    pub started: Instant,
    pub body_bytes_max: usize,
    pub runtimes: Vec<&'static str>,
    /// Milliseconds from the start of the process until the first model answered; zero before.
    pub start_to_ready_ms: AtomicU64,
    gate: Gate,
}

/// Bounds the inferences that run and wait.
#[derive(Debug)]
struct Gate {
    permits: Semaphore,
    waiting: AtomicUsize,
    queue_max: usize,
    shed: AtomicU64,
}

impl Api {
    /// State for a router with at most `threads` inferences at once and `queue_max` waiting.
    pub fn new(
        models: Arc<Models>,
        store: Arc<Store>,
        updater: Arc<updater::Shared>,
        limits: Limits,
        runtimes: Vec<&'static str>,
        started: Instant,
    ) -> Self {
        Self {
            models,
            store,
            updater,
            started,
            body_bytes_max: limits.body_bytes_max,
            runtimes,
            start_to_ready_ms: AtomicU64::new(0),
            gate: Gate {
                permits: Semaphore::new(limits.threads),
                waiting: AtomicUsize::new(0),
                queue_max: limits.queue_max,
                shed: AtomicU64::new(0),
            },
        }
    }
}

/// The API's bounds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub threads: usize,
    pub queue_max: usize,
    pub body_bytes_max: usize,
}

impl Gate {
    /// A place to run, at once or after waiting in the bounded queue.
    async fn enter(&self) -> Result<SemaphorePermit<'_>, ApiError> {
        if let Ok(permit) = self.permits.try_acquire() {
            return Ok(permit);
        }
        let place = Waiting::enter(&self.waiting);
        if place.before >= self.queue_max {
            self.shed.fetch_add(1, Ordering::Relaxed);
            return Err(ApiError::Overloaded);
        }
        self.permits.acquire().await.map_err(|_| ApiError::Overloaded)
    }
}

/// A place in the queue, given back also when the client goes away.
struct Waiting<'a> {
    count: &'a AtomicUsize,
    before: usize,
}

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize) -> Self {
        Self { count, before: count.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All routes.
pub fn router(api: Arc<Api>) -> Router {
    let limit = DefaultBodyLimit::max(api.body_bytes_max);
    Router::new()
        .route("/v2", get(metadata::server))
        .route("/v2/health/live", get(metadata::live))
        .route("/v2/health/ready", get(metadata::ready))
        .route("/v2/repository/index", post(metadata::index))
        .route("/v2/models/stats", get(metadata::all_statistics))
        .route("/v2/models/{model}", get(metadata::model))
        .route("/v2/models/{model}/ready", get(metadata::model_ready))
        .route("/v2/models/{model}/stats", get(metadata::statistics))
        .route("/v2/models/{model}/infer", post(infer::infer))
        .route("/v2/models/{model}/feedback", post(feedback::feedback))
        .route("/v2/models/{model}/versions/{version}", get(metadata::version))
        .route("/v2/models/{model}/versions/{version}/ready", get(metadata::version_ready))
        .route("/v2/models/{model}/versions/{version}/stats", get(metadata::version_statistics))
        .route("/v2/models/{model}/versions/{version}/infer", post(infer::infer_version))
        .route("/metrics", get(metrics::metrics))
        .route("/status", get(status::status))
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(limit)
        .with_state(api)
}

#[cfg(test)]
mod tests;
