//! The string table of a stored item. It is sorted. Each string is stored once, without the prefix that it shares with the string
//! before it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::FormatError;

/// The maximum size of an item's strings in bytes, prefixes included. A writer refuses more. The limit is below a function's
/// memory.
pub(super) const MAX_BYTES: usize = 64 * 1024 * 1024;

/// A reference to a string of the table: 0 is no string, n is the n-th string.
pub(super) type StringIndex = u32;

/// Collects the strings of an item that is written.
#[derive(Default)]
pub(super) struct StringTableBuilder<'a>(BTreeSet<&'a str>);

impl<'a> StringTableBuilder<'a> {
    pub(super) fn add(&mut self, string: &'a str) {
        self.0.insert(string);
    }

    pub(super) fn finish(self) -> StringTable<'a> {
        StringTable(self.0.into_iter().collect())
    }
}

/// The collected strings, sorted.
pub(super) struct StringTable<'a>(Vec<&'a str>);

impl<'a> StringTable<'a> {
    /// Returns the size of all strings in bytes, prefixes included.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(|string| string.len()).sum()
    }

    /// Returns the index of a string. The string must be one of those that were collected.
    pub(super) fn index_of(&self, string: Option<&str>) -> StringIndex {
        string.and_then(|string| self.0.binary_search(&string).ok()).map_or(0, |at| at as StringIndex + 1)
    }

    /// Returns the strings as they are stored: the number of bytes that each shares with the string before it, and the rest.
    pub(super) fn stored(&self) -> Vec<(u32, &'a str)> {
        let mut before = "";
        let shorten = |&string: &&'a str| {
            let mut shared = string.bytes().zip(before.bytes()).take_while(|(a, b)| a == b).count();
            while !string.is_char_boundary(shared) {
                shared -= 1;
            }
            before = string;
            (shared as u32, &string[shared..])
        };
        self.0.iter().map(shorten).collect()
    }
}

/// The string table of an item that is read.
pub(super) struct StringTableReader(Vec<Arc<str>>);

impl StringTableReader {
    pub(super) fn new(stored: &[(u32, &str)]) -> Result<Self, FormatError> {
        let mut strings: Vec<Arc<str>> = Vec::with_capacity(stored.len());
        let mut room = MAX_BYTES;
        for (shared, rest) in stored {
            let before = strings.last().map_or("", |string| string);
            let shared =
                before.get(..*shared as usize).ok_or(FormatError::Rule("a string's shared prefix is out of range"))?;
            room = room.checked_sub(shared.len() + rest.len()).ok_or(FormatError::Rule("the strings are too long"))?;
            strings.push(if shared.is_empty() { Arc::from(*rest) } else { format!("{shared}{rest}").into() });
        }
        Ok(Self(strings))
    }

    /// Returns the string with this index; `None` for index 0.
    pub(super) fn get(&self, index: StringIndex) -> Result<Option<Arc<str>>, FormatError> {
        match index.checked_sub(1) {
            None => Ok(None),
            Some(at) => match self.0.get(at as usize) {
                Some(string) => Ok(Some(string.clone())),
                None => Err(FormatError::Rule("a string index is out of range")),
            },
        }
    }

    /// Returns the string with this index as an owned copy; `None` for index 0.
    pub(super) fn get_owned(&self, index: StringIndex) -> Result<Option<String>, FormatError> {
        Ok(self.get(index)?.as_deref().map(str::to_owned))
    }

    /// Returns the string with this index. Index 0 is an error.
    pub(super) fn require(&self, index: StringIndex) -> Result<Arc<str>, FormatError> {
        self.get(index)?.ok_or(FormatError::Rule("a required string is missing"))
    }
}
