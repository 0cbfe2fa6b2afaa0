//! Every option of the product: the rules by which sessions are cut, and the functions' environment.
//!
//! A rule has one name everywhere: in lower case in `--rules` and in `template.yaml`'s parameters' notes, in upper case
//! (`TIMEOUT_SECONDS`) as an environment variable.

mod hosts;
mod nobody;
mod settings;
mod written;

use chrono::{Datelike, TimeDelta};
use chrono_tz::Tz;
use serde::Deserialize;

use crate::session::{Millis, datetime};
pub use hosts::HostRule;
pub use nobody::NobodyIds;
pub use settings::{Destination, Settings};

/// Whether a gap of exactly the timeout continues a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Boundary {
    /// It continues.
    #[default]
    Inclusive,
    /// It splits.
    Exclusive,
}

/// What a first source (campaign, external referrer) does inside a session that began with none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DirectThenSource {
    /// Nothing.
    #[default]
    Continue,
    /// It begins a session.
    Split,
    /// It becomes the session's source.
    Upgrade,
}

/// What a campaign does inside a session that has a referrer, but no campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FirstCampaign {
    /// Nothing.
    #[default]
    Continue,
    /// It begins a session.
    Split,
}

/// What a campaign is on a click that comes from the page's own site or an internal host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InternalCampaigns {
    /// A campaign like any other.
    #[default]
    Split,
    /// None: a banner of the site's own.
    Ignore,
}

/// What of two referrers has to be the same for them to be one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReferrerMatch {
    /// The host, `www.` aside.
    #[default]
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

/// The rules by which sessions are cut.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionConfig {
    /// A longer gap between two events begins a session. Default 30 minutes.
    pub timeout: TimeDelta,
    /// Whether a gap of exactly `timeout` continues the session (default) or splits it.
    pub boundary: Boundary,
    /// An event later than the session's start plus this begins a session. Default 24 hours.
    pub max_duration: TimeDelta,
    /// Whether another external referrer's host begins a session. Default true.
    pub new_session_on_referrer_change: bool,
    /// Whether another campaign begins a session. Default true.
    pub new_session_on_utm_change: bool,
    /// The fields that make another campaign. Default source, medium, campaign.
    pub utm_fields: Vec<UtmField>,
    /// Whether the values of two campaigns are compared without case. Default false.
    pub utm_ignore_case: bool,
    /// What a first source inside a session without any does. Default nothing.
    pub direct_then_source: DirectThenSource,
    /// What a campaign inside a session that has a referrer but no campaign does. Default nothing.
    pub first_campaign: FirstCampaign,
    /// What a campaign is on a click from the own site. Default a campaign like any other.
    pub internal_campaigns: InternalCampaigns,
    /// What makes two referrers one source. Default their host.
    pub referrer_match: ReferrerMatch,
    /// Whether another click id (`gclid`, …) begins a session. Default false.
    pub new_session_on_click_id_change: bool,
    /// The time zone in which an event on another day than the last one begins a session. Default none.
    pub midnight: Option<Tz>,
    /// Hosts whose referrers count as none, beside the page's own.
    pub internal_hosts: Vec<HostRule>,
    /// Hosts of payment and login providers: their referrers count as none.
    pub ignored_referrers: Vec<HostRule>,
    /// Names of events that are annotated with the live session but never open, extend or count in one.
    pub passive_events: Vec<String>,
    /// Names of events that keep a live session alive, but never open or count in one. Default `$pageleave`. One that is
    /// passive, too, is passive.
    pub keep_alive_events: Vec<String>,
    /// Values of `distinct_id` that stand for nobody: their events get no session. Default what programs write where they
    /// have no id.
    pub nobody_ids: NobodyIds,
    /// The event after this many begins a session. Default none.
    pub max_events: Option<u32>,
    /// How late an event may arrive and still be placed exactly. Default 5 minutes.
    pub lateness: TimeDelta,
    /// How far `sent_at` may lie from the receipt and be transit rather than a wrong clock, which would be corrected. Default
    /// 60 seconds.
    pub clock_skew_tolerance: TimeDelta,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            timeout: TimeDelta::minutes(30),
            boundary: Boundary::Inclusive,
            max_duration: TimeDelta::hours(24),
            new_session_on_referrer_change: true,
            new_session_on_utm_change: true,
            utm_fields: vec![UtmField::Source, UtmField::Medium, UtmField::Campaign],
            utm_ignore_case: false,
            direct_then_source: DirectThenSource::Continue,
            first_campaign: FirstCampaign::Continue,
            internal_campaigns: InternalCampaigns::Split,
            referrer_match: ReferrerMatch::Host,
            new_session_on_click_id_change: false,
            midnight: None,
            internal_hosts: Vec::new(),
            ignored_referrers: Vec::new(),
            passive_events: Vec::new(),
            keep_alive_events: vec!["$pageleave".to_owned()],
            nobody_ids: NobodyIds::default(),
            max_events: None,
            lateness: TimeDelta::minutes(5),
            clock_skew_tolerance: TimeDelta::seconds(60),
        }
    }
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
