//! Two visitors with equal hash bits share a partition, but nothing else.

use serde_json::Value;
use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event};
use session_tracking::manager::{Outcome, SessionManager};
use session_tracking::model::SessionState;
use session_tracking::session::{Millis, Visitor, session_id};
use session_tracking::storage::{
    CommitOutcome, DynamoDbSessionStorage, Reading, SessionError, SessionStorage, due_shard,
};
use uuid::Uuid;

use super::{NOON, commit, embedded, event, timeline};
use crate::support::{ManualClock, Sink};

/// Two ordinary ids whose visitors have equal hash bits. They were found by a search over some 2³¹ hashes, in six minutes on a
/// slow core.
pub const COLLIDING_IDS: [&str; 2] = ["user-3e5a260569a1a1aa", "user-1b3c16381d4d7700"];

/// The part of the contract about visitors with equal hash bits.
pub async fn contract<S: SessionStorage>(store: &S) {
    let config = SessionConfig::default();
    let visitors = COLLIDING_IDS.map(Visitor::new);
    let bits = visitors[0].bits();
    assert_eq!(visitors[1].bits(), bits);

    // Timelines.
    let [one, mut two] = COLLIDING_IDS.map(|id| timeline(id, NOON));
    two.seq += 1;
    for (timeline, etag) in [(&one, 101), (&two, 102)] {
        assert_eq!(store.commit(commit(timeline, None, etag)).await, Ok(CommitOutcome::Done));
    }
    let stored = store.load(&visitors, Reading::Strong).await.into_iter().map(|stored| stored.unwrap().unwrap());
    assert!(stored.map(|stored| (stored.timeline, stored.etag)).eq([(one.clone(), 101), (two.clone(), 102)]));
    let due = store.due(due_shard(&visitors[0]), None, Millis::MAX / 2, 100).await.unwrap();
    assert_eq!(due.iter().filter(|due| visitors.contains(&due.visitor)).count(), 2);

    // Sessions with one id, archived in either order and with any version.
    let mut session = one.clone().close(NOON + 86_400_000, &config).ended.remove(0);
    (session.id, session.aliases) = (session_id(bits, NOON, "shared", 0), Vec::new());
    let other_id = session_id(bits, NOON + 1, "other", 0);
    let first = SessionState { version: 5, ..session.clone() };
    let mut second = SessionState { version: 3, aliases: vec![other_id], ..session.clone() };
    second.facts.page_views = 1;
    store.archive(&visitors[0], &first, NOON).await.unwrap();
    store.archive(&visitors[1], &second, NOON).await.unwrap();
    store.archive(&visitors[0], &first, NOON).await.unwrap();
    let mut both = vec![(visitors[0].clone(), first.clone()), (visitors[1].clone(), second.clone())];
    both.sort_by(|(a, _), (b, _)| a.cmp(b));
    assert_eq!(store.find(session.id).await.unwrap().archived, both);
    assert_eq!(store.archived(&visitors[0], NOON - 1, NOON + 1).await, Ok(vec![first.clone()]));
    assert_eq!(store.archived(&visitors[1], NOON - 1, NOON + 1).await, Ok(vec![second.clone()]));
    // An id that was merged into the session of one visitor does not concern the other visitor.
    assert_eq!(store.find(other_id).await.unwrap().archived, [(visitors[1].clone(), second.clone())]);
    let mut own = SessionState { id: other_id, version: 1, ..first.clone() };
    (own.facts.started_at, own.facts.last_activity) = (NOON + 1, NOON + 2);
    store.archive(&visitors[0], &own, NOON).await.unwrap();
    assert_eq!(store.find(other_id).await.unwrap().archived.len(), 2);
    assert_eq!(store.archived(&visitors[1], NOON - 1, NOON + 1).await, Ok(vec![second]));
    assert_eq!(store.archived(&visitors[0], NOON - 1, NOON + 1).await, Ok(vec![first, own]));

    // The timelines are unchanged.
    let found = store.find(session.id).await.unwrap().timelines;
    assert_eq!(found.len(), 2);
    assert!(visitors.iter().all(|visitor| found.iter().any(|timeline| timeline.visitor == *visitor)));
}

/// A query by an id that two visitors have is refused. A query by visitor is answered.
async fn calls<S: SessionStorage>(store: &S) {
    let clock = ManualClock::default();
    let manager = SessionManager::with_clock(SessionConfig::default(), store, &clock);
    let visitors = COLLIDING_IDS.map(Visitor::new);
    let send = async |number: i64| {
        let mut ids = Vec::new();
        for id in COLLIDING_IDS {
            clock.set(NOON + number * 60_000);
            // The same id and time for both.
            let json = event(id, &format!("e{number}"), NOON + number * 60_000);
            let delivery = Delivery { received_at: NOON + number * 60_000, trusts_received_at: false };
            let event = Event::parse(json.as_bytes(), delivery, manager.config()).unwrap();
            match manager.resolve(&[event], Millis::MAX).await.pop() {
                Some(Outcome::Placed(Some(assignment))) => ids.push(assignment.session_id.to_string()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(ids[0], ids[1]);
        ids.remove(0)
    };
    let id = send(0).await;
    let by_user = async |at: usize| manager.get_by_user(&visitors[at]).await.unwrap();
    assert_eq!(manager.get(&id).await.unwrap_err(), SessionError::Ambiguous);
    assert_eq!(manager.end_session(&id).await.unwrap_err(), SessionError::Ambiguous);
    for at in [0, 1] {
        assert_eq!((by_user(at).await.distinct_id.as_str(), by_user(at).await.id), (COLLIDING_IDS[at], id.clone()));
    }
    // After the close, both sessions are only in the archive.
    clock.set(NOON + 86_400_000);
    let sink = Sink::default();
    let report = manager.cleanup(&&sink, Millis::MAX).await;
    assert_eq!((report.closed, report.failed), (2, 0), "{report:?}");
    assert_eq!(manager.get(&id).await.unwrap_err(), SessionError::Ambiguous);
    for at in [0, 1] {
        assert_eq!((by_user(at).await.distinct_id.as_str(), by_user(at).await.is_active), (COLLIDING_IDS[at], false));
    }
    // An id with the same bits that no session has is not found.
    let alone = session_id(visitors[0].bits(), NOON, "nobody", 0).to_string();
    assert_eq!(manager.get(&alone).await.unwrap_err(), SessionError::NotFound);
}

/// Returns an id without the half that derives from the visitor.
fn without_visitor_bits(id: Uuid) -> Uuid {
    Uuid::from_u64_pair(id.as_u64_pair().0, 0)
}

/// Visitors with equal hash bits get the same sessions as other visitors with the same events, late ones included.
async fn same_as_other_visitors<S: SessionStorage>(store: &S) {
    let clock = ManualClock::default();
    let manager = SessionManager::with_clock(SessionConfig::default(), store, &clock);
    let sink = Sink::default();
    let others = ["user-000000000000000a", "user-000000000000000b"];
    let mut assigned: [Vec<String>; 2] = [Vec::new(), Vec::new()];
    let hour = 3_600_000;
    for (now, times) in [(0, [0, 1]), (2, [2, 2]), (30, [0, 30]), (31, [2, 0]), (60, [60, 31])] {
        clock.set(NOON + now * hour);
        for (pair, assigned) in [COLLIDING_IDS, others].iter().zip(&mut assigned) {
            for (id, time) in pair.iter().zip(times) {
                let json = event(id, &format!("{now}-{time}"), NOON + time * hour);
                let delivery = Delivery { received_at: NOON + now * hour, trusts_received_at: false };
                let event = Event::parse(json.as_bytes(), delivery, manager.config()).unwrap();
                let outcome = manager.resolve(&[event], Millis::MAX).await.pop().unwrap();
                let Outcome::Placed(Some(mut assignment)) = outcome else { panic!("{outcome:?}") };
                // Ids differ in the visitor's bits.
                assignment.session_id = without_visitor_bits(assignment.session_id);
                assignment.previous = assignment.previous.map(without_visitor_bits);
                assigned.push(format!("{assignment:?}"));
            }
        }
        manager.cleanup(&&sink, Millis::MAX).await;
    }
    assert_eq!(assigned[0], assigned[1]);
    let ends = |ids: [&str; 2]| {
        let lines = sink.0.lock().unwrap().clone();
        let mut ends: Vec<_> = lines
            .iter()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter_map(|line| {
                let at = ids.iter().position(|id| line["distinct_id"] == *id)?;
                let properties = &line["properties"];
                Some((at, properties["$session"]["started_at"].to_string(), properties["$session_version"].as_u64()))
            })
            .collect();
        ends.sort();
        ends
    };
    assert!(ends(COLLIDING_IDS).len() >= 4);
    assert_eq!(ends(COLLIDING_IDS), ends(others));
}

#[tokio::test]
async fn visitors_with_equal_hash_bits_are_separate_in_memory() {
    calls(&session_tracking::InMemorySessionStorage::new()).await;
    same_as_other_visitors(&session_tracking::InMemorySessionStorage::new()).await;
}

#[tokio::test]
async fn visitors_with_equal_hash_bits_are_separate_in_dynamodb() {
    calls(&embedded()).await;
    same_as_other_visitors::<DynamoDbSessionStorage>(&embedded()).await;
}
