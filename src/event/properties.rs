//! An event's `properties`: the values that the service reads, and those that annotating replaces.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::name::PropertyName;
use super::raw::{given, string, string_or_number};
use super::{RejectCode, Rejection};
use crate::attribution::{CLICK_IDS, click_hash};

/// An event's properties, each as it is written. Of two with one name, the last one counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Properties<'a> {
    /// The values of the members that annotating replaces, in the order of the JSON.
    pub replaced: Vec<ReplacedValue<'a>>,
    pub referrer: Option<&'a str>,
    pub url: Option<&'a str>,
    pub utm: [Option<&'a str>; 5],
    pub device: [Option<&'a str>; 5],
    pub screen: [Option<&'a str>; 2],
    pub geo: [Option<&'a str>; 6],
    pub click: Option<u64>,
    pub session: Option<&'a str>,
    user: Option<&'a str>,
    agent: Option<&'a str>,
    is_bot: Option<&'a str>,
}

/// The value of a member that annotating replaces.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReplacedValue<'a> {
    pub json: &'a str,
    /// Whether it is a flag ([`PropertyName::Flag`]), which is also replaced without a session.
    pub is_flag: bool,
}

impl<'a> Properties<'a> {
    /// Reads the value of `properties`. Null and an empty array, which is how PHP writes an empty map, have no members. Click ids
    /// are read only where a rule needs them, because they cost time.
    ///
    /// # Errors
    /// Returns [`RejectCode::InvalidProperties`] if the value is anything else but an object.
    pub fn of(json: Option<&'a str>, reads_click_ids: bool) -> Result<Self, Rejection> {
        let mut properties = Self::default();
        let Some(json) = given(json).filter(|json| !is_empty_array(json)) else {
            return Ok(properties);
        };
        let members = Members { properties: &mut properties, reads_click_ids };
        match serde_json::Deserializer::from_str(json).deserialize_map(members) {
            Ok(()) => Ok(properties),
            Err(_) => {
                let message = "`properties` is not an object; send `{…}` or leave it out";
                Err(Rejection::new(RejectCode::InvalidProperties, message))
            }
        }
    }

    fn set(&mut self, name: PropertyName, json: &'a str) {
        let is_replaced = match name {
            PropertyName::WriteOnly | PropertyName::Flag | PropertyName::Referrer | PropertyName::IsBot => true,
            PropertyName::UserId => user(json).is_none(),
            _ => false,
        };
        if is_replaced {
            let is_flag = matches!(name, PropertyName::Flag | PropertyName::IsBot);
            self.replaced.push(ReplacedValue { json, is_flag });
        }
        let property = match name {
            PropertyName::WriteOnly | PropertyName::Flag => return,
            PropertyName::Referrer => &mut self.referrer,
            PropertyName::UserId => &mut self.user,
            PropertyName::IsBot => &mut self.is_bot,
            PropertyName::Agent => &mut self.agent,
            PropertyName::Url => &mut self.url,
            PropertyName::Session => &mut self.session,
            PropertyName::Utm(field) => &mut self.utm[field as usize],
            PropertyName::Device(field) => &mut self.device[field as usize],
            PropertyName::Screen(field) => &mut self.screen[field as usize],
            PropertyName::Geo(field) => &mut self.geo[field as usize],
        };
        *property = Some(json);
    }

    /// Returns the event's own `$user_id`: a string or a number.
    pub fn user(&self) -> Option<Cow<'a, str>> {
        self.user.and_then(user)
    }

    /// Returns the event's own `$user_id` as it is written, if annotating replaces it because it names no user.
    pub fn no_user(&self) -> Option<&'a str> {
        self.user.filter(|json| user(json).is_none())
    }

    /// Returns whether the event has a user agent.
    pub fn has_agent(&self) -> bool {
        given(self.agent).is_some()
    }

    /// Returns the visitor's user agent.
    pub fn agent(&self) -> Option<Cow<'a, str>> {
        self.agent.and_then(string).filter(|agent| !agent.is_empty())
    }

    /// Returns whether the event itself states that a bot sent it.
    pub fn states_bot(&self) -> bool {
        self.is_bot == Some("true")
    }
}

/// Returns the user that a `$user_id` names.
fn user(json: &str) -> Option<Cow<'_, str>> {
    string_or_number(json).filter(|user| !user.is_empty())
}

fn is_empty_array(json: &str) -> bool {
    let elements = json.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    elements.is_some_and(|elements| elements.trim_ascii().is_empty())
}

/// Reads the members of `properties`. The values that nobody reads are only skipped.
struct Members<'p, 'a> {
    properties: &'p mut Properties<'a>,
    reads_click_ids: bool,
}

/// A member's key, without a copy if it has no escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Visitor<'a> for Members<'_, 'a> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(Key(key)) = members.next_key()? {
            if let Some(name) = PropertyName::of(key.as_bytes()) {
                self.properties.set(name, members.next_value::<&RawValue>()?.get());
                continue;
            }
            match CLICK_IDS.iter().find(|name| self.reads_click_ids && **name == key) {
                None => drop(members.next_value::<IgnoredAny>()?),
                Some(name) => {
                    // The first click id counts.
                    let id = string(members.next_value::<&RawValue>()?.get()).filter(|id| !id.is_empty());
                    self.properties.click = self.properties.click.or_else(|| id.map(|id| click_hash(name, &id)));
                }
            }
        }
        Ok(())
    }
}
