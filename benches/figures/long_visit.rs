//! A visit of 10,000 heartbeats, half a minute apart. Each comes in a batch of its own and meets a process that does not know the
//! visitor. What does a write cost early and late in the visit?

use std::sync::Arc;

use futures_util::FutureExt;
use session_tracking::InMemorySessionStorage;
use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event};
use session_tracking::manager::{Outcome, SessionManager};
use session_tracking::session::{Millis, datetime, rfc3339};
use session_tracking::storage::{Consumed, DynamoDbSessionStorage, SessionStorage};

use crate::AnyError;
use crate::cpu::StoppedClock;
use crate::dynamodb::{EmbeddedDynamoDb, TABLE};

const EVENTS: usize = 10_000;
/// The number of events in each of the two parts that are compared: those of two pages.
const PART: usize = 128;
const EARLY: std::ops::Range<usize> = 10..10 + PART;
const LATE: std::ops::Range<usize> = EVENTS - PART..EVENTS;
const BEGIN_MS: Millis = 1_773_136_800_000;
const STEP_MS: Millis = 30_000;

/// Sends some of the events. The visit may be as long as a session can be.
async fn send<S: SessionStorage>(storage: &S, numbers: std::ops::Range<usize>) -> Result<(), AnyError> {
    let config = SessionConfig { max_duration: chrono::TimeDelta::days(30), ..SessionConfig::default() };
    for number in numbers {
        let at = BEGIN_MS + number as Millis * STEP_MS;
        let json = format!(
            r#"{{"uuid":"0198c5f0-1234-7abc-8def-{number:012x}","event":"heartbeat","distinct_id":"visitor-00000001","timestamp":"{}","properties":{{"$device_type":"Desktop","$os":"Mac OS X","$browser":"Chrome","$browser_version":131}}}}"#,
            rfc3339(datetime(at))
        );
        let received_at = at + 200;
        let clock = StoppedClock(received_at);
        let manager = SessionManager::with_clock(config.clone(), storage, &clock);
        let delivery = Delivery { received_at, trusts_received_at: false };
        let event = Event::parse(json.as_bytes(), delivery, &config)?;
        let outcome = manager.resolve(&[event], Millis::MAX).await.pop();
        if !matches!(outcome, Some(Outcome::Placed(Some(_)))) {
            return Err(format!("an event failed: {outcome:?}").into());
        }
    }
    Ok(())
}

/// Returns the write units of an event early and late in the visit, pages included.
pub async fn units() -> Result<[f64; 2], AnyError> {
    let database = EmbeddedDynamoDb::start(0)?;
    let consumed = Arc::new(Consumed::default());
    let storage = DynamoDbSessionStorage::new(database.client(), TABLE).counting(Arc::clone(&consumed));
    let mut units = [0.0; 2];
    let mut sent = 0;
    for (part, units) in [EARLY, LATE].into_iter().zip(&mut units) {
        send(&storage, sent..part.start).await?;
        sent = part.end;
        let before = consumed.table_write_units();
        send(&storage, part).await?;
        *units = (consumed.table_write_units() - before) / PART as f64;
    }
    Ok(units)
}

/// Goes through the whole visit in memory, for callgrind, which counts the instructions of [`early`] and [`late`].
pub fn count() -> usize {
    let storage = InMemorySessionStorage::new();
    in_memory(&storage, 0..EARLY.start);
    early(&storage);
    in_memory(&storage, EARLY.end..LATE.start);
    late(&storage);
    EVENTS
}

/// Sends the early events. Reading, applying and writing a timeline is all that is counted.
#[inline(never)]
fn early(storage: &InMemorySessionStorage) {
    in_memory(storage, EARLY);
}

/// Sends the late events.
#[inline(never)]
fn late(storage: &InMemorySessionStorage) {
    in_memory(storage, LATE);
}

fn in_memory(storage: &InMemorySessionStorage, numbers: std::ops::Range<usize>) {
    // The store never waits.
    let sent = send(storage, numbers).now_or_never();
    assert!(matches!(sent, Some(Ok(()))), "{sent:?}");
}
