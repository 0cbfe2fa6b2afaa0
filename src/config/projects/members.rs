//! The members of a JSON object, in which none may be given twice.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of an object, in order. A member that is given twice is an error, because one of them would have no effect.
pub(super) struct Members(Vec<(String, Box<RawValue>)>);

impl Members {
    /// Reads the members of a JSON object.
    ///
    /// # Errors
    ///
    /// Returns the rest of a sentence. It repeats no value, because that can be a key which stands where it does not belong.
    pub fn of(json: &str) -> Result<Vec<(String, Box<RawValue>)>, String> {
        match json.trim_start().as_bytes().first() {
            None | Some(b'{') => {}
            Some(_) => return Err("cannot be read: a JSON object is expected".to_owned()),
        }
        serde_json::from_str::<Self>(json).map(|members| members.0).map_err(|error| format!("cannot be read: {error}"))
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members: Vec<(String, Box<RawValue>)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    if members.iter().any(|(other, _)| *other == name) {
                        return Err(de::Error::custom(format_args!("`{name}` is given twice")));
                    }
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}
