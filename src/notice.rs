//! The licence of the functions and the notices of what is linked into them. They are part of each binary, so that whoever gets one
//! has them, however it was packaged.

/// The option that prints them: `bootstrap --notice`.
const OPTION: &str = "--notice";

/// The texts.
#[cfg(not(feature = "replay"))]
const TEXTS: &str = concat!(include_str!("../NOTICE"), "\n", include_str!("../LICENSE"));
#[cfg(feature = "replay")]
const TEXTS: &str =
    concat!(include_str!("../NOTICE"), "\n", include_str!("../NOTICE-replay"), "\n", include_str!("../LICENSE"));

/// Returns the texts, if the arguments of a program ask for them.
pub fn asked_for(mut arguments: impl Iterator<Item = String>) -> Option<&'static str> {
    (arguments.nth(1)? == OPTION).then_some(TEXTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_option_asks() {
        let asked = |arguments: &[&str]| asked_for(arguments.iter().map(|one| (*one).to_owned())).is_some();
        assert!(asked(&["bootstrap", "--notice"]));
        assert!(!asked(&["bootstrap"]) && !asked(&["--notice"]) && !asked(&["bootstrap", "ingest"]) && !asked(&[]));
    }
}
