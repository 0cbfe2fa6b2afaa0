//! An event's properties: those that we read, and where those that we write stand in the text.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::name::Name;
use super::part::{Json, Part, Shape};
use super::scan::{Key, Members, Scanner, Span, Value, space};
use super::{RejectCode, Rejection};
use crate::attribution::{CLICK_IDS, click_hash, click_of, is_external, utm_of};
use crate::config::SessionConfig;
use crate::session::{DeviceInfo, GeoInfo, SessionContext, UtmParams};

/// Bytes of an address that are kept in a session; browsers and servers agree on about as much.
const MAX_URL_BYTES: usize = 2048;
/// Bytes of any other text that is kept in a session.
const MAX_TEXT_BYTES: usize = 256;
/// Bytes of a custom session property's key at the most; a longer one is left out.
const MAX_KEY_BYTES: usize = 64;

/// The property that an event without a session can get, too.
pub(super) const TIME_FLAG: &str = "$time_flag";

/// What an event's properties say, by its place in the text.
#[derive(Debug, Clone)]
pub(super) struct Properties<'a> {
    /// The event's text, and until that is known one that begins with it.
    pub text: &'a str,
    /// The properties' value.
    value: Part,
    /// The first member that annotating replaces: most events have no other, and a list would have to be allocated.
    written: Option<Written>,
    written_too: Vec<Written>,
    /// The end of the last member, whichever it is; 0 if there is none.
    last: u16,
    referrer: Part,
    url: Part,
    utm: [Part; 5],
    device: [Part; 5],
    screen: [Part; 2],
    geo: [Part; 6],
    click: Option<u64>,
    /// Whether click ids are looked for.
    with_clicks: bool,
    session: Part,
}

/// A member that annotating replaces.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    /// From the key's quotation mark to the value's end.
    part: Part,
    /// Whether it is `$time_flag`.
    pub is_flag: bool,
}

impl Written {
    pub(super) fn span(&self) -> Span {
        self.part.span()
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
                    self.click_id(key.text, Part::new(value));
                }
                return Some(value.end);
            }
            Some(name @ (Name::Written | Name::Flag)) => {
                self.replaces(key.start, value.end, name == Name::Flag);
                return Some(value.end);
            }
            Some(Name::Referrer) => {
                self.replaces(key.start, value.end, false);
                &mut self.referrer
            }
            Some(Name::Url) => &mut self.url,
            Some(Name::Session) => &mut self.session,
            Some(Name::Utm(at)) => &mut self.utm[at],
            Some(Name::Device(at)) => &mut self.device[at],
            Some(Name::Screen(at)) => &mut self.screen[at],
            Some(Name::Geo(at)) => &mut self.geo[at],
        };
        *field = Part::new(value);
        Some(value.end)
    }
}

impl<'a> Properties<'a> {
    /// Those of the event that a text begins with, before they are read.
    #[inline]
    pub(super) fn none(text: &'a str, with_clicks: bool) -> Self {
        Self {
            text,
            value: Part::ABSENT,
            written: None,
            written_too: Vec::new(),
            last: 0,
            referrer: Part::ABSENT,
            url: Part::ABSENT,
            utm: [Part::ABSENT; 5],
            device: [Part::ABSENT; 5],
            screen: [Part::ABSENT; 2],
            geo: [Part::ABSENT; 6],
            click: None,
            with_clicks,
            session: Part::ABSENT,
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
            self.value = Part::new(value);
            return Some(value.end);
        }
        let end = scanner.object(start, self)?;
        self.value = Part::new(Value { start, end, shape: Shape::Object });
        Some(end)
    }

    /// Takes note of a member that annotating replaces: from the place of its key's quotation mark.
    fn replaces(&mut self, start: usize, end: usize, is_flag: bool) {
        let written = Written { part: Part::new(Value { start, end, shape: Shape::Other }), is_flag };
        match self.written {
            None => self.written = Some(written),
            Some(_) => self.written_too.push(written),
        }
    }

    /// Takes note of a click id; the first counts.
    fn click_id(&mut self, key: &[u8], value: Part) {
        let Some(name) = CLICK_IDS.iter().find(|name| name.as_bytes() == key) else { return };
        if self.click.is_none() {
            self.click = self.text(value).filter(|id| !id.is_empty()).map(|id| click_hash(name, &id));
        }
    }

    /// The members that annotating replaces, in the order of the text.
    pub(super) fn written(&self) -> impl Iterator<Item = &Written> {
        self.written.iter().chain(&self.written_too)
    }

    /// The event's own `$referrer`, as JSON.
    pub(super) fn referrer(&self) -> Option<&'a str> {
        self.json(self.referrer).raw()
    }

    fn json(&self, part: Part) -> Json<'a> {
        part.of(self.text)
    }

    fn text(&self, part: Part) -> Option<Cow<'a, str>> {
        self.json(part).text()
    }

    fn text_or_number(&self, part: Part) -> Option<Cow<'a, str>> {
        let number = self.json(part).raw().filter(|raw| raw.starts_with(|c: char| c.is_ascii_digit() || c == '-'));
        number.map(Cow::Borrowed).or_else(|| self.text(part))
    }

    /// Whether parts of ours read the same as those of another event.
    fn is_same(&self, ours: &[Part], other: &Self, theirs: &[Part]) -> bool {
        ours.iter().zip(theirs).all(|(&ours, &theirs)| self.json(ours).is_same(other.json(theirs)))
    }

    /// Where the properties' value stands, if there is one.
    pub(super) fn object(&self) -> Option<Span> {
        (self.value.shape != Shape::Absent).then(|| self.value.span())
    }

    /// Whether a null stands in the place of the properties.
    pub(super) fn is_null(&self) -> bool {
        self.value.shape == Shape::Null
    }

    /// The end of the last member, if there is one.
    pub(super) fn last(&self) -> Option<usize> {
        (self.last > 0).then_some(usize::from(self.last))
    }

    /// Whether it is properties, or nothing, that stands in their place.
    pub(super) fn check(&self) -> Result<(), Rejection> {
        if self.value.is_given() && self.value.shape != Shape::Object {
            let message = "`properties` is not an object; send `{…}` or leave it out";
            return Err(Rejection::new(RejectCode::InvalidProperties, message));
        }
        Ok(())
    }

    /// What the event says of where it came from, within the bounds of what a session keeps.
    /// `before` is what another event says.
    pub(super) fn context(&self, before: Option<(&Self, &SessionContext)>, config: &SessionConfig) -> SessionContext {
        let url = self.url();
        let url = url.as_deref();
        let referrer = self.text(self.referrer).filter(|referrer| is_external(referrer, url, config));
        SessionContext {
            url: url.map(|url| bounded(url, MAX_URL_BYTES)),
            referrer: referrer.map(|referrer| bounded(&referrer, MAX_URL_BYTES)),
            utm: self.utm().or_else(|| url.and_then(utm_of)).map(bounded_utm),
            device: match before {
                Some((it, context))
                    if self.is_same(&self.device, it, &it.device) && self.is_same(&self.screen, it, &it.screen) =>
                {
                    context.device.clone()
                }
                _ => self.device().map(Arc::new),
            },
            geo: match before {
                Some((it, context)) if self.is_same(&self.geo, it, &it.geo) => context.geo.clone(),
                _ => self.geo().map(Arc::new),
            },
        }
    }

    fn url(&self) -> Option<Cow<'a, str>> {
        self.text(self.url).filter(|url| !url.is_empty())
    }

    fn utm(&self) -> Option<UtmParams> {
        if self.utm.iter().all(|part| part.shape == Shape::Absent) {
            return None;
        }
        let mut fields = self.utm.iter().map(|&part| self.text(part).map(Cow::into_owned));
        UtmParams::of_fields(std::array::from_fn(|_| fields.next().flatten()))
    }

    /// The click id that the properties, else the address, name.
    pub(super) fn click(&self) -> Option<u64> {
        self.click.or_else(|| self.url().as_deref().and_then(click_of))
    }

    fn device(&self) -> Option<DeviceInfo> {
        if self.device.iter().chain(&self.screen).all(|part| part.shape == Shape::Absent) {
            return None;
        }
        let [kind, os, os_version, browser, browser_version] = self.device.map(|part| kept(self.text_or_number(part)));
        let screen_resolution = match self.screen.map(|part| self.text_or_number(part)) {
            [Some(width), Some(height)] => kept(Some(Cow::Owned([&*width, &*height].join("x")))),
            _ => None,
        };
        let is_known =
            [&kind, &os, &os_version, &browser, &browser_version, &screen_resolution].iter().any(|f| f.is_some());
        is_known.then(|| DeviceInfo {
            device_type: kind.unwrap_or_default(),
            os,
            os_version,
            browser,
            browser_version,
            screen_resolution,
        })
    }

    fn geo(&self) -> Option<GeoInfo> {
        if self.geo.iter().all(|part| part.shape == Shape::Absent) {
            return None;
        }
        let [country, region, city, timezone, country_name, region_name] = self.geo.map(|part| kept(self.text(part)));
        let geo = GeoInfo { country: country.or(country_name), region: region.or(region_name), city, timezone };
        (geo != GeoInfo::default()).then_some(geo)
    }

    /// Custom session properties, as JSON: keys too long are left out, and so is what is not an object.
    pub(super) fn session_properties(&self) -> Vec<(String, String)> {
        let Some(raw) = self.json(self.session).raw() else { return Vec::new() };
        let parsed: Result<std::collections::BTreeMap<String, &RawValue>, _> = serde_json::from_str(raw);
        let pairs = parsed.unwrap_or_default().into_iter();
        pairs
            .filter(|(key, value)| {
                key.len() <= MAX_KEY_BYTES && value.get().len() <= crate::timeline::MAX_PROPERTY_BYTES
            })
            // The lines that say a session's end hold them as they are; line breaks can only stand between tokens.
            .map(|(key, value)| (key, value.get().replace(['\n', '\r'], " ")))
            .collect()
    }
}

/// A text that a session keeps: none if empty, cut at its bound.
fn kept(text: Option<Cow<'_, str>>) -> Option<String> {
    text.filter(|text| !text.is_empty()).map(|text| bounded(&text, MAX_TEXT_BYTES))
}

/// A text cut to at most so many bytes, at a character's end.
fn bounded(text: &str, bytes: usize) -> String {
    text[..text.floor_char_boundary(bytes)].to_owned()
}

fn bounded_utm(utm: UtmParams) -> UtmParams {
    let short = |field: Option<String>| field.map(|text| bounded(&text, MAX_TEXT_BYTES));
    UtmParams {
        source: short(utm.source),
        medium: short(utm.medium),
        campaign: short(utm.campaign),
        term: short(utm.term),
        content: short(utm.content),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_properties_hold_no_line_break_and_no_long_key() {
        let text = format!(
            "{{\"$session_properties\": {{\"a\":\r\n [1,\n2], \"b\": \"\\n\", \"{}\":1, \"{}\":2}}}}",
            "k".repeat(MAX_KEY_BYTES),
            "l".repeat(MAX_KEY_BYTES + 1)
        );
        let mut properties = Properties::none(&text, false);
        properties.scan(&mut Scanner::new(&text), 0).unwrap();
        let properties = properties.session_properties();
        let long = "k".repeat(MAX_KEY_BYTES);
        let wanted = [("a", "[1, 2]"), ("b", "\"\\n\""), (long.as_str(), "1")];
        assert!(properties.iter().map(|(key, value)| (key.as_str(), value.as_str())).eq(wanted), "{properties:?}");
    }
}
