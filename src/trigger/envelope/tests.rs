use super::*;

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap()
}

fn name(payload: &str) -> &'static str {
    match Caller::of(payload) {
        Caller::Http2(_) => "http 2",
        Caller::Http1(_) => "http 1",
        Caller::Sqs(_) => "sqs",
        Caller::Alb(_) => "alb",
        Caller::Kinesis(_) => "kinesis",
        Caller::Sns(_) => "sns",
        Caller::EventBridge => "eventbridge",
        Caller::Firehose => "firehose",
        Caller::Pipe(PipeSource::Sqs) => "pipe from sqs",
        Caller::Pipe(PipeSource::Kinesis) => "pipe from kinesis",
        Caller::S3Test => "s3 test",
        Caller::Events => "events",
        Caller::GetSession(_) => "get",
        Caller::EndSession(_) => "end",
        Caller::EraseVisitor => "erase",
        Caller::Explain(_) => "explain",
        Caller::Unknown(what) => what,
    }
}

#[test]
fn callers_are_recognized() {
    for (payload, wanted) in [
        (r#"{"version":"2.0","rawPath":"/events","requestContext":{"http":{}}}"#, "http 2"),
        (r#"{"version":"1.0","path":"/events","httpMethod":"POST","requestContext":{}}"#, "http 1"),
        (r#"{"Records":[{"eventSource":"aws:sqs"},{"eventSource":7}]}"#, "sqs"),
        (r#"{"Records":[{"eventSource":"aws:s3"}]}"#, "an S3 event"),
        (r#"{"Records":[{"EventSource":"aws:sns"}]}"#, "sns"),
        (r#"{"Records":[{"eventSource":"aws:kinesis"}]}"#, "kinesis"),
        (r#"{"Records":[]}"#, "records of an unknown source"),
        (
            r#"{"source":"aws.events","detail-type":"Scheduled Event","detail":{}}"#,
            "an EventBridge event of an AWS service",
        ),
        (r#"{"version":"0","source":"shop","detail-type":"PageView","detail":{"event":"a"}}"#, "eventbridge"),
        (r#"{"invocationId":"i","deliveryStreamArn":"arn:aws:firehose:x","region":"r","records":[]}"#, "firehose"),
        (r#"{"invocationId":"i","records":[{"recordId":"r","data":""}]}"#, "firehose"),
        (r#"{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"b"}"#, "s3 test"),
        (r#"{"Event":"other"}"#, "an object without a member that is known"),
        (r#"{"requestContext":{"elb":{"targetGroupArn":"arn"}},"httpMethod":"POST","path":"/events"}"#, "alb"),
        (r#"{"requestContext":{"authorizer":{"elb":1}},"httpMethod":"POST","path":"/events"}"#, "http 1"),
        (r#"{"events":[],"Records":[]}"#, "events"),
        (r#"{"event":"a","requestContext":{},"httpMethod":"GET"}"#, "events"),
        (r#"{"distinct_id":"u"}"#, "events"),
        ("[]", "events"),
        (r#"{"batch":[],"sent_at":1}"#, "events"),
        (r#" [{"messageId":"m","body":"","eventSource":"aws:sqs"}]"#, "pipe from sqs"),
        (r#"[{"eventSource":"aws:kinesis","data":""}]"#, "pipe from kinesis"),
        (r#"[{"eventSource":"aws:kafka","value":""}]"#, "an array of records of an unknown source"),
        (r#"[{"event":"a","distinct_id":"u","eventSource":"aws:sqs"}]"#, "events"),
        (r#"[{"eventSource":7}]"#, "events"),
        (r#"[{"eventSource":"aws:sqs""#, "events"),
        ("7", "events"),
        ("{\"event\":1}\n{\"event\":2}", "events"),
        (r#"{"Records":["#, "events"),
        (r#"{"get_session":"x"}"#, "get"),
        (r#"{"end_session":"x"}"#, "end"),
        (r#"{"key1":"value1"}"#, "an object without a member that is known"),
    ] {
        assert_eq!(name(payload), wanted, "{payload}");
    }
}

#[test]
fn half_a_surrogate_pair_stays_in_its_event() {
    assert!(matches!(string_bytes(&raw(r#""[1]""#)), Some(Cow::Borrowed(b"[1]"))));
    assert_eq!(string_bytes(&raw(r#""a\n\u00e9""#)).as_deref(), Some("a\n\u{e9}".as_bytes()));
    let broken = raw(r#""[\"\ud800\",2]""#);
    let broken = string_bytes(&broken).unwrap();
    assert!(broken.starts_with(b"[\"") && broken.ends_with(b"\",2]") && std::str::from_utf8(&broken).is_err());
    assert_eq!(string_bytes(&raw("7")), None);
}

#[test]
fn a_time_of_receipt_is_never_in_the_future() {
    let now = 1_773_144_000_000;
    for (stated, wanted) in [
        ("1773140000000", 1_773_140_000_000),
        (r#""1773140000000""#, 1_773_140_000_000),
        ("1773150000000", now),
        ("1773140000", now),
        (r#""soon""#, now),
        ("{}", now),
    ] {
        assert_eq!(received_at(time(Some(&raw(stated))), now), wanted, "{stated}");
    }
    assert_eq!(received_at(None, now), now);
}

#[test]
fn headers_are_read_in_any_case_as_strings_or_arrays() {
    let read = |json: &str| {
        let map = raw(json);
        let headers = Headers::read(Some(&map), Headers::value);
        (headers.content_type.map(Cow::into_owned), headers.content_encoding.map(Cow::into_owned))
    };
    let both = (Some("a".to_owned()), Some("b".to_owned()));
    assert_eq!(read(r#"{"Content-Type":"a","x":["y",{}],"CONTENT-ENCODING":"b"}"#), both);
    assert_eq!(read(r#"{"content-type":["a","c"],"content-encoding":["b"]}"#), both);
    assert_eq!(read(r#"{"content-type":null,"content-encoding":[]}"#), (None, None));
    assert_eq!(read("7"), (None, None));
}
