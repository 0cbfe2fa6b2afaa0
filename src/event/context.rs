//! What an event's properties say of where it came from, and what its session keeps of them.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::part::Shape;
use super::properties::Properties;
use crate::attribution::{click_of, is_external, utm_of};
use crate::config::SessionConfig;
use crate::session::{DeviceInfo, GeoInfo, SessionContext, UtmParams};

/// Bytes of an address that are kept in a session; browsers and servers agree on about as much.
const MAX_URL_BYTES: usize = 2048;
/// Bytes of any other text that is kept in a session.
const MAX_TEXT_BYTES: usize = 256;
/// Bytes of a custom session property's key at the most; a longer one is left out.
const MAX_KEY_BYTES: usize = 64;

impl<'a> Properties<'a> {
    /// What the event says of where it came from, within the bounds of what a session keeps. What `known` says as well
    /// is shared with it; `by` is the event that said it, if it is at hand.
    pub(super) fn context(&self, known: &SessionContext, by: Option<&Self>, config: &SessionConfig) -> SessionContext {
        let url = self.url();
        let url = url.as_deref();
        let referrer = self.text(self.referrer).filter(|referrer| is_external(referrer, url, config));
        let utm = self.utm().or_else(|| url.and_then(utm_of)).map(bounded_utm);
        SessionContext {
            url: url.map(|url| shared(bounded(url, MAX_URL_BYTES), &known.url)),
            referrer: referrer.map(|referrer| shared(bounded(&referrer, MAX_URL_BYTES), &known.referrer)),
            utm: utm.map(Arc::new),
            device: match by {
                Some(by)
                    if self.is_same(&self.device, by, &by.device) && self.is_same(&self.screen, by, &by.screen) =>
                {
                    known.device.clone()
                }
                _ => self.device(known.device.as_ref()),
            },
            geo: match by {
                Some(by) if self.is_same(&self.geo, by, &by.geo) => known.geo.clone(),
                _ => self.geo(known.geo.as_ref()),
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

    fn device(&self, known: Option<&Arc<DeviceInfo>>) -> Option<Arc<DeviceInfo>> {
        if self.device.iter().chain(&self.screen).all(|part| part.shape == Shape::Absent) {
            return None;
        }
        let [kind, os, os_version, browser, browser_version] = self.device.map(|part| self.text_or_number(part));
        let screen = match self.screen.map(|part| self.text_or_number(part)) {
            [Some(width), Some(height)] => Some(Cow::Owned([&*width, "x", &*height].concat())),
            _ => None,
        };
        let texts = [kind, os, os_version, browser, browser_version, screen].map(kept);
        if texts.iter().all(Option::is_none) {
            return None;
        }
        if let Some(known) = known.filter(|known| known.texts() == texts.each_ref().map(Option::as_deref)) {
            return Some(Arc::clone(known));
        }
        let [kind, os, os_version, browser, browser_version, screen_resolution] =
            texts.map(|text| text.map(Cow::into_owned));
        let device_type = kind.unwrap_or_default();
        Some(Arc::new(DeviceInfo { device_type, os, os_version, browser, browser_version, screen_resolution }))
    }

    fn geo(&self, known: Option<&Arc<GeoInfo>>) -> Option<Arc<GeoInfo>> {
        if self.geo.iter().all(|part| part.shape == Shape::Absent) {
            return None;
        }
        let [country, region, city, timezone, country_name, region_name] = self.geo.map(|part| kept(self.text(part)));
        let texts = [country.or(country_name), region.or(region_name), city, timezone];
        if texts.iter().all(Option::is_none) {
            return None;
        }
        if let Some(known) = known.filter(|known| known.texts() == texts.each_ref().map(Option::as_deref)) {
            return Some(Arc::clone(known));
        }
        let [country, region, city, timezone] = texts.map(|text| text.map(Cow::into_owned));
        Some(Arc::new(GeoInfo { country, region, city, timezone }))
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
fn kept(text: Option<Cow<'_, str>>) -> Option<Cow<'_, str>> {
    match text? {
        text if text.is_empty() => None,
        Cow::Borrowed(text) => Some(Cow::Borrowed(bounded(text, MAX_TEXT_BYTES))),
        Cow::Owned(text) => Some(Cow::Owned(bounded(&text, MAX_TEXT_BYTES).to_owned())),
    }
}

/// A text cut to at most so many bytes, at a character's end.
fn bounded(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// A text to keep; the same one where it was said before.
fn shared(text: &str, known: &Option<Arc<str>>) -> Arc<str> {
    match known {
        Some(known) if **known == *text => Arc::clone(known),
        _ => text.into(),
    }
}

fn bounded_utm(utm: UtmParams) -> UtmParams {
    let short = |field: Option<String>| field.map(|text| bounded(&text, MAX_TEXT_BYTES).to_owned());
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
    use super::super::scan::Scanner;
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
