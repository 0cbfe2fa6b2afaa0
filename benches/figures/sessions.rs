//! Finds the sessions of a file of events with the pure path, in batches of 100, and annotates each event. The programs in
//! `benches/peers` do the same in SQL.

use std::collections::HashMap;
use std::fs::File;
use std::hint::black_box;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::sync::Mutex;

use foldhash::fast::RandomState;
use futures_util::FutureExt;
use memchr::memchr_iter;
use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event, USUAL_ADDED_BYTES};
use session_tracking::manager::{Outcome, SessionManager};
use session_tracking::model::{FingerprintPage, SessionState};
use session_tracking::session::{Millis, Visitor};
use session_tracking::storage::{
    Commit, CommitOutcome, Due, Erased, InMemorySessionStorage, Partition, Reading, SessionError, SessionStorage,
    Stored,
};
use session_tracking::timeline::Timeline;

use crate::AnyError;
use crate::cpu::StoppedClock;

/// Events in a batch.
const BATCH_EVENTS: usize = 100;

/// A store that keeps timelines without encoding them, because storing is not part of the comparison.
#[derive(Default)]
struct UnencodedStore {
    timelines: Mutex<HashMap<Visitor, Timeline, RandomState>>,
    /// Ended sessions, taken out of their timelines like the close function does.
    ended: Mutex<Vec<(Visitor, SessionState)>>,
    /// An empty store for the other calls.
    empty: InMemorySessionStorage,
}

impl SessionStorage for &UnencodedStore {
    async fn load(&self, visitors: &[Visitor], _reading: Reading) -> Vec<Result<Option<Stored>, SessionError>> {
        let Ok(mut timelines) = self.timelines.lock() else { return Vec::new() };
        let stored = |visitor| Ok(timelines.remove(visitor).map(|timeline| Stored { timeline, etag: 1 }));
        visitors.iter().map(stored).collect()
    }

    async fn commit(&self, commit: Commit<'_>) -> Result<CommitOutcome, SessionError> {
        if let Ok(mut timelines) = self.timelines.lock() {
            let mut timeline = commit.timeline.clone();
            let newly_ended = std::mem::take(&mut timeline.ended).into_iter();
            if let Ok(mut ended) = self.ended.lock() {
                ended.extend(newly_ended.map(|state| (timeline.visitor.clone(), state)));
            }
            timelines.insert(timeline.visitor.clone(), timeline);
        }
        Ok(CommitOutcome::Done)
    }

    async fn due(&self, shard: u8, after: Option<&Due>, now: Millis, limit: usize) -> Result<Vec<Due>, SessionError> {
        self.empty.due(shard, after, now, limit).await
    }

    async fn archive(&self, visitor: &Visitor, session: &SessionState, expires_at: Millis) -> Result<(), SessionError> {
        self.empty.archive(visitor, session, expires_at).await
    }

    async fn archived(&self, visitor: &Visitor, from: Millis, to: Millis) -> Result<Vec<SessionState>, SessionError> {
        self.empty.archived(visitor, from, to).await
    }

    async fn put_pages(
        &self,
        visitor: &Visitor,
        pages: &[FingerprintPage],
        expires_at: Option<Millis>,
    ) -> Result<(), SessionError> {
        self.empty.put_pages(visitor, pages, expires_at).await
    }

    async fn pages(&self, visitor: &Visitor, session_id: uuid::Uuid) -> Result<Vec<FingerprintPage>, SessionError> {
        self.empty.pages(visitor, session_id).await
    }

    async fn find(&self, session_id: uuid::Uuid) -> Result<Partition, SessionError> {
        self.empty.find(session_id).await
    }

    async fn erase(&self, visitor: &Visitor) -> Result<Erased, SessionError> {
        self.empty.erase(visitor).await
    }
}

/// Prints the sessions of a file as CSV: visitor, start and end in milliseconds, events, page views, entry URL. `rules` is the
/// JSON of the rules that differ from the defaults.
pub fn print(rules: &str, file: &str) -> Result<(), AnyError> {
    let config = SessionConfig::from_rules(serde_json::from_str(rules)?)?;
    let store = UnencodedStore::default();
    let mut input = BufReader::with_capacity(1 << 20, File::open(file)?);
    let mut batch = Vec::new();
    while read(&mut input, &mut batch)? {
        apply(&batch, &store, &config)?;
    }
    let mut out = BufWriter::new(std::io::stdout().lock());
    let timelines = store.timelines.lock().map_err(|_| "poisoned")?;
    let ended = store.ended.lock().map_err(|_| "poisoned")?;
    let live = timelines.values().flat_map(|timeline| timeline.sessions(Millis::MAX / 2, &config));
    let ended = ended.iter().map(|(visitor, state)| state.ended_session(visitor));
    for session in ended.chain(live) {
        let (start, end) = (session.started_at.timestamp_millis(), session.last_activity.timestamp_millis());
        let (events, views) = (session.event_count, session.page_views);
        let url = session.entry_url.unwrap_or_default();
        writeln!(out, "{},{start},{end},{events},{views},{url}", session.distinct_id)?;
    }
    Ok(out.flush()?)
}

/// Reads a batch of lines; returns whether there were any.
fn read(input: &mut BufReader<File>, batch: &mut Vec<u8>) -> Result<bool, AnyError> {
    batch.clear();
    let mut missing = BATCH_EVENTS;
    while missing > 0 {
        let chunk = input.fill_buf()?;
        if chunk.is_empty() {
            break;
        }
        let (mut ends, mut taken) = (memchr_iter(b'\n', chunk), chunk.len());
        while missing > 0 {
            let Some(end) = ends.next() else { break };
            missing -= 1;
            taken = if missing == 0 { end + 1 } else { taken };
        }
        batch.extend_from_slice(&chunk[..taken]);
        input.consume(taken);
    }
    Ok(!batch.is_empty())
}

/// Decodes, groups, applies and annotates a batch. An ended session is finalized at the visitor's next event; nothing is closed.
fn apply(batch: &[u8], store: &UnencodedStore, config: &SessionConfig) -> Result<(), AnyError> {
    // The file is in event-time order, so an event's own time is its time of receipt.
    let delivery = Delivery { received_at: Millis::MAX / 2, trusts_received_at: true };
    let mut events: Vec<Event<'_>> = Vec::with_capacity(BATCH_EVENTS);
    let mut from = 0;
    for end in memchr_iter(b'\n', batch) {
        events.push(Event::parse(&batch[from..end], delivery, config)?);
        from = end + 1;
    }
    let newest = events.iter().map(|event| event.at).max().unwrap_or_default();
    events.iter_mut().for_each(|event| event.received_at = newest);
    let clock = StoppedClock(newest);
    let manager = SessionManager::with_clock(config.clone(), store, &clock);
    let outcomes = manager.resolve(&events, Millis::MAX).now_or_never().ok_or("the store waits")?;
    let mut answer = String::with_capacity(batch.len() + BATCH_EVENTS * USUAL_ADDED_BYTES);
    for (event, outcome) in events.iter().zip(&outcomes) {
        let Outcome::Placed(Some(assignment)) = outcome else { return Err("an event failed".into()) };
        event.annotate_into(Some(assignment), &mut answer);
    }
    black_box(answer);
    Ok(())
}
