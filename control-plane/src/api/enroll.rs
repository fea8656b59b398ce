//! Enrolment: the one resource that a stranger may use, with a one-time token in the body.

use super::problem::{Body, Problem};
use crate::app::{
    App,
    enrol::{EnrolRequest, Enrolled},
};
use axum::{
    Extension, Json, Router,
    extract::{ConnectInfo, State},
    routing::post,
};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/enroll", post(enrol))
}

async fn enrol(
    State(app): State<Arc<App>>,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    Body(request): Body<EnrolRequest>,
) -> Result<Json<Enrolled>, Problem> {
    // Without a socket, as in tests, all requests come from one place.
    let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |Extension(ConnectInfo(peer))| peer.ip());
    Ok(Json(app.enrol(request, peer).await?))
}
