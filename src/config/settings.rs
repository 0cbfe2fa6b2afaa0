//! The functions' environment. A function reads it once, at its start, and checks it.

use std::io;
use std::path::{Path, PathBuf};

use chrono::TimeDelta;

use super::{AllowedOrigins, ConfigError, Endpoints, GivenRules, Projects, PublicAccess};
use crate::metrics::MetricNames;
use crate::trigger::PipeRole;

/// How long archived sessions are kept by default, in days. A queue keeps its messages for at most 14 days, so the session of an
/// event that it redelivers is still known.
const RETENTION_DAYS: i64 = 30;

/// Where a function writes its lines of JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// The standard output, written as `stdout`.
    Stdout,
    /// The SQS queue with this URL.
    Queue(String),
}

/// The settings of a function, from its environment.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The projects that `PROJECTS` configures, and the rules of the service, which [`GivenRules::of_variables`] reads.
    pub projects: Projects,
    /// `TABLE`: the table's name.
    pub table: String,
    /// `OUTPUT`: where annotated events from queues, ends of sessions and corrections go.
    pub output: Destination,
    /// `REJECTS`: where unusable events and messages go. `None` if it is not set, as in the close function.
    pub rejects: Option<Destination>,
    /// `CORS_ORIGINS`: the origins whose pages may send events, separated by commas; `*`, or nothing, for any.
    pub origins: AllowedOrigins,
    /// What HTTP requests without credentials are answered, and how much they may do.
    pub public: PublicAccess,
    /// `PIPE_ROLE`: what the ingest function is in an EventBridge Pipe: `enrichment`, the default, or `target`.
    pub pipe_role: PipeRole,
    /// The names of the metrics.
    pub metrics: MetricNames,
    /// `RETENTION_DAYS`: how long archived sessions are kept. From 1 to 3,650 days.
    pub retention: TimeDelta,
    /// Where recorded events are kept. `None` if replay is off.
    #[cfg(feature = "replay")]
    pub replay: Option<ReplaySettings>,
    /// `AWS_CA_BUNDLE`: a PEM file with the only certificate authorities to trust. `None` to trust those of Amazon and of the
    /// machine.
    pub ca_bundle: Option<PathBuf>,
    /// The endpoints of the AWS clients.
    pub endpoints: Endpoints,
}

/// The settings of session replay.
#[cfg(feature = "replay")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplaySettings {
    /// `REPLAY_BUCKET`: the bucket of the recorded events.
    pub bucket: String,
    /// `REPLAY_INPUTS`: `mask`, the default, or `keep`.
    pub inputs: crate::replay::Inputs,
}

#[cfg(feature = "replay")]
impl ReplaySettings {
    fn from_variables(non_empty: &impl Fn(&str) -> Option<String>) -> Result<Option<Self>, ConfigError> {
        use crate::replay::Inputs;
        let inputs = match non_empty("REPLAY_INPUTS").as_deref().map(str::trim) {
            None | Some("mask") => Inputs::Mask,
            Some("keep") => Inputs::Keep,
            Some(other) => {
                return Err(ConfigError(format!("REPLAY_INPUTS is `{other}`; it must be `mask` or `keep`")));
            }
        };
        Ok(non_empty("REPLAY_BUCKET").map(|bucket| Self { bucket: bucket.trim().to_owned(), inputs }))
    }
}

impl Settings {
    /// Reads the settings from the process's environment.
    ///
    /// # Errors
    ///
    /// Returns a sentence that names the variable and what to set it to.
    #[allow(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_variables(|name| std::env::var(name).ok(), |path| std::fs::read_to_string(path))
    }

    /// Reads the settings from variables. An empty variable counts as not set. `read_file` reads the file that `PROJECTS` names.
    ///
    /// # Errors
    ///
    /// Returns a sentence that names the variable and what to set it to.
    pub fn from_variables(
        variable: impl Fn(&str) -> Option<String>,
        read_file: impl Fn(&Path) -> io::Result<String>,
    ) -> Result<Self, ConfigError> {
        let non_empty = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let table =
            non_empty("TABLE").ok_or_else(|| ConfigError("TABLE is not set; set it to the table's name".to_owned()))?;
        let output = non_empty("OUTPUT").ok_or_else(|| {
            ConfigError("OUTPUT is not set; set it to the output queue's URL, or to `stdout`".to_owned())
        })?;
        let retention = match non_empty("RETENTION_DAYS") {
            None => RETENTION_DAYS,
            Some(days) => days.trim().parse().ok().filter(|days| (1..=3650).contains(days)).ok_or_else(|| {
                ConfigError(format!("RETENTION_DAYS is `{days}`; it must be a number of days from 1 to 3650"))
            })?,
        };
        let pipe_role = match non_empty("PIPE_ROLE").as_deref().map(str::trim) {
            None | Some("enrichment") => PipeRole::Enrichment,
            Some("target") => PipeRole::Target,
            Some(role) => {
                return Err(ConfigError(format!("PIPE_ROLE is `{role}`; it must be `enrichment` or `target`")));
            }
        };
        let metrics = MetricNames::from_variables(&variable);
        let projects = projects(&GivenRules::of_variables(&variable)?, non_empty("PROJECTS"), read_file)?;
        Ok(Self {
            projects: projects.with_metrics(metrics.are_by_project),
            table,
            output: destination("OUTPUT", &output)?,
            rejects: non_empty("REJECTS").map(|value| destination("REJECTS", &value)).transpose()?,
            origins: AllowedOrigins::parse(&non_empty("CORS_ORIGINS").unwrap_or_default())?,
            public: PublicAccess::from_variables(&variable)?,
            pipe_role,
            metrics,
            retention: TimeDelta::days(retention),
            #[cfg(feature = "replay")]
            replay: ReplaySettings::from_variables(&non_empty)?,
            ca_bundle: non_empty("AWS_CA_BUNDLE").map(PathBuf::from),
            endpoints: Endpoints::from_variables(&variable),
        })
    }

    /// Returns where unusable events and messages go.
    ///
    /// # Errors
    ///
    /// Returns a [`ConfigError`] if `REJECTS` is not set.
    pub fn rejects(&self) -> Result<&Destination, ConfigError> {
        self.rejects.as_ref().ok_or_else(|| {
            ConfigError("REJECTS is not set; set it to the rejects queue's URL, or to `stdout`".to_owned())
        })
    }
}

/// Reads the projects from the value of `PROJECTS`: JSON, or the path of a file with JSON, because the whole environment of a
/// function has at most 4 KB.
fn projects(
    service: &GivenRules,
    value: Option<String>,
    read_file: impl Fn(&Path) -> io::Result<String>,
) -> Result<Projects, ConfigError> {
    // First, so that an error about the service's own rules does not name `PROJECTS`.
    let rules = service.read()?;
    let Some(value) = value else { return Ok(rules.into()) };
    let json = match value.trim() {
        path if path.starts_with('/') => read_file(Path::new(path)).map_err(|error| {
            ConfigError(format!(
                "PROJECTS is `{path}`, which cannot be read ({}); name a file of a layer",
                error.kind()
            ))
        })?,
        json => json.to_owned(),
    };
    Projects::from_json(service, &json).map_err(|error| ConfigError(format!("PROJECTS: {error}")))
}

/// Reads the destination that the variable `name` has as its value.
fn destination(name: &str, value: &str) -> Result<Destination, ConfigError> {
    match value.trim() {
        "stdout" => Ok(Destination::Stdout),
        url if url.starts_with("https://") || url.starts_with("http://") => Ok(Destination::Queue(url.to_owned())),
        other => Err(ConfigError(format!("{name} is `{other}`; it must be a queue's URL, or `stdout`"))),
    }
}

#[cfg(test)]
mod tests;
