//! What a consumer of the service's output keeps: which session each event of a visitor belongs to, and each session's last
//! version.
//!
//! It follows `$session_merged` and `$session_split` with one update each, as a warehouse would, and takes the version that
//! is the highest. Notes of all visitors gather in a [`Spool`]; at the end each visitor's are folded on their own.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use session_tracking::output::Output;
use session_tracking::session::{Millis, Session, rfc3339};

use super::spool::{Groups, Spool};
use crate::failure::{Failure, reason};

/// What is noted of a visitor.
#[derive(Serialize, Deserialize)]
enum Note {
    /// An event was handed out with a session.
    Placed { session_id: String, at: Millis, uuid: String },
    /// A line that the service emitted.
    Emitted(String),
}

/// The notes of all visitors. It takes what the closer emits as it is emitted: at the end of an input that is a line for
/// each live visitor, too many to gather.
#[derive(Default)]
pub struct Ledgers(Mutex<Notes>);

#[derive(Default)]
struct Notes {
    spool: Spool,
    /// Lines that were emitted.
    emitted: usize,
    /// Why one could not be noted.
    failure: Option<Failure>,
}

/// One visitor's sessions and their events.
#[derive(Default)]
struct Ledger {
    /// Each session's events: when, and which.
    events: HashMap<String, Vec<(Millis, String)>>,
    ends: HashMap<String, Session>,
    /// The events that were handed out before.
    known: HashSet<String>,
}

/// Whose line it is.
#[derive(Deserialize)]
struct Owner {
    distinct_id: String,
    #[serde(default)]
    project: String,
}

/// A line that the service emitted.
#[derive(Deserialize)]
struct Emitted {
    event: String,
    properties: Properties,
}

#[derive(Deserialize)]
struct Properties {
    #[serde(rename = "$session")]
    session: Option<Session>,
    from: Option<String>,
    into: Option<String>,
    at: Option<chrono::DateTime<chrono::Utc>>,
    from_event: Option<String>,
}

/// A final session, as `--sessions` writes it.
#[derive(Clone, Serialize)]
pub struct FinalSession {
    pub id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub project: String,
    pub distinct_id: String,
    pub reason: session_tracking::session::Reason,
    pub started_at: String,
    pub last_activity: String,
    pub duration_seconds: i64,
    pub event_count: u32,
    pub page_views: u32,
    pub entry_url: Option<String>,
    pub landing_page: Option<String>,
    pub exit_page: Option<String>,
    pub referrer: Option<String>,
    pub utm: Option<Value>,
    pub events: Vec<String>,
}

impl Ledgers {
    /// Notes that an event was handed out with a session.
    pub fn placed(
        &self,
        (project, distinct_id): (&str, &str),
        session_id: String,
        at: Millis,
        uuid: String,
    ) -> Result<(), Failure> {
        self.notes().note(project, distinct_id, &Note::Placed { session_id, at, uuid })
    }

    /// Returns how many lines were emitted since it was asked last, all of them noted.
    pub fn take_emitted(&self) -> Result<usize, Failure> {
        let mut notes = self.notes();
        match notes.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(std::mem::take(&mut notes.emitted)),
        }
    }

    /// Returns the visitors with their final sessions, in their order.
    pub fn into_visitors(self) -> Result<Visitors, Failure> {
        let notes = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(Visitors(notes.spool.into_groups().map_err(|error| unspooled(&error))?))
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        // A panic ends the process, half a note or not.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Output for Ledgers {
    async fn send(&self, lines: &[String]) -> Vec<usize> {
        let mut notes = self.notes();
        match lines.iter().try_for_each(|line| notes.emitted(line)) {
            Ok(()) => Vec::new(),
            Err(failure) => {
                notes.failure = Some(failure);
                (0..lines.len()).collect()
            }
        }
    }
}

impl Notes {
    /// Notes a line that the service emitted.
    fn emitted(&mut self, line: &str) -> Result<(), Failure> {
        let owner: Owner = serde_json::from_str(line).map_err(|error| unreadable(&error))?;
        self.emitted += 1;
        self.note(&owner.project, &owner.distinct_id, &Note::Emitted(line.to_owned()))
    }

    fn note(&mut self, project: &str, distinct_id: &str, note: &Note) -> Result<(), Failure> {
        // Neither holds a NUL, so the keys' order is that of the visitors.
        let key = format!("{project}\0{distinct_id}");
        let note = postcard::to_stdvec(note).map_err(|error| unreadable(&error))?;
        self.spool.push(&key, &note).map_err(|error| unspooled(&error))
    }
}

/// Visitors with their final sessions.
pub struct Visitors(Groups);

/// A visitor's final sessions, by start.
pub struct VisitorSessions {
    /// Whether an event of the visitor was handed out with a session.
    pub has_events: bool,
    pub sessions: Vec<FinalSession>,
}

impl Visitors {
    /// Returns the next visitor.
    pub fn next_visitor(&mut self) -> Result<Option<VisitorSessions>, Failure> {
        let Some(notes) = self.0.next_group().map_err(|error| unspooled(&error))? else { return Ok(None) };
        let mut ledger = Ledger::default();
        for note in notes {
            match postcard::from_bytes(&note).map_err(|error| unreadable(&error))? {
                Note::Placed { session_id, at, uuid } => ledger.add(session_id, at, uuid),
                Note::Emitted(line) => ledger.follow(&line).map_err(|error| unreadable(&error))?,
            }
        }
        let has_events = !ledger.known.is_empty();
        Ok(Some(VisitorSessions { has_events, sessions: ledger.sessions() }))
    }
}

fn unspooled(error: &std::io::Error) -> Failure {
    let folder = std::env::temp_dir();
    let why = reason(error);
    Failure::work(format!(
        "a temporary file in `{}` cannot be used: {why}; set TMPDIR to another folder",
        folder.display()
    ))
}

fn unreadable(error: &impl std::fmt::Display) -> Failure {
    Failure::work(format!("a line that the service emitted cannot be read: {error}"))
}

impl Ledger {
    /// An event was handed out with a session. One handed out before stays where it is now: what its session became since,
    /// the lines say.
    fn add(&mut self, session_id: String, at: Millis, uuid: String) {
        if self.known.insert(uuid.clone()) {
            self.events.entry(session_id).or_default().push((at, uuid));
        }
    }

    /// The service emitted a line.
    fn follow(&mut self, line: &str) -> Result<(), serde_json::Error> {
        let Emitted { event, properties } = serde_json::from_str(line)?;
        match (event.as_str(), properties) {
            ("$session_end", Properties { session: Some(session), .. }) => {
                let known = self.ends.get(&session.id).map_or(0, |known| known.version);
                if session.version > known {
                    self.ends.insert(session.id.clone(), session);
                }
            }
            ("$session_merged", Properties { from: Some(from), into: Some(into), .. }) => {
                // An end that was emitted before is no longer one.
                self.ends.remove(&from);
                let moved = self.events.remove(&from).unwrap_or_default();
                self.events.entry(into).or_default().extend(moved);
            }
            (
                "$session_split",
                Properties { from: Some(from), into: Some(into), at: Some(at), from_event: Some(first), .. },
            ) => {
                let border = (at.timestamp_millis(), first);
                let (moved, stay) =
                    self.events.remove(&from).unwrap_or_default().into_iter().partition(|event| *event >= border);
                self.events.insert(from, stay);
                self.events.entry(into).or_default().extend::<Vec<_>>(moved);
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns the final sessions, by start.
    fn sessions(mut self) -> Vec<FinalSession> {
        // Sessions that begin in the same millisecond stand in the order of their numbers.
        let mut sorted: BTreeMap<(Millis, u32, String), FinalSession> = BTreeMap::new();
        for (id, session) in self.ends {
            let mut events = self.events.remove(&id).unwrap_or_default();
            events.sort();
            let key = (session.started_at.timestamp_millis(), session.number, id.clone());
            let last = FinalSession {
                id,
                duration_seconds: session.duration_seconds(),
                project: session.project,
                distinct_id: session.distinct_id,
                reason: session.reason,
                started_at: rfc3339(session.started_at),
                last_activity: rfc3339(session.last_activity),
                event_count: session.event_count,
                page_views: session.page_views,
                entry_url: session.entry_url,
                landing_page: session.landing_page,
                exit_page: session.exit_page,
                referrer: session.referrer,
                utm: session.utm.and_then(|utm| serde_json::to_value(utm).ok()),
                events: events.into_iter().map(|(_, uuid)| uuid).collect(),
            };
            sorted.insert(key, last);
        }
        sorted.into_values().collect()
    }
}
