//! What changes, as server-sent events, so that whoever looks need not ask again and again.

use super::{
    operation::{Routes, change_kinds, get},
    problem::{Problem, Query},
};
use crate::app::{
    App,
    access::Principal,
    changes::{ChangeKind, Listening, Told},
    now,
};
use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response, Sse, sse::Event, sse::KeepAlive},
};
use futures::{Stream, StreamExt, stream};
use serde::Deserialize;
use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, broadcast::error::RecvError};

/// A comment comes at least this often, so that neither side takes a quiet connection for a dead one.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Longest life of a stream where nothing else ends it; the client comes back with what it had last.
const LIFE: Duration = Duration::from_secs(3600);
const LAST_EVENT_ID: &str = "last-event-id";

pub(super) fn routes() -> Routes {
    Routes::of("Changes").add(
        get(
            "/stream",
            "stream_changes",
            "What changes, as server-sent events; `event: reset` says that some were missed",
        )
        .query_as("kinds", "Only of these kinds, as in `rollout,job`", change_kinds)
        .gives_other("text/event-stream"),
        stream_changes,
    )
}

#[derive(Debug, Deserialize)]
struct Filter {
    kinds: Option<String>,
}

fn kinds(text: Option<&str>) -> Result<Vec<ChangeKind>, Problem> {
    let Some(text) = text else { return Ok(ChangeKind::ALL.to_vec()) };
    let kinds: Result<_, String> = text.split(',').map(|kind| kind.trim().parse()).collect();
    kinds.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, format!("kinds: {error}")))
}

async fn stream_changes(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    Query(filter): Query<Filter>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let kinds = kinds(filter.kinds.as_deref())?;
    let permit = app.admit_stream()?;
    // An id that is no number is of no start of this server.
    let last = headers.get(LAST_EVENT_ID).map(|value| value.to_str().ok().and_then(|text| text.parse().ok()));
    let listening = app.listen(last.map(|last| last.unwrap_or(0)));
    let life = principal.expires_at.map_or(LIFE, |at| Duration::from_millis(at.since_ms(now())).min(LIFE));
    let ends = async move {
        tokio::select! {
            () = app.stopped() => {}
            () = tokio::time::sleep(life) => {}
        }
    };
    let events = events(listening, kinds, permit).take_until(Box::pin(ends));
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// What is still to be sent, and from where more comes.
struct Sending {
    waiting: VecDeque<Event>,
    listening: Listening,
    kinds: Vec<ChangeKind>,
    _permit: OwnedSemaphorePermit,
}

fn events(
    mut listening: Listening,
    kinds: Vec<ChangeKind>,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Event, Infallible>> {
    let mut waiting = VecDeque::new();
    // Says at once that the stream is there, before anything changes.
    waiting.push_back(Event::default().comment("listening"));
    if listening.reset {
        waiting.push_back(reset());
    }
    let missed = std::mem::take(&mut listening.missed);
    waiting.extend(missed.iter().filter(|told| kinds.contains(&told.change.kind)).map(|told| event(told)));
    let state = Sending { waiting, listening, kinds, _permit: permit };
    stream::unfold(state, |mut state| async move {
        loop {
            if let Some(event) = state.waiting.pop_front() {
                return Some((Ok(event), state));
            }
            match state.listening.coming.recv().await {
                Ok(told) if state.kinds.contains(&told.change.kind) => state.waiting.push_back(event(&told)),
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => state.waiting.push_back(reset()),
                Err(RecvError::Closed) => return None,
            }
        }
    })
}

fn event(told: &Told) -> Event {
    let event = Event::default().event(told.change.kind.as_str()).id(told.number.to_string());
    // Words and numbers have a JSON form.
    event.data(serde_json::to_string(&told.change).unwrap_or_default())
}

fn reset() -> Event {
    Event::default().event("reset").data("{}")
}
