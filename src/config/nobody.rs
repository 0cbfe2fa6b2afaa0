//! Ids that stand for nobody: the values that clients send as `distinct_id` if they have no id.

use std::borrow::Cow;

use serde::Deserialize;

/// The default of `nobody_ids`. Programs write these if an id is missing, or many visitors would share them. None of them can be
/// a person's id.
const NOBODY_IDS: [&str; 26] = [
    // Missing values, as programming languages write them.
    "undefined",
    "null",
    "(null)",
    "<null>",
    "none",
    "nil",
    "<nil>",
    "nan",
    "n/a",
    "unknown",
    // Values of other types.
    "[object object]",
    "[object promise]",
    "[object undefined]",
    "{}",
    "[]",
    "true",
    "false",
    "0",
    "-1",
    // The nil UUID, which a phone returns if its owner refuses to be tracked.
    "00000000-0000-0000-0000-000000000000",
    "00000000000000000000000000000000",
    // The field's own name, and names for everyone who is not logged in.
    "distinct_id",
    "distinctid",
    "anonymous",
    "guest",
    "not_authenticated",
];

/// A list of ids that stand for nobody. Ids are compared without case, and without blanks and quotation marks around them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Vec<String>")]
pub struct NobodyIds {
    /// In lower case, sorted, without duplicates.
    ids: Vec<Cow<'static, str>>,
    /// The length of the longest id in bytes.
    max_id_bytes: usize,
}

impl Default for NobodyIds {
    fn default() -> Self {
        // They are in lower case, so none is copied: every start of a function makes this list.
        Self::of(NOBODY_IDS.map(Cow::Borrowed).into())
    }
}

impl From<Vec<String>> for NobodyIds {
    fn from(ids: Vec<String>) -> Self {
        Self::new(ids)
    }
}

impl NobodyIds {
    /// Returns a list of these ids.
    pub fn new<T: AsRef<str>>(ids: impl IntoIterator<Item = T>) -> Self {
        Self::of(ids.into_iter().map(|id| unquoted(id.as_ref()).to_lowercase().into()).collect())
    }

    /// Returns a list of ids that are in lower case already.
    fn of(mut ids: Vec<Cow<'static, str>>) -> Self {
        // Two lists of the same ids must be equal.
        ids.sort_unstable();
        ids.dedup();
        let max_id_bytes = ids.iter().map(|id| id.len()).max().unwrap_or(0);
        Self { ids, max_id_bytes }
    }

    /// Returns whether an id stands for nobody.
    pub(crate) fn has(&self, distinct_id: &str) -> bool {
        let id = unquoted(distinct_id);
        if id.is_ascii() {
            return id.len() <= self.max_id_bytes && self.ids.iter().any(|other| other.eq_ignore_ascii_case(id));
        }
        // Allocating is acceptable: such ids are rare, and the length of a `distinct_id` is bounded.
        self.ids.contains(&Cow::Owned(id.to_lowercase()))
    }
}

/// Returns an id without the blanks and quotation marks that surround it if a client serializes it twice or by hand.
fn unquoted(id: &str) -> &str {
    id.trim_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_compared_without_case_blanks_and_quotation_marks() {
        let default = NobodyIds::default();
        assert_eq!(default, NobodyIds::new(NOBODY_IDS));
        for id in ["undefined", "Undefined", " NULL ", "\"null\"", "'none'", "[object Object]", "NaN", "0", "''"] {
            assert_eq!(default.has(id), id != "''", "{id}");
        }
        for id in ["00000000-0000-0000-0000-000000000000", "'GUEST'", "N/A"] {
            assert!(default.has(id), "{id}");
        }
        for id in ["u1", "00", "nullo", "nobody@shop.test", "00000000-0000-0000-0000-000000000001", "ünknown", "1"] {
            assert!(!default.has(id), "{id}");
        }
        let own = NobodyIds::new(["KÄUFER ", "k"]);
        assert!(own.has("käufer") && own.has("\"Käufer\"") && own.has("K") && !own.has("undefined"));
        assert!(!NobodyIds::new([""; 0]).has("undefined"));
    }
}
