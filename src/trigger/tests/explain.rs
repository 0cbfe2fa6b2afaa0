//! What would become of events, by HTTP and by direct invocation.

use super::*;
use crate::stored::Room;

/// Sends events with credentials; returns the status and the body.
async fn explain(function: &Function, body: &Value) -> (u64, Value) {
    let request = json!({
        "version": "2.0", "routeKey": "POST /v1/explain", "rawPath": "/v1/explain", "body": body.to_string(),
        "requestContext": {"http": {"method": "POST"}, "authorizer": {"iam": {"userArn": "arn:aws:iam::1:user/x"}}},
    });
    let answer = handle(function, &request).await;
    (answer["statusCode"].as_u64().unwrap(), serde_json::from_str(answer["body"].as_str().unwrap()).unwrap())
}

fn with_rules(rules: Value) -> Function {
    let rules = SessionConfig::from_rules(rules).unwrap();
    let manager = SessionManager::with_clock(rules, FaultyStore::default(), StoppedClock::default());
    Ingest { manager, ..function() }
}

/// An event of ada, so many minutes before [`NOW`].
fn event(uuid: &str, minutes: i64, properties: &Value) -> Value {
    let timestamp = NOW - minutes * 60_000;
    json!({"uuid": uuid, "event": "$pageview", "distinct_id": "ada", "timestamp": timestamp, "properties": properties})
}

/// Checks that a value has the members of `wanted`, and of an array its elements.
fn has(found: &Value, wanted: &Value, place: &str) {
    match wanted {
        Value::Object(members) => {
            members.iter().for_each(|(name, wanted)| has(&found[name], wanted, &format!("{place}.{name}")));
        }
        _ => assert_eq!(found, wanted, "{place}"),
    }
}

/// Finds a rule among those that a session was compared by.
fn rule<'v>(comparison: &'v Value, name: &str) -> &'v Value {
    let mut rules = comparison["rules"].as_array().into_iter().flatten();
    rules.find(|check| check["rule"] == name).unwrap_or(&Value::Null)
}

#[tokio::test]
async fn each_rule_tells_what_it_compared() {
    let nothing = json!({});
    let ads = json!({"$current_url": "https://shop.test/?utm_source=ads"});
    let google = json!({"$current_url": "https://shop.test/", "$referrer": "https://www.google.com/"});
    let click = json!({"$current_url": "https://shop.test/?gclid=1"});
    let other_click = json!({"$current_url": "https://shop.test/?gclid=2"});
    for (rules, known, new, wanted, check) in [
        (json!({}), vec![], event("e9", 0, &nothing), "first", Value::Null),
        (
            json!({"timeout_seconds": 600}),
            vec![event("e1", 10, &nothing)],
            event("e9", 0, &nothing),
            "continues",
            json!({"rule": "timeout", "holds": false, "ms": 600_000, "max_ms": 600_000}),
        ),
        (
            json!({"timeout_seconds": 600, "boundary": "exclusive"}),
            vec![event("e1", 10, &nothing)],
            event("e9", 0, &nothing),
            "timeout",
            json!({"rule": "timeout", "holds": true, "ms": 600_000, "max_ms": 600_000}),
        ),
        (
            json!({"max_duration_seconds": 300}),
            vec![event("e1", 8, &nothing), event("e2", 4, &nothing)],
            event("e9", 0, &nothing),
            "max_duration",
            json!({"rule": "max_duration", "holds": true, "ms": 480_000, "max_ms": 300_000}),
        ),
        (
            json!({"midnight": "Pacific/Auckland", "timeout_seconds": 86_400}),
            vec![event("e1", 120, &nothing)],
            event("e9", 0, &nothing),
            "midnight",
            json!({"rule": "midnight", "holds": true, "session": "2026-03-10", "event": "2026-03-11"}),
        ),
        (
            json!({"max_events": 2}),
            vec![event("e1", 2, &nothing), event("e2", 1, &nothing)],
            event("e9", 0, &nothing),
            "max_events",
            json!({"rule": "max_events", "holds": true, "events": 2, "max_events": 2}),
        ),
        (
            json!({"direct_then_source": "split"}),
            vec![event("e1", 2, &nothing)],
            event("e9", 0, &ads),
            "utm_change",
            json!({"rule": "utm_change", "holds": true, "session": null, "event": {"source": "ads"}}),
        ),
        (
            json!({}),
            vec![event("e1", 2, &google)],
            event("e9", 0, &json!({"$referrer": "https://news.test/a"})),
            "referrer_change",
            json!({"rule": "referrer_change", "holds": true, "session": "https://www.google.com/", "event": "https://news.test/a"}),
        ),
        (
            json!({"referrer_match": "site"}),
            vec![event("e1", 2, &google)],
            event("e9", 0, &json!({"$referrer": "https://mail.google.com/"})),
            "continues",
            json!({"rule": "referrer_change", "holds": false, "event": "https://mail.google.com/"}),
        ),
        (
            json!({"new_session_on_click_id_change": true}),
            vec![event("e1", 2, &click)],
            event("e9", 0, &other_click),
            "click_id_change",
            json!({"rule": "click_id_change", "holds": true}),
        ),
    ] {
        let function = with_rules(rules);
        for event in known {
            handle(&function, &event).await;
        }
        let (status, answer) = explain(&function, &new).await;
        let explanation = &answer["explanations"][0];
        assert_eq!((status, &explanation["rule"]), (200, &json!(wanted)), "{answer}");
        let name = check["rule"].as_str().unwrap_or_default();
        has(rule(&explanation["session_before"], name), &check, wanted);
        // The session is the one that the event then gets.
        let applied = handle(&function, &new).await;
        let properties = &applied["events"][0]["properties"];
        assert_eq!(explanation["session"]["id"], properties["$session_id"], "{wanted}");
        assert_eq!(explanation["session"]["is_start"] == true, properties["$session_start"] == true, "{wanted}");
    }
}

/// Archives what is over, an hour and a half after [`NOW`].
async fn close(function: &Function) {
    let (storage, visitor) = (function.manager.storage(), Visitor::new("ada"));
    let Stored { mut timeline, etag } = storage.read(&visitor).await.unwrap().unwrap();
    for session in timeline.close(NOW + 90 * 60_000, function.manager.config()).ended {
        storage.archive(&visitor, &session, NOW).await.unwrap();
    }
    let commit = Commit { timeline: &timeline, replaces: Some(etag), etag: 999, expires_at: NOW, room: Room::ToClose };
    assert_eq!(storage.commit(commit).await, Ok(CommitOutcome::Done));
}

#[tokio::test]
async fn duplicates_bridges_and_late_events_are_told() {
    let function = function();
    let nothing = json!({});
    let history = json!([event("e1", 100, &nothing), event("e3", 60, &nothing)]);
    let known = handle(&function, &history).await;
    let id = |index: usize| known["events"][index]["properties"]["$session_id"].clone();
    // The event between them makes them one.
    let (_, answer) = explain(&function, &json!([event("e2", 80, &nothing), event("e1", 100, &nothing)])).await;
    let wanted = json!({"rule": "continues", "is_late": false, "watermark": null, "allowed_lateness_ms": 300_000,
        "merges": [id(1)], "splits": [], "session": {"id": id(0), "is_new": false, "is_start": false, "number": 1}});
    has(&answer["explanations"][0], &wanted, "bridge");
    has(&answer["explanations"][1], &json!({"rule": "duplicate", "merges": [], "session": {"id": id(0)}}), "duplicate");
    // Once both are over, it is late, and joins the first one.
    close(&function).await;
    let (_, answer) = explain(&function, &json!([event("e2", 80, &nothing), event("e0", 300, &nothing)])).await;
    let late = &answer["explanations"][0];
    has(late, &json!({"rule": "late_joins", "is_late": true, "session": {"id": id(0)}, "merges": []}), "late");
    has(rule(&late["session_before"], "timeout"), &json!({"holds": false, "ms": 1_200_000}), "late");
    has(rule(&late["session_after"], "timeout"), &json!({"holds": false, "ms": 1_200_000}), "late");
    let own = &answer["explanations"][1];
    let wanted = json!({"rule": "late_begins", "is_late": true, "session_before": null, "session": {"is_new": true}});
    has(own, &wanted, "own session");
    has(rule(&own["session_after"], "timeout"), &json!({"holds": true, "ms": 12_000_000}), "own session");
    // Nothing of this was stored.
    let export = function.manager.export(&Visitor::new("ada")).await.unwrap();
    assert_eq!(serde_json::to_value(export).unwrap()["sessions"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn an_explicit_end_and_events_without_a_session_are_told() {
    let function = with_rules(json!({"exclude_bots": true, "passive_events": ["ping"]}));
    let nothing = json!({});
    let known = handle(&function, &event("e1", 0, &nothing)).await;
    let id = &known["events"][0]["properties"]["$session_id"];
    let ping = json!({"uuid": "p", "event": "ping", "distinct_id": "ada", "timestamp": NOW});
    has(&explain(&function, &ping).await.1["explanations"][0], &json!({"rule": "annotated"}), "passive");
    handle(&function, &json!({"end_session": id})).await;
    let (_, answer) = explain(&function, &event("e2", -1, &nothing)).await;
    has(&answer["explanations"][0], &json!({"rule": "explicit", "session": {"is_start": true, "number": 2}}), "end");
    has(rule(&answer["explanations"][0]["session_before"], "explicit"), &json!({"holds": true}), "end");
    for (event, rule) in [
        (json!({"event": "$pageview", "distinct_id": "undefined"}), "nobody"),
        (
            json!({"event": "x", "distinct_id": "a", "properties": {"$raw_user_agent": "Googlebot/2.1 (+http://www.google.com/bot.html)"}}),
            "bot",
        ),
        (json!({"event": "$session_end", "distinct_id": "ada"}), "lifecycle"),
        (json!({"event": "ping", "distinct_id": "eve"}), "no_session"),
        (json!({"event": "$pageleave", "distinct_id": "eve"}), "no_session"),
    ] {
        let (status, answer) = explain(&function, &event).await;
        let wanted = json!({"index": 0, "rule": rule, "session": null, "distinct_id": event["distinct_id"]});
        assert_eq!(status, 200);
        has(&answer["explanations"][0], &wanted, rule);
    }
}

/// Events that are rejected or whose visitor cannot be read do not affect the others.
#[tokio::test]
async fn each_event_is_explained_by_itself() {
    let function = function();
    let nothing = json!({});
    let (status, answer) = explain(&function, &json!([event("e1", 0, &nothing), {"event": "x"}, 7])).await;
    assert_eq!(status, 200);
    let told = answer["explanations"].as_array().unwrap();
    assert_eq!((&told[0]["index"], &told[0]["rule"]), (&json!(0), &json!("first")));
    has(&told[1], &json!({"index": 1, "rule": "rejected", "code": "missing_distinct_id"}), "rejected");
    has(&told[2], &json!({"index": 2, "rule": "rejected", "code": "not_an_object"}), "rejected");
    for (distinct_id, status, code) in [("down", 503, "storage_unavailable"), ("corrupt", 500, "stored_item_corrupt")] {
        let events = json!({"events": [event("e1", 0, &nothing), {"event": "x", "distinct_id": distinct_id}]});
        let (found, answer) = explain(&function, &events).await;
        assert_eq!((found, &answer["explanations"][0]["rule"]), (status, &json!("first")));
        has(&answer["explanations"][1], &json!({"index": 1, "rule": "failed", "code": code}), distinct_id);
        assert!(!answer.to_string().contains("secret"));
    }
    // No event is applied, so consumers and metrics are told of none.
    assert!(sent(&function.output).is_empty() && sent(&function.rejects).is_empty());
    assert!(function.manager.storage().read(&Visitor::new("ada")).await.unwrap().is_none());
}

#[tokio::test]
async fn bodies_have_the_limits_of_post_events() {
    let function = function();
    let many: Vec<Value> = (0..1001).map(|number| json!({"uuid": number.to_string()})).collect();
    for (body, status, code) in [
        (json!([]), 400, "no_events"),
        (json!({"events": 7}), 400, "events_not_an_array"),
        (json!(many), 413, "too_many_events"),
        (json!("x".repeat(1_100_000)), 413, "body_too_large"),
    ] {
        let (found, answer) = explain(&function, &body).await;
        assert_eq!((found, &answer["code"], &answer["status"]), (status, &json!(code), &json!(status)), "{code}");
    }
    // Explanations are longer than the events.
    let referrer = format!("https://news.test/{}", "x".repeat(2000));
    let long = |number: i64| event(&number.to_string(), 0, &json!({"$referrer": format!("{referrer}{number}")}));
    let long: Vec<Value> = (0..400).map(long).collect();
    let (status, answer) = explain(&function, &json!(long)).await;
    assert_eq!((status, answer["explanations"].as_array().unwrap().len()), (200, 400));
    let longer: Vec<Value> = (0..2).flat_map(|_| long.clone()).collect();
    assert_eq!(handle(&function, &json!({"explain": longer})).await["explanations"].as_array().unwrap().len(), 800);
    let numbered = |(number, event): (usize, &Value)| {
        let mut event = event.clone();
        event["uuid"] = json!(number.to_string());
        event
    };
    let far: Vec<Value> = long.iter().cycle().take(2000).enumerate().map(numbered).collect();
    assert_eq!(handle(&function, &json!({"explain": far})).await["error"]["code"], "answer_too_large");
}

#[tokio::test]
async fn a_direct_invocation_explains_too() {
    let function = function();
    let event = event("e1", 0, &json!({}));
    for body in [event.clone(), json!([event]), json!({"events": [event]})] {
        let answer = handle(&function, &json!({"explain": body})).await;
        has(&answer["explanations"][0], &json!({"index": 0, "rule": "first", "uuid": "e1"}), "direct");
    }
    assert_eq!(handle(&function, &json!({"explain": []})).await["error"]["code"], "no_events");
    assert!(function.manager.storage().read(&Visitor::new("ada")).await.unwrap().is_none());
    // An event of one's own that has such a member is an event.
    let answer = handle(&function, &json!({"event": "x", "distinct_id": "ada", "explain": true})).await;
    assert_eq!(answer["events"].as_array().unwrap().len(), 1);
}

/// A stranger learns nothing, also of a visitor that does not exist.
#[tokio::test]
async fn a_stranger_gets_no_explanation() {
    let function = function();
    for (path, route) in [("/v1/explain", "$default"), ("/explain", "ANY /{proxy+}"), ("/prod/v1/explain/", "$default")]
    {
        for authorizer in [Value::Null, json!({"jwt": {"claims": {}}})] {
            let request = json!({
                "version": "2.0", "routeKey": route, "rawPath": path, "body": event("e1", 0, &json!({})).to_string(),
                "requestContext": {"http": {"method": "POST"}, "authorizer": authorizer},
            });
            let answer = handle(&function, &request).await;
            let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
            assert_eq!((&answer["statusCode"], &body["code"]), (&json!(403), &json!("not_public")), "{path}");
        }
    }
}
