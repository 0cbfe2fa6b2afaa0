//! One tracking event: the fields that the service reads, and the event's JSON.
//!
//! An event is parsed once and borrows from its JSON. What the service does not understand is never parsed:
//! [`Event::annotate`] copies the JSON, inserts the session's properties, and leaves every other byte unchanged.

mod annotate;
mod context;
mod fields;
mod id;
mod name;
mod properties;
mod raw;
mod rejection;
mod repair;
mod stripped;
mod text;
mod time;
mod viewer;

use std::borrow::Cow;
use std::sync::Arc;

use crate::config::{LIFECYCLE_EVENTS, ProjectRules, SessionConfig};
use crate::model::{Entry, Kind, counts};
use crate::session::{EventId, Millis, SessionContext, Visitor};
use crate::timeline::Arrival;
pub use annotate::USUAL_ADDED_BYTES;
pub(crate) use context::bounded_context;
use context::number;
pub use fields::Fields;
use id::{derived_id, own_id};
use properties::Properties;
pub(crate) use raw::string;
pub use rejection::{RejectCode, Rejection};
pub use repair::Repaired;
#[cfg(feature = "replay")]
pub(crate) use repair::without_half_pairs;
pub use stripped::Stripped;
use text::string_field;
pub use time::TimeFlag;
pub use viewer::Viewer;

/// Maximum size of an event, in bytes.
pub const MAX_EVENT_BYTES: usize = 32 * 1024;
/// Maximum nesting depth of an event's JSON.
pub const MAX_DEPTH: usize = 32;
/// Maximum length of a `distinct_id`, in characters.
pub const MAX_DISTINCT_ID_CHARS: usize = 200;
/// Maximum length of an event's name and of its `uuid`, in characters.
pub const MAX_NAME_CHARS: usize = 200;
/// Maximum length of a `project`, in bytes. The project and the longest `distinct_id` (800 bytes) have to fit into a DynamoDB
/// sort key of at most 1,024 bytes. A longer key would fail the whole batch read, and so all other visitors in it.
pub const MAX_PROJECT_BYTES: usize = 200;

/// How an event was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// When the service, or the queue before it, received the event (ingestion time).
    pub received_at: Millis,
    /// Whether an event's own `received_at` counts. True only if the sender is a trusted pipeline. An event's own
    /// `received_at` can only make the time of receipt earlier, never later.
    pub trusts_received_at: bool,
}

/// A delivery, and an event's position in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin<'o> {
    /// How the request or message was delivered.
    pub delivery: Delivery,
    /// The id of the request or message. A redelivery has the same id. If it is empty, the time of receipt identifies the
    /// delivery instead.
    pub id: &'o str,
    /// The event's position in the request or message, from 0.
    pub index: usize,
    /// When the whole batch was sent, by the sender's clock. It applies to events without a valid `sent_at` of their own.
    pub sent_at: Option<Millis>,
    /// The project of the write key that the events were sent with. It replaces the events' own `project`.
    pub project: Option<&'o str>,
    /// What the request tells about the visitor, if it came from the visitor.
    pub viewer: Option<&'o Arc<Viewer>>,
}

impl From<Delivery> for Origin<'static> {
    fn from(delivery: Delivery) -> Self {
        Self { delivery, id: "", index: 0, sent_at: None, project: None, viewer: None }
    }
}

/// Returns the time that a JSON string or number states, in any spelling that events may use.
///
/// Returns `None` if the value is not a time.
pub fn time_of_json(json: &str) -> Option<Millis> {
    time::of_json(json)
}

/// How an event counts. It depends on the event's name, and for [`Role::Nobody`] on its `distinct_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It counts in a session, or keeps a session alive.
    Activity(Kind),
    /// It is annotated with the session of its time, but counts in none.
    Passive,
    /// Its `distinct_id` stands for nobody (`nobody_ids`), so it gets no session.
    Nobody,
    /// A bot sent it, and `exclude_bots` is set, so it gets no session.
    Bot,
    /// It is one of the service's own events, such as `$session_end`, sent back in. It is passed on unchanged.
    Lifecycle,
}

/// One tracking event, parsed.
#[derive(Debug, Clone)]
pub struct Event<'a> {
    /// The event's JSON, as it was received: one object.
    pub text: &'a str,
    /// Its id; a UUID is in lower case. An event without an id gets one that is derived from its JSON and, if it states no
    /// time, from its delivery.
    pub uuid: Cow<'a, str>,
    /// The visitor's project: that of the write key, or the one that the event names. Empty if there is none.
    pub project: Cow<'a, str>,
    /// The visitor's id within the project.
    pub distinct_id: Cow<'a, str>,
    /// How the event counts.
    pub role: Role,
    /// When it happened (event time), by the service's clock.
    pub at: Millis,
    /// When it was received (ingestion time).
    pub received_at: Millis,
    /// What is wrong with the event's time, if anything.
    pub time_flag: Option<TimeFlag>,
    /// Whether `at` is the event's own `timestamp`, in a form that every consumer reads the same way.
    is_own_time: bool,
    /// Whether `at` was corrected by `sent_at`.
    is_time_corrected: bool,
    /// Whether the event can have another event time when it is sent again.
    may_change_time: bool,
    /// Whether characters were replaced by U+FFFD ([`Repaired`]).
    is_repaired: bool,
    /// Whether a bot sent it, by its user agent or its own word.
    is_bot: bool,
    viewer: Option<Arc<Viewer>>,
    /// Whether annotating writes the `uuid`, because the event's own is no id.
    writes_uuid: bool,
    /// Whether annotating writes the `project`, because that of the write key is another than the event's own.
    writes_project: bool,
    fields: Fields<'a>,
    /// Boxed, because an event is moved some ten times before it is applied.
    properties: Box<Properties<'a>>,
}

impl<'a> Event<'a> {
    /// Parses an event from its bytes, by the rules of its project.
    ///
    /// # Errors
    /// Returns why the event cannot be used; see [`RejectCode`].
    pub fn parse<'o>(
        bytes: &'a [u8],
        origin: impl Into<Origin<'o>>,
        rules: &impl ProjectRules,
    ) -> Result<Self, Rejection> {
        Self::read(Fields::parse(bytes, MAX_EVENT_BYTES)?, origin, rules)
    }

    /// Reads an event that is already parsed as far as its fields.
    ///
    /// # Errors
    /// Returns why the event cannot be used; see [`RejectCode`].
    pub fn read<'o>(
        fields: Fields<'a>,
        origin: impl Into<Origin<'o>>,
        rules: &impl ProjectRules,
    ) -> Result<Self, Rejection> {
        let origin = origin.into();
        let distinct_id =
            string_field(fields.distinct_id, "distinct_id", MAX_DISTINCT_ID_CHARS, RejectCode::InvalidDistinctId)?
                .ok_or_else(|| {
                    Rejection::new(
                        RejectCode::MissingDistinctId,
                        "`distinct_id` is missing; set it to the visitor's id",
                    )
                })?;
        let name = string_field(fields.event, "event", MAX_NAME_CHARS, RejectCode::InvalidEvent)?.ok_or_else(|| {
            Rejection::new(RejectCode::MissingEvent, "`event` is missing; set it to the event's name")
        })?;
        let (project, writes_project) = match origin.project {
            None => (project(fields.project)?, false),
            Some(of_key) => {
                (Cow::Owned(of_key.to_owned()), fields.project.and_then(string).is_none_or(|own| own != of_key))
            }
        };
        let config = rules.rules_of(&project);
        let uuid = own_id(fields.uuid)?;
        let received_at = time::received_at(fields.received_at, origin.delivery);
        let time = time::event_time(fields.timestamp, fields.sent_at, &origin, received_at, config);
        let properties = Properties::of(fields.properties, config.new_session_on_click_id_change)?;
        let viewer = origin.viewer.filter(|viewer| !viewer.needs_rule || config.viewer_headers);
        let is_bot = is_bot(&properties, viewer);
        let role = match role(&name, config) {
            Role::Lifecycle => Role::Lifecycle,
            _ if config.nobody_ids.has(&distinct_id) => Role::Nobody,
            _ if is_bot && config.exclude_bots => Role::Bot,
            role => role,
        };
        Ok(Self {
            text: fields.json,
            writes_uuid: uuid.is_none(),
            writes_project,
            uuid: uuid.unwrap_or_else(|| derived_id(fields.json, &origin, time.is_stated)),
            project,
            distinct_id,
            role,
            at: time.at,
            received_at,
            time_flag: time.flag,
            is_own_time: time.is_own,
            is_time_corrected: time.is_corrected,
            may_change_time: time.may_change(),
            is_repaired: false,
            is_bot,
            viewer: viewer.cloned(),
            fields,
            properties: Box::new(properties),
        })
    }

    /// Returns the visitor that the event belongs to.
    pub fn visitor(&self) -> Visitor {
        Visitor { project: self.project.clone().into_owned(), distinct_id: self.distinct_id.clone().into_owned() }
    }

    /// Returns the event's own `timestamp`, as JSON.
    #[cfg(feature = "replay")]
    pub(crate) fn timestamp(&self) -> Option<&str> {
        self.fields.timestamp
    }

    /// Returns the event as the timeline needs it.
    ///
    /// Returns `None` for the service's own events and for events of nobody and of excluded bots, because they belong to no session.
    pub fn arrival(&self, config: &SessionConfig) -> Option<Arrival> {
        self.arrival_after(&SessionContext::default(), config)
    }

    /// Like [`Event::arrival`], but shares values that are equal to those of `known` instead of allocating them again.
    pub fn arrival_after(&self, known: &SessionContext, config: &SessionConfig) -> Option<Arrival> {
        let (kind, passive) = match self.role {
            Role::Activity(kind) => (kind, false),
            Role::Passive => (Kind::Event, true),
            Role::Nobody | Role::Bot | Role::Lifecycle => return None,
        };
        let properties = &self.properties;
        let (at, uuid) = (self.at, EventId::new(&self.uuid));
        if passive || kind == Kind::KeepAlive {
            // It counts neither as an event nor as a page view, so nothing else of it is kept.
            let (context, properties) = (SessionContext::default(), Vec::new());
            let entry = Entry { at, uuid, kind, context, click: None, properties };
            return Some(Arrival {
                entry,
                received_at: self.received_at,
                passive,
                timed_by_sent_at: self.is_time_corrected,
                may_change_time: self.may_change_time,
            });
        }
        let entry = Entry {
            at,
            uuid,
            kind,
            context: properties.context(known, self.viewer.as_deref(), config),
            click: if config.new_session_on_click_id_change { properties.click() } else { None },
            properties: if config.counted_events.is_empty() {
                properties.session_properties()
            } else {
                properties.session_properties().into_iter().chain(self.count(config)).collect()
            },
        };
        Some(Arrival {
            entry,
            received_at: self.received_at,
            passive,
            timed_by_sent_at: self.is_time_corrected,
            may_change_time: self.may_change_time,
        })
    }
}

impl Event<'_> {
    /// Returns the event's count, if it is one of `counted_events`.
    fn count(&self, config: &SessionConfig) -> Option<(String, String)> {
        let name = string(self.fields.event?)?;
        let counted = config.counted_events.iter().find(|counted| counted.name == *name)?;
        let value = counted.property.as_ref().and_then(|property| number(self.fields.properties?, property));
        Some(counts::one(&counted.name, value))
    }
}

/// Returns whether a bot sent an event. An agent that the event has counts before that of the request.
fn is_bot(properties: &Properties<'_>, viewer: Option<&Arc<Viewer>>) -> bool {
    let is_bots = match properties.has_agent() {
        true => properties.agent().is_some_and(|agent| crate::agent::is_bot(&agent)),
        false => viewer.is_some_and(|viewer| viewer.is_bot),
    };
    is_bots || properties.states_bot()
}

/// Returns how an event of this name counts.
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

/// Reads the project. It is empty if the event names none.
fn project(json: Option<&str>) -> Result<Cow<'_, str>, Rejection> {
    let reject = |message: &str| Err(Rejection::new(RejectCode::InvalidProject, message));
    match string_field(json, "project", MAX_PROJECT_BYTES, RejectCode::InvalidProject)? {
        Some(name) if name.len() > MAX_PROJECT_BYTES => reject("`project` has more than 200 bytes; use a shorter name"),
        Some(name) if name.contains('#') => reject("`project` contains `#`; use a name without it"),
        name => Ok(name.unwrap_or_default()),
    }
}
