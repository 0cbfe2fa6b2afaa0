//! Hostile events: whatever the service stores of them is read back. They have long and repetitive strings, many events of one
//! moment, very late events and values at the edges of JSON, with requests that end sessions in between.

use proptest::prelude::*;
use serde_json::{Value, json};
use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event};
use session_tracking::model::SessionState;
use session_tracking::session::{Millis, Visitor, datetime};
use session_tracking::stored::{FORMAT, Room, decode_timeline, encode_item};
use session_tracking::timeline::{ClosedSession, Timeline};

use super::random::noise;
use super::{NOON, read_session};

/// Rules under which sessions begin often, end often, or hardly ever.
const RULES: [&str; 6] = [
    "{}",
    r#"{"max_events":1}"#,
    r#"{"timeout_seconds":1,"max_duration_seconds":2,"lateness_seconds":0}"#,
    r#"{"direct_then_source":"split","new_session_on_click_id_change":true,"boundary":"exclusive"}"#,
    r#"{"lateness_seconds":172800,"max_duration_seconds":2592000}"#,
    r#"{"direct_then_source":"upgrade","midnight":"Europe/Zurich"}"#,
];

/// Values of `$session_properties`, as JSON. Some are invalid.
const VALUES: [&str; 14] = [
    "1e999",
    "-0",
    "1E-400",
    "123456789012345678901234567890.123456789012345678901234567890",
    r#""\ud83d\ude00""#,
    r#""\ud83d""#,
    r#""\u0000""#,
    r#""\"\\\/\b\f\n\r\t""#,
    "\"\u{7f}\u{ffff}\u{10ffff}\"",
    r#"{"a":1,"a":{"a":[]}}"#,
    "[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]",
    " { \"a\" : [ ] } ",
    "null",
    "NaN",
];

#[derive(Debug, Clone)]
struct Step {
    /// The time since the step before.
    gap: Millis,
    /// The number of events.
    count: usize,
    /// The time between two events. The first event is the newest.
    apart: Millis,
    /// How old the newest event is at its receipt.
    age: Millis,
    /// The number of characters that all URLs share.
    shared_length: usize,
    /// Whether URLs differ before the characters that they share, or after them.
    differs_in_front: bool,
    /// The number of different sources.
    sources: usize,
    /// An index into [`VALUES`].
    value: usize,
    ids: Ids,
    action: Action,
}

/// The ids of the events.
#[derive(Debug, Clone, Copy)]
enum Ids {
    /// A UUID for each event.
    Own,
    /// A few ids, so that most events are duplicates.
    Few,
    /// Long ids with unusual characters.
    Odd,
}

/// What happens after a batch.
#[derive(Debug, Clone, Copy)]
enum Action {
    Nothing,
    End,
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    let gap = prop_oneof![Just(0_i64), 0_i64..5_000, 0_i64..4_000_000, Just(90_000_000)];
    let count = prop_oneof![4 => 1_usize..6, 2 => 6_usize..80, 1 => 500_usize..700];
    let apart = prop_oneof![2 => Just(0_i64), 2 => 1_i64..2_000, 1 => 1_000_000_i64..4_000_000];
    let age = prop_oneof![3 => Just(0_i64), 2 => 0_i64..600_000, 1 => 0_i64..90_000_000, 1 => Just(800_000_000_000)];
    let shared_length = prop_oneof![2 => Just(0_usize), 2 => 1_usize..3_000, 1 => 3_000_usize..20_000];
    let ids = prop_oneof![4 => Just(Ids::Own), 1 => Just(Ids::Few), 1 => Just(Ids::Odd)];
    let action = prop_oneof![3 => Just(Action::Nothing), 1 => Just(Action::End), 2 => Just(Action::Close)];
    let sources = prop_oneof![Just(1_usize), 2_usize..5, Just(1_000)];
    let what = (shared_length, any::<bool>(), sources, 0..VALUES.len(), ids, action);
    (gap, count, apart, age, what).prop_map(|(gap, count, apart, age, what)| {
        let (shared_length, differs_in_front, sources, value, ids, action) = what;
        Step { gap, count, apart, age, shared_length, differs_in_front, sources, value, ids, action }
    })
}

impl Step {
    fn events(&self, number: usize, now: Millis) -> Vec<String> {
        let shared = noise(7, self.shared_length);
        let event = |n: usize| {
            let at = now - self.age - self.apart * n as Millis;
            let own = format!("{number}-{n}");
            let uuid = match self.ids {
                Ids::Own => format!("0190a6f2-0c0a-7cfa-8d8a-{:012x}", number * 1_000 + n),
                Ids::Few => format!("few-{}", n % 7),
                Ids::Odd => format!("{own}é\u{10fffe}{}", "x".repeat(150)),
            };
            let url = match self.differs_in_front {
                true => format!("https://{own}.shop.test/?{shared}"),
                false => format!("https://shop.test/?{shared}{own}"),
            };
            let mut event = json!({
                "uuid": uuid, "event": (["$pageview", "click", "$session_end"][n % 3]), "distinct_id": "u",
                "timestamp": datetime(at).to_rfc3339(),
                "properties": {
                    "$current_url": url, "utm_source": format!("s{}", n % self.sources), "$os": "Linux",
                    "$referrer": format!("https://{}.test/{shared}", n % self.sources), "gclid": own,
                },
            });
            event["properties"]["$session_properties"] = Value::String("here".to_owned());
            let properties = format!(
                "{{\"{}\":{},\"k{n}\":{}}}",
                "k\\u00e9".repeat(n % 40),
                VALUES[self.value],
                VALUES[n % VALUES.len()]
            );
            event.to_string().replace("\"here\"", &properties)
        };
        (0..self.count).map(event).collect()
    }
}

/// Checks that the timeline is read back as it was written, unless it is too large to be written.
fn check(timeline: &Timeline) -> Result<(), TestCaseError> {
    if let Some(bytes) = encode_item(timeline, Room::ToClose) {
        let read = decode_timeline(FORMAT, &bytes, timeline.visitor.clone());
        prop_assert!(read.is_ok(), "{}", read.unwrap_err());
        prop_assert_eq!(read, Ok(Timeline { due_at: None, ..timeline.clone() }));
    }
    for session in timeline.finalized() {
        prop_assert_eq!(read_session(session), Ok(session.clone()));
    }
    Ok(())
}

fn run(rules: &str, steps: &[Step]) -> Result<(), TestCaseError> {
    let config = SessionConfig::from_rules(serde_json::from_str(rules).unwrap()).unwrap();
    let mut timeline = Timeline::new(Visitor::new("u"));
    let mut archive: Vec<SessionState> = Vec::new();
    let mut now = NOON;
    for (number, step) in steps.iter().enumerate() {
        now += step.gap;
        let delivery = Delivery { received_at: now, trusts_received_at: true };
        let json = step.events(number, now);
        let events = json.iter().filter_map(|json| Event::parse(json.as_bytes(), delivery, &config).ok());
        let arrivals: Vec<_> = events.filter_map(|event| event.arrival(&config)).collect();
        let recalled = timeline.recall_range(&arrivals, &config).map_or(Vec::new(), |(from, to)| {
            let began = |state: &&SessionState| (from..=to).contains(&((state.id.as_u128() >> 80) as Millis));
            archive.iter().filter(began).cloned().collect()
        });
        timeline.apply(&arrivals, recalled, &config);
        check(&timeline)?;
        match step.action {
            Action::Nothing => {}
            Action::End => {
                let last = timeline.sessions(now, &config).pop();
                last.map(|session| timeline.end(session.id.parse().unwrap(), now, &config));
            }
            Action::Close => {
                for session in timeline.close(now, &config).ended {
                    prop_assert_eq!(read_session(&session), Ok(session.clone()));
                    archive.retain(|other| other.id != session.id);
                    if session.number % 2 == 0 {
                        timeline.keep_closed(ClosedSession { state: session, closed_at: now });
                    } else {
                        archive.push(session);
                    }
                }
            }
        }
        check(&timeline)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_made_is_read_back(rules in 0..RULES.len(), steps in prop::collection::vec(step(), 1..7)) {
        run(RULES[rules], &steps)?;
    }
}

/// More sessions of one millisecond than it has ids, in one batch, as a queue can deliver them.
#[test]
fn sessions_of_one_moment_have_ids_of_their_own() {
    let step = Step {
        gap: 0,
        count: 6_000,
        apart: 0,
        age: 0,
        shared_length: 0,
        differs_in_front: false,
        sources: 6_000,
        value: 12,
        ids: Ids::Own,
        action: Action::Close,
    };
    run(RULES[0], &[step.clone(), Step { gap: 60_000, count: 3, ..step }]).unwrap();
}
