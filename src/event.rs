//! One tracking event: what we read of it, and the rest as it came.
//!
//! An event is parsed once, by reference to its text. What the service does not understand stays text: [`Event::annotate`]
//! writes the event out again with its session's properties put in, every other byte as it was.

mod annotate;
mod context;
mod fields;
mod name;
mod part;
mod properties;
mod scan;
mod text;
mod time;

use std::borrow::Cow;

use xxhash_rust::xxh3::xxh3_128;

use crate::config::SessionConfig;
use crate::rules::{Entry, Kind};
use crate::session::{EventId, Millis, SessionContext, Visitor};
use crate::timeline::Arrival;
pub use annotate::USUAL_ADDED_BYTES;
use fields::{Fields, diagnosis};
use part::{Json, Shape};
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
/// No `uuid` begins with it: the timeline's own marks for ended sessions do.
const RESERVED: char = crate::timeline::MARK;

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
    InvalidTimestamp,
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
            Self::InvalidTimestamp => "invalid_timestamp",
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

/// What an event's name makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It counts in a session.
    Activity(Kind),
    /// It is annotated with the live session and counts in none.
    Passive,
    /// It is one of our own events, fed back in: passed on as it is.
    Lifecycle,
}

/// One tracking event.
#[derive(Debug, Clone)]
pub struct Event<'a> {
    /// The event as it came: a JSON object.
    pub text: &'a str,
    /// Its id; one that came without is given one that derives from its text.
    pub uuid: Cow<'a, str>,
    pub project: Cow<'a, str>,
    pub distinct_id: Cow<'a, str>,
    pub role: Role,
    /// When it happened, by the clock of the service.
    pub at: Millis,
    pub received_at: Millis,
    /// Why `at` is not what the event said, if so.
    pub time_flag: Option<TimeFlag>,
    /// Whether `at` is the event's own `timestamp`.
    is_own_time: bool,
    uuid_place: UuidPlace,
    fields: Fields<'a>,
}

/// Where an event's text has its `uuid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UuidPlace {
    Given,
    /// A null begins at this byte, in whose place the derived one goes.
    Null(usize),
    Missing,
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
    pub fn parse(bytes: &'a [u8], delivery: Delivery, config: &SessionConfig) -> Result<Self, Rejection> {
        let bytes = bytes.trim_ascii();
        let scanned = std::str::from_utf8(bytes).ok().and_then(|text| Scanned::first(text, config));
        match scanned.filter(|scanned| scanned.text.len() == bytes.len()) {
            Some(scanned) => Self::read(scanned, delivery, config),
            None => Err(diagnosis(bytes)),
        }
    }

    /// Reads an event from its fields.
    ///
    /// # Errors
    /// What makes the event unusable; see [`RejectCode`].
    pub fn read(scanned: Scanned<'a>, delivery: Delivery, config: &SessionConfig) -> Result<Self, Rejection> {
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
        let (uuid, uuid_place) = uuid(fields.uuid.of(text), fields.uuid.span().start)?;
        let received_at = time::received_at(fields.received_at.of(text), delivery);
        let (timestamp, sent_at) = (fields.timestamp.of(text), fields.sent_at.of(text));
        let (at, time_flag) = time::event_time(timestamp, sent_at, received_at)?;
        fields.properties.check()?;
        let is_own_time = time_flag.is_none() && timestamp.part.is_given() && !sent_at.part.is_given();
        Ok(Self {
            text,
            uuid_place,
            uuid: uuid.unwrap_or_else(|| derived_uuid(text)),
            project,
            distinct_id,
            role: role(&name, config),
            at,
            received_at,
            time_flag,
            is_own_time,
            fields,
        })
    }

    /// Whose event it is.
    pub fn visitor(&self) -> Visitor {
        Visitor { project: self.project.clone().into_owned(), distinct_id: self.distinct_id.clone().into_owned() }
    }

    /// The event as the timeline needs it; none for one of our own, which belongs to no session.
    pub fn arrival(&self, config: &SessionConfig) -> Option<Arrival> {
        self.arrival_after(&SessionContext::default(), config)
    }

    /// The same. What `known` says too is shared with it.
    pub fn arrival_after(&self, known: &SessionContext, config: &SessionConfig) -> Option<Arrival> {
        let (kind, passive) = match self.role {
            Role::Activity(kind) => (kind, false),
            Role::Passive => (Kind::Event, true),
            Role::Lifecycle => return None,
        };
        let properties = &self.fields.properties;
        let entry = Entry {
            at: self.at,
            uuid: EventId::new(&self.uuid),
            kind,
            context: properties.context(known, config),
            click: if config.new_session_on_click_id_change { properties.click() } else { None },
            properties: properties.session_properties(),
        };
        Some(Arrival { entry, received_at: self.received_at, passive })
    }
}

/// What an event's name makes of it.
fn role(name: &str, config: &SessionConfig) -> Role {
    match name {
        "$pageview" | "$screen" => Role::Activity(Kind::Pageview),
        "$session_start" | "$session_end" | "$session_merged" | "$session_split" => Role::Lifecycle,
        _ if config.passive_events.iter().any(|passive| passive == name) => Role::Passive,
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

/// The event's own id, if it has one, and where it stands.
fn uuid(value: Json<'_>, at: usize) -> Result<(Option<Cow<'_, str>>, UuidPlace), Rejection> {
    match value.part.shape {
        Shape::Absent => return Ok((None, UuidPlace::Missing)),
        Shape::Null => return Ok((None, UuidPlace::Null(at))),
        _ => {}
    }
    let uuid = string(value, "uuid", MAX_NAME_CHARS, RejectCode::InvalidUuid)?;
    if uuid.as_ref().is_some_and(|uuid| uuid.starts_with(RESERVED)) {
        let message = "`uuid` begins with U+10FFFF, which is reserved; begin it with another character";
        return Err(Rejection::new(RejectCode::InvalidUuid, message));
    }
    Ok((uuid, UuidPlace::Given))
}

/// The id of an event that came without: a UUID (version 8) of its text, so that a repeat is found to be one.
fn derived_uuid(text: &str) -> Cow<'static, str> {
    Cow::Owned(uuid::Uuid::new_v8(xxh3_128(text.as_bytes()).to_be_bytes()).to_string())
}
