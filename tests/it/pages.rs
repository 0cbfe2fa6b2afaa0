//! Long visits: the fingerprints of their finalized events are moved to pages. A duplicate is recognized however long the visit
//! is, and the item that every batch writes stays small.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::json;
use session_tracking::InMemorySessionStorage;
use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event};
use session_tracking::manager::{Outcome, SessionManager};
use session_tracking::model::FingerprintPage;
use session_tracking::session::{Millis, Session, Visitor, datetime, rfc3339};
use session_tracking::storage::{Consumed, DynamoDbSessionStorage, SessionStorage};
use session_tracking::stored::encode_timeline;
use session_tracking::timeline::{PAGE_FINGERPRINTS, Recalled, Timeline};

use crate::cases::{MINUTE, NOON};
use crate::dynamodb::{EmbeddedDynamoDb, TABLE};
use crate::support::{ManualClock, Sink};

const SECOND: Millis = 1_000;
/// A heartbeat comes every so many milliseconds.
const BEAT: Millis = 30 * SECOND;

/// How an event states its time.
#[derive(Debug, Clone, Copy)]
enum Time {
    Timestamp,
    /// By a clock that is an hour behind, with the time at which it is sent by that clock.
    SentAt(Millis),
    None,
}

struct Service<'s, S> {
    manager: SessionManager<&'s S, &'s ManualClock>,
    clock: &'s ManualClock,
    sink: Sink,
}

impl<'s, S: SessionStorage> Service<'s, S> {
    fn new(storage: &'s S, clock: &'s ManualClock) -> Self {
        let manager = SessionManager::with_clock(SessionConfig::default(), storage, clock);
        Self { manager, clock, sink: Sink::default() }
    }

    /// Sends an event of the visit, received at this time. Returns the id of its session, and whether it is late.
    async fn send(&self, number: i64, time: Time, received_at: Millis) -> (String, bool) {
        self.clock.set(received_at);
        let hour = 60 * MINUTE;
        let at = |at: Millis| rfc3339(datetime(at));
        let time = match time {
            Time::Timestamp => format!(r#","timestamp":"{}""#, at(NOON + number * BEAT)),
            Time::SentAt(sent_at) => {
                format!(r#","timestamp":"{}","sent_at":"{}""#, at(NOON + number * BEAT - hour), at(sent_at - hour))
            }
            Time::None => String::new(),
        };
        let json = format!(r#"{{"uuid":"e{number}","event":"beat","distinct_id":"u"{time}}}"#);
        let delivery = Delivery { received_at, trusts_received_at: false };
        let event = Event::parse(json.as_bytes(), delivery, self.manager.config()).unwrap();
        match self.manager.resolve(&[event], Millis::MAX).await.pop() {
            Some(Outcome::Placed(Some(assignment))) => (assignment.session_id.to_string(), assignment.is_late),
            other => panic!("{other:?}"),
        }
    }

    async fn session(&self, id: &str) -> Session {
        self.manager.get(id).await.unwrap()
    }

    async fn timeline(&self) -> Timeline {
        self.manager.storage().read(&Visitor::new("u")).await.unwrap().unwrap().timeline
    }

    async fn close(&self, now: Millis) {
        self.clock.set(now);
        let report = self.manager.cleanup(&&self.sink, Millis::MAX).await;
        assert_eq!((report.failed, report.unlisted, report.is_incomplete), (0, 0, false), "{report:?}");
    }
}

/// Runs the check on both stores.
macro_rules! on_both_stores {
    ($($name:ident),+) => {
        mod in_memory { $(
            #[tokio::test]
            async fn $name() {
                super::$name(&super::InMemorySessionStorage::new()).await;
            }
        )+ }
        mod in_dynamodb { $(
            #[tokio::test]
            async fn $name() {
                let client = super::EmbeddedDynamoDb::start(0).unwrap().client();
                super::$name(&super::DynamoDbSessionStorage::new(client, super::TABLE)).await;
            }
        )+ }
    };
}

on_both_stores!(a_long_visit_counts_each_event_once, late_events_of_a_long_visit_count_once);

/// The number of events of a visit, some 20 pages.
const EVENTS: i64 = 20 * PAGE_FINGERPRINTS as i64;

/// While the visit goes on, and after it was archived, events of any age are sent again, with each kind of time.
async fn a_long_visit_counts_each_event_once<S: SessionStorage>(storage: &S) {
    let clock = ManualClock::default();
    let service = Service::new(storage, &clock);
    let times = [Time::Timestamp, Time::None, Time::SentAt(0)];
    // Events of all three kinds: each has its time by its number.
    let time = |number: i64, sent_at: Millis| match times[number as usize % 3] {
        Time::SentAt(_) => Time::SentAt(sent_at),
        time => time,
    };
    let mut id = String::new();
    let mut largest = 0;
    for number in 0..EVENTS {
        let now = NOON + number * BEAT;
        (id, _) = service.send(number, time(number, now), now).await;
        if number % 8 == 7 {
            let known = (number * 7919) % number;
            assert_eq!(service.send(known, time(known, now), now).await, (id.clone(), false), "event {known}");
        }
        let timeline = service.timeline().await;
        largest = largest.max(encode_timeline(&timeline).len());
        let open = timeline.open.as_ref();
        assert!(open.is_none_or(|open| open.fingerprints.len() <= PAGE_FINGERPRINTS), "{open:?}");
    }
    assert!(largest < 800, "the largest timeline has {largest} bytes");
    let session = service.session(&id).await;
    assert_eq!((session.event_count, session.number), (EVENTS as u32, 1));
    let last = NOON + EVENTS * BEAT;
    service.close(last + 90 * MINUTE).await;
    assert!(!service.session(&id).await.is_active);
    // Events whose own time tells when they happened are found in the archive.
    for known in (0..EVENTS).step_by(51) {
        assert_eq!(known % 3, 0);
        let again = service.send(known, time(known, last), last + 100 * MINUTE).await;
        assert_eq!(again, (id.clone(), false), "event {known}");
    }
    assert_eq!(service.session(&id).await.event_count, EVENTS as u32);
}

/// A visitor all of whose events are late, because another visitor of the same id is live. They are archived in between.
async fn late_events_of_a_long_visit_count_once<S: SessionStorage>(storage: &S) {
    let clock = ManualClock::default();
    let service = Service::new(storage, &clock);
    let received_at = |number: i64| NOON + 2 * 1440 * MINUTE + number * SECOND;
    service.send(100_000, Time::Timestamp, received_at(-10_000)).await;
    service.close(received_at(0)).await;
    let (id, _) = service.send(0, Time::Timestamp, received_at(0)).await;
    for number in 1..EVENTS / 4 {
        assert_eq!(service.send(number, Time::Timestamp, received_at(number)).await, (id.clone(), true));
        if number % 100 == 0 {
            service.close(received_at(number) + 6 * MINUTE).await;
        }
        let known = (number * 7919) % number;
        assert_eq!(service.send(known, Time::Timestamp, received_at(number)).await, (id.clone(), true));
        let timeline = service.timeline().await;
        assert!(timeline.ended.iter().all(|state| state.late.fingerprints.len() <= PAGE_FINGERPRINTS), "{timeline:?}");
    }
    service.close(received_at(EVENTS) + 90 * MINUTE).await;
    assert_eq!(i64::from(service.session(&id).await.event_count), EVENTS / 4);
}

/// The contract of a store about pages: they have a key of their session, kind, number and owner, and to store one again changes
/// nothing.
pub async fn contract<S: SessionStorage>(storage: &S) {
    let longest = Visitor { project: "p".repeat(100), distinct_id: "d".repeat(900) };
    let owners =
        [longest, Visitor::new(crate::storage::COLLIDING_IDS[0]), Visitor::new(crate::storage::COLLIDING_IDS[1])];
    let session = |owner: &Visitor, at| session_tracking::session::session_id(owner.bits(), at, "e", 0);
    let mut stored = HashMap::new();
    for (n, owner) in owners.iter().enumerate() {
        for at in [NOON, NOON + 1] {
            let session_id = session(owner, at);
            let page = |(is_late, number)| {
                let fingerprints =
                    vec![n as u64, at as u64 & 0xffff, u64::from(number), u64::from(is_late), (1 << 48) - 1];
                FingerprintPage { session_id, is_late, number, fingerprints }
            };
            let pages: Vec<FingerprintPage> = [(false, 0), (false, 1), (true, 0), (true, 70_000)].map(page).into();
            for expires_at in [None, Some(NOON + 1_000)] {
                storage.put_pages(owner, &pages, expires_at).await.unwrap();
            }
            stored.insert((n, at), pages);
        }
    }
    for ((n, at), expected) in stored {
        let mut pages = storage.pages(&owners[n], session(&owners[n], at)).await.unwrap();
        pages.sort_by_key(|page| (page.is_late, page.number));
        assert_eq!(pages, expected);
    }
    assert_eq!(storage.pages(&owners[0], session(&owners[0], NOON + 2)).await, Ok(Vec::new()));
}

/// Two writers that read the timeline at different times store the same pages. So neither of them, whenever it writes, replaces
/// what the other one needs.
#[test]
fn every_version_of_a_timeline_has_the_same_pages() {
    let config = SessionConfig::default();
    let mut timeline = Timeline::new(Visitor::new("u"));
    let mut known: HashMap<(uuid::Uuid, bool, u32), FingerprintPage> = HashMap::new();
    for number in 0..500_i64 {
        let received_at = NOON + number * BEAT;
        // Once others are finalized, each tenth event is ten minutes late.
        let is_late = number > 30 && number % 10 == 9;
        let at = received_at - if is_late { 10 * MINUTE } else { 0 };
        let json = format!(r#"{{"uuid":"e{number}","event":"x","distinct_id":"u","timestamp":{at}}}"#);
        let delivery = Delivery { received_at, trusts_received_at: false };
        let arrival = Event::parse(json.as_bytes(), delivery, &config).unwrap().arrival(&config).unwrap();
        let mut moved = timeline.clone();
        for page in moved.move_to_pages(&mut Recalled::default(), 3) {
            let key = (page.session_id, page.is_late, page.number);
            assert_eq!(known.entry(key).or_insert_with(|| page.clone()), &page);
        }
        // Most writers die before they write the timeline.
        if number % 7 == 0 {
            timeline = moved;
        }
        timeline.apply(&[arrival], Vec::new(), &config);
    }
    let late = known.keys().filter(|(_, is_late, _)| *is_late).count();
    assert!(known.len() > 100 && late > 10, "{} pages, {late} of late events", known.len());
}

/// Returns the JSON of an event of a visit with heartbeats, or of one with page views.
fn event_of(kind: &str, number: i64, at: Millis) -> String {
    let url = match kind {
        "beats" => String::new(),
        _ => format!(
            r#""$current_url":"https://shop.example.com/category/{0:04}/a-product-with-a-speaking-name-{0:04}.html","$referrer":"https://shop.example.com/","#,
            number * 7919 % 5_000
        ),
    };
    let (name, at) = (if kind == "beats" { "heartbeat" } else { "$pageview" }, rfc3339(datetime(at)));
    format!(
        r#"{{"uuid":"0198c5f0-1234-7abc-8def-{number:012x}","event":"{name}","distinct_id":"visitor-00000001","timestamp":"{at}","properties":{{{url}"$device_type":"Desktop","$os":"Mac OS X","$browser":"Chrome","$browser_version":131,"$screen_width":1728,"$screen_height":1117}}}}"#
    )
}

/// A write costs one unit, and a page now and then. So does the end of the visit: each page gets the time at which it expires.
#[tokio::test]
async fn a_write_costs_one_unit_however_long_the_visit() {
    for (kind, step) in [("beats", 30 * SECOND), ("views", 60 * SECOND)] {
        let (clock, consumed, sink) = (ManualClock::default(), Arc::new(Consumed::default()), Sink::default());
        let client = EmbeddedDynamoDb::start(0).unwrap().client();
        let storage = DynamoDbSessionStorage::new(client.clone(), TABLE).counting(Arc::clone(&consumed));
        let rules = json!({ "max_duration_seconds": 30 * 86_400 });
        let manager = SessionManager::with_clock(SessionConfig::from_rules(rules).unwrap(), storage, &clock);
        let send = async |number: i64| {
            let received_at = NOON + number * step;
            clock.set(received_at);
            let json = event_of(kind, number, received_at - 200);
            let delivery = Delivery { received_at, trusts_received_at: false };
            let event = Event::parse(json.as_bytes(), delivery, manager.config()).unwrap();
            let outcome = manager.resolve(&[event], Millis::MAX).await.pop();
            assert!(matches!(outcome, Some(Outcome::Placed(Some(_)))), "{outcome:?}");
        };
        for number in 0..10 {
            send(number).await;
        }
        let mut number = 10;
        let mut before = consumed.table_write_units();
        for count in [100, 400, 600] {
            for _ in 0..count {
                send(number).await;
                number += 1;
            }
            let units = (consumed.table_write_units() - before) / f64::from(count);
            println!("{kind}: {units:.3} write units an event up to event {number}");
            assert!(units <= 1.1, "{kind}: a write costs {units} units before event {number}");
            before = consumed.table_write_units();
        }
        assert!(consumed.read_units() / number as f64 <= 0.6, "an event in order reads no page");
        clock.set(NOON + number * step + 90 * MINUTE);
        let report = manager.cleanup(&&sink, Millis::MAX).await;
        assert_eq!((report.closed, report.failed), (1, 0), "{report:?}");
        // The timeline, the archived session, and each page.
        let pages = number as usize / PAGE_FINGERPRINTS;
        let units = consumed.table_write_units() - before;
        println!("{kind}: {units} units to close, {pages} pages");
        assert!(units <= (pages + 4) as f64, "{kind}: {units} units to close the visit");
    }
}
