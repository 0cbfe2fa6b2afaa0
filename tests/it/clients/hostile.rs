//! Requests that no client sends: any bytes, nested compression, large bodies, failing stores and outputs.

use std::io::Write;

use base64::prelude::{BASE64_STANDARD, Engine};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};
use session_tracking::config::SessionConfig;
use session_tracking::manager::SessionManager;
use session_tracking::output::{MemoryOutput, Output};
use session_tracking::storage::InMemorySessionStorage;
use session_tracking::trigger::Ingest;

use super::World;
use super::request::{CLIENTS, Payload, Recorded, recordings};
use crate::support::ManualClock;

const NOON: i64 = 1_773_144_000_000;
/// A path of each client that takes events by POST.
const PATHS: [&str; 12] = [
    "/batch/",
    "/e/",
    "/i/v0/e/",
    "/i/v1/analytics/events",
    "/v1/batch",
    "/v1/track",
    "/beacon/v1/batch",
    "/com.snowplowanalytics.snowplow/tp2",
    "/track/",
    "/import",
    "/2/httpapi",
    "/matomo.php",
];

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn form(bytes: &[u8]) -> Vec<u8> {
    let value: String = url::form_urlencoded::byte_serialize(bytes).collect();
    format!("ip=1&data={value}").into_bytes()
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    BASE64_STANDARD.encode(bytes).into_bytes()
}

/// Sends a body to a path and returns the answer's envelope.
fn send(world: &World<'_>, method: &str, path: &str, query: &str, body: &[u8]) -> Value {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(world.send(&Recorded::new(method, path, query, body), Payload::Two, NOON))
}

/// Checks an answer of a store and outputs that work: a client must not be told that the service failed, nor lose its batch or its
/// process by a 4xx.
fn check(answer: &Value) -> Result<(), TestCaseError> {
    let status = answer["statusCode"].as_u64().unwrap();
    prop_assert!(matches!(status, 200 | 204), "{answer}");
    Ok(())
}

/// JSON that looks like that of clients, with wrong values in any place.
fn client_json() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        ".{0,8}".prop_map(Value::from),
        Just(json!("2026-03-10T11:59:00Z")),
    ];
    let name = prop::sample::select(vec![
        "batch",
        "events",
        "event",
        "event_type",
        "properties",
        "event_properties",
        "distinct_id",
        "$device_id",
        "anonymousId",
        "userId",
        "device_id",
        "user_id",
        "type",
        "context",
        "page",
        "campaign",
        "timestamp",
        "sent_at",
        "sentAt",
        "offset",
        "time",
        "uuid",
        "messageId",
        "data",
        "requests",
        "e",
        "duid",
        "co",
        "ue_pr",
        "$session_id",
        "session_id",
        "library",
        "a",
        "",
    ]);
    let value = scalar.prop_recursive(5, 40, 6, move |inner| {
        let members = vec((name.clone(), inner.clone()), 0..6);
        prop_oneof![
            vec(inner, 0..5).prop_map(Value::from),
            members.prop_map(|members| members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        ]
    });
    value.prop_map(|value| value.to_string())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_answered(path in prop::sample::select(&PATHS[..]), body in vec(any::<u8>(), 0..200), layers in 0..64) {
        let clock = ManualClock::default();
        let world = World::new(&clock);
        let mut body = body;
        for (bit, encode) in [gzip, zlib, base64, form].into_iter().enumerate() {
            if layers & (1 << bit) != 0 {
                body = encode(&body);
            }
        }
        check(&send(&world, "POST", path, "", &body))?;
        let query = String::from_utf8_lossy(&body).into_owned();
        for path in ["/i", "/track", "/e/", "/matomo.php"] {
            check(&send(&world, "GET", path, &query, b""))?;
        }
    }

    #[test]
    fn any_json_is_answered_and_every_event_comes_out_or_is_rejected(path in prop::sample::select(&PATHS[..]), json in client_json()) {
        let clock = ManualClock::default();
        let world = World::new(&clock);
        check(&send(&world, "POST", path, "", json.as_bytes()))?;
        for line in world.lines() {
            prop_assert!(line["event"].is_string() && line["distinct_id"].is_string() && line["properties"].is_object());
        }
        for line in world.ingest.rejects.take() {
            let line: Value = serde_json::from_str(&line).unwrap();
            prop_assert!(line["code"].is_string() && !line["message"].as_str().unwrap().contains('\n'));
        }
    }

    /// A recorded body, with a few of its bytes changed.
    #[test]
    fn damaged_recordings_are_answered(
        client in prop::sample::select(&CLIENTS[..]),
        index in any::<prop::sample::Index>(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let recordings = recordings(client);
        let recorded = index.get(&recordings);
        let mut body = recorded.body();
        if !body.is_empty() {
            for (at, byte) in damage {
                let at = at.index(body.len());
                body[at] = byte;
            }
        }
        let clock = ManualClock::default();
        let world = World::new(&clock);
        check(&send(&world, &recorded.method, &recorded.path, recorded.query.as_deref().unwrap_or_default(), &body))?;
    }
}

#[test]
fn encodings_are_removed_in_any_order() {
    let event = br#"{"batch":[{"event":"x","distinct_id":"u"}]}"#;
    let bodies = [
        gzip(event),
        zlib(event),
        form(event),
        form(&base64(event)),
        form(&base64(&gzip(event))),
        base64(event),
        base64(&gzip(event)),
        gzip(&form(event)),
        gzip(&gzip(event)),
        [b"\xef\xbb\xbf ", &event[..]].concat(),
    ];
    for body in bodies {
        let clock = ManualClock::default();
        let world = World::new(&clock);
        send(&world, "POST", "/e/", "", &body);
        assert_eq!(world.lines().len(), 1, "{:?}", String::from_utf8_lossy(&body));
    }
}

/// Compressed once, twice and three times, they have far more bytes than may be decompressed.
#[test]
fn bombs_are_not_decompressed() {
    let bomb = gzip(&vec![b' '; 200 * 1024 * 1024]);
    for body in [bomb.clone(), gzip(&bomb), form(&base64(&bomb))] {
        for (path, status) in
            [("/batch/", 413), ("/2/httpapi", 413), ("/track/", 413), ("/v1/batch", 200), ("/matomo.php", 200)]
        {
            let clock = ManualClock::default();
            let world = World::new(&clock);
            assert_eq!(send(&world, "POST", path, "", &body)["statusCode"], status, "{path}");
            let rejects = world.ingest.rejects.take();
            assert_eq!(rejects.len(), usize::from(status == 200), "{path}");
        }
    }
}

#[test]
fn the_largest_batches_of_the_clients_are_taken() {
    let clock = ManualClock::default();
    let world = World::new(&clock);
    // Five megabytes in a hundred events, as PostHog's Python client sends them.
    let event = |index: usize| json!({"event": "x", "uuid": format!("e{index}"), "distinct_id": "u", "properties": {"a": "x".repeat(51_000)}});
    let batch: Vec<Value> = (0..100).map(event).collect();
    let body = json!({"api_key": "k", "batch": batch}).to_string();
    assert!(body.len() > 5_000_000);
    assert_eq!(send(&world, "POST", "/batch/", "", body.as_bytes())["statusCode"], 200);
    let lines = world.lines();
    assert_eq!(lines.len(), 100);
    assert!(lines.iter().all(|line| line["properties"]["a"].as_str().unwrap().len() == 51_000));
    assert_eq!(lines[99]["properties"]["$session_number"], 1);
    // More events than a request may have.
    let many = vec!["{\"event\":\"x\",\"distinct_id\":\"u\"}"; 10_001].join(",");
    for (path, status) in [("/track", 413), ("/e/", 413)] {
        assert_eq!(send(&world, "POST", path, "", format!("[{many}]").as_bytes())["statusCode"], status, "{path}");
    }
    let many = vec!["{\"type\":\"track\",\"event\":\"x\",\"userId\":\"u\"}"; 10_001].join(",");
    assert_eq!(send(&world, "POST", "/v1/batch", "", format!("{{\"batch\":[{many}]}}").as_bytes())["statusCode"], 200);
    assert_eq!(world.ingest.rejects.take().len(), 1);
}

/// Bodies of the largest size that consist of as many values as possible. Nothing is made of them before their number is known.
#[test]
fn bodies_of_millions_of_values_are_refused() {
    let array = |start: &str, end: &str| format!("{start}[{}0]{end}", "0,".repeat(3_000_000));
    let members: Vec<String> = (0..500_000).map(|index| format!("\"{index}\":0")).collect();
    let object = format!("{{\"event\":\"x\",\"distinct_id\":\"u\",{}}}", members.join(","));
    for (path, body, status) in [
        ("/e/", array("", ""), 413),
        ("/batch", array("{\"batch\":", "}"), 413),
        ("/batch", array("{\"events\":", "}"), 413),
        ("/track", array("", ""), 413),
        ("/import", "0\n".repeat(3_000_000), 413),
        ("/v1/batch", array("{\"batch\":", "}"), 200),
        ("/com.snowplowanalytics.snowplow/tp2", array("{\"data\":", "}"), 200),
        ("/matomo.php", array("{\"requests\":", "}"), 200),
        ("/matomo.php", (0..500_000).map(|index| format!("{index}=0&")).collect(), 200),
        ("/e/", object.clone(), 200),
        ("/v1/track", object, 200),
    ] {
        let clock = ManualClock::default();
        let world = World::new(&clock);
        assert_eq!(send(&world, "POST", path, "", body.as_bytes())["statusCode"], status, "{path}");
        let rejects = world.ingest.rejects.take();
        assert_eq!(rejects.len(), usize::from(status == 200), "{path}");
        assert!(rejects.iter().all(|line| line.contains("\"too_large\"") && line.len() < 256 * 1024), "{path}");
    }
}

/// An event that is larger than ours may be keeps all its properties, and its session is found by those that are read.
#[test]
fn large_events_are_taken_whole() {
    let send_event = |bytes: usize, more: Value| {
        let clock = ManualClock::default();
        let world = World::new(&clock);
        let mut properties = json!({
            "text": "x".repeat(bytes),
            "$current_url": "https://shop.test/?utm_source=news",
            "$referrer": "https://www.search.test/",
            "nested": {"a": [1.50, null]},
        });
        properties.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let body = json!({"event": "$pageview", "distinct_id": "u", "properties": properties}).to_string();
        assert_eq!(send(&world, "POST", "/e/", "", body.as_bytes())["statusCode"], 200);
        let code = |line: &String| serde_json::from_str::<Value>(line).unwrap()["code"].as_str().unwrap().to_owned();
        (properties, world.lines().pop(), world.ingest.rejects.take().iter().map(code).next())
    };
    for bytes in [10, 30_000, 31_500, 32_768, 65_536, 190_000] {
        let (properties, line, _) = send_event(bytes, json!({}));
        let line = line.unwrap();
        for (name, value) in properties.as_object().unwrap() {
            assert_eq!(&line["properties"][name], value, "{bytes}: {name}");
        }
        assert_eq!(line["properties"]["$entry_url"], properties["$current_url"], "{bytes}");
        assert!(line.to_string().len() < 256 * 1024);
    }
    assert_eq!(send_event(210_000, json!({})).2.as_deref(), Some("too_large"));
    let mut deep = json!(1);
    for _ in 0..40 {
        deep = json!([deep]);
    }
    assert_eq!(send_event(50_000, json!({"deep": deep})).2.as_deref(), Some("too_deep"));
    assert_eq!(send_event(50_000, json!({"bad": "\0"})).2.as_deref(), Some("nul_character"));
    // U+FFFF takes twice as many bytes in a queue.
    assert_eq!(send_event(10, json!({"wide": "\u{ffff}".repeat(60_000)})).2.as_deref(), Some("too_large"));
}

/// An output that refuses lines that contain a word.
struct Refusing(MemoryOutput, Option<&'static str>);

impl Output for Refusing {
    async fn send(&self, lines: &[String]) -> Vec<usize> {
        let is_refused = |line: &str| self.1.is_some_and(|word| line.contains(word));
        let taken: Vec<String> = lines.iter().filter(|line| !is_refused(line)).cloned().collect();
        self.0.send(&taken).await;
        (0..lines.len()).filter(|&index| is_refused(&lines[index])).collect()
    }
}

/// What an output does not take, the client has to send again: all of it, or by PostHog's v1 only that.
#[tokio::test]
async fn what_is_not_sent_on_is_asked_for_again() {
    let body = r#"{"batch":[{"uuid":"5e551011-0000-4000-8000-000000000001","event":"good","distinct_id":"u"},
        {"uuid":"5e551011-0000-4000-8000-000000000002","event":"refused","distinct_id":"u"},{"uuid":"3","event":"faulty"}]}"#;
    let result = |answer: &Value, id: &str| {
        let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        body["results"][id]["result"].clone()
    };
    for (events, rejects, status) in [(None, None, 200), (Some("refused"), None, 503), (None, Some("faulty"), 503)] {
        let clock = ManualClock::default();
        let manager = SessionManager::with_clock(SessionConfig::default(), InMemorySessionStorage::new(), &clock);
        clock.set(NOON);
        let output = Refusing(MemoryOutput::default(), events);
        let ingest = Ingest {
            manager,
            output,
            rejects: Refusing(MemoryOutput::default(), rejects),
            origins: Default::default(),
            public: Default::default(),
        };
        let send = async |path: &str| -> Value {
            let payload = Recorded::new("POST", path, "", body).payload(Payload::Two, NOON);
            serde_json::from_str(&ingest.handle(&payload, i64::MAX).await.unwrap()).unwrap()
        };
        let answer = send("/batch/").await;
        assert_eq!(answer["statusCode"], status);
        assert_eq!(answer["headers"]["retry-after"].is_string(), status == 503);
        // Those that could be sent on are, because a beacon never comes again.
        assert!(ingest.output.0.take().iter().any(|line| line.contains("\"good\"")));
        let named = send("/i/v1/analytics/events").await;
        assert_eq!(named["statusCode"], 200, "{named}");
        assert_eq!(result(&named, "5e551011-0000-4000-8000-000000000001"), "ok");
        let of_refused = if events.is_some() { "retry" } else { "ok" };
        assert_eq!(result(&named, "5e551011-0000-4000-8000-000000000002"), of_refused);
        assert_eq!(result(&named, "3"), if rejects.is_some() { "retry" } else { "drop" });
    }
}
