//! The answer's body: what became of each event, in the order in which they came.

use std::ops::Range;

use serde::Serialize;

use super::batch::{Fate, advice};
use super::body::BodyError;
use crate::event::{Event, USUAL_ADDED_BYTES};
use crate::storage::SessionError;
use crate::timeline::Assignment;

/// Bytes of an answer at the most: what Lambda passes on, 6 MB, less 4 KB for the envelope around the body.
pub(super) const MAX_ANSWER_BYTES: usize = 6 * 1024 * 1024 - 4096;
/// The code of an event that is applied, but that the answer has no room for.
const NO_ROOM: &str = "answer_too_large";
const NO_ROOM_MESSAGE: &str =
    "the event is applied, but the answer has no room for it; send it again with fewer others";
/// More bytes than the names and brackets of an answer take.
const FRAME_BYTES: usize = 64;
/// Bytes that one more entry of `failed` takes at the most when it says so.
const NO_ROOM_BYTES: usize = 160;

/// What an answer says as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Events were applied and none failed.
    Done,
    /// Every event was rejected.
    NothingUsable,
    /// Events failed: sending them again helps.
    TryAgain,
    /// Events failed, and sending them again does not help.
    Corrupt,
    /// Events are applied, but the answer has no room for them.
    NoRoom,
}

impl Verdict {
    fn of<T>(fates: &[Fate<T>]) -> Self {
        let failed = || fates.iter().filter_map(|fate| if let Fate::Failed(error) = fate { Some(error) } else { None });
        if failed().next().is_none() {
            let is_usable = |fate: &Fate<T>| matches!(fate, Fate::Applied(_));
            return if fates.iter().any(is_usable) { Self::Done } else { Self::NothingUsable };
        }
        if failed().all(|error| matches!(error, SessionError::Corrupt { .. })) { Self::Corrupt } else { Self::TryAgain }
    }

    /// The code and the sentence that the answer begins with, if it is not good throughout.
    fn error(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Done => None,
            Self::NothingUsable => {
                Some(("nothing_usable", "no event could be used; see `rejected` for what to change in each"))
            }
            Self::TryAgain => Some((
                "try_again",
                "events listed in `failed` may not be applied; it is safe to send the whole request again",
            )),
            Self::Corrupt => {
                Some(("stored_item_corrupt", "what is stored of these visitors cannot be read; see `failed`"))
            }
            Self::NoRoom => {
                Some((NO_ROOM, "every event is applied or listed in `failed`; send those with fewer others"))
            }
        }
    }
}

/// An event that was not applied, or not answered for.
#[derive(Serialize)]
struct Note<'a> {
    index: usize,
    code: &'a str,
    message: &'a str,
}

/// An error as answers say it.
#[derive(Serialize)]
struct Problem<'a> {
    code: &'a str,
    message: &'a str,
}

/// An answer as it grows: its events, each with a comma behind it. Events are written where they stay: they are megabytes.
#[derive(Debug)]
pub(super) struct Events(String);

impl Events {
    const OPEN: &str = "{\"events\":[";

    /// One with room for so many usual events, of so many bytes in all.
    pub fn with_room_for(bytes: usize, events: usize) -> Self {
        let mut text = String::with_capacity(bytes + events * USUAL_ADDED_BYTES + FRAME_BYTES);
        text.push_str(Self::OPEN);
        Self(text)
    }

    /// Puts an event in with its session on it; its place in the text.
    pub fn push(&mut self, event: &Event<'_>, assignment: Option<&Assignment>) -> Range<usize> {
        self.write(|text| event.annotate_into(assignment, text))
    }

    fn write(&mut self, write: impl FnOnce(&mut String)) -> Range<usize> {
        let start = self.0.len();
        write(&mut self.0);
        let end = self.0.len();
        self.0.push(',');
        start..end
    }

    /// Only those at these places, in order.
    fn only<'p>(&self, places: impl Iterator<Item = &'p Range<usize>>) -> Self {
        let mut kept = Self(Self::OPEN.to_owned());
        for place in places {
            kept.write(|text| text.push_str(&self.0[place.clone()]));
        }
        kept
    }

    /// The whole answer.
    fn close(self, error: Option<(&str, &str)>, rejected: &[String], failed: &[String]) -> String {
        let Self(mut body) = self;
        if body.ends_with(',') {
            body.pop();
        }
        body.push_str("],\"rejected\":[");
        body.push_str(&rejected.join(","));
        if !failed.is_empty() {
            body.push_str("],\"failed\":[");
            body.push_str(&failed.join(","));
        }
        body.push_str("]}");
        if let Some((code, message)) = error {
            body.insert_str(1, &format!("\"error\":{},", json(&Problem { code, message })));
        }
        body
    }
}

/// The answer to a body whose events were read. `is_quoted`: it becomes a JSON string in an envelope, which makes it longer.
pub(super) fn report(fates: &[Fate<Range<usize>>], events: Events, is_quoted: bool) -> (Verdict, String) {
    report_within(MAX_ANSWER_BYTES, fates, events, is_quoted)
}

fn report_within(most: usize, fates: &[Fate<Range<usize>>], events: Events, is_quoted: bool) -> (Verdict, String) {
    let mut verdict = Verdict::of(fates);
    let size = |text: &str| if is_quoted { quoted_len(text) } else { text.len() };
    let (mut places, mut rejected, mut failed) = (Vec::with_capacity(fates.len()), Vec::new(), Vec::new());
    for (index, fate) in fates.iter().enumerate() {
        match fate {
            Fate::Applied(place) => places.push((index, place)),
            Fate::Rejected(why) => rejected.push(json(&Note { index, code: why.code.name(), message: &why.message })),
            Fate::Failed(why) => failed.push((index, json(&Note { index, code: why.code(), message: advice(why) }))),
        }
    }
    let notes = rejected.iter().chain(failed.iter().map(|(_, note)| note));
    let taken: usize = notes.map(|note| size(note) + 1).sum();
    // Events fill the room from the first on; as much is kept back as it takes to say that the others have none.
    let mut room = most.saturating_sub(taken + places.len() * NO_ROOM_BYTES);
    let applied = places.len();
    places.retain(|&(index, place)| {
        let needed = (size(&events.0[place.clone()]) + 1).saturating_sub(NO_ROOM_BYTES);
        let fits = needed <= room;
        if fits {
            room -= needed;
        } else {
            failed.push((index, json(&Note { index, code: NO_ROOM, message: NO_ROOM_MESSAGE })));
            // Sending everything again would end here again, whatever else failed.
            verdict = Verdict::NoRoom;
        }
        fits
    });
    failed.sort_by_key(|&(index, _)| index);
    let failed: Vec<String> = failed.into_iter().map(|(_, note)| note).collect();
    let events = match places.len() {
        fitting if fitting < applied => events.only(places.into_iter().map(|(_, place)| place)),
        _ => events,
    };
    (verdict, events.close(verdict.error(), &rejected, &failed))
}

/// The answer to a body whose events were written one by one. None of them failed.
pub(super) fn report_texts(fates: &[Fate<String>]) -> String {
    let mut events = Events::with_room_for(0, 0);
    let mut rejected = Vec::new();
    for (index, fate) in fates.iter().enumerate() {
        match fate {
            Fate::Applied(event) => drop(events.write(|text| text.push_str(event))),
            Fate::Rejected(why) => rejected.push(json(&Note { index, code: why.code.name(), message: &why.message })),
            Fate::Failed(_) => {}
        }
    }
    events.close(Verdict::of(fates).error(), &rejected, &[])
}

/// The answer to a body that could not be read.
pub(super) fn unreadable(error: BodyError) -> String {
    Events::with_room_for(0, 0).close(Some((error.code(), &error.to_string())), &[], &[])
}

/// The answer to a request that asked for anything else.
pub(super) fn error(code: &str, message: &str) -> String {
    format!("{{\"error\":{}}}", json(&Problem { code, message }))
}

/// A value as JSON.
pub(super) fn json(value: &impl Serialize) -> String {
    // Writing structs of texts and numbers to a string cannot fail.
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

/// Bytes of a JSON text once it is a JSON string itself: of control characters it holds white space at the most.
fn quoted_len(text: &str) -> usize {
    text.len() + text.bytes().filter(|byte| matches!(byte, b'"' | b'\\' | b'\n' | b'\r' | b'\t')).count()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::config::SessionConfig;
    use crate::event::{Delivery, Event};

    /// An applied event, by its text: see [`placed`].
    fn applied(text: &str) -> Fate<String> {
        Fate::Applied(text.to_owned())
    }

    /// The same fates as a batch has them, and their events.
    fn placed(fates: Vec<Fate<String>>) -> (Vec<Fate<Range<usize>>>, Events) {
        let mut events = Events::with_room_for(0, fates.len());
        let place = |fate: Fate<String>| match fate {
            Fate::Applied(text) => Fate::Applied(events.write(|out| out.push_str(&text))),
            Fate::Rejected(why) => Fate::Rejected(why),
            Fate::Failed(why) => Fate::Failed(why),
        };
        (fates.into_iter().map(place).collect(), events)
    }

    fn answer(fates: Vec<Fate<String>>) -> (Verdict, String) {
        let (fates, events) = placed(fates);
        report(&fates, events, false)
    }

    fn rejected() -> Fate<String> {
        let delivery = Delivery { received_at: 1_773_144_000_000, trusts_received_at: false };
        Fate::Rejected(Event::parse(b"7", delivery, &SessionConfig::default()).unwrap_err())
    }

    fn storage() -> Fate<String> {
        Fate::Failed(SessionError::Storage("table secret".into()))
    }

    fn corrupt() -> Fate<String> {
        Fate::Failed(SessionError::Corrupt { item: "1f".into(), reason: "secret".into() })
    }

    #[test]
    fn events_stand_as_they_are_in_the_order_in_which_they_came() {
        let (verdict, body) = answer(vec![applied(r#"{"a": 1.50}"#), rejected(), applied(r#"{"b":2}"#)]);
        assert_eq!(verdict, Verdict::Done);
        let wanted = concat!(
            r#"{"events":[{"a": 1.50},{"b":2}],"rejected":[{"index":1,"code":"not_an_object","#,
            r#""message":"the event is not an object; send `{…}`"}]}"#,
        );
        assert_eq!(body, wanted);
    }

    #[test]
    fn verdicts() {
        for (fates, verdict, code) in [
            (vec![rejected(), rejected()], Verdict::NothingUsable, "nothing_usable"),
            (vec![rejected(), storage()], Verdict::TryAgain, "try_again"),
            (vec![applied("{}"), storage(), corrupt()], Verdict::TryAgain, "try_again"),
            (vec![applied("{}"), corrupt()], Verdict::Corrupt, "stored_item_corrupt"),
        ] {
            let (found, body) = answer(fates);
            let body: Value = serde_json::from_str(&body).unwrap();
            assert_eq!((found, &body["error"]["code"]), (verdict, &code.into()));
        }
    }

    #[test]
    fn failed_events_are_named_and_nothing_of_the_store_is_said() {
        let (_, body) = answer(vec![applied("{}"), storage(), corrupt()]);
        assert!(!body.contains("secret"), "{body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["events"].as_array().unwrap().len(), 1);
        let named = |at: usize| (body["failed"][at]["index"].clone(), body["failed"][at]["code"].clone());
        assert_eq!(named(0), (1.into(), "storage_unavailable".into()));
        assert_eq!(named(1), (2.into(), "stored_item_corrupt".into()));
    }

    #[test]
    fn an_answer_never_outgrows_its_room() {
        let text = format!(r#"{{"a":"{}"}}"#, "x".repeat(700));
        for is_quoted in [false, true] {
            for count in 1..40 {
                let mut fates: Vec<Fate<String>> = (0..count).map(|_| applied(&text)).collect();
                fates.insert(0, rejected());
                fates.push(storage());
                let (fates, events) = placed(fates);
                let (verdict, body) = report_within(16_000, &fates, events, is_quoted);
                let length = if is_quoted { json(&body).len() } else { body.len() };
                assert!(length < 16_000 + 4096, "{length}");
                let body: Value = serde_json::from_str(&body).unwrap();
                let of = |name: &str| body[name].as_array().unwrap().len();
                assert_eq!(of("events") + of("failed"), count + 1);
                assert_eq!(verdict == Verdict::NoRoom, of("events") < count);
                assert!(count > 10 || verdict == Verdict::TryAgain, "ten of these have room");
            }
        }
    }
}
