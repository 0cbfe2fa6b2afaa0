//! The deserializer that fills a struct of rules, and its errors: sentences that name the rule and what to write instead.

use std::fmt::Display;

use serde::de::value::{MapAccessDeserializer, SeqDeserializer, StringDeserializer};
use serde::de::{self, DeserializeOwned, DeserializeSeed, Expected, IntoDeserializer, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, forward_to_deserialize_any};
use serde_json::Value;

use crate::config::{ConfigError, SessionConfig};

/// Reads a struct from the values of its fields. A field without a value keeps its default.
///
/// # Errors
///
/// Returns a sentence that names the first rule that is wrong and what to write instead.
pub(super) fn read<T: DeserializeOwned>(values: impl Iterator<Item = (String, RuleValue)>) -> Result<T, ConfigError> {
    let values = RuleValues { rest: values, current: None };
    T::deserialize(MapAccessDeserializer::new(values)).map_err(|RuleError(sentence)| ConfigError(sentence))
}

/// Returns the error for a name that is no rule.
pub(super) fn unknown_rule(name: &str) -> ConfigError {
    let RuleError(sentence) =
        <RuleError as de::Error>::unknown_field(name, field_names::<SessionConfig>()).of_rule(name);
    ConfigError(sentence)
}

/// Returns the names of a struct's fields, in the spelling in which they are deserialized.
pub(super) fn field_names<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut names: &[&str] = &[];
    // The code that serde derives asks for a struct and passes the names of its fields. The error then stops it.
    let _ = T::deserialize(FieldNames(&mut names));
    names
}

/// A rule's value, before it is converted to the rule's type.
#[derive(Debug, Clone)]
pub(in crate::config) enum RuleValue {
    /// A member of the JSON object.
    Json(Value),
    /// The value of an environment variable. The rule's type decides how it is read: `a,b` is a list if the rule is a list of
    /// events, and `600` is a number if the rule is a number of seconds, but a name if the rule is a time zone.
    Variable(String),
}

impl RuleValue {
    /// Returns whether the value is `null`, which stands for the rule's default.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Json(Value::Null))
    }

    /// Returns a variable's value as a JSON number or boolean if it is one, else as a JSON string.
    fn scalar(variable: String) -> Value {
        match serde_json::from_str(&variable) {
            Ok(scalar @ (Value::Bool(_) | Value::Number(_))) => scalar,
            _ => Value::String(variable),
        }
    }
}

impl<'de> Deserializer<'de> for RuleValue {
    type Error = RuleError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RuleError> {
        let value = match self {
            Self::Json(value) => value,
            Self::Variable(value) => Self::scalar(value),
        };
        match value {
            Value::Array(items) => SeqDeserializer::new(items.into_iter().map(Self::Json)).deserialize_seq(visitor),
            Value::Object(_) => Err(de::Error::invalid_type(Unexpected::Map, &visitor)),
            scalar => visit_scalar(scalar, visitor),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RuleError> {
        match self {
            Self::Variable(value) if value.starts_with('[') => {
                let list = serde_json::from_str(&value).map_err(RuleError::of_value)?;
                Self::Json(list).deserialize_seq(visitor)
            }
            Self::Variable(value) => {
                let items = value.split(',').map(str::trim).filter(|item| !item.is_empty());
                SeqDeserializer::new(items.map(|item| Self::Variable(item.to_owned()))).deserialize_seq(visitor)
            }
            json @ Self::Json(_) => json.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RuleError> {
        match self {
            Self::Variable(value) => visitor.visit_string(value),
            json @ Self::Json(_) => json.deserialize_any(visitor),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RuleError> {
        self.deserialize_string(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, RuleError> {
        let variant: StringDeserializer<RuleError> = String::deserialize(self)?.into_deserializer();
        variant.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf option unit unit_struct newtype_struct tuple
        tuple_struct map struct identifier ignored_any
    }
}

fn visit_scalar<'de, V: Visitor<'de>>(scalar: Value, visitor: V) -> Result<V::Value, RuleError> {
    match scalar {
        Value::Bool(value) => visitor.visit_bool(value),
        Value::String(string) => visitor.visit_string(string),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => visitor.visit_i64(number),
            (None, Some(number)) => visitor.visit_u64(number),
            (None, None) => visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN)),
        },
        _ => visitor.visit_unit(),
    }
}

impl IntoDeserializer<'_, RuleError> for RuleValue {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// Passes the rules one by one to the code that serde derives. Puts the rule's name before an error.
struct RuleValues<I> {
    rest: I,
    current: Option<(String, RuleValue)>,
}

impl<'de, I: Iterator<Item = (String, RuleValue)>> MapAccess<'de> for RuleValues<I> {
    type Error = RuleError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, RuleError> {
        self.current = self.rest.next();
        let Some((name, _)) = &self.current else { return Ok(None) };
        let key: StringDeserializer<RuleError> = name.clone().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|error| error.of_rule(name))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, RuleError> {
        let (name, value) = self.current.take().ok_or_else(|| de::Error::custom("has no value"))?;
        seed.deserialize(value).map_err(|error| error.of_rule(&name))
    }
}

/// What is wrong with a rule: a sentence that begins with the rule's name, or the rest of that sentence.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(in crate::config) struct RuleError(String);

impl RuleError {
    /// Returns the rest of a sentence about the value itself.
    fn of_value(problem: impl Display) -> Self {
        Self(format!(": {problem}"))
    }

    /// Puts the rule's name before the rest of a sentence.
    fn of_rule(self, name: &str) -> Self {
        Self(format!("{name}{}", self.0))
    }
}

impl de::Error for RuleError {
    /// Returns the rest of a sentence. The rules' own types raise such errors: they begin with a verb, such as `is 0; …`.
    fn custom<T: Display>(predicate: T) -> Self {
        Self(format!(" {predicate}"))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = if found == Unexpected::Unit { Unexpected::Other("null") } else { found };
        Self::of_value(format_args!("invalid type: {found}, expected {}", in_words(expected)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::of_value(format_args!("invalid value: {found}, expected {}", in_words(expected)))
    }

    fn unknown_variant(found: &str, expected: &'static [&'static str]) -> Self {
        Self::of_value(format_args!("unknown variant `{found}`, expected {}", one_of(expected)))
    }

    fn unknown_field(_name: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(format_args!("is no rule; the rules are {}", quoted(expected)))
    }
}

/// Returns the type that was expected, in words that do not require knowledge of Rust.
fn in_words(expected: &dyn Expected) -> String {
    match expected.to_string().as_str() {
        "i64" => "a whole number".to_owned(),
        "u32" => "a whole number, at least 1".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        other => other.to_owned(),
    }
}

/// Returns the words as a choice: `` `a`, `b` or `c` ``.
fn one_of(words: &[&str]) -> String {
    match words.split_last() {
        Some((last, first)) if !first.is_empty() => format!("{} or `{last}`", quoted(first)),
        _ => quoted(words),
    }
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// A deserializer that records the names of a struct's fields and reads nothing.
struct FieldNames<'n>(&'n mut &'static [&'static str]);

impl<'de> Deserializer<'de> for FieldNames<'_> {
    type Error = RuleError;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, RuleError> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, RuleError> {
        Err(de::Error::custom("has no value"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
