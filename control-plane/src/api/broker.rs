//! What a broker needs that is not the server's own.

use super::{
    operation::{Routes, get, post},
    problem::{Body, Problem},
};
use crate::app::{
    App,
    external::{BrokerCertificate, NewBrokerCertificate, RevocationLists},
};
use axum::{Json, extract::State, http::StatusCode};
use std::sync::Arc;

pub(super) fn routes() -> Routes {
    Routes::of("Broker")
        .add(
            post(
                "/broker/certificate",
                "create_broker_certificate",
                "Signs the certificate of a broker elsewhere",
            )
            .creates()
            .takes::<NewBrokerCertificate>()
            .gives::<BrokerCertificate>(),
            certificate,
        )
        .add(
            get("/broker/crl", "show_revocation_lists", "The lists of revoked certificates")
                .gives::<RevocationLists>(),
            lists,
        )
}

async fn certificate(
    State(app): State<Arc<App>>,
    Body(new): Body<NewBrokerCertificate>,
) -> Result<(StatusCode, Json<BrokerCertificate>), Problem> {
    Ok((StatusCode::CREATED, Json(app.broker_certificate(new).await?)))
}

async fn lists(State(app): State<Arc<App>>) -> Result<Json<RevocationLists>, Problem> {
    Ok(Json(app.revocation_lists().await?))
}
