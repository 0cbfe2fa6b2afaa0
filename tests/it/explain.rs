//! What `explain` tells about events is what applying them then does, and it writes nothing. Over the random rules and events of
//! [`crate::mixes`], one batch after the other.

mod requests;

use session_tracking::event::{Delivery, Event, Role};
use session_tracking::manager::{Outcome, SessionManager};
use session_tracking::model::{FingerprintPage, Kind, SessionState};
use session_tracking::session::{Millis, Reason, Visitor};
use session_tracking::storage::{
    Commit, CommitOutcome, Due, Erased, InMemorySessionStorage, Partition, Reading, SessionError, SessionStorage,
    Stored,
};
use session_tracking::timeline::{Applied, Arrival, Assignment, Check, Comparison, Explanation, Rule};
use uuid::Uuid;

use crate::mixes::{START, SentEvent, event, pick, rules};
use crate::storage::COLLIDING_IDS;
use crate::support::{ManualClock, Seeded, Sink};

/// The number of seeds. `EXPLAIN_SEEDS=20000` runs as many as asked, `EXPLAIN_SEED=7` one.
const SEEDS: u64 = 400;

/// A store that is only read.
struct ReadOnly<'s>(&'s InMemorySessionStorage);

impl SessionStorage for ReadOnly<'_> {
    async fn load(&self, visitors: &[Visitor], reading: Reading) -> Vec<Result<Option<Stored>, SessionError>> {
        self.0.load(visitors, reading).await
    }

    async fn commit(&self, _: Commit<'_>) -> Result<CommitOutcome, SessionError> {
        panic!("a timeline is written")
    }

    async fn due(&self, _: u8, _: Option<&Due>, _: Millis, _: usize) -> Result<Vec<Due>, SessionError> {
        panic!("what is due is read")
    }

    async fn archive(&self, _: &Visitor, _: &SessionState, _: Millis) -> Result<(), SessionError> {
        panic!("a session is archived")
    }

    async fn archived(&self, visitor: &Visitor, from: Millis, to: Millis) -> Result<Vec<SessionState>, SessionError> {
        self.0.archived(visitor, from, to).await
    }

    async fn put_pages(&self, _: &Visitor, _: &[FingerprintPage], _: Option<Millis>) -> Result<(), SessionError> {
        panic!("pages are written")
    }

    async fn pages(&self, visitor: &Visitor, session_id: Uuid) -> Result<Vec<FingerprintPage>, SessionError> {
        self.0.pages(visitor, session_id).await
    }

    async fn find(&self, session_id: Uuid) -> Result<Partition, SessionError> {
        self.0.find(session_id).await
    }

    async fn erase(&self, _: &Visitor) -> Result<Erased, SessionError> {
        panic!("a visitor is erased")
    }
}

/// Checks an explanation by the assignment of the same event. `is_keep_alive`: the event is none that counts as a duplicate.
fn check(explanation: &Explanation, assignment: Option<&Assignment>, is_keep_alive: bool) {
    let told = explanation.session.as_ref().map(|session| {
        let previous = session.previous_session_id;
        (session.id, session.is_start, session.reason, session.number, previous, session.started_at)
    });
    let done = assignment.map(|assignment| {
        let Assignment { session_id, is_start, reason, number, previous, started_at, .. } = assignment;
        (*session_id, *is_start, *reason, *number, *previous, *started_at)
    });
    assert_eq!(told, done, "{explanation:#?}");
    assert_eq!(explanation.is_late, assignment.is_some_and(|assignment| assignment.is_late), "{explanation:#?}");
    let is_duplicate = assignment.is_some_and(|assignment| assignment.is_duplicate);
    assert!(is_duplicate == (explanation.rule == Rule::Duplicate) || is_keep_alive, "{explanation:#?}");
    check_rule(explanation);
}

/// Checks that the values that were compared give the rule.
fn check_rule(explanation: &Explanation) {
    let holds =
        |comparison: &Comparison| comparison.rules.iter().find(|check| check.holds).map(|Check { rule, .. }| *rule);
    let before = explanation.session_before.as_ref();
    let (first, id) = (before.and_then(holds), explanation.session.as_ref().map(|session| session.id));
    match explanation.rule {
        Rule::Begins(reason) => {
            assert!(explanation.session.as_ref().is_some_and(|session| session.is_start && session.reason == reason));
            // A late event can extend a session that is over so far that no rule keeps this event out of it.
            let is_over = before.is_some_and(|before| before.is_finalized);
            let without_rule = if is_over { Reason::Timeout } else { Reason::First };
            assert_eq!(first.unwrap_or(without_rule), reason, "{explanation:#?}");
        }
        Rule::Continues => {
            assert_eq!((first, before.map(|before| before.session_id)), (None, id), "{explanation:#?}");
        }
        Rule::LateJoins | Rule::LateBegins => {
            let sessions = [before, explanation.session_after.as_ref()];
            let joined = sessions.into_iter().flatten().find(|session| holds(session).is_none());
            let wanted = id.filter(|_| explanation.rule == Rule::LateJoins);
            assert_eq!(joined.map(|session| session.session_id), wanted, "{explanation:#?}");
            assert!(explanation.is_late);
        }
        Rule::NoSession => assert_eq!(id, None),
        Rule::Duplicate | Rule::Annotated | Rule::Nobody | Rule::Bot | Rule::Lifecycle => {}
    }
}

/// Checks the explanations of a batch by what applying it did.
pub fn check_all(explanations: &[Explanation], arrivals: &[Arrival], applied: &Applied) {
    assert_eq!(explanations.len(), applied.assignments.len());
    for ((explanation, arrival), assignment) in explanations.iter().zip(arrivals).zip(&applied.assignments) {
        check(explanation, assignment.as_ref(), arrival.entry.kind == Kind::KeepAlive);
    }
}

async fn run(seed: u64) -> Vec<Rule> {
    let mut random = Seeded(seed ^ 0x0e0e_91a1);
    let (clock, sink, inner) = (ManualClock::default(), Sink::default(), InMemorySessionStorage::new());
    clock.set(START);
    let (lateness, max_duration) = (pick(&mut random, &[0, 5, 300, 3600]), pick(&mut random, &[60, 1800, 86_400]));
    let rules = rules(&mut random, lateness, max_duration);
    let timeout = rules.timeout.num_milliseconds();
    let explainer = SessionManager::with_clock(rules.clone(), ReadOnly(&inner), &clock).with_page_size(1);
    let manager = SessionManager::with_clock(rules, &inner, &clock).with_page_size(1);
    let visitors: &[&'static str] = if random.below(3) == 0 { &COLLIDING_IDS } else { &["v"] };
    let (mut sent, mut seen): (Vec<SentEvent>, _) = (Vec::new(), Vec::new());
    for _ in 0..3 + random.below(25) {
        let waits = [0, 1, 500, timeout / 3, timeout, timeout + 1, 3 * timeout, 90_000, 400_000, 4_000_000];
        let now = session_tracking::Clock::now(&&clock) + pick(&mut random, &waits);
        clock.set(now);
        if random.below(4) == 0 {
            manager.cleanup(&&sink, Millis::MAX).await;
        }
        let batch: Vec<String> =
            (0..1 + random.below(4)).map(|_| event(&mut random, &mut sent, now, timeout, visitors).json()).collect();
        let delivery = Delivery { received_at: now, trusts_received_at: false };
        let parse = |json| Event::parse(str::as_bytes(json), delivery, manager.config()).unwrap();
        let events: Vec<Event<'_>> = batch.iter().map(|json| parse(json)).collect();
        let explanations = explainer.explain(&events, Millis::MAX).await;
        let outcomes = manager.resolve(&events, Millis::MAX).await;
        for ((explanation, outcome), event) in explanations.into_iter().zip(outcomes).zip(&events) {
            let Outcome::Placed(assignment) = outcome else { panic!("{outcome:?}") };
            let explanation = explanation.unwrap();
            check(&explanation, assignment.as_ref(), event.role == Role::Activity(Kind::KeepAlive));
            seen.push(explanation.rule);
        }
    }
    seen
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a test's own settings")]
fn what_is_explained_is_what_is_done() {
    let setting = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match setting("EXPLAIN_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("EXPLAIN_SEEDS").unwrap_or(SEEDS),
    };
    let is_one = seeds.end - seeds.start == 1;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for seed in seeds {
        let run = std::panic::AssertUnwindSafe(|| runtime.block_on(run(seed)));
        let Ok(rules) = std::panic::catch_unwind(run) else {
            panic!("to reproduce: EXPLAIN_SEED={seed} cargo test --test it explain -- --nocapture");
        };
        seen.extend(rules.iter().map(|rule| rule.name()));
    }
    let wanted = [
        "annotated",
        "continues",
        "duplicate",
        "first",
        "late_begins",
        "late_joins",
        "max_duration",
        "max_events",
        "midnight",
        "no_session",
        "referrer_change",
        "timeout",
        "utm_change",
    ];
    assert!(is_one || seen.iter().eq(wanted.iter()), "{seen:?}");
}
