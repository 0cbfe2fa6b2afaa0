//! Batches for a direct invocation.

/// What Lambda passes on to a function at the most.
const MAX_PAYLOAD: usize = 6 * 1024 * 1024;

/// A batch just under 6 MB, or of so many events; each event has this many bytes or a few more, and ten are a visitor's.
pub fn batch(event_bytes: usize, most: usize) -> String {
    let mut payload = String::with_capacity(MAX_PAYLOAD);
    payload.push_str(r#"{"events":["#);
    for at in 0..most {
        let head = format!(
            r#"{{"uuid":"0b7e3c52-1a1d-4c43-9a6e-{at:012}","event":"$pageview","distinct_id":"visitor-{}","properties":{{"$current_url":"https://shop.test/{at}","text":""#,
            at / 10
        );
        let event = format!("{head}{}\"}}}}", "x".repeat(event_bytes.saturating_sub(head.len() + 4)));
        if payload.len() + event.len() + 3 > MAX_PAYLOAD {
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
