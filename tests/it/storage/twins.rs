//! Two visitors with equal bits share a partition, and nothing else.

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

/// Two ordinary ids whose visitors have equal bits: found by a search of some 2³¹ hashes, six minutes of a slow core.
pub const TWINS: [&str; 2] = ["user-3e5a260569a1a1aa", "user-1b3c16381d4d7700"];

pub async fn contract<S: SessionStorage>(store: &S) {
    let config = SessionConfig::default();
    let twins = TWINS.map(Visitor::new);
    let bits = twins[0].bits();
    assert_eq!(twins[1].bits(), bits);

    // Timelines.
    let [one, mut two] = TWINS.map(|id| timeline(id, NOON));
    two.seq += 1;
    for (timeline, etag) in [(&one, 101), (&two, 102)] {
        assert_eq!(store.commit(commit(timeline, None, etag)).await, Ok(CommitOutcome::Done));
    }
    let stored = store.load(&twins, Reading::Strong).await.into_iter().map(|stored| stored.unwrap().unwrap());
    assert!(stored.map(|stored| (stored.timeline, stored.etag)).eq([(one.clone(), 101), (two.clone(), 102)]));
    let due = store.due(due_shard(&twins[0]), None, Millis::MAX / 2, 100).await.unwrap();
    assert_eq!(due.iter().filter(|due| twins.contains(&due.visitor)).count(), 2);

    // Sessions of one id, archived in either order and in any version.
    let mut session = one.clone().close(NOON + 86_400_000, &config).ended.remove(0);
    (session.id, session.aliases) = (session_id(bits, NOON, "shared", 0), Vec::new());
    let other_id = session_id(bits, NOON + 1, "other", 0);
    let first = SessionState { version: 5, ..session.clone() };
    let mut second = SessionState { version: 3, aliases: vec![other_id], ..session.clone() };
    second.facts.page_views = 1;
    store.archive(&twins[0], &first, NOON).await.unwrap();
    store.archive(&twins[1], &second, NOON).await.unwrap();
    store.archive(&twins[0], &first, NOON).await.unwrap();
    let mut both = vec![(twins[0].clone(), first.clone()), (twins[1].clone(), second.clone())];
    both.sort_by(|(a, _), (b, _)| a.cmp(b));
    assert_eq!(store.find(session.id).await.unwrap().archived, both);
    assert_eq!(store.archived(&twins[0], NOON - 1, NOON + 1).await, Ok(vec![first.clone()]));
    assert_eq!(store.archived(&twins[1], NOON - 1, NOON + 1).await, Ok(vec![second.clone()]));
    // What was merged into the one's session is none of the other's.
    assert_eq!(store.find(other_id).await.unwrap().archived, [(twins[1].clone(), second.clone())]);
    let mut own = SessionState { id: other_id, version: 1, ..first.clone() };
    (own.facts.started_at, own.facts.last_activity) = (NOON + 1, NOON + 2);
    store.archive(&twins[0], &own, NOON).await.unwrap();
    assert_eq!(store.find(other_id).await.unwrap().archived.len(), 2);
    assert_eq!(store.archived(&twins[1], NOON - 1, NOON + 1).await, Ok(vec![second]));
    assert_eq!(store.archived(&twins[0], NOON - 1, NOON + 1).await, Ok(vec![first, own]));

    // Timelines once more: nothing of it has touched them.
    let found = store.find(session.id).await.unwrap().timelines;
    assert_eq!(found.len(), 2);
    assert!(twins.iter().all(|twin| found.iter().any(|timeline| timeline.visitor == *twin)));
}

/// Whoever asks by an id that two visitors have is refused; whoever asks by the visitor is answered.
async fn calls<S: SessionStorage>(store: &S) {
    let clock = ManualClock::default();
    let manager = SessionManager::with_clock(SessionConfig::default(), store, &clock);
    let twins = TWINS.map(Visitor::new);
    let send = async |number: i64| {
        let mut ids = Vec::new();
        for id in TWINS {
            clock.set(NOON + number * 60_000);
            // The same id and time for both.
            let text = event(id, &format!("e{number}"), NOON + number * 60_000);
            let delivery = Delivery { received_at: NOON + number * 60_000, trusts_received_at: false };
            let event = Event::parse(text.as_bytes(), delivery, manager.config()).unwrap();
            match manager.resolve(&[event], Millis::MAX).await.pop() {
                Some(Outcome::Placed(Some(assignment))) => ids.push(assignment.session_id.to_string()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(ids[0], ids[1]);
        ids.remove(0)
    };
    let id = send(0).await;
    let by_user = async |at: usize| manager.get_by_user(&twins[at]).await.unwrap();
    assert_eq!(manager.get(&id).await.unwrap_err(), SessionError::Ambiguous);
    assert_eq!(manager.end_session(&id).await.unwrap_err(), SessionError::Ambiguous);
    for at in [0, 1] {
        assert_eq!((by_user(at).await.distinct_id.as_str(), by_user(at).await.id), (TWINS[at], id.clone()));
    }
    // Closed, they are in the archive alone.
    clock.set(NOON + 86_400_000);
    let sink = Sink::default();
    let report = manager.cleanup(&&sink, Millis::MAX).await;
    assert_eq!((report.closed, report.failed), (2, 0), "{report:?}");
    assert_eq!(manager.get(&id).await.unwrap_err(), SessionError::Ambiguous);
    for at in [0, 1] {
        assert_eq!((by_user(at).await.distinct_id.as_str(), by_user(at).await.is_active), (TWINS[at], false));
    }
    // Another id of theirs is one visitor's alone.
    let alone = session_id(twins[0].bits(), NOON, "nobody", 0).to_string();
    assert_eq!(manager.get(&alone).await.unwrap_err(), SessionError::NotFound);
}

fn half(id: Uuid) -> Uuid {
    Uuid::from_u64_pair(id.as_u64_pair().0, 0)
}

/// What twins get is what strangers get: the same events, at any time, late ones too.
async fn as_strangers<S: SessionStorage>(store: &S) {
    let clock = ManualClock::default();
    let manager = SessionManager::with_clock(SessionConfig::default(), store, &clock);
    let sink = Sink::default();
    let strangers = ["user-000000000000000a", "user-000000000000000b"];
    let mut seen: [Vec<String>; 2] = [Vec::new(), Vec::new()];
    let hour = 3_600_000;
    for (now, times) in [(0, [0, 1]), (2, [2, 2]), (30, [0, 30]), (31, [2, 0]), (60, [60, 31])] {
        clock.set(NOON + now * hour);
        for (pair, seen) in [TWINS, strangers].iter().zip(&mut seen) {
            for (id, time) in pair.iter().zip(times) {
                let text = event(id, &format!("{now}-{time}"), NOON + time * hour);
                let delivery = Delivery { received_at: NOON + now * hour, trusts_received_at: false };
                let event = Event::parse(text.as_bytes(), delivery, manager.config()).unwrap();
                let outcome = manager.resolve(&[event], Millis::MAX).await.pop().unwrap();
                let Outcome::Placed(Some(mut assignment)) = outcome else { panic!("{outcome:?}") };
                // Ids differ by the visitor's half.
                assignment.session_id = half(assignment.session_id);
                assignment.previous = assignment.previous.map(half);
                seen.push(format!("{assignment:?}"));
            }
        }
        manager.cleanup(&&sink, Millis::MAX).await;
    }
    assert_eq!(seen[0], seen[1]);
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
    assert!(ends(TWINS).len() >= 4);
    assert_eq!(ends(TWINS), ends(strangers));
}

#[tokio::test]
async fn twins_are_two_in_memory() {
    calls(&session_tracking::InMemorySessionStorage::new()).await;
    as_strangers(&session_tracking::InMemorySessionStorage::new()).await;
}

#[tokio::test]
async fn twins_are_two_in_dynamodb() {
    calls(&embedded()).await;
    as_strangers::<DynamoDbSessionStorage>(&embedded()).await;
}
