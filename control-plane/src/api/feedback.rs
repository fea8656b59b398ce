//! What users did, in windows of time.

use super::{
    asked::Asked,
    operation::{Routes, get},
    problem::{Problem, Query},
    telemetry::whose,
};
use crate::app::{App, telemetry::FeedbackWindow};
use axum::{Json, extract::State};
use control_core::rollup::Series;
use std::sync::Arc;

pub(super) fn routes() -> Routes {
    Routes::of("Feedback").add(
        whose(
            get("/feedback/windows", "query_feedback", "Shares of what users did, in windows of time")
                .required_query::<FeedbackWindow>(
                    "kind",
                    "Which share; conversions are in windows of five minutes",
                )
                .repeated_query::<String>("label", "Only devices with this label, as in `site=ulm`"),
        )
        .gives::<Series>(),
        windows,
    )
}

async fn windows(
    State(app): State<Arc<App>>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Json<Series>, Problem> {
    let mut asked = Asked::new(pairs)?;
    let kind = asked.needed_word::<FeedbackWindow>("kind", "ctr")?;
    Ok(Json(app.feedback_windows(kind, asked.rest()?).await?))
}
