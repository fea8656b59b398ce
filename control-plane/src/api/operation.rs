//! Operations: each route with what it takes, what it can answer and who may use it. The router, the document and the
//! gate before each handler are made of the same list, so that they agree.

use super::gate::{self, Gate};
use crate::app::{App, changes::ChangeKind, versions::VersionName};
use axum::{
    Router,
    extract::DefaultBodyLimit,
    handler::Handler,
    http::StatusCode,
    middleware,
    routing::{MethodFilter, MethodRouter, on},
};
use control_core::access::{self, Need};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use shared::{BoardId, DatasetId, DeviceId, JobId, ModelName, RolloutId, UserName};
use std::sync::Arc;
use uuid::Uuid;

/// Describes a type.
pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// What is done to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl Verb {
    /// As the document names it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
            Self::Put => "put",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }

    fn filter(self) -> MethodFilter {
        match self {
            Self::Get => MethodFilter::GET,
            Self::Post => MethodFilter::POST,
            Self::Put => MethodFilter::PUT,
            Self::Patch => MethodFilter::PATCH,
            Self::Delete => MethodFilter::DELETE,
        }
    }
}

/// One parameter of a query.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) text: &'static str,
    pub(super) schema: SchemaOf,
    /// May be given more than once.
    pub(super) repeated: bool,
    pub(super) required: bool,
}

/// A body of a request or an answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content {
    Nothing,
    Json(SchemaOf),
    /// Of this media type.
    Other(&'static str),
}

/// One operation.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) verb: Verb,
    /// Below the API's own path, unless it begins at the root.
    pub(super) path: &'static str,
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    pub(super) tag: &'static str,
    pub(super) parameters: Vec<Parameter>,
    pub(super) takes: Content,
    pub(super) gives: Content,
    pub(super) status: StatusCode,
    /// What it can answer beyond what all can.
    pub(super) may: Vec<StatusCode>,
    /// Makes something, so that it takes an idempotency key.
    pub(super) creates: bool,
    /// Changes something, so that it goes on the audit log.
    pub(super) changes: bool,
    /// Takes or gives a secret, so that neither is kept.
    pub(super) secret: bool,
    /// Errors are plain text, as clients of EST expect.
    pub(super) plain_errors: bool,
    at_root: bool,
}

fn operation(verb: Verb, path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation {
        verb,
        path,
        id,
        summary,
        tag: "",
        parameters: Vec::new(),
        takes: Content::Nothing,
        gives: Content::Nothing,
        status: StatusCode::OK,
        may: Vec::new(),
        creates: false,
        changes: verb != Verb::Get,
        secret: false,
        plain_errors: false,
        at_root: false,
    }
}

/// Looks at something.
pub(super) fn get(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    operation(Verb::Get, path, id, summary)
}

/// Makes or does something.
pub(super) fn post(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    operation(Verb::Post, path, id, summary)
}

/// Replaces something.
pub(super) fn put(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    operation(Verb::Put, path, id, summary)
}

/// Changes parts of something.
pub(super) fn patch(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    operation(Verb::Patch, path, id, summary)
}

/// Removes something.
pub(super) fn delete(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    operation(Verb::Delete, path, id, summary)
}

impl Operation {
    /// Its path is not below the API's.
    pub(super) fn at_root(mut self) -> Self {
        self.at_root = true;
        self
    }

    /// Takes JSON.
    pub(super) fn takes<T: JsonSchema>(mut self) -> Self {
        self.takes = Content::Json(schema_of::<T>);
        self
    }

    /// Takes something else.
    pub(super) fn takes_other(mut self, media_type: &'static str) -> Self {
        self.takes = Content::Other(media_type);
        self
    }

    /// Answers with JSON.
    pub(super) fn gives<T: JsonSchema>(mut self) -> Self {
        self.gives = Content::Json(schema_of::<T>);
        self
    }

    /// Answers with something else.
    pub(super) fn gives_other(mut self, media_type: &'static str) -> Self {
        self.gives = Content::Other(media_type);
        self
    }

    /// Answers with nothing.
    pub(super) fn empty(mut self) -> Self {
        self.status = StatusCode::NO_CONTENT;
        self
    }

    /// Makes something.
    pub(super) fn creates(mut self) -> Self {
        (self.status, self.creates) = (StatusCode::CREATED, true);
        self
    }

    /// Makes something that takes its time.
    pub(super) fn accepted(mut self) -> Self {
        (self.status, self.creates) = (StatusCode::ACCEPTED, true);
        self
    }

    /// Changes nothing, whatever its verb.
    pub(super) fn looks(mut self) -> Self {
        self.changes = false;
        self
    }

    /// Takes or gives a secret.
    pub(super) fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// Its errors are plain text.
    pub(super) fn plain_errors(mut self) -> Self {
        self.plain_errors = true;
        self
    }

    /// It can answer these too.
    pub(super) fn may(mut self, statuses: &[StatusCode]) -> Self {
        self.may.extend_from_slice(statuses);
        self
    }

    /// Takes a parameter in its query.
    pub(super) fn query<T: JsonSchema>(self, name: &'static str, text: &'static str) -> Self {
        self.parameter(Parameter { name, text, schema: schema_of::<T>, repeated: false, required: false })
    }

    /// Takes a parameter in its query that has to be there.
    pub(super) fn required_query<T: JsonSchema>(self, name: &'static str, text: &'static str) -> Self {
        self.parameter(Parameter { name, text, schema: schema_of::<T>, repeated: false, required: true })
    }

    /// Takes a parameter in its query any number of times.
    pub(super) fn repeated_query<T: JsonSchema>(self, name: &'static str, text: &'static str) -> Self {
        self.parameter(Parameter { name, text, schema: schema_of::<T>, repeated: true, required: false })
    }

    /// Takes what every list in pages takes.
    pub(super) fn paged(self) -> Self {
        let limit: SchemaOf = |_| json_schema!({ "type": "integer", "minimum": 1, "maximum": shared::limits::PAGE_MAX, "default": shared::limits::PAGE_DEFAULT });
        let text = "Most entries of the page";
        self.parameter(Parameter { name: "limit", text, schema: limit, repeated: false, required: false })
            .query::<String>("cursor", "The page after this: `next_cursor` of the page before")
    }

    /// Takes a parameter in its query that is described otherwise than by a type.
    pub(super) fn query_as(self, name: &'static str, text: &'static str, schema: SchemaOf) -> Self {
        self.parameter(Parameter { name, text, schema, repeated: false, required: false })
    }

    fn parameter(mut self, parameter: Parameter) -> Self {
        self.parameters.push(parameter);
        self
    }

    /// What it asks of whoever calls it.
    pub(super) fn need(&self) -> Need {
        access::need(self.id)
    }

    /// Its whole path, with the names of its parts in braces.
    pub(super) fn full_path(&self) -> String {
        if self.at_root { self.path.to_owned() } else { format!("{}{}", super::PREFIX, self.path) }
    }

    /// The parts of its path that vary, with what each is.
    pub(super) fn path_parameters(&self) -> impl Iterator<Item = (&'static str, SchemaOf)> {
        self.path.split('/').filter_map(|part| {
            let name = part.strip_prefix('{')?.strip_suffix('}')?;
            Some((name, path_schema(name)))
        })
    }

    /// The varying parts of `path`, which is one of this operation's, as in `mnist/v1.0`.
    pub(super) fn target(&self, path: &str) -> String {
        let full = self.full_path();
        let parts = full.split('/').zip(path.split('/'));
        parts.filter(|(name, _)| name.starts_with('{')).map(|(_, part)| part).collect::<Vec<_>>().join("/")
    }

    /// All statuses that it can answer, in order.
    pub(super) fn statuses(&self) -> Vec<StatusCode> {
        let mut all = vec![self.status, StatusCode::INTERNAL_SERVER_ERROR, StatusCode::TOO_MANY_REQUESTS];
        let has_path = self.path.contains('{');
        let takes = !matches!(self.takes, Content::Nothing);
        if has_path || takes || self.creates || !self.parameters.is_empty() {
            all.push(StatusCode::BAD_REQUEST);
        }
        if has_path {
            all.push(StatusCode::NOT_FOUND);
        }
        match self.need() {
            Need::Nothing => {}
            Need::Device => all.extend([StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN]),
            Need::Role(_) => {
                all.extend([
                    StatusCode::UNAUTHORIZED,
                    StatusCode::FORBIDDEN,
                    StatusCode::SERVICE_UNAVAILABLE,
                ]);
            }
        }
        if takes {
            all.push(StatusCode::PAYLOAD_TOO_LARGE);
            if !matches!(self.takes, Content::Other(_)) || self.plain_errors {
                all.push(StatusCode::UNSUPPORTED_MEDIA_TYPE);
            }
        }
        if self.verb != Verb::Get {
            all.extend([StatusCode::INSUFFICIENT_STORAGE, StatusCode::SERVICE_UNAVAILABLE]);
        }
        if self.creates {
            all.extend([StatusCode::CONFLICT, StatusCode::UNPROCESSABLE_ENTITY]);
        }
        all.extend_from_slice(&self.may);
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// What a part of a path is, by its name.
fn path_schema(name: &str) -> SchemaOf {
    match name {
        "device" => schema_of::<DeviceId>,
        "board" => schema_of::<BoardId>,
        "dataset" => schema_of::<DatasetId>,
        "job" => schema_of::<JobId>,
        "rollout" => schema_of::<RolloutId>,
        "version" => schema_of::<VersionName>,
        "model" => schema_of::<ModelName>,
        "user" => schema_of::<UserName>,
        "id" | "token" | "upload" | "incident" => schema_of::<Uuid>,
        "order" => |_| json_schema!({ "type": "string", "enum": ["pause", "resume", "abort"] }),
        _ => |_| json_schema!({ "type": "string", "minLength": 1 }),
    }
}

/// The kinds of changes, as a query names them.
pub(super) fn change_kinds(_: &mut SchemaGenerator) -> Schema {
    let words: Vec<&str> = ChangeKind::ALL.into_iter().map(ChangeKind::as_str).collect();
    let word = words.join("|");
    json_schema!({ "type": "string", "pattern": format!("^({word})(,({word}))*$") })
}

/// Operations of one kind, with their handlers.
#[derive(Debug)]
pub(super) struct Routes {
    tag: &'static str,
    entries: Vec<(Operation, MethodRouter<Arc<App>>)>,
}

impl Routes {
    /// None so far; `tag` is what the document gathers them under.
    pub(super) fn of(tag: &'static str) -> Self {
        Self { tag, entries: Vec::new() }
    }

    /// Adds an operation.
    pub(super) fn add<H, T>(mut self, operation: Operation, handler: H) -> Self
    where
        H: Handler<T, Arc<App>>,
        T: 'static,
    {
        let router = on(operation.verb.filter(), handler);
        self.entries.push((Operation { tag: self.tag, ..operation }, router));
        self
    }

    /// Adds an operation that takes a body of another size than usual.
    pub(super) fn add_limited<H, T>(
        mut self,
        operation: Operation,
        handler: H,
        limit: DefaultBodyLimit,
    ) -> Self
    where
        H: Handler<T, Arc<App>>,
        T: 'static,
    {
        let router = on(operation.verb.filter(), handler).layer(limit);
        self.entries.push((Operation { tag: self.tag, ..operation }, router));
        self
    }

    /// Adds those of another list, which keep their tag.
    pub(super) fn merge(mut self, others: Self) -> Self {
        self.entries.extend(others.entries);
        self
    }

    /// What there is.
    pub(super) fn operations(&self) -> impl Iterator<Item = &Operation> {
        self.entries.iter().map(|(operation, _)| operation)
    }

    /// The router, with the gate before each handler.
    pub(super) fn into_router(self, app: &Arc<App>) -> Router<Arc<App>> {
        self.entries.into_iter().fold(Router::new(), |router, (operation, handler)| {
            let path = operation.full_path();
            let gate = Gate { app: Arc::clone(app), operation: Arc::new(operation) };
            router.route(&path, handler.route_layer(middleware::from_fn_with_state(gate, gate::pass)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_what_varies_in_a_path() {
        let shown = get("/versions/{version}/files/{file}", "download_version_file", "x");
        assert_eq!(shown.target("/api/v1/versions/m@v1.0/files/model.onnx"), "m@v1.0/model.onnx");
        assert_eq!(get("/devices", "list_devices", "x").target("/api/v1/devices"), "");
        let names: Vec<&str> = shown.path_parameters().map(|(name, _)| name).collect();
        assert_eq!(names, ["version", "file"]);
    }

    #[test]
    fn what_an_operation_takes_says_what_it_can_answer() {
        let numbers = |operation: &Operation| -> Vec<u16> {
            operation.statuses().into_iter().map(|status| status.as_u16()).collect()
        };
        let list = get("/devices", "list_devices", "x").paged();
        assert_eq!(numbers(&list), [200, 400, 401, 403, 429, 500, 503]);
        let create = post("/rollouts", "create_rollout", "x").creates().takes::<String>();
        assert_eq!(numbers(&create), [201, 400, 401, 403, 409, 413, 415, 422, 429, 500, 503, 507]);
        let open = get("/healthz", "health", "x").at_root();
        assert_eq!(numbers(&open), [200, 429, 500]);
    }
}
