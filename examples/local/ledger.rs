//! What a consumer of the service's output keeps: which session each event belongs to, and each session's last account.
//!
//! It follows `$session_merged` and `$session_split` with one update each, as a warehouse would, and takes the account with
//! the highest version.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use session_tracking::session::{Millis, Session, time_text};

/// The sessions and their events.
#[derive(Default)]
pub struct Ledger {
    /// Each session's events: when, and which.
    events: HashMap<String, Vec<(Millis, String)>>,
    ends: HashMap<String, Session>,
}

/// A line that the service said of its own accord.
#[derive(Deserialize)]
struct Said {
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
#[derive(Serialize)]
pub struct FinalSession {
    pub id: String,
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

impl Ledger {
    /// An event was handed out with a session. One handed out before stays where it is now.
    pub fn add(&mut self, session_id: String, at: Millis, uuid: String) {
        self.events.entry(session_id).or_default().push((at, uuid));
    }

    /// The service said something of its own accord.
    pub fn follow(&mut self, line: &str) -> Result<(), serde_json::Error> {
        let Said { event, properties } = serde_json::from_str(line)?;
        match (event.as_str(), properties) {
            ("$session_end", Properties { session: Some(session), .. }) => {
                let known = self.ends.get(&session.id).map_or(0, |known| known.version);
                if session.version > known {
                    self.ends.insert(session.id.clone(), session);
                }
            }
            ("$session_merged", Properties { from: Some(from), into: Some(into), .. }) => {
                // An end that was said before is no longer one.
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

    /// The final sessions, by visitor, then start.
    pub fn sessions(mut self) -> Vec<FinalSession> {
        // Sessions that begin in the same millisecond stand in the order of their numbers.
        let mut sorted: BTreeMap<(String, String, Millis, u32, String), FinalSession> = BTreeMap::new();
        for (id, session) in self.ends {
            let mut events = self.events.remove(&id).unwrap_or_default();
            events.sort();
            let (project, distinct_id) = (session.project.clone(), session.distinct_id.clone());
            let key = (project, distinct_id, session.started_at.timestamp_millis(), session.number, id.clone());
            let last = FinalSession {
                id,
                duration_seconds: session.duration_seconds(),
                distinct_id: session.distinct_id,
                reason: session.reason,
                started_at: time_text(session.started_at),
                last_activity: time_text(session.last_activity),
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
