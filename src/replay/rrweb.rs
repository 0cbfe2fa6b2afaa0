//! What is known of rrweb's events: `{"type":…,"data":…,"timestamp":…}`. Their numbers are part of rrweb's format.

use std::io::Read;

use flate2::read::MultiGzDecoder;
use serde_json::{Map, Value};

use super::ReplayEventType;
use super::bounds::containers;
use crate::event::without_half_pairs;

/// The `type` of an event with the whole page.
pub(super) const FULL_SNAPSHOT: u64 = 2;
/// The `type` of an event with a change since the event before.
pub(super) const INCREMENTAL: u64 = 3;
/// The `type` of an event with the page's address and the window's size. The whole page follows it.
pub(super) const META: u64 = 4;
/// The `source` of a change in which something was typed or chosen.
pub(super) const INPUT_SOURCE: u64 = 5;
/// The members of an event's `data` that PostHog's recorder compresses, each by itself, beside the whole `data`.
const COMPRESSED_MEMBERS: [&str; 4] = ["adds", "attributes", "removes", "texts"];

/// Returns the kind of an rrweb event. Kinds that are not known are [`ReplayEventType::Custom`].
pub(super) fn event_type(kind: u64, data: &Value) -> ReplayEventType {
    let source = data.get("source").and_then(Value::as_u64);
    match (kind, source) {
        (0..=FULL_SNAPSHOT, _) => ReplayEventType::Dom,
        (META, _) => ReplayEventType::Viewport,
        (INCREMENTAL, Some(source)) => match source {
            // Changes of nodes, style sheets, canvases, fonts, styles, adopted style sheets and custom elements.
            0 | 8..=10 | 13 | 15 | 16 => ReplayEventType::Dom,
            // The pointer, its buttons, fingers, and dragging.
            1 | 2 | 6 | 12 => ReplayEventType::Mouse,
            3 => ReplayEventType::Scroll,
            4 => ReplayEventType::Viewport,
            INPUT_SOURCE => ReplayEventType::Input,
            _ => ReplayEventType::Custom,
        },
        _ => ReplayEventType::Custom,
    }
}

/// Decompresses what PostHog's recorder compressed in an event (its member `cv` tells that it did), so that every player can read it.
/// The result has at most `max_bytes` of decompressed JSON, and in it at most `max_containers` objects and arrays. Returns how many
/// bytes there are.
///
/// Returns `None` if something cannot be decompressed, or is larger.
pub(super) fn decompress(event: &mut Map<String, Value>, max_bytes: usize, max_containers: usize) -> Option<usize> {
    if event.remove("cv").is_none() {
        return Some(0);
    }
    let data = event.get_mut("data")?;
    let (mut total, mut containers_left) = (0, max_containers);
    let mut inflate = |value: &mut Value| {
        let Some(text) = value.as_str() else { return Some(()) };
        let json = gunzip(text, max_bytes.checked_sub(total)?)?;
        total += json.len();
        let json = String::from_utf8(json).ok()?;
        containers_left = containers_left.checked_sub(containers(&json))?;
        *value = serde_json::from_str(&without_half_pairs(&json)).ok()?;
        Some(())
    };
    inflate(data)?;
    for name in COMPRESSED_MEMBERS {
        if let Some(member) = data.get_mut(name) {
            inflate(member)?;
        }
    }
    Some(total)
}

/// Decompresses gzip that is written as a string with a character for each byte.
fn gunzip(text: &str, max_bytes: usize) -> Option<Vec<u8>> {
    let bytes: Vec<u8> = text.chars().map(|char| u8::try_from(u32::from(char)).ok()).collect::<Option<_>>()?;
    let mut json = Vec::new();
    MultiGzDecoder::new(&*bytes).take(max_bytes as u64 + 1).read_to_end(&mut json).ok()?;
    (json.len() <= max_bytes).then_some(json)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use serde_json::json;

    use super::*;

    fn gzip(json: &Value) -> Value {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(json.to_string().as_bytes()).unwrap();
        encoder.finish().unwrap().into_iter().map(char::from).collect::<String>().into()
    }

    fn decompressed(mut event: Value, max_bytes: usize) -> Option<Value> {
        decompress(event.as_object_mut().unwrap(), max_bytes, 10).map(|_| event)
    }

    #[test]
    fn what_posthog_compressed_is_as_rrweb_wrote_it() {
        let page = json!({"node": {"type": 0, "childNodes": []}});
        let adds = json!([{"parentId": 1, "node": {"type": 3, "textContent": "ü"}}]);
        for (event, wanted) in [
            (json!({"type": 2, "cv": "2024-10", "data": gzip(&page)}), json!({"type": 2, "data": page})),
            (
                json!({"type": 3, "cv": "2024-10", "data": {"source": 0, "adds": gzip(&adds), "texts": []}}),
                json!({"type": 3, "data": {"source": 0, "adds": adds, "texts": []}}),
            ),
            (json!({"type": 5, "data": "a string"}), json!({"type": 5, "data": "a string"})),
        ] {
            assert_eq!(decompressed(event, 1_000), Some(wanted));
        }
    }

    #[test]
    fn a_bomb_and_damage_are_refused() {
        let bomb = gzip(&json!(" ".repeat(5_000_000)));
        assert!(bomb.as_str().unwrap().len() < 20_000);
        assert_eq!(decompressed(json!({"type": 2, "cv": "2024-10", "data": bomb}), 1_000_000), None);
        for data in [json!("not gzip"), json!("ü€"), json!({"source": 0, "adds": "not gzip"})] {
            assert_eq!(decompressed(json!({"type": 2, "cv": "2024-10", "data": data}), 1_000), None);
        }
    }

    /// Those of an event's members count together.
    #[test]
    fn too_many_objects_and_arrays_are_refused() {
        let of = |adds: usize, texts: usize| {
            let data = json!({"source": 0, "adds": gzip(&json!(vec![json!({}); adds])), "texts": gzip(&json!(vec![json!([]); texts]))});
            decompressed(json!({"type": 3, "cv": "2024-10", "data": data}), 1_000).is_some()
        };
        assert!(of(4, 4));
        assert!(!of(5, 4));
        assert!(!of(4, 5));
    }
}
