//! The rules as they are written: names and types of `--rules` and of the environment.

use chrono::TimeDelta;
use chrono_tz::Tz;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    Boundary, ConfigError, DirectThenSource, FirstCampaign, HostRule, InternalCampaigns, LIFECYCLE_EVENTS, NobodyIds,
    ReferrerMatch, SessionConfig, UtmField,
};

/// The longest timeout, maximum duration and lateness, in seconds: 30 days. Longer ones would outlive what a
/// table keeps for corrections.
const MAX_RULE_SECONDS: i64 = 30 * 86_400;

/// The rules; what is left out keeps its default.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Rules {
    timeout_seconds: Option<i64>,
    boundary: Boundary,
    max_duration_seconds: Option<i64>,
    new_session_on_referrer_change: Option<bool>,
    new_session_on_utm_change: Option<bool>,
    utm_fields: Option<Vec<UtmField>>,
    utm_ignore_case: bool,
    direct_then_source: DirectThenSource,
    first_campaign: FirstCampaign,
    internal_campaigns: InternalCampaigns,
    referrer_match: ReferrerMatch,
    new_session_on_click_id_change: bool,
    midnight: Option<String>,
    internal_hosts: Vec<String>,
    ignored_referrers: Vec<String>,
    passive_events: Vec<String>,
    keep_alive_events: Option<Vec<String>>,
    nobody_ids: Option<Vec<String>>,
    max_events: Option<u32>,
    lateness_seconds: Option<i64>,
    clock_skew_tolerance_seconds: Option<i64>,
}

/// Which rules there are, and which of them are lists (written with commas in the environment).
const RULES: [(&str, bool); 21] = [
    ("timeout_seconds", false),
    ("boundary", false),
    ("max_duration_seconds", false),
    ("new_session_on_referrer_change", false),
    ("new_session_on_utm_change", false),
    ("utm_fields", true),
    ("utm_ignore_case", false),
    ("direct_then_source", false),
    ("first_campaign", false),
    ("internal_campaigns", false),
    ("referrer_match", false),
    ("new_session_on_click_id_change", false),
    ("midnight", false),
    ("internal_hosts", true),
    ("ignored_referrers", true),
    ("passive_events", true),
    ("keep_alive_events", true),
    ("nobody_ids", true),
    ("max_events", false),
    ("lateness_seconds", false),
    ("clock_skew_tolerance_seconds", false),
];

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
        event_names("passive_events", &rules.passive_events)?;
        let keep_alive_events = rules.keep_alive_events.as_deref().unwrap_or_default();
        event_names("keep_alive_events", keep_alive_events)?;
        if let Some(name) = keep_alive_events.iter().find(|name| rules.passive_events.contains(name)) {
            return Err(ConfigError(format!(
                "keep_alive_events and passive_events both have `{name}`; an event is one or the other: take it out of one"
            )));
        }
        let default = Self::default();
        Ok(Self {
            timeout: seconds("timeout_seconds", rules.timeout_seconds, 1, default.timeout)?,
            boundary: rules.boundary,
            max_duration: seconds("max_duration_seconds", rules.max_duration_seconds, 1, default.max_duration)?,
            new_session_on_referrer_change: rules.new_session_on_referrer_change.unwrap_or(true),
            new_session_on_utm_change: rules.new_session_on_utm_change.unwrap_or(true),
            utm_fields: rules.utm_fields.unwrap_or(default.utm_fields),
            utm_ignore_case: rules.utm_ignore_case,
            direct_then_source: rules.direct_then_source,
            first_campaign: rules.first_campaign,
            internal_campaigns: rules.internal_campaigns,
            referrer_match: rules.referrer_match,
            new_session_on_click_id_change: rules.new_session_on_click_id_change,
            midnight: rules.midnight.as_deref().map(time_zone).transpose()?,
            internal_hosts: hosts("internal_hosts", &rules.internal_hosts)?,
            ignored_referrers: hosts("ignored_referrers", &rules.ignored_referrers)?,
            passive_events: rules.passive_events,
            keep_alive_events: rules.keep_alive_events.unwrap_or(default.keep_alive_events),
            nobody_ids: rules.nobody_ids.map_or(default.nobody_ids, NobodyIds::new),
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

    /// Reads rules from variables named like the rules in upper case; an empty one keeps its default. A list is written with
    /// commas, or as a JSON array; an empty one is `[]`.
    ///
    /// # Errors
    /// As [`SessionConfig::from_rules`].
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut rules = Map::new();
        for (name, is_list) in RULES {
            let Some(text) = variable(&name.to_uppercase()).filter(|text| !text.trim().is_empty()) else { continue };
            let value = if is_list && text.trim().starts_with('[') {
                serde_json::from_str(&text).map_err(|error| ConfigError(format!("{name}: {error}")))?
            } else if is_list {
                text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(Value::from).collect()
            } else {
                // Numbers and booleans are JSON; what is not (`inclusive`, `Europe/Berlin`) is a word.
                serde_json::from_str(&text).unwrap_or(Value::String(text))
            };
            rules.insert(name.to_owned(), value);
        }
        Self::from_rules(Value::Object(rules))
    }
}

/// Checks a list of events' names: each can be that of an event, and not of one of our own, which pass through as they are.
fn event_names(rule: &str, names: &[String]) -> Result<(), ConfigError> {
    let bad = names.iter().find(|name| name.trim().is_empty() || LIFECYCLE_EVENTS.contains(&name.as_str()));
    bad.map_or(Ok(()), |name| {
        Err(ConfigError(format!("{rule} has `{name}`, which no event that counts can be called; take it out")))
    })
}

/// Reads a list of hosts.
fn hosts(rule: &str, texts: &[String]) -> Result<Vec<HostRule>, ConfigError> {
    let read = |text: &String| text.parse().map_err(|ConfigError(why)| ConfigError(format!("{rule} {why}")));
    texts.iter().map(read).collect()
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
