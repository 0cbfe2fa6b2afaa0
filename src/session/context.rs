//! An event's context: URL, referrer, campaign, device and place.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::attribution::utm_of;

/// The parameters of a URL that name a campaign, in the order of the fields of [`UtmParams`].
pub(crate) const UTM_NAMES: [&str; 5] = ["utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content"];

/// The campaign that brought a visitor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UtmParams {
    /// `utm_source`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// `utm_medium`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub medium: Option<String>,
    /// `utm_campaign`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub campaign: Option<String>,
    /// `utm_term`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<String>,
    /// `utm_content`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

impl UtmParams {
    /// Reads `utm_source`, `utm_medium`, `utm_campaign`, `utm_term` and `utm_content`. Empty values are ignored.
    ///
    /// Returns `None` if there is no source, no medium and no campaign.
    pub fn from_query_params(params: &HashMap<String, String>) -> Option<Self> {
        Self::of_fields(UTM_NAMES.map(|name| params.get(name).cloned()))
    }

    /// Like [`Self::from_query_params`], from the values in the order of the fields.
    pub(crate) fn of_fields(fields: [Option<String>; 5]) -> Option<Self> {
        let [source, medium, campaign, term, content] = fields.map(|field| field.filter(|value| !value.is_empty()));
        let utm = Self { source, medium, campaign, term, content };
        (utm.source.is_some() || utm.medium.is_some() || utm.campaign.is_some()).then_some(utm)
    }

    /// Returns the fields in their order.
    pub(crate) fn strings(&self) -> [Option<&str>; 5] {
        [&self.source, &self.medium, &self.campaign, &self.term, &self.content].map(Option::as_deref)
    }

    /// Returns whether source, medium or campaign differ. The comparison is case-sensitive.
    pub fn is_different(&self, other: &Self) -> bool {
        self.source != other.source || self.medium != other.medium || self.campaign != other.campaign
    }
}

/// The device of a visit, as the first event with a device names it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// `$device_type`; empty if only other fields are known.
    pub device_type: String,
    /// `$os`.
    pub os: Option<String>,
    /// `$os_version`.
    pub os_version: Option<String>,
    /// `$browser`.
    pub browser: Option<String>,
    /// `$browser_version`.
    pub browser_version: Option<String>,
    /// `$screen_width` and `$screen_height`, as in `1920x1080`.
    pub screen_resolution: Option<String>,
}

impl DeviceInfo {
    /// Returns the fields in their order. An empty `device_type` is `None`.
    pub(crate) fn strings(&self) -> [Option<&str>; 6] {
        let kind = Some(self.device_type.as_str()).filter(|kind| !kind.is_empty());
        let [os, os_version] = [&self.os, &self.os_version].map(Option::as_deref);
        let [browser, browser_version] = [&self.browser, &self.browser_version].map(Option::as_deref);
        [kind, os, os_version, browser, browser_version, self.screen_resolution.as_deref()]
    }
}

/// The place of a visit, as the first event with a place names it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GeoInfo {
    /// `$geoip_country_code`, or else `$geoip_country_name`.
    pub country: Option<String>,
    /// `$geoip_subdivision_1_code`, or else `$geoip_subdivision_1_name`.
    pub region: Option<String>,
    /// `$geoip_city_name`.
    pub city: Option<String>,
    /// `$geoip_time_zone`.
    pub timezone: Option<String>,
}

impl GeoInfo {
    /// Returns the fields in their order.
    pub(crate) fn strings(&self) -> [Option<&str>; 4] {
        [&self.country, &self.region, &self.city, &self.timezone].map(Option::as_deref)
    }
}

/// An event's context: where it came from and how. The values are reference-counted, because events, sessions and assignments
/// share them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionContext {
    /// The page's URL.
    pub url: Option<Arc<str>>,
    /// The referrer as the event has it, if it is external.
    pub referrer: Option<Arc<str>>,
    /// The campaign.
    pub utm: Option<Arc<UtmParams>>,
    /// The device.
    pub device: Option<Arc<DeviceInfo>>,
    /// The place.
    pub geo: Option<Arc<GeoInfo>>,
    /// The id of the user who is logged in, if the event names it beside the visitor's.
    pub user_id: Option<Arc<str>>,
}

impl SessionContext {
    /// Returns a page view's context: its URL, and the campaign in that URL.
    pub fn of_url(url: &str) -> Self {
        Self { url: Some(url.into()), utm: utm_of(url).map(Arc::new), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utm_needs_a_source_a_medium_or_a_campaign() {
        let params = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let utm = UtmParams::from_query_params(&params(&[("utm_source", "google"), ("utm_medium", "cpc")])).unwrap();
        assert_eq!(utm.source.as_deref(), Some("google"));
        assert_eq!(UtmParams::from_query_params(&params(&[("utm_term", "shoes")])), None);
        assert_eq!(UtmParams::from_query_params(&params(&[("utm_source", "")])), None);
    }

    #[test]
    fn term_and_content_do_not_distinguish_campaigns() {
        let one = UtmParams { source: Some("a".into()), term: Some("x".into()), ..UtmParams::default() };
        let other = UtmParams { term: Some("y".into()), ..one.clone() };
        assert!(!one.is_different(&other));
        for other in [
            UtmParams { source: Some("b".into()), ..one.clone() },
            UtmParams { medium: Some("m".into()), ..one.clone() },
            UtmParams { campaign: Some("c".into()), ..one.clone() },
        ] {
            assert!(one.is_different(&other) && other.is_different(&one), "{other:?}");
        }
    }
}
