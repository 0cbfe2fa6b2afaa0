//! The kinds of events that a session counts (`counted_events`).

use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

use super::{ConfigError, LIFECYCLE_EVENTS};

/// The maximum number of kinds. Each is stored with every session that has one.
const MAX_KINDS: usize = 8;
/// The maximum size of a name in bytes.
const MAX_NAME_BYTES: usize = 64;

/// A kind of events that a session counts, and the property whose values it sums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountedEvent {
    /// The events' name.
    pub name: String,
    /// The property with a number; `None` if nothing is summed.
    pub property: Option<String>,
}

impl FromStr for CountedEvent {
    type Err = ConfigError;

    /// Reads `name`, or `name:property`. A name with a colon of its own needs a colon behind it.
    fn from_str(input: &str) -> Result<Self, ConfigError> {
        let input = input.trim();
        let (name, property) = input.rsplit_once(':').unwrap_or((input, ""));
        if name.trim().is_empty() || name.len() > MAX_NAME_BYTES || LIFECYCLE_EVENTS.contains(&name) {
            let what = "which is no event's name of 1 to 64 bytes, alone or with a colon and a property";
            return Err(ConfigError(format!("has `{input}`, {what}; write for example `order` or `order:value`")));
        }
        let property = Some(property.to_owned()).filter(|property| !property.is_empty());
        Ok(Self { name: name.to_owned(), property })
    }
}

/// Reads the list. Its length is bounded, and no name is there twice.
pub(super) fn counted_events<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<CountedEvent>, D::Error> {
    let written = Vec::<String>::deserialize(value)?;
    let kinds = written.iter().map(|kind| kind.parse()).collect::<Result<Vec<CountedEvent>, _>>();
    let kinds = kinds.map_err(de::Error::custom)?;
    if kinds.len() > MAX_KINDS {
        return Err(de::Error::custom(format_args!("has {} kinds of events; it may have {MAX_KINDS}", kinds.len())));
    }
    match kinds.iter().enumerate().find(|(at, kind)| kinds[..*at].iter().any(|other| other.name == kind.name)) {
        Some((_, kind)) => Err(de::Error::custom(format_args!("has `{}` twice; take one out", kind.name))),
        None => Ok(kinds),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::config::SessionConfig;

    #[test]
    fn kinds_are_read_with_their_property() {
        let read = |kinds: serde_json::Value| SessionConfig::from_rules(json!({"counted_events": kinds}));
        let config = read(json!(["$exception", "order:value", "app:open:", " a b "])).unwrap();
        let found: Vec<(&str, Option<&str>)> =
            config.counted_events.iter().map(|kind| (kind.name.as_str(), kind.property.as_deref())).collect();
        assert_eq!(found, [("$exception", None), ("order", Some("value")), ("app:open", None), ("a b", None)]);
        let many: Vec<String> = (0..9).map(|n| n.to_string()).collect();
        for (kinds, error) in [
            (json!([":value"]), "counted_events has `:value`, which is no"),
            (json!([" "]), "counted_events has ``, which is no"),
            (json!(["$session_end"]), "counted_events has `$session_end`, which is no"),
            (json!(["x".repeat(65)]), "counted_events has `xxx"),
            (json!(["a", "a:b"]), "counted_events has `a` twice"),
            (json!(many), "counted_events has 9 kinds of events; it may have 8"),
        ] {
            let found = read(kinds).unwrap_err().to_string();
            assert!(found.starts_with(error), "{found}");
        }
    }
}
