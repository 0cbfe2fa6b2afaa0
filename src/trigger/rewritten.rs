//! Events whose JSON is not the one that came: characters were replaced, or query parameters removed.

use crate::config::Projects;
use crate::dialect::Standing;
use crate::event::{Event, Origin, Rejection, Repaired, Stripped};

/// Repairs an event that was rejected only because of characters that other systems do not accept, such as NUL.
pub(super) fn repair(
    rejection: &Rejection,
    bytes: &[u8],
    origin: Origin<'_>,
    projects: &Projects,
) -> Option<Rewritten> {
    let repaired = if rejection.is_text() { Repaired::of(bytes)? } else { return None };
    let stripped = match repaired.parse(origin, projects) {
        Some(Ok(event)) => Stripped::of(&event, projects),
        _ => None,
    };
    Some(stripped.map_or(Rewritten::Repaired(repaired), Rewritten::Stripped))
}

/// Returns an event from which the recorded events were taken out.
#[cfg(feature = "replay")]
pub(super) fn without_recording(json: String, origin: Origin<'_>, projects: &Projects) -> Rewritten {
    let stripped = match Event::parse(json.as_bytes(), origin, projects) {
        Ok(event) => Stripped::of(&event, projects),
        Err(_) => None,
    };
    stripped.map_or(Rewritten::WithoutRecording(json), Rewritten::Stripped)
}

/// An event whose JSON is not the one that came.
pub(super) enum Rewritten {
    Repaired(Repaired),
    Stripped(Stripped),
    #[cfg(feature = "replay")]
    WithoutRecording(String),
}

impl Rewritten {
    fn parse<'a>(&'a self, origin: Origin<'a>, projects: &Projects) -> Option<Result<Event<'a>, Rejection>> {
        match self {
            Self::Repaired(repaired) => repaired.parse(origin, projects),
            Self::Stripped(stripped) => Some(stripped.parse(origin, projects)),
            #[cfg(feature = "replay")]
            Self::WithoutRecording(json) => Some(Event::parse(json.as_bytes(), origin, projects)),
        }
    }
}

/// Inserts the rewritten events among the others, in their order, and updates the rejections.
pub(super) fn insert_rewritten<'r, 'a: 'r>(
    events: Vec<Event<'a>>,
    rejections: &mut [Option<Rejection>],
    rewritten: &'r [(usize, Origin<'a>, Standing, Rewritten)],
    projects: &Projects,
) -> Vec<Event<'r>> {
    let mut all = Vec::with_capacity(rejections.len());
    let (mut events, mut rewritten) = (events.into_iter(), rewritten.iter().peekable());
    for (at, rejection) in rejections.iter_mut().enumerate() {
        if rejection.is_none() {
            all.extend(events.next());
            continue;
        }
        let Some((_, origin, standing, event)) = rewritten.next_if(|(index, ..)| *index == at) else { continue };
        match event.parse(*origin, projects) {
            Some(Ok(mut event)) => {
                *rejection = None;
                standing.apply(&mut event);
                all.push(event);
            }
            Some(Err(why)) => *rejection = Some(why),
            None => {}
        }
    }
    all
}
