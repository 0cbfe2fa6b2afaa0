//! What requests without credentials are answered: nothing that their sender did not know.

use super::*;
use crate::config::{AnswerDetail, PublicAccess};

/// The envelopes of requests without credentials, and of such with them.
const OPEN: [&str; 3] = ["http2", "http1", "alb"];
const CHECKED: [&str; 4] = ["http2+iam", "http2+jwt", "http1+signed", "http1+claims"];

fn envelope(kind: &str, method: &str, path: &str, body: &str) -> Value {
    let (payload, credentials) = kind.split_once('+').unwrap_or((kind, ""));
    let mut context = match credentials {
        "iam" | "jwt" => json!({"authorizer": {credentials: {"a": 1}}}),
        "signed" => json!({"identity": {"userArn": "arn:aws:iam::1:user/x"}}),
        "claims" => json!({"authorizer": {"claims": {"sub": "x"}}}),
        _ => json!({}),
    };
    match payload {
        "http2" => {
            context["http"] = json!({"method": method});
            json!({"version": "2.0", "routeKey": "ANY /{proxy+}", "rawPath": path, "requestContext": context, "body": body})
        }
        payload => {
            if payload == "alb" {
                context["elb"] = json!({});
            }
            json!({"resource": "/{proxy+}", "httpMethod": method, "path": path, "requestContext": context, "body": body})
        }
    }
}

/// A visit whose URLs, referrer and user nobody else may learn.
fn visit() -> Value {
    let page = |uuid: &str, page: &str| {
        json!({"uuid": uuid, "event": "$pageview", "distinct_id": "ada", "properties": {
            "$current_url": format!("https://shop.test/{page}?q=CANARY"), "$referrer": "https://mail.test/CANARY",
            "$user_id": "CANARY", "$session_properties": {"plan": "CANARY"}, "$geoip_city_name": "CANARY",
        }})
    };
    json!([page("1", "CANARY-first"), page("2", "CANARY-second")])
}

/// A function that has seen the visit, and a stranger's event of the same visitor.
async fn visited() -> Function {
    let function = function();
    handle(&function, &json!({"events": visit()})).await;
    function
}

const STRANGER: &str = r#"{"uuid":"3","event":"x","distinct_id":"ada"}"#;

#[tokio::test]
async fn a_stranger_learns_nothing_of_a_visit() {
    for kind in OPEN {
        let function = visited().await;
        for body in [STRANGER, r#"{"uuid":"1","event":"$pageview","distinct_id":"ada"}"#] {
            let answer = handle(&function, &envelope(kind, "POST", "/events", body)).await;
            assert_eq!(answer["statusCode"], 200, "{answer}");
            assert!(!answer.to_string().contains("CANARY"), "{kind}: {answer}");
        }
        let answer = handle(&function, &envelope(kind, "POST", "/events", STRANGER)).await;
        let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        let names: Vec<&String> = body["events"][0]["properties"].as_object().unwrap().keys().collect();
        let wanted = [
            "$event_time",
            "$session_duration",
            "$session_id",
            "$session_number",
            "$session_page_views",
            "$session_start",
            "$session_start_reason",
            "$session_version",
        ];
        assert_eq!(names, wanted, "{kind}");
        let id = body["events"][0]["properties"]["$session_id"].as_str().unwrap();
        for (method, path) in [("GET", format!("/sessions/{id}")), ("POST", format!("/sessions/{id}/end"))] {
            let answer = handle(&function, &envelope(kind, method, &path, "")).await;
            assert_eq!(answer["statusCode"], 403, "{kind}: {answer}");
        }
    }
}

/// An answer to events that failed, were rejected, or could not be read tells nothing either.
#[tokio::test]
async fn errors_tell_a_stranger_nothing() {
    let function = visited().await;
    for kind in OPEN {
        for body in ["", "CANARY", "[]", r#"[{"distinct_id":"ada"},{"event":"x","distinct_id":"down"}]"#] {
            let answer = handle(&function, &envelope(kind, "POST", "/events", body)).await;
            assert!(answer["statusCode"].as_u64().unwrap() >= 400, "{answer}");
            assert!(!answer.to_string().contains("CANARY"), "{kind}: {answer}");
        }
    }
}

/// The sender gets back what it sent, also where a full answer has the session's values in its place.
#[tokio::test]
async fn the_senders_own_members_stay() {
    let function = visited().await;
    let own =
        json!({"$referrer": "https://own.test/", "$user_id": "", "$current_url": "https://own.test/?a=1", "b": 2});
    let event = json!({"uuid": "4", "event": "x", "distinct_id": "ada", "properties": own});
    let answer = handle(&function, &envelope("http2", "POST", "/events", &event.to_string())).await;
    let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    for (name, value) in own.as_object().unwrap() {
        assert_eq!(&body["events"][0]["properties"][name], value, "{name}");
    }
    assert!(!body.to_string().contains("CANARY") && !body.to_string().contains("$event_referrer"));
}

#[tokio::test]
async fn callers_with_credentials_and_other_triggers_get_all() {
    for kind in CHECKED {
        let answer = handle(&visited().await, &envelope(kind, "POST", "/events", STRANGER)).await;
        assert!(answer["body"].as_str().unwrap().contains("CANARY-second"), "{kind}: {answer}");
    }
    let answer = handle(&visited().await, &serde_json::from_str(STRANGER).unwrap()).await;
    assert!(answer.to_string().contains("CANARY-second"), "{answer}");
    let function = visited().await;
    deliver(&function, &[record("m1", None, STRANGER)]).await;
    assert!(sent(&function.output)[0].to_string().contains("CANARY-second"));
}

#[tokio::test]
async fn a_full_answer_can_be_chosen_for_all() {
    let mut function = visited().await;
    function.public.answer = AnswerDetail::Full;
    let answer = handle(&function, &envelope("http2", "POST", "/events", STRANGER)).await;
    assert!(answer["body"].as_str().unwrap().contains("CANARY-second"), "{answer}");
}

#[tokio::test]
async fn the_visitors_of_a_request_without_credentials_are_bounded() {
    let events = |visitors: usize| {
        let event =
            |n: usize| json!({"uuid": n.to_string(), "event": "x", "distinct_id": format!("v{}", n % visitors)});
        json!((0..500).map(event).collect::<Vec<_>>()).to_string()
    };
    let max_visitors = PublicAccess::default().max_visitors;
    for kind in OPEN {
        let function = function();
        let answer = handle(&function, &envelope(kind, "POST", "/events", &events(max_visitors + 1))).await;
        assert_eq!(answer["statusCode"], 413, "{kind}: {answer}");
        let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        assert_eq!((&body["error"]["code"], &body["events"]), (&"too_many_visitors".into(), &json!([])));
        // Nothing is applied.
        assert!(function.manager.get_by_user(&Visitor::new("v0")).await.is_err(), "{kind}");
        let answer = handle(&function, &envelope(kind, "POST", "/events", &events(max_visitors))).await;
        assert_eq!(answer["statusCode"], 200, "{kind}: {answer}");
    }
    let answer = handle(&function(), &envelope("http2+iam", "POST", "/events", &events(max_visitors + 1))).await;
    assert_eq!(answer["statusCode"], 200, "{answer}");
    let direct = handle(&function(), &json!({"events": serde_json::from_str::<Value>(&events(400)).unwrap()})).await;
    assert_eq!(direct["events"].as_array().unwrap().len(), 500);
}

/// What is stored costs writes by the kilobyte, so that an open request may not store as much as its body can hold.
#[tokio::test]
async fn the_state_of_a_request_without_credentials_is_bounded() {
    let event = |n: usize, bytes: usize| {
        let path = format!("{n:04}{}", "x".repeat(bytes));
        let (url, referrer) = (format!("https://shop.test/{path}"), format!("https://news.test/{path}"));
        let properties = json!({"$current_url": url, "$referrer": referrer});
        json!({"uuid": n.to_string(), "event": "$pageview", "distinct_id": "v", "properties": properties})
    };
    let events = |count, bytes| json!((0..count).map(|n| event(n, bytes)).collect::<Vec<_>>()).to_string();
    // More than half a megabyte in all; and as many bytes of which little is stored.
    let large = events(200, 2000);
    let small = json!(
        (0..100).map(|n| json!({"event": "x", "distinct_id": "v", "pad": "x".repeat(6000 + n)})).collect::<Vec<_>>()
    );
    for kind in OPEN {
        let function = function();
        let answer = handle(&function, &envelope(kind, "POST", "/events", &large)).await;
        assert_eq!(answer["statusCode"], 413, "{kind}: {answer}");
        let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        assert_eq!((&body["error"]["code"], &body["events"]), (&"too_much_state".into(), &json!([])));
        assert!(function.manager.get_by_user(&Visitor::new("v")).await.is_err(), "{kind}");
        for body in [&events(100, 2000), &small.to_string()] {
            let answer = handle(&function, &envelope(kind, "POST", "/events", body)).await;
            assert_eq!(answer["statusCode"], 200, "{kind}: {answer}");
        }
    }
    let answer = handle(&function(), &envelope("http2+iam", "POST", "/events", &large)).await;
    assert_eq!(answer["statusCode"], 200, "{answer}");
}

/// Parameters that look like credentials are neither answered, nor stored, nor emitted, whatever property holds them.
#[tokio::test]
async fn credentials_in_urls_are_removed_from_everything() {
    let url = "https://shop.test/?token=CANARY&utm_source=news";
    let event = |uuid: Option<&str>, title: &str| {
        json!({"uuid": uuid, "event": "$pageview", "distinct_id": "ada", "timestamp": NOW, "properties": {
            "$current_url": url, "$referrer": "https://mail.test/#access_token=CANARY", "title": title,
            "$initial_current_url": url, "$session_properties": {"landing": url}, "z": [{"deep": url}],
        }})
    };
    // A NUL character is replaced, which is another reason to write the event anew.
    for (uuid, title) in [(Some("1"), "a"), (None, "a"), (Some("1"), "a\0")] {
        let function = function();
        let body = event(uuid, title).to_string();
        let direct = handle(&function, &serde_json::from_str(&body).unwrap()).await.to_string();
        let http = handle(&function, &envelope("http2+iam", "POST", "/events", &body)).await.to_string();
        deliver(&function, &[record("m1", None, &body), record("m2", None, &format!("{body} ?token=CANARY"))]).await;
        let outputs = function.output.accepted.take().concat() + &function.rejects.accepted.take().concat();
        let session = function.manager.get_by_user(&Visitor::new("ada")).await.unwrap();
        let session = serde_json::to_string(&session).unwrap();
        for found in [direct, http, outputs, session] {
            assert!(!found.contains("CANARY") && found.contains("https://shop.test/?utm_source=news"), "{found}");
        }
    }
}

/// Two events without an id that differ only in a parameter are two events.
#[tokio::test]
async fn a_removed_parameter_still_tells_events_apart() {
    let function = function();
    let event = |token| {
        json!({"event": "$pageview", "distinct_id": "ada", "timestamp": NOW,
            "properties": {"$current_url": format!("https://shop.test/?token={token}")}})
    };
    let answer = handle(&function, &json!([event(1), event(2), event(1)])).await;
    let views: Vec<_> = (0..3).map(|n| answer["events"][n]["properties"]["$session_page_views"].clone()).collect();
    assert_eq!(answer["events"][0]["uuid"], answer["events"][2]["uuid"]);
    assert_eq!(views[1], 2, "{answer}");
}

/// So it is for the events of other clients, also for large ones.
#[tokio::test]
async fn credentials_in_events_of_clients_are_removed() {
    let function = function();
    let url = "https://shop.test/?token=CANARY";
    let pad = "x".repeat(40_000);
    for properties in [json!({"$current_url": url}), json!({"$current_url": url, "own": url, "pad": pad})] {
        let batch = json!({"api_key": "k", "batch": [{"event": "$pageview", "properties": {
            "distinct_id": "ada", "p": properties["own"], "pad": properties["pad"], "$current_url": url}}]});
        let answer = handle(&function, &envelope("http2", "POST", "/batch", &batch.to_string())).await;
        assert_eq!(answer["statusCode"], 200, "{answer}");
        let lines = function.output.accepted.take().concat();
        assert!(lines.contains("https://shop.test/") && !lines.contains("CANARY"), "{lines}");
    }
}

/// Where a route takes any path, a token lets its holder send events, and only signed requests read and erase.
#[tokio::test]
async fn only_signed_requests_read_by_a_route_for_any_path() {
    for (kind, is_signed) in CHECKED.into_iter().zip([true, false, true, false]) {
        let function = visited().await;
        let event: Value = handle(&function, &serde_json::from_str(STRANGER).unwrap()).await;
        let id = event["events"][0]["properties"]["$session_id"].as_str().unwrap();
        for (method, path) in [
            ("GET", format!("/sessions/{id}")),
            ("POST", format!("/x/sessions/{id}/end")),
            ("GET", "/visitors/ada/sessions".to_owned()),
        ] {
            let answer = handle(&function, &envelope(kind, method, &path, "")).await;
            assert_eq!(answer["statusCode"], if is_signed { 200 } else { 403 }, "{kind} {path}: {answer}");
        }
    }
}
