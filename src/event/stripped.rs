//! Removal of query parameters that look like credentials (`strip_query_params`), before an event is stored or emitted.
//!
//! The event's JSON is written anew without them and read again, so that the session and the annotated event never had them. This is
//! a slow path: it only runs for events that have such a parameter.

use super::fields::Fields;
use super::raw::range_in;
use super::{Event, Origin, RejectCode, Rejection, Role};
use crate::config::ProjectRules;

/// An event's JSON without the parameters.
#[derive(Debug)]
pub struct Stripped {
    json: String,
    /// The id that was derived from the event as it came, so that two events which differ only in a parameter stay two.
    derived_id: Option<String>,
    is_repaired: bool,
}

impl Stripped {
    /// Removes the parameters from the event's properties. Returns `None` if there are none.
    pub fn of(event: &Event<'_>, rules: &impl ProjectRules) -> Option<Self> {
        let params = &rules.rules_of(&event.project).strip_query_params;
        let properties = event.fields.properties?;
        let stripped = params.strip(properties)?;
        // The service's own events have no such parameters any more, and pass through unchanged.
        if event.role == Role::Lifecycle {
            return None;
        }
        let range = range_in(event.text, properties);
        let json = [&event.text[..range.start], &stripped, &event.text[range.end..]].concat();
        let derived_id = event.writes_uuid.then(|| event.uuid.clone().into_owned());
        Some(Self { json, derived_id, is_repaired: event.is_repaired })
    }

    /// Returns why the event is rejected if it cannot be parsed any more.
    pub fn rejection() -> Rejection {
        let message =
            "the event cannot be read without its query parameters that look like credentials; leave them out";
        Rejection::new(RejectCode::InvalidJson, message)
    }

    /// Parses the event.
    ///
    /// # Errors
    /// Returns why the event cannot be used.
    pub fn parse<'a, 'o>(
        &'a self,
        origin: impl Into<Origin<'o>>,
        rules: &impl ProjectRules,
    ) -> Result<Event<'a>, Rejection> {
        // It is shorter than the event that it was made of.
        let fields = Fields::parse(self.json.as_bytes(), self.json.len()).map_err(|_| Self::rejection())?;
        let event = Event::read(fields, origin, rules)?;
        let uuid = self.derived_id.as_deref().map_or(event.uuid, Into::into);
        Ok(Event { uuid, is_repaired: self.is_repaired, ..event })
    }
}
