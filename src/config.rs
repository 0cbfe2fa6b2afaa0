//! Every option of the product: the rules that decide when a session begins, and the functions' environment.
//!
//! A rule has one name in three spellings: `timeout_seconds` in `--rules`, `TIMEOUT_SECONDS` as an environment variable,
//! `TimeoutSeconds` as a parameter of `template.yaml`. [`SessionConfig`] declares each rule once.

mod defaults;
mod hosts;
mod nobody;
mod settings;
mod written;

use chrono::{Datelike, TimeDelta};
use chrono_tz::Tz;
use serde::Deserialize;

use crate::session::{Millis, datetime};
use defaults::with_defaults;
pub use hosts::HostRule;
pub use nobody::NobodyIds;
pub use settings::{Destination, Settings};
use written::{event_names, limit, positive_seconds, seconds, time_zone};

with_defaults! {
    /// The rules that decide when a session begins. This is their one declaration: name (the field's, or `rename`), type, default.
    ///
    /// [`SessionConfig::from_rules`] and [`SessionConfig::from_variables`] read it, with errors that name the rule. The
    /// parameters of `template.yaml` and the rows of `docs/configuration.md` are checked against it by `tests/it/template.rs`.
    #[derive(Debug, Clone, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct SessionConfig {
        /// A longer gap between two events begins a session. From 1 second to 30 days.
        #[serde(rename = "timeout_seconds", deserialize_with = "positive_seconds")]
        pub timeout: TimeDelta = TimeDelta::minutes(30),

        /// Whether a gap of exactly the timeout continues the session or splits it.
        pub boundary: Boundary = Boundary::Inclusive,

        /// An event later than the session's start plus this begins a session. From 1 second to 30 days.
        #[serde(rename = "max_duration_seconds", deserialize_with = "positive_seconds")]
        pub max_duration: TimeDelta = TimeDelta::hours(24),

        /// Whether another external referrer's host begins a session.
        pub new_session_on_referrer_change: bool = true,

        /// Whether another campaign begins a session.
        pub new_session_on_utm_change: bool = true,

        /// The fields in which two campaigns are compared.
        pub utm_fields: Vec<UtmField> = vec![UtmField::Source, UtmField::Medium, UtmField::Campaign],

        /// Whether the values of two campaigns are compared without case.
        pub utm_ignore_case: bool = false,

        /// What a first source does inside a session that has none.
        pub direct_then_source: DirectThenSource = DirectThenSource::Continue,

        /// What a campaign does inside a session that has a referrer but no campaign.
        pub first_campaign: FirstCampaign = FirstCampaign::Continue,

        /// How a campaign counts on a click from the own site.
        pub internal_campaigns: InternalCampaigns = InternalCampaigns::Split,

        /// What makes two referrers one source.
        pub referrer_match: ReferrerMatch = ReferrerMatch::Host,

        /// Whether another click id (`gclid`, …) begins a session.
        pub new_session_on_click_id_change: bool = false,

        /// The time zone in which an event on another day than the last one begins a session.
        #[serde(deserialize_with = "time_zone")]
        pub midnight: Option<Tz> = None,

        /// Hosts whose referrers count as none, in addition to the page's own.
        pub internal_hosts: Vec<HostRule> = Vec::new(),

        /// Hosts of payment and login providers, whose referrers count as none.
        pub ignored_referrers: Vec<HostRule> = Vec::new(),

        /// Names of events that are annotated with the live session but never begin, extend or count in one.
        #[serde(deserialize_with = "event_names")]
        pub passive_events: Vec<String> = Vec::new(),

        /// Names of events that extend a live session, but never begin or count in one. None of them may be passive, too.
        #[serde(deserialize_with = "event_names")]
        pub keep_alive_events: Vec<String> = vec!["$pageleave".to_owned()],

        /// Values of `distinct_id` that stand for nobody: their events get no session.
        pub nobody_ids: NobodyIds = NobodyIds::default(),

        /// The event after this many begins a session. At least 1.
        #[serde(deserialize_with = "limit")]
        pub max_events: Option<u32> = None,

        /// The allowed lateness: how late an event may arrive and still be placed exactly. At most 30 days.
        #[serde(rename = "lateness_seconds", deserialize_with = "seconds")]
        pub lateness: TimeDelta = TimeDelta::minutes(5),

        /// How far `sent_at` may lie from the receipt and count as transit time. Beyond that, the sender's clock is taken to be
        /// wrong, and its times are corrected. At most 30 days.
        #[serde(rename = "clock_skew_tolerance_seconds", deserialize_with = "seconds")]
        pub clock_skew_tolerance: TimeDelta = TimeDelta::seconds(60),
    }
}

/// Whether a gap of exactly the timeout continues a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Boundary {
    /// It continues.
    Inclusive,
    /// It splits.
    Exclusive,
}

/// What a first source (campaign, external referrer) does inside a session that began with none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DirectThenSource {
    /// Nothing.
    Continue,
    /// It begins a session.
    Split,
    /// It becomes the session's source.
    Upgrade,
}

/// What a campaign does inside a session that has a referrer, but no campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FirstCampaign {
    /// Nothing.
    Continue,
    /// It begins a session.
    Split,
}

/// What a campaign is on a click that comes from the page's own site or an internal host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InternalCampaigns {
    /// A campaign like any other.
    Split,
    /// None: a banner of the site's own.
    Ignore,
}

/// What of two referrers has to be the same for them to be one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReferrerMatch {
    /// The host, `www.` aside.
    Host,
    /// The registrable domain (`shop.co.uk` of `m.shop.co.uk`), by the public suffix list.
    Site,
}

/// A field of [`crate::session::UtmParams`] that can begin a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UtmField {
    Source,
    Medium,
    Campaign,
    Term,
    Content,
}

/// The names of our own events. Fed back in, they pass through as they are.
pub(crate) const LIFECYCLE_EVENTS: [&str; 4] = ["$session_start", "$session_end", "$session_merged", "$session_split"];

/// A setting that cannot be used; the sentence names it and says what to write instead.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// The bare sentence: it is what a function that cannot start prints.
impl std::fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl SessionConfig {
    /// The timeout in milliseconds.
    pub(crate) fn timeout_ms(&self) -> Millis {
        self.timeout.num_milliseconds()
    }

    /// The maximum duration in milliseconds.
    pub(crate) fn max_duration_ms(&self) -> Millis {
        self.max_duration.num_milliseconds()
    }

    /// The lateness in milliseconds.
    pub(crate) fn lateness_ms(&self) -> Millis {
        self.lateness.num_milliseconds()
    }

    /// The clock skew tolerance in milliseconds.
    pub(crate) fn clock_skew_tolerance_ms(&self) -> Millis {
        self.clock_skew_tolerance.num_milliseconds()
    }

    /// Whether a gap of this many milliseconds is longer than the timeout allows. The only place that
    /// compares with the timeout.
    pub(crate) fn is_timeout(&self, gap: Millis) -> bool {
        match self.boundary {
            Boundary::Inclusive => gap > self.timeout_ms(),
            Boundary::Exclusive => gap >= self.timeout_ms(),
        }
    }

    /// Whether the two times lie on different days, where the `midnight` rule is on.
    pub(crate) fn is_other_day(&self, one: Millis, other: Millis) -> bool {
        self.midnight.is_some_and(|zone| {
            let day = |at| datetime(at).with_timezone(&zone).num_days_from_ce();
            day(one) != day(other)
        })
    }
}

/// A host as hosts are compared: lower case, without `www.`.
pub(crate) fn bare_host(host: &str) -> String {
    let host = host.trim().trim_end_matches('.').to_ascii_lowercase();
    host.strip_prefix("www.").map_or(host.clone(), str::to_owned)
}
