//! A consumer of the output: it keeps each event's session, as annotated and then changed by corrections, and the versions of each
//! session.

use std::hash::{Hash, Hasher};

use session_tracking::config::SessionConfig;
use session_tracking::model::SessionState;
use session_tracking::session::{Reason, Session};
use session_tracking::timeline::Correction;
use uuid::Uuid;

use super::world::{MAX_EVENTS, World, uuid_of};

/// The result of a check; the error is a sentence that states what is wrong.
pub type CheckResult = Result<(), String>;

/// Returns the sentence as an error unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($sentence:tt)*) => {
        if !$condition {
            return Err(format!($($sentence)*));
        }
    };
}
pub(super) use ensure;

/// A consumer of annotated events and corrections.
#[derive(Debug, Clone, Default)]
pub struct Consumer {
    /// Each event's session, and the version of the line that named it.
    session_of: [Option<(Uuid, u64)>; MAX_EVENTS],
    /// Every session id that was ever given out, with the set of the events that it was given out for.
    pub given_out: Vec<(Uuid, usize)>,
    newest_correction: u64,
}

/// All versions of sessions that were ever seen.
#[derive(Debug, Clone, Default)]
pub struct SessionVersions(Vec<SessionVersion>, Vec<(Uuid, u64, Reason)>);

/// A version of a session, with a hash of its content.
#[derive(Debug, Clone, Copy)]
struct SessionVersion {
    id: Uuid,
    version: u64,
    content: u64,
}

impl Consumer {
    /// Records the session of an event.
    pub fn record(&mut self, event: usize, id: Uuid, version: u64) {
        self.session_of[event] = Some((id, version));
        match self.given_out.iter_mut().find(|(known, _)| *known == id) {
            Some((_, events)) => *events |= 1 << event,
            None => self.given_out.push((id, 1 << event)),
        }
    }

    /// Applies corrections, in the order of their versions. An event with a higher version than the correction stays in its
    /// session.
    pub fn apply_corrections(&mut self, corrections: &[Correction], world: &World) -> CheckResult {
        for correction in corrections {
            let (from, into, first, version) = match correction {
                Correction::Merged { from, into, version } => (*from, *into, None, *version),
                Correction::Split { from, into, at, uuid, version } => (*from, *into, Some((*at, &**uuid)), *version),
            };
            ensure!(
                version > self.newest_correction,
                "a correction of version {version} after one of {}",
                self.newest_correction
            );
            self.newest_correction = version;
            for event in 0..world.len() {
                let is_moved = first.is_none_or(|first| (world.at(event), uuid_of(event)) >= first);
                let is_older = |(id, known): (Uuid, u64)| id == from && known < version;
                if self.session_of[event].is_some_and(is_older) && is_moved {
                    self.record(event, into, version);
                }
            }
        }
        Ok(())
    }

    /// Returns the set of the events of a session.
    pub fn events_of(&self, id: Uuid) -> usize {
        (0..MAX_EVENTS)
            .filter(|&event| self.session_of[event].is_some_and(|(known, _)| known == id))
            .map(|event| 1 << event)
            .sum()
    }
}

impl SessionVersions {
    /// Records a version of a session. Versions must not go back, and one version must have one content.
    pub fn record(&mut self, session: &Session) -> CheckResult {
        let (id, version, content) = (id_of(session), session.version, content(session));
        for known in self.0.iter().filter(|known| known.id == id) {
            ensure!(known.version <= version, "{id} went back from version {} to {version}", known.version);
            ensure!(known.version != version || known.content == content, "{id} has two contents of version {version}");
        }
        if !self.0.iter().any(|known| known.id == id && known.version == version) {
            self.0.push(SessionVersion { id, version, content });
        }
        Ok(())
    }

    /// Records why a session ended. A version has one reason.
    pub fn record_end(&mut self, state: &SessionState, rules: &SessionConfig) -> CheckResult {
        let end = (state.id, state.version, state.end_reason(rules));
        let is_known = self.1.iter().find(|known| (known.0, known.1) == (end.0, end.1));
        ensure!(is_known.is_none_or(|known| *known == end), "a version ended for two reasons: {is_known:?}, {end:?}");
        self.1.push(end);
        Ok(())
    }
}

pub fn id_of(session: &Session) -> Uuid {
    session.id.parse().unwrap()
}

/// Returns a hash of all fields of a session that do not depend on the time of the query.
pub fn content(session: &Session) -> u64 {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    (session.reason, session.number, &session.previous_session_id).hash(&mut hasher);
    (session.started_at, session.last_activity, session.event_count, session.page_views).hash(&mut hasher);
    (&session.entry_url, &session.landing_page, &session.exit_page).hash(&mut hasher);
    (&session.referrer, &session.utm).hash(&mut hasher);
    session.user_id.hash(&mut hasher);
    session.device.as_ref().map(|device| &device.device_type).hash(&mut hasher);
    for (key, value) in &session.properties {
        (key, value.get()).hash(&mut hasher);
    }
    hasher.finish()
}

/// FNV-1a: fast on short strings, also in unoptimized builds.
struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
