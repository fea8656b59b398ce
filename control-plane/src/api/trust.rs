//! Trust metadata: what is in force, and what offline keys have signed.

use super::problem::{Body, Problem};
use crate::app::{
    App,
    trust::{Metadata, NewMetadata, TrustStatus},
};
use axum::{Json, Router, extract::State, routing::get};
use std::sync::Arc;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/trust", get(status)).route("/trust/metadata", get(metadata).post(accept))
}

async fn status(State(app): State<Arc<App>>) -> Result<Json<TrustStatus>, Problem> {
    Ok(Json(app.trust_status().await?))
}

async fn metadata(State(app): State<Arc<App>>) -> Result<Json<Metadata>, Problem> {
    Ok(Json(app.trust_metadata().await?))
}

async fn accept(
    State(app): State<Arc<App>>,
    Body(new): Body<NewMetadata>,
) -> Result<Json<TrustStatus>, Problem> {
    Ok(Json(app.accept_trust(new).await?))
}
