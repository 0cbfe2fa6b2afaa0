//! Bodies, events and envelopes, which the triggers receive.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor as Walker};
use serde_json::value::RawValue;
use session_tracking::clock::Clock;
use session_tracking::config::{AllowedOrigins, PublicAccess, SessionConfig};
use session_tracking::event::{Delivery, Event, Origin, RejectCode, Repaired};
use session_tracking::manager::SessionManager;
use session_tracking::output::MemoryOutput;
use session_tracking::session::{Millis, Reason, Visitor, session_id};
use session_tracking::storage::InMemorySessionStorage;
use session_tracking::stored::{FORMAT, decode_timeline, encode_timeline};
use session_tracking::timeline::{Assignment, Timeline};
use session_tracking::trigger::Ingest;
use session_tracking::trigger::body::{Form, MAX_EVENTS, decode};
use session_tracking::trigger::split_body::split_body;

/// 2026-03-10T12:00:00Z.
const NOON: Millis = 1_773_144_000_000;
/// Limit of the bytes of a decoded body.
const MAX_BYTES: usize = 64 * 1024;

/// Checks that a body is decoded and split without a panic, and checks each of its raw events with [`event`].
pub fn body(bytes: &[u8]) {
    for (is_base64, encoding) in [(false, None), (true, None), (false, Some("gzip")), (true, Some("gzip"))] {
        let Ok(body) = decode(bytes, is_base64, encoding, MAX_BYTES) else { continue };
        assert!(body.len() <= MAX_BYTES, "decompressed to {} bytes", body.len());
        for form in [Form::Any, Form::Lines] {
            for raw_event in split_body(&body, form, MAX_EVENTS).into_iter().flat_map(|batch| batch.raw_events) {
                let bytes = raw_event.bytes();
                event(bytes);
                // An event that was parsed while the body was split equals one that is parsed from its bytes.
                let origin = Origin::from(Delivery { received_at: NOON, trusts_received_at: true });
                let (split, parsed) = (raw_event.parse(origin, &config()), Event::parse(bytes, origin, &config()));
                assert_eq!(format!("{split:?}"), format!("{parsed:?}"));
            }
        }
    }
}

/// Checks that an accepted event is annotated as valid JSON with everything else byte for byte, that the annotated event can be
/// sent again as the same event, and that its timeline can be stored. A rejected event must have a message of one line.
pub fn event(bytes: &[u8]) {
    let config = config();
    let delivery = Delivery { received_at: NOON, trusts_received_at: true };
    let repaired = Repaired::of(bytes);
    let event = match Event::parse(bytes, delivery, &config) {
        Ok(event) => event,
        Err(why) => {
            assert!(!why.message.is_empty() && !why.message.contains('\n'), "{why:?}");
            let repaired = repaired.as_ref().and_then(|repaired| repaired.parse(delivery, &config)?.ok());
            let Some(event) = repaired else { return };
            event
        }
    };
    let mut assignments = vec![None, Some(assignment())];
    if let Some(arrival) = event.arrival(&config) {
        let mut timeline = Timeline::new(event.visitor());
        assignments.extend(timeline.apply(&[arrival], Vec::new(), &config).assignments);
        let decoded = decode_timeline(FORMAT, &encode_timeline(&timeline), event.visitor());
        timeline.due_at = None;
        assert_eq!(decoded.as_ref(), Ok(&timeline));
    }
    for assignment in &assignments {
        let out = event.annotate(assignment.as_ref());
        assert_eq!(unchanged_members(&out), unchanged_members(event.text), "{out}");
        match Event::parse(out.as_bytes(), delivery, &config) {
            Ok(sent_again) => {
                assert_eq!(
                    (sent_again.visitor(), sent_again.at, sent_again.role),
                    (event.visitor(), event.at, event.role),
                    "{out}"
                );
                let is_unchanged = out == event.text;
                assert!(sent_again.uuid == event.uuid || is_unchanged, "{out}");
            }
            Err(why) => assert_eq!(why.code, RejectCode::TooLarge, "{why:?}: {out}"),
        }
    }
}

/// Checks that any payload is answered with JSON or an error, twice, and that every line of output is one line of JSON.
pub fn envelope(bytes: &[u8]) {
    let payload = String::from_utf8_lossy(bytes);
    let manager = SessionManager::with_clock(config(), InMemorySessionStorage::new(), StoppedClock::default());
    let ingest = Ingest {
        manager,
        output: MemoryOutput::default(),
        rejects: MemoryOutput::default(),
        origins: AllowedOrigins::default(),
        public: PublicAccess::default(),
    };
    for _ in 0..2 {
        match run(ingest.handle(&payload, NOON + 60_000)) {
            Ok(answer) => check_answer(&answer),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    for line in ingest.output.take().iter().chain(&ingest.rejects.take()) {
        assert!(is_json(line) && !line.contains('\n'), "{line}");
    }
}

fn check_answer(answer: &str) {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Envelope<'a> {
        status_code: Option<u16>,
        #[serde(borrow)]
        body: Option<Cow<'a, str>>,
        headers: Option<BTreeMap<String, String>>,
        /// An Application Load Balancer with this setting takes the headers so.
        multi_value_headers: Option<BTreeMap<String, Vec<String>>>,
    }
    assert!(is_json(answer), "{answer}");
    if answer.starts_with('[') {
        // A Pipe is answered with an array, an element for each record. A struct would be read from an array by the order of its fields.
        let elements: Vec<BTreeMap<String, IgnoredAny>> = serde_json::from_str(answer).unwrap();
        assert!(elements.iter().all(|element| element.contains_key("events")), "{answer}");
        return;
    }
    let envelope: Envelope<'_> = serde_json::from_str(answer).unwrap();
    if envelope.status_code.is_some() {
        let single = envelope.headers.unwrap_or_default().into_iter().map(|(name, value)| (name, vec![value]));
        let headers: BTreeMap<_, _> = single.chain(envelope.multi_value_headers.unwrap_or_default()).collect();
        assert!(!headers.is_empty(), "{answer}");
        let body = envelope.body.unwrap();
        // Other clients also get pixels, empty scripts and answers without a body.
        assert!(is_json(&body) || body.is_empty() || headers["content-type"] == ["image/gif"], "{answer}");
    }
}

/// Returns rules under which every branch of the parser can be reached.
fn config() -> SessionConfig {
    let passive_events = vec!["passive".to_owned()];
    SessionConfig { new_session_on_click_id_change: true, passive_events, ..SessionConfig::default() }
}

/// Returns an assignment in which nearly every field is set.
fn assignment() -> Assignment {
    let id = session_id(Visitor::new("u").bits(), NOON, "e", 0);
    Assignment {
        session_id: id,
        reason: Reason::Timeout,
        number: 2,
        previous: Some(id),
        started_at: NOON - 1_000,
        at: NOON,
        page_views: 1,
        user_id: Some("user".into()),
        entry_url: Some("https://a.test/\"\\\n\u{1}".into()),
        exit_page: None,
        referrer: Some("https://b.test/".into()),
        is_start: true,
        is_late: true,
        is_duplicate: false,
        version: 3,
    }
}

/// Returns the names of the properties that annotation writes.
fn annotated_names() -> BTreeSet<String> {
    let json = br#"{"event":"x","distinct_id":"u","timestamp":"?","properties":{"$referrer":"https://c.test/"}}"#;
    let delivery = Delivery { received_at: NOON, trusts_received_at: false };
    let out = Event::parse(json, delivery, &config()).unwrap().annotate(Some(&assignment()));
    let properties = members(&out).into_iter().find(|(key, _)| key.get() == "\"properties\"").unwrap().1;
    let flags = ["$sanitized", "$no_session", "$is_bot"].map(str::to_owned);
    members(properties.get()).iter().map(|(key, _)| name(key)).chain(flags).collect()
}

/// Returns the members of an event and of its properties that annotation must not change. Annotation writes its own properties,
/// and adds a `uuid` and `properties` if they are missing.
fn unchanged_members(json: &str) -> [Vec<(&str, &str)>; 2] {
    let annotated = annotated_names();
    let (mut own, mut properties) = (Vec::new(), Vec::new());
    for (key, value) in members(json) {
        match name(key).as_str() {
            "properties" => properties = members(value.get()),
            "uuid" => {}
            _ => own.push((key.get(), value.get())),
        }
    }
    properties.retain(|(key, _)| !annotated.contains(&name(key)));
    [own, properties.iter().map(|(key, value)| (key.get(), value.get())).collect()]
}

fn name(key: &RawValue) -> String {
    serde_json::from_str(key.get()).unwrap()
}

/// An object's member: key and value, both unparsed.
type Member<'a> = (&'a RawValue, &'a RawValue);

/// Returns the members of an object, in order. `null` has none.
fn members(json: &str) -> Vec<Member<'_>> {
    struct Members;
    impl<'de> Walker<'de> for Members {
        type Value = Vec<Member<'de>>;
        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some(member) = map.next_entry()? {
                members.push(member);
            }
            Ok(members)
        }
    }
    if json == "null" {
        return Vec::new();
    }
    serde_json::Deserializer::from_str(json).deserialize_map(Members).unwrap()
}

fn is_json(line: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(line).is_ok()
}

/// A clock that always shows [`NOON`].
#[derive(Debug, Default)]
struct StoppedClock(AtomicU64);

impl Clock for StoppedClock {
    fn now(&self) -> Millis {
        NOON
    }
    async fn sleep(&self, _time: Duration) {}
    fn random(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// Runs a future that never waits for anything outside of it.
fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
}
