//! `GET /status`: what the agent reports, and how it is.

use super::Api;
use crate::renewal::CertificateStatus;
use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use shared::wire::Reported;
use std::sync::{Arc, atomic::Ordering};

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    pub reported: Option<Reported>,
    pub connected: bool,
    pub runtimes: Vec<String>,
    /// From the start of the process until the first model answered; none before.
    pub start_to_ready_ms: Option<u64>,
    pub uptime_ms: u64,
    pub rss_bytes: Option<u64>,
    /// Why the database takes no writes; none while it does.
    #[serde(default)]
    pub store_trouble: Option<String>,
    /// How the device's certificate stands; none before that is known.
    #[serde(default)]
    pub certificate: Option<CertificateStatus>,
    pub outbox_records: u64,
    pub outbox_stored_total: u64,
    pub outbox_dropped_total: u64,
}

pub(super) async fn status(State(api): State<Arc<Api>>) -> Json<Status> {
    let ready_ms = api.start_to_ready_ms.load(Ordering::Relaxed);
    Json(Status {
        reported: api.updater.reported(),
        connected: api.updater.connected(),
        runtimes: api.runtimes.iter().map(|&name| name.to_owned()).collect(),
        start_to_ready_ms: (ready_ms > 0).then_some(ready_ms),
        uptime_ms: u64::try_from(api.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        rss_bytes: crate::rss_bytes(),
        store_trouble: api.store.trouble(),
        certificate: api.updater.certificate(),
        outbox_records: api.store.depth().total(),
        outbox_stored_total: api.store.stored_total(),
        outbox_dropped_total: api.store.dropped_total(),
    })
}
