//! What devices measured, over time.

use super::{
    asked::Asked,
    operation::{Operation, Routes, get},
    paging::List,
    problem::{Problem, Query},
};
use crate::app::{App, versions::VersionName};
use axum::{Json, extract::State};
use control_core::rollup::{Aggregation, Metric, Series};
use shared::{DeviceId, SlotName};
use std::sync::Arc;

pub(super) fn routes() -> Routes {
    Routes::of("Telemetry")
        .add(
            get("/telemetry/metrics", "list_metrics", "What can be asked for").gives::<List<Metric>>(),
            metrics,
        )
        .add(
            whose(
                get("/telemetry/query", "query_telemetry", "A metric over time")
                    .required_query::<String>("metric", "One of `GET /telemetry/metrics`")
                    .query::<Aggregation>(
                        "aggregation",
                        "How the values of a point become one; `avg` of gauges, `sum` of counters",
                    )
                    .query::<String>("group_by", "What lines are of: `version`, `device` or `label:KEY`")
                    .repeated_query::<String>("label", "Only devices with this label, as in `site=ulm`"),
            )
            .gives::<Series>(),
            query,
        )
}

/// What every question about numbers over time takes.
pub(super) fn whose(operation: Operation) -> Operation {
    operation
        .query::<DeviceId>("device", "Only this device")
        .query::<VersionName>("version", "Only this version")
        .query::<SlotName>("slot", "Only this slot")
        .query::<u64>("from", "From when, in milliseconds since 1970; an hour before `to` without it")
        .query::<u64>("to", "Until when; now without it")
        .query::<String>("step", "Time from point to point, as in `60s`, `5m`, `1h`, `1d`, or `auto`")
}

async fn metrics(State(app): State<Arc<App>>) -> Json<List<Metric>> {
    Json(List::whole(app.metrics()))
}

async fn query(
    State(app): State<Arc<App>>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Json<Series>, Problem> {
    let mut asked = Asked::new(pairs)?;
    let metric = asked.need("metric", "latency_p99_us")?;
    let aggregation = asked.word("aggregation")?;
    let group_by = asked.take("group_by")?;
    Ok(Json(app.query_telemetry(&metric, aggregation, group_by, asked.rest()?).await?))
}
