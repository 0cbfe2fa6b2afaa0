//! What an event says of where it came from: address, referrer, campaign, device, place.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The parameters of an address that name a campaign, in the order of [`UtmParams`]'s fields.
pub(crate) const UTM_NAMES: [&str; 5] = ["utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content"];

/// The campaign that brought a visitor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UtmParams {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub medium: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub campaign: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

impl UtmParams {
    /// Reads `utm_source` … `utm_content`. None without a source, a medium or a campaign; an empty value is none.
    pub fn from_query_params(params: &HashMap<String, String>) -> Option<Self> {
        Self::of_fields(UTM_NAMES.map(|name| params.get(name).cloned()))
    }

    /// The same from the values in the order of the struct's fields.
    pub(crate) fn of_fields(fields: [Option<String>; 5]) -> Option<Self> {
        let [source, medium, campaign, term, content] = fields.map(|field| field.filter(|text| !text.is_empty()));
        let utm = Self { source, medium, campaign, term, content };
        (utm.source.is_some() || utm.medium.is_some() || utm.campaign.is_some()).then_some(utm)
    }

    /// Its fields in their order.
    pub(crate) fn strings(&self) -> [Option<&str>; 5] {
        [&self.source, &self.medium, &self.campaign, &self.term, &self.content].map(Option::as_deref)
    }

    /// Whether source, medium or campaign differ, compared as they are.
    pub fn is_different(&self, other: &Self) -> bool {
        self.source != other.source || self.medium != other.medium || self.campaign != other.campaign
    }
}

/// The device that a session's first event with one says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// `$device_type`; empty where only other fields are known.
    pub device_type: String,
    pub os: Option<String>,
    pub os_version: Option<String>,
    pub browser: Option<String>,
    pub browser_version: Option<String>,
    pub screen_resolution: Option<String>,
}

impl DeviceInfo {
    /// Its fields in their order; a type that is not known is none.
    pub(crate) fn strings(&self) -> [Option<&str>; 6] {
        let kind = Some(self.device_type.as_str()).filter(|kind| !kind.is_empty());
        let [os, os_version] = [&self.os, &self.os_version].map(Option::as_deref);
        let [browser, browser_version] = [&self.browser, &self.browser_version].map(Option::as_deref);
        [kind, os, os_version, browser, browser_version, self.screen_resolution.as_deref()]
    }
}

/// The place that a session's first event with one says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GeoInfo {
    pub country: Option<String>,
    pub region: Option<String>,
    pub city: Option<String>,
    pub timezone: Option<String>,
}

impl GeoInfo {
    /// Its fields in their order.
    pub(crate) fn strings(&self) -> [Option<&str>; 4] {
        [&self.country, &self.region, &self.city, &self.timezone].map(Option::as_deref)
    }
}

/// What an event says of where it came from. All of it is shared: events, sessions and what is said of them have it in common.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionContext {
    /// The page's address.
    pub url: Option<Arc<str>>,
    /// The referrer as it came, if it is an external one.
    pub referrer: Option<Arc<str>>,
    pub utm: Option<Arc<UtmParams>>,
    pub device: Option<Arc<DeviceInfo>>,
    pub geo: Option<Arc<GeoInfo>>,
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
    fn term_and_content_make_no_other_campaign() {
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
