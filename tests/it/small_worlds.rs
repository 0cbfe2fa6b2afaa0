//! Complete enumeration of small worlds: every sequence of a few events of one visitor, over the gaps and the sources that make a
//! difference, in every order of arrival and every division into batches, through the pure timeline. Each is compared with the
//! oracle.
//!
//! A *world* is a set of events with their times. A *way* through a world is an order of arrival, a division into batches, the
//! events' sources, and what happens between the batches.
//!
//! - [`world`]: the times of the events, and the oracle's sessions for each set of events.
//! - [`run`]: the state on one way: what was delivered, closed and archived; [`consumer`]: what a consumer of the output has.
//! - [`walk`]: all ways through a world.
//! - [`exact`]: the checks if all events come in time; [`late`]: the checks if some are late.
//!
//! A failure prints a line that reproduces it: put it into [`EXACT_WAYS`], [`LATE_WAYS`] or [`OVERTAKEN_WAYS`]. Each test states
//! how many ways its families have, so that they cannot shrink unnoticed. A family of *n* events with *g* gaps and *c*
//! combinations of sources (combinations that differ only by an exchange of the two referrers or of the two campaigns count once)
//! has *gⁿ⁻¹ · c · n! · 2ⁿ⁻¹* ways if nothing happens between the batches.
//!
//! `cargo test` goes through all worlds of three events, and through those of four and five events with fewer sources or gaps. The
//! complete families run with `cargo test --release --test it small_worlds -- --ignored`.

mod consumer;
mod exact;
mod late;
mod odometer;
mod run;
mod walk;
mod world;

use exact::Exact;
use late::Late;
use odometer::Odometer;
use run::Clock;
use session_tracking::session::Millis;
use walk::{Between, Check, Walk, replay};
use world::{MAX_EVENTS, TIMEOUT, World};

/// No gap, and gaps just below, at and just above the timeout.
const GAPS: &[Millis] = &[0, TIMEOUT - 1, TIMEOUT, TIMEOUT + 1];
/// No gap, gaps at and just above the timeout, and one so wide that a late event in the middle joins neither side. If the allowed
/// lateness equals the timeout, the second and the third gap are also at and just above the allowed lateness.
const WIDE_GAPS: &[Millis] = &[0, TIMEOUT, TIMEOUT + 1, 2 * TIMEOUT + 2];

/// Gaps with which a session can enclose an event.
const NARROW_GAPS: &[Millis] = &[TIMEOUT / 2, TIMEOUT, 2 * TIMEOUT + 2];

/// What the worlds of a family are made of, and what may happen in them.
#[derive(Debug, Clone, Copy)]
struct Family {
    rules: &'static str,
    /// The allowed lateness, in milliseconds. If every event comes in time, the sessions do not depend on it.
    lateness: Millis,
    gaps: &'static [Millis],
    /// Some of [`world::SOURCES`], for example `-AB12`: none, two referrers, two campaigns.
    sources: &'static str,
    events: usize,
    between: Between,
    /// The maximum number of closed sessions that stay in the timeline.
    max_closed: usize,
}

/// Three events under the default rules, with every source.
const FAMILY: Family = Family {
    rules: "default",
    lateness: 60_000,
    gaps: GAPS,
    sources: "-AB12",
    events: 3,
    between: Between::Nothing,
    max_closed: 1,
};
const LATE_FAMILY: Family = Family { lateness: TIMEOUT, gaps: WIDE_GAPS, sources: "-12", ..FAMILY };

/// Closed sessions are all archived, one of them stays in the timeline, or all stay.
const MAX_CLOSED: [usize; 3] = [0, 1, MAX_EVENTS];

/// Calls [`ways`] for each of [`MAX_CLOSED`]. Returns how many ways there are each time.
fn ways_closed<C: Check + Copy + Send + Sync>(check: C, family: Family) -> u64 {
    let [first, others @ ..] = MAX_CLOSED.map(|max_closed| ways(check, Family { max_closed, ..family }));
    assert_eq!(others, [first; MAX_CLOSED.len() - 1]);
    first
}

/// Goes every way through all worlds of a family. Returns how many ways there are.
fn ways<C: Check + Copy + Send + Sync>(check: C, family: Family) -> u64 {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = |thread: usize| {
        let Family { between, max_closed, sources, .. } = family;
        let mut walk = Walk { check, between, max_closed, sources, ways: 0 };
        let mut odometer = Odometer::default();
        let mut number = 0;
        while odometer.next() {
            let gaps: Vec<Millis> = (1..family.events).map(|_| odometer.one_of(family.gaps)).collect();
            if number % threads == thread {
                walk.world(&World::new(family.rules, family.lateness, &gaps));
            }
            number += 1;
        }
        walk.ways
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|thread| scope.spawn(move || share(thread))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

/// Ways that show one thing each: rules and allowed lateness | gaps | sources | batches. `!` is a close and `~` a finalization, at
/// that many milliseconds after the first event. `x` is a request that ends the session.
const EXACT_WAYS: &[&str] = &[
    // An event between two sessions merges them. The older id stays.
    "default 60000 | 10000 10000 | --- | a c b",
    // A campaign between two events without one splits nothing. A campaign between two events of another one splits twice.
    "default 60000 | 0 0 | 1-1 | a c b",
    "default 60000 | 0 0 | 121 | a c b",
    // An id that has moved from its first event to an earlier one is not given out again: while it is unfinalized, and once it is
    // finalized.
    "default 60000 | 0 0 | 121 | c a b",
    "default 0 | 1 1 | 121 | c a ~1 b",
    // Nor is it given out again once it is archived.
    "max_events 0 | 0 9999 0 | 12-- | d !0 a !0 b !9999 c",
    "default 60000 | 0 0 9999 0 | 2-121 | e !60000 bc !60000 a !69999 d",
    // A split, then a merge, with closes in between.
    "default 60000 | 1 1 9999 10000 | 1-2-- | ae !60001 c b d",
    // A session's start moves back. That can change the reason of the next session.
    "default 0 | 10000 10001 | --- | bc a",
    // A request ends a session. An event from before the request still joins that session.
    "default 0 | 10000 0 10000 | ---- | b x a !10000 dc",
];
const LATE_WAYS: &[&str] = &[
    // A late event next to a live session, next to an ended one, and on its own.
    "default 0 | 10000 10000 | --- | c b a",
    "default 0 | 10000 30000 | --- | b c !40000 a",
    "default 0 | 20000 20000 | --- | a c !40000 b",
    // A late event that follows an archived session, but precedes no finalized event.
    "default 10000 | 10000 10000 10001 | ---- | a !20001 b !30000 d c",
    // A session that is over grows, but not beyond its maximum duration.
    "default 0 | 10000 10000 10000 | ---- | a !10001 b !20001 c !30001 d",
    "default 0 | 10000 10000 10000 | ---- | b c !30001 ad",
    // A late event on its own, between two events that are finalized after it arrived.
    "default 0 | 30000 30000 | --- | a c b ~60001",
    // Two late events, one after the other, extend a session that is over.
    "default 0 | 10000 10000 40000 | ---- | a d !60000 bc",
    // Two late events in one batch: one within a session, one after it.
    "default 0 | 5000 5000 10000 | ---- | a c !20001 bd",
];
/// Ways on which later deliveries overtake a slow one.
const OVERTAKEN_WAYS: &[&str] = &[
    // Events in time enclose a session that a late event made.
    "default 0 | 5000 5000 20000 | ---- | bd c a ~60000",
    // A late event is counted in a session that is then merged into a finalized one.
    "default 0 | 5000 10000 5000 22000 | ----- | a !1 c de b",
    // The same with a session that is not finalized; and without a merge, so that the late event stays where it is.
    "default 0 | 8000 8000 2000 2000 | ----- | a d ce b",
    "default 0 | 5000 11000 2000 2000 | ----- | a d ce b",
];

#[test]
fn ways_worth_knowing() {
    for max_closed in MAX_CLOSED {
        EXACT_WAYS.iter().for_each(|way| replay(&Exact, way, max_closed));
        LATE_WAYS.iter().for_each(|way| replay(&Late(Clock::Newest), way, max_closed));
        OVERTAKEN_WAYS.iter().for_each(|way| replay(&Late(Clock::Own), way, max_closed));
    }
}

#[test]
fn one_and_two_events() {
    for between in [Between::Nothing, Between::Close] {
        assert_eq!(ways_closed(Exact, Family { events: 1, between, ..FAMILY }), 3);
        assert_eq!(ways_closed(Exact, Family { events: 2, between, ..FAMILY }), 4 * 11 * 4);
    }
    assert_eq!(
        ways_closed(Late(Clock::Newest), Family { events: 2, between: Between::CloseAnytime, ..LATE_FAMILY }),
        280
    );
}

#[test]
fn three_events_whatever_happens_in_between() {
    assert_eq!(ways(Exact, FAMILY), 16 * 45 * 24);
    assert_eq!(ways(Exact, Family { between: Between::Each, ..FAMILY }), 69_120);
    let family = Family { lateness: 0, sources: "-12", ..FAMILY };
    assert_eq!(ways_closed(Exact, Family { between: Between::CloseAnytime, ..family }), 20_846);
    assert_eq!(ways(Exact, Family { between: Between::EndRequests, ..family }), 33_600);
}

#[test]
fn three_events_under_other_rules() {
    for rules in ["exclusive", "split", "upgrade", "max_events"] {
        assert_eq!(ways(Exact, Family { rules, between: Between::Close, ..FAMILY }), 16 * 45 * 24, "{rules}");
    }
}

/// Keep-alive events: in no session, in a session that they keep alive, and in another one after an event came in between.
#[test]
fn keep_alive_events() {
    let found = ["default", "max_events"].map(|rules| {
        let family = Family { rules, sources: "-1K", lateness: 0, ..FAMILY };
        let anywhen = ways(Exact, Family { between: Between::CloseAnytime, ..family });
        let ends = ways(Exact, Family { between: Between::EndRequests, sources: "-K", ..family });
        let each = ways(Exact, Family { between: Between::Each, sources: "-K", lateness: 60_000, ..family });
        (anywhen, ends, each)
    });
    assert_eq!(found, [(40_275, 19_200, 12_288); 2]);
    let family = Family { events: 4, gaps: &[0, TIMEOUT, TIMEOUT + 1], sources: "-K", ..FAMILY };
    assert_eq!(ways(Exact, family), 27 * 16 * 192);
}

#[test]
fn four_events() {
    let gaps = &[0, TIMEOUT, TIMEOUT + 1];
    let family = Family { events: 4, gaps, sources: "-12", ..FAMILY };
    assert_eq!(ways(Exact, family), 27 * 41 * 192);
    assert_eq!(ways(Exact, Family { between: Between::Close, sources: "-A", ..family }), 27 * 16 * 192);
}

#[test]
fn five_events() {
    let family = Family { events: 5, sources: "-", ..FAMILY };
    assert_eq!(ways(Exact, Family { gaps: &[0, TIMEOUT, TIMEOUT + 1], ..family }), 81 * 1920);
    assert_eq!(ways(Exact, Family { gaps: &[0, TIMEOUT + 1], between: Between::Close, ..family }), 16 * 1920);
}

#[test]
fn late_events() {
    for (lateness, ways_of_three) in [(0, 42_378), (TIMEOUT, 58_422)] {
        let family = Family { lateness, between: Between::CloseAnytime, ..LATE_FAMILY };
        assert_eq!(ways_closed(Late(Clock::Newest), family), ways_of_three);
    }
    let family = Family { events: 4, sources: "-", between: Between::Close, ..LATE_FAMILY };
    assert_eq!(ways(Late(Clock::Newest), family), 64 * 192);
}

#[test]
fn deliveries_that_overtake_one_another() {
    for lateness in [0, TIMEOUT] {
        let family = Family { lateness, between: Between::Each, ..LATE_FAMILY };
        assert_eq!(ways(Late(Clock::Own), family), 21_504);
        let family = Family { events: 4, sources: "-", gaps: NARROW_GAPS, between: Between::Close, ..family };
        assert_eq!(ways_closed(Late(Clock::Own), family), 27 * 192);
    }
}

#[test]
#[ignore = "takes six minutes of one core with --release"]
fn complete_four_events() {
    for rules in ["default", "exclusive", "split", "upgrade", "max_events"] {
        let family = Family { rules, lateness: 0, ..FAMILY };
        assert_eq!(ways(Exact, Family { between: Between::CloseAnytime, ..family }), 67_005, "{rules}");
        assert_eq!(ways(Exact, Family { between: Between::EndRequests, ..family }), 108_000, "{rules}");
        assert_eq!(ways(Exact, Family { events: 4, ..family }), 64 * 197 * 192, "{rules}");
        let family = Family { events: 4, sources: "-12", between: Between::Close, ..family };
        assert_eq!(ways(Exact, family), 64 * 41 * 192, "{rules}");
    }
    let family = Family { events: 4, sources: "-12", lateness: 0, ..FAMILY };
    assert_eq!(ways(Exact, Family { between: Between::Each, ..family }), 4_030_464);
    assert_eq!(ways(Exact, Family { between: Between::EndRequests, ..family }), 7_872_000);
}

#[test]
#[ignore = "takes four minutes of one core with --release"]
fn complete_late_events() {
    for (lateness, newest, own) in [(0, 238_587, 114_566), (TIMEOUT, 383_168, 196_064)] {
        let family = Family { events: 4, lateness, between: Between::Each, ..LATE_FAMILY };
        assert_eq!(ways(Late(Clock::Newest), family), 4_030_464);
        assert_eq!(ways(Late(Clock::Own), Family { gaps: NARROW_GAPS, ..family }), 1_700_352);
        let family = Family { sources: "-", between: Between::CloseAnytime, ..family };
        assert_eq!(ways(Late(Clock::Newest), family), newest);
        assert_eq!(ways(Late(Clock::Own), Family { gaps: NARROW_GAPS, ..family }), own);
        let family = Family { events: 5, between: Between::Close, ..family };
        assert_eq!(ways(Late(Clock::Newest), family), 256 * 1920);
        assert_eq!(ways(Late(Clock::Own), Family { gaps: NARROW_GAPS, ..family }), 81 * 1920);
    }
}

#[test]
#[ignore = "takes 50 minutes of one core with --release"]
fn complete_five_events() {
    assert_eq!(ways(Exact, Family { events: 5, ..FAMILY }), 256 * 903 * 1920);
}

#[test]
#[ignore = "takes ten minutes of one core with --release"]
fn complete_five_events_closed_in_between() {
    let family = Family { events: 5, sources: "-12", between: Between::Close, ..FAMILY };
    assert_eq!(ways(Exact, family), 256 * 122 * 1920);
}
