//! An event's properties: those that we read, and where those that we write stand in the text.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::scan::{Key, Scanner, Span};
use super::{RejectCode, Rejection, text_of};
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

/// What an event's properties say: JSON as it stands in the text.
#[derive(Debug, Clone, Default)]
pub(super) struct Properties<'a> {
    /// The properties' value; none where the event has none.
    pub object: Option<Span>,
    kind: Value,
    /// Members that annotating replaces, by their names: from the key's quotation mark to the value's end.
    pub written: Vec<(&'static str, Span)>,
    /// The end of the last member, whichever it is.
    pub last: Option<usize>,
    /// The event's own `$referrer`.
    pub referrer: Option<&'a str>,
    url: Option<&'a str>,
    utm: [Option<&'a str>; 5],
    device: [Option<&'a str>; 5],
    screen: [Option<&'a str>; 2],
    geo: [Option<&'a str>; 6],
    click: Option<u64>,
    session: Option<&'a str>,
}

/// What stands in the place of the properties.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Value {
    #[default]
    Object,
    Null,
    Other,
}

/// A property that we read or write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Url,
    Referrer,
    Session,
    Utm(usize),
    Device(usize),
    Screen(usize),
    Geo(usize),
    /// It is only written.
    Written,
}

/// The properties whose names are so long.
fn names(length: usize) -> &'static [(&'static str, Name)] {
    use Name::{Device, Geo, Referrer, Screen, Session, Url, Utm, Written};
    match length {
        3 => &[("$os", Device(1))],
        5 => &[("$late", Written)],
        8 => &[("$browser", Device(3)), ("utm_term", Utm(3))],
        9 => &[("$referrer", Referrer), ("$exit_url", Written)],
        10 => &[("utm_source", Utm(0)), ("utm_medium", Utm(1)), ("$entry_url", Written), (TIME_FLAG, Written)],
        11 => {
            &[("$os_version", Device(2)), ("utm_content", Utm(4)), ("$session_id", Written), ("$event_time", Written)]
        }
        12 => &[("$current_url", Url), ("$device_type", Device(0)), ("utm_campaign", Utm(2))],
        13 => &[("$screen_width", Screen(0))],
        14 => &[("$screen_height", Screen(1)), ("$session_start", Written)],
        15 => &[("$session_number", Written), ("$event_referrer", Written)],
        16 => &[
            ("$browser_version", Device(4)),
            ("$geoip_city_name", Geo(2)),
            ("$geoip_time_zone", Geo(3)),
            ("$session_version", Written),
        ],
        17 => &[("$session_duration", Written)],
        19 => &[
            ("$geoip_country_code", Geo(0)),
            ("$geoip_country_name", Geo(4)),
            ("$session_properties", Session),
            ("$session_page_views", Written),
        ],
        20 => &[("$previous_session_id", Written)],
        21 => &[("$session_start_reason", Written)],
        25 => &[("$geoip_subdivision_1_code", Geo(1)), ("$geoip_subdivision_1_name", Geo(5))],
        _ => &[],
    }
}

impl<'a> Properties<'a> {
    /// Reads the value that comes next, a part of `text`; none if there was one before.
    pub(super) fn scan(&mut self, scanner: &mut Scanner<'a>, text: &'a str, with_clicks: bool) -> Option<()> {
        if self.object.is_some() {
            return None;
        }
        if scanner.peek()? != b'{' {
            let span = scanner.value()?;
            self.kind = if &text[span.start..span.end] == "null" { Value::Null } else { Value::Other };
            self.object = Some(span);
            return Some(());
        }
        let start = scanner.place();
        scanner.object(|scanner, key| {
            let value = scanner.value()?;
            self.last = Some(value.end);
            self.member(&key, value, text, with_clicks);
            Some(())
        })?;
        self.object = Some(Span { start, end: scanner.place() });
        Some(())
    }

    /// Takes note of one member.
    fn member(&mut self, key: &Key<'a>, value: Span, text: &'a str, with_clicks: bool) {
        // No other character begins a name of ours.
        let is_ours = matches!(key.text.as_bytes().first(), Some(b'$' | b'u'));
        let names = if is_ours { names(key.text.len()) } else { &[] };
        let raw = &text[value.start..value.end];
        let Some(&(name, kind)) = names.iter().find(|(name, _)| *name == key.text) else {
            if with_clicks && self.click.is_none() && CLICK_IDS.contains(&&*key.text) {
                self.click = text_of(raw).filter(|id| !id.is_empty()).map(|id| click_hash(&key.text, &id));
            }
            return;
        };
        if matches!(kind, Name::Written | Name::Referrer) {
            self.written.push((name, Span { start: key.start, end: value.end }));
        }
        let field = match kind {
            Name::Url => &mut self.url,
            Name::Referrer => &mut self.referrer,
            Name::Session => &mut self.session,
            Name::Utm(at) => &mut self.utm[at],
            Name::Device(at) => &mut self.device[at],
            Name::Screen(at) => &mut self.screen[at],
            Name::Geo(at) => &mut self.geo[at],
            Name::Written => return,
        };
        *field = Some(raw);
    }

    /// Whether a null stands in the place of the properties.
    pub(super) fn is_null(&self) -> bool {
        self.kind == Value::Null
    }

    /// Whether it is properties, or nothing, that stands in their place.
    pub(super) fn check(&self) -> Result<(), Rejection> {
        if self.kind == Value::Other {
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
        let referrer = self.referrer.and_then(text_of).filter(|referrer| is_external(referrer, url, config));
        SessionContext {
            url: url.map(|url| bounded(url, MAX_URL_BYTES)),
            referrer: referrer.map(|referrer| bounded(&referrer, MAX_URL_BYTES)),
            utm: self.utm().or_else(|| url.and_then(utm_of)).map(bounded_utm),
            device: match before {
                Some((it, context)) if (it.device, it.screen) == (self.device, self.screen) => context.device.clone(),
                _ => self.device().map(Arc::new),
            },
            geo: match before {
                Some((it, context)) if it.geo == self.geo => context.geo.clone(),
                _ => self.geo().map(Arc::new),
            },
        }
    }

    fn url(&self) -> Option<Cow<'a, str>> {
        self.url.and_then(text_of).filter(|url| !url.is_empty())
    }

    fn utm(&self) -> Option<UtmParams> {
        if self.utm.iter().all(Option::is_none) {
            return None;
        }
        let mut fields = self.utm.iter().map(|raw| raw.and_then(text_of).map(Cow::into_owned));
        UtmParams::of_fields(std::array::from_fn(|_| fields.next().flatten()))
    }

    /// The click id that the properties, else the address, name.
    pub(super) fn click(&self) -> Option<u64> {
        self.click.or_else(|| self.url().as_deref().and_then(click_of))
    }

    fn device(&self) -> Option<DeviceInfo> {
        if self.device.iter().chain(&self.screen).all(Option::is_none) {
            return None;
        }
        let [kind, os, os_version, browser, browser_version] =
            self.device.map(|raw| kept(raw.and_then(text_or_number)));
        let screen_resolution = match self.screen.map(|raw| raw.and_then(text_or_number)) {
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
        if self.geo.iter().all(Option::is_none) {
            return None;
        }
        let [country, region, city, timezone, country_name, region_name] =
            self.geo.map(|raw| kept(raw.and_then(text_of)));
        let geo = GeoInfo { country: country.or(country_name), region: region.or(region_name), city, timezone };
        (geo != GeoInfo::default()).then_some(geo)
    }

    /// Custom session properties, as JSON: keys too long are left out, and so is what is not an object.
    pub(super) fn session_properties(&self) -> Vec<(String, String)> {
        let Some(raw) = self.session else { return Vec::new() };
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

fn text_or_number(raw: &str) -> Option<Cow<'_, str>> {
    let is_number = raw.starts_with(|c: char| c.is_ascii_digit() || c == '-');
    if is_number { Some(Cow::Borrowed(raw)) } else { text_of(raw) }
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
        let mut properties = Properties::default();
        properties.scan(&mut Scanner::new(&text), &text, false).unwrap();
        let properties = properties.session_properties();
        let long = "k".repeat(MAX_KEY_BYTES);
        let wanted = [("a", "[1, 2]"), ("b", "\"\\n\""), (long.as_str(), "1")];
        assert!(properties.iter().map(|(key, value)| (key.as_str(), value.as_str())).eq(wanted), "{properties:?}");
    }

    #[test]
    fn names_stand_under_their_lengths() {
        let all = (0..99).flat_map(|length| names(length).iter().map(move |(name, _)| (name, length)));
        assert!(all.clone().all(|(name, length)| name.len() == length && name.starts_with(['$', 'u'])));
        // The 15 that we write, `$referrer` among them, and 20 more that we read.
        assert_eq!(all.count(), 35);
    }
}
