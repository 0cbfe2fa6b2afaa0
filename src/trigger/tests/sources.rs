//! Tests of streams, topics, buses and Pipes: what is delivered again, and what each source is told.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::*;

fn kinesis_record(number: u32, body: &str) -> Value {
    json!({
        "eventID": format!("shardId-000000000000:{number}"), "eventSource": "aws:kinesis",
        "kinesis": {"sequenceNumber": number.to_string(), "data": BASE64_STANDARD.encode(body), "partitionKey": "k",
            "approximateArrivalTimestamp": NOW as f64 / 1000.0},
    })
}

/// The records of a Kinesis stream as a Pipe has them.
fn flat(record: &Value) -> Value {
    let mut flat = record["kinesis"].clone();
    flat["eventID"] = record["eventID"].clone();
    flat["eventSource"] = record["eventSource"].clone();
    flat
}

fn firehose_record(id: &str, body: &str) -> Value {
    json!({"recordId": id, "approximateArrivalTimestamp": NOW, "data": BASE64_STANDARD.encode(body)})
}

fn firehose(records: &[Value]) -> Value {
    json!({"invocationId": "i", "deliveryStreamArn": "arn:aws:firehose:x", "region": "x", "records": records})
}

fn sns(id: &str, message: &str) -> Value {
    json!({"Records": [{"EventSource": "aws:sns", "Sns": {"Type": "Notification", "MessageId": id, "TopicArn": "arn:t",
        "Timestamp": "2026-03-10T12:00:30.000Z", "Message": message}}]})
}

fn bus(id: &str, detail: &Value) -> Value {
    json!({"version": "0", "id": id, "detail-type": "t", "source": "shop", "time": "2026-03-10T12:00:30Z",
        "detail": detail})
}

fn uuids(output: &RefusingOutput) -> Vec<String> {
    sent(output).iter().map(|event| event["uuid"].as_str().unwrap().to_owned()).collect()
}

async fn in_pipe(function: &Function, role: PipeRole, records: &[Value]) -> Result<Value, HandlerError> {
    let payload = json!(records).to_string();
    let answer = function.handle_in_pipe(role, "", &payload, NOW + 60_000).await?;
    Ok(serde_json::from_str(&answer).unwrap())
}

#[tokio::test]
async fn a_shard_is_delivered_again_from_its_first_failed_record_on() {
    let mut function = function();
    let records = [
        kinesis_record(98, &event("a").to_string()),
        kinesis_record(99, "garbage"),
        kinesis_record(100, &json!([event("b"), event("down")]).to_string()),
        kinesis_record(101, "garbage too"),
        kinesis_record(102, &event("c").to_string()),
    ];
    let stopped = json!({"batchItemFailures": [{"itemIdentifier": "100"}]});
    assert_eq!(handle(&function, &json!({"Records": records})).await, stopped);
    assert_eq!(uuids(&function.output), ["e-a"]);
    let rejects = sent(&function.rejects);
    assert_eq!((rejects.len(), &rejects[0]["source"], &rejects[0]["message_id"]), (1, &json!("kinesis"), &json!("99")));
    // Lambda delivers the shard from there on again. A line that the output refuses stops it, too.
    function.output.refused = Some("e-c");
    let again = [kinesis_record(101, "garbage too"), kinesis_record(102, &event("c").to_string())];
    let stopped = json!({"batchItemFailures": [{"itemIdentifier": "102"}]});
    assert_eq!(handle(&function, &json!({"Records": again})).await, stopped);
    function.output.refused = None;
    assert_eq!(handle(&function, &json!({"Records": again[1..]})).await, json!({"batchItemFailures": []}));
    assert_eq!(uuids(&function.output), ["e-c"]);
}

/// A record that can never succeed blocks nothing, whatever is wrong with it.
#[tokio::test]
async fn bad_records_never_block_a_shard() {
    let function = function();
    let mut not_base64 = kinesis_record(1, "");
    not_base64["kinesis"]["data"] = json!("=!");
    let bomb = "[".repeat(40_000);
    let records = [
        not_base64,
        kinesis_record(2, ""),
        kinesis_record(3, "\u{1f}\u{8b}"),
        kinesis_record(4, &bomb),
        json!({"eventSource": "aws:kinesis", "eventID": "shardId-000000000000:5", "kinesis": {"sequenceNumber": "5"}}),
        json!(7),
        kinesis_record(6, &event("a").to_string()),
    ];
    assert_eq!(handle(&function, &json!({"Records": records})).await, json!({"batchItemFailures": []}));
    assert_eq!(uuids(&function.output), ["e-a"]);
    assert_eq!(sent(&function.rejects).len(), 6);
}

/// Large records are worked on in chunks; after a failure, later chunks of the shard are not started.
#[tokio::test]
async fn a_large_batch_of_a_shard_stops_in_its_chunk() {
    let function = function();
    let body = |n: u32| match n {
        10 => event("down").to_string(),
        _ => format!("{}{}", event(&format!("v{n}")), " ".repeat(900_000)),
    };
    let records: Vec<Value> = (0..60).map(|n| kinesis_record(n, &body(n))).collect();
    let stopped = json!({"batchItemFailures": [{"itemIdentifier": "10"}]});
    assert_eq!(handle(&function, &json!({"Records": records})).await, stopped);
    assert_eq!(uuids(&function.output).len(), 10);
    assert!(function.manager.get_by_user(&Visitor::new("v59")).await.is_err());
}

/// Events without id and time: a redelivery brings the same ones, another record brings others.
#[tokio::test]
async fn redeliveries_are_duplicates_and_other_records_are_not() {
    let heartbeat = json!({"event": "heartbeat", "distinct_id": "u"});
    let text = heartbeat.to_string();
    let kinesis = |n| json!({"Records": [kinesis_record(n, &text)]});
    // Another invocation has another position for the same record.
    let behind = json!({"Records": [kinesis_record(7, "x"), kinesis_record(1, &text)]});
    for (name, first, again, other) in [
        ("kinesis", kinesis(1), behind, kinesis(2)),
        ("sns", sns("1", &text), sns("1", &text), sns("2", &text)),
        ("bus", bus("1", &heartbeat), bus("1", &heartbeat), bus("2", &heartbeat)),
    ] {
        let function = function();
        let mut ids = Vec::new();
        for payload in [first, again, other] {
            handle(&function, &payload).await;
            ids.extend(uuids(&function.output));
        }
        assert_eq!(ids.len(), 3, "{name}");
        assert!(ids[0] == ids[1] && ids[1] != ids[2], "{name}: {ids:?}");
    }
    // A Firehose record has an id of its own, and so has its retry.
    let function = function();
    let mut ids = Vec::new();
    for id in ["1", "1", "2"] {
        let answer = handle(&function, &firehose(&[firehose_record(id, &text)])).await;
        let line = BASE64_STANDARD.decode(answer["records"][0]["data"].as_str().unwrap()).unwrap();
        let line: Value = serde_json::from_slice(&line).unwrap();
        ids.push(line["uuid"].as_str().unwrap().to_owned());
    }
    assert!(ids[0] == ids[1] && ids[1] != ids[2], "{ids:?}");
}

/// Returns the start of the session of the visitor `u`, whose only event has no time.
async fn started(payload: &Value) -> Millis {
    let function = function();
    function.handle(&payload.to_string(), NOW + 60_000).await.unwrap();
    function.manager.get_by_user(&Visitor::new("u")).await.unwrap().started_at.timestamp_millis()
}

#[tokio::test]
async fn an_event_without_a_time_happened_when_its_source_received_it() {
    let own = json!({"event": "x", "distinct_id": "u"});
    let mut stamped = own.clone();
    stamped["received_at"] = json!("2026-03-10T11:59:00Z");
    let mut kinesis = kinesis_record(1, &own.to_string());
    kinesis["kinesis"]["approximateArrivalTimestamp"] = json!(1_773_144_030.5);
    let mut early = firehose_record("1", &own.to_string());
    early["approximateArrivalTimestamp"] = json!(1_773_144_030_000_i64);
    for (payload, wanted) in [
        (json!({"Records": [kinesis]}), NOW - 29_500),
        (json!({"Records": [kinesis_record(1, &stamped.to_string())]}), NOW - 120_000),
        (firehose(&[early]), NOW - 30_000),
        (firehose(&[firehose_record("1", &stamped.to_string())]), NOW - 120_000),
        (sns("1", &own.to_string()), NOW - 30_000),
        (sns("1", &stamped.to_string()), NOW - 120_000),
        (bus("1", &own), NOW - 30_000),
        (bus("1", &stamped), NOW - 120_000),
    ] {
        assert_eq!(started(&payload).await, wanted, "{payload}");
    }
}

/// Nobody reads the answer of an asynchronous invocation. Only a failed invocation is retried.
#[tokio::test]
async fn an_asynchronous_invocation_fails_when_a_retry_may_help() {
    let mut function = function();
    let down = json!({"events": [event("b"), event("down")]});
    for (payload, fails) in [
        (sns("1", &event("a").to_string()), false),
        (sns("2", "garbage"), false),
        (sns("3", ""), false),
        (sns("4", &down.to_string()), true),
        (bus("5", &event("a")), false),
        (bus("6", &json!({})), false),
        (bus("7", &down), true),
        (json!({"Records": [{"EventSource": "aws:sns"}]}), false),
    ] {
        let handled = function.handle(&payload.to_string(), NOW + 60_000).await;
        assert_eq!(handled.is_err(), fails, "{payload}: {handled:?}");
        if let Err(error) = handled {
            assert!(
                error.to_string().contains("storage_unavailable") && !error.to_string().contains("secret"),
                "{error}"
            );
        }
    }
    assert_eq!(uuids(&function.output), ["e-a", "e-a"]);
    let sources: Vec<Value> = sent(&function.rejects).iter().map(|reject| reject["source"].clone()).collect();
    assert_eq!(sources, ["sns", "sns", "eventbridge", "sns"]);
    // A line that is not accepted is sent again by the retry.
    function.rejects.refused = Some("garbage");
    assert!(function.handle(&sns("8", "garbage").to_string(), NOW + 60_000).await.is_err());
}

#[tokio::test]
async fn firehose_is_told_what_became_of_each_record() {
    let mut function = function();
    function.rejects.refused = Some("refused");
    let records = [
        firehose_record("ok", &json!([event("a"), event("b"), 7]).to_string()),
        firehose_record("down", &json!([event("c"), event("down")]).to_string()),
        firehose_record("bad", "7"),
        firehose_record("refused", &json!([event("d"), "refused"]).to_string()),
        firehose_record("empty", "[]"),
        json!({}),
    ];
    let answer = handle(&function, &firehose(&records)).await;
    let answered: Vec<(&str, &str)> = answer["records"]
        .as_array()
        .unwrap()
        .iter()
        .map(|record| (record["recordId"].as_str().unwrap(), record["result"].as_str().unwrap()))
        .collect();
    let wanted = [
        ("ok", "Ok"),
        ("down", "ProcessingFailed"),
        ("bad", "ProcessingFailed"),
        ("refused", "ProcessingFailed"),
        ("empty", "Dropped"),
        ("", "Dropped"),
    ];
    assert_eq!(answered, wanted);
    let data = |at: usize| BASE64_STANDARD.decode(answer["records"][at]["data"].as_str().unwrap()).unwrap();
    let lines = String::from_utf8(data(0)).unwrap();
    assert!(lines.ends_with("}\n") && lines.lines().count() == 2, "{lines}");
    assert_eq!(data(1), json!([event("c"), event("down")]).to_string().as_bytes(), "what was received");
    // The answer has the annotated events, so the output has none.
    assert_eq!(sent(&function.output).len(), 0);
    let codes: Vec<Value> = sent(&function.rejects).iter().map(|reject| reject["code"].clone()).collect();
    assert_eq!(codes, ["not_an_object", "not_an_object", "no_events", "no_events"]);
}

#[tokio::test]
async fn an_answer_to_firehose_is_at_most_six_megabytes() {
    let function = function();
    // Small events, which grow most.
    let body = |n: usize| (0..400).map(|i| event(&format!("{n}-{i}")).to_string()).collect::<Vec<_>>().join("\n");
    let records: Vec<Value> = (0..40).map(|n| firehose_record(&n.to_string(), &body(n))).collect();
    let answer = function.handle(&firehose(&records).to_string(), NOW + 60_000).await.unwrap();
    assert!((5_000_000..6 * 1024 * 1024).contains(&answer.len()), "{}", answer.len());
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let answered = answer["records"].as_array().unwrap();
    assert_eq!(answered.len(), 40);
    let results: Vec<&str> = answered.iter().map(|record| record["result"].as_str().unwrap()).collect();
    assert!(results.contains(&"Ok") && results.contains(&"ProcessingFailed"), "{results:?}");
}

#[tokio::test]
async fn an_enrichment_answers_each_record_and_fails_as_a_whole() {
    let function = function();
    let good = kinesis_record(1, &json!([event("a"), event("b")]).to_string());
    let records = [flat(&good), flat(&kinesis_record(2, "garbage")), flat(&kinesis_record(3, ""))];
    let answer = in_pipe(&function, PipeRole::Enrichment, &records).await.unwrap();
    let answer = answer.as_array().unwrap();
    assert_eq!(answer.len(), 3);
    assert_eq!(answer[0]["events"].as_array().unwrap().len(), 2);
    assert_eq!(answer[1]["error"]["code"], "nothing_usable");
    assert_eq!(answer[2]["error"]["code"], "no_events");
    assert_eq!((sent(&function.output).len(), sent(&function.rejects).len()), (0, 2));
    let down = [flat(&good), flat(&kinesis_record(4, &event("down").to_string()))];
    let error = in_pipe(&function, PipeRole::Enrichment, &down).await.unwrap_err();
    assert!(error.to_string().starts_with("1 of 3 events may not be applied (storage_unavailable)"), "{error}");
}

/// A batch whose answer is too large fails before all of it is decompressed.
#[tokio::test]
async fn an_enrichments_answer_is_bounded() {
    let function = function();
    let large = |n: u32| {
        let pad = json!({"uuid": format!("e-{n}"), "event": "x", "distinct_id": "a", "pad": "x".repeat(30_000)});
        kinesis_record(n, &vec![pad.to_string(); 20].join("\n"))
    };
    let records: Vec<Value> = (0..12).map(|n| flat(&large(n))).collect();
    let error = in_pipe(&function, PipeRole::Enrichment, &records).await.unwrap_err();
    assert!(error.to_string().contains("set a smaller batch size"), "{error}");
}

#[tokio::test]
async fn a_target_reports_what_failed_and_sends_the_rest_to_the_output() {
    let function = function();
    let queue = [
        record("m1", None, &event("a").to_string()),
        record("m2", None, &event("down").to_string()),
        record("m3", None, &event("b").to_string()),
    ];
    let answer = in_pipe(&function, PipeRole::Target, &queue).await.unwrap();
    assert_eq!(answer, json!({"batchItemFailures": [{"itemIdentifier": "m2"}]}));
    assert_eq!(uuids(&function.output), ["e-a", "e-b"]);
    let stream = [1, 2, 3].map(|n| flat(&kinesis_record(n, &event(if n == 2 { "down" } else { "c" }).to_string())));
    let answer = in_pipe(&function, PipeRole::Target, &stream).await.unwrap();
    assert_eq!(answer, json!({"batchItemFailures": [{"itemIdentifier": "2"}]}));
    assert_eq!(uuids(&function.output), ["e-c"]);
}

#[tokio::test]
async fn a_load_balancer_gets_an_answer_of_its_form() {
    let request = |headers: &str| {
        json!({"requestContext": {"elb": {"targetGroupArn": "arn"}}, "httpMethod": "POST", "path": "/events",
            headers: {}, "body": event("a").to_string(), "isBase64Encoded": false})
    };
    let answer = handle(&function(), &request("headers")).await;
    assert_eq!(answer["statusDescription"], "200 OK");
    assert_eq!(
        (&answer["headers"]["content-type"], answer.get("multiValueHeaders")),
        (&json!("application/json"), None)
    );
    let answer = handle(&function(), &request("multiValueHeaders")).await;
    assert_eq!(
        (&answer["multiValueHeaders"]["content-type"][0], answer.get("headers")),
        (&json!("application/json"), None)
    );
    assert_eq!(answer["isBase64Encoded"], false);
    // It checks no credentials, so that nobody reads or ends sessions through it.
    for (method, path) in [("GET", "/sessions/x"), ("POST", "/sessions/x/end")] {
        let mut request = request("headers");
        (request["httpMethod"], request["path"]) = (json!(method), json!(path));
        assert_eq!(handle(&function(), &request).await["statusCode"], 403, "{path}");
    }
}
