//! The peak memory (VmHWM) of the real `ingest` at its largest input, its own pages included. It is printed by
//! `cargo test --test it memory -- --nocapture`.

use std::io::Write;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use session_tracking::clock::{Clock, SystemClock};

use crate::binaries::{INGEST, variables};
use crate::dynamodb::EmbeddedDynamoDb;
use crate::fake_runtime::{Function, RuntimeEvent};

/// The maximum memory for a queue batch, of the function's 512 MB, in bytes.
const MAX_PEAK_BYTES: usize = 200_000_000;
/// A hundred megabytes take long in a binary that is not optimized, on a busy machine.
const MAX_WAIT: Duration = Duration::from_secs(900);
const MESSAGES: usize = 100;
const EVENTS: usize = 1_000;

/// Returns a compressed message of the largest size: the maximum number of events, of `event_bytes` bytes each.
fn body(message: usize, event_bytes: usize) -> String {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    for event in 0..EVENTS {
        let head = format!(
            r#"{{"uuid":"{message}-{event}","event":"$pageview","distinct_id":"v{}","properties":{{"$current_url":"https://shop.test/{event}","text":""#,
            event % 200
        );
        let line = format!("{head}{}\"}}}}\n", "x".repeat(event_bytes.saturating_sub(head.len() + 4)));
        encoder.write_all(line.as_bytes()).unwrap();
    }
    BASE64_STANDARD.encode(encoder.finish().unwrap())
}

fn payload(event_bytes: usize) -> String {
    let attribute = |value: &str| json!({ "stringValue": value, "dataType": "String" });
    let record = |message: usize| {
        json!({
            "messageId": message.to_string(), "body": body(message, event_bytes), "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:x:1:q",
            "attributes": { "SentTimestamp": SystemClock.now().to_string() },
            "messageAttributes": {
                "content-encoding": attribute("gzip"), "content-type": attribute("application/x-ndjson"),
            },
        })
    };
    let payload = json!({ "Records": (0..MESSAGES).map(record).collect::<Vec<_>>() }).to_string();
    assert!(payload.len() < 6 * 1024 * 1024, "a payload of Lambda has at most 6 MB: {}", payload.len());
    payload
}

/// Returns the peak memory of a process, in bytes.
fn peak(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<usize>().unwrap() * 1024
}

type Lines = std::sync::Arc<std::sync::Mutex<usize>>;

/// A queue that takes all messages and counts their lines.
async fn send_message_batch(State(lines): State<Lines>, body: String) -> String {
    let request: Value = serde_json::from_str(&body).unwrap();
    let entries = request["Entries"].as_array().unwrap();
    let count = |entry: &Value| entry["MessageBody"].as_str().unwrap().lines().count();
    *lines.lock().unwrap() += entries.iter().map(count).sum::<usize>();
    let taken = |entry: &Value| json!({ "Id": entry["Id"], "MessageId": "m", "MD5OfMessageBody": "x" });
    json!({ "Successful": entries.iter().map(taken).collect::<Vec<_>>() }).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_batch_of_a_queue_takes_less_than_200_mb() {
    let database = EmbeddedDynamoDb::start(0).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let lines = Lines::default();
    let router =
        Router::new().fallback(send_message_batch).layer(DefaultBodyLimit::disable()).with_state(lines.clone());
    tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
    let queue = format!("{endpoint}/1/out");
    // Events of the largest average size, and as many small ones.
    for (event_bytes, is_queue) in [(1_045, true), (200, false)] {
        let mut variables = variables(&database.endpoint);
        // As in `template.yaml`.
        variables.extend([("MALLOC_MMAP_THRESHOLD_", "524288"), ("MALLOC_TRIM_THRESHOLD_", "4194304")]);
        if is_queue {
            variables.retain(|(name, _)| *name != "OUTPUT");
            variables.extend([("OUTPUT", queue.as_str()), ("AWS_ENDPOINT_URL_SQS", endpoint.as_str())]);
        }
        let mut function = Function::start(INGEST, &variables).await;
        let payload = payload(event_bytes);
        function.deliver(payload, MAX_WAIT).await;
        let answer = function.next_event_within(MAX_WAIT).await;
        assert_eq!(answer, RuntimeEvent::Answer(r#"{"batchItemFailures":[]}"#.to_owned()));
        let peak = peak(function.id());
        println!(
            "100 compressed messages of 1,000 events of {event_bytes} bytes, to {}: {} MB",
            if is_queue { "a queue" } else { "standard output" },
            peak / 1_000_000
        );
        assert!(peak < MAX_PEAK_BYTES, "{peak} bytes");
        let printed = function.kill().lines.len();
        let sent = std::mem::take(&mut *lines.lock().unwrap());
        assert_eq!(if is_queue { sent } else { printed }, MESSAGES * EVENTS);
    }
}
