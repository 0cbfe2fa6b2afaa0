//! The paths of the clients.

/// Whose client sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// PostHog.
    PostHog,
    /// PostHog with its capture protocol v1.
    PostHogV1,
    /// Segment, and RudderStack, which speaks the same messages.
    Segment,
    /// Snowplow.
    Snowplow,
    /// Mixpanel.
    Mixpanel,
    /// Amplitude.
    Amplitude,
    /// Matomo.
    Matomo,
}

impl Family {
    /// Returns the name in the rejects and in the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::PostHog | Self::PostHogV1 => "posthog",
            Self::Segment => "segment",
            Self::Snowplow => "snowplow",
            Self::Mixpanel => "mixpanel",
            Self::Amplitude => "amplitude",
            Self::Matomo => "matomo",
        }
    }

    /// Returns whether a client sends half of the events again after a 413. The others lose the batch, try for ever, or end their
    /// process.
    pub fn halves_after_413(self) -> bool {
        matches!(self, Self::PostHog | Self::Mixpanel | Self::Amplitude)
    }
}

/// The paths of Segment's messages, after `v1`.
const SEGMENT_PATHS: [&str; 16] = [
    "batch", "b", "import", "track", "t", "page", "p", "screen", "s", "identify", "i", "group", "g", "alias", "a",
    "merge",
];

/// What a path of a client is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// PostHog's events, of [`Family::PostHog`] or [`Family::PostHogV1`].
    PostHog(Family),
    /// PostHog's recorded events of session replay, if replay is on.
    #[cfg(feature = "replay")]
    PostHogRecordings,
    /// PostHog's or Amplitude's events: both have a path `/batch`, and the body decides.
    Batch,
    /// PostHog's configuration, which its browser client asks for at the start.
    PostHogConfig,
    /// The same as a script, which the client can do without.
    PostHogScript,
    /// PostHog's feature flags; there are none.
    PostHogFlags,
    /// Messages of Segment and RudderStack.
    Segment,
    /// Segment's settings, without which its browser client sends nothing.
    SegmentSettings,
    /// RudderStack's configuration, without which its browser client sends nothing.
    RudderStackConfig,
    /// Snowplow's events.
    SnowplowPost,
    /// Snowplow's events as the query of an image.
    SnowplowPixel,
    /// Mixpanel's events.
    MixpanelEvents,
    /// Mixpanel's profiles of users and groups, which are no events.
    MixpanelProfiles,
    /// Amplitude's events.
    Amplitude,
    /// Matomo's events.
    Matomo,
}

impl Endpoint {
    /// Returns the endpoint at the end of a path. What comes before it, such as a stage, does not matter, and neither do empty
    /// segments.
    pub fn of(segments: &[&str]) -> Option<Self> {
        Some(match segments {
            [.., "i", "v1", "analytics", "events"] => Self::PostHog(Family::PostHogV1),
            [.., "i", "v0", "e"] | [.., "i", "v0", "ai", "batch"] | [.., "e" | "capture"] => {
                Self::PostHog(Family::PostHog)
            }
            // Images of Segment and RudderStack are not translated.
            [.., "pixel", _] | [.., "pixel", "v1", _] => return None,
            [.., "v1", kind] if SEGMENT_PATHS.contains(kind) => Self::Segment,
            #[cfg(feature = "replay")]
            [.., "s"] => Self::PostHogRecordings,
            [.., "batch"] => Self::Batch,
            [.., "array", _, "config"] => Self::PostHogConfig,
            [.., "array", _, "config.js"] => Self::PostHogScript,
            [.., "flags" | "decide"] => Self::PostHogFlags,
            [.., "projects", _, "settings"] => Self::SegmentSettings,
            [.., "sourceConfig"] => Self::RudderStackConfig,
            [.., "com.snowplowanalytics.snowplow", "tp2"] => Self::SnowplowPost,
            [.., "i"] => Self::SnowplowPixel,
            [.., "track" | "import"] => Self::MixpanelEvents,
            [.., "engage" | "groups"] => Self::MixpanelProfiles,
            [.., "httpapi"] | [.., "batch", "2"] => Self::Amplitude,
            [.., "matomo.php" | "piwik.php"] => Self::Matomo,
            _ => return None,
        })
    }

    /// Returns whether the endpoint takes a method.
    pub fn takes(self, method: &str) -> bool {
        match method {
            #[cfg(feature = "replay")]
            "GET" if self == Self::PostHogRecordings => false,
            "GET" => !matches!(self, Self::Segment | Self::SnowplowPost | Self::Amplitude | Self::Batch),
            "POST" => !matches!(
                self,
                Self::PostHogConfig
                    | Self::PostHogScript
                    | Self::SegmentSettings
                    | Self::RudderStackConfig
                    | Self::SnowplowPixel
            ),
            _ => false,
        }
    }

    /// Returns the methods that the endpoint takes, as the `allow` header names them.
    pub fn methods(self) -> &'static str {
        match (self.takes("GET"), self.takes("POST")) {
            (true, true) => "GET, POST",
            (true, false) => "GET",
            _ => "POST",
        }
    }

    /// Returns whether its requests carry events.
    pub fn carries_events(self) -> bool {
        !matches!(
            self,
            Self::PostHogConfig
                | Self::PostHogScript
                | Self::PostHogFlags
                | Self::SegmentSettings
                | Self::RudderStackConfig
                | Self::MixpanelProfiles
        )
    }

    /// Returns whose clients use the endpoint. For [`Endpoint::Batch`], the body can tell otherwise.
    pub fn family(self) -> Family {
        match self {
            Self::PostHog(family) => family,
            #[cfg(feature = "replay")]
            Self::PostHogRecordings => Family::PostHog,
            Self::Batch | Self::PostHogConfig | Self::PostHogScript | Self::PostHogFlags => Family::PostHog,
            Self::Segment | Self::SegmentSettings | Self::RudderStackConfig => Family::Segment,
            Self::SnowplowPost | Self::SnowplowPixel => Family::Snowplow,
            Self::MixpanelEvents | Self::MixpanelProfiles => Family::Mixpanel,
            Self::Amplitude => Family::Amplitude,
            Self::Matomo => Family::Matomo,
        }
    }

    /// Returns whether browsers send these requests with credentials. They then read an answer only if it names their origin.
    pub fn has_credentials(self) -> bool {
        matches!(self.family(), Family::PostHog | Family::Snowplow | Family::Mixpanel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_recognized_by_its_end() {
        for (path, wanted) in [
            ("/batch/", Some(Endpoint::Batch)),
            ("/prod//batch", Some(Endpoint::Batch)),
            ("/e/", Some(Endpoint::PostHog(Family::PostHog))),
            ("/v1/s", Some(Endpoint::Segment)),
            #[cfg(feature = "replay")]
            ("/prod/s/", Some(Endpoint::PostHogRecordings)),
            #[cfg(not(feature = "replay"))]
            ("/s/", None),
            ("/i/v0/e", Some(Endpoint::PostHog(Family::PostHog))),
            ("/i/v1/analytics/events/", Some(Endpoint::PostHog(Family::PostHogV1))),
            ("/array/phc_x/config", Some(Endpoint::PostHogConfig)),
            ("/v1/batch", Some(Endpoint::Segment)),
            ("/prod/beacon/v1/batch/", Some(Endpoint::Segment)),
            ("/v1/i", Some(Endpoint::Segment)),
            ("/i", Some(Endpoint::SnowplowPixel)),
            ("/v1/track", Some(Endpoint::Segment)),
            ("//track/", Some(Endpoint::MixpanelEvents)),
            ("/2/httpapi", Some(Endpoint::Amplitude)),
            ("/v1/projects/key/settings", Some(Endpoint::SegmentSettings)),
            ("/sourceConfig/", Some(Endpoint::RudderStackConfig)),
            ("/a/matomo.php", Some(Endpoint::Matomo)),
            ("/v1/pixel/track", None),
            ("/pixel/v1/track", None),
            ("/events", None),
            ("/", None),
            ("/collect", None),
        ] {
            let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
            assert_eq!(Endpoint::of(&segments), wanted, "{path}");
        }
    }
}
