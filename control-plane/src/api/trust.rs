//! Trust metadata: what is in force, and what offline keys have signed.

use super::{
    operation::{Routes, get, post},
    problem::{Body, Problem},
};
use crate::app::{
    App,
    trust::{Metadata, NewMetadata, TrustStatus},
};
use axum::{Json, extract::State, http::StatusCode};
use std::sync::Arc;

pub(super) fn routes() -> Routes {
    Routes::of("Trust")
        .add(get("/trust", "show_trust", "The state of the trust metadata").gives::<TrustStatus>(), status)
        .add(
            get("/trust/metadata", "show_trust_metadata", "The metadata in force").gives::<Metadata>(),
            metadata,
        )
        .add(
            post("/trust/metadata", "accept_trust_metadata", "Takes what offline keys have signed")
                .takes::<NewMetadata>()
                .gives::<TrustStatus>()
                .may(&[StatusCode::CONFLICT, StatusCode::NOT_FOUND]),
            accept,
        )
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
