//! What an event's properties say of where it came from, and what its session keeps of them.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::properties::Properties;
use super::raw_field::{RawField, Shape};
use crate::attribution::{Referrer, click_of, utm_of};
use crate::config::{InternalCampaigns, SessionConfig};
use crate::session::{DeviceInfo, GeoInfo, SessionContext, UtmParams};

/// Bytes of an address that are kept in a session; browsers and servers agree on about as much.
const MAX_URL_BYTES: usize = 2048;
/// Bytes of any other text that is kept in a session.
const MAX_TEXT_BYTES: usize = 256;
/// Bytes of a custom session property's key at the most; a longer one is left out.
const MAX_KEY_BYTES: usize = 64;

impl<'a> Properties<'a> {
    /// What the event says of where it came from, within the bounds of what a session keeps. What `known` says as well
    /// is shared with it.
    pub(super) fn context(&self, known: &SessionContext, config: &SessionConfig) -> SessionContext {
        let url = self.url();
        let url = url.as_deref();
        let referrer = self.text(self.referrer);
        let from = referrer.as_deref().map_or(Referrer::Nothing, |referrer| Referrer::of(referrer, url, config));
        let referrer = referrer.filter(|_| from == Referrer::External);
        let is_own_banner = from == Referrer::Internal && config.internal_campaigns == InternalCampaigns::Ignore;
        let utm = if is_own_banner { None } else { self.utm().or_else(|| url.and_then(utm_of)).map(bounded_utm) };
        SessionContext {
            url: url.map(|url| shared(bounded(url, MAX_URL_BYTES), &known.url)),
            referrer: referrer.map(|referrer| shared(bounded(&referrer, MAX_URL_BYTES), &known.referrer)),
            utm: utm.map(|utm| known.utm.clone().filter(|known| **known == utm).unwrap_or_else(|| Arc::new(utm))),
            device: self.device(known.device.as_ref()),
            geo: self.geo(known.geo.as_ref()),
        }
    }

    fn url(&self) -> Option<Cow<'a, str>> {
        self.text(self.url).filter(|url| !url.is_empty())
    }

    fn utm(&self) -> Option<UtmParams> {
        if self.utm.iter().all(|raw| raw.shape == Shape::Absent) {
            return None;
        }
        let mut fields = self.utm.iter().map(|&raw| self.text_or_number(raw).map(Cow::into_owned));
        UtmParams::of_fields(std::array::from_fn(|_| fields.next().flatten()))
    }

    /// The click id that the properties, else the address, name.
    pub(super) fn click(&self) -> Option<u64> {
        self.click.or_else(|| self.url().as_deref().and_then(click_of))
    }

    fn device(&self, known: Option<&Arc<DeviceInfo>>) -> Option<Arc<DeviceInfo>> {
        if self.device.iter().chain(&self.screen).all(|raw| raw.shape == Shape::Absent) {
            return None;
        }
        if let Some(known) = known.filter(|known| self.is_device(known)) {
            return Some(Arc::clone(known));
        }
        let [kind, os, os_version, browser, browser_version] = self.device.map(|raw| kept(self.text_or_number(raw)));
        let screen_resolution = match self.screen.map(|raw| self.text_or_number(raw)) {
            [Some(width), Some(height)] => kept(Some(Cow::Owned([&*width, "x", &*height].concat()))),
            _ => None,
        };
        let device_type = kind.unwrap_or_default();
        let device = DeviceInfo { device_type, os, os_version, browser, browser_version, screen_resolution };
        (device != DeviceInfo::default()).then(|| Arc::new(device))
    }

    /// Whether this is what the properties make of the device. Texts that are too long are not recognised.
    fn is_device(&self, known: &DeviceInfo) -> bool {
        let [fields @ .., screen] = known.strings();
        let is_screen = match self.screen.map(|raw| self.text_or_number(raw)) {
            [Some(width), Some(height)] => screen.is_some_and(|screen| {
                let rest = screen.strip_prefix(&*width).and_then(|rest| rest.strip_prefix('x'));
                rest == Some(&*height)
            }),
            _ => screen.is_none(),
        };
        is_screen && self.device.iter().zip(fields).all(|(&raw, field)| says(self.text_or_number(raw), field))
    }

    fn geo(&self, known: Option<&Arc<GeoInfo>>) -> Option<Arc<GeoInfo>> {
        if self.geo.iter().all(|raw| raw.shape == Shape::Absent) {
            return None;
        }
        let [country_code, region_code, city, timezone, country_name, region_name] = self.geo;
        let text = |raw: RawField| self.text(raw).filter(|text| !text.is_empty());
        let either = |code: RawField, name: RawField| text(code).or_else(|| text(name));
        let texts = [either(country_code, country_name), either(region_code, region_name), text(city), text(timezone)];
        let is_same = |known: &&Arc<GeoInfo>| known.strings() == texts.each_ref().map(Option::as_deref);
        if let Some(known) = known.filter(is_same) {
            return Some(Arc::clone(known));
        }
        let [country, region, city, timezone] = texts.map(kept);
        let geo = GeoInfo { country, region, city, timezone };
        (geo != GeoInfo::default()).then(|| Arc::new(geo))
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
    text.filter(|text| !text.is_empty()).map(|text| bounded(&text, MAX_TEXT_BYTES).to_owned())
}

/// Whether a text is the one that is kept.
fn says(text: Option<Cow<'_, str>>, kept: Option<&str>) -> bool {
    text.as_deref().unwrap_or_default() == kept.unwrap_or_default()
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

/// A campaign within the bounds of what is kept. `%00` in an address decodes to a NUL character, which stores behind this
/// service refuse: what cannot be shown is shown as such, as with bytes that are no UTF-8.
fn bounded_utm(utm: UtmParams) -> UtmParams {
    let short = |field: Option<String>| field.map(|text| short(&text, MAX_TEXT_BYTES));
    UtmParams {
        source: short(utm.source),
        medium: short(utm.medium),
        campaign: short(utm.campaign),
        term: short(utm.term),
        content: short(utm.content),
    }
}

/// A text as it is kept: at most so many bytes, and no NUL character, which stores behind this service refuse.
fn short(text: &str, bytes: usize) -> String {
    bounded(&text.replace('\0', "\u{fffd}"), bytes).to_owned()
}

/// Returns the context of a library call within the bounds that hold for events: its texts come from the program that calls, and
/// nobody has looked at them.
pub(crate) fn bounded_context(context: SessionContext) -> SessionContext {
    let url = |text: Option<Arc<str>>| text.map(|text| short(&text, MAX_URL_BYTES).into());
    let text = |text: Option<String>| text.map(|text| short(&text, MAX_TEXT_BYTES));
    let device = context.device.map(|device| {
        let DeviceInfo { device_type, os, os_version, browser, browser_version, screen_resolution } = (*device).clone();
        Arc::new(DeviceInfo {
            device_type: short(&device_type, MAX_TEXT_BYTES),
            os: text(os),
            os_version: text(os_version),
            browser: text(browser),
            browser_version: text(browser_version),
            screen_resolution: text(screen_resolution),
        })
    });
    let geo = context.geo.map(|geo| {
        let GeoInfo { country, region, city, timezone } = (*geo).clone();
        Arc::new(GeoInfo { country: text(country), region: text(region), city: text(city), timezone: text(timezone) })
    });
    SessionContext {
        url: url(context.url),
        referrer: url(context.referrer),
        utm: context.utm.map(|utm| Arc::new(bounded_utm((*utm).clone()))),
        device,
        geo,
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

    /// Whether two that are equal are one.
    fn is_shared<T: ?Sized + PartialEq>(one: &Option<Arc<T>>, other: &Option<Arc<T>>) -> bool {
        match (one, other) {
            (Some(one), Some(other)) => one != other || Arc::ptr_eq(one, other),
            _ => true,
        }
    }

    /// What is known is shared where it is said again, and never takes the place of what is said.
    #[test]
    fn equal_contexts_are_shared() {
        let long = "l".repeat(MAX_TEXT_BYTES + 1);
        let texts = [
            "{}".to_owned(),
            r#"{"$os":"Linux","$browser":"Firefox","$browser_version":131,"$screen_width":800,"$screen_height":600}"#
                .to_owned(),
            r#"{"$os":"Linux","$browser":"Firefox","$browser_version":13,"$screen_width":800,"$screen_height":60}"#
                .to_owned(),
            r#"{"$os":"Linux","$browser":"Firefox","$browser_version":"131","$screen_width":800}"#.to_owned(),
            r#"{"$os":"Li\nux","$device_type":"","$screen_width":80,"$screen_height":"0x600"}"#.to_owned(),
            r#"{"$device_type":"Mobile","$os_version":"1","$os":null}"#.to_owned(),
            format!(r#"{{"$os":"{long}","$geoip_city_name":"{long}"}}"#),
            r#"{"$geoip_country_code":"CH","$geoip_country_name":"Schweiz","$geoip_time_zone":"Europe/Zurich"}"#
                .to_owned(),
            r#"{"$geoip_country_code":"","$geoip_country_name":"Schweiz","$geoip_subdivision_1_code":"BE"}"#.to_owned(),
            r#"{"utm_source":"one","$current_url":"https://a.test/?utm_source=two"}"#.to_owned(),
            r#"{"$current_url":"https://a.test/1","$referrer":"https://b.test/"}"#.to_owned(),
            r#"{"$current_url":"https://a.test/2","$referrer":"https://b.test/?q"}"#.to_owned(),
        ];
        let config = SessionConfig::default();
        let context = |text: &String, known: &SessionContext| {
            let mut properties = Properties::none(text, false);
            properties.scan(&mut Scanner::new(text), 0).unwrap();
            properties.context(known, &config)
        };
        let contexts = texts.each_ref().map(|text| context(text, &SessionContext::default()));
        for (text, alone) in texts.iter().zip(&contexts) {
            for known in &contexts {
                let after = context(text, known);
                assert_eq!(after, *alone, "{text} after {known:?}");
                assert!(text.contains(&long) || is_shared(&after.device, &known.device), "{text} after {known:?}");
                assert!(text.contains(&long) || is_shared(&after.geo, &known.geo), "{text} after {known:?}");
                assert!(is_shared(&after.utm, &known.utm), "{text} after {known:?}");
                assert!(is_shared(&after.url, &known.url) && is_shared(&after.referrer, &known.referrer), "{text}");
            }
        }
    }
}
