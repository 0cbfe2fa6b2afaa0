//! Two services with the same input: in one, small sessions stay in their timeline when they are closed; the other archives them at once.
//! What callers and consumers see is the same.

use serde_json::Value;
use session_tracking::event::{Delivery, Event};
use session_tracking::manager::{Outcome, SessionManager};
use session_tracking::session::{Millis, Session, Visitor};
use session_tracking::storage::{InMemorySessionStorage, SessionError};

use crate::mixes::{START, SentEvent, event, pick, rules};
use crate::storage::COLLIDING_IDS;
use crate::support::{ManualClock, Seeded, Sink};

/// The number of seeds. `EQUAL_SEEDS=20000` runs as many as asked, `EQUAL_SEED=7` one.
const SEEDS: u64 = 60;

/// Returns a session, or the error, in a form that can be compared.
fn seen(session: Result<Session, SessionError>) -> Result<Value, SessionError> {
    session.map(|session| serde_json::to_value(session).unwrap())
}

/// A service, and what it emitted.
struct Service<'w> {
    manager: SessionManager<&'w InMemorySessionStorage, &'w ManualClock>,
    sink: &'w Sink,
}

impl Service<'_> {
    /// Applies a batch. Returns the annotated events.
    async fn apply(&self, batch: &[String], received_at: Millis) -> Vec<String> {
        let delivery = Delivery { received_at, trusts_received_at: false };
        let parse = |json| Event::parse(str::as_bytes(json), delivery, self.manager.config()).unwrap();
        let events: Vec<Event<'_>> = batch.iter().map(|json| parse(json)).collect();
        let outcomes = self.manager.resolve(&events, Millis::MAX).await;
        let line = |(event, outcome): (&Event<'_>, Outcome)| {
            let Outcome::Placed(assignment) = outcome else { panic!("{outcome:?}") };
            event.annotate(assignment.as_ref())
        };
        events.iter().zip(outcomes).map(line).collect()
    }

    /// Returns what was emitted, in any order.
    fn emitted(&self) -> Vec<String> {
        let mut lines = std::mem::take(&mut *self.sink.0.lock().unwrap());
        lines.sort();
        lines
    }

    /// Returns a visitor's sessions, read in pages of this size.
    async fn listed(&self, visitor: &Visitor, limit: usize) -> Vec<Value> {
        let (mut sessions, mut after) = (Vec::new(), None);
        loop {
            let page = self.manager.sessions_of(visitor, after, limit).await.unwrap();
            sessions.extend(page.sessions.iter().map(|session| serde_json::to_value(session).unwrap()));
            after = page.last;
            if after.is_none() {
                return sessions;
            }
        }
    }

    /// Returns what an export has, apart from the order of fingerprints.
    async fn exported(&self, visitor: &Visitor) -> Value {
        let mut export = serde_json::to_value(self.manager.export(visitor).await.unwrap()).unwrap();
        let fingerprints = export["event_fingerprints"].as_array_mut().unwrap();
        fingerprints.sort_by_key(Value::to_string);
        export
    }
}

async fn run(seed: u64) {
    let mut random = Seeded(seed ^ 0xc105_ed5e);
    let clock = ManualClock::default();
    clock.set(START);
    let lateness = pick(&mut random, &[0, 5, 300, 3600]);
    // With such a duration, a late event finds every archived session of these histories. Otherwise it knows more of closed sessions
    // than of archived ones: a session that it begins can have another number.
    let rules = rules(&mut random, lateness, 86_400);
    let timeout = rules.timeout.num_milliseconds();
    let (stores, sinks) = (<[InMemorySessionStorage; 2]>::default(), <[Sink; 2]>::default());
    let sizes = [pick(&mut random, &[(512, 928), (2_000, 2_000), (400, 300)]), (0, 0)];
    let service = |number: usize| {
        let manager = SessionManager::with_clock(rules.clone(), &stores[number], &clock);
        Service { manager: manager.with_closed_bytes(sizes[number].0, sizes[number].1), sink: &sinks[number] }
    };
    let [with, without] = [service(0), service(1)];
    let visitors: &[&'static str] = if random.below(3) == 0 { &COLLIDING_IDS } else { &["v"] };
    let (mut sent, mut ids): (Vec<SentEvent>, Vec<String>) = (Vec::new(), Vec::new());
    for _ in 0..3 + random.below(25) {
        let waits = [0, 1, 500, timeout / 3, timeout, timeout + 1, 3 * timeout, 90_000, 400_000, 4_000_000];
        let now = session_tracking::Clock::now(&&clock) + pick(&mut random, &waits);
        clock.set(now);
        match random.below(6) {
            0 | 1 => {
                for service in [&with, &without] {
                    let report = service.manager.cleanup(&service.sink, Millis::MAX).await;
                    assert_eq!(report.failed, 0, "{report:?}");
                }
            }
            2 if !ids.is_empty() => {
                let id = pick(&mut random, &ids);
                let ended = seen(with.manager.end_session(&id).await);
                assert_eq!(ended, seen(without.manager.end_session(&id).await), "{id}");
            }
            _ => {}
        }
        let batch: Vec<String> =
            (0..1 + random.below(4)).map(|_| event(&mut random, &mut sent, now, timeout, visitors).json()).collect();
        let lines = with.apply(&batch, now).await;
        assert_eq!(lines, without.apply(&batch, now).await);
        assert_eq!(with.emitted(), without.emitted());
        let id = |line: &String| {
            serde_json::from_str::<Value>(line).unwrap()["properties"]["$session_id"].as_str().map(str::to_owned)
        };
        ids.extend(lines.iter().filter_map(id));
        for id in &ids {
            assert_eq!(seen(with.manager.get(id).await), seen(without.manager.get(id).await), "{id}");
        }
        for visitor in visitors.iter().map(|&id| Visitor::new(id)) {
            let limit = 1 + random.below(4);
            assert_eq!(with.listed(&visitor, limit).await, without.listed(&visitor, limit).await);
            assert_eq!(with.exported(&visitor).await, without.exported(&visitor).await);
            let latest = async |service: &Service<'_>| seen(service.manager.get_by_user(&visitor).await);
            assert_eq!(latest(&with).await, latest(&without).await);
        }
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a test's own settings")]
fn closed_sessions_are_seen_as_archived_ones() {
    let setting = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match setting("EQUAL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("EQUAL_SEEDS").unwrap_or(SEEDS),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for seed in seeds {
        let run = std::panic::AssertUnwindSafe(|| runtime.block_on(run(seed)));
        if std::panic::catch_unwind(run).is_err() {
            panic!("to reproduce: EQUAL_SEED={seed} cargo test --test it sparse::equal -- --nocapture");
        }
    }
}
