//! Bounds on the form of a recorded event: what its JSON may cost once it is parsed.

use serde_json::Value;

/// Limit of the levels of a recorded event: that of `serde_json`, which reads it again.
pub(super) const MAX_LEVELS: usize = 127;
/// Limit of the objects and arrays of a recorded event. Parsed, an object takes some 700 bytes, however small it is: 2 MB of
/// `{"a":0}` took 180 MB. An element of a page has two objects and an array, in 70 bytes or more, so 2 MB hold some 90,000 of them.
pub(super) const MAX_CONTAINERS: usize = 100_000;

/// Returns the number of objects and arrays in this JSON, which need not be valid.
pub(super) fn containers(json: &str) -> usize {
    let (mut bytes, mut count) = (json.bytes(), 0);
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' => count += 1,
            b'"' => skip_string(&mut bytes),
            _ => {}
        }
    }
    count
}

/// Skips the rest of a string, with the quote that ends it.
fn skip_string(bytes: &mut std::str::Bytes<'_>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'"' => return,
            _ => {}
        }
    }
}

/// Returns whether a value has at most this many levels of arrays and objects.
pub(super) fn has_levels(value: &Value, max: usize) -> bool {
    let fits = |inner| max > 0 && has_levels(inner, max - 1);
    match value {
        Value::Array(elements) => max > 0 && elements.iter().all(fits),
        Value::Object(members) => max > 0 && members.values().all(fits),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Inputs;
    use super::super::recording::{Budget, take_out};
    use super::*;

    fn is_taken(recorded: &Value) -> bool {
        let event = json!({"event": "$replay", "properties": {"$replay_events": [recorded]}}).to_string();
        take_out(&event, &mut Budget::default(), Inputs::Mask).unwrap().recording.is_ok()
    }

    fn page(nodes: Vec<Value>) -> Value {
        json!({"type": 2, "timestamp": 1, "data": {"node": {"type": 0, "childNodes": nodes}}})
    }

    /// As many nodes as 2 MB hold: 50,000 texts, or 29,000 elements. And a style sheet that is full of brackets.
    #[test]
    fn large_pages_are_kept() {
        let text = |id: usize| json!({"type": 3, "textContent": "", "id": id});
        let element = |id: usize| json!({"type": 2, "tagName": "b", "attributes": {}, "childNodes": [], "id": id});
        assert!(is_taken(&page((0..50_000).map(text).collect())));
        assert!(is_taken(&page((0..29_000).map(element).collect())));
        assert!(is_taken(&json!({"type": 2, "timestamp": 1, "data": {"_cssText": "a{}[b]{}".repeat(150_000)}})));
    }

    #[test]
    fn as_many_objects_and_arrays_as_the_limit_are_kept_and_no_more() {
        // The event, its data, its page and the list of nodes are four.
        for nodes in [vec![json!({}); MAX_CONTAINERS - 4], vec![json!([]); MAX_CONTAINERS - 4]] {
            assert!(is_taken(&page(nodes.clone())));
            assert!(!is_taken(&page([nodes, vec![json!({})]].concat())));
        }
    }

    #[test]
    fn brackets_in_strings_are_no_objects_and_arrays() {
        for (json, count) in [
            ("", 0),
            ("7", 0),
            ("[]", 1),
            (r#"{"a":[{},[]],"b":{}}"#, 5),
            (r#"{"[{":"[{"}"#, 1),
            (r#"["\"[","\\",["{\\\"["]]"#, 2),
            (r#"["ü[",{"€{":0}]"#, 2),
            ("[", 1),
            (r#"["[\"#, 1),
        ] {
            assert_eq!(containers(json), count, "{json}");
        }
    }
}
