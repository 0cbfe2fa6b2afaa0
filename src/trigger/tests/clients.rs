//! Failures of the store, as other tracking clients see them.

use super::*;

/// A request of each client with one event of each of these visitors.
fn requests(visitors: &[&str]) -> Vec<(&'static str, Value)> {
    let batch = |event: fn(&str) -> Value| visitors.iter().map(|visitor| event(visitor)).collect::<Value>();
    let own = || batch(|visitor| json!({"event": "x", "distinct_id": visitor, "uuid": visitor}));
    vec![
        ("/batch/", json!({"batch": own()})),
        ("/i/v1/analytics/events", json!({"batch": own()})),
        ("/v1/batch", json!({"batch": batch(|visitor| json!({"type": "track", "event": "x", "userId": visitor}))})),
        ("/2/httpapi", json!({"events": batch(|visitor| json!({"event_type": "x", "user_id": visitor}))})),
        ("/track", batch(|visitor| json!({"event": "x", "properties": {"distinct_id": visitor}}))),
        (
            "/com.snowplowanalytics.snowplow/tp2",
            json!({"schema": "s", "data": batch(|visitor| json!({"e": "pv", "duid": visitor}))}),
        ),
        ("/matomo.php", json!({"requests": batch(|visitor| json!(format!("?url=x&uid={visitor}")))})),
    ]
}

/// Sends a request; returns the answer's status, headers and body.
async fn send(function: &Function, path: &str, body: &Value) -> (u64, Value, Value) {
    let mut request = request(body);
    request["rawPath"] = path.into();
    let answer = handle(function, &request).await;
    let body = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    (answer["statusCode"].as_u64().unwrap(), answer["headers"].clone(), body)
}

#[tokio::test]
async fn a_store_that_fails_is_a_503_and_no_other_event_is_lost() {
    for failing in ["down", "corrupt"] {
        for (path, body) in requests(&["a", failing]) {
            let function = function();
            let (status, headers, body) = send(&function, path, &body).await;
            let events = sent(&function.output);
            assert_eq!(events.len(), 1, "{path}");
            assert_eq!(events[0]["distinct_id"], "a", "{path}");
            assert!(!body.to_string().contains("secret"), "{body}");
            if path == "/i/v1/analytics/events" {
                assert_eq!(body["results"], json!({"a": {"result": "ok"}, failing: {"result": "retry"}}));
                continue;
            }
            assert_eq!(status, 503, "{path}");
            assert!(headers["retry-after"].is_string(), "{path}");
        }
    }
}

/// Clients that send half of the events again after a 413 get one. For the others only the events of further visitors are rejected,
/// because those clients would lose the batch, or send it for ever.
#[tokio::test]
async fn the_visitors_of_a_request_are_bounded_as_the_client_can_take_it() {
    let visitors: Vec<String> = (0..5).map(|n| format!("v{n}")).collect();
    let visitors: Vec<&str> = visitors.iter().map(String::as_str).collect();
    for (path, body) in requests(&visitors) {
        let mut function = function();
        function.public.max_visitors = 3;
        let (status, _, answer) = send(&function, path, &body).await;
        let (events, rejects) = (sent(&function.output), sent(&function.rejects));
        if ["/batch/", "/track", "/2/httpapi"].contains(&path) {
            assert_eq!((status, events.len(), rejects.len()), (413, 0, 0), "{path}: {answer}");
        } else {
            assert_eq!((status, events.len(), rejects.len()), (200, 3, 2), "{path}: {answer}");
            let is_excess = |reject: &Value| reject["code"] == "too_many_visitors" && reject["text"].is_string();
            assert!(rejects.iter().all(is_excess), "{path}: {rejects:?}");
            assert_eq!(events[2]["distinct_id"], "v2", "{path}");
        }
        // As many visitors as allowed are no excess, and callers with credentials have no bounds.
        let (_, body) = requests(&visitors[..3]).into_iter().find(|(other, _)| *other == path).unwrap();
        let (status, ..) = send(&function, path, &body).await;
        assert_eq!((status, sent(&function.output).len(), sent(&function.rejects).len()), (200, 3, 0), "{path}");
    }
    for (path, body) in requests(&visitors) {
        let mut function = function();
        function.public.max_visitors = 3;
        let mut request = request(&body);
        request["rawPath"] = path.into();
        request["requestContext"]["authorizer"] = json!({"iam": {"userArn": "x"}});
        assert_eq!(handle(&function, &request).await["statusCode"], 200, "{path}");
        assert_eq!(sent(&function.output).len(), 5, "{path}");
    }
}

#[tokio::test]
async fn a_failure_has_the_fields_that_clients_read() {
    for (path, body) in requests(&["down"]) {
        let (status, _, body) = send(&function(), path, &body).await;
        assert_eq!(status, 503, "{path}");
        match path {
            // Amplitude's clients compare numbers, RudderStack's raise an error without these two.
            "/2/httpapi" => assert_eq!(body["code"], 503),
            "/track" => assert_eq!(body["status"], 0),
            "/matomo.php" => assert_eq!(body["status"], "error"),
            _ => assert!(body["code"].is_string() && body["message"].is_string(), "{path}: {body}"),
        }
    }
}

#[tokio::test]
async fn a_reject_names_the_client_and_keeps_its_event() {
    let function = function();
    let body = json!({"batch": [{"type": "track", "event": "x"}]});
    let (status, ..) = send(&function, "/v1/batch", &body).await;
    assert_eq!(status, 200);
    let rejects = sent(&function.rejects);
    assert_eq!((&rejects[0]["source"], &rejects[0]["code"]), (&"segment".into(), &"missing_distinct_id".into()));
    assert_eq!((&rejects[0]["index"], &rejects[0]["text"]), (&0.into(), &body["batch"][0].to_string().into()));
}
