//! What comes in through the triggers: bodies, events, envelopes.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor as Walker};
use serde_json::value::RawValue;
use session_tracking::clock::Clock;
use session_tracking::config::SessionConfig;
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
/// Bytes that a body is decompressed to at the most.
const MOST: usize = 64 * 1024;

/// A body is decompressed and split without a panic, and whatever its events are, each of them is an [`event`].
pub fn body(bytes: &[u8]) {
    for (is_base64, encoding) in [(false, None), (true, None), (false, Some("gzip")), (true, Some("gzip"))] {
        let Ok(body) = decode(bytes, is_base64, encoding, MOST) else { continue };
        assert!(body.len() <= MOST, "decompressed to {} bytes", body.len());
        for form in [Form::Any, Form::Lines] {
            for raw_event in
                split_body(&body, form, MAX_EVENTS, &config()).into_iter().flat_map(|batch| batch.raw_events)
            {
                let bytes = raw_event.bytes();
                event(bytes);
                // What was read on the way is what is read of its bytes alone.
                let origin = Origin::from(Delivery { received_at: NOON, trusts_received_at: true });
                let (on_the_way, alone) = (raw_event.parse(origin, &config()), Event::parse(bytes, origin, &config()));
                assert_eq!(format!("{on_the_way:?}"), format!("{alone:?}"));
            }
        }
    }
}

/// An event that is taken comes out with its session on it as valid JSON, everything else in it byte for byte, can come in
/// again as the same event, and leaves a timeline that can be stored. One that is not taken is told so in one line.
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
        let again = decode_timeline(FORMAT, &encode_timeline(&timeline), event.visitor());
        timeline.due_at = None;
        assert_eq!(again.as_ref(), Ok(&timeline));
    }
    for assignment in &assignments {
        let out = event.annotate(assignment.as_ref());
        assert_eq!(kept(&out), kept(event.text), "{out}");
        match Event::parse(out.as_bytes(), delivery, &config) {
            Ok(again) => {
                assert_eq!((again.visitor(), again.at, again.role), (event.visitor(), event.at, event.role), "{out}");
                let is_as_it_came = out == event.text;
                assert!(again.uuid == event.uuid || is_as_it_came, "{out}");
            }
            Err(why) => assert_eq!(why.code, RejectCode::TooLarge, "{why:?}: {out}"),
        }
    }
}

/// Whatever invokes the function is answered with JSON or with an error, twice, and every line that goes out is one.
pub fn envelope(bytes: &[u8]) {
    let payload = String::from_utf8_lossy(bytes);
    let manager = SessionManager::with_clock(config(), InMemorySessionStorage::new(), Still::default());
    let ingest = Ingest { manager, output: MemoryOutput::default(), rejects: MemoryOutput::default() };
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
    }
    assert!(is_json(answer), "{answer}");
    let envelope: Envelope<'_> = serde_json::from_str(answer).unwrap();
    if envelope.status_code.is_some() {
        assert!(is_json(&envelope.body.unwrap()), "{answer}");
    }
}

/// Rules under which every branch of the parser is reached.
fn config() -> SessionConfig {
    let passive_events = vec!["passive".to_owned()];
    SessionConfig { new_session_on_click_id_change: true, passive_events, ..SessionConfig::default() }
}

/// An assignment with all that one can say.
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
        entry_url: Some("https://a.test/\"\\\n\u{1}".into()),
        exit_page: None,
        referrer: Some("https://b.test/".into()),
        is_start: true,
        is_late: true,
        version: 3,
    }
}

/// The names of the properties that annotating writes.
fn written() -> BTreeSet<String> {
    let text = br#"{"event":"x","distinct_id":"u","timestamp":"?","properties":{"$referrer":"https://c.test/"}}"#;
    let delivery = Delivery { received_at: NOON, trusts_received_at: false };
    let out = Event::parse(text, delivery, &config()).unwrap().annotate(Some(&assignment()));
    let properties = members(&out).into_iter().find(|(key, _)| key.get() == "\"properties\"").unwrap().1;
    let flags = ["$sanitized", "$no_session"].map(str::to_owned);
    members(properties.get()).iter().map(|(key, _)| name(key)).chain(flags).collect()
}

/// What of an event has to stay: its members and those of its properties, byte for byte, but for those that are written, and
/// for an id and a properties object where there were none.
fn kept(text: &str) -> [Vec<(&str, &str)>; 2] {
    let written = written();
    let (mut own, mut properties) = (Vec::new(), Vec::new());
    for (key, value) in members(text) {
        match name(key).as_str() {
            "properties" => properties = members(value.get()),
            "uuid" => {}
            _ => own.push((key.get(), value.get())),
        }
    }
    properties.retain(|(key, _)| !written.contains(&name(key)));
    [own, properties.iter().map(|(key, value)| (key.get(), value.get())).collect()]
}

fn name(key: &RawValue) -> String {
    serde_json::from_str(key.get()).unwrap()
}

/// An object's member: key and value, each as it stands.
type Member<'a> = (&'a RawValue, &'a RawValue);

/// The members of an object, in order; none of a null.
fn members(text: &str) -> Vec<Member<'_>> {
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
    if text == "null" {
        return Vec::new();
    }
    serde_json::Deserializer::from_str(text).deserialize_map(Members).unwrap()
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// A clock that stands still.
#[derive(Debug, Default)]
struct Still(AtomicU64);

impl Clock for Still {
    fn now(&self) -> Millis {
        NOON
    }
    async fn sleep(&self, _time: Duration) {}
    fn random(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// Runs a future that waits for nothing outside.
fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
}
