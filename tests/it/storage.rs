//! One contract for every store, races included; and what only the real one can show: what a write costs.

mod differential;
mod failures;
mod twins;
mod warm;

pub use twins::TWINS;

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

/// A timeline with one session of two events, as a batch would leave it.
fn timeline(distinct_id: &str, at: Millis) -> Timeline {
    let config = SessionConfig::default();
    let mut timeline = Timeline::new(Visitor::new(distinct_id));
    let texts = [0, 60_000].map(|later| event(distinct_id, &format!("{distinct_id}-{later}"), at + later));
    let arrivals = texts.each_ref().map(|text| {
        let delivery = Delivery { received_at: at + 60_000, trusts_received_at: false };
        Event::parse(text.as_bytes(), delivery, &config).unwrap().arrival(&config).unwrap()
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

pub async fn contract<S: SessionStorage>(store: S) {
    let config = SessionConfig::default();
    let first = timeline("u1", NOON);
    let visitor = first.visitor.clone();

    // Nothing is there before it is written, and what is written is read back, every field of it.
    assert_eq!(store.read(&visitor).await, Ok(None));
    assert_eq!(store.commit(commit(&first, Some(7), 1)).await, Ok(CommitOutcome::Conflict(None)));
    assert_eq!(store.commit(commit(&first, None, 1)).await, Ok(CommitOutcome::Done));
    let stored = store.read(&visitor).await.unwrap().unwrap();
    assert_eq!((stored.etag, &stored.timeline), (1, &first));

    // Of two writers the second loses and is shown what won; a writer recognises its own write.
    let second = timeline("u1", NOON + 600_000);
    assert_eq!(
        store.commit(commit(&second, None, 2)).await,
        Ok(CommitOutcome::Conflict(Some(Box::new(stored.clone()))))
    );
    assert_eq!(store.commit(commit(&first, None, 1)).await, Ok(CommitOutcome::Done));
    assert_eq!(store.commit(commit(&second, Some(1), 3)).await, Ok(CommitOutcome::Done));
    assert_eq!(store.commit(commit(&second, Some(1), 3)).await, Ok(CommitOutcome::Done));

    // Loads answer in the order of the question, past a missing one.
    let other = timeline("u2", NOON);
    assert_eq!(store.commit(commit(&other, None, 4)).await, Ok(CommitOutcome::Done));
    let visitors = [other.visitor.clone(), Visitor::new("nobody"), visitor.clone()];
    let loaded = store.load(&visitors, Reading::Strong).await;
    let etags: Vec<_> = loaded.into_iter().map(|stored| stored.unwrap().map(|stored| stored.etag)).collect();
    assert_eq!(etags, [Some(4), None, Some(3)]);

    // The index lists what is due, the longest due first, and forgets what is not.
    let shard = due_shard(&visitor);
    let due_at = second.due_at.unwrap();
    assert_eq!(
        store.due(shard, None, due_at - 1, 10).await.unwrap().iter().filter(|due| due.visitor == visitor).count(),
        0
    );
    let due = store.due(shard, None, due_at, 10).await.unwrap();
    assert!(due.iter().any(|due| due.visitor == visitor && due.due_at == due_at), "{due:?}");
    contract_of_pages(&store).await;
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
        let there = if at == began { &session } else { &later };
        assert_eq!(store.archived(&visitor, at, at).await, Ok(vec![there.clone()]));
    }

    // A newer state replaces an older one, never the other way round.
    let mut newer = SessionState { version: session.version + 1, ..session.clone() };
    newer.facts.page_views = 1;
    store.archive(&visitor, &newer, NOON).await.unwrap();
    store.archive(&visitor, &session, NOON).await.unwrap();
    assert_eq!(store.find(session.id).await.unwrap().archived, [(visitor.clone(), newer)]);

    // A timeline that is larger than an item may be is refused, whatever it is compressed to.
    let (mut large, mut random) = (timeline("large", NOON), Seeded(1));
    let noise: String = (0..2 * MAX_ITEM_BYTES).map(|_| char::from(b'0' + random.below(64) as u8)).collect();
    large.unfinalized[0].properties = vec![("noise".to_owned(), noise)];
    assert_eq!(store.commit(commit(&large, None, 6)).await, Err(SessionError::Full));
    rooms(&store).await;
    merges(&store).await;
    two_projects(&store).await;
    twins::contract(&store).await;
    race(&store).await;
}

/// What is closed may be a little larger than what grows; and texts that an item holds in few bytes are bounded all the same, as a
/// reader makes each of them whole.
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
        assert_eq!(committed, if is_kept { Ok(CommitOutcome::Done) } else { Err(SessionError::Full) }, "{count} texts");
        assert!(store.read(&wide.visitor).await.unwrap().is_some());
    }
}

/// Ids that were merged lead to the session that they became part of, however many merges lie between; what is older than what is
/// there changes nothing.
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
    let is = |session: SessionState| vec![(visitor.clone(), session)];

    // An state that is refused, as a newer one is there, takes its merges with it.
    archive(&state(1, 7, &[])).await;
    archive(&state(2, 8, &[])).await;
    archive(&state(1, 5, &[2, 3])).await;
    assert_eq!(found(1).await, is(state(1, 7, &[])));
    assert_eq!(found(2).await, is(state(2, 8, &[])));
    assert!(found(3).await.is_empty());
    // One that is taken leaves alone what is newer than it.
    archive(&state(1, 7, &[2, 3])).await;
    assert_eq!(found(2).await, is(state(2, 8, &[])));
    assert_eq!(found(3).await, is(state(1, 7, &[2, 3])));
    // And an state of what was merged before is refused.
    archive(&state(3, 6, &[])).await;
    assert_eq!(found(3).await, is(state(1, 7, &[2, 3])));

    // Ten merges, one after the other; `archived` knows the sessions alone.
    for n in 10..20 {
        archive(&state(n, 10, &[])).await;
        archive(&state(n + 1, 11, &[n])).await;
    }
    assert_eq!(found(10).await, is(state(20, 11, &[19])));
    assert_eq!(store.archived(&visitor, NOON + 10, NOON + 20).await, Ok(vec![state(20, 11, &[19])]));
    // More than anybody makes, and a circle: neither is followed for ever.
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

/// Two projects' visitors with one id, in one batch, are two.
async fn two_projects<S: SessionStorage>(store: &S) {
    let clock = ManualClock::default();
    clock.set(NOON + 1000);
    let manager = SessionManager::with_clock(SessionConfig::default(), store, &clock);
    let texts = ["", "one", "two", "one", "two", "two"].map(|project| {
        let named = if project.is_empty() { String::new() } else { format!(r#""project":"{project}","#) };
        event("same", project, NOON).replacen('{', &format!("{{{named}"), 1)
    });
    // Each event has an id of its own.
    let texts: Vec<String> = texts
        .iter()
        .enumerate()
        .map(|(n, text)| text.replacen(r#""uuid":""#, &format!(r#""uuid":"{n}-"#), 1))
        .collect();
    let delivery = Delivery { received_at: NOON + 1000, trusts_received_at: false };
    let parse = |text: &'static str| Event::parse(text.as_bytes(), delivery, manager.config()).unwrap();
    let events: Vec<_> = texts.iter().map(|text| parse(text.clone().leak())).collect();
    let sessions = manager.resolve(&events, Millis::MAX).await.into_iter().map(|outcome| match outcome {
        Outcome::Placed(Some(assignment)) => assignment.session_id.to_string(),
        other => panic!("{other:?}"),
    });
    let sessions: Vec<String> = sessions.collect();
    for (project, count, places) in [("", 1, vec![0]), ("one", 2, vec![1, 3]), ("two", 3, vec![2, 4, 5])] {
        let visitor = Visitor { project: project.to_owned(), ..Visitor::new("same") };
        let session = manager.get_by_user(&visitor).await.unwrap();
        assert_eq!((session.project.as_str(), session.event_count), (project, count));
        assert!(places.into_iter().all(|place| sessions[place] == session.id), "{sessions:?}");
    }
}

/// A shard is listed page by page, each behind the one before it, also where many are due at the same time and stay due.
async fn contract_of_pages<S: SessionStorage>(store: &S) {
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
    // What is listed behind may be gone meanwhile, and what is due later is not listed.
    let mut gone = timeline(names[0], NOON);
    gone.due_at = None;
    assert_eq!(store.commit(commit(&gone, Some(1), 2)).await, Ok(CommitOutcome::Done));
    let behind = listed.iter().find(|due| due.visitor == gone.visitor).unwrap();
    let rest = store.due(5, Some(behind), NOON - 99, 100).await.unwrap();
    let at = listed.iter().position(|due| due == behind).unwrap();
    assert_eq!(rest, listed[at + 1..]);
    assert!(store.due(5, None, NOON - 100, 100).await.unwrap().iter().all(|due| due.due_at == NOON - 100));
}

/// Ten writers add one event each to one visitor: nobody's is lost, and there is one session.
async fn race<S: SessionStorage>(store: &S) {
    let clock = ManualClock::default();
    clock.set(NOON + 1000);
    let manager = SessionManager::with_clock(SessionConfig::default(), store, &clock);
    let texts: Vec<String> = (0..10).map(|n| event("racer", &format!("r{n}"), NOON + n)).collect();
    let writers = texts.iter().map(|text| async {
        let delivery = Delivery { received_at: NOON + 1000, trusts_received_at: false };
        let event = Event::parse(text.as_bytes(), delivery, manager.config()).unwrap();
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

/// DynamoDB takes times in seconds for garbage; a late one would be kept for a thousand times as long. What is to be closed
/// says none.
#[tokio::test]
async fn items_say_in_seconds_when_they_may_go() {
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

/// What cannot be read is named by its keys; what the service says of a call stands in the error.
#[tokio::test]
async fn errors_name_the_item_or_what_the_service_said() {
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

    let elsewhere = DynamoDbSessionStorage::new(client, "elsewhere");
    let error = elsewhere.read(&timeline.visitor).await.unwrap_err();
    assert_eq!(error.with_causes(), "storage is not available: ResourceNotFoundException (status 400)");
}

/// Reads for batches may be a moment old, for half the price; all others may not.
#[tokio::test]
async fn only_reads_that_a_commit_proves_are_cheap() {
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
    // The visitor's timelines, and whether the session is archived.
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

/// However many events of a visitor a batch holds: one conditional write, and the index once, when a session opens.
#[tokio::test]
async fn a_visitor_of_a_batch_costs_one_write() {
    let consumed = Arc::new(Consumed::default());
    let store = embedded().counting(Arc::clone(&consumed));
    let clock = ManualClock::default();
    let manager = SessionManager::with_clock(SessionConfig::default(), store, &clock);
    let mut random = Seeded(1);
    let mut batches_of_visitors = 0.0;
    for batch in 0..20 {
        let now = NOON + batch * 1000;
        clock.set(now);
        let visitors = 1 + random.below(5);
        let texts: Vec<String> = (0..60)
            .map(|n| event(&format!("v{}", n % visitors), &format!("{batch}-{n}"), now - random.below(900) as i64))
            .collect();
        let delivery = Delivery { received_at: now, trusts_received_at: false };
        let parse = |text: &String| text.clone().leak().as_bytes();
        let events: Vec<_> =
            texts.iter().map(|text| Event::parse(parse(text), delivery, manager.config()).unwrap()).collect();
        let before = consumed.table_write_units();
        let outcomes = manager.resolve(&events, Millis::MAX).await;
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Placed(Some(_)))));
        // Items grow past a kilobyte here, so count writes by their whole units at least.
        assert!(consumed.table_write_units() - before >= visitors as f64);
        batches_of_visitors += visitors as f64;
        // The same batch again is known, and costs no write at all.
        let before = consumed.table_write_units();
        manager.resolve(&events, Millis::MAX).await;
        assert_eq!(consumed.table_write_units(), before);
    }
    assert!(batches_of_visitors > 20.0);
    assert_eq!(consumed.conflicts(), 0);
    assert_eq!(consumed.index_write_units(), 5.0, "once for each visitor's session");
}

/// Small items, so that a write is a unit: exactly one for each visitor of each batch.
#[tokio::test]
async fn a_small_timeline_costs_one_unit_a_batch() {
    let consumed = Arc::new(Consumed::default());
    let store = embedded().counting(Arc::clone(&consumed));
    let clock = ManualClock::default();
    let manager = SessionManager::with_clock(SessionConfig::default(), store, &clock);
    for batch in 0..10 {
        let now = NOON + batch * 600_000;
        clock.set(now);
        let texts: Vec<String> = (0..20)
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
            texts.iter().map(|text| Event::parse(text.as_bytes(), delivery, manager.config()).unwrap()).collect();
        manager.resolve(&events, Millis::MAX).await;
        assert_eq!(consumed.table_write_units(), 4.0 * (batch + 1) as f64);
    }
    assert_eq!(consumed.index_write_units(), 4.0);
    let sink = Sink::default();
    clock.set(NOON + 86_400_000);
    let report = manager.cleanup(&&sink, Millis::MAX).await;
    assert_eq!((report.closed, report.failed), (4, 0));
}

/// A process that is alone with its visitors reads each of them once, to learn that it may guess; then a batch is one write
/// a visitor and nothing else. What another process wrote meanwhile costs a conflict, and nothing worse.
#[tokio::test]
async fn a_warm_process_needs_no_read_and_verifies_its_speculative_writes() {
    let consumed = Arc::new(Consumed::default());
    let store = embedded().counting(Arc::clone(&consumed));
    let clock = ManualClock::default();
    let manager = || SessionManager::with_clock(SessionConfig::default(), &store, &clock);
    let (here, there) = (manager(), manager());
    let send = async |manager: &SessionManager<_, _>, number: i64| {
        clock.set(NOON + number * 1000);
        let text = event("v", &format!("e{number}"), NOON + number * 1000);
        let delivery = Delivery { received_at: NOON + number * 1000, trusts_received_at: false };
        let event = Event::parse(text.as_bytes(), delivery, &SessionConfig::default()).unwrap();
        match manager.resolve(&[event], Millis::MAX).await.pop() {
            Some(Outcome::Placed(Some(assignment))) => assignment,
            other => panic!("{other:?}"),
        }
    };
    // Nothing there, which costs half a unit like everything; a read that would have been spared; from then on none.
    for number in 0..6 {
        send(&here, number).await;
    }
    assert_eq!((consumed.read_units(), consumed.table_write_units(), consumed.conflicts()), (1.0, 6.0, 0));
    // Another process reads, and writes; here the guess is wrong once, and then not made until it is earned anew.
    let first = send(&there, 6).await;
    let second = send(&here, 7).await;
    assert_eq!((second.session_id, second.page_views), (first.session_id, 8));
    assert_eq!((consumed.read_units(), consumed.table_write_units(), consumed.conflicts()), (1.5, 9.0, 1));
    send(&there, 8).await;
    assert_eq!(send(&here, 9).await.page_views, 10);
    assert_eq!((consumed.read_units(), consumed.conflicts()), (2.5, 1));
    // An event that is known brings nothing to write: what a guess would say of it is read.
    let before = consumed.read_units();
    assert_eq!(send(&here, 3).await.session_id, first.session_id);
    assert!(consumed.read_units() > before);
}
