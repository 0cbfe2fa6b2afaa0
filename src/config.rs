//! All options: the rules that decide when a session begins, and the functions' environment.
//!
//! A rule has one name in three spellings: `timeout_seconds` in `--rules`, `TIMEOUT_SECONDS` as an environment variable, and
//! `TimeoutSeconds` as a parameter of `template.yaml`. [`SessionConfig`] declares each rule once.
//!
//! Rules are given in layers ([`GivenRules`]). Each layer overrides the ones before it: the defaults, the service's profile, the
//! service's rules, a project's profile, a project's rules.

mod counted;
mod defaults;
mod endpoints;
mod hosts;
mod nobody;
mod origins;
mod profiles;
mod projects;
mod public;
mod settings;
mod strip;
mod written;

use chrono::{NaiveDate, TimeDelta};
use chrono_tz::Tz;
use serde::Deserialize;

use crate::session::{Millis, datetime};
pub use counted::CountedEvent;
use counted::counted_events;
use defaults::with_defaults;
pub use endpoints::Endpoints;
pub use hosts::HostRule;
pub use nobody::NobodyIds;
pub use origins::AllowedOrigins;
pub use projects::{Project, ProjectRules, Projects};
pub use public::{AnswerDetail, PublicAccess};
pub use settings::{Destination, Settings};
pub use strip::StrippedParams;
pub use written::GivenRules;
use written::{event_names, limit, positive_seconds, seconds, time_zone};

with_defaults! {
    /// The rules that decide when a session begins.
    ///
    /// This is the only declaration of a rule's name (that of the field, or `rename`), type and default.
    /// [`SessionConfig::from_rules`] and [`SessionConfig::from_variables`] follow it. `tests/it/template.rs` checks the
    /// parameters of `template.yaml` and the rows of `docs/configuration.md` against it.
    #[derive(Debug, Clone, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct SessionConfig {
        /// The inactivity timeout: a longer gap between two events begins a session. From 1 second to 30 days.
        #[serde(rename = "timeout_seconds", deserialize_with = "positive_seconds")]
        pub timeout: TimeDelta = TimeDelta::minutes(30),

        /// Whether a gap of exactly the timeout continues the session or begins another one.
        pub boundary: Boundary = Boundary::Inclusive,

        /// The maximum duration of a session: an event later than its start plus this begins another one. From 1 second to 30
        /// days.
        #[serde(rename = "max_duration_seconds", deserialize_with = "positive_seconds")]
        pub max_duration: TimeDelta = TimeDelta::hours(24),

        /// Whether an external referrer other than the session's begins a session. `referrer_match` decides which are equal.
        pub new_session_on_referrer_change: bool = true,

        /// Whether a campaign other than the session's begins a session.
        pub new_session_on_utm_change: bool = true,

        /// The fields in which two campaigns are compared.
        pub utm_fields: Vec<UtmField> = vec![UtmField::Source, UtmField::Medium, UtmField::Campaign],

        /// Whether case is ignored when the values of two campaigns are compared.
        pub utm_ignore_case: bool = false,

        /// What the first source does in a session that has none.
        pub direct_then_source: DirectThenSource = DirectThenSource::Continue,

        /// What a campaign does in a session that has a referrer but no campaign.
        pub first_campaign: FirstCampaign = FirstCampaign::Continue,

        /// How a campaign counts on a click from the page's own host or an internal one.
        pub internal_campaigns: InternalCampaigns = InternalCampaigns::Split,

        /// What must be equal for two referrers to be the same source.
        pub referrer_match: ReferrerMatch = ReferrerMatch::Host,

        /// Whether a click id (`gclid`, …) other than the session's begins a session.
        pub new_session_on_click_id_change: bool = false,

        /// If set, an event on another day than the last one begins a session. Days are those of this time zone.
        #[serde(deserialize_with = "time_zone")]
        pub midnight: Option<Tz> = None,

        /// Hosts whose referrers are ignored, in addition to the page's own host.
        pub internal_hosts: Vec<HostRule> = Vec::new(),

        /// Hosts of payment and login providers. Their referrers are ignored.
        pub ignored_referrers: Vec<HostRule> = Vec::new(),

        /// Names of passive events: they are annotated with the session of their time, but never begin, extend or count in one.
        #[serde(deserialize_with = "event_names")]
        pub passive_events: Vec<String> = Vec::new(),

        /// Names of keep-alive events: they extend a live session, but never begin or count in one. None of them may be passive, too.
        #[serde(deserialize_with = "event_names")]
        pub keep_alive_events: Vec<String> = vec!["$pageleave".to_owned()],

        /// Kinds of events that a session counts, each with a property to sum by choice, such as `order:value`. At most 8.
        #[serde(deserialize_with = "counted_events")]
        pub counted_events: Vec<CountedEvent> = Vec::new(),

        /// Values of `distinct_id` that stand for nobody. Events with such an id get no session.
        pub nobody_ids: NobodyIds = NobodyIds::default(),

        /// Whether events of bots get no session. A bot is recognized by its user agent.
        pub exclude_bots: bool = false,

        /// Whether the headers of a `POST /events` describe the visitor: its user agent, and CloudFront's headers of the place. They
        /// do if browsers send the events themselves.
        pub viewer_headers: bool = false,

        /// The query parameters that are removed from the URLs in an event's properties before anything is stored or emitted.
        pub strip_query_params: StrippedParams = StrippedParams::default(),

        /// The maximum number of events in a session: the next event begins another one. At least 1.
        #[serde(deserialize_with = "limit")]
        pub max_events: Option<u32> = None,

        /// The allowed lateness: how late an event may arrive and still be placed exactly. At most 30 days.
        #[serde(rename = "lateness_seconds", deserialize_with = "seconds")]
        pub lateness: TimeDelta = TimeDelta::minutes(5),

        /// How far `sent_at` may lie from the time of receipt and still count as transit time. Beyond that, the sender's clock is
        /// taken to be wrong, and its times are corrected. At most 30 days.
        #[serde(rename = "clock_skew_tolerance_seconds", deserialize_with = "seconds")]
        pub clock_skew_tolerance: TimeDelta = TimeDelta::seconds(60),
    }
}

/// Whether a gap of exactly the timeout continues a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Boundary {
    /// The session continues.
    Inclusive,
    /// The event begins another session.
    Exclusive,
}

/// What the first source (a campaign, an external referrer or a click id) does in a session that has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DirectThenSource {
    /// It changes nothing.
    Continue,
    /// It begins another session.
    Split,
    /// It becomes the session's source.
    Upgrade,
}

/// What a campaign does in a session that has a referrer but no campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FirstCampaign {
    /// It changes nothing.
    Continue,
    /// It begins another session.
    Split,
}

/// How a campaign counts on a click from the page's own host or an internal one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InternalCampaigns {
    /// Like any other campaign.
    Split,
    /// As no campaign. For sites that tag their own banners.
    Ignore,
}

/// What must be equal for two referrers to be the same source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReferrerMatch {
    /// The host. `www.` does not matter.
    Host,
    /// The registrable domain by the public suffix list: `shop.co.uk` for `m.shop.co.uk`.
    Site,
}

/// A field of [`crate::session::UtmParams`] in which two campaigns are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UtmField {
    /// `utm_source`.
    Source,
    /// `utm_medium`.
    Medium,
    /// `utm_campaign`.
    Campaign,
    /// `utm_term`.
    Term,
    /// `utm_content`.
    Content,
}

/// The names of the events that the service emits. If they are sent to the service again, they pass through unchanged.
pub(crate) const LIFECYCLE_EVENTS: [&str; 5] =
    ["$session_start", "$session_end", "$session_merged", "$session_split", "$visitor_erased"];

/// Why a setting cannot be used: a sentence that names the setting and what to write instead.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// Formats the sentence alone, because a function that cannot start prints its error with `Debug`.
impl std::fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl SessionConfig {
    /// Returns the timeout in milliseconds.
    pub(crate) fn timeout_ms(&self) -> Millis {
        self.timeout.num_milliseconds()
    }

    /// Returns the maximum duration in milliseconds.
    pub(crate) fn max_duration_ms(&self) -> Millis {
        self.max_duration.num_milliseconds()
    }

    /// Returns the allowed lateness in milliseconds.
    pub(crate) fn lateness_ms(&self) -> Millis {
        self.lateness.num_milliseconds()
    }

    /// Returns the clock skew tolerance in milliseconds.
    pub(crate) fn clock_skew_tolerance_ms(&self) -> Millis {
        self.clock_skew_tolerance.num_milliseconds()
    }

    /// Returns whether a gap of this many milliseconds is longer than the timeout allows. This is the only place that compares
    /// with the timeout.
    pub(crate) fn is_timeout(&self, gap: Millis) -> bool {
        match self.boundary {
            Boundary::Inclusive => gap > self.timeout_ms(),
            Boundary::Exclusive => gap >= self.timeout_ms(),
        }
    }

    /// Returns whether an event this many milliseconds after a session's start exceeds the maximum duration.
    pub(crate) fn is_too_long(&self, duration: Millis) -> bool {
        duration > self.max_duration_ms()
    }

    /// Returns whether a session with this many events has reached their maximum number.
    pub(crate) fn is_full(&self, event_count: u32) -> bool {
        self.max_events.is_some_and(|max_events| event_count >= max_events)
    }

    /// Returns the local day of a time; `None` without a `midnight` rule.
    pub(crate) fn day(&self, at: Millis) -> Option<NaiveDate> {
        self.midnight.map(|zone| datetime(at).with_timezone(&zone).date_naive())
    }

    /// Returns whether the two times lie on different days. Without a `midnight` rule they never do.
    pub(crate) fn is_other_day(&self, one: Millis, other: Millis) -> bool {
        self.midnight.is_some() && self.day(one) != self.day(other)
    }
}

/// Returns a host in the form in which hosts are compared: in lower case, without `www.` and without a dot at the end.
pub(crate) fn bare_host(host: &str) -> String {
    let host = host.trim().trim_end_matches('.').to_ascii_lowercase();
    host.strip_prefix("www.").map_or(host.clone(), str::to_owned)
}
