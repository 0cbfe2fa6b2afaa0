//! An event's properties: those that we read, and where those that we write stand in the text.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

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

/// The properties that [`super::Event::annotate`] writes: an event's own values of these give way.
pub(super) const WRITTEN: [&str; 15] = [
    "$session_id",
    "$session_duration",
    "$session_page_views",
    "$entry_url",
    "$exit_url",
    "$referrer",
    "$event_referrer",
    "$session_start_reason",
    "$session_number",
    "$previous_session_id",
    "$session_start",
    "$session_version",
    "$late",
    "$event_time",
    TIME_FLAG,
];

/// The property that an event without a session can get, too.
pub(super) const TIME_FLAG: &str = "$time_flag";

/// A member of the properties object in the event's text.
#[derive(Debug, Clone)]
pub(super) struct Member {
    /// Bytes of the text: from the key's quotation mark to the value's end.
    pub start: usize,
    pub end: usize,
}

/// What an event's properties say.
#[derive(Debug, Clone, Default)]
pub(super) struct Properties<'a> {
    /// The properties object, or the null in its place, in bytes of the text; none where the event has neither.
    pub object: Option<Member>,
    pub is_null: bool,
    /// Members that annotating replaces, by their names.
    pub written: Vec<(&'static str, Member)>,
    /// The last member, whichever it is.
    pub last: Option<Member>,
    /// The event's own `$referrer`, as JSON.
    pub referrer: Option<&'a RawValue>,
    url: Option<Cow<'a, str>>,
    utm: [Option<Cow<'a, str>>; 5],
    device: [Option<Cow<'a, str>>; 5],
    screen: [Option<Cow<'a, str>>; 2],
    geo: [Option<Cow<'a, str>>; 6],
    click: Option<u64>,
    session: Option<&'a RawValue>,
}

const UTM: [&str; 5] = ["utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content"];
const DEVICE: [&str; 5] = ["$device_type", "$os", "$os_version", "$browser", "$browser_version"];
const SCREEN: [&str; 2] = ["$screen_width", "$screen_height"];
const GEO: [&str; 6] = [
    "$geoip_country_code",
    "$geoip_subdivision_1_code",
    "$geoip_city_name",
    "$geoip_time_zone",
    "$geoip_country_name",
    "$geoip_subdivision_1_name",
];

impl<'a> Properties<'a> {
    /// Reads the properties object `raw`, which is a part of `text`.
    pub(super) fn parse(raw: Option<&'a RawValue>, text: &'a str, config: &SessionConfig) -> Result<Self, Rejection> {
        let Some(raw) = raw else { return Ok(Self::default()) };
        let mut properties = Self { object: Some(span(text, raw.get(), raw.get())), ..Self::default() };
        if raw.get() == "null" {
            return Ok(Self { is_null: true, ..properties });
        }
        let reject = || {
            let message = "`properties` is not an object; send `{…}` or leave it out";
            Rejection::new(RejectCode::InvalidProperties, message)
        };
        if !raw.get().starts_with('{') {
            return Err(reject());
        }
        let members = Members { properties: &mut properties, text, with_clicks: config.new_session_on_click_id_change };
        serde_json::Deserializer::from_str(raw.get()).deserialize_map(members).map_err(|_| reject())?;
        Ok(properties)
    }

    /// Takes note of one member.
    fn member(&mut self, key: &str, raw_key: &'a str, value: &'a RawValue, text: &str, with_clicks: bool) {
        let member = span(text, raw_key, value.get());
        if let Some(name) = WRITTEN.iter().find(|name| **name == key) {
            self.written.push((name, member.clone()));
        }
        self.last = Some(member);
        let position = |names: &[&str]| names.iter().position(|name| *name == key);
        match key {
            "$current_url" => self.url = text_of(value),
            "$referrer" => self.referrer = Some(value),
            "$session_properties" => self.session = Some(value),
            _ if key.starts_with("utm_") => {
                if let Some(at) = position(&UTM) {
                    self.utm[at] = text_of(value);
                }
            }
            _ if key.starts_with("$geoip_") => {
                if let Some(at) = position(&GEO) {
                    self.geo[at] = text_of(value);
                }
            }
            _ if key.starts_with('$') => {
                if let Some(at) = position(&DEVICE) {
                    self.device[at] = text_or_number(value);
                } else if let Some(at) = position(&SCREEN) {
                    self.screen[at] = text_or_number(value);
                }
            }
            _ if with_clicks && self.click.is_none() && CLICK_IDS.contains(&key) => {
                self.click = text_of(value).filter(|id| !id.is_empty()).map(|id| click_hash(key, &id));
            }
            _ => {}
        }
    }

    /// What the event says of where it came from, within the bounds of what a session keeps.
    pub(super) fn context(&self, config: &SessionConfig) -> SessionContext {
        let url = self.url.as_deref().filter(|url| !url.is_empty());
        let explicit = UtmParams::from_lookup(|name| {
            let at = UTM.iter().position(|field| *field == name)?;
            self.utm[at].as_deref().map(str::to_owned)
        });
        let referrer = self.referrer.and_then(text_of).filter(|referrer| is_external(referrer, url, config));
        SessionContext {
            url: url.map(|url| bounded(url, MAX_URL_BYTES)),
            referrer: referrer.map(|referrer| bounded(&referrer, MAX_URL_BYTES)),
            utm: explicit.or_else(|| url.and_then(utm_of)).map(bounded_utm),
            device: self.device(),
            geo: self.geo(),
        }
    }

    /// The click id that the properties, else the address, name.
    pub(super) fn click(&self) -> Option<u64> {
        self.click.or_else(|| self.url.as_deref().and_then(click_of))
    }

    fn device(&self) -> Option<DeviceInfo> {
        let [kind, os, os_version, browser, browser_version] = self.device.each_ref().map(|text| kept(text.as_deref()));
        let screen_resolution = match &self.screen {
            [Some(width), Some(height)] => kept(Some(&format!("{width}x{height}"))),
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
        let [country, region, city, timezone, country_name, region_name] =
            self.geo.each_ref().map(|text| kept(text.as_deref()));
        let geo = GeoInfo { country: country.or(country_name), region: region.or(region_name), city, timezone };
        (geo != GeoInfo::default()).then_some(geo)
    }

    /// Custom session properties, as JSON: keys too long are left out, and so is what is not an object.
    pub(super) fn session_properties(&self) -> Vec<(String, String)> {
        let Some(raw) = self.session else { return Vec::new() };
        let parsed: Result<std::collections::BTreeMap<String, &RawValue>, _> = serde_json::from_str(raw.get());
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

/// The bytes of `text` from the start of one of its parts to the end of another.
pub(super) fn span(text: &str, from: &str, to: &str) -> Member {
    let offset = |part: &str| part.as_ptr().addr() - text.as_ptr().addr();
    Member { start: offset(from), end: offset(to) + to.len() }
}

fn text_or_number(value: &RawValue) -> Option<Cow<'_, str>> {
    let text = value.get();
    let is_number = text.starts_with(|c: char| c.is_ascii_digit() || c == '-');
    if is_number { Some(Cow::Borrowed(text)) } else { text_of(value) }
}

/// A text that a session keeps: none if empty, cut at its bound.
fn kept(text: Option<&str>) -> Option<String> {
    text.filter(|text| !text.is_empty()).map(|text| bounded(text, MAX_TEXT_BYTES))
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

/// Walks the properties object once, by reference to the text.
struct Members<'p, 'a> {
    properties: &'p mut Properties<'a>,
    text: &'a str,
    with_clicks: bool,
}

impl<'a> Visitor<'a> for Members<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((raw_key, value)) = map.next_entry::<&'a RawValue, &'a RawValue>()? {
            let key = text_of(raw_key).unwrap_or_default();
            self.properties.member(&key, raw_key.get(), value, self.text, self.with_clicks);
        }
        Ok(())
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
        let raw: &RawValue = serde_json::from_str(&text).unwrap();
        let properties =
            Properties::parse(Some(raw), raw.get(), &SessionConfig::default()).unwrap().session_properties();
        let long = "k".repeat(MAX_KEY_BYTES);
        let wanted = [("a", "[1, 2]"), ("b", "\"\\n\""), (long.as_str(), "1")];
        assert!(properties.iter().map(|(key, value)| (key.as_str(), value.as_str())).eq(wanted), "{properties:?}");
    }
}
