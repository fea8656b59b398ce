//! The local API: the Open Inference Protocol v2 over HTTP, `/metrics` and `/status`.
//!
//! A request is parsed, run and answered on the thread that took it while inference is short; a longer one moves
//! the thread's other work elsewhere first. At most `threads` inferences run at once, bodies of at most
//! `bodies_bytes_max` are in memory, `queue_max` requests wait for either, and more are refused with 503.

mod body;
mod connections;
mod error;
mod feedback;
mod infer;
mod metadata;
mod metrics;
mod protocol;
mod serve;
mod status;
mod text;
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

/// Bounds what runs, what is in memory, and what waits for either.
#[derive(Debug)]
struct Gate {
    permits: Semaphore,
    /// For bodies, see [`body::places`].
    room: Semaphore,
    room_max: usize,
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
        let room_max = body::places(limits.bodies_bytes_max.max(limits.body_bytes_max));
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
                room: Semaphore::new(room_max),
                room_max,
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
    /// Of one request.
    pub body_bytes_max: usize,
    /// Of all requests together, at least `body_bytes_max`.
    pub bodies_bytes_max: usize,
}

impl Gate {
    /// A place to run, at once or after waiting in the bounded queue.
    async fn enter(&self) -> Result<SemaphorePermit<'_>, ApiError> {
        self.wait_for(&self.permits, 1).await
    }

    /// Room for a body of that many places.
    async fn room_for(&self, places: usize) -> Result<SemaphorePermit<'_>, ApiError> {
        self.wait_for(&self.room, places.min(self.room_max)).await
    }

    async fn wait_for<'s>(
        &self,
        semaphore: &'s Semaphore,
        permits: usize,
    ) -> Result<SemaphorePermit<'s>, ApiError> {
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        if let Ok(permit) = semaphore.try_acquire_many(permits) {
            return Ok(permit);
        }
        let place = Waiting::enter(&self.waiting);
        if place.before >= self.queue_max {
            self.shed.fetch_add(1, Ordering::Relaxed);
            return Err(ApiError::Overloaded);
        }
        semaphore.acquire_many(permits).await.map_err(|_| ApiError::Overloaded)
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
