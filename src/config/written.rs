//! How rules are read: from a JSON object (`--rules`), or from environment variables; and the types that have bounds.

mod rule_value;

use chrono::TimeDelta;
use chrono_tz::Tz;
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use super::{ConfigError, LIFECYCLE_EVENTS, SessionConfig};
use rule_value::{RuleValue, field_names, read};

/// The longest time that a rule takes, in seconds: 30 days. Longer ones would outlive what a table keeps for corrections.
const MAX_RULE_SECONDS: i64 = 30 * 86_400;

impl SessionConfig {
    /// Reads rules from a JSON object. A rule that it leaves out, or sets to `null`, keeps its default.
    ///
    /// # Errors
    /// An unknown name, a value of the wrong type or out of range, an unknown time zone, an event that is passive and
    /// keep-alive.
    pub fn from_rules(rules: Value) -> Result<Self, ConfigError> {
        let Value::Object(members) = rules else {
            return Err(ConfigError("the rules are not a JSON object".to_owned()));
        };
        let is_left_out = |name: &str, value: &Value| value.is_null() && Self::rule_names().any(|known| known == name);
        let given = members.into_iter().filter(|(name, value)| !is_left_out(name, value));
        Self::from_values(given.map(|(name, value)| (name, RuleValue::Json(value))))
    }

    /// Reads rules from variables named like the rules in upper case. An empty one keeps its default. A list is written with
    /// commas, or as a JSON array; an empty one is `[]`.
    ///
    /// # Errors
    /// As [`SessionConfig::from_rules`].
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let value = |name: &str| {
            let text = variable(&name.to_uppercase())?.trim().to_owned();
            (!text.is_empty()).then(|| (name.to_owned(), RuleValue::Variable(text)))
        };
        Self::from_values(Self::rule_names().filter_map(value))
    }

    /// The names of all rules, in the order of their declaration.
    pub fn rule_names() -> impl Iterator<Item = &'static str> {
        field_names::<Self>().iter().copied()
    }

    fn from_values(values: impl Iterator<Item = (String, RuleValue)>) -> Result<Self, ConfigError> {
        let config: Self = read(values)?;
        config.check_event_lists()?;
        Ok(config)
    }

    /// Checks that no event is both passive and keep-alive. The default of `keep_alive_events` gives way to `passive_events`.
    fn check_event_lists(&self) -> Result<(), ConfigError> {
        let is_default = self.keep_alive_events == Self::default().keep_alive_events;
        match self.keep_alive_events.iter().find(|name| self.passive_events.contains(name)) {
            Some(name) if !is_default => Err(ConfigError(format!(
                "keep_alive_events and passive_events both have `{name}`; an event is one or the other: take it out of one"
            ))),
            _ => Ok(()),
        }
    }
}

/// Reads a whole number of seconds, at least 1.
pub(super) fn positive_seconds<'de, D: Deserializer<'de>>(value: D) -> Result<TimeDelta, D::Error> {
    seconds_from(1, value)
}

/// Reads a whole number of seconds, at least 0.
pub(super) fn seconds<'de, D: Deserializer<'de>>(value: D) -> Result<TimeDelta, D::Error> {
    seconds_from(0, value)
}

fn seconds_from<'de, D: Deserializer<'de>>(least: i64, value: D) -> Result<TimeDelta, D::Error> {
    match i64::deserialize(value)? {
        seconds if (least..=MAX_RULE_SECONDS).contains(&seconds) => Ok(TimeDelta::seconds(seconds)),
        other => Err(de::Error::custom(format_args!(
            "is {other}; it must be a number of seconds from {least} to {MAX_RULE_SECONDS}"
        ))),
    }
}

/// Reads a limit, at least 1.
pub(super) fn limit<'de, D: Deserializer<'de>>(value: D) -> Result<Option<u32>, D::Error> {
    match u32::deserialize(value)? {
        0 => Err(de::Error::custom("is 0; it must be at least 1, or left out")),
        limit => Ok(Some(limit)),
    }
}

/// Reads the IANA name of a time zone.
pub(super) fn time_zone<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Tz>, D::Error> {
    let name = String::deserialize(value)?;
    name.parse().map(Some).map_err(|_| {
        de::Error::custom(format_args!("is `{name}`; it must be a time zone's IANA name, such as `Europe/Berlin`"))
    })
}

/// Reads names of events: each can be that of an event, and not of one of our own, which pass through unchanged.
pub(super) fn event_names<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(value)?;
    match names.iter().find(|name| name.trim().is_empty() || LIFECYCLE_EVENTS.contains(&name.as_str())) {
        Some(name) => {
            Err(de::Error::custom(format_args!("has `{name}`, which no event that counts can be called; take it out")))
        }
        None => Ok(names),
    }
}
