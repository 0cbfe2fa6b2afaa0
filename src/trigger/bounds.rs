//! What the events of one request without credentials may bring: so many visitors, each of which costs a write, and so many bytes
//! that are stored.

use std::collections::HashSet;

use foldhash::fast::RandomState;

use crate::config::{ProjectRules, Projects, PublicAccess};
use crate::event::{Event, RejectCode, Rejection};

/// What becomes of events that exceed a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excess {
    /// The whole request is refused, and its sender sends fewer events at once.
    Refused,
    /// Those events are rejected, because their sender would not send the request again, or for ever.
    Rejected,
}

/// The bounds of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub access: PublicAccess,
    pub excess: Excess,
}

impl Bounds {
    /// No bounds.
    pub const NONE: Self = Self { access: PublicAccess::TRUSTED, excess: Excess::Refused };
}

/// The bound that events exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exceeded {
    Visitors,
    State,
}

impl Exceeded {
    fn reject_code(self) -> RejectCode {
        match self {
            Self::Visitors => RejectCode::TooManyVisitors,
            Self::State => RejectCode::TooMuchState,
        }
    }

    /// Returns the code of an answer.
    pub fn code(self) -> &'static str {
        self.reject_code().name()
    }

    /// Returns what the sender has to do.
    pub fn message(self) -> &'static str {
        match self {
            Self::Visitors => {
                "the events have more visitors than a request without credentials may have; send several requests, sign the \
                 request, or use the queue"
            }
            Self::State => {
                "the events bring more than a request without credentials may store; send several requests, sign the request, or \
                 use the queue"
            }
        }
    }
}

/// Returns the bound that the events exceed. What is cheap to ask comes first: visitors are counted only if there are as many
/// events, and bytes only if the events have as many.
pub(super) fn exceeded(events: &[Event<'_>], access: &PublicAccess, projects: &Projects) -> Option<Exceeded> {
    if events.len() > access.max_visitors {
        let visitors: HashSet<(&str, &str), RandomState> =
            events.iter().map(|event| (&*event.project, &*event.distinct_id)).collect();
        if visitors.len() > access.max_visitors {
            return Some(Exceeded::Visitors);
        }
    }
    if access.max_state_bytes == usize::MAX {
        return None;
    }
    let text_bytes: usize = events.iter().map(|event| event.text.len()).sum();
    let has_more = || events.iter().map(|event| state_bytes(event, projects)).sum::<usize>() > access.max_state_bytes;
    (text_bytes > access.max_state_bytes && has_more()).then_some(Exceeded::State)
}

/// Returns the events within the bounds, in order: those of the first visitors, up to the bytes. The others are rejected.
/// `rejections` has an entry for each raw event, which is `None` for the events.
pub(super) fn within<'a>(
    events: Vec<Event<'a>>,
    rejections: &mut [Option<Rejection>],
    access: &PublicAccess,
    projects: &Projects,
) -> Vec<Event<'a>> {
    let mut visitors = HashSet::new();
    let mut bytes = 0;
    let mut kept = Vec::with_capacity(events.len());
    let usable = rejections.iter_mut().filter(|rejection| rejection.is_none());
    for (event, rejection) in events.into_iter().zip(usable) {
        let visitor = event.visitor();
        let is_fresh = !visitors.contains(&visitor);
        let needed = state_bytes(&event, projects);
        let exceeded = match (is_fresh, bytes + needed) {
            (true, _) if visitors.len() == access.max_visitors => Exceeded::Visitors,
            (_, bytes) if bytes > access.max_state_bytes => Exceeded::State,
            _ => {
                bytes += needed;
                visitors.insert(visitor);
                kept.push(event);
                continue;
            }
        };
        *rejection = Some(Rejection::new(exceeded.reject_code(), exceeded.message()));
    }
    kept
}

/// Returns how many bytes of an event are stored, at most.
fn state_bytes(event: &Event<'_>, projects: &Projects) -> usize {
    event.arrival(projects.rules_of(&event.project)).map_or(0, |arrival| arrival.entry.state_bytes())
}
