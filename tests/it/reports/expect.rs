//! Whether what came out is what was expected.

use serde_json::Value;

/// Returns where something else was found than expected. Only what is expected counts: objects may hold more, lists may not.
pub fn difference(expected: &Value, found: &Value) -> Option<String> {
    below("", expected, found)
}

fn below(path: &str, expected: &Value, found: &Value) -> Option<String> {
    match (expected, found) {
        (Value::Object(members), _) => members.iter().find_map(|(name, expected)| {
            let found = found.get(name).unwrap_or(&Value::Null);
            below(&format!("{path}/{name}"), expected, found)
        }),
        (Value::Array(all), Value::Array(those)) if all.len() == those.len() => {
            all.iter().zip(those).enumerate().find_map(|(at, (one, other))| below(&format!("{path}/{at}"), one, other))
        }
        // Times are compared as times.
        (Value::String(one), Value::String(other)) if is_same_time(one, other) => None,
        _ if expected == found => None,
        _ => Some(format!("{path}: expected {expected}, found {}", cut(&found.to_string()))),
    }
}

fn is_same_time(one: &str, other: &str) -> bool {
    let time = |text| chrono::DateTime::parse_from_rfc3339(text).ok();
    time(one).is_some_and(|one| time(other) == Some(one))
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(600)]
}
