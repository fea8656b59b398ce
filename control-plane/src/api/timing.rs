//! How long requests take, for `/metrics`.

use crate::app::App;
use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use std::{sync::Arc, time::Instant};

/// Counts a request when it is answered; of a stream, when that begins.
pub(super) async fn count(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let (began, method) = (Instant::now(), request.method().clone());
    let response = next.run(request).await;
    app.count_request(method.as_str(), response.status().as_u16(), began.elapsed());
    response
}
