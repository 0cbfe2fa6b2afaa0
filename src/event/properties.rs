//! An event's properties: those that we read, and where those that we write stand in the text.

use std::borrow::Cow;

use super::name::Name;
use super::raw_field::{Json, RawField, Shape};
use super::scan::{Key, Members, Scanner, Span, Value, space};
use super::{RejectCode, Rejection};
use crate::attribution::{CLICK_IDS, click_hash};

/// What an event's properties say, by its place in the text.
#[derive(Debug, Clone)]
pub(super) struct Properties<'a> {
    /// The event's text, and until that is known one that begins with it.
    pub text: &'a str,
    /// The properties' value.
    value: RawField,
    /// The first member that annotating replaces: most events have no other, and a list would have to be allocated.
    written: Option<Written>,
    written_too: Vec<Written>,
    /// The end of the last member, whichever it is; 0 if there is none.
    last: u16,
    pub(super) referrer: RawField,
    pub(super) url: RawField,
    pub(super) utm: [RawField; 5],
    pub(super) device: [RawField; 5],
    pub(super) screen: [RawField; 2],
    pub(super) geo: [RawField; 6],
    pub(super) click: Option<u64>,
    /// Whether click ids are looked for.
    with_clicks: bool,
    pub(super) session: RawField,
}

/// A member that annotating replaces.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    /// From the key's quotation mark to the value's end.
    raw: RawField,
    /// Whether it is `$time_flag`.
    pub is_flag: bool,
}

impl Written {
    pub(super) fn span(&self) -> Span {
        self.raw.span()
    }
}

impl Members for Properties<'_> {
    #[inline(always)]
    fn member(&mut self, scanner: &mut Scanner<'_>, key: Key<'_>, at: usize) -> Option<usize> {
        let value = scanner.value(at)?;
        self.last = value.end as u16;
        let field = match Name::of(key.text) {
            None => {
                if self.with_clicks {
                    self.click_id(key.text, RawField::new(value));
                }
                return Some(value.end);
            }
            Some(name @ (Name::Written | Name::Flag)) => {
                self.replaces(key.start, value.end, name);
                return Some(value.end);
            }
            Some(name @ Name::Referrer) => {
                self.replaces(key.start, value.end, name);
                &mut self.referrer
            }
            Some(Name::Url) => &mut self.url,
            Some(Name::Session) => &mut self.session,
            Some(Name::Utm(field)) => &mut self.utm[field as usize],
            Some(Name::Device(field)) => &mut self.device[field as usize],
            Some(Name::Screen(field)) => &mut self.screen[field as usize],
            Some(Name::Geo(field)) => &mut self.geo[field as usize],
        };
        *field = RawField::new(value);
        Some(value.end)
    }
}

impl<'a> Properties<'a> {
    /// Those of the event that a text begins with, before they are read.
    #[inline]
    pub(super) fn none(text: &'a str, with_clicks: bool) -> Self {
        Self {
            text,
            value: RawField::ABSENT,
            written: None,
            written_too: Vec::new(),
            last: 0,
            referrer: RawField::ABSENT,
            url: RawField::ABSENT,
            utm: [RawField::ABSENT; 5],
            device: [RawField::ABSENT; 5],
            screen: [RawField::ABSENT; 2],
            geo: [RawField::ABSENT; 6],
            click: None,
            with_clicks,
            session: RawField::ABSENT,
        }
    }

    /// Reads the value that comes next, and says where it ends; none if there was one before.
    #[inline(never)]
    pub(super) fn scan(&mut self, scanner: &mut Scanner<'_>, at: usize) -> Option<usize> {
        if self.value.shape != Shape::Absent {
            return None;
        }
        let start = space(self.text.as_bytes(), at);
        if self.text.as_bytes().get(start) != Some(&b'{') {
            let value = scanner.value(start)?;
            self.value = RawField::new(value);
            return Some(value.end);
        }
        let end = scanner.object(start, self)?;
        self.value = RawField::new(Value { start, end, shape: Shape::Object });
        Some(end)
    }

    /// Takes note of a member that annotating replaces: from the place of its key's quotation mark.
    fn replaces(&mut self, start: usize, end: usize, name: Name) {
        let raw = RawField::new(Value { start, end, shape: Shape::Other });
        let written = Written { raw, is_flag: name == Name::Flag };
        match self.written {
            None => self.written = Some(written),
            Some(_) => self.written_too.push(written),
        }
    }

    /// Takes note of a click id; the first counts.
    fn click_id(&mut self, key: &[u8], value: RawField) {
        let Some(name) = CLICK_IDS.iter().find(|name| name.as_bytes() == key) else { return };
        if self.click.is_none() {
            self.click = self.text(value).filter(|id| !id.is_empty()).map(|id| click_hash(name, &id));
        }
    }

    /// The members that annotating replaces, in the order of the text.
    pub(super) fn written(&self) -> impl Iterator<Item = &Written> {
        self.written.iter().chain(&self.written_too)
    }

    /// The event's own `$referrer`.
    pub(super) fn referrer(&self) -> Json<'a> {
        self.json(self.referrer)
    }

    pub(super) fn json(&self, raw: RawField) -> Json<'a> {
        raw.of(self.text)
    }

    pub(super) fn text(&self, raw: RawField) -> Option<Cow<'a, str>> {
        self.json(raw).text()
    }

    pub(super) fn text_or_number(&self, raw: RawField) -> Option<Cow<'a, str>> {
        let number = self.json(raw).raw().filter(|raw| raw.starts_with(|c: char| c.is_ascii_digit() || c == '-'));
        number.map(Cow::Borrowed).or_else(|| self.text(raw))
    }

    /// Where the properties' value stands, if there is one.
    pub(super) fn object(&self) -> Option<Span> {
        (self.value.shape != Shape::Absent).then(|| self.value.span())
    }

    /// Whether nothing stands in the place of the properties: a null, or the empty list that PHP makes of an empty map.
    pub(super) fn is_empty(&self) -> bool {
        match self.value.shape {
            Shape::Null => true,
            Shape::Other => self.json(self.value).raw().is_some_and(|raw| {
                raw.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).is_some_and(|rest| rest.trim().is_empty())
            }),
            _ => false,
        }
    }

    /// The end of the last member, if there is one.
    pub(super) fn last(&self) -> Option<usize> {
        (self.last > 0).then_some(usize::from(self.last))
    }

    /// Whether it is properties, or nothing, that stands in their place.
    pub(super) fn check(&self) -> Result<(), Rejection> {
        if self.value.is_given() && self.value.shape != Shape::Object && !self.is_empty() {
            let message = "`properties` is not an object; send `{…}` or leave it out";
            return Err(Rejection::new(RejectCode::InvalidProperties, message));
        }
        Ok(())
    }
}
