//! The fast path and the slow path have the same result.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::json;

use super::*;
use crate::model::{Entry, Kind};
use crate::session::{EventId, Millis, SessionContext, UtmParams, Visitor};
use crate::timeline::Recalled;

const NOON: Millis = 1_773_144_000_000;

/// What happens to a timeline.
#[derive(Debug, Clone)]
enum Step {
    /// A batch of events: of each its number, its step in seconds, its campaign, and whether it is passive.
    Batch(Vec<(u8, i64, u8, bool)>),
    /// A run of the close function, this many seconds later.
    Close(i64),
    /// A request ends the last session.
    End,
}

fn step() -> impl Strategy<Value = Step> {
    // Mostly forward, or there would be too few common cases.
    let seconds = prop_oneof![8 => 0..40_i64, 1 => -40..0_i64, 1 => 40..400_i64];
    let event = (any::<u8>(), seconds, 0..12_u8, prop::bool::weighted(0.03));
    prop_oneof![
        12 => prop::collection::vec(event, 0..5).prop_map(Step::Batch),
        1 => (0..200_i64).prop_map(Step::Close),
        1 => Just(Step::End),
    ]
}

fn arrival((number, at, campaign, passive): (u8, Millis, u8, bool), received_at: Millis) -> Arrival {
    let utm = |name: u8| UtmParams { source: Some(name.to_string()), ..UtmParams::default() };
    let context = SessionContext {
        url: Some(format!("https://a.test/{number}").into()),
        utm: (campaign < 3).then(|| utm(campaign).into()),
        ..SessionContext::default()
    };
    let uuid = EventId::new(&format!("{number:03}"));
    let kind = match number % 4 {
        0 => Kind::KeepAlive,
        1 => Kind::Event,
        _ => Kind::Pageview,
    };
    let entry = Entry { at, uuid, kind, context, click: None, properties: Vec::new() };
    Arrival { entry, received_at, passive, timed_by_sent_at: false, may_change_time: false }
}

#[test]
fn both_paths_agree() {
    let worlds = (prop::collection::vec(step(), 1..40), 0..60_u64, 3..9_u32);
    let (common, uncommon) = (Cell::new(0), Cell::new(0));
    let run = |(steps, lateness, max_events): (Vec<Step>, u64, u32)| {
        let rules = json!({"timeout_seconds": 60, "lateness_seconds": lateness, "max_events": max_events});
        let config = SessionConfig::from_rules(rules).unwrap();
        let (mut timeline, mut now, mut pages) = (Timeline::new(Visitor::new("u")), NOON, Vec::new());
        for step in steps {
            match step {
                Step::Close(seconds) => drop(timeline.close(now + seconds * 1000, &config)),
                Step::End => {
                    let last = timeline.sessions(now, &config).pop();
                    last.map(|session| timeline.end(session.id.parse().unwrap(), now, &config));
                }
                Step::Batch(events) => {
                    let at = |(number, seconds, campaign, passive)| {
                        let at = now + seconds * 1000;
                        now = now.max(at);
                        arrival((number, at, campaign, passive), now)
                    };
                    let arrivals: Vec<Arrival> = events.into_iter().map(at).collect();
                    // Both have all pages, which are tiny.
                    let mut recalled = Recalled { sessions: Vec::new(), pages: pages.clone() };
                    pages.extend(timeline.move_to_pages(&mut recalled, 2));
                    let (before, mut by_slow_path) = (timeline.clone(), timeline.clone());
                    let slow = by_slow_path.apply_slow(&arrivals, recalled.clone(), &config);
                    let fast = timeline.apply_fast(&arrivals, &recalled.pages, &config);
                    let (count, expected) = match fast {
                        Some(_) => (&common, &by_slow_path),
                        None => (&uncommon, &before),
                    };
                    count.set(count.get() + 1);
                    prop_assert_eq!(&timeline, expected);
                    prop_assert!(fast.is_none_or(|fast| fast == slow));
                    timeline = by_slow_path;
                }
            }
        }
        Ok(())
    };
    let config = ProptestConfig::with_cases(2000);
    TestRunner::new(config).run(&worlds, run).unwrap_or_else(|error| panic!("{error}"));
    assert!(common.get() > 10_000 && uncommon.get() > 10_000, "{common:?} {uncommon:?}");
}
