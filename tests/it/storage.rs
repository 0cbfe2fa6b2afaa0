//! One contract for every store, conflicts included; and, on the real store, what reads and writes cost.

mod collisions;
mod differential;
mod erase;
mod failures;
mod warm;

pub use collisions::COLLIDING_IDS;

use std::sync::Arc;

use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event};
use session_tracking::manager::{Outcome, SessionManager};
use session_tracking::model::{SessionFacts, SessionState};
use session_tracking::session::{Millis, Visitor};
use session_tracking::storage::{
    Commit, CommitOutcome, Consumed, Due, DynamoDbSessionStorage, Found, InMemorySessionStorage, Reading, SessionError,
    SessionStorage, due_shard,
};
use session_tracking::stored::{MAX_ITEM_BYTES, Room};
use session_tracking::timeline::Timeline;

use crate::dynamodb::{EmbeddedDynamoDb, TABLE};
use crate::support::{ManualClock, Seeded, Sink};
use crate::traffic;

const NOON: Millis = 1_773_144_000_000;

fn embedded() -> DynamoDbSessionStorage {
    DynamoDbSessionStorage::new(EmbeddedDynamoDb::start(0).unwrap().client(), TABLE)
}

/// Returns a timeline with one session of two events, as a batch leaves it.
fn timeline(distinct_id: &str, at: Millis) -> Timeline {
    let config = SessionConfig::default();
    let mut timeline = Timeline::new(Visitor::new(distinct_id));
    let events = [0, 60_000].map(|later| event(distinct_id, &format!("{distinct_id}-{later}"), at + later));
    let arrivals = events.each_ref().map(|json| {
        let delivery = Delivery { received_at: at + 60_000, trusts_received_at: false };
        Event::parse(json.as_bytes(), delivery, &config).unwrap().arrival(&config).unwrap()
    });
    timeline.apply(&arrivals, Vec::new(), &config);
    timeline
}

fn event(distinct_id: &str, uuid: &str, at: Millis) -> String {
    let timestamp = session_tracking::session::datetime(at).to_rfc3339();
    format!(
        r#"{{"uuid":"{uuid}","event":"$pageview","distinct_id":"{distinct_id}","timestamp":"{timestamp}","properties":{{"$current_url":"https://shop.test/{uuid}?utm_source=ads","$referrer":"https://www.google.com/","$os":"Linux","$geoip_city_name":"Bern","$session_properties":{{"plan":"pro","n":1.0}}}}}}"#
    )
}

fn commit(timeline: &Timeline, replaces: Option<u64>, etag: u64) -> Commit<'_> {
    Commit { timeline, replaces, etag, expires_at: NOON + 86_400_000, room: Room::ToGrow }
}

/// The contract of [`SessionStorage`].
pub async fn contract<S: SessionStorage>(store: S) {
    let config = SessionConfig::default();
    let first = timeline("u1", NOON);
    let visitor = first.visitor.clone();

    // A timeline that was never written is not found. A written timeline is read back in every field.
    assert_eq!(store.read(&visitor).await, Ok(None));
    assert_eq!(store.commit(commit(&first, Some(7), 1)).await, Ok(CommitOutcome::Conflict(None)));
    assert_eq!(store.commit(commit(&first, None, 1)).await, Ok(CommitOutcome::Done));
    let stored = store.read(&visitor).await.unwrap().unwrap();
    assert_eq!((stored.etag, &stored.timeline), (1, &first));

    // The second of two writers gets a conflict with the stored item. A retry of a write that took effect succeeds.
    let second = timeline("u1", NOON + 600_000);
    assert_eq!(
        store.commit(commit(&second, None, 2)).await,
        Ok(CommitOutcome::Conflict(Some(Box::new(stored.clone()))))
    );
    assert_eq!(store.commit(commit(&first, None, 1)).await, Ok(CommitOutcome::Done));
    assert_eq!(store.commit(commit(&second, Some(1), 3)).await, Ok(CommitOutcome::Done));
    assert_eq!(store.commit(commit(&second, Some(1), 3)).await, Ok(CommitOutcome::Done));

    // `load` returns the timelines in the order of the visitors, with `None` for a missing one.
    let other = timeline("u2", NOON);
    assert_eq!(store.commit(commit(&other, None, 4)).await, Ok(CommitOutcome::Done));
    let visitors = [other.visitor.clone(), Visitor::new("nobody"), visitor.clone()];
    let loaded = store.load(&visitors, Reading::Strong).await;
    let etags: Vec<_> = loaded.into_iter().map(|stored| stored.unwrap().map(|stored| stored.etag)).collect();
    assert_eq!(etags, [Some(4), None, Some(3)]);

    // The index lists the due timelines, the longest due first. A timeline without `due_at` is not in it.
    let shard = due_shard(&visitor);
    let due_at = second.due_at.unwrap();
    assert_eq!(
        store.due(shard, None, due_at - 1, 10).await.unwrap().iter().filter(|due| due.visitor == visitor).count(),
        0
    );
    let due = store.due(shard, None, due_at, 10).await.unwrap();
    assert!(due.iter().any(|due| due.visitor == visitor && due.due_at == due_at), "{due:?}");
    contract_of_due_lists(&store).await;
    crate::pages::contract(&store).await;
    let within = store.load_within(&visitors, 0).await;
    assert_eq!(within, [Ok(Some(Found::TooLarge)), Ok(None), Ok(Some(Found::TooLarge))]);
    let within = store.load_within(&visitors[2..], MAX_ITEM_BYTES).await;
    assert!(matches!(&within[..], [Ok(Some(Found::Timeline(stored)))] if stored.etag == 3), "{within:?}");
    let mut closed = second.clone();
    let closing = closed.close(due_at + 1, &config);
    assert_eq!((closing.ended.len(), closed.due_at), (1, None));
    assert_eq!(store.commit(commit(&closed, Some(3), 5)).await, Ok(CommitOutcome::Done));
    assert!(store.due(shard, None, Millis::MAX / 2, 10).await.unwrap().iter().all(|due| due.visitor != visitor));

    // An archived session is found by its id, by an id that was merged into it, and by its visitor and time.
    let mut session = closing.ended[0].clone();
    let alias = session_tracking::session::session_id(visitor.bits(), NOON, "merged", 0);
    session.aliases.push(alias);
    store.archive(&visitor, &session, NOON).await.unwrap();
    store.archive(&visitor, &session, NOON).await.unwrap();
    for id in [session.id, alias] {
        let found = store.find(id).await.unwrap();
        assert_eq!(found.archived, [(visitor.clone(), session.clone())]);
        assert_eq!(found.timelines, [Timeline { due_at: None, ..closed.clone() }]);
    }
    let began = session.facts.started_at;
    assert_eq!(store.archived(&visitor, began - 1, began).await, Ok(vec![session.clone()]));
    assert_eq!(store.archived(&visitor, began + 1, began + 99).await, Ok(vec![]));
    assert_eq!(store.archived(&other.visitor, 0, Millis::MAX >> 16).await, Ok(vec![]));
    let id = session_tracking::session::session_id(visitor.bits(), began + 1, "later", 0);
    let mut later = SessionState { id, aliases: Vec::new(), ..session.clone() };
    later.facts.started_at = began + 1;
    store.archive(&visitor, &later, NOON).await.unwrap();
    for at in [began + 1, began] {
        let expected = if at == began { &session } else { &later };
        assert_eq!(store.archived(&visitor, at, at).await, Ok(vec![expected.clone()]));
    }

    // A higher version replaces a lower one, never the other way round.
    let mut newer = SessionState { version: session.version + 1, ..session.clone() };
    newer.facts.page_views = 1;
    store.archive(&visitor, &newer, NOON).await.unwrap();
    store.archive(&visitor, &session, NOON).await.unwrap();
    assert_eq!(store.find(session.id).await.unwrap().archived, [(visitor.clone(), newer)]);

    // A timeline that is larger than an item may be is refused.
    let (mut large, mut random) = (timeline("large", NOON), Seeded(1));
    let noise: String = (0..2 * MAX_ITEM_BYTES).map(|_| char::from(b'0' + random.below(64) as u8)).collect();
    large.unfinalized[0].properties = vec![("noise".to_owned(), noise)];
    assert_eq!(store.commit(commit(&large, None, 6)).await, Err(SessionError::Full));
    rooms(&store).await;
    merges(&store).await;
    two_projects(&store).await;
    collisions::contract(&store).await;
    race(&store).await;
}

/// An item that the closer writes may be a little larger than one that grows. Strings are bounded although an item may hold them
/// in few bytes, because a reader decompresses each of them.
async fn rooms<S: SessionStorage>(store: &S) {
    let (mut large, mut random) = (timeline("closed", NOON), Seeded(2));
    let noise: String = (0..MAX_ITEM_BYTES * 11 / 8).map(|_| char::from(b'0' + random.below(64) as u8)).collect();
    large.unfinalized[0].properties = vec![("noise".to_owned(), format!("\"{}\"", noise.replace('\\', "/")))];
    assert_eq!(store.commit(commit(&large, None, 6)).await, Err(SessionError::Full));
    let closing = Commit { room: Room::ToClose, ..commit(&large, None, 7) };
    assert_eq!(store.commit(closing).await, Ok(CommitOutcome::Done));
    assert!(store.read(&large.visitor).await.unwrap().is_some());

    let mut wide = timeline("wide", NOON);
    let shared = "x".repeat(16_000);
    for (count, is_kept) in [(1_000, true), (1_100, false)] {
        wide.unfinalized[0].properties = (0..count).map(|n| (format!("{shared}{n}"), "1".to_owned())).collect();
        let committed = store.commit(commit(&wide, None, 8)).await;
        assert_eq!(
            committed,
            if is_kept { Ok(CommitOutcome::Done) } else { Err(SessionError::Full) },
            "{count} strings"
        );
        assert!(store.read(&wide.visitor).await.unwrap().is_some());
    }
}

/// A merged id leads to the session that it became part of, also over several merges. A version that is not higher than the
/// stored one changes nothing.
async fn merges<S: SessionStorage>(store: &S) {
    let mut timeline = timeline("merges", NOON);
    let visitor = timeline.visitor.clone();
    let session = timeline.close(NOON + 86_400_000, &SessionConfig::default()).ended.remove(0);
    let id = |n: Millis| session_tracking::session::session_id(visitor.bits(), NOON + n, "merges", 0);
    let state = |n: Millis, version: u64, aliases: &[Millis]| {
        let facts = SessionFacts { started_at: NOON + n, last_activity: NOON + n + 5, ..session.facts.clone() };
        let aliases = aliases.iter().map(|&n| id(n)).collect();
        SessionState { id: id(n), version, facts, aliases, ..session.clone() }
    };
    let archive = async |session: &SessionState| store.archive(&visitor, session, NOON).await.unwrap();
    let found = async |n: Millis| store.find(id(n)).await.unwrap().archived;
    let only = |session: SessionState| vec![(visitor.clone(), session)];

    // A session that is refused, because a higher version is stored, records none of its merged ids.
    archive(&state(1, 7, &[])).await;
    archive(&state(2, 8, &[])).await;
    archive(&state(1, 5, &[2, 3])).await;
    assert_eq!(found(1).await, only(state(1, 7, &[])));
    assert_eq!(found(2).await, only(state(2, 8, &[])));
    assert!(found(3).await.is_empty());
    // A session that is stored leaves sessions with a higher version as they are.
    archive(&state(1, 7, &[2, 3])).await;
    assert_eq!(found(2).await, only(state(2, 8, &[])));
    assert_eq!(found(3).await, only(state(1, 7, &[2, 3])));
    // A session whose id was merged into another session before is refused.
    archive(&state(3, 6, &[])).await;
    assert_eq!(found(3).await, only(state(1, 7, &[2, 3])));

    // Ten merges, one after the other. `archived` returns only sessions, not merged ids.
    for n in 10..20 {
        archive(&state(n, 10, &[])).await;
        archive(&state(n + 1, 11, &[n])).await;
    }
    assert_eq!(found(10).await, only(state(20, 11, &[19])));
    assert_eq!(store.archived(&visitor, NOON + 10, NOON + 20).await, Ok(vec![state(20, 11, &[19])]));
    // More merges than the limit, and a cycle: both are errors.
    for n in 100..120 {
        archive(&state(n, 10, &[])).await;
        archive(&state(n + 1, 11, &[n])).await;
    }
    assert!(matches!(store.find(id(100)).await, Err(SessionError::Corrupt { .. })));
    archive(&state(200, 1, &[])).await;
    archive(&state(201, 2, &[200, 201])).await;
    for n in [200, 201] {
        assert!(matches!(store.find(id(n)).await, Err(SessionError::Corrupt { .. })));
    }
}

/// Visitors of two projects with the same `distinct_id`, in one batch, are different visitors.
async fn two_projects<S: SessionStorage>(store: &S) {
    let clock = ManualClock::default();
    clock.set(NOON + 1000);
    let manager = SessionManager::with_clock(SessionConfig::default(), store, &clock);
    let events = ["", "one", "two", "one", "two", "two"].map(|project| {
        let named = if project.is_empty() { String::new() } else { format!(r#""project":"{project}","#) };
        event("same", project, NOON).replacen('{', &format!("{{{named}"), 1)
    });
    // Each event has an id of its own.
    let events: Vec<String> = events
        .iter()
        .enumerate()
        .map(|(n, json)| json.replacen(r#""uuid":""#, &format!(r#""uuid":"{n}-"#), 1))
        .collect();
    let delivery = Delivery { received_at: NOON + 1000, trusts_received_at: false };
    let parse = |json: &'static str| Event::parse(json.as_bytes(), delivery, manager.config()).unwrap();
    let events: Vec<_> = events.iter().map(|json| parse(json.clone().leak())).collect();
    let sessions = manager.resolve(&events, Millis::MAX).await.into_iter().map(|outcome| match outcome {
        Outcome::Placed(Some(assignment)) => assignment.session_id.to_string(),
        other => panic!("{other:?}"),
    });
    let sessions: Vec<String> = sessions.collect();
    for (project, count, indexes) in [("", 1, vec![0]), ("one", 2, vec![1, 3]), ("two", 3, vec![2, 4, 5])] {
        let visitor = Visitor { project: project.to_owned(), ..Visitor::new("same") };
        let session = manager.get_by_user(&visitor).await.unwrap();
        assert_eq!((session.project.as_str(), session.event_count), (project, count));
        assert!(indexes.into_iter().all(|index| sessions[index] == session.id), "{sessions:?}");
    }
}

/// A shard is listed in pages, each after the one before, also if many timelines are due at the same time and stay due.
async fn contract_of_due_lists<S: SessionStorage>(store: &S) {
    let names = (0..).map(|number| format!("page-{number}"));
    let names: Vec<String> = names.filter(|name| due_shard(&Visitor::new(name)) == 5).take(23).collect();
    for (number, name) in names.iter().enumerate() {
        let mut timeline = timeline(name, NOON);
        timeline.due_at = Some(NOON - 100 + number as Millis / 20);
        assert_eq!(store.commit(commit(&timeline, None, 1)).await, Ok(CommitOutcome::Done));
    }
    let mut listed: Vec<Due> = Vec::new();
    loop {
        let page = store.due(5, listed.last(), NOON - 99, 7).await.unwrap();
        let is_last = page.len() < 7;
        listed.extend(page);
        if is_last {
            break;
        }
    }
    assert!(listed.is_sorted_by_key(|due| due.due_at), "{listed:?}");
    let mut visitors: Vec<&str> = listed.iter().map(|due| due.visitor.distinct_id.as_str()).collect();
    visitors.sort_unstable();
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(visitors, names);
    // The entry after which a page begins may be gone by then. Timelines that are due later are not listed.
    let mut gone = timeline(names[0], NOON);
    gone.due_at = None;
    assert_eq!(store.commit(commit(&gone, Some(1), 2)).await, Ok(CommitOutcome::Done));
    let last = listed.iter().find(|due| due.visitor == gone.visitor).unwrap();
    let rest = store.due(5, Some(last), NOON - 99, 100).await.unwrap();
    let at = listed.iter().position(|due| due == last).unwrap();
    assert_eq!(rest, listed[at + 1..]);
    assert!(store.due(5, None, NOON - 100, 100).await.unwrap().iter().all(|due| due.due_at == NOON - 100));
}

/// Ten writers add one event each to one visitor. No event is lost, and there is one session.
async fn race<S: SessionStorage>(store: &S) {
    let clock = ManualClock::default();
    clock.set(NOON + 1000);
    let manager = SessionManager::with_clock(SessionConfig::default(), store, &clock);
    let events: Vec<String> = (0..10).map(|n| event("racer", &format!("r{n}"), NOON + n)).collect();
    let writers = events.iter().map(|json| async {
        let delivery = Delivery { received_at: NOON + 1000, trusts_received_at: false };
        let event = Event::parse(json.as_bytes(), delivery, manager.config()).unwrap();
        match manager.resolve(&[event], Millis::MAX).await.pop() {
            Some(Outcome::Placed(Some(assignment))) => assignment.session_id.to_string(),
            other => panic!("{other:?}"),
        }
    });
    let ids = futures_util::future::join_all(writers).await;
    let session = manager.get_by_user(&Visitor::new("racer")).await.unwrap();
    assert_eq!((session.event_count, session.page_views), (10, 10));
    for id in ids {
        assert_eq!(manager.get(&id).await.unwrap().id, session.id);
    }
}

#[tokio::test]
async fn the_contract_in_memory() {
    contract(InMemorySessionStorage::new()).await;
}

#[tokio::test]
async fn the_contract_in_dynamodb() {
    contract(embedded()).await;
}

/// DynamoDB reads `expires_at` in seconds. In milliseconds, an item would be kept a thousand times as long. An item with
/// something to close has no `expires_at`.
#[tokio::test]
async fn items_expire_by_a_time_in_seconds() {
    let client = EmbeddedDynamoDb::start(0).unwrap().client();
    let store = DynamoDbSessionStorage::new(client.clone(), TABLE);
    let mut timeline = timeline("u1", NOON);
    let expires_at = NOON + 86_400_000;
    assert_eq!(store.commit(commit(&timeline, None, 1)).await, Ok(CommitOutcome::Done));
    let items = client.scan().table_name(TABLE).send().await.unwrap().items.unwrap();
    assert!(items.len() == 1 && items[0].contains_key("due_at") && !items[0].contains_key("expires_at"), "{items:?}");
    let mut session = timeline.close(NOON + 86_400_000, &SessionConfig::default()).ended.remove(0);
    assert_eq!(store.commit(commit(&timeline, Some(1), 2)).await, Ok(CommitOutcome::Done));
    session.aliases.push(session_tracking::session::session_id(timeline.visitor.bits(), NOON + 1, "other", 0));
    store.archive(&timeline.visitor, &session, expires_at).await.unwrap();
    let items = client.scan().table_name(TABLE).send().await.unwrap().items.unwrap();
    let times: Vec<_> = items.iter().map(|item| item["expires_at"].as_n().unwrap().parse().ok()).collect();
    assert_eq!(times, vec![Some(expires_at / 1000); 3]);
}

/// A corrupt item is named by its keys. An error of the service is part of the message.
#[tokio::test]
async fn errors_name_the_item_or_the_error_of_the_service() {
    let client = EmbeddedDynamoDb::start(0).unwrap().client();
    let store = DynamoDbSessionStorage::new(client.clone(), TABLE);
    let mut timeline = timeline("u1", NOON);
    let session = timeline.close(NOON + 86_400_000, &SessionConfig::default()).ended.remove(0);
    store.archive(&timeline.visitor, &session, NOON).await.unwrap();
    let mut item = client.scan().table_name(TABLE).send().await.unwrap().items.unwrap().remove(0);
    item.remove("state");
    client.put_item().table_name(TABLE).set_item(Some(item)).send().await.unwrap();
    let name = format!("{:016x}/s#{:016x}", timeline.visitor.bits(), session.id.as_u64_pair().0);
    let corrupt = SessionError::Corrupt { item: name, reason: "`state` is missing".to_owned() };
    assert_eq!(store.find(session.id).await, Err(corrupt));

    let other_table = DynamoDbSessionStorage::new(client, "elsewhere");
    let error = other_table.read(&timeline.visitor).await.unwrap_err();
    assert!(error.with_causes().ends_with("(status 400); there is no table of the name in TABLE"), "{error:?}");
}

/// A table with other keys, as somebody may give to a stack, is named by what it lacks.
#[tokio::test]
async fn a_table_of_another_kind_is_named_by_what_it_lacks() {
    use aws_sdk_dynamodb::types::{AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType};
    let client = EmbeddedDynamoDb::start(0).unwrap().client();
    let id =
        AttributeDefinition::builder().attribute_name("id").attribute_type(ScalarAttributeType::S).build().unwrap();
    let key = KeySchemaElement::builder().attribute_name("id").key_type(KeyType::Hash).build().unwrap();
    let create = client.create_table().table_name("another").billing_mode(BillingMode::PayPerRequest);
    create.attribute_definitions(id).key_schema(key).send().await.unwrap();
    let store = DynamoDbSessionStorage::new(client, "another");
    let read = store.read(&timeline("u1", NOON).visitor).await.unwrap_err();
    let listed = store.due(0, None, NOON, 1).await.unwrap_err();
    for error in [read, listed] {
        let line = error.with_causes();
        assert!(line.ends_with("its index `due`, are not those that docs/deploy.md lists"), "{line}");
    }
}

/// Only reads for batches are eventually consistent, for half the price, because the conditional write verifies them.
#[tokio::test]
async fn only_reads_that_a_commit_verifies_are_eventually_consistent() {
    let consumed = Arc::new(Consumed::default());
    let store = embedded().counting(Arc::clone(&consumed));
    let timeline = timeline("u1", NOON);
    assert_eq!(store.commit(commit(&timeline, None, 1)).await, Ok(CommitOutcome::Done));
    let visitors = [timeline.visitor.clone()];
    store.load(&visitors, Reading::Eventual).await;
    assert_eq!(consumed.read_units(), 0.5);
    store.load(&visitors, Reading::Strong).await;
    assert_eq!(consumed.read_units(), 1.5);
    let session = timeline.sessions(NOON, &SessionConfig::default()).remove(0);
    // `find` reads the visitor's timelines and the archived session.
    store.find(session.id.parse().unwrap()).await.unwrap();
    assert_eq!(consumed.read_units(), 3.5);
}

/// The real traffic through the real store.
#[tokio::test]
async fn the_real_traffic_in_dynamodb() {
    traffic::replay(embedded(), &traffic::in_order(), 1).await;
    for batch in [100, 1000] {
        traffic::replay(embedded(), &traffic::in_order(), batch).await;
        traffic::replay(embedded(), &traffic::shuffled_with_duplicates(batch as u64), batch).await;
    }
}

/// A batch costs one conditional write for each visitor, however many events it has. The index is written once, when a session
/// begins.
#[tokio::test]
async fn a_visitor_of_a_batch_costs_one_write() {
    let consumed = Arc::new(Consumed::default());
    let store = embedded().counting(Arc::clone(&consumed));
    let clock = ManualClock::default();
    let manager = SessionManager::with_clock(SessionConfig::default(), store, &clock);
    let mut random = Seeded(1);
    let mut visitor_batches = 0.0;
    for batch in 0..20 {
        let now = NOON + batch * 1000;
        clock.set(now);
        let visitors = 1 + random.below(5);
        let events: Vec<String> = (0..60)
            .map(|n| event(&format!("v{}", n % visitors), &format!("{batch}-{n}"), now - random.below(900) as i64))
            .collect();
        let delivery = Delivery { received_at: now, trusts_received_at: false };
        let bytes = |json: &String| json.clone().leak().as_bytes();
        let events: Vec<_> =
            events.iter().map(|json| Event::parse(bytes(json), delivery, manager.config()).unwrap()).collect();
        let before = consumed.table_write_units();
        let outcomes = manager.resolve(&events, Millis::MAX).await;
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Placed(Some(_)))));
        // Items grow beyond a kilobyte here, so a write costs at least one unit.
        assert!(consumed.table_write_units() - before >= visitors as f64);
        visitor_batches += visitors as f64;
        // The same batch again has only known events, and costs no write.
        let before = consumed.table_write_units();
        manager.resolve(&events, Millis::MAX).await;
        assert_eq!(consumed.table_write_units(), before);
    }
    assert!(visitor_batches > 20.0);
    assert_eq!(consumed.conflicts(), 0);
    assert_eq!(consumed.index_write_units(), 5.0, "once for each visitor's session");
}

/// With small items a write costs one unit: exactly one for each visitor of each batch.
#[tokio::test]
async fn a_small_timeline_costs_one_unit_a_batch() {
    let consumed = Arc::new(Consumed::default());
    let store = embedded().counting(Arc::clone(&consumed));
    let clock = ManualClock::default();
    let manager = SessionManager::with_clock(SessionConfig::default(), store, &clock);
    for batch in 0..10 {
        let now = NOON + batch * 600_000;
        clock.set(now);
        let events: Vec<String> = (0..20)
            .map(|n| {
                let timestamp = session_tracking::session::datetime(now - n).to_rfc3339();
                let distinct_id = n % 4;
                format!(
                    r#"{{"uuid":"{batch}-{n}","event":"x","distinct_id":"v{distinct_id}","timestamp":"{timestamp}"}}"#
                )
            })
            .collect();
        let delivery = Delivery { received_at: now, trusts_received_at: false };
        let events: Vec<_> =
            events.iter().map(|json| Event::parse(json.as_bytes(), delivery, manager.config()).unwrap()).collect();
        manager.resolve(&events, Millis::MAX).await;
        assert_eq!(consumed.table_write_units(), 4.0 * (batch + 1) as f64);
    }
    assert_eq!(consumed.index_write_units(), 4.0);
    let sink = Sink::default();
    clock.set(NOON + 86_400_000);
    let report = manager.cleanup(&&sink, Millis::MAX).await;
    assert_eq!((report.closed, report.failed), (4, 0));
}

/// A process that is alone with its visitors needs two reads until it writes speculatively. Then a batch costs one write for each
/// visitor and nothing else. A write of another process in between costs a conflict, and nothing worse.
#[tokio::test]
async fn a_warm_process_needs_no_read_and_verifies_its_speculative_writes() {
    let consumed = Arc::new(Consumed::default());
    let store = embedded().counting(Arc::clone(&consumed));
    let clock = ManualClock::default();
    let manager = || SessionManager::with_clock(SessionConfig::default(), &store, &clock);
    let (here, there) = (manager(), manager());
    let send = async |manager: &SessionManager<_, _>, number: i64| {
        clock.set(NOON + number * 1000);
        let json = event("v", &format!("e{number}"), NOON + number * 1000);
        let delivery = Delivery { received_at: NOON + number * 1000, trusts_received_at: false };
        let event = Event::parse(json.as_bytes(), delivery, &SessionConfig::default()).unwrap();
        match manager.resolve(&[event], Millis::MAX).await.pop() {
            Some(Outcome::Placed(Some(assignment))) => assignment,
            other => panic!("{other:?}"),
        }
    };
    // The first read finds nothing, for half a unit. The second shows that the cache was right. From then on there is none.
    for number in 0..6 {
        send(&here, number).await;
    }
    assert_eq!((consumed.read_units(), consumed.table_write_units(), consumed.conflicts()), (1.0, 6.0, 0));
    // Another process reads and writes. The next speculative write of this process gets a conflict, and the following batches are
    // read first.
    let first = send(&there, 6).await;
    let second = send(&here, 7).await;
    assert_eq!((second.session_id, second.page_views), (first.session_id, 8));
    assert_eq!((consumed.read_units(), consumed.table_write_units(), consumed.conflicts()), (1.5, 9.0, 1));
    send(&there, 8).await;
    assert_eq!(send(&here, 9).await.page_views, 10);
    assert_eq!((consumed.read_units(), consumed.conflicts()), (2.5, 1));
    // A known event needs no write, so its answer is read and not taken from the cache.
    let before = consumed.read_units();
    assert_eq!(send(&here, 3).await.session_id, first.session_id);
    assert!(consumed.read_units() > before);
}
