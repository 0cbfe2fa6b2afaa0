//! What the page shows of an explanation (`POST /v1/explain`): the rule, and the values that were compared.

use serde_json::{Map, Value, json};

use super::item::cut;

/// Returns the part of an explanation that the page shows. Merges and splits are only counted, and strings are cut.
pub fn shown(explanation: &Value) -> Value {
    let mut part = Map::new();
    for name in ["rule", "watermark"] {
        part.insert(name.to_owned(), explanation[name].clone());
    }
    for name in ["session_before", "session_after"] {
        if let Some(rules) = explanation[name]["rules"].as_array() {
            let rules: Vec<Value> = rules.iter().filter(|check| has_compared(check)).map(bounded).collect();
            part.insert(name.to_owned(), json!({ "rules": rules }));
        }
    }
    for name in ["merges", "splits"] {
        if let Some(some) = explanation[name].as_array().filter(|some| !some.is_empty()) {
            part.insert(name.to_owned(), some.len().into());
        }
    }
    part.into()
}

/// Returns whether a rule holds, or compared anything: most events have neither a campaign nor a referrer.
fn has_compared(check: &Value) -> bool {
    let has = |name: &str| !check[name].is_null();
    check["holds"] == true || ["ms", "events", "session", "event"].into_iter().any(has)
}

/// Returns a value whose strings are cut. An explanation is a few levels deep.
fn bounded(value: &Value) -> Value {
    match value {
        Value::String(text) => cut(text).into(),
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), bounded(value))).collect(),
        Value::Array(values) => values.iter().map(bounded).collect(),
        other => other.clone(),
    }
}
