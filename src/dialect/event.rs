//! A client's event in our own format.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::json::{Object, Pairs, object, quoted};
use crate::config::ProjectRules;
use crate::event::{Event, Fields, Origin, RejectCode, Rejection, Role};
#[cfg(feature = "replay")]
use crate::model::Kind;

/// Limit of the bytes of a client's event: 200 KB. The line of an event has to fit into a queue's message of 256 KB.
pub const MAX_CLIENT_EVENT_BYTES: usize = 200 * 1024;
/// The property with the client's own fields that are neither properties nor mapped to a field of ours.
const CLIENT_FIELDS: &str = "$client_event";

/// How an event of a client counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standing {
    /// By its name, like any event.
    #[default]
    Activity,
    /// It describes a person and is no act, so it is annotated, and never begins, extends or counts in a session.
    Passive,
    /// Its visitor was made up by the client, so it gets no session.
    Nobody,
    /// It brought recorded events of session replay. It is passive, unless the rules name it among the events that keep a session
    /// alive.
    #[cfg(feature = "replay")]
    Recorded,
}

impl Standing {
    /// Sets how an event counts.
    pub fn apply(self, event: &mut Event<'_>) {
        match (self, event.role) {
            (Self::Passive, Role::Activity(_)) => event.role = Role::Passive,
            (Self::Nobody, Role::Activity(_) | Role::Passive) => event.role = Role::Nobody,
            #[cfg(feature = "replay")]
            (Self::Recorded, Role::Activity(Kind::Event)) => event.role = Role::Passive,
            _ => {}
        }
    }
}

/// A client's event, translated.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientEvent {
    /// The event in our own format. It may be larger than an event that comes in this format.
    pub json: String,
    /// How it counts.
    pub standing: Standing,
    /// The recorded events of session replay that it brought.
    #[cfg(feature = "replay")]
    pub recording: Option<crate::replay::recording::Recording>,
}

impl ClientEvent {
    /// Parses the event.
    ///
    /// # Errors
    /// Why the event cannot be used.
    pub fn parse<'a>(&'a self, origin: Origin<'a>, rules: &impl ProjectRules) -> Result<Event<'a>, Rejection> {
        let fields = Fields::parse(self.json.as_bytes(), MAX_CLIENT_EVENT_BYTES)?;
        let mut event = Event::read(fields, origin, rules)?;
        self.standing.apply(&mut event);
        Ok(event)
    }
}

/// Builds a client's event.
#[derive(Debug, Default)]
pub(super) struct Builder<'t> {
    /// The event's name.
    pub name: Option<Cow<'t, str>>,
    /// The visitor: the device if the client names one, else the user.
    pub visitor: Option<Cow<'t, str>>,
    /// The user, once the client knows one.
    pub user: Option<Cow<'t, str>>,
    /// The event's id.
    pub id: Option<Cow<'t, str>>,
    /// When it happened, as JSON.
    pub timestamp: Option<Cow<'t, str>>,
    /// When it was sent, as JSON.
    pub sent_at: Option<Cow<'t, str>>,
    /// How it counts.
    pub standing: Standing,
    /// The properties, as JSON. Our own names replace those of the client.
    pub properties: BTreeMap<Cow<'t, str>, Cow<'t, str>>,
}

impl<'t> Builder<'t> {
    /// Sets the properties that are not set yet.
    pub fn add_all(&mut self, properties: Object<'t>) {
        for (name, value) in properties {
            self.properties.entry(Cow::Owned(name)).or_insert(Cow::Borrowed(value.get()));
        }
    }

    /// Sets the properties that are not set yet, from an object that was decoded out of the event.
    pub fn add_decoded(&mut self, json: &str) {
        for (name, value) in object(json).unwrap_or_default() {
            self.properties.entry(Cow::Owned(name)).or_insert_with(|| Cow::Owned(value.get().to_owned()));
        }
    }

    /// Sets a property to JSON. It replaces the one of this name.
    pub fn set(&mut self, name: &'static str, json: impl Into<Cow<'t, str>>) {
        self.properties.insert(Cow::Borrowed(name), json.into());
    }

    /// Sets a property to a string, if there is one.
    pub fn set_string(&mut self, name: &'static str, value: Option<Cow<'t, str>>) {
        if let Some(value) = value {
            self.set(name, quoted(&value));
        }
    }

    /// Sets a property to a value of the client, if there is one.
    pub fn set_raw(&mut self, name: &'static str, value: Option<&'t RawValue>) {
        if let Some(value) = value {
            self.set(name, value.get());
        }
    }

    /// Sets the size of the screen, which is written as `800x600`.
    pub fn set_screen(&mut self, resolution: Option<&str>) {
        let is_number =
            |side: &str| !side.is_empty() && side.len() < 7 && side.bytes().all(|byte| byte.is_ascii_digit());
        let sides = resolution.and_then(|resolution| resolution.split_once('x'));
        if let Some((width, height)) = sides.filter(|(width, height)| is_number(width) && is_number(height)) {
            self.set("$screen_width", quoted(width));
            self.set("$screen_height", quoted(height));
        }
    }

    /// Returns whether a property is set to more than nothing.
    pub fn has(&self, name: &str) -> bool {
        self.properties.get(name).is_some_and(|json| !matches!(&**json, "null" | "\"\""))
    }

    /// Keeps the fields of the client that nothing else holds.
    pub fn keep(&mut self, fields: &Object<'t>) {
        let members: Vec<_> = fields.iter().map(|(name, value)| format!("{}:{}", quoted(name), value.get())).collect();
        if !members.is_empty() {
            self.set(CLIENT_FIELDS, format!("{{{}}}", members.join(",")));
        }
    }

    /// Keeps the pairs of the client that nothing else holds.
    pub fn keep_pairs(&mut self, pairs: &Pairs<'t>) {
        let members: Vec<_> = pairs.iter().map(|(name, value)| format!("{}:{}", quoted(name), quoted(value))).collect();
        if !members.is_empty() {
            self.set(CLIENT_FIELDS, format!("{{{}}}", members.join(",")));
        }
    }

    /// Finishes the event. `needed` names the fields of the client that can hold a visitor.
    ///
    /// # Errors
    /// The event has no name or no visitor, or is too large.
    pub fn finish(mut self, needed: &str) -> Result<ClientEvent, Rejection> {
        let name = self.name.take().ok_or_else(|| {
            Rejection::new(RejectCode::MissingEvent, "the event has no name; set the field that names it")
        })?;
        let visitor = self.visitor.take().ok_or_else(|| {
            Rejection::new(RejectCode::MissingDistinctId, format!("the event has no visitor; set {needed}"))
        })?;
        self.set_string("$user_id", self.user.clone());
        let properties: Vec<_> =
            self.properties.iter().map(|(name, json)| format!("{}:{json}", quoted(name))).collect();
        let mut json = format!(
            "{{\"properties\":{{{}}},\"event\":{},\"distinct_id\":{}",
            properties.join(","),
            quoted(&name),
            quoted(&visitor)
        );
        let mut member = |name: &str, value: Option<Cow<'_, str>>| {
            if let Some(value) = value {
                json.push_str(&format!(",\"{name}\":{value}"));
            }
        };
        member("uuid", self.id.map(|id| quoted(&id).into()));
        member("timestamp", self.timestamp);
        member("sent_at", self.sent_at);
        json.push('}');
        // A queue takes these two characters only escaped, which makes them twice as long.
        let refused = json.matches(['\u{fffe}', '\u{ffff}']).count();
        if json.len() + 3 * refused > MAX_CLIENT_EVENT_BYTES {
            let message = format!("the event has more than {MAX_CLIENT_EVENT_BYTES} bytes; send smaller properties");
            return Err(Rejection::new(RejectCode::TooLarge, message));
        }
        Ok(ClientEvent {
            json,
            standing: self.standing,
            #[cfg(feature = "replay")]
            recording: None,
        })
    }
}
