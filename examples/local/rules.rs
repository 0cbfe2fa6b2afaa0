//! The option `--rules`: the rules themselves, or a file that holds them.

use std::fs;
use std::path::Path;

use serde_json::Value;
use session_tracking::config::SessionConfig;

use crate::cli::{Opt, Takes, Words};
use crate::failure::{Failure, reason};

/// The option, as every command has it.
pub const RULES: Opt = Opt {
    name: "rules",
    value: "RULES",
    takes: Takes::Rules,
    default: "every rule's own default (docs/configuration.md)",
    about: "the rules by which sessions are cut; what it leaves out keeps its default",
};

/// Reads the rules that a command was given.
pub fn rules(words: &Words) -> Result<SessionConfig, Failure> {
    let Some(given) = words.text("rules")? else { return Ok(SessionConfig::default()) };
    let trimmed = given.trim_start();
    // JSON of another kind than an object is no path either, and gets the sentence about rules.
    if trimmed.is_empty() || trimmed.starts_with(['{', '[', '"']) {
        return parse(given, "`--rules`");
    }
    let text = fs::read_to_string(Path::new(given)).map_err(|error| {
        let takes = Takes::Rules.sentence();
        Failure::usage(format!("`--rules` takes {takes}; `{given}` cannot be read: {}", reason(&error)))
    })?;
    parse(&text, &format!("`--rules`: `{given}`"))
}

fn parse(text: &str, what: &str) -> Result<SessionConfig, Failure> {
    let value: Value = serde_json::from_str(text).map_err(|error| {
        Failure::usage(format!("{what} is not JSON: {error}; it takes {}", Takes::Rules.sentence()))
    })?;
    SessionConfig::from_rules(value).map_err(|error| Failure::usage(format!("{what}: {error}")))
}
