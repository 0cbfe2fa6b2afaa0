//! Cases of `tests/data/cases.jsonl` that need more than one batch, by their ids: concurrency (H) and closing (I). The cases about
//! clocks (G) are in `src/event/time/tests.rs`.

use futures_util::future::join_all;
use serde_json::Value;
use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event};
use session_tracking::manager::{CloseReport, Outcome, SessionManager};
use session_tracking::output::MemoryOutput;
use session_tracking::session::{Millis, Session, Visitor, datetime, rfc3339};
use session_tracking::storage::{InMemorySessionStorage, SessionStorage};
use session_tracking::timeline::Assignment;

use crate::support::ManualClock;

/// 2026-03-10T12:00:00Z.
pub const NOON: Millis = 1_773_144_000_000;
pub const MINUTE: Millis = 60_000;

/// A service in memory, with a clock that is set by hand.
pub struct Service<'a> {
    pub manager: SessionManager<&'a InMemorySessionStorage, &'a ManualClock>,
    pub clock: &'a ManualClock,
    pub output: MemoryOutput,
}

impl<'a> Service<'a> {
    pub fn new(storage: &'a InMemorySessionStorage, clock: &'a ManualClock) -> Self {
        Self::with(storage, clock, SessionConfig::default())
    }

    pub fn with(storage: &'a InMemorySessionStorage, clock: &'a ManualClock, config: SessionConfig) -> Self {
        clock.set(NOON);
        Self { manager: SessionManager::with_clock(config, storage, clock), clock, output: MemoryOutput::default() }
    }

    /// Applies events of visitor `u1`, each given as id, name and time. They are received when the newest of them happened, or
    /// later.
    pub async fn apply(&self, events: &[(&str, &str, Millis)]) -> Vec<Assignment> {
        let newest = events.iter().map(|(_, _, at)| *at).max().unwrap_or(NOON);
        let now = newest.max(session_tracking::clock::Clock::now(&self.clock));
        self.clock.set(now);
        let json: Vec<String> = events.iter().map(|(uuid, name, at)| event(uuid, name, *at)).collect();
        let delivery = Delivery { received_at: now, trusts_received_at: false };
        let parse = |json: &'a str| Event::parse(json.as_bytes(), delivery, self.manager.config()).unwrap();
        let events: Vec<Event<'_>> = json.iter().map(|json| parse(json.clone().leak())).collect();
        let placed = |outcome| match outcome {
            Outcome::Placed(assignment) => assignment,
            failed => panic!("{failed:?}"),
        };
        self.manager.resolve(&events, Millis::MAX).await.into_iter().filter_map(placed).collect()
    }

    /// Runs the closer. Returns its report and the ends that it emits.
    pub async fn close(&self, now: Millis) -> (CloseReport, Vec<Value>) {
        self.clock.set(now);
        let report = self.manager.cleanup(&self.output, Millis::MAX).await;
        let lines: Vec<Value> = self.output.take().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        (report, lines.into_iter().filter(|line| line["event"] == "$session_end").collect())
    }

    pub async fn latest(&self) -> Session {
        self.manager.get_by_user(&Visitor::new("u1")).await.unwrap()
    }
}

fn event(uuid: &str, name: &str, at: Millis) -> String {
    let timestamp = rfc3339(datetime(at));
    let url = format!("https://shop.test/{uuid}");
    format!(
        r#"{{"uuid":"{uuid}","event":"{name}","distinct_id":"u1","timestamp":"{timestamp}","properties":{{"$current_url":"{url}"}}}}"#
    )
}

const VIEW: &str = "$pageview";

#[tokio::test]
async fn h01_three_simultaneous_events_of_a_new_visitor() {
    let (storage, clock) = (InMemorySessionStorage::new(), ManualClock::default());
    let service = Service::new(&storage, &clock);
    let each = ["a", "b", "c"].map(|uuid| async { service.apply(&[(uuid, VIEW, NOON)]).await });
    let ids: Vec<_> = join_all(each).await.into_iter().flatten().map(|a| a.session_id).collect();
    let session = service.latest().await;
    assert_eq!(session.event_count, 3);
    for id in ids {
        assert_eq!(service.manager.get(&id.to_string()).await.unwrap().id, session.id);
    }
}

#[tokio::test]
async fn h02_two_invocations_with_the_same_new_visitor_in_one_millisecond() {
    let (storage, clock) = (InMemorySessionStorage::new(), ManualClock::default());
    let service = Service::new(&storage, &clock);
    let each = ["a", "b"].map(|uuid| async { service.apply(&[(uuid, VIEW, NOON)]).await });
    let ids: Vec<_> = join_all(each).await.into_iter().flatten().map(|a| a.session_id).collect();
    assert_eq!(ids[0], ids[1], "both answers have the same session");
    assert_eq!(service.latest().await.page_views, 2);
}

#[tokio::test]
async fn h04_h05_h07_a_duplicate_is_counted_once_and_answered_the_same() {
    let (storage, clock) = (InMemorySessionStorage::new(), ManualClock::default());
    let service = Service::new(&storage, &clock);
    let batch = [("e1", VIEW, NOON), ("e2", VIEW, NOON + 1000), ("e1", VIEW, NOON)];
    let duplicates = |answers: &[Assignment]| answers.iter().map(|answer| answer.is_duplicate).collect::<Vec<_>>();
    // That it is a duplicate is counted, not answered.
    let same = |answer: &Assignment| Assignment { is_duplicate: false, ..answer.clone() };
    let first = service.apply(&batch).await;
    assert_eq!(duplicates(&first), [false, false, true]);
    let first: Vec<_> = first.iter().map(same).collect();
    assert_eq!(first[0], first[2]);
    // The invocation died after its write, and the whole batch is redelivered.
    let second = service.apply(&batch).await;
    assert_eq!(duplicates(&second), [true; 3]);
    let second: Vec<_> = second.iter().map(same).collect();
    assert_eq!(first, second);
    assert_eq!(second.iter().map(|a| a.is_start).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(service.latest().await.event_count, 2);
}

#[tokio::test]
async fn h08_ten_writers_at_once_lose_no_event() {
    let (storage, clock) = (InMemorySessionStorage::new(), ManualClock::default());
    let service = Service::new(&storage, &clock);
    let ids: Vec<String> = (0..10).map(|n| format!("e{n}")).collect();
    join_all(ids.iter().map(|id| service.apply(std::slice::from_ref(Box::leak(Box::new((id.as_str(), VIEW, NOON)))))))
        .await;
    assert_eq!(service.latest().await.event_count, 10);
}

#[tokio::test]
async fn h10_a_gap_within_a_batch_makes_two_sessions() {
    // In time, or beyond the default allowed lateness: in both cases two sessions, of which the first is over.
    for lateness in [3600, 300] {
        let (storage, clock) = (InMemorySessionStorage::new(), ManualClock::default());
        let config = SessionConfig::from_rules(serde_json::json!({ "lateness_seconds": lateness })).unwrap();
        let service = Service::with(&storage, &clock, config);
        let batch = [("a", VIEW, NOON), ("b", VIEW, NOON + 10 * MINUTE), ("c", VIEW, NOON + 50 * MINUTE)];
        let assigned = service.apply(&batch).await;
        assert_eq!(assigned[0].session_id, assigned[1].session_id);
        let first = service.manager.get(&assigned[0].session_id.to_string()).await.unwrap();
        assert!(!first.is_active && first.event_count == 2 && first.duration_seconds() == 600);
        let second = service.latest().await;
        assert!(second.is_active && second.event_count == 1);
        if lateness == 3600 {
            assert_eq!((second.number, second.previous_session_id), (2, Some(first.id)));
        }
    }
}

#[tokio::test]
async fn h11_two_visits_in_a_day_have_two_ids() {
    let (storage, clock) = (InMemorySessionStorage::new(), ManualClock::default());
    let service = Service::new(&storage, &clock);
    let morning = service.apply(&[("a", VIEW, NOON)]).await;
    let evening = service.apply(&[("b", VIEW, NOON + 360 * MINUTE)]).await;
    assert_ne!(morning[0].session_id, evening[0].session_id);
    let (_, ends) = service.close(NOON + 720 * MINUTE).await;
    assert_eq!(ends.iter().map(|end| &end["properties"]["$session_duration"]).collect::<Vec<_>>(), [0, 0]);
}

#[tokio::test]
async fn i01_i13_an_idle_session_is_closed_and_its_end_is_its_last_activity() {
    let (storage, clock) = (InMemorySessionStorage::new(), ManualClock::default());
    let service = Service::new(&storage, &clock);
    service.apply(&[("a", VIEW, NOON)]).await;
    // The timeout, the allowed lateness, and a minute because clocks differ.
    assert_eq!(service.close(NOON + 36 * MINUTE).await.1.len(), 0);
    let (report, ends) = service.close(NOON + 36 * MINUTE + 1).await;
    assert_eq!((report.closed, ends.len()), (1, 1));
    assert_eq!(ends[0]["timestamp"], "2026-03-10T12:00:00.000Z");
    assert_eq!(ends[0]["properties"]["$session"]["ended_at"], "2026-03-10T12:00:00.000Z");
    assert_eq!(ends[0]["properties"]["$session_duration"], 0);
    // Emitted once.
    assert_eq!(service.close(NOON + 99 * MINUTE).await.1.len(), 0);
}

#[tokio::test]
async fn i02_an_event_between_selection_and_close_keeps_the_session_open() {
    let (storage, clock) = (InMemorySessionStorage::new(), ManualClock::default());
    let service = Service::new(&storage, &clock);
    service.apply(&[("a", VIEW, NOON)]).await;
    service.apply(&[("b", VIEW, NOON + 29 * MINUTE)]).await;
    // `due_at` still follows from the first event. The timeline is listed, read, and found to go on.
    let (report, ends) = service.close(NOON + 40 * MINUTE).await;
    assert_eq!((report.examined, report.waiting, ends.len()), (1, 1, 0));
    assert!(service.latest().await.is_active);
    // After a quarter of an hour, `due_at` is moved.
    let (report, ends) = service.close(NOON + 54 * MINUTE).await;
    assert_eq!((report.examined, report.rescheduled, ends.len()), (1, 1, 0));
    assert_eq!(service.close(NOON + 55 * MINUTE).await.0.examined, 0);
    assert_eq!(service.close(NOON + 66 * MINUTE).await.1.len(), 1);
}

#[tokio::test]
async fn i04_the_session_before_ends_and_the_next_is_untouched() {
    let (storage, clock) = (InMemorySessionStorage::new(), ManualClock::default());
    let service = Service::new(&storage, &clock);
    let first = service.apply(&[("a", VIEW, NOON)]).await;
    let second = service.apply(&[("b", VIEW, NOON + 40 * MINUTE)]).await;
    let (_, ends) = service.close(NOON + 47 * MINUTE).await;
    assert_eq!(ends.len(), 1);
    assert_eq!(ends[0]["properties"]["$session_id"], first[0].session_id.to_string());
    let open = service.latest().await;
    assert_eq!((open.id, open.is_active, open.event_count), (second[0].session_id.to_string(), true, 1));
}

#[tokio::test]
async fn i05_a_closed_timeline_is_in_no_index() {
    let (storage, clock) = (InMemorySessionStorage::new(), ManualClock::default());
    let service = Service::new(&storage, &clock);
    service.apply(&[("a", VIEW, NOON)]).await;
    service.close(NOON + 60 * MINUTE).await;
    for shard in 0..session_tracking::storage::DUE_SHARDS {
        assert!(storage.due(shard, None, Millis::MAX, 10).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn i07_after_hours_without_a_closer_all_end_at_their_true_times() {
    let (storage, clock) = (InMemorySessionStorage::new(), ManualClock::default());
    let service = Service::new(&storage, &clock);
    let times = [0, 40, 80].map(|minutes| NOON + minutes * MINUTE);
    for (uuid, at) in ["a", "b", "c"].into_iter().zip(times) {
        service.apply(&[(uuid, VIEW, at)]).await;
    }
    let (_, ends) = service.close(NOON + 390 * MINUTE).await;
    let emitted: Vec<_> = ends.iter().map(|end| end["timestamp"].as_str().unwrap().to_owned()).collect();
    assert_eq!(emitted, times.map(|at| rfc3339(datetime(at))));
}

#[tokio::test]
async fn i08_a_stale_record_is_ended_not_extended() {
    let (storage, clock) = (InMemorySessionStorage::new(), ManualClock::default());
    let service = Service::new(&storage, &clock);
    let first = service.apply(&[("a", VIEW, NOON)]).await;
    // The session was not closed, and TTL has not deleted it.
    let second = service.apply(&[("b", VIEW, NOON + 40 * MINUTE)]).await;
    assert_eq!((second[0].is_start, second[0].previous), (true, Some(first[0].session_id)));
    let (_, ends) = service.close(NOON + 47 * MINUTE).await;
    assert_eq!(ends.len(), 1, "the end of the session before is emitted");
}

#[tokio::test]
async fn i10_our_own_events_fed_back_are_no_activity() {
    let (storage, clock) = (InMemorySessionStorage::new(), ManualClock::default());
    let service = Service::new(&storage, &clock);
    let fed_back = [("a", "$session_start", NOON), ("b", "$session_end", NOON), ("c", "$session_merged", NOON)];
    assert!(service.apply(&fed_back).await.is_empty());
    assert!(service.manager.get_by_user(&Visitor::new("u1")).await.is_err());
}

#[tokio::test]
async fn i11_new_extend_extend_is_one_start() {
    let (storage, clock) = (InMemorySessionStorage::new(), ManualClock::default());
    let service = Service::new(&storage, &clock);
    let mut starts = Vec::new();
    for (uuid, at) in [("a", NOON), ("b", NOON + 1), ("c", NOON + 2)] {
        starts.push(service.apply(&[(uuid, VIEW, at)]).await[0].is_start);
    }
    assert_eq!(starts, [true, false, false]);
}
