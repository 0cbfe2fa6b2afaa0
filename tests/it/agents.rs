//! What an event's user agent tells: the session's device, and bots.

use serde_json::{Value, json};
use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event, Origin, Viewer};
use session_tracking::session::{DeviceInfo, GeoInfo, SessionContext, Visitor};
use session_tracking::storage::InMemorySessionStorage;
use session_tracking::{Outcome, SessionManager};

const NOON: i64 = 1_773_144_000_000;
const CHROME: &str =
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36";
const GOOGLEBOT: &str = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";

fn event(properties: &Value) -> String {
    json!({"uuid": "e", "event": "$pageview", "distinct_id": "u", "properties": properties}).to_string()
}

fn delivery() -> Delivery {
    Delivery { received_at: NOON, trusts_received_at: false }
}

fn with_viewer<'o>(viewer: Option<&'o std::sync::Arc<Viewer>>) -> Origin<'o> {
    Origin { viewer, ..delivery().into() }
}

/// Returns the context that a session would keep of an event with these properties.
fn context(properties: &Value, viewer: Option<&std::sync::Arc<Viewer>>) -> SessionContext {
    let config = SessionConfig::default();
    let json = event(properties);
    let event = Event::parse(json.as_bytes(), with_viewer(viewer), &config).unwrap();
    event.arrival(&config).unwrap().entry.context
}

fn device(device_type: &str, os: Option<&str>, browser: Option<(&str, &str)>) -> DeviceInfo {
    DeviceInfo {
        device_type: device_type.to_owned(),
        os: os.map(str::to_owned),
        browser: browser.map(|(name, _)| name.to_owned()),
        browser_version: browser.map(|(_, version)| version.to_owned()),
        ..DeviceInfo::default()
    }
}

fn firefox() -> std::sync::Arc<Viewer> {
    let agent = "Mozilla/5.0 (Windows NT 10.0; rv:133.0) Gecko/20100101 Firefox/133.0";
    let header = |name: &str| match name {
        "user-agent" => Some(agent.into()),
        "cloudfront-viewer-country" => Some("CH".into()),
        _ => None,
    };
    Viewer::of_browser(false, header).unwrap()
}

#[test]
fn what_an_event_does_not_name_is_taken_from_its_agent_and_then_from_the_request() {
    let chrome = || device("Desktop", Some("Linux"), Some(("Chrome", "131")));
    for (properties, wanted) in [
        (json!({"$user_agent": CHROME}), Some(chrome())),
        (json!({"$raw_user_agent": CHROME, "$os": null, "$browser": ""}), Some(chrome())),
        (
            json!({"$raw_user_agent": CHROME, "$screen_width": 800, "$screen_height": 600}),
            Some(DeviceInfo { screen_resolution: Some("800x600".to_owned()), ..chrome() }),
        ),
        (
            json!({"$raw_user_agent": CHROME, "$browser": "Mine", "$browser_version": 7}),
            Some(device("Desktop", Some("Linux"), Some(("Mine", "7")))),
        ),
        (
            json!({"$raw_user_agent": CHROME, "$browser": "A", "$os": "B", "$device_type": "C"}),
            Some(DeviceInfo { browser_version: None, ..device("C", Some("B"), Some(("A", ""))) }),
        ),
        (json!({"$os": "B"}), Some(device("", Some("B"), None))),
        (json!({"$user_agent": "made up"}), None),
        (json!({"$user_agent": 7}), None),
        (json!({"$user_agent": GOOGLEBOT}), None),
        (json!({}), None),
    ] {
        assert_eq!(context(&properties, None).device.as_deref(), wanted.as_ref(), "{properties}");
    }
    let viewer = firefox();
    let of_request = context(&json!({}), Some(&viewer));
    assert_eq!(of_request.device.as_ref().unwrap().browser.as_deref(), Some("Firefox"));
    assert_eq!(of_request.geo.as_ref().unwrap().country.as_deref(), Some("CH"));
    let own = context(&json!({"$user_agent": CHROME, "$geoip_country_code": "AT"}), Some(&viewer));
    assert_eq!(own.device.as_deref(), Some(&chrome()));
    assert_eq!(own.geo.as_deref(), Some(&GeoInfo { country: Some("AT".to_owned()), ..GeoInfo::default() }));
}

/// Handles one event; returns its properties as they come out, and whether the visitor has a session.
async fn handled(properties: &Value, exclude_bots: bool) -> (Value, bool) {
    let config = SessionConfig { exclude_bots, ..SessionConfig::default() };
    let manager = SessionManager::new(config, InMemorySessionStorage::new());
    let json = event(properties);
    let event = Event::parse(json.as_bytes(), delivery(), manager.config()).unwrap();
    let events = [event];
    let outcomes = manager.resolve(&events, i64::MAX).await;
    let [Outcome::Placed(assignment)] = outcomes.as_slice() else { panic!("{outcomes:?}") };
    let out: Value = serde_json::from_str(&events[0].annotate(assignment.as_ref())).unwrap();
    (out["properties"].clone(), manager.get_by_user(&Visitor::new("u")).await.is_ok())
}

#[tokio::test]
async fn bots_are_marked_and_on_request_excluded() {
    for (properties, is_bot) in [
        (json!({"$raw_user_agent": GOOGLEBOT, "$browser": "Chrome", "$os": "Linux", "$device_type": "Desktop"}), true),
        (json!({"$user_agent": "curl/8.5.0"}), true),
        (json!({"$is_bot": true}), true),
        (json!({"$raw_user_agent": CHROME}), false),
        (json!({"$is_bot": "no"}), false),
        (json!({}), false),
    ] {
        let (marked, has_session) = handled(&properties, false).await;
        assert_eq!((marked["$is_bot"] == true, has_session), (is_bot, true), "{properties}");
        assert!(marked["$session_id"].is_string() && marked.get("$no_session").is_none());
        let (excluded, has_session) = handled(&properties, true).await;
        assert_eq!((excluded["$is_bot"] == true, has_session), (is_bot, !is_bot), "{properties}");
        assert_eq!(excluded.get("$no_session"), is_bot.then_some(&json!("bot")), "{properties}");
        // What came out is the same bot when it is sent again.
        let (again, _) = handled(&excluded, true).await;
        assert_eq!(again.get("$no_session"), excluded.get("$no_session"), "{properties}");
    }
}

#[test]
fn an_address_is_neither_stored_nor_emitted() {
    let header = |name: &str| match name {
        "user-agent" => Some(CHROME.into()),
        "cloudfront-viewer-address" | "x-forwarded-for" => Some("203.0.113.7".into()),
        "cloudfront-viewer-city" => Some("Bern".into()),
        _ => None,
    };
    let viewer = Viewer::of_browser(false, header).unwrap();
    let config = SessionConfig::default();
    let json = event(&json!({}));
    let event = Event::parse(json.as_bytes(), with_viewer(Some(&viewer)), &config).unwrap();
    let all = format!("{:?} {} {viewer:?}", event.arrival(&config), event.annotate(None));
    assert!(all.contains("Bern") && !all.contains("203.0.113"), "{all}");
}
