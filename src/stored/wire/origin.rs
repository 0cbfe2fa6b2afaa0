//! The wire types of campaigns, devices, locations and custom properties. They refer to the item's string table.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::session::{DeviceInfo, GeoInfo, Reason, UtmParams};
use crate::stored::FormatError;
use crate::stored::string_table::{StringIndex, StringTable, StringTableReader};

/// The campaign, device and location that a [`WireOrigin`] holds.
pub(super) type Origin = (Option<Arc<UtmParams>>, Option<Arc<DeviceInfo>>, Option<Arc<GeoInfo>>);

/// A campaign, a device and a location. The order of the strings is that of `UtmParams::strings` and its siblings.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq)]
pub(super) struct WireOrigin {
    utm: Option<[StringIndex; 5]>,
    device: Option<[StringIndex; 6]>,
    geo: Option<[StringIndex; 4]>,
}

/// Calls `add` with every string of a campaign, a device and a location.
pub(super) fn each_origin_string<'a>(
    utm: Option<&'a UtmParams>,
    device: Option<&'a DeviceInfo>,
    geo: Option<&'a GeoInfo>,
    add: &mut impl FnMut(&'a str),
) {
    let utm = utm.map(UtmParams::strings).into_iter().flatten();
    let device = device.map(DeviceInfo::strings).into_iter().flatten();
    let geo = geo.map(GeoInfo::strings).into_iter().flatten();
    utm.chain(device).chain(geo).flatten().for_each(add);
}

impl WireOrigin {
    pub(super) fn write(
        utm: Option<&UtmParams>,
        device: Option<&DeviceInfo>,
        geo: Option<&GeoInfo>,
        strings: &StringTable<'_>,
    ) -> Self {
        Self {
            utm: utm.map(|utm| utm.strings().map(|string| strings.index_of(string))),
            device: device.map(|device| device.strings().map(|string| strings.index_of(string))),
            geo: geo.map(|geo| geo.strings().map(|string| strings.index_of(string))),
        }
    }

    pub(super) fn read(&self, strings: &StringTableReader) -> Result<Origin, FormatError> {
        let get = |index: StringIndex| strings.get_owned(index);
        let utm = match self.utm {
            Some([source, medium, campaign, term, content]) => Some(Arc::new(UtmParams {
                source: get(source)?,
                medium: get(medium)?,
                campaign: get(campaign)?,
                term: get(term)?,
                content: get(content)?,
            })),
            None => None,
        };
        let device = match self.device {
            Some([kind, os, os_version, browser, browser_version, screen]) => Some(Arc::new(DeviceInfo {
                device_type: get(kind)?.unwrap_or_default(),
                os: get(os)?,
                os_version: get(os_version)?,
                browser: get(browser)?,
                browser_version: get(browser_version)?,
                screen_resolution: get(screen)?,
            })),
            None => None,
        };
        let geo = match self.geo {
            Some([country, region, city, timezone]) => Some(Arc::new(GeoInfo {
                country: get(country)?,
                region: get(region)?,
                city: get(city)?,
                timezone: get(timezone)?,
            })),
            None => None,
        };
        Ok((utm, device, geo))
    }
}

/// The keys under which a user's id and a reason are stored among the custom properties, so that the stored form is the one of items
/// without them. No custom property has such a key, because no text of an event contains a NUL character.
const USER_ID_KEY: &str = "\0user_id";
const ENDED_BY_KEY: &str = "\0ended_by";

/// The reasons that are stored.
const SOURCE_REASONS: [Reason; 3] = [Reason::UtmChange, Reason::ReferrerChange, Reason::ClickIdChange];

/// What is stored among the custom properties.
#[derive(Clone, Copy, Default)]
pub(in crate::stored) struct Hidden<'a> {
    /// The user's id.
    pub user_id: Option<&'a str>,
    /// The reason of the next session, if its source ended the session.
    pub ended_by: Option<Reason>,
}

impl<'a> Hidden<'a> {
    fn pairs(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let ended_by = self.ended_by.map(|reason| (ENDED_BY_KEY, reason.name()));
        self.user_id.map(|user_id| (USER_ID_KEY, user_id)).into_iter().chain(ended_by)
    }
}

/// Calls `add` with every string of custom properties and of what is stored among them.
pub(super) fn each_property_string<'a>(
    properties: impl Iterator<Item = (&'a String, &'a String)>,
    hidden: Hidden<'a>,
    add: &mut impl FnMut(&'a str),
) {
    for (key, value) in properties {
        add(key);
        add(value);
    }
    for (key, value) in hidden.pairs() {
        add(key);
        add(value);
    }
}

/// Returns custom properties and what is stored among them as pairs of indexes of the string table.
pub(super) fn pairs<'p>(
    properties: impl Iterator<Item = (&'p String, &'p String)>,
    hidden: Hidden<'p>,
    strings: &StringTable<'_>,
) -> Vec<(StringIndex, StringIndex)> {
    let properties = properties.map(|(key, value)| (key.as_str(), value.as_str()));
    let index = |string| strings.index_of(Some(string));
    properties.chain(hidden.pairs()).map(|(key, value)| (index(key), index(value))).collect()
}

/// Custom properties, and the user's id and the reason that were stored among them.
pub(super) struct Properties {
    pub own: Vec<(String, String)>,
    pub user_id: Option<Arc<str>>,
    pub ended_by: Option<Reason>,
}

/// Returns the custom properties that the pairs of indexes refer to, and what was stored among them.
pub(super) fn read_pairs(
    pairs: &[(StringIndex, StringIndex)],
    strings: &StringTableReader,
) -> Result<Properties, FormatError> {
    let mut properties = Properties { own: Vec::with_capacity(pairs.len()), user_id: None, ended_by: None };
    for &(key, value) in pairs {
        let (key, value) = (strings.require(key)?, strings.require(value)?);
        match &*key {
            USER_ID_KEY => properties.user_id = Some(value),
            ENDED_BY_KEY => {
                let reason = SOURCE_REASONS.into_iter().find(|reason| reason.name() == &*value);
                properties.ended_by = Some(reason.ok_or(FormatError::Rule("a session's end has no valid reason"))?);
            }
            _ => properties.own.push((key.to_string(), value.to_string())),
        }
    }
    Ok(properties)
}
