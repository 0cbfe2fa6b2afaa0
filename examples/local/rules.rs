//! The option `--rules`: the rules as JSON, or the path of a file with them.

use std::fs;
use std::path::Path;

use serde_json::Value;
use session_tracking::config::SessionConfig;

use crate::cli::{Opt, Takes, Words};
use crate::failure::{Failure, reason};

/// The option `--rules`, which is the same in every command.
pub const RULES: Opt = Opt {
    name: "rules",
    value: "RULES",
    takes: Takes::Rules,
    default: "every rule's own default (docs/configuration.md)",
    about: "the rules that separate sessions; a rule that is left out keeps its default",
};

/// Reads the rules that a command was given.
///
/// # Errors
/// A file that cannot be read, or rules that are not valid.
pub fn rules(words: &Words) -> Result<SessionConfig, Failure> {
    let Some(given) = words.text("rules")? else { return Ok(SessionConfig::default()) };
    let trimmed = given.trim_start();
    // An array or a string is not a path either, and gets the error about rules.
    if trimmed.is_empty() || trimmed.starts_with(['{', '[', '"']) {
        return parse(given, "`--rules`");
    }
    let json = fs::read_to_string(Path::new(given)).map_err(|error| {
        let takes = Takes::Rules.sentence();
        Failure::usage(format!("`--rules` takes {takes}; `{given}` cannot be read: {}", reason(&error)))
    })?;
    parse(&json, &format!("`--rules`: `{given}`"))
}

fn parse(json: &str, what: &str) -> Result<SessionConfig, Failure> {
    let value: Value = serde_json::from_str(json).map_err(|error| {
        Failure::usage(format!("{what} is not JSON: {error}; it takes {}", Takes::Rules.sentence()))
    })?;
    SessionConfig::from_rules(value).map_err(|error| Failure::usage(format!("{what}: {error}")))
}
