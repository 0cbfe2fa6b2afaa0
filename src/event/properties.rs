//! An event's `properties`: the values that the service reads, and the positions of the members that it replaces.

use std::borrow::Cow;

use super::name::PropertyName;
use super::raw_field::{Json, RawField, Shape};
use super::scan::{Key, MemberHandler, Scanner, Span, Value, skip_space};
use super::{RejectCode, Rejection};
use crate::attribution::{CLICK_IDS, click_hash};

/// An empty string in JSON.
const EMPTY_STRING: &str = "\"\"";

/// An event's properties, as positions in its JSON.
#[derive(Debug, Clone)]
pub(super) struct Properties<'a> {
    /// The event's JSON. While the event is scanned, it is the string that begins with the event.
    pub event_json: &'a str,
    /// The value of `properties`.
    value: RawField,
    /// The first member that annotating replaces. It is not in the list, because most events have no other, and a list has to be
    /// allocated.
    first_replaced: Option<ReplacedMember>,
    /// The other members that annotating replaces.
    more_replaced: Vec<ReplacedMember>,
    /// The end of the last member, or 0 if there is none.
    last_end: u16,
    pub(super) referrer: RawField,
    pub(super) url: RawField,
    pub(super) utm: [RawField; 5],
    pub(super) device: [RawField; 5],
    pub(super) screen: [RawField; 2],
    pub(super) geo: [RawField; 6],
    pub(super) click: Option<u64>,
    /// Whether click ids are read. They cost time, and only one rule needs them.
    reads_click_ids: bool,
    pub(super) session: RawField,
    user: RawField,
    agent: RawField,
    is_bot: RawField,
}

/// A member that annotating replaces.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReplacedMember {
    /// From the key's first quotation mark to the value's end.
    raw: RawField,
    /// Whether it is a flag ([`PropertyName::Flag`]), which is also replaced without a session.
    pub is_flag: bool,
}

impl ReplacedMember {
    pub(super) fn span(&self) -> Span {
        self.raw.span()
    }
}

impl MemberHandler for Properties<'_> {
    #[inline(always)]
    fn member(&mut self, scanner: &mut Scanner<'_>, key: Key<'_>, at: usize) -> Option<usize> {
        let value = scanner.value(at)?;
        self.last_end = value.end as u16;
        let field = match PropertyName::of(key.name) {
            None => {
                if self.reads_click_ids {
                    self.click_id(key.name, RawField::new(value));
                }
                return Some(value.end);
            }
            Some(name @ (PropertyName::WriteOnly | PropertyName::Flag)) => {
                self.note_replaced(key.start, value.end, name);
                return Some(value.end);
            }
            Some(name @ PropertyName::Referrer) => {
                self.note_replaced(key.start, value.end, name);
                &mut self.referrer
            }
            Some(name @ PropertyName::UserId) => {
                if matches!(value.shape, Shape::Null) || value.end - value.start == EMPTY_STRING.len() {
                    self.note_replaced(key.start, value.end, name);
                }
                &mut self.user
            }
            Some(name @ PropertyName::IsBot) => {
                self.note_replaced(key.start, value.end, name);
                &mut self.is_bot
            }
            Some(PropertyName::Agent) => &mut self.agent,
            Some(PropertyName::Url) => &mut self.url,
            Some(PropertyName::Session) => &mut self.session,
            Some(PropertyName::Utm(field)) => &mut self.utm[field as usize],
            Some(PropertyName::Device(field)) => &mut self.device[field as usize],
            Some(PropertyName::Screen(field)) => &mut self.screen[field as usize],
            Some(PropertyName::Geo(field)) => &mut self.geo[field as usize],
        };
        *field = RawField::new(value);
        Some(value.end)
    }
}

impl<'a> Properties<'a> {
    /// Returns the properties of an event that is not scanned yet.
    #[inline]
    pub(super) fn empty(event_json: &'a str, reads_click_ids: bool) -> Self {
        Self {
            event_json,
            value: RawField::ABSENT,
            first_replaced: None,
            more_replaced: Vec::new(),
            last_end: 0,
            referrer: RawField::ABSENT,
            url: RawField::ABSENT,
            utm: [RawField::ABSENT; 5],
            device: [RawField::ABSENT; 5],
            screen: [RawField::ABSENT; 2],
            geo: [RawField::ABSENT; 6],
            click: None,
            reads_click_ids,
            session: RawField::ABSENT,
            user: RawField::ABSENT,
            agent: RawField::ABSENT,
            is_bot: RawField::ABSENT,
        }
    }

    /// Scans the value of `properties` and returns where it ends.
    ///
    /// Returns `None` if it is not valid, or if the event already had `properties`.
    #[inline(never)]
    pub(super) fn scan(&mut self, scanner: &mut Scanner<'_>, at: usize) -> Option<usize> {
        if self.value.shape != Shape::Absent {
            return None;
        }
        let start = skip_space(self.event_json.as_bytes(), at);
        if self.event_json.as_bytes().get(start) != Some(&b'{') {
            let value = scanner.value(start)?;
            self.value = RawField::new(value);
            return Some(value.end);
        }
        let end = scanner.object(start, self)?;
        self.value = RawField::new(Value { start, end, shape: Shape::Object });
        Some(end)
    }

    /// Remembers a member that annotating replaces. `start` is the position of its key's first quotation mark.
    fn note_replaced(&mut self, start: usize, end: usize, name: PropertyName) {
        let raw = RawField::new(Value { start, end, shape: Shape::Other });
        let member = ReplacedMember { raw, is_flag: matches!(name, PropertyName::Flag | PropertyName::IsBot) };
        match self.first_replaced {
            None => self.first_replaced = Some(member),
            Some(_) => self.more_replaced.push(member),
        }
    }

    /// Remembers the value if `key` is a click id. The first click id counts.
    fn click_id(&mut self, key: &[u8], value: RawField) {
        let Some(name) = CLICK_IDS.iter().find(|name| name.as_bytes() == key) else { return };
        if self.click.is_none() {
            self.click = self.string(value).filter(|id| !id.is_empty()).map(|id| click_hash(name, &id));
        }
    }

    /// Returns the members that annotating replaces, in the order of the JSON.
    pub(super) fn replaced_members(&self) -> impl Iterator<Item = &ReplacedMember> {
        self.first_replaced.iter().chain(&self.more_replaced)
    }

    /// Returns the event's own `$referrer`.
    pub(super) fn referrer(&self) -> Json<'a> {
        self.json(self.referrer)
    }

    /// Returns the event's own `$user_id`: a string or a number.
    pub(super) fn user(&self) -> Option<Cow<'a, str>> {
        if !self.user.is_given() {
            return None;
        }
        self.string_or_number(self.user).filter(|user| !user.is_empty())
    }

    /// Returns whether the event has a user agent.
    pub(super) fn has_agent(&self) -> bool {
        self.agent.is_given()
    }

    /// Returns the visitor's user agent.
    pub(super) fn agent(&self) -> Option<Cow<'a, str>> {
        self.string(self.agent).filter(|agent| !agent.is_empty())
    }

    /// Returns whether the event itself states that a bot sent it.
    pub(super) fn states_bot(&self) -> bool {
        self.is_bot.shape == Shape::Other && self.json(self.is_bot).raw() == Some("true")
    }

    /// Returns the event's own `$user_id` as it is written, if annotating replaces it because it names no user.
    pub(super) fn empty_user(&self) -> Option<&'a str> {
        if self.user.shape == Shape::Absent {
            return None;
        }
        self.json(self.user).raw().filter(|&raw| raw == "null" || raw == EMPTY_STRING)
    }

    pub(super) fn json(&self, raw: RawField) -> Json<'a> {
        raw.of(self.event_json)
    }

    /// Returns a value that is a string.
    pub(super) fn string(&self, raw: RawField) -> Option<Cow<'a, str>> {
        self.json(raw).string()
    }

    /// Returns a value that is a string or a number. A number is returned as it is written.
    pub(super) fn string_or_number(&self, raw: RawField) -> Option<Cow<'a, str>> {
        if raw.shape != Shape::Other {
            return self.string(raw);
        }
        let number = self.json(raw).raw().filter(|raw| raw.starts_with(|c: char| c.is_ascii_digit() || c == '-'));
        number.map(Cow::Borrowed)
    }

    /// Returns the position of the value of `properties`, if there is one. It may be null or an empty array ([`Self::is_empty`]).
    pub(super) fn value_span(&self) -> Option<Span> {
        (self.value.shape != Shape::Absent).then(|| self.value.span())
    }

    /// Returns whether `properties` is null or an empty array, which is how PHP writes an empty map.
    pub(super) fn is_empty(&self) -> bool {
        match self.value.shape {
            Shape::Null => true,
            Shape::Other => self.json(self.value).raw().is_some_and(|raw| {
                raw.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).is_some_and(|rest| rest.trim().is_empty())
            }),
            _ => false,
        }
    }

    /// Returns the end of the last member, if there is one.
    pub(super) fn last_end(&self) -> Option<usize> {
        (self.last_end > 0).then_some(usize::from(self.last_end))
    }

    /// Checks that `properties` is an object, empty or absent.
    ///
    /// # Errors
    /// Returns [`RejectCode::InvalidProperties`] if it is anything else.
    pub(super) fn check(&self) -> Result<(), Rejection> {
        if self.value.is_given() && self.value.shape != Shape::Object && !self.is_empty() {
            let message = "`properties` is not an object; send `{…}` or leave it out";
            return Err(Rejection::new(RejectCode::InvalidProperties, message));
        }
        Ok(())
    }
}
