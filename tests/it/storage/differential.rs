//! Random operations on both stores, which must give the same answers. The operations concern two visitors with equal hash bits
//! and a third one, whose sessions have overlapping ids, versions and merges.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use session_tracking::config::SessionConfig;
use session_tracking::model::SessionState;
use session_tracking::session::{Millis, Visitor, session_id};
use session_tracking::storage::{
    Commit, CommitOutcome, DUE_SHARDS, DynamoDbSessionStorage, InMemorySessionStorage, Reading, SessionError,
    SessionStorage,
};
use session_tracking::stored::Room;
use uuid::Uuid;

use super::collisions::COLLIDING_IDS;
use super::{NOON, timeline};
use crate::dynamodb::EmbeddedDynamoDb;
use crate::engine_http::create_table;

/// How many session ids each visitor has.
const IDS: u8 = 4;
const CASES: u32 = 48;

#[derive(Debug, Clone)]
enum Operation {
    /// Writes a timeline that begins some minutes after noon.
    Commit {
        visitor: usize,
        minutes: u8,
        replaces: Replaces,
        etag: u8,
    },
    Archive {
        visitor: usize,
        id: u8,
        version: u8,
        aliases: Vec<u8>,
    },
    Due {
        until: u8,
        limit: u8,
    },
}

/// The item that a write expects to replace.
#[derive(Debug, Clone, Copy)]
enum Replaces {
    Nothing,
    Current,
    Etag(u8),
}

fn operation() -> impl Strategy<Value = Operation> {
    let replaces = prop_oneof![1 => Just(Replaces::Nothing), 3 => Just(Replaces::Current), 1 => (0_u8..6).prop_map(Replaces::Etag)];
    let aliases = prop::collection::vec(0..IDS, 0..3);
    prop_oneof![
        2 => (0_usize..3, 0_u8..4, replaces, 0_u8..6)
            .prop_map(|(visitor, minutes, replaces, etag)| Operation::Commit { visitor, minutes, replaces, etag }),
        4 => (0_usize..3, 0..IDS, 0_u8..4, aliases)
            .prop_map(|(visitor, id, version, aliases)| Operation::Archive { visitor, id, version, aliases }),
        1 => (0_u8..6, 1_u8..4).prop_map(|(until, limit)| Operation::Due { until, limit }),
    ]
}

fn visitors() -> [Visitor; 3] {
    // The third one's project has a name with a character that sorts before the key separator.
    [
        Visitor::new(COLLIDING_IDS[0]),
        Visitor::new(COLLIDING_IDS[1]),
        Visitor { project: "a!".to_owned(), ..Visitor::new("b") },
    ]
}

fn id(visitor: &Visitor, number: u8) -> Uuid {
    session_id(visitor.bits(), NOON + Millis::from(number / 2), "e", u16::from(number % 2))
}

/// Performs an operation. Returns the answer as a string.
async fn run<S: SessionStorage>(store: &S, operation: &Operation) -> String {
    match operation {
        Operation::Commit { visitor, minutes, replaces, etag } => {
            let visitor = &visitors()[*visitor];
            let mut timeline = timeline("x", NOON + Millis::from(*minutes) * 60_000);
            timeline.visitor = visitor.clone();
            // A session id contains the bits of its visitor.
            for anchor in &mut timeline.anchors {
                anchor.id = Uuid::from_u64_pair(anchor.id.as_u64_pair().0, visitor.bits());
            }
            let replaced_etag = match replaces {
                Replaces::Nothing => None,
                Replaces::Current => store.read(visitor).await.unwrap().map(|stored| stored.etag),
                Replaces::Etag(etag) => Some(u64::from(*etag)),
            };
            let commit = Commit {
                timeline: &timeline,
                replaces: replaced_etag,
                etag: u64::from(*etag),
                expires_at: NOON,
                room: Room::ToGrow,
            };
            match store.commit(commit).await {
                Ok(CommitOutcome::Conflict(winner)) => format!("conflict with {:?}", winner.map(|winner| winner.etag)),
                other => format!("{other:?}"),
            }
        }
        Operation::Archive { visitor, id: number, version, aliases } => {
            let visitor = &visitors()[*visitor];
            let mut session = timeline("x", NOON).close(NOON + 86_400_000, &SessionConfig::default()).ended.remove(0);
            let mut ids = aliases.clone();
            ids.retain(|alias| alias != number);
            ids.sort_unstable();
            ids.dedup();
            session.id = id(visitor, *number);
            session.version = u64::from(*version);
            session.aliases = ids.iter().map(|&alias| id(visitor, alias)).collect();
            session.facts.started_at = NOON + Millis::from(*number / 2);
            format!("{:?}", store.archive(visitor, &session, NOON).await)
        }
        Operation::Due { until, limit } => {
            let mut pages = Vec::new();
            for shard in 0..DUE_SHARDS {
                // The first session that a commit writes is due 35 minutes later.
                let until = NOON + Millis::from(*until) * 600_000 + 2_100_000;
                let all = store.due(shard, None, until, 100).await.unwrap();
                let first = store.due(shard, None, until, usize::from(*limit)).await.unwrap();
                let rest = store.due(shard, first.last(), until, 100).await.unwrap();
                let listed = first.iter().chain(&rest).collect::<Vec<_>>();
                assert!(listed.iter().copied().eq(&all), "a listing continues after its first page");
                // Entries of one time come in any order.
                let mut all: Vec<_> = all.into_iter().map(|due| (due.due_at, due.visitor)).collect();
                assert!(all.is_sorted_by_key(|(due_at, _)| *due_at));
                all.sort();
                pages.push(format!("{all:?}, {:?}", first.iter().map(|due| due.due_at).collect::<Vec<_>>()));
            }
            pages.concat()
        }
    }
}

/// Returns the answers to all queries, as a string.
async fn query_all<S: SessionStorage>(store: &S) -> String {
    let visitors = visitors();
    let mut answers = vec![format!("{:?}", store.load(&visitors, Reading::Strong).await)];
    for visitor in &visitors {
        for (from, to) in [(-1, 9), (0, 0), (1, 1)] {
            answers.push(match store.archived(visitor, NOON + from, NOON + to).await {
                Ok(sessions) => sessions.iter().map(described).collect::<Vec<_>>().join(" "),
                Err(error) => error.code().to_owned(),
            });
        }
        for number in 0..=IDS {
            answers.push(match store.find(id(visitor, number)).await {
                Ok(found) => {
                    let archived = found.archived.iter().map(|(owner, session)| (owner.clone(), described(session)));
                    format!("{:?} {:?}", found.timelines, archived.collect::<Vec<_>>())
                }
                // Which item of an endless chain the error names is not part of the contract.
                Err(error @ SessionError::Corrupt { .. }) => error.code().to_owned(),
                Err(error) => panic!("{error}"),
            });
        }
    }
    answers.join("\n")
}

fn described(session: &SessionState) -> String {
    format!("{} v{} {:?}", session.id, session.version, session.aliases)
}

#[test]
fn both_stores_answer_alike() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = EmbeddedDynamoDb::start(0).unwrap().client();
    let config = Config { cases: CASES, max_shrink_iters: 60, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let tables = std::cell::Cell::new(0);
    let operations = prop::collection::vec(operation(), 1..16);
    let result = runner.run(&operations, |operations| {
        tables.set(tables.get() + 1);
        let table = format!("differential-{}", tables.get());
        runtime.block_on(async {
            create_table(&client, &table).await;
            let (memory, real) = (InMemorySessionStorage::new(), DynamoDbSessionStorage::new(client.clone(), &table));
            for (number, operation) in operations.iter().enumerate() {
                let (here, there) = (run(&memory, operation).await, run(&real, operation).await);
                prop_assert_eq!(here, there, "operation {}: {:?}", number, operation);
            }
            prop_assert_eq!(query_all(&memory).await, query_all(&real).await);
            client.delete_table().table_name(&table).send().await.unwrap();
            Ok(())
        })
    });
    result.unwrap();
}
