//! Recorded events on their way in: what becomes of them, and that nothing becomes of the timeline.

use serde_json::{Value, json};
use session_tracking::config::{Projects, SessionConfig};
use session_tracking::replay::{Inputs, ReplayStore};
use session_tracking::session::Visitor;
use session_tracking::storage::SessionStorage;

use super::{MINUTE, T0, World, change, full, meta, replay_event, request};

#[tokio::test]
async fn recorded_events_come_back_with_their_session_and_what_was_typed_is_masked() {
    let world = World::new();
    let session = world.view("ada", T0, "https://shop.test/").await;
    let typed =
        json!({"type": 3, "timestamp": T0 + 3, "data": {"source": 5, "id": 3, "text": "secret", "isChecked": false}});
    let named = world.record("ada", &[meta(T0 + 1), full(T0 + 2, "ada@x"), typed]).await;
    assert_eq!(named.as_deref(), Some(&*session));
    let (status, page) = world.page(&session, "").await;
    assert_eq!((status, &page["session_id"], &page["after"]), (200, &json!(session), &Value::Null));
    let kinds: Vec<&Value> = page["events"].as_array().unwrap().iter().map(|event| &event["event_type"]).collect();
    assert_eq!(kinds, ["viewport", "dom", "input"]);
    assert_eq!(page["events"][0]["timestamp"], "2026-03-10T12:00:00.001Z");
    assert_eq!(page["events"][0]["data"], meta(T0 + 1));
    assert_eq!(page["events"][1]["data"], full(T0 + 2, "*****"));
    assert_eq!(page["events"][2]["data"]["data"]["text"], "******");
}

#[tokio::test]
async fn inputs_are_kept_where_the_operator_asks_for_it() {
    let world = World::with(SessionConfig::default(), ReplayStore::in_memory(Inputs::Keep));
    let session = world.view("ada", T0, "/").await;
    world.record("ada", &[full(T0, "ada@x")]).await;
    assert_eq!(world.replay(&session).await, [full(T0, "ada@x")]);
}

/// Events of our own format, with every kind.
#[tokio::test]
async fn every_kind_of_event_is_kept_in_our_own_format() {
    let world = World::new();
    let session = world.view("ada", T0, "/").await;
    let kinds = ["dom", "mouse", "scroll", "input", "viewport", "custom"];
    let event = |(number, kind): (i64, &&str)| json!({"timestamp": T0 + number, "event_type": kind, "data": {"x": number, "value": "typed"}});
    let recorded: Vec<Value> = (0..).zip(&kinds).map(event).collect();
    world.record("ada", &recorded).await;
    let (_, page) = world.page(&session, "").await;
    for ((number, kind), found) in kinds.iter().enumerate().zip(page["events"].as_array().unwrap()) {
        let value = if *kind == "input" { "*****" } else { "typed" };
        assert_eq!((&found["event_type"], &found["data"]), (&json!(kind), &json!({"x": number, "value": value})));
    }
    // Times are read as those of events are.
    world
        .record("ada", &[json!({"timestamp": "2026-03-10T13:00:01+01:00", "event_type": "custom", "data": null})])
        .await;
    let (_, page) = world.page(&session, "").await;
    assert_eq!(
        page["events"][6],
        json!({"timestamp": "2026-03-10T12:00:01.000Z", "event_type": "custom", "data": null})
    );
}

/// The timeline before and after is the same, so the recording is no activity, opens nothing, ends nothing and is stored nowhere in it.
#[tokio::test]
async fn a_recording_changes_no_timeline() {
    let world = World::new();
    let visitor = Visitor::new("ada");
    assert_eq!(world.record("ada", &[full(T0, "")]).await, None, "no session begins");
    assert_eq!(world.storage.read(&visitor).await, Ok(None));
    let session = world.view("ada", T0, "/").await;
    let before = world.storage.read(&visitor).await.unwrap().unwrap();
    for at in [T0 + 29 * MINUTE, T0 + 31 * MINUTE, T0 - 365 * 24 * 60 * MINUTE] {
        world.clock.set(at.max(T0));
        let named = world.record("ada", &[full(at, ""), change(at + 1, "x")]).await;
        assert_eq!(named.is_some(), at == T0 + 29 * MINUTE, "{at}");
    }
    assert_eq!(world.storage.read(&visitor).await.unwrap().unwrap(), before);
    // The recording of 29 minutes later did not keep the session alive.
    assert_ne!(world.view("ada", T0 + 40 * MINUTE, "/").await, session);
}

/// An option says so: the existing rule for events that keep a session alive.
#[tokio::test]
async fn a_recording_keeps_a_session_alive_where_the_rules_say_so() {
    let rules = SessionConfig { keep_alive_events: vec!["$replay".to_owned()], ..SessionConfig::default() };
    let world = World::with(rules, ReplayStore::in_memory(Inputs::Mask));
    let session = world.view("ada", T0, "/").await;
    world.clock.set(T0 + 20 * MINUTE);
    assert_eq!(world.record("ada", &[full(T0 + 20 * MINUTE, "")]).await.as_ref(), Some(&session));
    assert_eq!(world.view("ada", T0 + 40 * MINUTE, "/").await, session);
    assert_eq!(world.replay(&session).await, [full(T0 + 20 * MINUTE, "")]);
}

/// The event comes back small: in place of the recorded events are their number, their bytes and their hash.
#[tokio::test]
async fn what_is_passed_on_is_the_event_without_the_recording() {
    let world = World::new();
    let session = world.view("ada", T0, "/").await;
    let event = r#"{ "event":"$replay", "distinct_id":"ada","properties":{"a": 1.50,"$replay_events":[{"timestamp":1773144000000,"event_type":"dom","data":1}]},"b":[ ]}"#;
    let (_, answer) = world.post("/events", event).await;
    let written = answer["events"][0].clone();
    assert_eq!(written["properties"]["$session_id"], json!(session));
    let summary = &written["properties"]["$replay_events"];
    assert_eq!((&summary["count"], &summary["bytes"]), (&json!(1), &json!(1)));
    assert_eq!(summary["hash"].as_str().unwrap().len(), 32);
    assert_eq!((&written["properties"]["a"], &written["b"]), (&json!(1.50), &json!([])));
    assert_eq!(written["timestamp"], "2026-03-10T12:00:00.000Z", "the time of the first recorded event");
    // Sent back in, it is passed on, and there is nothing to keep.
    let again = world.send(json!([written])).await;
    assert_eq!(again["rejected"], json!([]));
    assert_eq!(again["events"][0]["properties"]["$session_id"], json!(session));
    assert_eq!(world.replay(&session).await.len(), 1);
}

/// Every trigger goes through the same step.
#[tokio::test]
async fn recordings_arrive_by_every_way_that_events_do() {
    let world = World::new();
    let session = world.view("ada", T0, "/").await;
    let body = |n: i64| json!({"events": [replay_event("ada", &[change(T0 + n, "x")])]}).to_string();
    let direct: Value = serde_json::from_str(&body(1)).unwrap();
    world.handle(&direct).await;
    let sqs = json!({"Records": [{"eventSource": "aws:sqs", "messageId": "m", "body": body(2), "attributes": {"SentTimestamp": T0.to_string()},
        "eventSourceARN": "arn:aws:sqs:eu-west-1:1:q", "messageAttributes": {}}]});
    assert_eq!(world.handle(&sqs).await, json!({"batchItemFailures": []}));
    let lines =
        format!("{}\n{}", replay_event("ada", &[change(T0 + 3, "x")]), replay_event("ada", &[change(T0 + 4, "x")]));
    world.post("/events", &lines).await;
    let found: Vec<Value> = world.replay(&session).await;
    assert_eq!(found, [1, 2, 3, 4].map(|n| change(T0 + n, "x")));
}

/// A page of 300 KB and a body of many events are one request.
#[tokio::test]
async fn a_whole_page_is_larger_than_an_event_may_be() {
    let world = World::new();
    let session = world.view("ada", T0, "/").await;
    let page = change(T0 + 1, &"x".repeat(300_000));
    let answer = world
        .send(json!([
            {"event": "before", "distinct_id": "ada", "timestamp": T0 + 1},
            replay_event("ada", std::slice::from_ref(&page)),
            {"event": "after", "distinct_id": "ada", "timestamp": T0 + 2},
        ]))
        .await;
    assert_eq!(answer["events"].as_array().unwrap().len(), 3, "{answer}");
    assert_eq!(world.replay(&session).await, [page]);
}

/// Nobody's and excluded bots' recordings have no visitor whose they are. They are dropped, and counted.
#[tokio::test]
async fn recordings_of_nobody_and_of_bots_are_dropped_and_counted() {
    let rules = SessionConfig { exclude_bots: true, ..SessionConfig::default() };
    let world = World::with(rules, ReplayStore::in_memory(Inputs::Mask));
    let mut bot = replay_event("bot", &[full(T0, "")]);
    bot["properties"]["$user_agent"] = "Googlebot/2.1".into();
    let answer = world.send(json!([replay_event("anonymous", &[full(T0, ""), meta(T0)]), bot])).await;
    assert_eq!(answer["events"].as_array().unwrap().len(), 2);
    let counted = world.function.manager.take_counted();
    assert_eq!((counted.replay_kept, counted.replay_dropped), (0, 3));
    world.record("ada", &[full(T0, "")]).await;
    let counted = world.function.manager.take_counted();
    assert_eq!((counted.replay_kept, counted.replay_dropped), (1, 0));
    assert!(counted.replay_bytes > 0);
}

/// Like in every event, credentials are removed from URLs.
#[tokio::test]
async fn credentials_are_removed_from_urls() {
    let world = World::new();
    let session = world.view("ada", T0, "/").await;
    let page = json!({"type": 4, "timestamp": T0, "data": {"href": "https://shop.test/?token=secret&a=1", "width": 1, "height": 1}});
    let mut event = replay_event("ada", &[page]);
    event["properties"]["$current_url"] = "https://shop.test/?token=secret&a=1".into();
    let answer = world.send(json!([event])).await;
    assert!(!answer.to_string().contains("secret"), "{answer}");
    assert_eq!(world.replay(&session).await[0]["data"]["href"], "https://shop.test/?a=1");
}

/// The write key's project is that of the recording, too.
#[tokio::test]
async fn a_recording_belongs_to_the_project_of_its_key() {
    let projects = json!({"shop": {"keys": ["k"]}});
    let given = session_tracking::config::GivenRules::default();
    let projects = Projects::from_json(&given, &projects.to_string()).unwrap();
    let world = World::with(projects, ReplayStore::in_memory(Inputs::Mask));
    let events =
        json!([{"event": "$pageview", "distinct_id": "ada", "timestamp": T0}, replay_event("ada", &[full(T0, "")])]);
    let body = json!({"events": events, "write_key": "k"}).to_string();
    let (status, answer) = world.post("/events", &body).await;
    assert_eq!(status, 200, "{answer}");
    let session = answer["events"][0]["properties"]["$session_id"].as_str().unwrap();
    assert_eq!(world.replay(session).await.len(), 1);
}

/// A wrong clock: what the recorder saw is as wrong as the event that carries it, and is corrected by as much.
#[tokio::test]
async fn a_wrong_clock_is_corrected_as_for_every_event() {
    let world = World::new();
    let session = world.view("ada", T0, "/").await;
    let hour = 60 * MINUTE;
    let mut event = replay_event("ada", &[full(T0 + hour, ""), change(T0 + hour + 5, "x")]);
    event["sent_at"] = (T0 + hour).into();
    world.send(json!([event])).await;
    let (_, page) = world.page(&session, "").await;
    let times: Vec<&Value> = page["events"].as_array().unwrap().iter().map(|event| &event["timestamp"]).collect();
    assert_eq!(times, ["2026-03-10T12:00:00.000Z", "2026-03-10T12:00:00.005Z"]);
    // Sent again a second later, it is placed a second later. Each event still comes once.
    world.clock.set(T0 + 1_000);
    world.send(json!([event])).await;
    assert_eq!(world.replay_in(&session, 1).await.len(), 2);
}

#[tokio::test]
async fn replay_that_is_off_is_not_there() {
    let world = World::new();
    let mut function = world.function;
    function.manager =
        session_tracking::SessionManager::with_clock(SessionConfig::default(), world.storage, world.clock);
    for (method, path) in [("GET", "/v1/sessions/x/replay"), ("POST", "/s/")] {
        let answer = function.handle(&request(method, path, "", "{}", true).to_string(), i64::MAX).await.unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["statusCode"], 404, "{path}: {answer}");
    }
    // `$replay` is an event like any other, then.
    let answer =
        function.handle(&json!({"events": [replay_event("ada", &[full(T0, "")])]}).to_string(), i64::MAX).await;
    let answer: Value = serde_json::from_str(&answer.unwrap()).unwrap();
    assert!(answer["events"][0]["properties"]["$replay_events"].is_array());
}
