//! The wire types of campaigns, devices, locations and custom properties. They refer to the item's string table.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::session::{DeviceInfo, GeoInfo, UtmParams};
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

/// The key under which a user's id is stored among the custom properties, so that the stored form is the one of items without
/// users. No custom property has this key, because no text of an event contains a NUL character.
const USER_ID_KEY: &str = "\0user_id";

/// Calls `add` with every string of custom properties and a user's id.
pub(super) fn each_property_string<'a>(
    properties: impl Iterator<Item = (&'a String, &'a String)>,
    user_id: Option<&'a str>,
    add: &mut impl FnMut(&'a str),
) {
    for (key, value) in properties {
        add(key);
        add(value);
    }
    if let Some(user_id) = user_id {
        add(USER_ID_KEY);
        add(user_id);
    }
}

/// Returns custom properties and a user's id as pairs of indexes of the string table.
pub(super) fn pairs<'p>(
    properties: impl Iterator<Item = (&'p String, &'p String)>,
    user_id: Option<&str>,
    strings: &StringTable<'_>,
) -> Vec<(StringIndex, StringIndex)> {
    let properties = properties.map(|(key, value)| (key.as_str(), value.as_str()));
    let user_id = user_id.map(|user_id| (USER_ID_KEY, user_id));
    let index = |string| strings.index_of(Some(string));
    properties.chain(user_id).map(|(key, value)| (index(key), index(value))).collect()
}

/// Custom properties, and the user's id that was stored with them.
type Properties = (Vec<(String, String)>, Option<Arc<str>>);

/// Returns the custom properties and the user's id that the pairs of indexes refer to.
pub(super) fn read_pairs(
    pairs: &[(StringIndex, StringIndex)],
    strings: &StringTableReader,
) -> Result<Properties, FormatError> {
    let (mut properties, mut user_id) = (Vec::with_capacity(pairs.len()), None);
    for &(key, value) in pairs {
        let (key, value) = (strings.require(key)?, strings.require(value)?);
        if &*key == USER_ID_KEY {
            user_id = Some(value);
        } else {
            properties.push((key.to_string(), value.to_string()));
        }
    }
    Ok((properties, user_id))
}
