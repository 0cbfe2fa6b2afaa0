use serde_json::json;

use super::super::{envelope, sqs};
use super::*;

const NOW: Millis = 1_773_144_000_000;

/// Returns the message of a queue's record.
fn message(record: &str) -> Message<'static> {
    let array: &'static str = Box::leak(format!("[{record}]").into_boxed_str());
    sqs::message(sqs::record::of_array(array).unwrap().remove(0), NOW)
}

fn events(message: &Message<'_>) -> Result<Vec<Vec<u8>>, BodyError> {
    let decoded = message.decoded();
    let batch = message.raw_events(&decoded)?;
    Ok(batch.bytes().into_iter().map(<[u8]>::to_vec).collect())
}

#[test]
fn bodies_are_decoded_by_their_attributes() {
    let body = |attributes: &str, body: &str| {
        events(&message(&format!(r#"{{"messageId":"m","body":"{body}","messageAttributes":{{{attributes}}}}}"#)))
    };
    let attribute = |name: &str, value: &str| format!(r#""{name}":{{"stringValue":"{value}","dataType":"String"}}"#);
    let compressed = "H4sIAAAAAAACA4s21DGKBQC/UIsIBQAAAA==";
    assert_eq!(body("", "[1,2]").unwrap(), [b"1", b"2"]);
    assert_eq!(body(&attribute("content-encoding", "identity"), "[1,2]").unwrap(), [b"1", b"2"]);
    assert_eq!(body(&attribute("Content-Encoding", "gzip"), compressed).unwrap(), [b"1", b"2"]);
    assert_eq!(body(&attribute("content-type", "application/x-ndjson"), "[1]\\n[2]").unwrap(), [b"[1]", b"[2]"]);
    assert_eq!(body("", compressed).unwrap(), [b"1", b"2"], "the first bytes decide");
    assert_eq!(body(&attribute("content-encoding", "gzip"), "[1,2]").unwrap(), [b"1", b"2"]);
    assert_eq!(body(&attribute("content-encoding", "gzip"), "1,2!"), Err(BodyError::InvalidBase64));
    assert_eq!(body(&attribute("content-encoding", "br"), "WzFd"), Err(BodyError::UnsupportedEncoding));
    assert_eq!(body(&attribute("content-type", "text/html"), "[1]"), Err(BodyError::UnsupportedMediaType));
}

#[test]
fn a_malformed_record_is_a_message_without_events() {
    for json in ["7", "{}", r#"{"messageId":7,"body":{}}"#, r#"{"attributes":7,"body":"[1]"}"#] {
        assert_eq!(events(&message(json)), Err(BodyError::Empty), "{json}");
    }
}

/// A bus's event in a topic's notification in a queue's message.
#[test]
fn envelopes_are_taken_off_one_after_the_other() {
    let event = json!({"event": "x", "distinct_id": "u"});
    let of_bus = json!({"id": "bus-1", "detail-type": "t", "source": "shop", "time": "2026-03-10T11:59:00Z",
        "detail": event});
    let of_topic = json!({"Type": "Notification", "MessageId": "sns-1", "TopicArn": "arn:t",
        "Timestamp": "2026-03-10T11:59:30Z", "Message": of_bus.to_string()});
    let record = json!({"messageId": "sqs-1", "body": of_topic.to_string(),
        "attributes": {"SentTimestamp": (NOW - 1_000).to_string()}});
    let message = message(&record.to_string());
    assert_eq!(events(&message).unwrap(), [event.to_string().as_bytes()]);
    let origin = message.origin(0, None);
    assert_eq!((&*message.id, origin.id), ("sqs-1", "bus-1"));
    // The bus was the first to receive it.
    assert_eq!(origin.delivery.received_at, NOW - 60_000);
}

#[test]
fn a_test_message_has_no_events_and_is_not_rejected() {
    let test = json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}).to_string();
    let of_topic = json!({"Type": "Notification", "MessageId": "sns-1", "TopicArn": "arn:t", "Message": test});
    for body in [test, of_topic.to_string()] {
        let message = message(&json!({"messageId": "m", "body": body}).to_string());
        assert!(message.is_test);
        assert_eq!(events(&message), Ok(Vec::new()));
    }
}

#[test]
fn the_deduplication_id_of_an_envelope_stays() {
    let new = |body: &'static str| {
        let headers = envelope::Headers::default();
        Message::new("test", "m".into(), Some(Cow::Borrowed(body.as_bytes())), headers, (None, NOW))
            .with_origin("m/1".to_owned())
    };
    assert_eq!(new("{}").origin(0, None).id, "m/1");
    let of_bus = r#"{"id":"bus-1","detail-type":"t","source":"shop","detail":{}}"#;
    assert_eq!(new(of_bus).origin(0, None).id, "bus-1");
}
