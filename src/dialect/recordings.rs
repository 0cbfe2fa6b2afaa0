//! Recorded events of session replay in the requests of PostHog's clients. They are taken out before a request is translated, because
//! they are larger than a client's event may be, and joined to the translated events again.

use serde_json::value::RawValue;

use super::json::{array, object};
use super::{ClientEvent, Endpoint, Family, Standing, Translation};
use crate::event::Rejection;
use crate::replay::Inputs;
use crate::replay::recording::{Budget, Recording, edit, take_out};

/// What the events of a request brought, in their order: `None` for events that carry no recording.
#[derive(Debug, Default)]
pub struct Recordings(Vec<Option<Result<Option<Recording>, Rejection>>>);

impl Recordings {
    /// Takes the recordings out of a decoded body. Returns the body without them; `None` if there are none.
    pub fn take_out(endpoint: Endpoint, text: &str, inputs: Inputs) -> Option<(String, Self)> {
        if !matches!(endpoint.family(), Family::PostHog | Family::PostHogV1) {
            return None;
        }
        let events = events(text)?;
        let mut budget = Budget::default();
        let (mut edits, mut found) = (Vec::new(), Vec::with_capacity(events.len()));
        for event in events {
            let taken_out = take_out(event.get(), &mut budget, inputs);
            found.push(taken_out.map(|taken_out| {
                edits.push((event.get(), taken_out.json));
                taken_out.recording
            }));
        }
        if edits.is_empty() {
            return None;
        }
        let mut rest = String::new();
        edit(text, 0, edits, &mut rest);
        Some((rest, Self(found)))
    }

    /// Joins the recordings to the events of the translated body.
    pub fn join(self, translation: &mut Translation<'_>) {
        for (item, recording) in translation.items.iter_mut().zip(self.0) {
            match recording {
                None => {}
                Some(Ok(recording)) => {
                    if let Ok(event) = &mut item.event {
                        join(event, recording);
                    }
                }
                Some(Err(why)) => item.event = Err(why),
            }
        }
    }
}

fn join(event: &mut ClientEvent, recording: Option<Recording>) {
    if event.standing == Standing::Activity {
        event.standing = Standing::Recorded;
    }
    event.recording = recording;
}

/// Returns the events of a body: those of its member `batch`, those of an array, or the body itself.
fn events(text: &str) -> Option<Vec<&RawValue>> {
    match object(text) {
        Some(envelope) => match envelope.get("batch") {
            Some(batch) => array(batch.get()),
            None => Some(vec![serde_json::from_str(text).ok()?]),
        },
        None => array(text),
    }
}
