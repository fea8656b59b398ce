//! The HTTP API under `/api/v1`, one file for each resource. It knows the application and nothing below it.

mod asked;
mod audit;
mod auth;
mod authorities;
mod boards;
mod broker;
mod datasets;
mod devices;
mod document;
mod est;
mod feedback;
mod gate;
mod groups;
mod headers;
mod health;
mod incidents;
mod jobs;
mod metrics;
mod models;
mod operation;
mod overview;
mod own;
mod paging;
mod peer;
mod problem;
mod retention;
mod rollouts;
mod session;
mod stream;
mod telemetry;
mod timing;
mod tokens;
mod trust;
mod users;

use crate::{app::App, page};
use anyhow::{Context, Result};
use axum::{Router, extract::DefaultBodyLimit, http::header, middleware};
use axum_server::{
    Handle,
    tls_rustls::{RustlsAcceptor, RustlsConfig},
};
use operation::{Routes, get};
use std::{net::SocketAddr, net::TcpListener, sync::Arc, time::Duration};

pub use auth::{COOKIE, set_cookie, token_of};
pub use document::openapi;
pub use models::Keys;
pub use paging::List;
pub use peer::Peer;
pub use problem::Problem;
pub(crate) use problem::no_such_page;
pub use rollouts::OfWave;

/// Largest body of a request but for uploads.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// A connection that says nothing is given up.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Where the API is.
const PREFIX: &str = "/api/v1";

/// All operations.
fn routes() -> Routes {
    Routes::of("Document")
        .add(
            get("/api/openapi.json", "openapi", "This document").at_root().gives::<serde_json::Value>(),
            || async { ([(header::CONTENT_TYPE, "application/json")], openapi()) },
        )
        .merge(session::routes())
        .merge(users::routes())
        .merge(tokens::routes())
        .merge(audit::routes())
        .merge(stream::routes())
        .merge(boards::routes())
        .merge(datasets::routes())
        .merge(jobs::routes())
        .merge(models::routes())
        .merge(devices::routes())
        .merge(authorities::routes())
        .merge(broker::routes())
        .merge(rollouts::routes())
        .merge(trust::routes())
        .merge(health::routes())
        .merge(feedback::routes())
        .merge(groups::routes())
        .merge(incidents::routes())
        .merge(overview::routes())
        .merge(retention::routes())
        .merge(telemetry::routes())
        .merge(metrics::routes())
        .merge(own::routes())
        .merge(est::routes())
}

/// The API's operations, and the page.
pub fn router(app: Arc<App>) -> Router {
    routes()
        .into_router(&app)
        .merge(page::routes())
        .fallback(page::fallback)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), timing::count))
        .layer(middleware::from_fn(headers::complete))
        .with_state(app)
}

/// The API while it serves.
#[derive(Debug)]
pub struct Serving {
    handle: Handle<SocketAddr>,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

/// Serves the API on `listener` over TLS.
pub async fn serve(app: Arc<App>, listener: TcpListener) -> Result<Serving> {
    let mut changes = app.tls_changes();
    let config = RustlsConfig::from_config(peer::tls(&app)?);
    let handle = Handle::new();
    let server = axum_server::from_tcp(listener)
        .context("the API's socket")?
        .acceptor(peer::Acceptor(RustlsAcceptor::new(config.clone())))
        .first_request_timeout(FIRST_REQUEST_TIMEOUT)
        .handle(handle.clone());
    tokio::spawn({
        let app = Arc::clone(&app);
        async move {
            loop {
                tokio::select! {
                    () = app.stopped() => return,
                    Ok(()) = changes.changed() => match peer::tls(&app) {
                        Ok(tls) => config.reload_from_config(tls),
                        Err(error) => tracing::error!("the API keeps its old certificate: {error:#}"),
                    },
                }
            }
        }
    });
    let task = tokio::spawn(server.serve(router(app).into_make_service_with_connect_info::<SocketAddr>()));
    Ok(Serving { handle, task })
}

impl Serving {
    /// Lets requests that are under way end, within `grace`.
    pub async fn stop(&mut self, grace: Duration) {
        self.handle.graceful_shutdown(Some(grace));
        if !self.task.is_finished() {
            // How it ended does not matter any more.
            let _ = (&mut self.task).await;
        }
    }

    /// Resolves when the API has ended by itself.
    pub async fn failed(&mut self) -> anyhow::Error {
        match (&mut self.task).await {
            Ok(Ok(())) => anyhow::anyhow!("the API has ended"),
            Ok(Err(error)) => anyhow::anyhow!("the API has ended: {error}"),
            Err(error) => anyhow::anyhow!("the API has broken off: {error}"),
        }
    }
}

#[cfg(test)]
mod tests;
