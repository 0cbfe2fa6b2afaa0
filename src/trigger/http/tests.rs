use serde_json::Value;

use super::*;
use crate::dialect::Family;
use crate::trigger::envelope::Caller;

const NOW: Millis = 1_773_144_000_000;

pub(super) fn request(payload: &str) -> Request<'_> {
    match Caller::of(payload) {
        Caller::Http1(envelope) | Caller::Alb(envelope) => Request::read_1(&envelope, NOW).unwrap(),
        Caller::Http2(envelope) => Request::read_2(&envelope, NOW).unwrap(),
        _ => panic!("not a request: {payload}"),
    }
}

#[test]
fn payload_2() {
    let request = request(
        r#"{"version":"2.0","rawPath":"/prod/events","headers":{"content-type":"application/json","content-encoding":"gzip"},
        "requestContext":{"http":{"method":"POST","path":"/prod/events"},"timeEpoch":1773143999000},"body":"W10=","isBase64Encoded":true}"#,
    );
    assert_eq!((&*request.method, &*request.path, request.is_base64), ("POST", "/prod/events", true));
    assert_eq!((request.received_at, &*request.body), (NOW - 1_000, &b"W10="[..]));
    assert_eq!(request.headers.content_encoding.as_deref(), Some("gzip"));
}

#[test]
fn payload_1() {
    let request = request(
        r#"{"path":"/events","httpMethod":"POST","headers":null,"multiValueHeaders":{"Content-Type":["text/plain"]},
        "requestContext":{"requestTimeEpoch":1773144009000},"body":null,"isBase64Encoded":false}"#,
    );
    assert_eq!((&*request.method, &*request.path, request.is_base64), ("POST", "/events", false));
    assert_eq!((request.received_at, &*request.body), (NOW, &b""[..]));
    assert_eq!(request.headers.content_type.as_deref(), Some("text/plain"));
}

#[test]
fn an_envelope_without_a_method_is_an_error() {
    let Caller::Http2(envelope) = Caller::of(r#"{"rawPath":"/","requestContext":{"http":{}}}"#) else { panic!() };
    assert!(Request::read_2(&envelope, NOW).is_err());
}

#[test]
fn routes() {
    for (method, path, wanted) in [
        ("POST", "/events", Route::Events),
        ("POST", "/prod/events/", Route::Events),
        ("POST", "/", Route::Events),
        ("POST", "", Route::Events),
        ("POST", "/collect", Route::Unknown),
        ("POST", "/prod", Route::Unknown),
        ("OPTIONS", "/events", Route::Preflight),
        ("POST", "/prod//batch/", Route::Client(Endpoint::Batch)),
        ("POST", "/i/v1/analytics/events", Route::Client(Endpoint::PostHog(Family::PostHogV1))),
        ("GET", "/batch", Route::WrongMethod("POST")),
        ("POST", "/sourceConfig/", Route::WrongMethod("GET")),
        ("GET", "/sessions/batch", Route::Get("batch")),
        ("GET", "/events", Route::WrongMethod("POST")),
        ("GET", "/", Route::WrongMethod("POST")),
        ("GET", "/favicon.ico", Route::Unknown),
        ("GET", "/sessions/x", Route::Get("x")),
        ("GET", "/prod/sessions/x", Route::Get("x")),
        ("POST", "/sessions/x", Route::WrongMethod("GET")),
        ("POST", "/v1/sessions/x/end", Route::End("x")),
        ("GET", "/sessions/x/end", Route::WrongMethod("POST")),
        ("POST", "/sessions", Route::Unknown),
        ("POST", "/sessions/x/begin", Route::Unknown),
        ("GET", "/v1/visitors/x/sessions", Route::Visitor(VisitorRoute::Sessions, "x")),
        ("GET", "/visitors/x/session", Route::Visitor(VisitorRoute::Session, "x")),
        ("GET", "/prod/v1/visitors/x/export/", Route::Visitor(VisitorRoute::Export, "x")),
        ("DELETE", "/visitors/a%2Fb", Route::Visitor(VisitorRoute::Erase, "a%2Fb")),
        // An id can be any word of a path.
        ("GET", "/visitors/sessions/sessions", Route::Visitor(VisitorRoute::Sessions, "sessions")),
        ("DELETE", "/visitors/visitors", Route::Visitor(VisitorRoute::Erase, "visitors")),
        ("DELETE", "/visitors/events", Route::Visitor(VisitorRoute::Erase, "events")),
        ("DELETE", "/v1/visitors/batch", Route::Visitor(VisitorRoute::Erase, "batch")),
        ("GET", "/visitors/x", Route::WrongMethod("DELETE")),
        ("DELETE", "/visitors/x/sessions", Route::WrongMethod("GET")),
        ("POST", "/visitors/x/events", Route::Unknown),
        ("DELETE", "/visitors", Route::Unknown),
        ("GET", "/visitors/x/sessions/y", Route::Unknown),
        ("POST", "/v1/explain", Route::Explain),
        ("POST", "/prod/explain/", Route::Explain),
        ("GET", "/explain", Route::WrongMethod("POST")),
        ("POST", "/explain/x", Route::Unknown),
        ("DELETE", "/visitors/explain", Route::Visitor(VisitorRoute::Erase, "explain")),
        ("GET", "/sessions/explain", Route::Get("explain")),
        ("GET", "/health", Route::Health),
        ("HEAD", "/v1/health", Route::Health),
        ("POST", "/health", Route::WrongMethod("GET")),
    ] {
        assert_eq!(Route::of(method, path), wanted, "{method} {path}");
    }
}

#[test]
fn routes_for_any_path_and_checked_credentials_are_recognized() {
    const IAM: &str = r#","authorizer":{"iam":{"userArn":"x"}}"#;
    const SIGNED: &str = r#","identity":{"userArn":"x"}"#;
    const CLAIMS: &str = r#","authorizer":{"claims":{"sub":"x"}}"#;
    let payload_2 = |key, context| {
        format!(
            r#"{{"version":"2.0","routeKey":"{key}","rawPath":"/sessions/x","requestContext":{{"http":{{"method":"GET"}}{context}}}}}"#
        )
    };
    let payload_1 = |resource, context: &str| {
        let context = context.trim_start_matches(',');
        format!(r#"{{"resource":"{resource}","path":"/sessions/x","httpMethod":"GET","requestContext":{{{context}}}}}"#)
    };
    for (payload, is_catch_all, is_authenticated) in [
        (payload_2("ANY /{proxy+}", ""), true, false),
        (payload_2("ANY /{any+}", IAM), true, true),
        (payload_2("$default", ""), true, false),
        (payload_2("$default", IAM), true, true),
        (payload_2("GET /sessions/{id}", ""), false, false),
        (payload_2("POST /events", r#","authorizer":null"#), false, false),
        (payload_2("POST /events", r#","authorizer":{}"#), false, false),
        (payload_2("POST /events", r#","authorizer":{"iam":null}"#), false, false),
        (payload_2("POST /events", r#","authorizer":{"jwt":{"claims":{}}}"#), false, true),
        (payload_1("/{proxy+}", ""), true, false),
        (payload_1("/sessions/{id}", r#","identity":{"userArn":null,"sourceIp":"192.0.2.1"}"#), false, false),
        (payload_1("/{proxy+}", SIGNED), true, true),
        (payload_1("/sessions/{id}", CLAIMS), false, true),
        (payload_1("/sessions/{id}", r#","elb":{},"authorizer":{"claims":{}}"#), true, false),
    ] {
        let request = request(&payload);
        assert_eq!((request.is_catch_all, request.is_authenticated), (is_catch_all, is_authenticated), "{payload}");
    }
}

#[test]
fn the_query_is_the_same_in_both_payloads() {
    let two =
        request(r#"{"rawPath":"/i","rawQueryString":"a=1%202&b=%26","requestContext":{"http":{"method":"GET"}}}"#);
    let one = request(
        r#"{"path":"/i","httpMethod":"GET","requestContext":{},"queryStringParameters":{"a":"1 2","b":"x"},
        "multiValueQueryStringParameters":{"a":["1 2"],"b":["&"]}}"#,
    );
    // A load balancer does not decode the values.
    let balanced = request(
        r#"{"path":"/i","httpMethod":"GET","requestContext":{"elb":{}},"queryStringParameters":{"a":"1%202","b":"%26"}}"#,
    );
    assert_eq!((&*two.query(), &*one.query()), ("a=1%202&b=%26", "a=1+2&b=%26"));
    assert_eq!(two.query(), balanced.query());
}

#[test]
fn an_error_is_a_problem_with_todays_member() {
    let answer: Value = serde_json::from_str(&Answer::problem(404, "not_found", "no such thing").envelope(7)).unwrap();
    assert_eq!(answer["headers"], serde_json::json!({"content-type": "application/problem+json"}));
    let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    let wanted = serde_json::json!({
        "title": "Not Found", "status": 404, "detail": "no such thing", "code": "not_found",
        "error": {"code": "not_found", "message": "no such thing"},
    });
    assert_eq!((&answer["statusCode"], body), (&404.into(), wanted));
}

#[test]
fn only_a_503_has_retry_after() {
    let envelope = |answer: Answer| serde_json::from_str::<Value>(&answer.envelope(7)).unwrap();
    let answer = envelope(Answer::new(503, "{\"a\":\"\\n\"}".to_owned()));
    assert_eq!(answer["headers"], serde_json::json!({"content-type": "application/json", "retry-after": "3"}));
    assert_eq!((&answer["statusCode"], &answer["body"]), (&503.into(), &"{\"a\":\"\\n\"}".into()));
    let answer = envelope(Answer { allow: Some("POST"), ..Answer::empty(405) });
    assert_eq!(answer["headers"], serde_json::json!({"content-type": "application/json", "allow": "POST"}));
}
