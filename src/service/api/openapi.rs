//! The API as an OpenAPI document (version 3.1), made of the routes.

use super::table::Route;
use crate::report::failure::Failed;
use crate::schema;
use axum::http::Method;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

const PLACE: &str = "#/components/schemas/";
/// What types are called that are taken as well as answered: what may be left out differs.
const TAKEN: &str = "Taken";

/// The document.
pub(super) fn document(routes: &[Route]) -> Value {
    // As they are written: fields that are always there are required. And as they are read: only what has no default.
    let mut answers = generator(SchemaSettings::draft2020_12().for_serialize());
    let mut bodies = generator(SchemaSettings::draft2020_12().for_deserialize());
    let failed = Failed::json_schema(&mut answers).to_value();
    let mut paths: Map<String, Value> = Map::new();
    for route in routes {
        let answer = route.gives.schema.map(|schema| schema(&mut answers).to_value());
        let body =
            route.takes.as_ref().map(|takes| takes.schema.map(|schema| schema(&mut bodies).to_value()));
        let operation = operation(route, answer, body);
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.as_str().to_ascii_lowercase()] = operation;
    }
    let mut schemas = answers.take_definitions(true);
    let taken = bodies.take_definitions(true);
    let both: Vec<String> = taken.keys().filter(|name| schemas.contains_key(*name)).cloned().collect();
    for (name, mut schema) in taken {
        rename(&mut schema, &both);
        let name = if both.contains(&name) { format!("{name}{TAKEN}") } else { name };
        schemas.insert(name, schema);
    }
    for path in paths.values_mut().filter_map(Value::as_object_mut) {
        for operation in path.values_mut() {
            rename(&mut operation["requestBody"], &both);
            if operation["requestBody"].is_null()
                && let Some(operation) = operation.as_object_mut()
            {
                operation.remove("requestBody");
            }
        }
    }
    schemas.insert("Failed".into(), failed);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "landfall",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The service of a recovery site: machines that are protected, their recovery points, and how well.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of landfall token add. The local socket needs none.",
                },
            },
        },
    })
}

fn generator(settings: SchemaSettings) -> SchemaGenerator {
    settings
        .with(|settings| {
            settings.definitions_path = PLACE.trim_start_matches('#').trim_end_matches('/').into();
            settings.meta_schema = None;
        })
        .with_transform(RecursiveTransform(schema::plain))
        .into_generator()
}

fn operation(route: &Route, answer: Option<Value>, body: Option<Option<Value>>) -> Value {
    let parts = route.path.split('{').skip(1).filter_map(|part| part.split_once('}'));
    let mut parameters: Vec<Value> = parts
        .map(|(name, _)| {
            json!({
                "name": name, "in": "path", "required": true, "description": part(route.path, name),
                "schema": { "type": "string" },
            })
        })
        .collect();
    parameters.extend(route.query.iter().map(|(name, says)| {
        json!({ "name": name, "in": "query", "description": says, "schema": { "type": "string" } })
    }));
    let content = match (route.gives.content_type, answer) {
        ("", _) => None,
        (kind, Some(schema)) => Some(json!({ kind: { "schema": schema } })),
        (kind, None) => Some(json!({ kind: {} })),
    };
    let mut good = json!({ "description": route.says });
    if let Some(content) = content {
        good["content"] = content;
    }
    let bad = json!({
        "description": "It was not done, and why.",
        "content": { "application/json": { "schema": { "$ref": format!("{PLACE}Failed") } } },
    });
    let who = match route.role {
        Some(role) if route.sends => format!(
            "{} Needs a certificate that may send this machine, or the role {}, as the service is set up.",
            route.says,
            role.name()
        ),
        Some(role) => format!("{} Needs the role {}.", route.says, role.name()),
        None => format!("{} Needs no token.", route.says),
    };
    let mut operation = json!({
        "operationId": id(&route.method, route.path),
        "summary": route.says,
        "description": who,
        "parameters": parameters,
        "responses": { route.gives.status.as_str(): good, "default": bad },
    });
    if route.role.is_none() {
        operation["security"] = json!([]);
    }
    match body {
        Some(Some(schema)) => {
            operation["requestBody"] = json!({ "content": { "application/json": { "schema": schema } } });
        }
        Some(None) => operation["requestBody"] = json!({ "content": { "application/octet-stream": {} } }),
        None => {}
    }
    operation
}

/// What a part of a path is.
fn part(path: &str, name: &str) -> &'static str {
    match name {
        "name" if path.starts_with("/v1/tokens") => "The token's name.",
        "name" => "The machine's name.",
        "disk" => "The disk's name.",
        "id" if path.starts_with("/v1/uploads") => "The upload's number.",
        "id" => "The receipt's number.",
        "point" => {
            "A point: its number, latest, tag:NAME (the newest of that name), a time such as 2026-11-29T14:03:05Z (the newest until then; without a zone it is UTC), or how long ago: -15m."
        }
        _ => "",
    }
}

/// `put-v1-machines-name`
fn id(method: &Method, path: &str) -> String {
    let words = path.split(['/', '{', '}', '.']).filter(|word| !word.is_empty());
    let method = method.as_str().to_ascii_lowercase();
    std::iter::once(method.as_str()).chain(words).collect::<Vec<_>>().join("-")
}

/// Points references to these types to those that are taken.
fn rename(value: &mut Value, names: &[String]) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let renamed = value.as_str().filter(|_| key == "$ref").and_then(|to| {
                    let name = to.strip_prefix(PLACE)?;
                    names.iter().any(|other| other == name).then(|| format!("{to}{TAKEN}"))
                });
                match renamed {
                    Some(renamed) => *value = Value::String(renamed),
                    None => rename(value, names),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| rename(value, names)),
        _ => {}
    }
}
