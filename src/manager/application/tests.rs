//! Every way through the steps, without a store and without a clock.

use super::*;
use crate::event::{Delivery, Event};
use crate::timeline::{ClosedSession, PAGE_FINGERPRINTS, Timeline};

const NOON: Millis = 1_773_144_000_000;

/// Returns the arrival of an event with this id, a second after noon for each `n`.
fn arrival(n: i64) -> Arrival {
    let json = format!(r#"{{"uuid":"e{n}","event":"x","distinct_id":"u","timestamp":{}}}"#, NOON + n * 1000);
    let delivery = Delivery { received_at: NOON + n * 1000, trusts_received_at: false };
    let config = SessionConfig::default();
    Event::parse(json.as_bytes(), delivery, &config).unwrap().arrival(&config).unwrap()
}

/// Returns the timeline of these events, under this etag.
fn stored(events: &[i64], etag: u64) -> Stored {
    let mut timeline = Timeline::new(Visitor::new("u"));
    let arrivals: Vec<Arrival> = events.iter().map(|&n| arrival(n)).collect();
    timeline.apply(&arrivals, Vec::new(), &SessionConfig::default());
    Stored { timeline, etag }
}

fn conflict(winner: Stored) -> CommitOutcome {
    CommitOutcome::Conflict(Some(Box::new(winner)))
}

/// Returns how many events were placed, and the error of the others.
fn result(step: Step) -> (usize, Option<SessionError>) {
    let Step::Done(Resolved { assignments, rest }) = step else { panic!("{step:?}") };
    (assignments.len(), rest)
}

/// Runs `check` on an application of these events to this base.
fn with(base: Option<Stored>, is_speculative: bool, events: &[i64], check: impl FnOnce(&mut Application<'_>)) {
    let (visitor, mut base) = (Visitor::new("u"), Base { stored: base, is_speculative });
    let arrivals: Vec<Arrival> = events.iter().map(|&n| arrival(n)).collect();
    check(&mut Application::new(&visitor, &arrivals, &mut base, PAGE_FINGERPRINTS, ClosedLimits::default()));
}

#[test]
fn a_write_replaces_what_was_read() {
    let config = SessionConfig::default();
    for (base, replaces) in [(None, None), (Some(stored(&[1], 7)), Some(7))] {
        with(base, false, &[2, 3], |application| {
            assert!(matches!(application.begin(false, Millis::MIN, &config), Step::Write));
            assert_eq!(application.replaces, replaces);
            assert_eq!(result(application.written(Ok(CommitOutcome::Done))), (2, None));
        });
    }
}

#[test]
fn after_a_conflict_the_events_are_applied_to_the_winner() {
    let config = SessionConfig::default();
    for is_speculative in [false, true] {
        with(Some(stored(&[1], 7)), is_speculative, &[3], |application| {
            assert!(matches!(application.begin(false, Millis::MIN, &config), Step::Write));
            assert!(matches!(application.written(Ok(conflict(stored(&[1, 2], 8)))), Step::Begin));
            assert!(
                matches!(application.begin(false, Millis::MIN, &config), Step::Write) && !application.is_speculative()
            );
            assert_eq!((application.replaces, application.stored().timeline.unfinalized.len()), (Some(8), 3));
        });
    }
}

/// The second winner's item is not used, because others can have written in the pause.
#[test]
fn after_more_conflicts_the_timeline_is_read_after_a_pause() {
    let config = SessionConfig::default();
    with(Some(stored(&[1], 7)), false, &[4], |application| {
        for (winner, read) in [(8, None), (9, Some(10)), (11, Some(12))] {
            assert!(matches!(application.begin(false, Millis::MIN, &config), Step::Write));
            let step = application.written(Ok(conflict(stored(&[1, 2], winner))));
            if let Some(read) = read {
                assert!(matches!(step, Step::Pause(number) if number == u32::from(winner > 9)), "{step:?}");
                assert!(matches!(application.read(Ok(Some(stored(&[1, 2, 3], read)))), Step::Begin));
            }
        }
        assert!(matches!(application.begin(false, Millis::MIN, &config), Step::Write));
        assert_eq!((application.replaces, application.stored().timeline.unfinalized.len()), (Some(12), 4));
    });
}

#[test]
fn duplicates_are_answered_from_what_is_stored() {
    let config = SessionConfig::default();
    with(Some(stored(&[1], 7)), false, &[1], |application| {
        assert_eq!(result(application.begin(false, Millis::MIN, &config)), (1, None));
    });
    with(Some(stored(&[1], 7)), true, &[1], |application| {
        assert!(matches!(application.begin(false, Millis::MIN, &config), Step::Read), "the cache alone proves nothing");
        assert!(matches!(application.read(Ok(None)), Step::Begin));
        assert!(matches!(application.begin(false, Millis::MIN, &config), Step::Write), "the event is new there");
    });
}

#[test]
fn of_events_that_do_not_fit_as_many_as_possible_are_applied() {
    let config = SessionConfig::default();
    with(None, false, &[1, 2, 3, 4], |application| {
        assert!(matches!(application.begin(false, Millis::MIN, &config), Step::Write));
        assert!(matches!(application.written(Err(SessionError::Full)), Step::Read));
        assert!(matches!(application.read(Ok(None)), Step::Begin));
        assert!(matches!(application.begin(false, Millis::MIN, &config), Step::Write));
        assert_eq!(result(application.written(Ok(CommitOutcome::Done))), (2, Some(SessionError::Full)));
    });
    with(None, false, &[1], |application| {
        assert!(matches!(application.begin(false, Millis::MIN, &config), Step::Write));
        assert_eq!(result(application.written(Err(SessionError::Full))), (0, Some(SessionError::Full)));
    });
}

#[test]
fn late_events_ask_for_archived_sessions_first() {
    let config = SessionConfig::default();
    let mut base = stored(&[10_000], 7);
    let closing = base.timeline.close(NOON + 86_400_000, &config);
    with(Some(base), false, &[1], |application| {
        let Step::Recall(from, to) = application.begin(false, Millis::MIN, &config) else { panic!() };
        assert!(from < NOON && to > NOON + 10_000_000);
        assert!(matches!(application.recalled(Ok(closing.ended), &config), Step::Write));
    });
}

#[test]
fn the_end_of_the_time_and_too_many_conflicts_are_errors() {
    let config = SessionConfig::default();
    with(None, false, &[1], |application| {
        assert_eq!(result(application.begin(true, Millis::MIN, &config)), (0, Some(SessionError::Deadline)));
        for attempt in 1..MAX_ATTEMPTS {
            assert!(matches!(application.begin(false, Millis::MIN, &config), Step::Write));
            let step = application.written(Ok(conflict(stored(&[2], u64::from(attempt)))));
            match attempt.checked_sub(2) {
                None => assert!(matches!(step, Step::Begin), "{step:?}"),
                Some(pauses) => {
                    assert!(matches!(step, Step::Pause(number) if number == pauses), "{step:?}");
                    assert!(matches!(application.read(Ok(Some(stored(&[2], u64::from(attempt))))), Step::Begin));
                }
            }
        }
        assert!(matches!(application.begin(false, Millis::MIN, &config), Step::Write));
        assert_eq!(result(application.written(Ok(conflict(stored(&[2], 9))))), (0, Some(SessionError::Contention)));
        assert_eq!(result(application.read(Err(SessionError::Deadline))), (0, Some(SessionError::Deadline)));
        assert_eq!(
            result(application.recalled(Err(SessionError::NotFound), &config)),
            (0, Some(SessionError::NotFound))
        );
    });
}

/// A closed session that a cached timeline has can have been erased since, and nothing would delete it from the archive.
#[test]
fn only_closed_sessions_that_were_read_are_archived() {
    let config = SessionConfig::default();
    let mut base = stored(&[1], 7);
    for state in base.timeline.close(NOON + 86_400_000, &config).ended {
        base.timeline.keep_closed(ClosedSession { state, closed_at: NOON });
    }
    let no_room = ClosedLimits { at_rest_bytes: 512, with_events_bytes: 0 };
    let (visitor, arrivals) = (Visitor::new("u"), [arrival(90_000)]);
    for (is_speculative, limits, archives) in
        [(false, no_room, true), (true, no_room, true), (true, ClosedLimits::default(), false)]
    {
        let mut base = Base { stored: Some(base.clone()), is_speculative };
        let mut application = Application::new(&visitor, &arrivals, &mut base, PAGE_FINGERPRINTS, limits);
        let step = application.begin(false, Millis::MIN, &config);
        assert_eq!(application.archives_closed(), archives);
        if is_speculative && archives {
            assert!(matches!(step, Step::Read), "{step:?}");
            // It was erased in the meantime.
            assert!(matches!(application.read(Ok(None)), Step::Begin));
            assert!(matches!(application.begin(false, Millis::MIN, &config), Step::Write));
            assert!(!application.archives_closed() && application.replaces.is_none());
        } else {
            assert!(matches!(step, Step::Write), "{step:?}");
        }
    }
    // A duplicate writes nothing, so nothing has to leave.
    let (arrivals, mut base) = ([arrival(1)], Base { stored: Some(base), is_speculative: false });
    let mut application = Application::new(&visitor, &arrivals, &mut base, PAGE_FINGERPRINTS, no_room);
    assert_eq!(result(application.begin(false, Millis::MIN, &config)), (1, None));
}
