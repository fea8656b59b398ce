//! The OpenAPI document (version 3.1), made of the operations and of the types that they take and give.

use super::{
    operation::{Content, Operation, Parameter},
    problem::Problem,
};
use axum::http::StatusCode;
use control_core::access::Need;
use schemars::{
    Schema, SchemaGenerator,
    generate::SchemaSettings,
    transform::{Transform, transform_subschemas},
};
use serde_json::{Map, Value, json};
use shared::limits;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::OnceLock,
};

/// Where the schemas are.
const SCHEMAS: &str = "#/components/schemas/";
/// Added to the name of what is taken where the same type is given in another form.
const TAKEN: &str = "Input";

/// Numbers of a fixed width have a largest value, which the width's name alone does not tell others.
#[derive(Clone, Debug)]
struct Bounds;

impl Transform for Bounds {
    fn transform(&mut self, schema: &mut Schema) {
        let format = schema.get("format").and_then(Value::as_str).unwrap_or_default();
        let (least, most): (Value, Value) = match format {
            "uint8" => (0.into(), u8::MAX.into()),
            "uint16" => (0.into(), u16::MAX.into()),
            "uint32" => (0.into(), u32::MAX.into()),
            "uint64" | "uint" => (0.into(), u64::MAX.into()),
            "int8" => (i8::MIN.into(), i8::MAX.into()),
            "int16" => (i16::MIN.into(), i16::MAX.into()),
            "int32" => (i32::MIN.into(), i32::MAX.into()),
            "int64" | "int" => (i64::MIN.into(), i64::MAX.into()),
            _ => (Value::Null, Value::Null),
        };
        if let Some(schema) = schema.as_object_mut().filter(|_| !most.is_null()) {
            schema.entry("minimum").or_insert(least);
            schema.entry("maximum").or_insert(most);
        }
        transform_subschemas(self, schema);
    }
}

fn generator(taken: bool) -> SchemaGenerator {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let settings = if taken { settings.for_deserialize() } else { settings.for_serialize() };
    settings.with_transform(Bounds).into_generator()
}

/// The document as text. It is made once.
pub fn openapi() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| format!("{:#}\n", document()))
}

/// The document.
pub(super) fn document() -> Value {
    let routes = super::routes();
    let operations: Vec<&Operation> = routes.operations().collect();
    let (mut given, mut taken) = (generator(false), generator(true));
    given.subschema_for::<Problem>();
    given.subschema_for::<crate::app::changes::Change>();
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    let mut tags = BTreeSet::new();
    for operation in operations {
        tags.insert(operation.tag);
        let described = describe(operation, &mut given, &mut taken);
        paths.entry(operation.full_path()).or_default().insert(operation.verb.as_str().to_owned(), described);
    }
    let given = given.take_definitions(true);
    let taken = taken.take_definitions(true);
    let renamed = renamed(&given, &taken);
    let mut paths = json!(paths);
    // Only what is taken names its types so.
    mark(&mut paths, &renamed);
    let mut schemas = given;
    for (name, mut schema) in taken {
        rename(&mut schema, &renamed);
        let name = renamed.get(&name).cloned().unwrap_or(name);
        schemas.entry(name).or_insert(schema);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Edgewright",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Makes models for edge devices and looks after them there.",
            "description": "Times are milliseconds since 1970 (UTC). Lists come in pages: `next_cursor` of one is the `cursor` of \
                the next. Errors are problem details (RFC 9457). `x-role` names the least role that may use an operation: \
                viewer, operator or admin; `none` needs nobody to be known, `device` what a device has.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "tags": tags.into_iter().map(|tag| json!({ "name": tag })).collect::<Vec<_>>(),
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The administrator's token, the token of a session, or an API token.",
                },
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": super::COOKIE,
                    "description": "The cookie that a log-in gives. What changes something needs the header `X-Edgewright: 1` beside it.",
                },
                "certificate": { "type": "mutualTLS", "description": "A device's own certificate." },
                "enrolment": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "The device's id and an enrolment token.",
                },
            },
        },
    })
}

/// Marks a schema as one of what is taken, until its name is known.
const MARK: &str = "x-taken";

fn describe(operation: &Operation, given: &mut SchemaGenerator, taken: &mut SchemaGenerator) -> Value {
    let mut parameters: Vec<Value> = operation
        .path_parameters()
        .map(|(name, schema)| {
            let schema = bounded(schema(taken));
            json!({ "name": name, "in": "path", "required": true, "schema": schema, MARK: true })
        })
        .collect();
    parameters.extend(operation.parameters.iter().map(|parameter| query(parameter, taken)));
    if operation.creates {
        let most = limits::IDEMPOTENCY_KEY_BYTES_MAX;
        parameters.push(json!({
            "name": "Idempotency-Key",
            "in": "header",
            "description": "The same key with the same request within a day gives the same answer, and nothing is done twice.",
            "schema": { "type": "string", "pattern": format!("^[!-~]{{1,{most}}}$") },
        }));
    }
    let mut responses = Map::new();
    for status in operation.statuses() {
        responses.insert(status.as_str().to_owned(), answer(operation, status, given));
    }
    let mut described = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [operation.tag],
        "x-role": operation.need().as_str(),
        "security": security(operation.need()),
        "responses": responses,
    });
    if !parameters.is_empty() {
        described["parameters"] = parameters.into();
    }
    match operation.takes {
        Content::Nothing => {}
        Content::Json(schema) => {
            let schema = schema(taken).to_value();
            described["requestBody"] = json!({ "required": true, "content": { "application/json": { "schema": schema } }, MARK: true });
        }
        Content::Other(kind) => {
            described["requestBody"] = json!({ "required": true, "content": { kind: binary() } });
        }
    }
    described
}

fn bounded(mut schema: Schema) -> Value {
    Bounds.transform(&mut schema);
    schema.to_value()
}

fn query(parameter: &Parameter, taken: &mut SchemaGenerator) -> Value {
    let mut schema = bounded((parameter.schema)(taken));
    if parameter.repeated {
        schema = json!({ "type": "array", "items": schema });
    }
    let mut described = json!({
        "name": parameter.name,
        "in": "query",
        "description": parameter.text,
        "schema": schema,
        MARK: true,
    });
    if parameter.required {
        described["required"] = true.into();
    }
    described
}

fn binary() -> Value {
    json!({ "schema": { "type": "string", "format": "binary" } })
}

fn security(need: Need) -> Value {
    match need {
        Need::Nothing => json!([]),
        Need::Device => json!([{ "certificate": [] }, { "enrolment": [] }]),
        Need::Role(_) => json!([{ "bearer": [] }, { "session": [] }]),
    }
}

fn answer(operation: &Operation, status: StatusCode, given: &mut SchemaGenerator) -> Value {
    let description = status.canonical_reason().unwrap_or("Answer");
    if status != operation.status {
        let content = if operation.plain_errors {
            json!({ "text/plain; charset=utf-8": { "schema": { "type": "string" } } })
        } else {
            json!({ "application/problem+json": { "schema": { "$ref": format!("{SCHEMAS}Problem") } } })
        };
        let mut described = json!({ "description": description, "content": content });
        if status == StatusCode::TOO_MANY_REQUESTS {
            described["headers"] = json!({
                "Retry-After": { "description": "Seconds to wait.", "schema": { "type": "integer", "minimum": 1 } },
            });
        }
        return described;
    }
    match operation.gives {
        Content::Nothing => json!({ "description": description }),
        Content::Json(schema) => {
            let schema = schema(given).to_value();
            json!({ "description": description, "content": { "application/json": { "schema": schema } } })
        }
        Content::Other(kind) if kind.starts_with("text/") => {
            json!({ "description": description, "content": { kind: { "schema": { "type": "string" } } } })
        }
        Content::Other(kind) => json!({ "description": description, "content": { kind: binary() } }),
    }
}

/// Names that what is taken needs because what is given has them for something else: those of types whose two forms
/// differ, and of types that hold such a one.
fn renamed(given: &Map<String, Value>, taken: &Map<String, Value>) -> BTreeMap<String, String> {
    let mut differ: BTreeSet<&str> = taken
        .iter()
        .filter(|(name, schema)| given.get(*name).is_some_and(|given| given != *schema))
        .map(|(name, _)| name.as_str())
        .collect();
    loop {
        let more: Vec<&str> = taken
            .iter()
            .filter(|(name, schema)| {
                let named = given.contains_key(*name) && !differ.contains(name.as_str());
                named && references(schema).iter().any(|held| differ.contains(held.as_str()))
            })
            .map(|(name, _)| name.as_str())
            .collect();
        if more.is_empty() {
            return differ.into_iter().map(|name| (name.to_owned(), format!("{name}{TAKEN}"))).collect();
        }
        differ.extend(more);
    }
}

/// The names of all schemas that a value refers to.
pub(super) fn references(value: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    walk(value, &mut |key, text| {
        if key == "$ref" {
            found.insert(text.trim_start_matches(SCHEMAS).to_owned());
        }
    });
    found
}

fn walk(value: &Value, see: &mut impl FnMut(&str, &str)) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(text) => see(key, text),
                    _ => walk(value, see),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| walk(item, see)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Gives references their other names.
fn rename(value: &mut Value, names: &BTreeMap<String, String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get_mut("$ref")
                && let Some(name) = names.get(reference.trim_start_matches(SCHEMAS))
            {
                *reference = format!("{SCHEMAS}{name}");
            }
            map.values_mut().for_each(|value| rename(value, names));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Renames what is under a mark, and takes the marks away.
fn mark(value: &mut Value, names: &BTreeMap<String, String>) {
    match value {
        Value::Object(map) => {
            if map.remove(MARK).is_some() {
                map.values_mut().for_each(|value| rename(value, names));
            }
            map.values_mut().for_each(|value| mark(value, names));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| mark(item, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests;
