//! Compares a result with the expected one.

use serde_json::Value;

/// Returns the first difference, with its path. Objects may hold more members than expected; lists may not hold more elements.
pub fn difference(expected: &Value, found: &Value) -> Option<String> {
    difference_at("", expected, found)
}

fn difference_at(path: &str, expected: &Value, found: &Value) -> Option<String> {
    match (expected, found) {
        (Value::Object(members), _) => members.iter().find_map(|(name, expected)| {
            let found = found.get(name).unwrap_or(&Value::Null);
            difference_at(&format!("{path}/{name}"), expected, found)
        }),
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => expected
            .iter()
            .zip(found)
            .enumerate()
            .find_map(|(at, (one, other))| difference_at(&format!("{path}/{at}"), one, other)),
        // Times are compared as times.
        (Value::String(one), Value::String(other)) if is_same_time(one, other) => None,
        _ if expected == found => None,
        _ => Some(format!("{path}: expected {expected}, found {}", truncated(&found.to_string()))),
    }
}

fn is_same_time(one: &str, other: &str) -> bool {
    let time = |time| chrono::DateTime::parse_from_rfc3339(time).ok();
    time(one).is_some_and(|one| time(other) == Some(one))
}

fn truncated(json: &str) -> &str {
    &json[..json.floor_char_boundary(600)]
}
