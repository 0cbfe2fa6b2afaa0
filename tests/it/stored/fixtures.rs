//! Items as earlier versions of the service stored them, in `tests/data/stored/format-<version>.jsonl`. Each can still be read,
//! and has the content that it had when it was written.
//!
//! A fixture is never rewritten. A new format gets a file of its own, made by the code that first writes it:
//! `cargo test --test it stored::fixtures::write -- --ignored`.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event};
use session_tracking::model::{Activity, Entry, Kind, LateEvents, PreviousSession, SessionFacts, SessionState};
use session_tracking::session::{EventId, Millis, Visitor, datetime, session_id, visitor_bits};
use session_tracking::stored::{
    FORMAT, FORMATS, NEWEST_FORMAT, decode_session, decode_timeline, encode_session, encode_timeline,
};
use session_tracking::timeline::{ClosedSession, Correction, PAGE_FINGERPRINTS, Recalled, SessionAnchor, Timeline};
use uuid::Uuid;

use super::NOON;
use super::random::noise;

/// A content of more characters than this is in a file only as a hash. A smaller fixture has the same shape.
const MAX_SHOWN: usize = 12_000;
const MINUTE: Millis = 60_000;

/// The formats that have fixtures, with their files.
const FILES: [(u32, &str); 3] = [
    (1, include_str!("../../data/stored/format-1.jsonl")),
    (2, include_str!("../../data/stored/format-2.jsonl")),
    (3, include_str!("../../data/stored/format-3.jsonl")),
];

#[derive(Serialize, Deserialize)]
struct Fixture {
    name: String,
    project: String,
    distinct_id: String,
    is_session: bool,
    /// The stored bytes, in base64.
    state: String,
    /// The content of the item; see [`timeline_content`].
    content: Value,
}

#[allow(clippy::large_enum_variant, reason = "there are a dozen of them")]
enum Item {
    Timeline(Timeline),
    Session(SessionState),
}

#[test]
fn every_stored_format_is_read() {
    let mut shapes = BTreeSet::new();
    for (version, file) in FILES {
        for fixture in file.lines().map(|line| serde_json::from_str::<Fixture>(line).unwrap()) {
            let visitor = Visitor { project: fixture.project.clone(), distinct_id: fixture.distinct_id.clone() };
            let bytes = BASE64_STANDARD.decode(&fixture.state).unwrap();
            let item = if fixture.is_session {
                decode_session(version, &bytes, visitor.bits()).map(Item::Session)
            } else {
                decode_timeline(version, &bytes, visitor.clone()).map(Item::Timeline)
            };
            let item = item.unwrap_or_else(|error| panic!("format {version}, {}: {error}", fixture.name));
            let content = shown(content(&item, &visitor));
            assert_eq!(content, fixture.content, "format {version}, {}", fixture.name);
            // The item can be written again, in the current format.
            assert!(!rewritten(&item, &visitor).is_empty());
            shapes.insert((version, fixture.name));
        }
        assert!(shapes.iter().filter(|(of, _)| *of == version).count() >= 15, "format {version} has too few fixtures");
    }
}

/// The first release. There is no earlier one to roll back to.
const FIRST_RELEASE: &str = "0.1.0";

/// Every format that was ever written has fixtures. And no format is written by the release that first reads it, because then a
/// rollback to the release before would not be possible.
#[test]
fn a_format_is_read_one_release_before_it_is_written() {
    assert!(FILES.iter().map(|(version, _)| *version).eq(1..=FORMAT));
    assert!(FORMATS.iter().map(|format| format.version).eq(1..=NEWEST_FORMAT));
    let release = |version: &str| {
        let numbers: Vec<u32> = version.split('.').map(|number| number.parse().unwrap()).collect();
        assert_eq!(numbers.len(), 3, "{version}");
        numbers
    };
    let this = release(env!("CARGO_PKG_VERSION"));
    for format in FORMATS {
        let (read, written) = (release(format.read_since), release(format.written_since));
        let is_first = format.written_since == FIRST_RELEASE;
        assert!(read < written || (is_first && read == written), "format {}", format.version);
        assert!(read <= this, "format {} is read", format.version);
        assert_eq!(written <= this, format.version <= FORMAT, "format {} is written", format.version);
    }
}

/// Writes the fixtures of the current format, unless they exist.
#[test]
#[ignore = "writes a file: run it once, by hand, when a new format is first written"]
fn write() {
    let path = format!("{}/tests/data/stored/format-{FORMAT}.jsonl", env!("CARGO_MANIFEST_DIR"));
    let is_empty = std::fs::read_to_string(&path).map_or(true, |file| file.is_empty());
    assert!(is_empty, "{path} exists: fixtures are never rewritten");
    let mut file = String::new();
    for (name, visitor, item) in items() {
        let (state, is_session) = match &item {
            Item::Timeline(timeline) => (encode_timeline(timeline), false),
            Item::Session(session) => (encode_session(session), true),
        };
        let fixture = Fixture {
            name: name.to_owned(),
            project: visitor.project.clone(),
            distinct_id: visitor.distinct_id.clone(),
            is_session,
            state: BASE64_STANDARD.encode(state),
            content: shown(content(&item, &visitor)),
        };
        writeln!(file, "{}", serde_json::to_string(&fixture).unwrap()).unwrap();
    }
    std::fs::write(path, file).unwrap();
}

/// Writes the item and checks that it is read back. Returns the bytes.
fn rewritten(item: &Item, visitor: &Visitor) -> Vec<u8> {
    match item {
        Item::Timeline(timeline) => {
            let bytes = encode_timeline(timeline);
            assert_eq!(decode_timeline(FORMAT, &bytes, visitor.clone()).as_ref(), Ok(timeline));
            bytes
        }
        Item::Session(session) => {
            let bytes = encode_session(session);
            assert_eq!(decode_session(FORMAT, &bytes, visitor.bits()).as_ref(), Ok(session));
            bytes
        }
    }
}

/// Returns the content, or its hash if it is long.
fn shown(content: Value) -> Value {
    let json = content.to_string();
    if json.len() <= MAX_SHOWN {
        return content;
    }
    json!({ "characters": json.len(), "xxh3_128": format!("{:032x}", xxhash_rust::xxh3::xxh3_128(json.as_bytes())) })
}

fn content(item: &Item, visitor: &Visitor) -> Value {
    match item {
        Item::Timeline(timeline) => timeline_content(timeline),
        Item::Session(session) => session_content(session, visitor.bits()),
    }
}

/// Returns the content of a timeline. The member names are the fixtures' own, so that they outlive the names in the code. Session
/// ids are without the half that derives from the visitor; that half is checked.
fn timeline_content(timeline: &Timeline) -> Value {
    let bits = timeline.visitor.bits();
    let previous = timeline.previous.as_ref().map(|previous| {
        json!({
            "id": id_half(previous.id, bits), "started_at": previous.activity.started_at, "last_activity": previous.activity.last_activity,
            "events": previous.activity.event_count, "ended_by_call": previous.activity.ended_by_request, "number": previous.number,
        })
    });
    let anchors = timeline.anchors.iter().map(|anchor| {
        json!({
            "entry": anchor.entry, "id": id_half(anchor.id, bits), "leads": anchor.is_primary, "version": anchor.version,
            "late": late_content(&anchor.late),
        })
    });
    let corrections = timeline.corrections.iter().map(|correction| match correction {
        Correction::Merged { from, into, version } => {
            json!({ "merged": id_half(*from, bits), "into": id_half(*into, bits), "version": version })
        }
        Correction::Split { from, into, at, uuid, version } => json!({
            "split": id_half(*from, bits), "into": id_half(*into, bits), "at": at, "uuid": &**uuid, "version": version,
        }),
    });
    let mut content = json!({
        "seq": timeline.seq,
        "frontier": timeline.watermark,
        "archived": timeline.archived,
        "previous": previous,
        "ended": timeline.ended.iter().map(|state| session_content(state, bits)).collect::<Vec<_>>(),
        "open": timeline.open.as_ref().map(|state| session_content(state, bits)),
        "journal": timeline.unfinalized.iter().map(entry_content).collect::<Vec<_>>(),
        "heads": anchors.collect::<Vec<_>>(),
        "notices": corrections.collect::<Vec<_>>(),
    });
    // Formats before 3 have none.
    if !timeline.closed.is_empty() {
        let closed = timeline.closed.iter();
        content["closed"] =
            closed.map(|closed| json!([closed.closed_at, session_content(&closed.state, bits)])).collect();
    }
    content
}

fn session_content(state: &SessionState, bits: u64) -> Value {
    let content = json!({
        "id": id_half(state.id, bits), "version": state.version, "reason": state.facts.reason.name(), "number": state.number,
        "previous": state.previous.map(|id| id_half(id, bits)),
        "started_at": state.facts.started_at, "last_activity": state.facts.last_activity,
        "events": state.facts.event_count, "page_views": state.facts.page_views,
        "entry_url": state.facts.entry_url, "landing_page": state.facts.landing_page, "exit_page": state.facts.exit_page,
        "referrer": state.facts.attribution.referrer, "utm": state.facts.attribution.utm, "click": state.facts.attribution.click, "device": state.facts.device, "geo": state.facts.geo,
        "properties": state.properties, "ended_by_call": state.facts.ended_by_request,
        "aliases": state.aliases.iter().map(|&id| id_half(id, bits)).collect::<Vec<_>>(),
        "seen": fingerprints(&state.fingerprints), "late": late_content(&state.late),
    });
    with_pages(content, state.pages)
}

fn entry_content(entry: &Entry) -> Value {
    let context = &entry.context;
    let kind = match entry.kind {
        Kind::Pageview => "pageview",
        Kind::Event => "event",
        Kind::Touch => "touch",
        Kind::End => "end",
        Kind::KeepAlive => "keep_alive",
    };
    json!({
        "at": entry.at, "uuid": &*entry.uuid, "kind": kind, "url": context.url, "referrer": context.referrer,
        "utm": context.utm, "device": context.device, "geo": context.geo, "click": entry.click,
        "properties": entry.properties,
    })
}

fn late_content(late: &LateEvents) -> Value {
    let seen = fingerprints(&late.fingerprints);
    with_pages(json!({ "events": late.event_count, "page_views": late.page_views, "seen": seen }), late.pages)
}

/// Adds the number of pages, which formats before 3 do not have.
fn with_pages(mut content: Value, pages: u32) -> Value {
    if pages > 0 {
        content["pages"] = pages.into();
    }
    content
}

fn fingerprints(fingerprints: &[u64]) -> Value {
    fingerprints.iter().map(|fingerprint| format!("{fingerprint:012x}")).collect()
}

/// Checks the half of an id that derives from the visitor. Returns the other half.
fn id_half(id: Uuid, bits: u64) -> String {
    assert_eq!(visitor_bits(id), bits);
    format!("{:016x}", id.as_u64_pair().0)
}

/// Returns items of every shape, made by the current code.
fn items() -> Vec<(&'static str, Visitor, Item)> {
    let visitor = Visitor::new("u");
    let elsewhere = Visitor { project: "shop/é".to_owned(), distinct_id: "ann#1@example.test 😀".to_owned() };
    let timeline = |name, timeline: Timeline| (name, timeline.visitor.clone(), Item::Timeline(timeline));
    let session = |name, session: SessionState| (name, Visitor::new("u"), Item::Session(session));
    let everything = everything(&visitor);
    let over = everything.ended[0].clone();
    vec![
        timeline("empty", Timeline::new(visitor.clone())),
        timeline("one event", visit(&visitor, 1, |_| json!({}))),
        timeline("of another project", visit(&elsewhere, 3, all_fields)),
        timeline("a visit", visit(&visitor, 6, all_fields)),
        timeline("everything", everything.clone()),
        timeline("ended by a call", ended_by_a_request(&visitor)),
        timeline("a merge and a split", merged_and_split(&visitor)),
        timeline("20 pages with a query of 1,900 characters", visit(&visitor, 20, |n| query(n, 1_900))),
        timeline("60 pages with a query of 700 characters", visit(&visitor, 60, |n| query(n, 700))),
        timeline("12 campaigns with long addresses", visit(&visitor, 12, campaign)),
        timeline("1,000 events, each of another source", visit(&visitor, 1_000, source)),
        timeline("512 entries", visit(&visitor, 512, all_fields)),
        timeline("a long visit", long(&visitor)),
        timeline("400 sessions that wait", waiting(&visitor)),
        timeline("closed sessions", closed(&visitor)),
        session("a session", SessionState { aliases: Vec::new(), ..over.clone() }),
        session("a session with everything", decorated(over.clone(), &visitor)),
        session("a session with pages", long(&visitor).open.unwrap()),
        session("a session with long texts", visit_then_close(&visitor, 20, |n| query(n, 20_000))),
    ]
}

/// The rules of the fixtures. Click ids are on, so that they are stored.
fn config() -> SessionConfig {
    SessionConfig::from_rules(json!({ "new_session_on_click_id_change": true })).unwrap()
}

/// Returns a visit of `count` events, a second apart, in one batch.
fn visit(visitor: &Visitor, count: usize, properties: impl Fn(usize) -> Value) -> Timeline {
    let mut timeline = Timeline::new(visitor.clone());
    let events: Vec<(Millis, Value)> = (0..count).map(|n| (NOON + 1000 * n as Millis, properties(n))).collect();
    send(&mut timeline, &events, NOON + 1000 * count as Millis);
    timeline
}

fn visit_then_close(visitor: &Visitor, count: usize, properties: impl Fn(usize) -> Value) -> SessionState {
    visit(visitor, count, properties).close(NOON + 86_400_000, &config()).ended.remove(0)
}

fn send(timeline: &mut Timeline, events: &[(Millis, Value)], received_at: Millis) {
    let config = config();
    let delivery = Delivery { received_at, trusts_received_at: false };
    let json: Vec<String> = events
        .iter()
        .enumerate()
        .map(|(n, (at, properties))| {
            // Every third id is not in a UUID's usual form.
            let uuid = if n % 3 == 2 { format!("id-{at}") } else { format!("0190a6f2-0c0a-7cfa-8d8a-{at:012x}") };
            let name = if n % 4 == 3 { "click" } else { "$pageview" };
            let timestamp = datetime(*at).to_rfc3339();
            json!({"uuid": uuid, "event": name, "distinct_id": "u", "timestamp": timestamp, "properties": properties})
                .to_string()
        })
        .collect();
    let arrivals: Vec<_> = json
        .iter()
        .filter_map(|json| Event::parse(json.as_bytes(), delivery, &config).unwrap().arrival(&config))
        .collect();
    timeline.apply(&arrivals, Vec::new(), &config);
}

/// Returns properties with every field that the service reads.
fn all_fields(n: usize) -> Value {
    json!({
        "$current_url": format!("https://shop.test/käse/{}?gclid=g{}", n, n / 5),
        "$referrer": (["https://www.google.com/search?q=x", "https://blog.test/"][n / 4 % 2]),
        "utm_source": "ads", "utm_medium": "cpc", "utm_campaign": format!("c{}", n / 6), "utm_term": "t", "utm_content": "😀",
        "$device_type": "Desktop", "$os": "Linux", "$os_version": "6.1", "$browser": "Firefox", "$browser_version": 128,
        "$screen_width": 1920, "$screen_height": 1080,
        "$geoip_country_code": "CH", "$geoip_subdivision_1_name": "Bern", "$geoip_city_name": "Bern", "$geoip_time_zone": "Europe/Zurich",
        "$session_properties": { "plan": "pro", "n": n, "list": [1.0, null, "é"] },
    })
}

fn query(n: usize, length: usize) -> Value {
    json!({ "$current_url": format!("https://shop.test/{n}?{}", noise(1, length)) })
}

fn campaign(n: usize) -> Value {
    let long = |seed| noise(seed, 1_500);
    json!({
        "utm_source": format!("s{n}"), "$current_url": format!("https://shop.test/{n}?{}", long(1)),
        "$referrer": format!("https://blog.test/{n}?{}", long(2)),
    })
}

fn source(n: usize) -> Value {
    json!({ "utm_source": format!("{}{n:06}", noise(3, 60)) })
}

/// Returns a timeline with two sessions that are over, an open one, unfinalized events, anchors, a previous session, archived
/// sessions, late events and corrections.
fn everything(visitor: &Visitor) -> Timeline {
    let mut timeline = Timeline::new(visitor.clone());
    for minutes in [0, 1, 100, 101, 200, 201] {
        let at = NOON + minutes * MINUTE;
        send(&mut timeline, &[(at, all_fields(minutes as usize))], at);
    }
    timeline.finalize(NOON + 202 * MINUTE, &config());
    for minutes in [203, 204, 205, 290] {
        let at = NOON + minutes * MINUTE;
        send(&mut timeline, &[(at, all_fields(201))], at);
    }
    // Late events: in a session that is over, and in the live one.
    for minutes in [50, 100, 202] {
        send(&mut timeline, &[(NOON + minutes * MINUTE - 7, all_fields(3))], NOON + 300 * MINUTE);
    }
    timeline.archived = 7;
    let bits = visitor.bits();
    timeline.previous.get_or_insert(PreviousSession {
        id: session_id(bits, NOON, "previous", 0),
        number: 2,
        activity: Activity { started_at: NOON, last_activity: NOON + 5, event_count: 3, ended_by_request: true },
    });
    let (from, into, version) = (session_id(bits, NOON, "a", 0), session_id(bits, NOON, "b", 1), timeline.seq);
    timeline.corrections.push(Correction::Merged { from, into, version });
    let uuid = EventId::new("the first of them");
    timeline.corrections.push(Correction::Split { from: into, into: from, at: NOON, uuid, version });
    let last = timeline.unfinalized.len() - 1;
    let anchor = |is_primary| SessionAnchor {
        entry: last,
        id: session_id(bits, NOON, "c", 2),
        is_primary,
        version,
        late: LateEvents {
            event_count: 2,
            page_views: 1,
            fingerprints: vec![5, 0xffff_ffff_ffff],
            pages: 0,
            ..LateEvents::default()
        },
    };
    if timeline.anchors.iter().all(|other| other.entry < last) {
        timeline.anchors.push(anchor(false));
    }
    timeline.due_at = None;
    timeline
}

fn ended_by_a_request(visitor: &Visitor) -> Timeline {
    let mut timeline = visit(visitor, 3, all_fields);
    let id = timeline.sessions(NOON + MINUTE, &config()).pop().unwrap().id.parse().unwrap();
    assert!(timeline.end(id, NOON + MINUTE, &config()));
    send(&mut timeline, &[(NOON + 2 * MINUTE, all_fields(9))], NOON + 2 * MINUTE);
    timeline
}

fn merged_and_split(visitor: &Visitor) -> Timeline {
    let mut timeline = Timeline::new(visitor.clone());
    // Two sessions with a gap of 50 minutes between them, until an event in the gap merges them.
    for minutes in [0, 50] {
        send(&mut timeline, &[(NOON + minutes * MINUTE, json!({}))], NOON + minutes * MINUTE);
    }
    let long_lateness = SessionConfig::from_rules(json!({ "lateness_seconds": 86_400 })).unwrap();
    let at = NOON + 25 * MINUTE;
    let json = json!({"uuid": "between", "event": "x", "distinct_id": "u", "timestamp": datetime(at).to_rfc3339()})
        .to_string();
    let delivery = Delivery { received_at: NOON + 50 * MINUTE, trusts_received_at: false };
    let arrival = Event::parse(json.as_bytes(), delivery, &long_lateness).unwrap().arrival(&long_lateness).unwrap();
    timeline.apply(&[arrival], Vec::new(), &long_lateness);
    assert!(!timeline.corrections.is_empty(), "{timeline:?}");
    timeline
}

/// Returns a visit whose fingerprints are mostly on pages.
fn long(visitor: &Visitor) -> Timeline {
    let mut timeline = Timeline::new(visitor.clone());
    for minute in 0..300 {
        let events: Vec<_> = (0..5).map(|n| (NOON + minute * MINUTE + n, json!({ "$os": "Linux" }))).collect();
        send(&mut timeline, &events, NOON + minute * MINUTE + 5);
    }
    let _ = timeline.move_to_pages(&mut Recalled::default(), PAGE_FINGERPRINTS);
    let fingerprints = timeline.open.as_ref().map(|open| (open.pages, open.fingerprints.len() < PAGE_FINGERPRINTS));
    assert_eq!(fingerprints, Some((23, true)));
    timeline
}

/// Returns a timeline with many sessions that are over and wait to be closed.
fn waiting(visitor: &Visitor) -> Timeline {
    let mut timeline = Timeline::new(visitor.clone());
    for day in 0..400 {
        let at = NOON + day * 24 * 60 * MINUTE;
        send(&mut timeline, &[(at, all_fields(day as usize % 7))], at);
        timeline.finalize(at + 6 * MINUTE, &config());
    }
    assert!(timeline.ended.len() >= 399);
    timeline
}

/// Returns a visit after two closed ones.
fn closed(visitor: &Visitor) -> Timeline {
    let mut timeline = Timeline::new(visitor.clone());
    for hours in [0, 5, 11] {
        let at = NOON + hours * 60 * MINUTE;
        send(&mut timeline, &[(at, all_fields(hours as usize)), (at + 7, json!({}))], at + 7);
        let closed_at = at + 70 * MINUTE - 13;
        for state in timeline.close(if hours < 11 { closed_at } else { at }, &config()).ended {
            timeline.keep_closed(ClosedSession { state, closed_at });
        }
    }
    assert_eq!((timeline.closed.len(), timeline.unfinalized.len(), timeline.archived), (2, 2, 0));
    timeline.due_at = None;
    timeline
}

/// Returns the session with values in all fields that it does not have by itself.
fn decorated(session: SessionState, visitor: &Visitor) -> SessionState {
    let bits = visitor.bits();
    let mut facts = SessionFacts { ended_by_request: true, ..session.facts };
    facts.attribution.click = Some(u64::MAX);
    SessionState {
        facts,
        aliases: vec![session_id(bits, NOON, "x", 0), session_id(bits, NOON + 1, "y", 9)],
        previous: Some(session_id(bits, NOON - 1, "before", 0)),
        pages: 3,
        late: LateEvents {
            event_count: 200,
            page_views: 2,
            fingerprints: vec![1, 2],
            pages: 2,
            ..LateEvents::default()
        },
        properties: [("k".to_owned(), "\"v é\"".to_owned()), ("l".to_owned(), "{\"a\":[1.0]}".to_owned())].into(),
        ..session
    }
}
