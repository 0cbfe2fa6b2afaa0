//! The values of rules, as serde's derived code asks for them; and its errors, as sentences that name the rule and what to
//! write instead.

use std::fmt::Display;

use serde::de::value::{MapAccessDeserializer, SeqDeserializer, StringDeserializer};
use serde::de::{self, DeserializeOwned, DeserializeSeed, Expected, IntoDeserializer, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, forward_to_deserialize_any};
use serde_json::Value;

use crate::config::ConfigError;

/// Reads a struct from the values of its fields; what is not among them has its default.
///
/// # Errors
/// A sentence that names the first rule that is wrong, and says what to write instead.
pub(super) fn read<T: DeserializeOwned>(values: impl Iterator<Item = (String, RuleValue)>) -> Result<T, ConfigError> {
    let values = RuleValues { rest: values, current: None };
    T::deserialize(MapAccessDeserializer::new(values)).map_err(|RuleError(sentence)| ConfigError(sentence))
}

/// Returns the names of a struct's fields, as its values are written.
pub(super) fn field_names<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut names: &[&str] = &[];
    // The derived code asks for a struct, and lists its fields to do so; the error ends it there.
    let _ = T::deserialize(FieldNames(&mut names));
    names
}

/// A rule's value, before its type is known.
pub(super) enum RuleValue {
    /// A member of the JSON object.
    Json(Value),
    /// The text of an environment variable. Its rule's type decides how it is read: `a,b` is a list for a list of events, and
    /// `600` a number for a number of seconds, but a name for a time zone.
    Variable(String),
}

impl RuleValue {
    /// Returns a variable's text as the JSON that its rule takes, if that is not a list: a number or boolean, else a string.
    fn scalar(text: String) -> Value {
        match serde_json::from_str(&text) {
            Ok(scalar @ (Value::Bool(_) | Value::Number(_))) => scalar,
            _ => Value::String(text),
        }
    }
}

impl<'de> Deserializer<'de> for RuleValue {
    type Error = RuleError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RuleError> {
        let value = match self {
            Self::Json(value) => value,
            Self::Variable(text) => Self::scalar(text),
        };
        match value {
            Value::Array(items) => SeqDeserializer::new(items.into_iter().map(Self::Json)).deserialize_seq(visitor),
            Value::Object(_) => Err(de::Error::invalid_type(Unexpected::Map, &visitor)),
            scalar => visit_scalar(scalar, visitor),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RuleError> {
        match self {
            Self::Variable(text) if text.starts_with('[') => {
                let list = serde_json::from_str(&text).map_err(RuleError::of_value)?;
                Self::Json(list).deserialize_seq(visitor)
            }
            Self::Variable(text) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                SeqDeserializer::new(items.map(|item| Self::Variable(item.to_owned()))).deserialize_seq(visitor)
            }
            json => json.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RuleError> {
        match self {
            Self::Variable(text) => visitor.visit_string(text),
            json => json.deserialize_any(visitor),
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
        let word: StringDeserializer<RuleError> = String::deserialize(self)?.into_deserializer();
        word.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf option unit unit_struct newtype_struct tuple
        tuple_struct map struct identifier ignored_any
    }
}

fn visit_scalar<'de, V: Visitor<'de>>(scalar: Value, visitor: V) -> Result<V::Value, RuleError> {
    match scalar {
        Value::Bool(value) => visitor.visit_bool(value),
        Value::String(text) => visitor.visit_string(text),
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

/// Hands the rules to the derived code one after the other, and puts each one's name before its error.
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

/// What is wrong with a rule: the rest of a sentence that begins with the rule's name.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct RuleError(String);

impl RuleError {
    /// An error of the value as such.
    fn of_value(what: impl Display) -> Self {
        Self(format!(": {what}"))
    }

    /// Returns the whole sentence.
    fn of_rule(self, name: &str) -> Self {
        Self(format!("{name}{}", self.0))
    }
}

impl de::Error for RuleError {
    /// The sentences of our own types: they go on behind the name with a verb.
    fn custom<T: Display>(what: T) -> Self {
        Self(format!(" {what}"))
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

/// Returns what a value has to be, in words that need no Rust.
fn in_words(expected: &dyn Expected) -> String {
    match expected.to_string().as_str() {
        "i64" => "a whole number".to_owned(),
        "u32" => "a whole number, at least 1".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        other => other.to_owned(),
    }
}

/// Returns words as a choice: `` `a`, `b` or `c` ``.
fn one_of(words: &[&str]) -> String {
    match words.split_last() {
        Some((last, first)) if !first.is_empty() => format!("{} or `{last}`", quoted(first)),
        _ => quoted(words),
    }
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// Takes note of the names of a struct's fields, and reads nothing.
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
