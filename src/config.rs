//! Every option of the product: the rules by which sessions are cut, and the functions' environment.
//!
//! A rule has one name everywhere: in lower case in `--rules` and in `template.yaml`'s parameters' notes, in upper case
//! (`TIMEOUT_SECONDS`) as an environment variable.

mod settings;

use chrono::{Datelike, TimeDelta};
use chrono_tz::Tz;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::session::{Millis, datetime};
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
    /// What a first source inside a session without one does. Default nothing.
    pub direct_then_source: DirectThenSource,
    /// Whether another click id (`gclid`, …) begins a session. Default false.
    pub new_session_on_click_id_change: bool,
    /// The time zone in which an event on another day than the last one begins a session. Default none.
    pub midnight: Option<Tz>,
    /// Hosts whose referrers count as none, beside the page's own. Lower case, without `www.`.
    pub internal_hosts: Vec<String>,
    /// Hosts of payment and login providers: their referrers count as none. Lower case, without `www.`.
    pub ignored_referrers: Vec<String>,
    /// Names of events that are annotated with the live session but never open, extend or count in one.
    pub passive_events: Vec<String>,
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
            direct_then_source: DirectThenSource::Continue,
            new_session_on_click_id_change: false,
            midnight: None,
            internal_hosts: Vec::new(),
            ignored_referrers: Vec::new(),
            passive_events: Vec::new(),
            max_events: None,
            lateness: TimeDelta::minutes(5),
            clock_skew_tolerance: TimeDelta::seconds(60),
        }
    }
}

/// The longest timeout, maximum duration and lateness, in seconds: 30 days. Longer ones would outlive what a
/// table keeps for corrections.
const MAX_RULE_SECONDS: i64 = 30 * 86_400;

/// The rules as they are written: names and types of `--rules` and of the environment.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Rules {
    timeout_seconds: Option<i64>,
    boundary: Boundary,
    max_duration_seconds: Option<i64>,
    new_session_on_referrer_change: Option<bool>,
    new_session_on_utm_change: Option<bool>,
    utm_fields: Option<Vec<UtmField>>,
    direct_then_source: DirectThenSource,
    new_session_on_click_id_change: bool,
    midnight: Option<String>,
    internal_hosts: Vec<String>,
    ignored_referrers: Vec<String>,
    passive_events: Vec<String>,
    max_events: Option<u32>,
    lateness_seconds: Option<i64>,
    clock_skew_tolerance_seconds: Option<i64>,
}

/// Which rules there are, and which of them are lists (written with commas in the environment).
const RULES: [(&str, bool); 15] = [
    ("timeout_seconds", false),
    ("boundary", false),
    ("max_duration_seconds", false),
    ("new_session_on_referrer_change", false),
    ("new_session_on_utm_change", false),
    ("utm_fields", true),
    ("direct_then_source", false),
    ("new_session_on_click_id_change", false),
    ("midnight", false),
    ("internal_hosts", true),
    ("ignored_referrers", true),
    ("passive_events", true),
    ("max_events", false),
    ("lateness_seconds", false),
    ("clock_skew_tolerance_seconds", false),
];

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
    /// Reads rules from a JSON object; what it does not name keeps its default.
    ///
    /// # Errors
    /// An unknown name, a value of the wrong type or out of range, an unknown time zone.
    pub fn from_rules(rules: Value) -> Result<Self, ConfigError> {
        let Value::Object(members) = &rules else {
            return Err(ConfigError("the rules are not a JSON object".to_owned()));
        };
        // One by one first: the library's sentence does not name the rule.
        for (name, value) in members {
            let alone = Map::from_iter([(name.clone(), value.clone())]);
            let read: Result<Rules, _> = serde_json::from_value(Value::Object(alone));
            read.map_err(|error| ConfigError(format!("{name}: {}", in_words(&error))))?;
        }
        let rules: Rules = serde_json::from_value(rules).map_err(|error| ConfigError(format!("rules: {error}")))?;
        let seconds = |name: &str, value: Option<i64>, least: i64, default: TimeDelta| match value {
            None => Ok(default),
            Some(value) if (least..=MAX_RULE_SECONDS).contains(&value) => Ok(TimeDelta::seconds(value)),
            Some(value) => Err(ConfigError(format!(
                "{name} is {value}; it must be a number of seconds from {least} to {MAX_RULE_SECONDS}"
            ))),
        };
        let default = Self::default();
        Ok(Self {
            timeout: seconds("timeout_seconds", rules.timeout_seconds, 1, default.timeout)?,
            boundary: rules.boundary,
            max_duration: seconds("max_duration_seconds", rules.max_duration_seconds, 1, default.max_duration)?,
            new_session_on_referrer_change: rules.new_session_on_referrer_change.unwrap_or(true),
            new_session_on_utm_change: rules.new_session_on_utm_change.unwrap_or(true),
            utm_fields: rules.utm_fields.unwrap_or(default.utm_fields),
            direct_then_source: rules.direct_then_source,
            new_session_on_click_id_change: rules.new_session_on_click_id_change,
            midnight: rules.midnight.as_deref().map(time_zone).transpose()?,
            internal_hosts: rules.internal_hosts.iter().map(|host| bare_host(host)).collect(),
            ignored_referrers: rules.ignored_referrers.iter().map(|host| bare_host(host)).collect(),
            passive_events: rules.passive_events,
            max_events: match rules.max_events {
                Some(0) => return Err(ConfigError("max_events is 0; it must be at least 1, or left out".to_owned())),
                other => other,
            },
            lateness: seconds("lateness_seconds", rules.lateness_seconds, 0, default.lateness)?,
            clock_skew_tolerance: seconds(
                "clock_skew_tolerance_seconds",
                rules.clock_skew_tolerance_seconds,
                0,
                default.clock_skew_tolerance,
            )?,
        })
    }

    /// The names of all rules.
    pub fn rule_names() -> impl Iterator<Item = &'static str> {
        RULES.iter().map(|(name, _)| *name)
    }

    /// Reads rules from variables named like the rules in upper case; an empty one keeps its default.
    ///
    /// # Errors
    /// As [`SessionConfig::from_rules`].
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut rules = Map::new();
        for (name, is_list) in RULES {
            let Some(text) = variable(&name.to_uppercase()).filter(|text| !text.trim().is_empty()) else { continue };
            let value = if is_list {
                text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(Value::from).collect()
            } else {
                // Numbers and booleans are JSON; what is not (`inclusive`, `Europe/Berlin`) is a word.
                serde_json::from_str(&text).unwrap_or(Value::String(text))
            };
            rules.insert(name.to_owned(), value);
        }
        Self::from_rules(Value::Object(rules))
    }

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

/// Returns what is wrong with a rule's value in words that need no Rust.
fn in_words(error: &serde_json::Error) -> String {
    let types = [
        ("expected i64", "expected a whole number"),
        ("expected u32", "expected a whole number, at least 1"),
        ("expected a sequence", "expected a list"),
        ("expected string or map", "expected a string"),
        ("expected a boolean", "expected true or false"),
    ];
    types.iter().fold(error.to_string(), |text, (rust, words)| text.replace(rust, words))
}

fn time_zone(name: &str) -> Result<Tz, ConfigError> {
    name.parse().map_err(|_| {
        ConfigError(format!("midnight is `{name}`; it must be a time zone's IANA name, such as `Europe/Berlin`"))
    })
}

/// A host as hosts are compared: lower case, without `www.`.
pub(crate) fn bare_host(host: &str) -> String {
    let host = host.trim().trim_end_matches('.').to_ascii_lowercase();
    host.strip_prefix("www.").map_or(host.clone(), str::to_owned)
}
