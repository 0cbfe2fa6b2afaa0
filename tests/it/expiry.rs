//! No item expires before it is closed. The table's garbage collection runs in virtual time, over extreme settings.

use chrono::TimeDelta;
use dynoxide::storage_backend::ManualClock as EngineClock;
use serde_json::{Value, json};
use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event};
use session_tracking::manager::{Outcome, SessionManager};
use session_tracking::output::MemoryOutput;
use session_tracking::session::{Millis, Visitor, datetime, rfc3339};
use session_tracking::storage::{DynamoDbSessionStorage, SessionStorage};
use session_tracking::timeline::{PAGE_FINGERPRINTS, Recalled};

use crate::cases::NOON;
use crate::dynamodb::{EmbeddedDynamoDb, TABLE};
use crate::support::ManualClock;

const HOUR: Millis = 3_600_000;
const DAY: Millis = 24 * HOUR;

/// A table whose items expire by a clock of its own.
struct Table {
    database: dynoxide::Database,
    engine: EngineClock,
    storage: DynamoDbSessionStorage,
    clock: ManualClock,
}

impl Table {
    fn new() -> Self {
        let engine = EngineClock::new((NOON / 1000) as u64);
        let database = dynoxide::Database::memory_with_clock(engine.arc()).unwrap();
        let served = EmbeddedDynamoDb::start_on(database.clone(), 0).unwrap();
        let ttl = json!({
            "TableName": TABLE,
            "TimeToLiveSpecification": { "AttributeName": "expires_at", "Enabled": true },
        });
        database.update_time_to_live(serde_json::from_value(ttl).unwrap()).unwrap();
        let storage = DynamoDbSessionStorage::new(served.client(), TABLE);
        Self { database, engine, storage, clock: ManualClock::default() }
    }

    /// Sets the time and deletes expired items. Returns how many.
    fn sweep(&self, now: Millis) -> usize {
        self.clock.set(now);
        self.engine.set((now / 1000) as u64);
        self.database.sweep_ttl().unwrap()
    }
}

/// Returns the number of sessions whose end is among these lines.
fn ends(lines: &[String]) -> usize {
    let is_end = |line: &&String| serde_json::from_str::<Value>(line).unwrap()["event"] == "$session_end";
    lines.iter().filter(is_end).count()
}

/// Applies four events, each of another visitor: of now, as far ahead as is accepted, an hour old and a year old.
async fn events(manager: &SessionManager<&DynamoDbSessionStorage, &ManualClock>, received_at: Millis, name: &str) {
    let times = [0, 23 * HOUR - 1, -HOUR, -365 * DAY].map(|later| received_at + later);
    let json = |(number, at): (usize, Millis)| {
        let at = rfc3339(datetime(at));
        format!(r#"{{"uuid":"{name}{number}","event":"$pageview","distinct_id":"{name}{number}","timestamp":"{at}"}}"#)
    };
    let events: Vec<String> = times.into_iter().enumerate().map(json).collect();
    let delivery = Delivery { received_at, trusts_received_at: true };
    let events: Vec<Event<'_>> =
        events.iter().map(|json| Event::parse(json.as_bytes(), delivery, manager.config()).unwrap()).collect();
    let outcomes = manager.resolve(&events, Millis::MAX).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Placed(Some(_)))), "{outcomes:?}");
}

#[tokio::test]
async fn what_is_not_closed_never_expires() {
    const MAX_SECONDS: i64 = 30 * 86_400;
    for (timeout, max_duration, lateness, retention) in [
        (1800, 86_400, 300, 1),
        (MAX_SECONDS, 86_400, 2 * 86_400, 30),
        (2 * 86_400, MAX_SECONDS, 0, 1),
        (MAX_SECONDS, MAX_SECONDS, MAX_SECONDS, 1),
        (1, 1, MAX_SECONDS, 1),
    ] {
        // The closer runs from the beginning, or is down for long.
        for (every, first) in [(8 * DAY, 0), (8 * DAY, 100 * DAY), (400 * DAY, 400 * DAY)] {
            let table = Table::new();
            let rules = json!({
                "timeout_seconds": timeout, "max_duration_seconds": max_duration, "lateness_seconds": lateness,
            });
            let config = SessionConfig::from_rules(rules.clone()).unwrap();
            let manager = SessionManager::with_clock(config, &table.storage, &table.clock)
                .with_retention(TimeDelta::days(retention));
            let output = MemoryOutput::default();
            table.sweep(NOON);
            events(&manager, NOON, "a").await;
            // Three hours later, events of other visitors.
            table.sweep(NOON + 3 * HOUR);
            events(&manager, NOON + 3 * HOUR, "b").await;
            let (mut closed, mut next) = (0, NOON + first);
            for now in (0..70).map(|day| NOON + day * 2 * DAY).chain([NOON + 500 * DAY]) {
                table.sweep(now);
                while next <= now {
                    table.clock.set(next.max(now - 2 * DAY));
                    let report = manager.cleanup(&output, Millis::MAX).await;
                    assert_eq!(report.failed + report.unlisted, 0, "{report:?}");
                    next += every;
                }
                closed += ends(&output.take());
            }
            assert_eq!(closed, 8, "{rules}, retention {retention}, closed from {first} every {every}");
            // Everything that is closed does expire.
            table.sweep(NOON + 2_000 * DAY);
            let left = table.database.scan(serde_json::from_value(json!({ "TableName": TABLE })).unwrap()).unwrap();
            assert_eq!(left.count, 0, "{rules}, retention {retention}");
        }
    }
}

/// Returns how many pages the table has.
fn pages(table: &Table) -> usize {
    let scan = json!({ "TableName": TABLE, "FilterExpression": "begins_with(sk, :page)",
        "ExpressionAttributeValues": { ":page": { "S": "p#" } } });
    table.database.scan(serde_json::from_value(scan).unwrap()).unwrap().count as usize
}

/// The pages of a long visit stay until it is closed, however late that is, and as long as the archived session. So does a page
/// that a writer stored before it died.
#[tokio::test]
async fn pages_expire_with_their_session() {
    let table = Table::new();
    let config = SessionConfig::default();
    let manager =
        SessionManager::with_clock(config.clone(), &table.storage, &table.clock).with_retention(TimeDelta::days(10));
    let visitor = Visitor::new("long");
    let send = async |number: i64| {
        let received_at = NOON + number * 30_000;
        table.sweep(received_at);
        let at = rfc3339(datetime(received_at));
        let json = format!(r#"{{"uuid":"e{number}","event":"beat","distinct_id":"long","timestamp":"{at}"}}"#);
        let delivery = Delivery { received_at, trusts_received_at: false };
        let event = Event::parse(json.as_bytes(), delivery, &config).unwrap();
        let outcome = manager.resolve(&[event], Millis::MAX).await.pop();
        assert!(matches!(outcome, Some(Outcome::Placed(Some(_)))), "{outcome:?}");
    };
    // The next write would store the third page.
    let is_full = async || {
        let timeline = table.storage.read(&visitor).await.unwrap().unwrap().timeline;
        timeline.open.is_some_and(|open| (open.pages, open.fingerprints.len()) == (2, PAGE_FINGERPRINTS))
    };
    send(0).await;
    for number in 1.. {
        if is_full().await {
            break;
        }
        send(number).await;
    }
    assert_eq!(pages(&table), 2);
    let mut timeline = table.storage.read(&visitor).await.unwrap().unwrap().timeline;
    let third = timeline.move_to_pages(&mut Recalled::default(), PAGE_FINGERPRINTS);
    table.storage.put_pages(&visitor, &third, None).await.unwrap();
    assert_eq!((table.sweep(NOON + 400 * DAY), pages(&table)), (0, 3));
    let output = MemoryOutput::default();
    let report = manager.cleanup(&output, Millis::MAX).await;
    assert_eq!((report.closed, report.failed), (1, 0), "{report:?}");
    assert_eq!((table.sweep(NOON + 410 * DAY - HOUR), pages(&table)), (0, 3));
    // A maximum duration after the archived session, and the timeline, everything is gone.
    table.sweep(NOON + 411 * DAY + HOUR);
    let left = table.database.scan(serde_json::from_value(json!({ "TableName": TABLE })).unwrap()).unwrap();
    assert_eq!(left.count, 0);
}
