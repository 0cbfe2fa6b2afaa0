//! What a session keeps of an event's properties: URL, source, device, place and custom properties.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::properties::Properties;
use super::raw::{string, string_or_number};
use super::viewer::Viewer;
use crate::attribution::{Referrer, click_of, utm_of};
use crate::config::{InternalCampaigns, SessionConfig};
use crate::session::{DeviceInfo, GeoInfo, SessionContext, UtmParams};

/// Maximum length of a URL in a session, in bytes. Longer ones are truncated. Browsers and servers accept about as much.
const MAX_URL_BYTES: usize = 2048;
/// Maximum length of any other string in a session, in bytes. Longer ones are truncated.
const MAX_STRING_BYTES: usize = 256;
/// Maximum length of a custom property's key, in bytes. A property with a longer key is left out.
const MAX_KEY_BYTES: usize = 64;

impl<'a> Properties<'a> {
    /// Returns the event's context, within the limits of what a session keeps. Values that are equal to those of `known` are
    /// shared with it.
    pub(super) fn context(
        &self,
        known: &SessionContext,
        viewer: Option<&Viewer>,
        config: &SessionConfig,
    ) -> SessionContext {
        let url = self.url();
        let url = url.as_deref();
        let referrer = self.referrer.and_then(string);
        let referrer_kind =
            referrer.as_deref().map_or(Referrer::Nothing, |referrer| Referrer::of(referrer, url, config));
        let referrer = referrer.filter(|_| referrer_kind == Referrer::External);
        let is_own_banner =
            referrer_kind == Referrer::Internal && config.internal_campaigns == InternalCampaigns::Ignore;
        let utm = if is_own_banner { None } else { self.utm().or_else(|| url.and_then(utm_of)).map(bounded_utm) };
        SessionContext {
            url: url.map(|url| shared(truncated(url, MAX_URL_BYTES), &known.url)),
            referrer: referrer.map(|referrer| shared(truncated(&referrer, MAX_URL_BYTES), &known.referrer)),
            utm: utm.map(|utm| known.utm.clone().filter(|known| **known == utm).unwrap_or_else(|| Arc::new(utm))),
            device: match self.has_agent() || viewer.is_some() {
                true => self.device_by_agent(known.device.as_ref(), viewer),
                false => self.device(known.device.as_ref()),
            },
            geo: self.geo(known.geo.as_ref()).or_else(|| viewer?.geo.clone()),
            user_id: self.user_id(&known.user_id, config),
        }
    }

    /// Returns the id of the user who is logged in. An id that stands for nobody is none.
    fn user_id(&self, known: &Option<Arc<str>>, config: &SessionConfig) -> Option<Arc<str>> {
        let user = self.user().filter(|user| !config.nobody_ids.has(user))?;
        Some(shared(truncated(&user, MAX_STRING_BYTES), known))
    }

    fn url(&self) -> Option<Cow<'a, str>> {
        self.url.and_then(string).filter(|url| !url.is_empty())
    }

    fn utm(&self) -> Option<UtmParams> {
        if self.utm.iter().all(Option::is_none) {
            return None;
        }
        UtmParams::of_fields(self.utm.map(|json| Some(string_or_number(json?)?.into_owned())))
    }

    /// Returns the hash of the click id from the properties, or else from the URL.
    pub(super) fn click(&self) -> Option<u64> {
        self.click.or_else(|| self.url().as_deref().and_then(click_of))
    }

    fn device(&self, known: Option<&Arc<DeviceInfo>>) -> Option<Arc<DeviceInfo>> {
        if self.device.iter().chain(&self.screen).all(Option::is_none) {
            return None;
        }
        if let Some(known) = known.filter(|known| self.is_device(known)) {
            return Some(Arc::clone(known));
        }
        let [kind, os, os_version, browser, browser_version] =
            self.device.map(|json| kept_string(json.and_then(string_or_number)));
        let screen_resolution = match self.screen.map(|json| json.and_then(string_or_number)) {
            [Some(width), Some(height)] => kept_string(Some(Cow::Owned([&*width, "x", &*height].concat()))),
            _ => None,
        };
        let device_type = kind.unwrap_or_default();
        let device = DeviceInfo { device_type, os, os_version, browser, browser_version, screen_resolution };
        (device != DeviceInfo::default()).then(|| Arc::new(device))
    }

    /// Returns the device that the event names. What it does not name is taken from its user agent, or else from the request.
    fn device_by_agent(&self, known: Option<&Arc<DeviceInfo>>, viewer: Option<&Viewer>) -> Option<Arc<DeviceInfo>> {
        let own = self.device(known);
        let is_complete = |own: &DeviceInfo| !own.device_type.is_empty() && own.os.is_some() && own.browser.is_some();
        if own.as_deref().is_some_and(is_complete) {
            return own;
        }
        let told = match self.agent() {
            Some(agent) => crate::agent::device(&agent).map(Arc::new),
            None => viewer.and_then(|viewer| viewer.device.clone()),
        };
        let shared = |device: Arc<DeviceInfo>| known.filter(|known| **known == device).cloned().unwrap_or(device);
        let (Some(told), Some(named)) = (&told, &own) else { return told.or(own).map(shared) };
        let mut device = (**named).clone();
        if device.device_type.is_empty() {
            device.device_type.clone_from(&told.device_type);
        }
        if device.os.is_none() {
            (device.os, device.os_version) = (told.os.clone(), told.os_version.clone());
        }
        if device.browser.is_none() {
            (device.browser, device.browser_version) = (told.browser.clone(), told.browser_version.clone());
        }
        Some(shared(Arc::new(device)))
    }

    /// Returns whether the properties describe the device `known`. It may return false for an equal device if a string was
    /// truncated; the device is then not shared.
    fn is_device(&self, known: &DeviceInfo) -> bool {
        let [fields @ .., screen] = known.strings();
        let is_screen = match self.screen.map(|json| json.and_then(string_or_number)) {
            [Some(width), Some(height)] => screen.is_some_and(|screen| {
                let rest = screen.strip_prefix(&*width).and_then(|rest| rest.strip_prefix('x'));
                rest == Some(&*height)
            }),
            _ => screen.is_none(),
        };
        is_screen
            && self.device.iter().zip(fields).all(|(json, field)| is_equal(json.and_then(string_or_number), field))
    }

    fn geo(&self, known: Option<&Arc<GeoInfo>>) -> Option<Arc<GeoInfo>> {
        if self.geo.iter().all(Option::is_none) {
            return None;
        }
        let [country_code, region_code, city, timezone, country_name, region_name] = self.geo;
        let string = |json: Option<&'a str>| json.and_then(string).filter(|string| !string.is_empty());
        let either = |code, name| string(code).or_else(|| string(name));
        let fields =
            [either(country_code, country_name), either(region_code, region_name), string(city), string(timezone)];
        let is_same = |known: &&Arc<GeoInfo>| known.strings() == fields.each_ref().map(Option::as_deref);
        if let Some(known) = known.filter(is_same) {
            return Some(Arc::clone(known));
        }
        let [country, region, city, timezone] = fields.map(kept_string);
        let geo = GeoInfo { country, region, city, timezone };
        (geo != GeoInfo::default()).then(|| Arc::new(geo))
    }

    /// Returns the custom session properties: keys, and values as JSON. Keys and values that are too long are left out. Returns
    /// nothing if `$session_properties` is not an object.
    pub(super) fn session_properties(&self) -> Vec<(String, String)> {
        let Some(json) = self.session else { return Vec::new() };
        let parsed: Result<std::collections::BTreeMap<String, &RawValue>, _> = serde_json::from_str(json);
        let pairs = parsed.unwrap_or_default().into_iter();
        pairs
            .filter(|(key, value)| {
                key.len() <= MAX_KEY_BYTES && value.get().len() <= crate::timeline::MAX_PROPERTY_BYTES
            })
            // `$session_end` is one line and contains this JSON as it is. A line break in it can only be between two tokens, so a
            // space can replace it.
            .map(|(key, value)| (key, value.get().replace(['\n', '\r'], " ")))
            .collect()
    }
}

/// Returns the value of the property with this name: a number, or a string that is one. `json` are all properties.
pub(super) fn number(json: &str, name: &str) -> Option<f64> {
    let properties: std::collections::BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(json).ok()?;
    let number = string_or_number(properties.get(name)?.get())?;
    number.trim().parse().ok().filter(|number: &f64| number.is_finite())
}

/// Returns a string as a session keeps it: truncated, and `None` if it is empty.
fn kept_string(value: Option<Cow<'_, str>>) -> Option<String> {
    value.filter(|value| !value.is_empty()).map(|value| truncated(&value, MAX_STRING_BYTES).to_owned())
}

/// Returns whether an event's value equals the one that is kept. An absent value equals an empty one.
fn is_equal(value: Option<Cow<'_, str>>, kept: Option<&str>) -> bool {
    value.as_deref().unwrap_or_default() == kept.unwrap_or_default()
}

/// Truncates a string to at most `max_bytes`, at the end of a character.
fn truncated(value: &str, max_bytes: usize) -> &str {
    &value[..value.floor_char_boundary(max_bytes)]
}

/// Returns `known` if it is equal to `value`, or else a copy of `value`.
fn shared(value: &str, known: &Option<Arc<str>>) -> Arc<str> {
    match known {
        Some(known) if **known == *value => Arc::clone(known),
        _ => value.into(),
    }
}

/// Returns a campaign within the limits of what a session keeps.
fn bounded_utm(utm: UtmParams) -> UtmParams {
    let bounded = |field: Option<String>| field.map(|value| bounded_string(&value, MAX_STRING_BYTES));
    UtmParams {
        source: bounded(utm.source),
        medium: bounded(utm.medium),
        campaign: bounded(utm.campaign),
        term: bounded(utm.term),
        content: bounded(utm.content),
    }
}

/// Truncates a string to at most `max_bytes` and replaces NUL characters by U+FFFD. Many stores refuse NUL characters, and `%00`
/// in a URL decodes to one.
fn bounded_string(value: &str, max_bytes: usize) -> String {
    truncated(&value.replace('\0', "\u{fffd}"), max_bytes).to_owned()
}

/// Returns the context of a library call within the limits that hold for events. The calling program's strings have not been
/// checked.
pub(crate) fn bounded_context(context: SessionContext) -> SessionContext {
    let url = |url: Option<Arc<str>>| url.map(|url| bounded_string(&url, MAX_URL_BYTES).into());
    let string = |value: Option<String>| value.map(|value| bounded_string(&value, MAX_STRING_BYTES));
    let device = context.device.map(|device| {
        let DeviceInfo { device_type, os, os_version, browser, browser_version, screen_resolution } = (*device).clone();
        Arc::new(DeviceInfo {
            device_type: bounded_string(&device_type, MAX_STRING_BYTES),
            os: string(os),
            os_version: string(os_version),
            browser: string(browser),
            browser_version: string(browser_version),
            screen_resolution: string(screen_resolution),
        })
    });
    let geo = context.geo.map(|geo| {
        let GeoInfo { country, region, city, timezone } = (*geo).clone();
        Arc::new(GeoInfo {
            country: string(country),
            region: string(region),
            city: string(city),
            timezone: string(timezone),
        })
    });
    SessionContext {
        url: url(context.url),
        referrer: url(context.referrer),
        utm: context.utm.map(|utm| Arc::new(bounded_utm((*utm).clone()))),
        device,
        geo,
        user_id: context
            .user_id
            .map(|id| bounded_string(&id, MAX_STRING_BYTES).into())
            .filter(|id: &Arc<str>| !id.is_empty()),
    }
}

#[cfg(test)]
mod tests;
