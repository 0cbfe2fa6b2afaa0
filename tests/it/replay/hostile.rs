//! Recorded events that cannot be used, that are too many, and a store that fails.

use std::sync::Arc;

use serde_json::{Value, json};
use session_tracking::config::SessionConfig;
use session_tracking::replay::{Inputs, ReplayStore};

use super::{T0, World, change, full, gzip, replay_event, request};

/// Each with the code and a part of the sentence.
#[tokio::test]
async fn what_cannot_be_used_is_rejected_with_a_reason() {
    let deep = format!("{}1{}", "[".repeat(130), "]".repeat(130));
    let deep = format!(
        r#"{{"event":"$replay","distinct_id":"ada","properties":{{"$replay_events":[{{"type":2,"timestamp":1,"data":{deep}}}]}}}}"#
    );
    let event = |recorded: Value| {
        json!({"event": "$replay", "distinct_id": "ada", "properties": {"$replay_events": recorded}}).to_string()
    };
    for (event, code, sentence) in [
        (json!({"event": "$replay", "distinct_id": "ada"}).to_string(), "invalid_replay", "has no `$replay_events`"),
        (json!({"event": "$snapshot", "distinct_id": "ada", "properties": {"$replay_events": []}}).to_string(), "invalid_replay", "has no `$snapshot_data`"),
        (event(Value::Null), "invalid_replay", "has no `$replay_events`"),
        (event(json!("x")), "invalid_replay", "is not an array"),
        (event(json!([])), "invalid_replay", "has no event, or more than 10000"),
        (event(json!(vec![0; 10_001])), "invalid_replay", "has no event, or more than 10000"),
        (event(json!([full(T0, ""), 7])), "invalid_replay", "`$replay_events[1]` is not an object"),
        (event(json!([{"type": 2, "data": {}}])), "invalid_replay", "has no `timestamp` that is a time"),
        (event(json!([{"type": 2, "data": {}, "timestamp": "soon"}])), "invalid_replay", "has no `timestamp`"),
        (event(json!([{"type": 2, "data": {}, "timestamp": -5}])), "invalid_replay", "has no `timestamp`"),
        (event(json!([{"event_type": "smell", "data": {}, "timestamp": T0}])), "invalid_replay", "neither rrweb's `type` nor an `event_type`"),
        (event(json!([{"type": 2, "cv": "2024-10", "data": "no gzip", "timestamp": T0}])), "invalid_replay", "is compressed (`cv`), and damaged"),
        (event(json!([full(T0, ""), many_objects(100_000)])), "invalid_replay", "`$replay_events[1]` has more than 100000 objects and arrays; record less"),
        (event(json!([compressed(&many_objects(100_000))])), "invalid_replay", "or of more than 100000 objects and arrays"),
        (deep, "invalid_replay", "nested deeper than 128 levels"),
        (json!({"event": "$replay", "properties": {"$replay_events": [full(T0, "")]}}).to_string(), "missing_distinct_id", "`distinct_id` is missing"),
        (json!({"event": "$replay", "distinct_id": "ada", "x": "y".repeat(40_000), "properties": {"$replay_events": [full(T0, "")]}}).to_string(), "too_large", "32768"),
    ] {
        let world = World::new();
        // An event beside it is not affected.
        let body = format!(r#"{{"events":[{event},{{"event":"a","distinct_id":"ada"}}]}}"#);
        let (status, answer) = world.post("/events", &body).await;
        assert_eq!((status, answer["events"].as_array().unwrap().len()), (200, 1), "{sentence}");
        let rejected = &answer["rejected"][0];
        assert_eq!((&rejected["index"], &rejected["code"]), (&json!(0), &json!(code)), "{rejected}");
        assert!(rejected["message"].as_str().unwrap().contains(sentence), "{rejected}");
        assert!(world.function.manager.replay_store().unwrap().summary(&"ada".into()).await.unwrap().chunks == 0);
    }
}

/// An event of rrweb with this many objects in an array: small to send, large to parse.
fn many_objects(count: usize) -> Value {
    json!({"type": 2, "timestamp": T0, "data": vec![json!({}); count]})
}

/// Compresses an event's data as PostHog's recorder does.
fn compressed(event: &Value) -> Value {
    let data: String = gzip(event["data"].to_string().as_bytes()).into_iter().map(char::from).collect();
    json!({"type": event["type"], "timestamp": event["timestamp"], "cv": "2024-10", "data": data})
}

/// Half of a character that the page has, or a NUL, does not cost the recording.
#[tokio::test]
async fn characters_that_others_refuse_are_replaced() {
    let world = World::new();
    let session = world.view("ada", T0, "/").await;
    let event = r#"{"event":"$replay","distinct_id":"ada","properties":{"$replay_events":[
        {"type":3,"timestamp":1773144000000,"data":{"source":0,"texts":[{"id":1,"value":"a \ud83d b \u0000 \ud83d\ude00"}]}}]}}"#;
    let (status, answer) = world.post("/events", event).await;
    assert_eq!((status, &answer["rejected"]), (200, &json!([])));
    let found = world.replay(&session).await;
    assert_eq!(found[0]["data"]["texts"][0]["value"], "a \u{fffd} b \0 \u{1f600}");
}

/// A bomb: small events that decompress to megabytes each. What exceeds the limit of a request is rejected.
#[tokio::test]
async fn compressed_events_are_bounded_together() {
    let world = World::new();
    let text: String =
        gzip(&[&b"\""[..], &vec![b' '; 1_500_000], b"\""].concat()).into_iter().map(char::from).collect();
    let bomb = json!({"type": 2, "cv": "2024-10", "timestamp": T0, "data": text});
    let events: Vec<Value> = (0..30).map(|_| replay_event("ada", std::slice::from_ref(&bomb))).collect();
    let answer = world.send(json!(events)).await;
    let rejected = answer["rejected"].as_array().unwrap();
    assert_eq!((answer["events"].as_array().unwrap().len(), rejected.len()), (5, 25));
    assert!(rejected.iter().all(|rejected| rejected["code"] == "invalid_replay"));
}

/// A queue's rejects would hold what was typed.
#[tokio::test]
async fn what_is_rejected_is_not_shown_unmasked() {
    let world = World::new();
    let bad =
        json!({"event": "$replay", "distinct_id": "ada", "properties": {"$replay_events": [full(T0, "CANARY"), 7]}});
    let record = |id: &str, event: &Value| {
        json!({"eventSource": "aws:sqs", "messageId": id, "body": event.to_string(), "attributes": {},
        "eventSourceARN": "arn:aws:sqs:eu-west-1:1:q", "messageAttributes": {}})
    };
    let other = json!({"event": "", "distinct_id": "ada", "note": "shown"});
    world.handle(&json!({"Records": [record("1", &bad), record("2", &other)]})).await;
    let snapshot = json!([{"event": "$snapshot", "properties": {"distinct_id": "ada", "$snapshot_data": [full(T0, "CANARY"), 7]}}]);
    assert_eq!(world.post("/s/", &snapshot.to_string()).await.0, 200);
    assert_eq!(world.post("/s/", &format!("{}CANARY", &snapshot.to_string()[..50])).await.0, 200);
    let rejects = world.function.rejects.take();
    assert_eq!(rejects.len(), 4, "{rejects:?}");
    assert!(rejects.iter().any(|line| line.contains("invalid_replay") && line.contains("[1]` is not an object")));
    assert!(rejects.iter().any(|line| line.contains("shown")), "other events are shown as before");
    assert!(rejects.iter().all(|line| !line.contains("CANARY")), "{rejects:?}");
}

/// A store that takes nothing: the event has failed, its source sends it again, and other events are applied.
#[tokio::test]
async fn a_store_that_fails_is_a_failure_of_these_events_alone() {
    let folder = std::env::temp_dir().join(format!("replay-{}-{:?}", std::process::id(), std::thread::current().id()));
    let store = ReplayStore::in_folder(&folder, Inputs::Mask).unwrap();
    // A file where the folder of the chunks would be.
    std::fs::write(folder.join("replay"), "").unwrap();
    let world = World::with(SessionConfig::default(), store);
    let events = json!([{"event": "a", "distinct_id": "ada"}, replay_event("ada", &[full(T0, "")]), replay_event("ben", &[full(T0, "")])]);
    let (status, answer) = world.post("/events", &json!({"events": events}).to_string()).await;
    assert_eq!((status, &answer["events"][0]["event"]), (503, &json!("a")), "{answer}");
    let failed: Vec<(u64, &Value)> = answer["failed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|failed| (failed["index"].as_u64().unwrap(), &failed["code"]))
        .collect();
    assert_eq!(failed, [(1, &json!("storage_unavailable")), (2, &json!("storage_unavailable"))]);
    std::fs::remove_file(folder.join("replay")).unwrap();
    let answer = world.send(events).await;
    assert_eq!(answer["events"].as_array().unwrap().len(), 3);
    let session = answer["events"][1]["properties"]["$session_id"].as_str().unwrap();
    assert_eq!(world.replay(session).await.len(), 1);
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Whoever has no credentials reads nothing, whatever the path.
#[tokio::test]
async fn a_replay_is_not_public() {
    let world = World::new();
    let session = world.view("ada", T0, "/").await;
    world.record("ada", &[full(T0, "")]).await;
    for prefix in ["", "/v1", "/prod/v1"] {
        let path = format!("{prefix}/sessions/{session}/replay");
        assert_eq!(world.handle(&request("GET", &path, "", "", false)).await["statusCode"], 403);
        assert_eq!(world.handle(&request("GET", &path, "", "", true)).await["statusCode"], 200);
        assert_eq!(world.handle(&request("POST", &path, "", "", true)).await["statusCode"], 405);
    }
}

#[tokio::test]
async fn wrong_parameters_and_unknown_sessions_are_errors() {
    let world = World::new();
    let session = world.view("ada", T0, "/").await;
    for query in [
        "limit=0",
        "limit=10001",
        "limit=x",
        "after=x",
        "after=-1",
        &format!("after={}", "f".repeat(200)),
        "after=%C3%BC",
    ] {
        let (status, problem) = world.page(&session, query).await;
        let code = if query.starts_with("limit") { "invalid_limit" } else { "invalid_after" };
        assert_eq!((status, &problem["code"]), (400, &json!(code)), "{query}");
    }
    for unknown in ["x", "019cd79e-467b-7aef-9205-d694bcc727e6"] {
        assert_eq!(world.page(unknown, "").await.0, 404);
    }
    // A session without a recording has an empty replay.
    assert_eq!(world.page(&session, "").await, (200, json!({"session_id": session, "events": [], "after": null})));
}

/// Ten thousand events in a hundred chunks, in every size of page that matters.
#[tokio::test]
async fn a_long_replay_is_read_in_pages_below_the_limit_of_an_answer() {
    let world = World::new();
    let session = world.view("ada", T0, "/").await;
    let mut wanted = Vec::new();
    for chunk in 0..100 {
        let recorded: Vec<Value> = (0..100).map(|n| change(T0 + chunk * 3_000 + n * 29, "\"quoted\"")).collect();
        world.record("ada", &recorded).await;
        wanted.extend(recorded);
    }
    assert_eq!(world.replay_in(&session, 10_000).await, wanted);
    assert_eq!(world.replay_in(&session, 777).await, wanted);
    // Events of half a megabyte each: a page holds as many as fit into an answer.
    let large: Vec<Value> = (0..15).map(|n| change(T0 + 400_000 + n, &"\"\\".repeat(120_000))).collect();
    for event in &large {
        world.record("ada", std::slice::from_ref(event)).await;
    }
    let mut pages = 0;
    let (mut after, mut found) = (String::new(), 0);
    loop {
        let answer = world
            .handle(&request(
                "GET",
                &format!("/v1/sessions/{session}/replay"),
                &format!("limit=10000&after={after}"),
                "",
                true,
            ))
            .await;
        assert!(answer.to_string().len() < 6 * 1024 * 1024);
        let page: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        found += page["events"].as_array().unwrap().len();
        pages += 1;
        match page["after"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(found, 10_015);
    assert!(pages > 3, "{pages}");
}

/// Ten thousand sessions of a visitor do not make reading one of them longer, and recordings of many visitors stay apart.
#[tokio::test]
async fn recordings_of_many_visitors_and_many_sessions_stay_apart() {
    let world = World::new();
    let mut sessions = Vec::new();
    for n in 0..50 {
        let at = T0 + n * 60 * 60_000;
        world.clock.set(at);
        let session = world.view("ada", at, "/").await;
        world.record("ada", &[change(at, "ada")]).await;
        world.view("ben", at, "/").await;
        world.record("ben", &[change(at, "ben")]).await;
        sessions.push((session, at));
    }
    for (session, at) in sessions {
        assert_eq!(world.replay(&session).await, [change(at, "ada")]);
    }
}

#[tokio::test]
async fn a_damaged_chunk_is_an_error_that_names_no_visitor() {
    use object_store::ObjectStoreExt;
    let store = Arc::new(object_store::memory::InMemory::new());
    let world = World::with(SessionConfig::default(), ReplayStore::new(store.clone(), Inputs::Mask));
    let session = world.view("ada", T0, "/").await;
    world.record("ada", &[change(T0, "x")]).await;
    let listed: Vec<_> =
        futures_util::TryStreamExt::try_collect(object_store::ObjectStore::list(&*store, None)).await.unwrap();
    let listed: Vec<object_store::ObjectMeta> = listed;
    assert_eq!(listed.len(), 1);
    store.put(&listed[0].location, "damaged".into()).await.unwrap();
    // What does not belong there is not read.
    store.put(&object_store::path::Path::from("replay/other"), "x".into()).await.unwrap();
    let (status, problem) = world.page(&session, "").await;
    assert_eq!((status, &problem["code"]), (500, &json!("stored_item_corrupt")));
    assert!(!problem.to_string().contains("ada"));
}
