//! What the headers of a request tell about the visitor, if the request came from the visitor itself.

use std::borrow::Cow;
use std::sync::Arc;

use percent_encoding::percent_decode_str;

use crate::agent;
use crate::session::{DeviceInfo, GeoInfo};

/// The header with the sender's user agent.
const USER_AGENT: &str = "user-agent";
/// CloudFront's headers with the viewer's country, region, city and time zone. An origin request policy adds them.
const PLACE: [&str; 4] = [
    "cloudfront-viewer-country",
    "cloudfront-viewer-country-region",
    "cloudfront-viewer-city",
    "cloudfront-viewer-time-zone",
];
/// Limit of the bytes of a place's name, as for other strings of a session.
const MAX_NAME_BYTES: usize = 256;

/// What a request tells about the visitor. It applies to what an event itself does not name. The visitor's IP address is not read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Viewer {
    /// The device, by the user agent.
    pub device: Option<Arc<DeviceInfo>>,
    /// The place, by CloudFront's headers.
    pub geo: Option<Arc<GeoInfo>>,
    /// Whether the user agent is that of a bot.
    pub is_bot: bool,
    /// Whether all this counts only under the rule `viewer_headers`: what sent the request need not be the visitor's browser.
    pub needs_rule: bool,
}

impl Viewer {
    /// Reads the headers of a request by their names in lower case.
    ///
    /// Returns `None` if the sender is no browser. A library on a server sends its own agent, and comes from the server's place.
    pub fn of_browser<'h>(
        needs_rule: bool,
        header: impl Fn(&'static str) -> Option<Cow<'h, str>>,
    ) -> Option<Arc<Self>> {
        let user_agent = header(USER_AGENT)?;
        // Every browser states to be a Mozilla, but old versions of Opera.
        if !["Mozilla/", "Opera/"].iter().any(|start| user_agent.starts_with(start)) {
            return None;
        }
        let name = |name| {
            let value = header(name)?;
            // CloudFront encodes what is not ASCII. Stores refuse NUL characters.
            let value = percent_decode_str(value.trim()).decode_utf8_lossy().replace('\0', "\u{fffd}");
            (!value.is_empty()).then(|| value[..value.floor_char_boundary(MAX_NAME_BYTES)].to_owned())
        };
        let [country, region, city, timezone] = PLACE.map(name);
        let geo = GeoInfo { country, region, city, timezone };
        Some(Arc::new(Self {
            device: agent::device(&user_agent).map(Arc::new),
            geo: (geo != GeoInfo::default()).then(|| Arc::new(geo)),
            is_bot: agent::is_bot(&user_agent),
            needs_rule,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHROME: &str =
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36";

    fn viewer(headers: &'static [(&'static str, &'static str)]) -> Option<Arc<Viewer>> {
        Viewer::of_browser(false, |name| {
            headers.iter().find(|(own, _)| *own == name).map(|(_, value)| Cow::Borrowed(*value))
        })
    }

    #[test]
    fn a_browser_tells_device_and_place() {
        let viewer = viewer(&[
            ("user-agent", CHROME),
            ("cloudfront-viewer-country", "CH"),
            ("cloudfront-viewer-country-region", "ZH"),
            ("cloudfront-viewer-city", "Z%C3%BCrich"),
            ("cloudfront-viewer-time-zone", "Europe/Zurich"),
            ("cloudfront-viewer-address", "203.0.113.7:4711"),
        ])
        .unwrap();
        let device = viewer.device.as_ref().unwrap();
        assert_eq!((device.browser.as_deref(), device.os.as_deref()), (Some("Chrome"), Some("Linux")));
        let [country, region, city, timezone] =
            ["CH", "ZH", "Zürich", "Europe/Zurich"].map(|name| Some(name.to_owned()));
        assert_eq!(viewer.geo.as_deref(), Some(&GeoInfo { country, region, city, timezone }));
        assert!(!viewer.is_bot);
    }

    #[test]
    fn a_server_tells_nothing() {
        for agent in ["python-requests/2.32", "posthog-node/4.2", "okhttp/4.12.0", ""] {
            let headers = [("user-agent", agent), ("cloudfront-viewer-country", "US")];
            let header = |name| headers.iter().find(|(own, _)| *own == name).map(|(_, value)| Cow::Borrowed(*value));
            assert_eq!(Viewer::of_browser(false, header), None, "{agent}");
        }
        assert_eq!(viewer(&[("cloudfront-viewer-country", "US")]), None);
    }

    #[test]
    fn odd_values_of_headers_are_kept_within_bounds() {
        let odd = viewer(&[
            ("user-agent", "Mozilla/5.0"),
            ("cloudfront-viewer-city", "a%00%FF%"),
            ("cloudfront-viewer-country", " "),
        ]);
        let odd = odd.unwrap();
        assert_eq!(odd.geo.as_ref().unwrap().city.as_deref(), Some("a\u{fffd}\u{fffd}%"));
        assert_eq!((&odd.device, &odd.geo.as_ref().unwrap().country), (&None, &None));
    }
}
