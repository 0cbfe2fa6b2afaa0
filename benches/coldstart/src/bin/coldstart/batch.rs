//! Batches for a direct invocation.

/// Lambda's limit of a payload.
const MAX_PAYLOAD_BYTES: usize = 6 * 1024 * 1024;

/// Returns a batch of up to 6 MB and up to `max_events` events. Each event has `event_bytes` or a few more, and each visitor ten
/// events.
pub fn batch(event_bytes: usize, max_events: usize) -> String {
    let mut payload = String::with_capacity(MAX_PAYLOAD_BYTES);
    payload.push_str(r#"{"events":["#);
    for at in 0..max_events {
        let head = format!(
            r#"{{"uuid":"0b7e3c52-1a1d-4c43-9a6e-{at:012}","event":"$pageview","distinct_id":"visitor-{}","properties":{{"$current_url":"https://shop.test/{at}","text":""#,
            at / 10
        );
        let event = format!("{head}{}\"}}}}", "x".repeat(event_bytes.saturating_sub(head.len() + 4)));
        if payload.len() + event.len() + 3 > MAX_PAYLOAD_BYTES {
            break;
        }
        if at > 0 {
            payload.push(',');
        }
        payload.push_str(&event);
    }
    payload.push_str("]}");
    payload
}
