//! The strings of a stored item: each once, sorted, without what it shares with the one before it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::FormatError;

/// Bytes of an item's strings at most, once each is whole again. A writer refuses more; it is less than a function's memory.
pub(super) const MAX_BYTES: usize = 64 * 1024 * 1024;

/// A text's place: 0 is none, n the n-th text.
pub(super) type StringIndex = u32;

/// Collects strings.
#[derive(Default)]
pub(super) struct Writer<'a>(BTreeSet<&'a str>);

impl<'a> Writer<'a> {
    pub(super) fn add(&mut self, text: &'a str) {
        self.0.insert(text);
    }

    pub(super) fn finish(self) -> StringTable<'a> {
        StringTable(self.0.into_iter().collect())
    }
}

/// The collected strings, sorted.
pub(super) struct StringTable<'a>(Vec<&'a str>);

impl<'a> StringTable<'a> {
    /// Bytes of all strings, each whole.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(|text| text.len()).sum()
    }

    /// Where a text stands. All strings of the item have been collected before.
    pub(super) fn index_of(&self, text: Option<&str>) -> StringIndex {
        text.and_then(|text| self.0.binary_search(&text).ok()).map_or(0, |at| at as StringIndex + 1)
    }

    /// The strings as they are stored: how many bytes each shares with the one before, and the rest.
    pub(super) fn stored(&self) -> Vec<(u32, &'a str)> {
        let mut before = "";
        let shorten = |&text: &&'a str| {
            let mut shared = text.bytes().zip(before.bytes()).take_while(|(a, b)| a == b).count();
            while !text.is_char_boundary(shared) {
                shared -= 1;
            }
            before = text;
            (shared as u32, &text[shared..])
        };
        self.0.iter().map(shorten).collect()
    }
}

/// The strings of an item that is read.
pub(super) struct Reader(Vec<Arc<str>>);

impl Reader {
    pub(super) fn new(stored: &[(u32, &str)]) -> Result<Self, FormatError> {
        let mut strings: Vec<Arc<str>> = Vec::with_capacity(stored.len());
        let mut room = MAX_BYTES;
        for (shared, rest) in stored {
            let before = strings.last().map_or("", |text| text);
            let shared = before.get(..*shared as usize).ok_or(FormatError::Rule("a text shares more than there is"))?;
            room = room.checked_sub(shared.len() + rest.len()).ok_or(FormatError::Rule("the texts are too long"))?;
            strings.push(if shared.is_empty() { Arc::from(*rest) } else { format!("{shared}{rest}").into() });
        }
        Ok(Self(strings))
    }

    /// The text at a place, if it is one.
    pub(super) fn get(&self, intern: StringIndex) -> Result<Option<Arc<str>>, FormatError> {
        match intern.checked_sub(1) {
            None => Ok(None),
            Some(at) => match self.0.get(at as usize) {
                Some(text) => Ok(Some(text.clone())),
                None => Err(FormatError::Rule("a text is referred to that is not there")),
            },
        }
    }

    /// The same, as a text of its own.
    pub(super) fn own(&self, intern: StringIndex) -> Result<Option<String>, FormatError> {
        Ok(self.get(intern)?.as_deref().map(str::to_owned))
    }

    /// The text at a place that must be one.
    pub(super) fn require(&self, intern: StringIndex) -> Result<Arc<str>, FormatError> {
        self.get(intern)?.ok_or(FormatError::Rule("a text is missing"))
    }
}
