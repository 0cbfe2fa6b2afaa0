//! What `aws_lambda_events` accepts, the function accepts, and the other way round: its types read every sample and every answer,
//! and payloads that it writes are handled.

use std::fs;
use std::path::PathBuf;

use aws_lambda_events::event::alb::{AlbTargetGroupRequest, AlbTargetGroupResponse};
use aws_lambda_events::event::eventbridge::EventBridgeEvent;
use aws_lambda_events::event::firehose::{
    KinesisFirehoseEvent, KinesisFirehoseEventRecord, KinesisFirehoseResponse, KinesisFirehoseResponseRecordMetadata,
};
use aws_lambda_events::event::kinesis::{KinesisEvent, KinesisEventRecord, KinesisRecord};
use aws_lambda_events::event::sns::{SnsEvent, SnsMessage, SnsRecord};
use aws_lambda_events::event::sqs::{SqsBatchResponse, SqsEvent, SqsMessage};
use aws_lambda_events::event::streams::KinesisEventResponse;
use proptest::prelude::*;
use serde::de::DeserializeOwned;

use super::*;

fn sample(name: &str) -> String {
    fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("events").join(name)).unwrap()
}

fn reads<T: DeserializeOwned>(name: &str) -> Option<String> {
    serde_json::from_str::<T>(&sample(name)).err().map(|error| format!("{name}: {error}"))
}

#[test]
fn its_types_read_our_samples() {
    let faults = [
        reads::<KinesisEvent>("kinesis.json"),
        reads::<KinesisFirehoseEvent>("firehose.json"),
        reads::<SnsEvent>("sns.json"),
        reads::<EventBridgeEvent>("eventbridge.json"),
        reads::<EventBridgeEvent>("eventbridge-batch.json"),
        reads::<EventBridgeEvent>("unknown-eventbridge.json"),
        reads::<AlbTargetGroupRequest>("alb.json"),
        reads::<AlbTargetGroupRequest>("alb-multi-value.json"),
        reads::<SqsEvent>("sqs-standard.json"),
        reads::<SqsEvent>("sqs-fifo.json"),
        reads::<SqsEvent>("sqs-sns.json"),
        reads::<SqsEvent>("sqs-eventbridge.json"),
        reads::<SqsEvent>("sqs-s3-test.json"),
    ];
    // `firehose.json` has data that is not base64, on purpose; their type takes all of a payload or nothing.
    let faults: Vec<String> = faults.into_iter().flatten().collect();
    assert!(
        matches!(faults.as_slice(), [firehose] if firehose.starts_with("firehose.json: Invalid symbol")),
        "{faults:?}"
    );
}

fn answer(payload: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(function().handle(payload, NOW + 60_000)).unwrap()
}

#[test]
fn its_types_read_our_answers() {
    serde_json::from_str::<KinesisEventResponse>(&answer(&sample("kinesis.json"))).unwrap();
    serde_json::from_str::<SqsBatchResponse>(&answer(&sample("sqs-standard.json"))).unwrap();
    for name in ["alb.json", "alb-multi-value.json"] {
        let response: AlbTargetGroupResponse = serde_json::from_str(&answer(&sample(name))).unwrap();
        assert_eq!(response.status_description.as_deref(), Some("200 OK"));
    }
    firehose_response(&answer(&sample("firehose.json")));
}

/// Reads an answer to Firehose. Their type needs `metadata`, which Firehose does not.
fn firehose_response(answer: &str) -> KinesisFirehoseResponse {
    let mut answer: Value = serde_json::from_str(answer).unwrap();
    let metadata = serde_json::to_value(KinesisFirehoseResponseRecordMetadata::default()).unwrap();
    answer["records"].as_array_mut().unwrap().iter_mut().for_each(|record| record["metadata"] = metadata.clone());
    serde_json::from_value(answer).unwrap()
}

/// What a body may be: an event, several in each form, or nothing of use.
fn body() -> impl Strategy<Value = (String, usize)> {
    let event = "[a-c]".prop_map(|visitor| event(&visitor).to_string());
    prop_oneof![
        prop::collection::vec(event.clone(), 1..4).prop_map(|all| (format!("[{}]", all.join(",")), all.len())),
        prop::collection::vec(event.clone(), 1..4).prop_map(|all| (all.join("\n"), all.len())),
        prop::collection::vec(event.clone(), 1..4).prop_map(|all| (all.concat(), all.len())),
        prop::collection::vec(event, 1..4).prop_map(|all| (format!("{{\"events\":[{}]}}", all.join(",")), all.len())),
        "[ -~]{0,20}".prop_map(|text| (format!("<{text}"), 0)),
        Just((String::new(), 0)),
    ]
}

fn text() -> impl Strategy<Value = String> {
    "[ -~é\n\"\\\\]{0,12}"
}

/// Handles a payload that their types wrote. Returns the answer, and how many events came out at the output.
fn handled(payload: &impl serde::Serialize) -> (String, usize) {
    let function = function();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let payload = serde_json::to_string(payload).unwrap();
    let answer = runtime.block_on(function.handle(&payload, NOW + 60_000)).unwrap();
    (answer, sent(&function.output).len())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn generated_kinesis_events_are_handled(bodies in prop::collection::vec((body(), text()), 1..5)) {
        let mut event = KinesisEvent::default();
        for (number, ((body, _), text)) in bodies.iter().enumerate() {
            let mut kinesis = KinesisRecord::default();
            kinesis.data.0 = body.clone().into_bytes();
            (kinesis.partition_key, kinesis.sequence_number) = (text.clone(), number.to_string());
            let mut record = KinesisEventRecord::default();
            record.kinesis = kinesis;
            record.event_source = Some("aws:kinesis".to_owned());
            record.event_id = Some(format!("shardId-0:{number}"));
            event.records.push(record);
        }
        let (answer, events) = handled(&event);
        let response: KinesisEventResponse = serde_json::from_str(&answer).unwrap();
        prop_assert_eq!(response.batch_item_failures, vec![]);
        prop_assert_eq!(events, bodies.iter().map(|((_, events), _)| events).sum::<usize>());
    }

    #[test]
    fn generated_firehose_events_are_handled(bodies in prop::collection::vec(body(), 1..5)) {
        let mut event = KinesisFirehoseEvent::default();
        event.delivery_stream_arn = Some("arn".to_owned());
        for (number, (body, _)) in bodies.iter().enumerate() {
            let mut record = KinesisFirehoseEventRecord::default();
            record.data.0 = body.clone().into_bytes();
            record.record_id = Some(number.to_string());
            event.records.push(record);
        }
        let (answer, _) = handled(&event);
        let response = firehose_response(&answer);
        prop_assert_eq!(response.records.len(), bodies.len());
        for (number, (record, (_, events))) in response.records.iter().zip(&bodies).enumerate() {
            prop_assert_eq!(record.record_id.clone(), Some(number.to_string()));
            let is_ok = record.result.as_deref() == Some("Ok");
            prop_assert_eq!(is_ok, *events > 0);
            if is_ok {
                prop_assert_eq!(record.data.0.split(|&byte| byte == b'\n').count() - 1, *events);
            }
        }
    }

    #[test]
    fn generated_sns_events_are_handled((body, events) in body(), subject in prop::option::of(text())) {
        let mut message = SnsMessage::default();
        (message.sns_message_type, message.message, message.subject) = ("Notification".to_owned(), body, subject);
        let mut record = SnsRecord::default();
        (record.event_source, record.sns) = ("aws:sns".to_owned(), message);
        let mut event = SnsEvent::default();
        event.records.push(record);
        prop_assert_eq!(handled(&event).1, events);
    }

    #[test]
    fn generated_bus_events_are_handled(
        (source, kind, account) in (text(), text(), prop::option::of(text())),
        visitors in prop::collection::vec("[a-c]", 1..4),
    ) {
        let mut bus: EventBridgeEvent = EventBridgeEvent::default();
        (bus.source, bus.detail_type, bus.account) = (source, kind, account);
        bus.detail = json!({"events": visitors.iter().map(|visitor| event(visitor)).collect::<Vec<_>>()});
        prop_assert_eq!(handled(&bus).1, visitors.len());
    }

    #[test]
    fn generated_sqs_events_are_handled(bodies in prop::collection::vec((body(), text()), 1..5)) {
        let mut event = SqsEvent::default();
        for ((body, _), text) in &bodies {
            let mut message = SqsMessage::default();
            (message.body, message.message_id) = (Some(body.clone()), Some(text.clone()));
            message.event_source = Some("aws:sqs".to_owned());
            event.records.push(message);
        }
        let (answer, events) = handled(&event);
        let response: SqsBatchResponse = serde_json::from_str(&answer).unwrap();
        prop_assert_eq!(response.batch_item_failures.len(), 0);
        prop_assert_eq!(events, bodies.iter().map(|((_, events), _)| events).sum::<usize>());
    }

    #[test]
    fn generated_requests_of_a_load_balancer_are_handled((body, events) in body(), agent in "[ -~]{0,12}") {
        let mut request = AlbTargetGroupRequest::default();
        request.http_method = "POST".parse().unwrap();
        (request.path, request.body) = (Some("/events".to_owned()), Some(body));
        request.request_context.elb.target_group_arn = Some("arn".to_owned());
        request.headers.insert("user-agent", agent.parse().unwrap());
        let (answer, _) = handled(&request);
        let response: AlbTargetGroupResponse = serde_json::from_str(&answer).unwrap();
        prop_assert_eq!(response.status_code == 200, events > 0);
    }
}
