//! Bounds of what a recording can cause: how deep it is, and how many objects it makes.

use serde_json::{Value, json};

use super::{MINUTE, T0, World, gzip, replay_event, request};

const DAY: i64 = 24 * 60 * MINUTE;

/// Returns gzip as a recorder writes it: a string with a character for each byte.
fn packed(json: &str) -> String {
    gzip(json.as_bytes()).into_iter().map(char::from).collect()
}

/// What is decompressed has the same bounds as what is not. Otherwise one event makes a replay unreadable.
#[tokio::test]
async fn a_compressed_event_is_nested_no_deeper_than_another_one() {
    let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    let whole = |levels: usize| json!({"type": 2, "cv": "2024-10", "timestamp": T0, "data": packed(&nested(levels))});
    let member = |levels: usize| json!({"type": 3, "cv": "2024-10", "timestamp": T0 + 1, "data": {"source": 0, "adds": packed(&nested(levels))}});
    let world = World::new();
    let session = world.view("ada", T0, "/").await;
    for deep in [whole(127), member(127), member(126)] {
        let answer = world.send(json!([replay_event("ada", &[deep]), {"event": "a", "distinct_id": "ada"}])).await;
        assert_eq!(answer["events"].as_array().unwrap().len(), 1, "{answer}");
        let rejected = &answer["rejected"][0];
        assert_eq!(rejected["code"], "invalid_replay");
        assert!(rejected["message"].as_str().unwrap().contains("nested deeper than 128 levels"), "{rejected}");
    }
    world.record("ada", &[whole(126), member(125)]).await;
    // A parser with the same bound cannot read the whole answer.
    let request = request("GET", &format!("/v1/sessions/{session}/replay"), "", "", true);
    let answer = world.handle(&request).await;
    let page = answer["body"].as_str().unwrap();
    assert_eq!(answer["statusCode"], 200, "{page}");
    assert!(page.contains(&nested(126)) && page.contains(&nested(125)));
}

/// Half of a character costs the recording as little in what is compressed.
#[tokio::test]
async fn half_of_a_character_is_replaced_in_what_is_compressed() {
    let world = World::new();
    let session = world.view("ada", T0, "/").await;
    let texts = packed(r#"[{"id":1,"value":"a \ud83d b \ud83d\ude00"}]"#);
    world
        .record("ada", &[json!({"type": 3, "cv": "2024-10", "timestamp": T0, "data": {"source": 0, "texts": texts}})])
        .await;
    let found = world.replay(&session).await;
    assert_eq!(found[0]["data"]["texts"][0]["value"], "a \u{fffd} b \u{1f600}");
}

/// Each stretch of ten minutes is an object of its own, and storing one costs as much as storing several visitors. So a request
/// without credentials cannot cause thousands of them.
#[tokio::test]
async fn the_stretches_of_a_request_are_bounded() {
    let world = World::new();
    let session = world.view("ada", T0 - DAY, "/").await;
    let every = |count: i64, apart: i64| -> Vec<Value> {
        (0..count).map(|n| json!({"timestamp": T0 - DAY + n * apart, "event_type": "custom"})).collect()
    };
    let chunks = async || world.function.manager.replay_store().unwrap().summary(&"ada".into()).await.unwrap().chunks;
    // Ten thousand events of ten thousand days.
    let scattered: Vec<Value> = (0..10_000).map(|n| json!({"timestamp": n * DAY, "event_type": "custom"})).collect();
    let (status, answer) = world.post("/events", &replay_event("ada", &scattered).to_string()).await;
    assert_eq!((status, &answer["rejected"][0]["code"]), (400, &json!("invalid_replay")), "{answer}");
    assert!(answer["rejected"][0]["message"].as_str().unwrap().contains("stretches of ten minutes"), "{answer}");
    assert_eq!(chunks().await, 0);
    // A day that was recorded offline is kept, as one event or as many.
    world.record("ada", &every(1_441, MINUTE)).await;
    assert_eq!(chunks().await, 131);
    // Events of one request share the bound.
    let halves: Vec<Value> = (0..4).map(|_| replay_event("ben", &every(60, 11 * MINUTE))).collect();
    let answer = world.send(json!(halves)).await;
    assert_eq!((answer["events"].as_array().unwrap().len(), answer["rejected"].as_array().unwrap().len()), (2, 2));
    assert!(!world.replay(&session).await.is_empty());
}
