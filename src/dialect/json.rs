//! JSON that is parsed one level at a time. What is not understood stays as it was written.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::event::MAX_CLIENT_EVENT_BYTES;
use super::{MAX_EVENTS, not_a_body};
use crate::event::{RejectCode, Rejection};

/// An object: its members by name. Of two members with one name, the last one counts.
pub(super) type Object<'t> = BTreeMap<String, &'t RawValue>;

/// Parses an object, without parsing its values.
pub(super) fn object(json: &str) -> Option<Object<'_>> {
    serde_json::from_str(json).ok()
}

/// Parses an array, without parsing its elements.
pub(super) fn array(json: &str) -> Option<Vec<&RawValue>> {
    serde_json::from_str(json).ok()
}

/// Parses the array of a request's events.
///
/// # Errors
/// It is not an array, which `needed` tells how to change, or it is longer than a request may be. That is told before anything is
/// made of its elements.
pub(super) fn events<'t>(json: Option<&'t str>, needed: &str) -> Result<Vec<&'t RawValue>, Rejection> {
    within_limit(json.and_then(array).ok_or_else(|| not_a_body(needed))?)
}

/// Checks how many events a request has.
pub(super) fn within_limit(events: Vec<&RawValue>) -> Result<Vec<&RawValue>, Rejection> {
    if events.len() > MAX_EVENTS {
        let message = format!("the body has more than {MAX_EVENTS} events; send them in several requests");
        return Err(Rejection::new(RejectCode::TooLarge, message));
    }
    Ok(events)
}

/// Checks an event's size before it is parsed.
pub(super) fn check_size(text: &str) -> Result<(), Rejection> {
    if text.len() > MAX_CLIENT_EVENT_BYTES {
        let message = format!("the event has more than {MAX_CLIENT_EVENT_BYTES} bytes; send smaller properties");
        return Err(Rejection::new(RejectCode::TooLarge, message));
    }
    Ok(())
}

/// Parses an event.
///
/// # Errors
/// It is not an object, or larger than an event may be. That is told before it is parsed.
pub(super) fn fields(raw: &RawValue) -> Result<Object<'_>, Rejection> {
    check_size(raw.get())?;
    object(raw.get()).ok_or_else(|| Rejection::new(RejectCode::NotAnObject, "the event is not an object; send `{…}`"))
}

/// Returns a value that is a string with at least one visible character.
pub(super) fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    crate::event::string(raw.get()).filter(|string| !string.trim().is_empty())
}

/// Returns a value that is a number, as it is written.
pub(super) fn number(raw: &RawValue) -> Option<&str> {
    Some(raw.get()).filter(|json| json.starts_with(|first: char| first.is_ascii_digit() || first == '-'))
}

/// Returns an id: a string, or a number as it is written, because some programs pass the key of a database.
pub(super) fn id(raw: &RawValue) -> Option<Cow<'_, str>> {
    string(raw).or_else(|| number(raw).map(Cow::Borrowed))
}

/// Returns a string as JSON.
pub(super) fn quoted(text: &str) -> String {
    // A string can always be serialized.
    serde_json::to_string(text).unwrap_or_default()
}

/// An event whose values are all strings, as queries hold it.
pub(super) type Pairs<'t> = BTreeMap<String, Cow<'t, str>>;

/// Returns the pairs of a query, with or without its question mark. Empty values count as missing.
pub(super) fn pairs_of_query(query: &str) -> Pairs<'_> {
    let pairs = url::form_urlencoded::parse(query.trim().trim_start_matches('?').as_bytes());
    pairs.filter(|(_, value)| !value.trim().is_empty()).map(|(name, value)| (name.into_owned(), value)).collect()
}

/// Returns the members of an object as strings. Values that are neither a string nor null are kept as they are written.
pub(super) fn pairs_of_object<'t>(object: &Object<'t>) -> Pairs<'t> {
    let text = |raw: &'t RawValue| match raw.get() {
        "null" => None,
        json if json.starts_with('"') => string(raw),
        json => Some(Cow::Borrowed(json)),
    };
    object.iter().filter_map(|(name, &raw)| Some((name.clone(), text(raw)?))).collect()
}

/// Reading of an object's members.
pub(super) trait Members<'t> {
    /// Returns a member that is an id.
    fn id(&self, name: &str) -> Option<Cow<'t, str>>;
    /// Returns a member that is a string with at least one visible character.
    fn string(&self, name: &str) -> Option<Cow<'t, str>>;
    /// Returns a member that is an object; an empty one if it is missing or anything else.
    fn object(&self, name: &str) -> Object<'t>;
    /// Returns a member that is neither missing nor null.
    fn given(&self, name: &str) -> Option<&'t RawValue>;
    /// Returns whether a member is this literal, such as `true`.
    fn is(&self, name: &str, literal: &str) -> bool;
}

impl<'t> Members<'t> for Object<'t> {
    fn id(&self, name: &str) -> Option<Cow<'t, str>> {
        self.get(name).copied().and_then(id)
    }

    fn string(&self, name: &str) -> Option<Cow<'t, str>> {
        self.get(name).copied().and_then(string)
    }

    fn object(&self, name: &str) -> Object<'t> {
        self.get(name).and_then(|raw| object(raw.get())).unwrap_or_default()
    }

    fn given(&self, name: &str) -> Option<&'t RawValue> {
        self.get(name).copied().filter(|raw| raw.get() != "null")
    }

    fn is(&self, name: &str, literal: &str) -> bool {
        self.get(name).is_some_and(|raw| raw.get() == literal)
    }
}
