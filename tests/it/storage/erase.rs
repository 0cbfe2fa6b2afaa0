//! Erasing a visitor: all that is stored of it goes, and nothing of another visitor in its partition.

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::Value;
use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event};
use session_tracking::manager::{Outcome, SessionManager};
use session_tracking::model::{FingerprintPage, SessionState};
use session_tracking::session::{Millis, Reason, Visitor, session_id};
use session_tracking::storage::{
    CommitOutcome, DynamoDbSessionStorage, Erased, InMemorySessionStorage, SessionStorage, due_shard,
};
use session_tracking::timeline::{Assignment, Timeline};

use super::{COLLIDING_IDS, NOON, commit, embedded, event, timeline};
use crate::dynamodb::{EmbeddedDynamoDb, TABLE};
use crate::support::{ManualClock, Sink};

/// Stores one item of each kind for a visitor: a due timeline, an archived session with an alias, and two pages.
async fn fill<S: SessionStorage>(store: &S, timeline: &Timeline) -> SessionState {
    let visitor = &timeline.visitor;
    assert_eq!(store.commit(commit(timeline, None, 1)).await, Ok(CommitOutcome::Done));
    let mut session = timeline.clone().close(NOON + 86_400_000, &SessionConfig::default()).ended.remove(0);
    (session.id, session.aliases) =
        (session_id(visitor.bits(), NOON, "own", 0), vec![session_id(visitor.bits(), NOON, "merged", 0)]);
    store.archive(visitor, &session, NOON).await.unwrap();
    let page = |number, is_late| FingerprintPage { session_id: session.id, is_late, number, fingerprints: vec![7] };
    store.put_pages(visitor, &[page(0, false), page(0, true)], None).await.unwrap();
    session
}

const ALL: Erased = Erased {
    timelines: 1,
    archived_sessions: 1,
    merged_ids: 1,
    pages: 2,
    #[cfg(feature = "replay")]
    replay_chunks: 0,
};

/// The part of the contract about erasing. Two visitors share a partition, and two projects a `distinct_id`.
async fn contract<S: SessionStorage>(store: &S) {
    let visitors = COLLIDING_IDS.map(Visitor::new);
    let timelines = COLLIDING_IDS.map(|id| timeline(id, NOON));
    let mut elsewhere = timeline(COLLIDING_IDS[0], NOON);
    elsewhere.visitor.project = "p".to_owned();
    let [session, other, _] =
        [fill(store, &timelines[0]).await, fill(store, &timelines[1]).await, fill(store, &elsewhere).await];
    assert_eq!(store.erase(&Visitor::new("nobody")).await, Ok(Erased::default()));
    assert_eq!(store.erase(&visitors[0]).await, Ok(ALL));

    assert_eq!(store.read(&visitors[0]).await, Ok(None));
    assert_eq!(store.archived(&visitors[0], 0, Millis::MAX >> 16).await, Ok(Vec::new()));
    assert_eq!(store.pages(&visitors[0], session.id).await, Ok(Vec::new()));
    let due = store.due(due_shard(&visitors[0]), None, Millis::MAX / 2, 100).await.unwrap();
    assert!(due.iter().all(|due| due.visitor != visitors[0]), "{due:?}");
    // The other visitor of the partition, and the same id in another project, are as they were.
    assert!(due.iter().any(|due| due.visitor == visitors[1]));
    assert_eq!(store.read(&visitors[1]).await.unwrap().unwrap().timeline, timelines[1]);
    for id in [other.id, other.aliases[0]] {
        assert_eq!(store.find(id).await.unwrap().archived, [(visitors[1].clone(), other.clone())]);
    }
    assert_eq!(store.pages(&visitors[1], other.id).await.unwrap().len(), 2);

    // A write that is based on the erased timeline brings nothing back. A repeated erasure finds nothing.
    assert_eq!(store.commit(commit(&timelines[0], Some(1), 2)).await, Ok(CommitOutcome::Conflict(None)));
    assert_eq!(store.erase(&visitors[0]).await, Ok(Erased::default()));
    assert_eq!(store.commit(commit(&timelines[0], None, 3)).await, Ok(CommitOutcome::Done));
    for visitor in [&visitors[1], &elsewhere.visitor] {
        assert_eq!(store.erase(visitor).await, Ok(ALL));
    }
    assert_eq!(store.erase(&visitors[0]).await, Ok(Erased { timelines: 1, ..Erased::default() }));
}

/// A process that still has the erased timeline in its cache begins the visitor anew, and so does one that reads it again.
async fn anew<S: SessionStorage>(store: &S) {
    let (clock, sink) = (ManualClock::default(), Sink::default());
    let manager = || SessionManager::with_clock(SessionConfig::default(), store, &clock);
    let (here, there) = (manager(), manager());
    let visitor = Visitor::new("v");
    let send = async |manager: &SessionManager<_, _>, number: i64| -> Assignment {
        clock.set(NOON + number * 1000);
        let json = event("v", &format!("e{number}"), NOON + number * 1000);
        let delivery = Delivery { received_at: NOON + number * 1000, trusts_received_at: false };
        let event = Event::parse(json.as_bytes(), delivery, &SessionConfig::default()).unwrap();
        match manager.resolve(&[event], Millis::MAX).await.pop() {
            Some(Outcome::Placed(Some(assignment))) => assignment,
            other => panic!("{other:?}"),
        }
    };
    for number in 0..5 {
        assert_eq!(send(&here, number).await.page_views, number as u32 + 1);
    }
    for (eraser, number) in [(&there, 5), (&here, 10)] {
        let (erased, at) = eraser.erase(&visitor, &&sink).await.unwrap();
        assert_eq!((erased.timelines, at), (1, NOON + (number - 1) * 1000));
        let first = send(&here, number).await;
        assert_eq!((first.reason, first.number, first.page_views, first.previous), (Reason::First, 1, 1, None));
        for more in 1..5 {
            assert_eq!(send(&here, number + more).await.page_views, more as u32 + 1);
        }
    }
    let lines: Vec<Value> = sink.0.lock().unwrap().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() == 2 && lines.iter().all(|line| line["event"] == "$visitor_erased"), "{lines:?}");
}

#[tokio::test]
async fn a_visitor_is_erased_in_memory() {
    contract(&InMemorySessionStorage::new()).await;
    anew(&InMemorySessionStorage::new()).await;
}

#[tokio::test]
async fn a_visitor_is_erased_in_dynamodb() {
    contract(&embedded()).await;
    anew(&embedded()).await;
}

/// What cannot be read is erased, too: a corrupt item, and one that a newer version wrote.
#[tokio::test]
async fn items_that_cannot_be_read_are_erased() {
    let client = EmbeddedDynamoDb::start(0).unwrap().client();
    let store = DynamoDbSessionStorage::new(client.clone(), TABLE);
    let timeline = timeline("u1", NOON);
    fill(&store, &timeline).await;
    for mut item in client.scan().table_name(TABLE).send().await.unwrap().items.unwrap() {
        if item.contains_key("version") {
            item.insert("v".to_owned(), AttributeValue::N("999".to_owned()));
        } else {
            item.remove("state");
        }
        client.put_item().table_name(TABLE).set_item(Some(item)).send().await.unwrap();
    }
    assert_eq!(store.erase(&timeline.visitor).await, Ok(ALL));
    assert_eq!(client.scan().table_name(TABLE).send().await.unwrap().count, 0);
}
