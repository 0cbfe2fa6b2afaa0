use super::*;
use crate::config::SessionConfig;

const NOW: Millis = 1_773_144_000_000;

fn message(json: &str) -> Message<'static> {
    let array: &'static str = Box::leak(format!("[{json}]").into_boxed_str());
    Message::new(record::of_array(array).unwrap().remove(0), NOW)
}

fn in_group(group: &str, queue: &str) -> Message<'static> {
    message(&format!(
        r#"{{"messageId":"m-{group}","body":"","attributes":{{"MessageGroupId":"{group}","SentTimestamp":"1773143999000"}},
        "eventSourceARN":"arn:aws:sqs:eu-central-1:1:{queue}"}}"#
    ))
}

#[test]
fn a_record_is_read() {
    let message = in_group("a", "events.fifo");
    assert_eq!((&*message.id, message.group.as_deref()), ("m-a", Some("a")));
    assert_eq!(message.delivery, Delivery { received_at: NOW - 1_000, trusts_received_at: true });
    assert_eq!(in_group("a", "events").group, None);
}

#[test]
fn bodies_are_decoded_by_their_attributes() {
    let body = |attributes: &str, body: &str| {
        let message = message(&format!(r#"{{"messageId":"m","body":"{body}","messageAttributes":{{{attributes}}}}}"#));
        let decoded = message.decoded();
        let raw_events = message.raw_events(&decoded, &SessionConfig::default());
        raw_events.map(|batch| batch.bytes().into_iter().map(<[u8]>::to_vec).collect::<Vec<_>>())
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
        let message = message(json);
        assert_eq!(
            message.raw_events(&message.decoded(), &SessionConfig::default()).err(),
            Some(BodyError::Empty),
            "{json}"
        );
    }
}

#[test]
fn after_a_failed_message_the_rest_of_its_group_fails() {
    let messages: Vec<_> = ["a", "b", "a", "b", "a"].iter().map(|group| in_group(group, "events.fifo")).collect();
    let mut failed = [false, false, true, false, false];
    fail_rest_of_groups(&messages, &mut failed);
    assert_eq!(failed, [false, false, true, false, true]);
    assert_eq!(
        batch_item_failures(&messages, &failed),
        r#"{"batchItemFailures":[{"itemIdentifier":"m-a"},{"itemIdentifier":"m-a"}]}"#
    );
}

#[test]
fn in_a_standard_queue_a_message_fails_alone() {
    let messages: Vec<_> = ["a", "a", "b"].iter().map(|group| in_group(group, "events")).collect();
    let mut failed = [true, false, false];
    fail_rest_of_groups(&messages, &mut failed);
    assert_eq!(failed, [true, false, false]);
}

#[test]
fn an_event_over_several_lines_is_sent_in_one() {
    assert_eq!(one_line("{\r\n  \"a\": \"\\n\"\n}".to_owned()), "{    \"a\": \"\\n\" }");
    assert_eq!(one_line("{}".to_owned()), "{}");
}
