//! What stands before each handler: who asks, whether they may and how often, whether the request came before, and the
//! record of what was changed.

use super::{
    auth::{self, Shown},
    operation::{Content, Operation},
    peer::Peer,
    problem::Problem,
};
use crate::app::{
    App, Error,
    access::Principal,
    audit::{Attempt, Earlier},
};
use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{FromRequest, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, request},
    middleware::Next,
    response::{IntoResponse, Response},
};
use control_core::access::Need;
use serde_json::Value;
use shared::{
    Digest, digest,
    limits::{IDEMPOTENCY_ANSWER_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX, REASON_BYTES_MAX},
};
use std::sync::Arc;

/// Largest answer to a request that makes something; a rollout to the whole of a large fleet is some megabytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const REPLAYED: &str = "idempotency-replayed";

/// The gate of one operation.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    pub(super) app: Arc<App>,
    pub(super) operation: Arc<Operation>,
}

/// A request that is refused, and who asked, where that is known.
struct Refused {
    by: Option<Principal>,
    problem: Problem,
}

impl Refused {
    fn unknown(problem: impl Into<Problem>) -> Box<Self> {
        Box::new(Self { by: None, problem: problem.into() })
    }
}

/// A request under an idempotency key.
#[derive(Clone)]
struct KeyedRequest {
    user: Principal,
    key: String,
}

/// Lets a request pass to its handler.
pub(super) async fn pass(State(gate): State<Gate>, peer: Peer, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let mut attempt = Attempt {
        by: None,
        operation: gate.operation.id,
        target: gate.operation.target(parts.uri.path()),
        from: peer.address,
        detail: String::new(),
    };
    match gate.admit(&peer, &parts.headers).await {
        Ok(by) => attempt.by = by,
        Err(refused) => {
            let Refused { by, problem } = *refused;
            let status = problem.status();
            if gate.operation.changes && matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
                (attempt.by, attempt.detail) = (by, problem.detail.clone());
                gate.app.note_refused(&attempt);
                gate.app.audit_refusal(&attempt, status.as_u16()).await;
            }
            return problem.into_response();
        }
    }
    if let Some(by) = &attempt.by {
        parts.extensions.insert(by.clone());
    }
    if !gate.operation.changes || gate.operation.need() == Need::Device {
        return next.run(Request::from_parts(parts, body)).await;
    }
    match gate.change(attempt, parts, body, next).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

impl Gate {
    /// Who asks, if the operation is for them.
    async fn admit(&self, peer: &Peer, headers: &HeaderMap) -> Result<Option<Principal>, Box<Refused>> {
        let need = self.operation.need();
        if need == Need::Device {
            return Ok(None);
        }
        self.app.admit(None, peer.address).map_err(Refused::unknown)?;
        let Need::Role(role) = need else { return Ok(None) };
        let Some(Shown { token, by_cookie }) = auth::shown(headers) else {
            let text = "a token is needed: Authorization: Bearer TOKEN, or a log-in";
            return Err(Refused::unknown(Problem::new(StatusCode::UNAUTHORIZED, text)));
        };
        let Some(by) = self.app.principal(token).await.map_err(Refused::unknown)? else {
            let text =
                "the token is wrong or has expired; log in, or see context.json in the server's data folder";
            return Err(Refused::unknown(Problem::new(StatusCode::UNAUTHORIZED, text)));
        };
        let refused = |problem: Problem| Box::new(Refused { by: Some(by.clone()), problem });
        self.app.admit(Some(&by.user), peer.address).map_err(|error| refused(error.into()))?;
        if by.role < role {
            let text = format!("{} is for role {role}, {} is {}", self.operation.id, by.user, by.role);
            return Err(refused(Problem::new(StatusCode::FORBIDDEN, text)));
        }
        if by_cookie && self.operation.changes && !auth::is_guarded(headers) {
            let text = "a change by cookie needs the header X-Edgewright: 1";
            return Err(refused(Problem::new(StatusCode::FORBIDDEN, text)));
        }
        Ok(Some(by))
    }

    /// Lets a change be made, on record, and once for each key. Begun, it ends whether or not the caller waits.
    async fn change(
        self,
        mut attempt: Attempt,
        parts: request::Parts,
        body: Body,
        next: Next,
    ) -> Result<Response, Problem> {
        let (body, asked) = match self.operation.takes {
            Content::Json(_) => {
                let asked = take_in(&parts, body).await?;
                (Body::from(asked.clone()), asked)
            }
            Content::Nothing | Content::Other(_) => (body, Bytes::new()),
        };
        if !self.operation.secret {
            attempt.detail = beginning(&asked);
        }
        let keyed = self.key(&attempt, &parts.headers)?;
        if let Some(keyed) = &keyed {
            let request = fingerprint(&parts, &asked);
            let earlier = self.app.begin_idempotent(&keyed.user.user, &keyed.key, &request).await?;
            if let Some(answer) = again(earlier)? {
                return Ok(answer);
            }
        }
        // Of a log-in it is not known before who it is that changes something.
        let record = match &attempt.by {
            Some(_) => match self.app.begin_audit(&attempt).await {
                Ok(record) => Some(record),
                Err(error) => {
                    self.forget(keyed.as_ref()).await;
                    return Err(error.into());
                }
            },
            None => None,
        };
        let request = Request::from_parts(parts, body);
        let work = tokio::spawn(async move {
            let response = next.run(request).await;
            self.finish(attempt, record, keyed, asked, response).await
        });
        work.await.map_err(|error| Error::Internal(format!("a request broke off: {error}")))?
    }

    /// The idempotency key of a request to an operation that takes one.
    fn key(&self, attempt: &Attempt, headers: &HeaderMap) -> Result<Option<KeyedRequest>, Problem> {
        let (Some(value), Some(by)) = (headers.get(IDEMPOTENCY_KEY), &attempt.by) else { return Ok(None) };
        if !self.operation.creates {
            return Ok(None);
        }
        let bytes = value.as_bytes();
        let good =
            (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
        if !good {
            let text = format!(
                "Idempotency-Key is not valid: 1 to {IDEMPOTENCY_KEY_BYTES_MAX} printable characters"
            );
            return Err(Problem::new(StatusCode::BAD_REQUEST, text));
        }
        let key = String::from_utf8_lossy(bytes).into_owned();
        Ok(Some(KeyedRequest { user: by.clone(), key }))
    }

    async fn forget(&self, keyed: Option<&KeyedRequest>) {
        if let Some(KeyedRequest { user, key }) = keyed {
            self.app.end_idempotent(&user.user, key, StatusCode::INTERNAL_SERVER_ERROR.as_u16(), None).await;
        }
    }

    /// Puts on record how a change ended, and keeps its answer.
    async fn finish(
        &self,
        mut attempt: Attempt,
        record: Option<uuid::Uuid>,
        keyed: Option<KeyedRequest>,
        asked: Bytes,
        mut response: Response,
    ) -> Result<Response, Problem> {
        let status = response.status();
        if let Some(problem) = response.extensions().get::<Problem>() {
            attempt.detail.clone_from(&problem.detail);
        }
        let mut answer = None;
        if self.operation.creates && matches!(self.operation.gives, Content::Json(_)) {
            let (parts, body) = response.into_parts();
            let bytes = to_bytes(body, ANSWER_BYTES_MAX).await;
            let bytes = bytes.map_err(|error| Error::Internal(format!("an answer is too large: {error}")))?;
            if let Some(made) = made(&bytes).filter(|_| status.is_success()) {
                attempt.target = [attempt.target, made]
                    .into_iter()
                    .filter(|part| !part.is_empty())
                    .collect::<Vec<_>>()
                    .join("/");
            }
            answer = Some(bytes.clone());
            response = Response::from_parts(parts, Body::from(bytes));
        }
        match record {
            Some(record) => self.app.end_audit(record, &attempt, status.as_u16()).await,
            None => {
                attempt.by = response.extensions_mut().remove::<Principal>();
                if attempt.target.is_empty() {
                    attempt.target = asked_user(&asked);
                }
                if attempt.by.is_some() {
                    let record = self.app.begin_audit(&attempt).await?;
                    self.app.end_audit(record, &attempt, status.as_u16()).await;
                } else {
                    self.app.audit_refusal(&attempt, status.as_u16()).await;
                }
            }
        }
        if let Some(KeyedRequest { user, key }) = keyed {
            let kept = answer.filter(|answer| answer.len() <= IDEMPOTENCY_ANSWER_BYTES_MAX);
            let kept = kept.filter(|_| !self.operation.secret || !status.is_success());
            let kept = kept.as_deref().map(String::from_utf8_lossy);
            self.app.end_idempotent(&user.user, &key, status.as_u16(), kept.as_deref()).await;
        }
        Ok(response)
    }
}

/// Reads a body within the router's limit.
async fn take_in(parts: &request::Parts, body: Body) -> Result<Bytes, Problem> {
    let request = Request::from_parts(parts.clone(), body);
    Bytes::from_request(request, &())
        .await
        .map_err(|rejected| Problem::new(rejected.status(), rejected.body_text()))
}

/// What makes two requests the same.
fn fingerprint(parts: &request::Parts, asked: &[u8]) -> Digest {
    let mut hasher = digest::Hasher::new();
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    for part in [parts.method.as_str().as_bytes(), target.as_bytes(), asked] {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finish()
}

/// The answer to a request that came before, if it did.
fn again(earlier: Earlier) -> Result<Option<Response>, Problem> {
    match earlier {
        Earlier::None => Ok(None),
        Earlier::Other => {
            let text = "the Idempotency-Key came with another request; take another key";
            Err(Error::Mismatch(text.to_owned()).into())
        }
        Earlier::Running => {
            let text = "the request with this Idempotency-Key is still under way; ask again later";
            Err(Error::Conflict(text.to_owned()).into())
        }
        Earlier::Answered { answer: None, .. } => {
            let text = "the request with this Idempotency-Key was done; its answer held a secret or much else, and is not kept";
            Err(Error::Conflict(text.to_owned()).into())
        }
        Earlier::Answered { status, answer: Some(answer) } => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let kind = if status.is_success() { "application/json" } else { "application/problem+json" };
            let mut response = (status, answer).into_response();
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
            Ok(Some(response))
        }
    }
}

/// What an answer says was made.
fn made(answer: &[u8]) -> Option<String> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let names = [answer.get("name"), answer.get("id"), answer.get("upload"), answer.pointer("/token/id")];
    names.into_iter().flatten().find_map(Value::as_str).map(str::to_owned)
}

/// The beginning of a body in one line, more than the record keeps of it.
fn beginning(asked: &[u8]) -> String {
    let beginning = &asked[..asked.len().min(2 * REASON_BYTES_MAX)];
    String::from_utf8_lossy(beginning).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whom a log-in names.
fn asked_user(asked: &[u8]) -> String {
    let asked: Value = serde_json::from_slice(asked).unwrap_or_default();
    asked.get("user").and_then(Value::as_str).unwrap_or_default().to_owned()
}
