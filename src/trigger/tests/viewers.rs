//! What the headers of a request tell about the visitor, by the kind of the sender.

use super::*;
use crate::session::Session;

const CHROME: &str =
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36";

/// Posts a body to a path with these headers beside CloudFront's, under these rules. Returns the visitor's session and the answer.
async fn session(path: &str, body: &Value, agent: &str, config: SessionConfig) -> (Session, Value) {
    let manager = SessionManager::with_clock(config, FaultyStore::default(), StoppedClock::default());
    let function = Function { manager, ..function() };
    let mut request = request(body);
    request["rawPath"] = json!(path);
    request["headers"] = json!({
        "content-type": "application/json", "User-Agent": agent, "x-forwarded-for": "203.0.113.7",
        "CloudFront-Viewer-Address": "203.0.113.7:4711", "CloudFront-Viewer-Country": "CH",
        "CloudFront-Viewer-Country-Region": "ZH", "CloudFront-Viewer-City": "Z%C3%BCrich",
        "CloudFront-Viewer-Time-Zone": "Europe/Zurich",
    });
    let answer = handle(&function, &request).await;
    assert_eq!(answer["statusCode"], 200, "{answer}");
    let session = function.manager.get_by_user(&Visitor::new("u")).await.unwrap();
    let all = format!("{answer} {:?} {}", sent(&function.output), serde_json::to_string(&session).unwrap());
    assert!(!all.contains("203.0.113"), "an address: {all}");
    (session, answer)
}

fn of_headers(session: &Session) -> (Option<&str>, Option<&str>) {
    let browser = session.device.as_ref().and_then(|device| device.browser.as_deref());
    (browser, session.geo.as_ref().and_then(|geo| geo.city.as_deref()))
}

#[tokio::test]
async fn a_client_in_a_browser_is_the_visitor_and_a_server_is_not() {
    let body = json!({"type": "track", "event": "x", "anonymousId": "u", "messageId": "m"});
    for (agent, wanted) in [
        (CHROME, (Some("Chrome"), Some("Zürich"))),
        ("analytics-node/2.1", (None, None)),
        ("okhttp/4.12", (None, None)),
    ] {
        let (session, _) = session("/v1/track", &body, agent, SessionConfig::default()).await;
        assert_eq!(of_headers(&session), wanted, "{agent}");
    }
    // What the event itself names goes before.
    let named = json!({"type": "track", "event": "x", "anonymousId": "u", "messageId": "m",
        "context": {"userAgent": CHROME.replace("Chrome/131", "Chrome/99")}});
    let (named, _) = session("/v1/track", &named, CHROME, SessionConfig::default()).await;
    assert_eq!(named.device.unwrap().browser_version.as_deref(), Some("99"));
}

#[tokio::test]
async fn of_our_own_format_a_rule_decides() {
    let body = json!({"uuid": "e", "event": "x", "distinct_id": "u"});
    let (without, _) = session("/events", &body, CHROME, SessionConfig::default()).await;
    assert_eq!(of_headers(&without), (None, None));
    let rules = || SessionConfig { viewer_headers: true, ..SessionConfig::default() };
    let (with, _) = session("/events", &body, CHROME, rules()).await;
    assert_eq!(of_headers(&with), (Some("Chrome"), Some("Zürich")));
    let (server, _) = session("/events", &body, "curl/8.5.0", rules()).await;
    assert_eq!(of_headers(&server), (None, None));
    let headless = CHROME.replace("Chrome/", "HeadlessChrome/");
    let (_, answer) = session("/events", &body, &headless, rules()).await;
    let answer: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    assert_eq!(answer["events"][0]["properties"]["$is_bot"], true);
}
