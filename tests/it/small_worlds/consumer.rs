//! What a consumer of the output notes: each event's session, as it was said and then corrected by corrections, and the accounts of
//! sessions.

use std::hash::{Hash, Hasher};

use session_tracking::session::Session;
use session_tracking::timeline::Correction;
use uuid::Uuid;

use super::world::{MOST, World, uuid_of};

/// Whether something holds; the sentence says what does not.
pub type Verdict = Result<(), String>;

/// Fails with a sentence unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($sentence:tt)*) => {
        if !$condition {
            return Err(format!($($sentence)*));
        }
    };
}
pub(super) use ensure;

/// What a consumer of annotated events and corrections notes.
#[derive(Debug, Clone, Default)]
pub struct Consumer {
    /// Each event's session, and the version that said so.
    session_of: [Option<(Uuid, u64)>; MOST],
    /// Every id that was ever said, and the set of the events that it was said of.
    pub emitted: Vec<(Uuid, usize)>,
    newest_correction: u64,
}

/// All that was ever said of sessions.
#[derive(Debug, Clone, Default)]
pub struct Accounts(Vec<Account>);

/// What was once said of a session: its content, as a hash, under a version.
#[derive(Debug, Clone, Copy)]
struct Account {
    id: Uuid,
    version: u64,
    content: u64,
}

impl Consumer {
    /// Takes note of the session that an event is said to belong to.
    pub fn note(&mut self, event: usize, id: Uuid, version: u64) {
        self.session_of[event] = Some((id, version));
        match self.emitted.iter_mut().find(|(emitted, _)| *emitted == id) {
            Some((_, events)) => *events |= 1 << event,
            None => self.emitted.push((id, 1 << event)),
        }
    }

    /// Follows corrections, in the order of their versions; what an event was said to be with a higher version stays.
    pub fn hear(&mut self, corrections: &[Correction], world: &World) -> Verdict {
        for correction in corrections {
            let (from, into, first, version) = match correction {
                Correction::Merged { from, into, version } => (*from, *into, None, *version),
                Correction::Split { from, into, at, uuid, version } => (*from, *into, Some((*at, &**uuid)), *version),
            };
            ensure!(
                version > self.newest_correction,
                "a notice of version {version} after one of {}",
                self.newest_correction
            );
            self.newest_correction = version;
            for event in 0..world.len() {
                let is_meant = first.is_none_or(|first| (world.at(event), uuid_of(event)) >= first);
                let is_older = |(id, known): (Uuid, u64)| id == from && known < version;
                if self.session_of[event].is_some_and(is_older) && is_meant {
                    self.note(event, into, version);
                }
            }
        }
        Ok(())
    }

    /// The set of the events of a session.
    pub fn events_of(&self, id: Uuid) -> usize {
        (0..MOST)
            .filter(|&event| self.session_of[event].is_some_and(|(known, _)| known == id))
            .map(|event| 1 << event)
            .sum()
    }
}

impl Accounts {
    /// Of two accounts of a session the one with the higher version is the later one, and the same version says the same.
    pub fn take(&mut self, session: &Session) -> Verdict {
        let (id, version, content) = (id_of(session), session.version, content(session));
        for known in self.0.iter().filter(|known| known.id == id) {
            ensure!(known.version <= version, "{id} went back from version {} to {version}", known.version);
            ensure!(known.version != version || known.content == content, "{id} has two contents of version {version}");
        }
        if !self.0.iter().any(|known| known.id == id && known.version == version) {
            self.0.push(Account { id, version, content });
        }
        Ok(())
    }
}

pub fn id_of(session: &Session) -> Uuid {
    session.id.parse().unwrap()
}

/// What a version of a session stands for: all of it but what depends on the time of asking.
pub fn content(session: &Session) -> u64 {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    (session.reason, session.number, &session.previous_session_id).hash(&mut hasher);
    (session.started_at, session.last_activity, session.event_count, session.page_views).hash(&mut hasher);
    (&session.entry_url, &session.landing_page, &session.exit_page).hash(&mut hasher);
    (&session.referrer, &session.utm).hash(&mut hasher);
    session.device.as_ref().map(|device| &device.device_type).hash(&mut hasher);
    for (key, value) in &session.properties {
        (key, value.get()).hash(&mut hasher);
    }
    hasher.finish()
}

/// FNV-1a: quick on short texts, without optimisation too.
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
