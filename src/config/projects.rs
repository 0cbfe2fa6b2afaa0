//! Projects: each has write keys, and rules of its own.
//!
//! ```json
//! {"shop": {"keys": ["k1", "k2"], "profile": "ga4", "rules": {"timeout_seconds": 600}}, "blog": {"keys": ["k3"]}}
//! ```

mod members;

use std::collections::HashMap;
use std::fmt;

use foldhash::fast::RandomState;
use serde_json::value::RawValue;

use super::{ConfigError, GivenRules, SessionConfig};
use crate::event::MAX_PROJECT_BYTES;
use members::Members;

/// Maximum length of a write key, in bytes.
const MAX_KEY_BYTES: usize = 200;
/// The members of a project.
const MEMBERS: &str = "`keys`, `profile` and `rules`";

/// What decides by which rules an event is read: one set of rules, or those of several projects.
pub trait ProjectRules {
    /// Returns the rules of a project. Events that name no project have an empty one.
    fn rules_of(&self, project: &str) -> &SessionConfig;
}

impl ProjectRules for SessionConfig {
    fn rules_of(&self, _project: &str) -> &SessionConfig {
        self
    }
}

impl<R: ProjectRules> ProjectRules for &R {
    fn rules_of(&self, project: &str) -> &SessionConfig {
        (**self).rules_of(project)
    }
}

/// A configured project.
#[derive(Debug, Clone, PartialEq)]
pub struct Project {
    /// Its name: the `project` of its events and sessions.
    pub name: String,
    /// Its rules.
    pub rules: SessionConfig,
}

/// The configured projects, and the rules of all other events.
#[derive(Clone, Default, PartialEq)]
pub struct Projects {
    default_rules: SessionConfig,
    by_name: HashMap<String, Project, RandomState>,
    /// The name of each write key's project.
    name_by_key: HashMap<String, String, RandomState>,
    /// Whether each project has metrics of its own.
    have_metrics: bool,
}

impl From<SessionConfig> for Projects {
    /// Returns one set of rules for all events, without any project of its own.
    fn from(rules: SessionConfig) -> Self {
        Self { default_rules: rules, ..Self::default() }
    }
}

impl ProjectRules for Projects {
    fn rules_of(&self, project: &str) -> &SessionConfig {
        if self.by_name.is_empty() {
            return &self.default_rules;
        }
        self.by_name.get(project).map_or(&self.default_rules, |project| &project.rules)
    }
}

impl Projects {
    /// Reads projects from JSON. `service` are the rules of the service: a project's profile overrides them, and its own rules
    /// override both.
    ///
    /// # Errors
    ///
    /// Returns a [`ConfigError`] if the rules of the service are wrong, if a member is unknown, given twice or of the wrong type,
    /// if a project's name, key, profile or rule cannot be used, or if two projects have the same key. No key is repeated in it.
    pub fn from_json(service: &GivenRules, json: &str) -> Result<Self, ConfigError> {
        let mut projects = Self::from(service.read()?);
        let members = Members::of(json).map_err(|problem| {
            let example = r#"{"shop":{"keys":["a-key"],"rules":{"timeout_seconds":600}}}"#;
            ConfigError(format!("the projects {problem}; write an object such as {example}"))
        })?;
        for (name, value) in members {
            projects
                .add(&name, &value, service)
                .map_err(|problem| ConfigError(format!("project `{name}`: {problem}")))?;
        }
        Ok(projects)
    }

    /// Returns the rules of events without a project, and of projects that are not configured.
    pub fn default_rules(&self) -> &SessionConfig {
        &self.default_rules
    }

    /// Returns the rules of every project, those of the service first.
    pub fn all_rules(&self) -> impl Iterator<Item = &SessionConfig> {
        std::iter::once(&self.default_rules).chain(self.by_name.values().map(|project| &project.rules))
    }

    /// Sets whether each configured project has metrics of its own.
    #[must_use]
    pub fn with_metrics(self, have_metrics: bool) -> Self {
        Self { have_metrics, ..self }
    }

    /// Returns whether a project has metrics of its own. Only configured ones do, so that senders cannot make up metrics, which cost
    /// money.
    pub fn have_metrics_of(&self, project: &str) -> bool {
        self.have_metrics && self.by_name.contains_key(project)
    }

    /// Returns whether a sender needs a write key.
    pub fn have_keys(&self) -> bool {
        !self.name_by_key.is_empty()
    }

    /// Returns the project that a write key belongs to; `None` for a key that is not known.
    ///
    /// The key is looked up by a hash with a random seed, so the time that it takes does not tell how much of a key is right.
    pub fn by_key(&self, key: &str) -> Option<&Project> {
        self.by_name.get(self.name_by_key.get(key)?)
    }

    /// Adds a project.
    fn add(&mut self, name: &str, value: &RawValue, service: &GivenRules) -> Result<(), String> {
        check_name(name)?;
        let members =
            Members::of(value.get()).map_err(|problem| format!("{problem}; write an object with {MEMBERS}"))?;
        let (mut profile, mut rules) = (GivenRules::default(), GivenRules::default());
        for (member, value) in members.iter().filter(|(_, value)| value.get() != "null") {
            match member.as_str() {
                "keys" => self.add_keys(name, value)?,
                "profile" => profile = profile_of(value)?,
                "rules" => rules = rules_of(value)?,
                other => return Err(format!("`{other}` is unknown; the members of a project are {MEMBERS}")),
            }
        }
        let rules = service.clone().with(profile).with(rules).read().map_err(|error| error.0)?;
        self.by_name.insert(name.to_owned(), Project { name: name.to_owned(), rules });
        Ok(())
    }

    fn add_keys(&mut self, name: &str, value: &RawValue) -> Result<(), String> {
        let keys: Vec<String> = serde_json::from_str(value.get())
            .map_err(|_| "`keys` is not a list of strings; write a list such as [\"a-key\"]".to_owned())?;
        for (index, key) in keys.into_iter().enumerate() {
            let number = index + 1;
            if key.is_empty() || key.len() > MAX_KEY_BYTES || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(format!(
                    "key {number} of `keys` cannot be used; write 1 to {MAX_KEY_BYTES} letters, digits and signs of ASCII, \
                     without blanks"
                ));
            }
            if let Some(other) = self.name_by_key.insert(key, name.to_owned()) {
                return Err(format!("key {number} of `keys` is a key of `{other}` already; give each project its own"));
            }
        }
        Ok(())
    }
}

/// Formats the projects without their keys, because this can end up in a log.
impl fmt::Debug for Projects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.name_by_key.len();
        f.debug_struct("Projects")
            .field("default_rules", &self.default_rules)
            .field("by_name", &self.by_name)
            .field("keys", &keys)
            .finish_non_exhaustive()
    }
}

/// Checks that an event can have this `project`.
fn check_name(name: &str) -> Result<(), String> {
    if name.trim().is_empty() || name.len() > MAX_PROJECT_BYTES || name.contains(['#', '\0']) {
        return Err(format!(
            "cannot be a name; write 1 to {MAX_PROJECT_BYTES} bytes, not all blank, without `#` and NUL"
        ));
    }
    Ok(())
}

fn profile_of(value: &RawValue) -> Result<GivenRules, String> {
    let name: String = serde_json::from_str(value.get())
        .map_err(|_| "`profile` is not a string; write a profile's name such as \"ga4\"".to_owned())?;
    GivenRules::of_profile(&name).map_err(|error| error.0)
}

fn rules_of(value: &RawValue) -> Result<GivenRules, String> {
    let members = Members::of(value.get())
        .map_err(|problem| format!("`rules` {problem}; write an object such as {{\"timeout_seconds\":600}}"))?;
    GivenRules::of_members(members.into_iter().map(|(name, value)| {
        // A raw value is valid JSON.
        let value = serde_json::from_str(value.get()).unwrap_or_default();
        (name, value)
    }))
    .map_err(|error| error.0)
}

#[cfg(test)]
mod tests;
