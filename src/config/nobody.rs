//! Ids that stand for nobody: what clients send as `distinct_id` where they have none.

use serde::Deserialize;

/// The ids that stand for nobody by default. Each is what a program writes where an id is missing, or a name that many
/// visitors would share; none can be a person's.
const NOBODY_IDS: [&str; 26] = [
    // Missing values, as languages write them.
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
    // The nil UUID, which phones give whose owner refuses to be tracked.
    "00000000-0000-0000-0000-000000000000",
    "00000000000000000000000000000000",
    // The field's own name, and what is written for everyone who is not logged in.
    "distinct_id",
    "distinctid",
    "anonymous",
    "guest",
    "not_authenticated",
];

/// The ids of a list, compared without case, and without blanks and quotation marks around them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Vec<String>")]
pub struct NobodyIds {
    ids: Vec<String>,
    /// Bytes of the longest.
    longest: usize,
}

impl Default for NobodyIds {
    fn default() -> Self {
        Self::new(NOBODY_IDS)
    }
}

impl From<Vec<String>> for NobodyIds {
    fn from(ids: Vec<String>) -> Self {
        Self::new(ids)
    }
}

impl NobodyIds {
    pub fn new<T: AsRef<str>>(ids: impl IntoIterator<Item = T>) -> Self {
        let mut ids: Vec<String> = ids.into_iter().map(|id| bare(id.as_ref()).to_lowercase()).collect();
        // Two lists of the same ids are equal.
        ids.sort_unstable();
        ids.dedup();
        let longest = ids.iter().map(String::len).max().unwrap_or(0);
        Self { ids, longest }
    }

    /// Whether an id stands for nobody.
    pub(crate) fn has(&self, distinct_id: &str) -> bool {
        let id = bare(distinct_id);
        if id.is_ascii() {
            return id.len() <= self.longest && self.ids.iter().any(|other| other.eq_ignore_ascii_case(id));
        }
        // Rare, and as long as a `distinct_id` may be at the most.
        self.ids.contains(&id.to_lowercase())
    }
}

/// An id without what serialising it twice, or by hand, puts around it.
fn bare(id: &str) -> &str {
    id.trim_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_compared_without_case_and_what_stands_around_them() {
        let default = NobodyIds::default();
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
