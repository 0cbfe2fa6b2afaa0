//! Words and numbers in an agent.

/// Returns the words of an agent: its letters and digits, in order.
pub(super) fn words(agent: &str) -> impl Iterator<Item = &str> {
    agent.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty())
}

/// Returns the number behind a word: digits, with dots or underscores between them.
pub(super) fn number_after<'a>(agent: &'a str, word: &str) -> Option<&'a str> {
    let mut rest = agent;
    while let Some((_, behind)) = rest.split_once(word) {
        let end = behind.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(behind.len());
        let number = behind[..end].trim_end_matches(['.', '_']);
        if number.starts_with(|c: char| c.is_ascii_digit()) {
            return Some(number);
        }
        rest = behind;
    }
    None
}

/// Returns a version up to its second part, without a second part of zero: `131` of `131.0.6778.85`, `17.4` of `17.4.1`.
pub(super) fn major_minor(version: &str) -> String {
    let mut parts = version.split('.');
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if minor.trim_start_matches('0').is_empty() { major.to_owned() } else { format!("{major}.{minor}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_behind_words() {
        for (agent, word, wanted) in [
            ("Chrome/131.0.0.0 Safari", "Chrome/", Some("131.0.0.0")),
            ("CPU OS 17_4_1 like", " OS ", Some("17_4_1")),
            ("Mac OS X 10_15; a OS 7", " OS ", Some("7")),
            ("Chrome/", "Chrome/", None),
            ("Chrome/x Chrome/7.", "Chrome/", Some("7")),
            ("é", "é", None),
        ] {
            assert_eq!(number_after(agent, word), wanted, "{agent}");
        }
    }

    #[test]
    fn versions_are_short() {
        for (version, wanted) in [("131.0.6778.85", "131"), ("17.4.1", "17.4"), ("9", "9"), ("10.00", "10"), ("", "")] {
            assert_eq!(major_minor(version), wanted);
        }
    }
}
