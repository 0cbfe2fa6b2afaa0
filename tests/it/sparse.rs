//! Closed sessions that stay in their timeline instead of being archived: what a session's life costs at DynamoDB with them, and
//! that everything finds them as it finds archived ones.

mod equal;
mod late;
mod slow;

use std::sync::Arc;

use chrono::TimeDelta;
use serde_json::{Value, json};
use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event};
use session_tracking::manager::{CloseReport, Outcome, SessionManager};
use session_tracking::output::MemoryOutput;
use session_tracking::session::{Millis, Visitor, datetime, rfc3339};
use session_tracking::storage::{Consumed, DynamoDbSessionStorage, SessionError, SessionStorage};
use session_tracking::timeline::{Assignment, Timeline};

use crate::cases::{MINUTE, NOON};
use crate::dynamodb::{EmbeddedDynamoDb, TABLE};
use crate::support::ManualClock;
use crate::traffic;

const HOUR: Millis = 60 * MINUTE;
const DAY: Millis = 24 * HOUR;
/// The end of the range of session id times.
const TIME_END: Millis = Millis::MAX >> 16;

type Manager<'s> = SessionManager<DynamoDbSessionStorage, &'s ManualClock>;

/// The service on a table of its own, with what it consumes.
struct Service<'s> {
    manager: Manager<'s>,
    clock: &'s ManualClock,
    consumed: Arc<Consumed>,
    output: MemoryOutput,
    /// The number of characters of each URL that no other one has.
    noise: usize,
}

impl<'s> Service<'s> {
    fn new(clock: &'s ManualClock) -> Self {
        let consumed = Arc::new(Consumed::default());
        let storage = DynamoDbSessionStorage::new(EmbeddedDynamoDb::start(0).unwrap().client(), TABLE);
        let manager =
            SessionManager::with_clock(SessionConfig::default(), storage.counting(Arc::clone(&consumed)), clock);
        Self { manager, clock, consumed, output: MemoryOutput::default(), noise: 0 }
    }

    /// Applies a batch of page views at this time, one of each visitor.
    async fn send(&self, visitors: &[&str], at: Millis) -> Vec<Assignment> {
        self.clock.set(self.clock_time().max(at));
        let noise = crate::stored::noise(at as u64, self.noise);
        let json = visitors.iter().map(|visitor| {
            json!({
                "uuid": format!("{visitor}-{at}"), "event": "$pageview", "distinct_id": visitor,
                "timestamp": rfc3339(datetime(at)),
                "properties": {
                    "$current_url": format!("https://shop.test/catalog/{:03}?page={}{noise}", at / 7 % 1_000, at / 11 % 10),
                    "$browser": "Firefox", "$os": "Linux", "$device_type": "Desktop", "$geoip_city_name": "Bern",
                },
            })
            .to_string()
        });
        let json: Vec<String> = json.collect();
        self.apply(&json.iter().map(String::as_str).collect::<Vec<_>>()).await
    }

    async fn apply(&self, json: &[&str]) -> Vec<Assignment> {
        let delivery = Delivery { received_at: self.clock_time(), trusts_received_at: false };
        let events: Vec<Event<'_>> =
            json.iter().map(|json| Event::parse(json.as_bytes(), delivery, self.manager.config()).unwrap()).collect();
        let outcomes = self.manager.resolve(&events, Millis::MAX).await;
        let placed = outcomes.into_iter().map(|outcome| match outcome {
            Outcome::Placed(Some(assignment)) => assignment,
            other => panic!("{other:?}"),
        });
        placed.collect()
    }

    fn clock_time(&self) -> Millis {
        use session_tracking::clock::Clock;
        self.clock.now()
    }

    /// Runs the close function at this time. Returns its report and the ends that it emitted: id and version.
    async fn close(&self, at: Millis) -> (CloseReport, Vec<(String, u64)>) {
        self.clock.set(at);
        let report = self.manager.cleanup(&self.output, Millis::MAX).await;
        assert_eq!((report.failed, report.conflicts), (0, 0), "{report:?}");
        let end = |line: &String| {
            let end: Value = serde_json::from_str(line).unwrap();
            assert_eq!(end["event"], "$session_end");
            let properties = &end["properties"];
            (properties["$session_id"].as_str().unwrap().to_owned(), properties["$session_version"].as_u64().unwrap())
        };
        (report, self.output.take().iter().map(end).collect())
    }

    fn write_units(&self) -> f64 {
        self.consumed.table_write_units() + self.consumed.index_write_units()
    }

    async fn timeline(&self, visitor: &str) -> Timeline {
        self.manager.storage().read(&Visitor::new(visitor)).await.unwrap().unwrap().timeline
    }

    /// Returns the ids of the visitor's items in the archive.
    async fn archived(&self, visitor: &str) -> Vec<String> {
        let archived = self.manager.storage().archived(&Visitor::new(visitor), 0, TIME_END).await.unwrap();
        archived.iter().map(|state| state.id.to_string()).collect()
    }
}

/// The promise of `docs/cost.md`: two units for the batch and its entry in the due index, two to take the session out of it.
#[tokio::test]
async fn a_session_of_one_event_costs_four_write_units() {
    let clock = ManualClock::default();
    let service = Service::new(&clock);
    let visitors = ["a", "b", "c", "d", "e"];
    service.send(&visitors, NOON).await;
    let (report, _) = service.close(NOON + 40 * MINUTE).await;
    assert_eq!(report.closed, 5);
    assert_eq!((service.consumed.table_write_units(), service.consumed.index_write_units()), (10.0, 10.0));
    assert_eq!(service.archived("a").await, [""; 0]);
}

/// Visitors who come again: each session costs four units until the timeline is full of closed ones, then five, as all of them did
/// before. Sessions that are no longer kept make room again.
#[tokio::test]
async fn sessions_of_a_visitor_who_comes_again_cost_four_units_then_five() {
    let clock = ManualClock::default();
    let service = Service::new(&clock);
    let mut costs = Vec::new();
    for day in 0..40 {
        let before = service.write_units();
        service.send(&["ada"], NOON + day * DAY).await;
        service.close(NOON + day * DAY + 40 * MINUTE).await;
        costs.push(service.write_units() - before);
    }
    let full = costs.iter().position(|&cost| cost == 5.0).unwrap();
    assert!(full >= 3, "only {full} sessions fit: {costs:?}");
    assert!(costs[full..30].iter().all(|&cost| cost == 5.0), "{costs:?}");
    // After 30 days, those that were kept are gone, and make room for as many.
    assert!(costs[31..31 + full].iter().all(|&cost| cost == 4.0), "{full}: {costs:?}");
    let archived = costs.iter().filter(|&&cost| cost == 5.0).count();
    assert_eq!(service.archived("ada").await.len(), archived);
}

/// A long visit of a visitor with closed sessions costs what that of a new visitor costs. The closed sessions are archived on the
/// way, which costs what it would have cost before.
#[tokio::test]
async fn closed_sessions_never_cost_a_write_a_second_unit() {
    let clock = ManualClock::default();
    let mut service = Service::new(&clock);
    for day in 0..2 {
        service.send(&["ada"], NOON + day * DAY).await;
        service.close(NOON + day * DAY + 40 * MINUTE).await;
    }
    assert_eq!(service.timeline("ada").await.closed.len(), 2);
    service.noise = 15;
    let (mut archived, mut total) = (0, 0.0);
    for number in 0..60 {
        let mut units = [0.0, 0.0];
        for (visitor, units) in ["ada", "new"].into_iter().zip(&mut units) {
            let before = service.consumed.table_write_units();
            service.send(&[visitor], NOON + 2 * DAY + number * 20_000).await;
            *units = service.consumed.table_write_units() - before;
        }
        let now = service.archived("ada").await.len();
        assert_eq!(units[0], units[1] + (now - archived) as f64, "event {number}");
        (archived, total) = (now, total + units[1]);
    }
    let timeline = service.timeline("ada").await;
    assert_eq!((archived, timeline.closed.len(), timeline.archived), (2, 0, 2));
    assert!(total < 70.0, "the visit is an ordinary one: {total} units");
}

/// Returns the write units of a session's life beyond its batches, reads included. `visit` events of each visitor come one by one;
/// each visitor comes every day.
async fn life_of_visits(visit: i64, limits: (usize, usize)) -> f64 {
    let clock = ManualClock::default();
    let Service { manager, consumed, output, .. } = Service::new(&clock);
    let service =
        Service { manager: manager.with_closed_bytes(limits.0, limits.1), clock: &clock, consumed, output, noise: 0 };
    let (visitors, days) = (["a", "b", "c", "d"], 6);
    for day in 0..days {
        for number in 0..visit {
            service.send(&visitors, NOON + day * DAY + number * 15_000).await;
        }
        for minutes in [40, 80] {
            service.close(NOON + day * DAY + visit * 15_000 + minutes * MINUTE).await;
        }
    }
    let batches = visitors.len() as i64 * visit * days;
    let sessions = visitors.len() as f64 * days as f64;
    (service.write_units() - batches as f64 + service.consumed.read_units() / 5.0) / sessions
}

/// Returns the same for the real traffic, in batches of 100.
async fn life_of_real_traffic(limits: (usize, usize)) -> f64 {
    let clock = ManualClock::default();
    let Service { manager, consumed, output, .. } = Service::new(&clock);
    let service =
        Service { manager: manager.with_closed_bytes(limits.0, limits.1), clock: &clock, consumed, output, noise: 0 };
    let lines = traffic::in_order();
    let (mut batches, mut sessions, mut closed_at) = (0, 0, 0);
    for batch in lines.chunks(100) {
        let newest: Value = serde_json::from_str(batch.last().unwrap()).unwrap();
        let now = crate::support::millis(newest["received_at"].as_str().unwrap());
        if now - closed_at >= MINUTE {
            closed_at = now;
            sessions += service.close(now).await.1.len();
        }
        clock.set(now);
        let batch: Vec<&str> = batch.iter().map(String::as_str).collect();
        let visitor = |json: &&str| serde_json::from_str::<Value>(json).unwrap()["distinct_id"].to_string();
        batches += batch.iter().map(visitor).collect::<std::collections::HashSet<_>>().len();
        service.apply(&batch).await;
    }
    for days in [2, 4] {
        sessions += service.close(service.clock_time() + days * DAY).await.1.len();
    }
    (service.write_units() - batches as f64 + service.consumed.read_units() / 5.0) / sessions as f64
}

/// The limits of the service, and those under which every session is archived when it is closed.
const SERVICE: (usize, usize) = (512, 1024 - 96);
const ALL_ARCHIVED: (usize, usize) = (0, 0);

/// No traffic pays for closed sessions, and traffic of small sessions saves.
#[tokio::test]
async fn a_sessions_life_never_costs_more_than_with_the_archive_alone() {
    for visit in [1, 3, 12, 30] {
        let (with, without) = (life_of_visits(visit, SERVICE).await, life_of_visits(visit, ALL_ARCHIVED).await);
        println!("visits of {visit} events: {with:.3} units a session, {without:.3} with all sessions archived");
        assert!(with <= without, "visits of {visit} events: {with:.3} units a session instead of {without:.3}");
    }
    let (with, without) = (life_of_real_traffic(SERVICE).await, life_of_real_traffic(ALL_ARCHIVED).await);
    println!("real traffic: {with:.3} units a session, {without:.3} with all sessions archived");
    assert!(with < without - 0.5, "real traffic: {with:.3} units a session instead of {without:.3}");
}

/// What the limits of the service were chosen by.
#[tokio::test]
#[ignore = "a measurement: cargo test --test it sparse::limits -- --ignored --nocapture"]
async fn limits() {
    for at_rest in [0, 192, 256, 320, 384, 448, 512, 576, 640, 704, 768] {
        let limits = (at_rest, 1024 - 96);
        let mut row = format!("{at_rest:4} | real {:.3}", life_of_real_traffic(limits).await);
        for visit in [1, 3, 12, 20, 30] {
            row += &format!(" | {visit}: {:.3}", life_of_visits(visit, limits).await);
        }
        println!("{row}");
    }
}

/// A late event finds a closed session without a read, and reopens it. Its end is emitted again. Others stay closed.
#[tokio::test]
async fn a_late_event_reopens_a_closed_session_without_a_read() {
    let clock = ManualClock::default();
    let service = Service::new(&clock);
    let first = service.send(&["ada"], NOON).await.remove(0);
    service.send(&["ada"], NOON + 2 * HOUR).await;
    let (_, ends) = service.close(NOON + 3 * HOUR).await;
    assert_eq!((ends.len(), service.timeline("ada").await.closed.len()), (2, 2));
    let (reads, writes) = (service.consumed.read_units(), service.consumed.table_write_units());
    let late = service.send(&["ada"], NOON + 7 * MINUTE).await.remove(0);
    assert!(late.is_late && late.session_id == first.session_id, "{late:?}");
    assert_eq!(service.manager.take_counted().reopened, 1);
    // The timeline was read and written, and nothing else.
    assert_eq!((service.consumed.read_units() - reads, service.consumed.table_write_units() - writes), (0.5, 1.0));
    let timeline = service.timeline("ada").await;
    assert_eq!((timeline.ended.len(), timeline.closed.len(), timeline.archived), (1, 1, 0));
    // The same event again is a duplicate, in both states of the session.
    for _ in 0..2 {
        let again = service.send(&["ada"], NOON + 7 * MINUTE).await.remove(0);
        assert!(again.is_duplicate && again.session_id == first.session_id, "{again:?}");
        let (_, again) = service.close(service.clock_time() + HOUR).await;
        let before = ends.iter().find(|(id, _)| *id == first.session_id.to_string()).unwrap();
        assert!(again.iter().all(|end| end.0 == before.0 && end.1 > before.1), "{ends:?}, then {again:?}");
    }
    let timeline = service.timeline("ada").await;
    assert_eq!((timeline.ended.len(), timeline.closed.len(), timeline.due_at), (0, 2, None));
    let session = service.manager.get(&first.session_id.to_string()).await.unwrap();
    assert_eq!((session.event_count, session.is_active), (2, false));
}

/// Reading by id, by visitor, listing, export and the request to end a session find a closed session, as long as an archived one
/// would be kept, and no longer. An erasure deletes it.
#[tokio::test]
async fn closed_sessions_are_found_as_long_as_they_are_kept() {
    let clock = ManualClock::default();
    let Service { manager, consumed, output, .. } = Service::new(&clock);
    let manager = manager.with_retention(TimeDelta::days(10));
    let service = Service { manager, clock: &clock, consumed, output, noise: 0 };
    let (manager, ada) = (&service.manager, Visitor::new("ada"));
    let first = service.send(&["ada"], NOON).await.remove(0).session_id.to_string();
    let closed_at = NOON + HOUR;
    service.close(closed_at).await;
    // Another visit begins later, so that the item has no TTL.
    let second = service.send(&["ada"], NOON + 9 * DAY).await.remove(0).session_id.to_string();
    for (now, is_kept) in [(closed_at + 9 * DAY, true), (closed_at + 10 * DAY, true), (closed_at + 10 * DAY + 1, false)]
    {
        clock.set(now);
        let found = manager.get(&first).await;
        assert_eq!(found.is_ok(), is_kept, "{found:?}");
        let ended = manager.end_session(&first).await;
        assert_eq!(ended.as_ref().map(|session| session.is_active).ok(), is_kept.then_some(false), "{ended:?}");
        let listed = manager.sessions_of(&ada, None, 10).await.unwrap().sessions;
        let ids: Vec<&str> = listed.iter().map(|session| session.id.as_str()).collect();
        assert_eq!(ids, if is_kept { vec![second.as_str(), &first] } else { vec![second.as_str()] });
        let export = serde_json::to_value(manager.export(&ada).await.unwrap()).unwrap();
        let count = |name: &str| export[name].as_array().unwrap().len();
        assert_eq!((count("sessions"), count("event_fingerprints")), if is_kept { (2, 2) } else { (1, 1) });
        assert_eq!(manager.get_by_user(&ada).await.unwrap().id, second);
    }
    // A late event of that time does not find it either, and the next write drops it.
    let late = service.send(&["ada"], NOON + MINUTE).await.remove(0);
    assert_ne!(late.session_id.to_string(), first);
    assert_eq!(service.timeline("ada").await.closed.len(), 0);
    service.close(NOON + 11 * DAY).await;
    let closed = service.timeline("ada").await.closed.len();
    assert_eq!(closed, 2);
    manager.erase(&ada, &service.output).await.unwrap();
    assert_eq!(manager.get(&second).await.unwrap_err(), SessionError::NotFound);
    assert!(manager.sessions_of(&ada, None, 10).await.unwrap().sessions.is_empty());
}

/// A closed session that is archived later expires when it would have expired, had it been archived at once.
#[tokio::test]
async fn an_archived_session_expires_by_the_time_of_its_close() {
    let clock = ManualClock::default();
    let client = EmbeddedDynamoDb::start(0).unwrap().client();
    let storage = DynamoDbSessionStorage::new(client.clone(), TABLE);
    let manager = SessionManager::with_clock(SessionConfig::default(), storage, &clock).with_closed_bytes(512, 0);
    let service =
        Service { manager, clock: &clock, consumed: Arc::default(), output: MemoryOutput::default(), noise: 0 };
    service.send(&["ada"], NOON).await;
    let closed_at = NOON + HOUR;
    service.close(closed_at).await;
    // There is no room for a closed session beside an event.
    service.send(&["ada"], NOON + 20 * DAY).await;
    assert_eq!((service.timeline("ada").await.closed.len(), service.archived("ada").await.len()), (0, 1));
    let items = client.scan().table_name(TABLE).send().await.unwrap().items.unwrap();
    let archived = items.iter().find(|item| item["sk"].as_s().unwrap().starts_with("s#")).unwrap();
    assert_eq!(archived["expires_at"].as_n().unwrap(), &((closed_at + 30 * DAY) / 1000).to_string());
    // A late event reads it there, and counts in it.
    let late = service.send(&["ada"], NOON + MINUTE).await.remove(0);
    assert_eq!(late.session_id.to_string(), service.archived("ada").await[0]);
}
