//! Campaigns, devices, places and custom properties, by reference to the item's texts.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::session::{DeviceInfo, GeoInfo, UtmParams};
use crate::stored::FormatError;
use crate::stored::texts::{Reader, TextRef, Texts};

/// What a [`WireOrigin`] stands for.
pub(super) type Origin = (Option<UtmParams>, Option<Arc<DeviceInfo>>, Option<Arc<GeoInfo>>);

#[derive(Serialize, Deserialize, Clone, PartialEq, Eq)]
pub(super) struct WireOrigin {
    utm: Option<[TextRef; 5]>,
    device: Option<[TextRef; 6]>,
    geo: Option<[TextRef; 4]>,
}

pub(super) fn each_origin_text<'a>(
    utm: Option<&'a UtmParams>,
    device: Option<&'a DeviceInfo>,
    geo: Option<&'a GeoInfo>,
    add: &mut impl FnMut(&'a str),
) {
    let utm = utm.map(utm_texts).into_iter().flatten();
    let device = device.map(device_texts).into_iter().flatten();
    let geo = geo.map(geo_texts).into_iter().flatten();
    utm.chain(device).chain(geo).flatten().for_each(add);
}

pub(super) fn utm_texts(utm: &UtmParams) -> [Option<&str>; 5] {
    [&utm.source, &utm.medium, &utm.campaign, &utm.term, &utm.content].map(Option::as_deref)
}

pub(super) fn device_texts(device: &DeviceInfo) -> [Option<&str>; 6] {
    let [os, os_version, browser, browser_version, screen] =
        [&device.os, &device.os_version, &device.browser, &device.browser_version, &device.screen_resolution]
            .map(Option::as_deref);
    [Some(device.device_type.as_str()), os, os_version, browser, browser_version, screen]
}

pub(super) fn geo_texts(geo: &GeoInfo) -> [Option<&str>; 4] {
    [&geo.country, &geo.region, &geo.city, &geo.timezone].map(Option::as_deref)
}

impl WireOrigin {
    pub(super) fn write(
        utm: Option<&UtmParams>,
        device: Option<&DeviceInfo>,
        geo: Option<&GeoInfo>,
        texts: &Texts<'_>,
    ) -> Self {
        Self {
            utm: utm.map(|utm| utm_texts(utm).map(|text| texts.place(text))),
            device: device.map(|device| device_texts(device).map(|text| texts.place(text))),
            geo: geo.map(|geo| geo_texts(geo).map(|text| texts.place(text))),
        }
    }

    pub(super) fn read(&self, texts: &Reader) -> Result<Origin, FormatError> {
        let get = |place: TextRef| texts.get(place);
        let utm = match self.utm {
            Some([source, medium, campaign, term, content]) => Some(UtmParams {
                source: get(source)?,
                medium: get(medium)?,
                campaign: get(campaign)?,
                term: get(term)?,
                content: get(content)?,
            }),
            None => None,
        };
        let device = match self.device {
            Some([kind, os, os_version, browser, browser_version, screen]) => Some(Arc::new(DeviceInfo {
                device_type: texts.require(kind)?,
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

pub(super) fn pairs<'p>(
    properties: impl Iterator<Item = (&'p String, &'p String)>,
    texts: &Texts<'_>,
) -> Vec<(TextRef, TextRef)> {
    properties.map(|(key, value)| (texts.place(Some(key)), texts.place(Some(value)))).collect()
}

pub(super) fn read_pairs(pairs: &[(TextRef, TextRef)], texts: &Reader) -> Result<Vec<(String, String)>, FormatError> {
    pairs.iter().map(|&(key, value)| Ok((texts.require(key)?, texts.require(value)?))).collect()
}
