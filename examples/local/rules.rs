//! The options `--profile`, `--rules` and `--projects`, which are the same in every command.

use std::fs;
use std::path::Path;

use serde_json::Value;
use session_tracking::config::{GivenRules, Projects};

use crate::cli::{Opt, Takes, Words};
use crate::failure::{Failure, reason};

/// The option `--profile`.
pub const PROFILE: Opt = Opt {
    name: "profile",
    value: "NAME",
    takes: Takes::Profile,
    default: "none",
    about: "the rules of another system (docs/profiles.md); `--rules` overrides them",
};

/// The option `--rules`.
pub const RULES: Opt = Opt {
    name: "rules",
    value: "RULES",
    takes: Takes::Rules,
    default: "every rule's own default (docs/configuration.md)",
    about: "the rules that separate sessions; a rule that is left out keeps its default",
};

/// The option `--projects`.
pub const PROJECTS: Opt = Opt {
    name: "projects",
    value: "PROJECTS",
    takes: Takes::Projects,
    default: "none",
    about: "projects with write keys and rules of their own (docs/configuration.md)",
};

/// Reads the profile, the rules and the projects that a command was given.
///
/// # Errors
/// A file that cannot be read, or a value that is not valid.
pub fn projects(words: &Words) -> Result<Projects, Failure> {
    let wrong = |what: &str, error: &dyn std::fmt::Display| Failure::usage(format!("{what}: {error}"));
    let profile = words.text("profile")?.map_or(Ok(GivenRules::default()), |name| {
        GivenRules::of_profile(name).map_err(|error| wrong("`--profile`", &error))
    })?;
    let (json, what) = json(words, &RULES)?.unwrap_or_else(|| ("{}".to_owned(), "`--rules`".to_owned()));
    let value: Value = serde_json::from_str(&json).map_err(|error| {
        Failure::usage(format!("{what} is not JSON: {error}; it takes {}", Takes::Rules.sentence()))
    })?;
    let rules = GivenRules::of_json(value).map_err(|error| wrong(&what, &error))?;
    let rules = profile.with(rules);
    // First, so that an error about the rules does not name the projects.
    let alone = rules.read().map_err(|error| wrong(&what, &error))?;
    match self::json(words, &PROJECTS)? {
        None => Ok(alone.into()),
        Some((json, what)) => Projects::from_json(&rules, &json).map_err(|error| wrong(&what, &error)),
    }
}

/// Returns an option's JSON, and the words that name it in an error. The option's value is JSON, or the path of a file with it.
fn json(words: &Words, option: &Opt) -> Result<Option<(String, String)>, Failure> {
    let name = option.name;
    let Some(given) = words.text(name)? else { return Ok(None) };
    let trimmed = given.trim_start();
    // An array or a string is not a path either, and gets the error about its content.
    if trimmed.is_empty() || trimmed.starts_with(['{', '[', '"']) {
        return Ok(Some((given.to_owned(), format!("`--{name}`"))));
    }
    let json = fs::read_to_string(Path::new(given)).map_err(|error| {
        let takes = option.takes.sentence();
        Failure::usage(format!("`--{name}` takes {takes}; `{given}` cannot be read: {}", reason(&error)))
    })?;
    Ok(Some((json, format!("`--{name}`: `{given}`"))))
}
