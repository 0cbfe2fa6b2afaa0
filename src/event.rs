//! One tracking event: what we read of it, and the rest as it came.
//!
//! An event is parsed once, by reference to its text. What the service does not understand stays text: [`Event::annotate`]
//! writes the event out again with its session's properties put in, every other byte as it was.

mod annotate;
mod context;
mod fields;
mod id;
mod name;
mod properties;
mod raw_field;
mod repair;
mod scan;
mod text;
mod time;

use std::borrow::Cow;

use crate::config::{LIFECYCLE_EVENTS, SessionConfig};
use crate::model::{Entry, Kind};
use crate::session::{EventId, Millis, SessionContext, Visitor};
use crate::timeline::Arrival;
pub use annotate::USUAL_ADDED_BYTES;
pub(crate) use context::bounded_context;
use fields::{Fields, diagnosis};
use id::{UuidPlace, derived, own_id};
use raw_field::Json;
pub use repair::Repaired;
use text::string;
pub use time::TimeFlag;

/// Bytes of an event at the most.
pub const MAX_EVENT_BYTES: usize = 32 * 1024;
/// How deep an event's JSON may be nested.
pub const MAX_DEPTH: usize = 32;
/// Characters of a `distinct_id` at the most.
pub const MAX_DISTINCT_ID_CHARS: usize = 200;
/// Characters of an event's name and of its `uuid` at the most.
pub const MAX_NAME_CHARS: usize = 200;
/// Bytes of a `project` at the most: with a `distinct_id` of the longest, 800 bytes, it has to fit into a sort key, which
/// has 1,024 at the most. One that does not would cost every visitor that is read along with it.
pub const MAX_PROJECT_BYTES: usize = 200;

/// Why an event was rejected. The set is closed; `code` names are part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RejectCode {
    InvalidUtf8,
    InvalidJson,
    NotAnObject,
    TooLarge,
    TooDeep,
    NulCharacter,
    LoneSurrogate,
    MissingDistinctId,
    InvalidDistinctId,
    MissingEvent,
    InvalidEvent,
    InvalidUuid,
    InvalidProject,
    InvalidProperties,
}

impl RejectCode {
    /// The code's name in answers and in the rejects queue.
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidUtf8 => "invalid_utf8",
            Self::InvalidJson => "invalid_json",
            Self::NotAnObject => "not_an_object",
            Self::TooLarge => "too_large",
            Self::TooDeep => "too_deep",
            Self::NulCharacter => "nul_character",
            Self::LoneSurrogate => "lone_surrogate",
            Self::MissingDistinctId => "missing_distinct_id",
            Self::InvalidDistinctId => "invalid_distinct_id",
            Self::MissingEvent => "missing_event",
            Self::InvalidEvent => "invalid_event",
            Self::InvalidUuid => "invalid_uuid",
            Self::InvalidProject => "invalid_project",
            Self::InvalidProperties => "invalid_properties",
        }
    }
}

/// An event that can never be understood, and what its sender has to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Rejection {
    pub code: RejectCode,
    /// A sentence that names the field and the fix. It holds nothing of the event's content.
    pub message: String,
}

impl Rejection {
    fn new(code: RejectCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Returns whether text that others choke on is all that is wrong: [`Repaired`] may make something of the event.
    pub fn is_text(&self) -> bool {
        matches!(self.code, RejectCode::NulCharacter | RejectCode::LoneSurrogate | RejectCode::InvalidUtf8)
    }
}

/// What is known of how an event came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// When the service, or the queue before it, received it.
    pub received_at: Millis,
    /// Whether an event's own `received_at` counts: only where its sender is a trusted pipeline. It never moves the
    /// time forward.
    pub trusts_received_at: bool,
}

/// A delivery, and an event's place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin<'o> {
    pub delivery: Delivery,
    /// The id of the request or the message that brought the event: the same one when it is delivered again. Empty where it has
    /// none: then its time of receipt stands for it.
    pub id: &'o str,
    /// The event's place among those of the request or the message.
    pub index: usize,
    /// When the whole batch was sent, by its sender's clock: for events that do not say so themselves.
    pub sent_at: Option<Millis>,
}

impl From<Delivery> for Origin<'static> {
    fn from(delivery: Delivery) -> Self {
        Self { delivery, id: "", index: 0, sent_at: None }
    }
}

/// Returns the time that a JSON value states, a text or a number, in any spelling that events may use.
pub fn time_of_json(json: &str) -> Option<Millis> {
    time::of_json(json)
}

/// What an event's name makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It counts in a session, or keeps one alive.
    Activity(Kind),
    /// It is annotated with the live session and counts in none.
    Passive,
    /// Its `distinct_id` stands for nobody: it gets no session.
    Nobody,
    /// It is one of our own events, fed back in: passed on as it is.
    Lifecycle,
}

/// One tracking event.
#[derive(Debug, Clone)]
pub struct Event<'a> {
    /// The event as it came: a JSON object.
    pub text: &'a str,
    /// Its id, a UUID in lower case. One that came without is given one that derives from its text, and from its delivery if
    /// the text says no time.
    pub uuid: Cow<'a, str>,
    pub project: Cow<'a, str>,
    pub distinct_id: Cow<'a, str>,
    pub role: Role,
    /// When it happened, by the clock of the service.
    pub at: Millis,
    pub received_at: Millis,
    /// What has to be known of `at`, if anything.
    pub time_flag: Option<TimeFlag>,
    /// Whether `at` is the event's own `timestamp`, as every consumer reads it.
    is_own_time: bool,
    /// Whether `sent_at` moved it.
    is_time_corrected: bool,
    /// Whether something in the text was replaced, because others would choke on it.
    is_repaired: bool,
    uuid_place: UuidPlace,
    fields: Fields<'a>,
}

/// An event's text, and its fields as they stand in it: valid JSON, not looked at any further.
#[derive(Debug)]
pub struct Scanned<'a> {
    text: &'a str,
    fields: Fields<'a>,
}

impl<'a> Scanned<'a> {
    /// The event that a text begins with, if it begins with one.
    pub fn first(text: &'a str, config: &SessionConfig) -> Option<Self> {
        let (fields, text) = Fields::scan(text, config.new_session_on_click_id_change)?;
        Some(Self { text, fields })
    }

    pub fn text(&self) -> &'a str {
        self.text
    }
}

impl<'a> Event<'a> {
    /// Reads an event from its bytes.
    ///
    /// # Errors
    /// What makes the event unusable; see [`RejectCode`].
    pub fn parse<'o>(
        bytes: &'a [u8],
        origin: impl Into<Origin<'o>>,
        config: &SessionConfig,
    ) -> Result<Self, Rejection> {
        let bytes = bytes.trim_ascii();
        let scanned = std::str::from_utf8(bytes).ok().and_then(|text| Scanned::first(text, config));
        match scanned.filter(|scanned| scanned.text.len() == bytes.len()) {
            Some(scanned) => Self::read(scanned, origin, config),
            None => Err(diagnosis(bytes)),
        }
    }

    /// Reads an event from its fields.
    ///
    /// # Errors
    /// What makes the event unusable; see [`RejectCode`].
    pub fn read<'o>(
        scanned: Scanned<'a>,
        origin: impl Into<Origin<'o>>,
        config: &SessionConfig,
    ) -> Result<Self, Rejection> {
        let origin = origin.into();
        let Scanned { text, fields } = scanned;
        let distinct_id =
            string(fields.distinct_id.of(text), "distinct_id", MAX_DISTINCT_ID_CHARS, RejectCode::InvalidDistinctId)?
                .ok_or_else(|| {
                Rejection::new(RejectCode::MissingDistinctId, "`distinct_id` is missing; set it to the visitor's id")
            })?;
        let name =
            string(fields.event.of(text), "event", MAX_NAME_CHARS, RejectCode::InvalidEvent)?.ok_or_else(|| {
                Rejection::new(RejectCode::MissingEvent, "`event` is missing; set it to the event's name")
            })?;
        let project = project(fields.project.of(text))?;
        let (uuid, uuid_place) = own_id(fields.uuid.of(text))?;
        let received_at = time::received_at(fields.received_at.of(text), origin.delivery);
        let (timestamp, sent_at) = (fields.timestamp.of(text), fields.sent_at.of(text));
        let time = time::event_time(timestamp, sent_at, &origin, received_at, config);
        fields.properties.check()?;
        let role = match role(&name, config) {
            Role::Lifecycle => Role::Lifecycle,
            _ if config.nobody_ids.has(&distinct_id) => Role::Nobody,
            role => role,
        };
        Ok(Self {
            text,
            uuid_place,
            uuid: uuid.unwrap_or_else(|| derived(text, &origin, time.is_stated)),
            project,
            distinct_id,
            role,
            at: time.at,
            received_at,
            time_flag: time.flag,
            is_own_time: time.is_own,
            is_time_corrected: time.is_corrected,
            is_repaired: false,
            fields,
        })
    }

    /// Whose event it is.
    pub fn visitor(&self) -> Visitor {
        Visitor { project: self.project.clone().into_owned(), distinct_id: self.distinct_id.clone().into_owned() }
    }

    /// The event as the timeline needs it; none for one of our own or of nobody, which belongs to no session.
    pub fn arrival(&self, config: &SessionConfig) -> Option<Arrival> {
        self.arrival_after(&SessionContext::default(), config)
    }

    /// The same. What `known` says too is shared with it.
    pub fn arrival_after(&self, known: &SessionContext, config: &SessionConfig) -> Option<Arrival> {
        let (kind, passive) = match self.role {
            Role::Activity(kind) => (kind, false),
            Role::Passive => (Kind::Event, true),
            Role::Nobody | Role::Lifecycle => return None,
        };
        let properties = &self.fields.properties;
        let (at, uuid) = (self.at, EventId::new(&self.uuid));
        if passive || kind == Kind::KeepAlive {
            // It counts as nothing, so nothing else of it is kept.
            let (context, properties) = (SessionContext::default(), Vec::new());
            let entry = Entry { at, uuid, kind, context, click: None, properties };
            return Some(Arrival {
                entry,
                received_at: self.received_at,
                passive,
                timed_by_sent_at: self.is_time_corrected,
            });
        }
        let entry = Entry {
            at,
            uuid,
            kind,
            context: properties.context(known, config),
            click: if config.new_session_on_click_id_change { properties.click() } else { None },
            properties: properties.session_properties(),
        };
        Some(Arrival { entry, received_at: self.received_at, passive, timed_by_sent_at: self.is_time_corrected })
    }
}

/// What an event's name makes of it.
fn role(name: &str, config: &SessionConfig) -> Role {
    let is_in = |names: &[String]| names.iter().any(|other| other == name);
    match name {
        _ if LIFECYCLE_EVENTS.contains(&name) => Role::Lifecycle,
        _ if is_in(&config.passive_events) => Role::Passive,
        _ if is_in(&config.keep_alive_events) => Role::Activity(Kind::KeepAlive),
        "$pageview" | "$screen" => Role::Activity(Kind::Pageview),
        _ => Role::Activity(Kind::Event),
    }
}

/// The project; empty where the event names none.
fn project(value: Json<'_>) -> Result<Cow<'_, str>, Rejection> {
    let reject = |message: &str| Err(Rejection::new(RejectCode::InvalidProject, message));
    match string(value, "project", MAX_PROJECT_BYTES, RejectCode::InvalidProject)? {
        Some(name) if name.len() > MAX_PROJECT_BYTES => reject("`project` has more than 200 bytes; use a shorter name"),
        Some(name) if name.contains('#') => reject("`project` contains `#`; use a name without it"),
        name => Ok(name.unwrap_or_default()),
    }
}
