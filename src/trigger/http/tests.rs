use serde_json::Value;

use super::*;
use crate::trigger::envelope::Caller;

const NOW: Millis = 1_773_144_000_000;

fn request(payload: &str) -> Request<'_> {
    match Caller::of(payload) {
        Caller::Http1(envelope) => Request::read_1(&envelope, NOW).unwrap(),
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
        ("POST", "/collect", Route::Events),
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
    ] {
        assert_eq!(Route::of(method, path), wanted, "{method} {path}");
    }
}

#[test]
fn only_a_503_has_retry_after() {
    let envelope = |answer: Answer| serde_json::from_str::<Value>(&answer.envelope(7)).unwrap();
    let answer = envelope(Answer::new(503, "{\"a\":\"\\n\"}".to_owned()));
    assert_eq!(answer["headers"], serde_json::json!({"content-type": "application/json", "retry-after": "3"}));
    assert_eq!((&answer["statusCode"], &answer["body"]), (&503.into(), &"{\"a\":\"\\n\"}".into()));
    let answer = envelope(Answer { allow: Some("POST"), ..Answer::new(405, String::new()) });
    assert_eq!(answer["headers"], serde_json::json!({"content-type": "application/json", "allow": "POST"}));
}
