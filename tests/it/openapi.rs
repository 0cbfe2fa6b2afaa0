//! `docs/openapi.yaml` against the function: each operation exists, a path takes no other method, and each answer has the status,
//! the content type and exactly the members that the document names.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use session_tracking::config::{AllowedOrigins, PublicAccess, SessionConfig};
use session_tracking::manager::SessionManager;
use session_tracking::output::MemoryOutput;
use session_tracking::{InMemorySessionStorage, Ingest, SystemClock};

type Function = Ingest<InMemorySessionStorage, SystemClock, MemoryOutput>;

fn document() -> Value {
    serde_yaml_ng::from_str(include_str!("../../docs/openapi.yaml")).unwrap()
}

fn function() -> Function {
    let manager = SessionManager::new(SessionConfig::default(), InMemorySessionStorage::new());
    #[cfg(feature = "replay")]
    let manager = manager.with_replay(session_tracking::replay::ReplayStore::in_memory(Default::default()));
    let (output, rejects) = (MemoryOutput::default(), MemoryOutput::default());
    Ingest { manager, output, rejects, origins: AllowedOrigins::default(), public: PublicAccess::default() }
}

/// Follows a `$ref`.
fn followed<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(reference.strip_prefix('#').unwrap()).unwrap(),
        None => value,
    }
}

/// Returns the paths of the document that this build has.
fn paths(document: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let is_built = |item: &Value| item["x-feature"].is_null() || cfg!(feature = "replay");
    document["paths"].as_object().unwrap().iter().filter(move |(_, item)| is_built(item))
}

/// Sends a request with credentials; returns the status, the content type and the body.
async fn send(function: &Function, method: &str, path: &str, query: &str, body: &str) -> (u64, String, Value) {
    let request = json!({
        "version": "2.0", "routeKey": "ANY /x", "rawPath": path, "rawQueryString": query, "body": body,
        "requestContext": {"http": {"method": method}, "authorizer": {"iam": {"userArn": "x"}}},
    });
    let answer: Value = serde_json::from_str(&function.handle(&request.to_string(), i64::MAX).await.unwrap()).unwrap();
    let body = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    (answer["statusCode"].as_u64().unwrap(), answer["headers"]["content-type"].as_str().unwrap().to_owned(), body)
}

/// Checks a value by its schema: the type, the required members, and that no member is missing in the document.
fn check(document: &Value, schema: &Value, value: &Value, place: &str) {
    let schema = followed(document, schema);
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let kinds: Vec<&Value> =
        schema["type"].as_array().map_or_else(|| vec![&schema["type"]], |kinds| kinds.iter().collect());
    assert!(kinds[0].is_null() || kinds.contains(&&json!(kind)), "{place} is {value}");
    if let Some(values) = schema["enum"].as_array() {
        assert!(values.contains(value), "{place} is {value}");
    }
    for element in value.as_array().into_iter().flatten() {
        check(document, &schema["items"], element, place);
    }
    let (Some(members), Some(properties)) = (value.as_object(), schema["properties"].as_object()) else { return };
    for (name, member) in members {
        let schema =
            properties.get(name).unwrap_or_else(|| panic!("{place} has a member `{name}` that is not documented"));
        check(document, schema, member, &format!("{place}.{name}"));
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        assert!(members.contains_key(name.as_str().unwrap()), "{place} has no {name}");
    }
}

/// Checks an answer by what the document states of its status.
fn check_answer(document: &Value, operation: &Value, (status, kind, body): &(u64, String, Value), place: &str) {
    let response = followed(document, &operation["responses"][status.to_string()]);
    let content = &response["content"][kind];
    assert!(content.is_object(), "{place}: {status} as {kind} is not documented: {body}");
    check(document, &content["schema"], body, place);
}

#[tokio::test]
async fn the_document_is_what_the_function_does() {
    let document = document();
    let mut seen = BTreeSet::new();
    for (path, item) in paths(&document) {
        for method in ["get", "post", "put", "delete"] {
            let function = function();
            let event = r#"{"uuid":"e1","event":"$pageview","distinct_id":"ada"}"#;
            let (.., sent) = send(&function, "POST", "/events", "", event).await;
            let id = sent["events"][0]["properties"]["$session_id"].as_str().unwrap();
            let real = path.replace("{id}", id).replace("{distinct_id}", "ada");
            let operation = &item[method];
            let place = format!("{method} {path}");
            let method = method.to_uppercase();
            let answer = send(&function, &method, &real, "", event).await;
            if operation.is_null() {
                assert_eq!(answer.0, 405, "{place}: {}", answer.2);
                continue;
            }
            assert_eq!(answer.0, 200, "{place}: {}", answer.2);
            check_answer(&document, operation, &answer, &place);
            // What cannot be found or used.
            let other = path.replace("{id}", "x").replace("{distinct_id}", "%20");
            let answer = send(&function, &method, &other, "project=%23", "[7").await;
            // That an event is rejected is an explanation, too.
            assert!(answer.0 >= 400 || ["/health", "/v1/explain"].contains(&path.as_str()), "{place}: {}", answer.0);
            check_answer(&document, operation, &answer, &place);
            seen.insert(operation["operationId"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(seen.len(), 9 + usize::from(cfg!(feature = "replay")), "{seen:?}");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
}

/// Without credentials, an operation is refused exactly if the document states that it needs some.
#[tokio::test]
async fn credentials_are_needed_where_the_document_states_it() {
    let document = document();
    let function = function();
    for (path, item) in paths(&document) {
        let operations = item.as_object().unwrap().iter();
        for (method, operation) in operations.filter(|(name, _)| !["parameters", "x-feature"].contains(&name.as_str()))
        {
            let request = json!({
                "version": "2.0", "routeKey": "ANY /{proxy+}", "rawPath": path.replace(['{', '}'], ""),
                "requestContext": {"http": {"method": method.to_uppercase()}},
            });
            let answer = function.handle(&request.to_string(), i64::MAX).await.unwrap();
            let answer: Value = serde_json::from_str(&answer).unwrap();
            let is_open = operation["security"].as_array().is_some_and(Vec::is_empty);
            assert_eq!(answer["statusCode"] == 403, !is_open, "{method} {path}: {answer}");
        }
    }
}
