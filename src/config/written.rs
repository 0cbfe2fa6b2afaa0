//! Reads rules from JSON objects (`--rules`, profiles, projects) or from environment variables, and checks the bounds of their
//! values.

mod rule_value;

use std::collections::BTreeMap;

use chrono::TimeDelta;
use chrono_tz::Tz;
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use super::{ConfigError, LIFECYCLE_EVENTS, SessionConfig};
use rule_value::{RuleValue, field_names, read, unknown_rule};

/// The maximum of a rule in seconds: 30 days. With longer times, a session could still change after the table has deleted what
/// its corrections need.
const MAX_RULE_SECONDS: i64 = 30 * 86_400;

/// The rules that are off by default. An empty variable does not turn them off, because a profile can have turned them on.
const CAN_BE_OFF: [&str; 2] = ["midnight", "max_events"];

impl SessionConfig {
    /// Reads rules from a JSON object. A rule that the object leaves out or sets to `null` keeps its default.
    ///
    /// # Errors
    ///
    /// Returns a [`ConfigError`] if a name is unknown, if a value has the wrong type or is out of range, if a time zone is
    /// unknown, or if an event is both passive and keep-alive.
    pub fn from_rules(rules: Value) -> Result<Self, ConfigError> {
        GivenRules::of_json(rules)?.read()
    }

    /// Reads rules from variables, like [`GivenRules::of_variables`].
    ///
    /// # Errors
    ///
    /// Returns the errors of [`SessionConfig::from_rules`], and one if there is no such profile.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        GivenRules::of_variables(variable)?.read()
    }

    /// Returns the names of all rules, in the order in which they are declared.
    pub fn rule_names() -> impl Iterator<Item = &'static str> {
        field_names::<Self>().iter().copied()
    }

    /// Checks that no event is both passive and keep-alive. The default of `keep_alive_events` is exempt, because it gives way to
    /// `passive_events`.
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

/// Rules as they are given, by name, before they are read. A rule that is not among them keeps its default.
#[derive(Debug, Clone, Default)]
pub struct GivenRules(BTreeMap<String, RuleValue>);

impl GivenRules {
    /// Takes rules from a JSON object. `null` stands for a rule's default.
    ///
    /// # Errors
    ///
    /// Returns a [`ConfigError`] if it is not an object, or if a name is unknown.
    pub fn of_json(rules: Value) -> Result<Self, ConfigError> {
        match rules {
            Value::Object(members) => Self::of_members(members),
            _ => Err(ConfigError("the rules are not a JSON object".to_owned())),
        }
    }

    /// Takes rules from the members of a JSON object, like [`GivenRules::of_json`].
    pub(super) fn of_members(members: impl IntoIterator<Item = (String, Value)>) -> Result<Self, ConfigError> {
        let given: BTreeMap<_, _> = members.into_iter().map(|(name, value)| (name, RuleValue::Json(value))).collect();
        match given.keys().find(|name| !SessionConfig::rule_names().any(|known| known == *name)) {
            Some(unknown) => Err(unknown_rule(unknown)),
            None => Ok(Self(given)),
        }
    }

    /// Takes rules from variables that have the rules' names in upper case, over those of the profile that `PROFILE` names. An
    /// empty variable counts as missing. A list is separated by commas, or is a JSON array. An empty list is `[]`. For a rule that
    /// can be off, `none` turns it off.
    ///
    /// # Errors
    ///
    /// Returns a [`ConfigError`] if there is no such profile.
    pub fn of_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let value = |name: &str| {
            let value = variable(name)?.trim().to_owned();
            (!value.is_empty()).then_some(value)
        };
        let profile = value("PROFILE").map_or(Ok(Self::default()), |name| {
            Self::of_profile(&name).map_err(|error| ConfigError(format!("PROFILE: {error}")))
        })?;
        let rule = |name: &str| {
            let value = match value(&name.to_uppercase())? {
                none if none == "none" && CAN_BE_OFF.contains(&name) => RuleValue::Json(Value::Null),
                value => RuleValue::Variable(value),
            };
            Some((name.to_owned(), value))
        };
        Ok(profile.with(Self(SessionConfig::rule_names().filter_map(rule).collect())))
    }

    /// Returns these rules, overridden by `other`.
    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Reads the rules.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`SessionConfig::from_rules`].
    pub fn read(&self) -> Result<SessionConfig, ConfigError> {
        let given = self.0.iter().filter(|(_, value)| !value.is_null());
        let config: SessionConfig = read(given.map(|(name, value)| (name.clone(), value.clone())))?;
        config.check_event_lists()?;
        Ok(config)
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

fn seconds_from<'de, D: Deserializer<'de>>(min: i64, value: D) -> Result<TimeDelta, D::Error> {
    match i64::deserialize(value)? {
        seconds if (min..=MAX_RULE_SECONDS).contains(&seconds) => Ok(TimeDelta::seconds(seconds)),
        other => Err(de::Error::custom(format_args!(
            "is {other}; it must be a number of seconds from {min} to {MAX_RULE_SECONDS}"
        ))),
    }
}

/// Reads an optional maximum, at least 1.
pub(super) fn limit<'de, D: Deserializer<'de>>(value: D) -> Result<Option<u32>, D::Error> {
    match u32::deserialize(value)? {
        0 => Err(de::Error::custom("is 0; it must be at least 1, or left out")),
        limit => Ok(Some(limit)),
    }
}

/// Reads a time zone by its IANA name.
pub(super) fn time_zone<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Tz>, D::Error> {
    let name = String::deserialize(value)?;
    name.parse().map(Some).map_err(|_| {
        de::Error::custom(format_args!("is `{name}`; it must be a time zone's IANA name, such as `Europe/Berlin`"))
    })
}

/// Reads a list of event names. A blank name is refused, because no event has it. So are the names of the service's own events,
/// because those pass through unchanged.
pub(super) fn event_names<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(value)?;
    match names.iter().find(|name| name.trim().is_empty() || LIFECYCLE_EVENTS.contains(&name.as_str())) {
        Some(name) => {
            Err(de::Error::custom(format_args!("has `{name}`, which no event that counts can be called; take it out")))
        }
        None => Ok(names),
    }
}
