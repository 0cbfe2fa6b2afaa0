//! Runs one history through the real manager and compares it with the oracle.

use std::collections::{HashMap, HashSet};

use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event};
use session_tracking::manager::{CLOSE_GRACE_MS, Outcome, SessionManager};
use session_tracking::session::{Millis, datetime, rfc3339};
use session_tracking::storage::{DUE_SHARDS, InMemorySessionStorage, SessionStorage};

use super::histories::{History, Request, SentEvent};
use crate::consumer::Consumer;
use crate::oracle::{OracleEvent, sessions};
use crate::support::{FinalSession, ManualClock, Sink};

const MINUTE: Millis = 60_000;

/// The result of one history, or of several.
#[derive(Debug, Clone, Copy, Default)]
pub struct Score {
    /// The number of the oracle's sessions.
    pub sessions: usize,
    /// The number of those that equal one of the service's sessions, field by field.
    pub equal: usize,
    /// The number of the oracle's sessions with a campaign or a referrer.
    pub sources: usize,
    /// The number of those that keep it.
    pub kept: usize,
    /// The number of `$session_end` lines, those with a higher version included.
    pub ends: usize,
    /// The sum of [`deliveries`] of all sessions.
    pub deliveries: usize,
    /// The number of histories.
    pub histories: usize,
    /// The number of those in which every event was counted once.
    pub counted_once: usize,
    /// The number of those in which a consumer has the events that the service counted.
    pub converged: usize,
}

impl Score {
    pub fn add(self, other: Self) -> Self {
        Self {
            sessions: self.sessions + other.sessions,
            equal: self.equal + other.equal,
            sources: self.sources + other.sources,
            kept: self.kept + other.kept,
            ends: self.ends + other.ends,
            deliveries: self.deliveries + other.deliveries,
            histories: self.histories + other.histories,
            counted_once: self.counted_once + other.counted_once,
            converged: self.converged + other.converged,
        }
    }
}

/// Runs a history until everything is closed.
pub async fn run(history: &History, config: &SessionConfig) -> Score {
    let (clock, sink) = (ManualClock::default(), Sink::default());
    let mut running = Running {
        manager: SessionManager::with_clock(config.clone(), InMemorySessionStorage::new(), &clock),
        clock: &clock,
        sink: &sink,
        lines: Vec::new(),
        times: HashMap::new(),
        next_close: history.requests.first().map_or(0, |request| request.received_at) / MINUTE * MINUTE,
        closer_down: history.closer_down.clone(),
    };
    for request in &history.requests {
        running.close_until(request.received_at).await;
        running.deliver(&history.events, request).await;
    }
    running.close_until(Millis::MAX).await;
    running.score(history, config)
}

struct Running<'a> {
    manager: SessionManager<InMemorySessionStorage, &'a ManualClock>,
    clock: &'a ManualClock,
    sink: &'a Sink,
    /// Annotated events, as a consumer reads them.
    lines: Vec<String>,
    /// The time of each event in its first delivery.
    times: HashMap<String, Millis>,
    next_close: Millis,
    /// The time in which no closer runs.
    closer_down: std::ops::Range<Millis>,
}

impl Running<'_> {
    async fn deliver(&mut self, events: &[SentEvent], request: &Request) {
        self.clock.set(request.received_at);
        let json: Vec<String> = request.events.iter().map(|&event| events[event].json(request)).collect();
        let delivery = Delivery { received_at: request.received_at, trusts_received_at: true };
        let config = self.manager.config().clone();
        let events: Vec<Event<'_>> =
            json.iter().map(|json| Event::parse(json.as_bytes(), delivery, &config).unwrap()).collect();
        let outcomes = self.manager.resolve(&events, Millis::MAX).await;
        for (event, outcome) in events.iter().zip(outcomes) {
            let Outcome::Placed(Some(assignment)) = outcome else { panic!("{outcome:?}") };
            self.times.entry(event.uuid.to_string()).or_insert(event.at);
            self.lines.push(event.annotate(Some(&assignment)));
        }
    }

    /// Runs the closer once a minute until `time`. Minutes in which nothing is due are skipped.
    async fn close_until(&mut self, time: Millis) {
        loop {
            let mut due = Vec::new();
            for shard in 0..DUE_SHARDS {
                due.extend(self.manager.storage().due(shard, None, Millis::MAX, 10).await.unwrap());
            }
            let Some(due_at) = due.iter().map(|due| due.due_at).min() else { break };
            let minute = (due_at + CLOSE_GRACE_MS + MINUTE - 1) / MINUTE * MINUTE;
            let mut minute = minute.max(self.next_close);
            if self.closer_down.contains(&minute) {
                minute = self.closer_down.end / MINUTE * MINUTE + MINUTE;
            }
            if minute >= time {
                break;
            }
            self.clock.set(minute);
            let report = self.manager.cleanup(&self.sink, Millis::MAX).await;
            assert_eq!(report.failed, 0, "{report:?}");
            self.next_close = minute + MINUTE;
        }
    }

    fn score(&self, history: &History, config: &SessionConfig) -> Score {
        let emitted = self.sink.0.lock().unwrap();
        let lines: Vec<_> =
            self.lines.iter().chain(&*emitted).map(|line| serde_json::from_str(line).unwrap()).collect();
        let consumer = Consumer::read(&lines);
        let found = consumer.sessions();
        let oracle_event = |event| oracle_event(event, &self.times);
        let events: Vec<OracleEvent<'_>> = history.events.iter().map(oracle_event).collect();
        let expected: Vec<FinalSession> = sessions(&events, config).into_iter().map(FinalSession::from).collect();
        let with_source = || expected.iter().filter(|session| session.utm.is_some() || session.referrer.is_some());
        let is_kept = |session: &&FinalSession| {
            let holder = found.iter().find(|other| other.events.contains(&session.events[0]));
            holder.is_some_and(|other| (&other.utm, &other.referrer) == (&session.utm, &session.referrer))
        };
        let is_equal = |session: &&FinalSession| {
            // The reason is not compared: that of a session of late events can follow from fewer events.
            found.iter().any(|other| FinalSession { reason: session.reason.clone(), ..other.clone() } == **session)
        };
        let counted: u64 = found.iter().map(|session| session.event_count).sum();
        let has_all = found.iter().all(|session| session.event_count == session.events.len() as u64);
        Score {
            sessions: expected.len(),
            equal: expected.iter().filter(is_equal).count(),
            sources: with_source().count(),
            kept: with_source().filter(is_kept).count(),
            ends: emitted.iter().filter(|line| line.contains("\"$session_end\"")).count(),
            deliveries: expected.iter().map(|session| deliveries(session, history, config)).sum(),
            histories: 1,
            counted_once: usize::from(counted == events.len() as u64),
            converged: usize::from(has_all),
        }
    }
}

/// Returns in how many deliveries a session's events came. Requests that follow each other within one timeout, which is how long
/// a backdated event holds finalization, are one delivery. The service cannot know of a later delivery when it emits the end.
fn deliveries(session: &FinalSession, history: &History, config: &SessionConfig) -> usize {
    let mut known: HashSet<usize> = HashSet::new();
    let mut brings_new = |request: &&Request| {
        let of_session = |&&event: &&usize| session.events.contains(&history.events[event].uuid);
        request.events.iter().filter(of_session).filter(|&&event| known.insert(event)).count() > 0
    };
    let requests = history.requests.iter().filter(|request| brings_new(request));
    let received: Vec<Millis> = requests.map(|request| request.received_at).collect();
    1 + received.windows(2).filter(|pair| pair[1] - pair[0] > config.timeout.num_milliseconds()).count()
}

fn oracle_event<'e>(event: &'e SentEvent, times: &HashMap<String, Millis>) -> OracleEvent<'e> {
    OracleEvent {
        visitor: "v",
        uuid: &event.uuid,
        at: times[&event.uuid],
        name: event.name,
        url: Some(&event.url),
        referrer: event.referrer,
        utm: [event.utm, None, None, None, None],
    }
}

/// Returns a time in RFC 3339.
pub fn rfc3339_of(at: Millis) -> String {
    rfc3339(datetime(at))
}
