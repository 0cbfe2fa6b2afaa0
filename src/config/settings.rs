//! The functions' environment: read once, at start, and checked.

use std::path::PathBuf;

use chrono::TimeDelta;

use super::{ConfigError, SessionConfig};

/// Days that archived sessions are kept, by default. More than a queue keeps its messages (14 days), so that whatever is
/// still sent again is still known.
const RETENTION_DAYS: i64 = 30;

/// Where lines of JSON go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    Stdout,
    /// The URL of an SQS queue.
    Queue(String),
}

/// What a function is told by its environment.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub rules: SessionConfig,
    /// `TABLE`: the table's name.
    pub table: String,
    /// `OUTPUT`: where annotated events of queues and ends of sessions go.
    pub output: Destination,
    /// `REJECTS`: where what can never be understood goes; the close function has none.
    pub rejects: Option<Destination>,
    /// `RETENTION_DAYS`: how long archived sessions are kept.
    pub retention: TimeDelta,
    /// `AWS_CA_BUNDLE`: a file of the only authorities to trust; none for those of Amazon and of the machine.
    pub ca_bundle: Option<PathBuf>,
}

impl Settings {
    /// Reads the process's environment.
    ///
    /// # Errors
    /// A sentence that names the variable and says what to set.
    #[allow(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// Reads settings from variables; an empty one is as good as none.
    ///
    /// # Errors
    /// As [`Settings::from_env`].
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let table =
            set("TABLE").ok_or_else(|| ConfigError("TABLE is not set; set it to the table's name".to_owned()))?;
        let output = set("OUTPUT").ok_or_else(|| {
            ConfigError("OUTPUT is not set; set it to the output queue's URL, or to `stdout`".to_owned())
        })?;
        let retention = match set("RETENTION_DAYS") {
            None => RETENTION_DAYS,
            Some(text) => text.trim().parse().ok().filter(|days| (1..=3650).contains(days)).ok_or_else(|| {
                ConfigError(format!("RETENTION_DAYS is `{text}`; it must be a number of days from 1 to 3650"))
            })?,
        };
        Ok(Self {
            rules: SessionConfig::from_variables(&variable)?,
            table,
            output: destination("OUTPUT", &output)?,
            rejects: set("REJECTS").map(|text| destination("REJECTS", &text)).transpose()?,
            retention: TimeDelta::days(retention),
            ca_bundle: set("AWS_CA_BUNDLE").map(PathBuf::from),
        })
    }

    /// Where rejected events go.
    ///
    /// # Errors
    /// `REJECTS` is not set.
    pub fn rejects(&self) -> Result<&Destination, ConfigError> {
        self.rejects.as_ref().ok_or_else(|| {
            ConfigError("REJECTS is not set; set it to the rejects queue's URL, or to `stdout`".to_owned())
        })
    }
}

fn destination(name: &str, text: &str) -> Result<Destination, ConfigError> {
    match text.trim() {
        "stdout" => Ok(Destination::Stdout),
        url if url.starts_with("https://") || url.starts_with("http://") => Ok(Destination::Queue(url.to_owned())),
        other => Err(ConfigError(format!("{name} is `{other}`; it must be a queue's URL, or `stdout`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Boundary, FirstCampaign, InternalCampaigns, NobodyIds, ReferrerMatch};

    fn settings(pairs: &[(&str, &str)]) -> Result<Settings, String> {
        let variable = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Settings::from_variables(variable).map_err(|error| error.to_string())
    }

    #[test]
    fn every_rule_has_a_variable() {
        let set = settings(&[
            ("TABLE", "t"),
            ("OUTPUT", "https://sqs.test/1/q"),
            ("TIMEOUT_SECONDS", "600"),
            ("BOUNDARY", "exclusive"),
            ("NEW_SESSION_ON_UTM_CHANGE", "false"),
            ("MIDNIGHT", "Europe/Berlin"),
            ("INTERNAL_HOSTS", "www.a.test, *.b.test"),
            ("KEEP_ALIVE_EVENTS", "[]"),
            ("NOBODY_IDS", "[\"a,b\", \"Nobody\"]"),
            ("FIRST_CAMPAIGN", "split"),
            ("INTERNAL_CAMPAIGNS", "ignore"),
            ("REFERRER_MATCH", "site"),
            ("UTM_IGNORE_CASE", "true"),
            ("MAX_EVENTS", "7"),
            ("UTM_FIELDS", ""),
        ])
        .unwrap();
        assert_eq!(set.output, Destination::Queue("https://sqs.test/1/q".to_owned()));
        assert_eq!(set.retention, TimeDelta::days(30));
        let expected = SessionConfig {
            timeout: TimeDelta::minutes(10),
            boundary: Boundary::Exclusive,
            new_session_on_utm_change: false,
            midnight: Some(chrono_tz::Europe::Berlin),
            internal_hosts: vec!["a.test".parse().unwrap(), "*.b.test".parse().unwrap()],
            keep_alive_events: Vec::new(),
            nobody_ids: NobodyIds::new(["a,b", "nobody"]),
            first_campaign: FirstCampaign::Split,
            internal_campaigns: InternalCampaigns::Ignore,
            referrer_match: ReferrerMatch::Site,
            utm_ignore_case: true,
            max_events: Some(7),
            ..SessionConfig::default()
        };
        assert_eq!(set.rules, expected);
    }

    #[test]
    fn what_is_wrong_is_named_with_what_to_write() {
        let base = [("TABLE", "t"), ("OUTPUT", "stdout")];
        for (name, value, word) in [
            ("OUTPUT", "", "stdout"),
            ("OUTPUT", "a-queue", "URL"),
            ("TIMEOUT_SECONDS", "0", "timeout_seconds"),
            ("TIMEOUT_SECONDS", "soon", "timeout_seconds: invalid type: string \"soon\", expected a whole number"),
            ("MAX_EVENTS", "-1", "max_events: invalid value: integer `-1`, expected a whole number, at least 1"),
            ("NEW_SESSION_ON_UTM_CHANGE", "yes", "expected true or false"),
            ("MIDNIGHT", "Berlin", "Europe/Berlin"),
            ("BOUNDARY", "open", "boundary: unknown variant `open`, expected `inclusive`"),
            ("RETENTION_DAYS", "0", "1 to 3650"),
            (
                "INTERNAL_HOSTS",
                "shop.*",
                "internal_hosts has `shop.*`, which no host can match; write a host such as `shop`",
            ),
            ("IGNORED_REFERRERS", "a.test, *", "ignored_referrers has `*`"),
            ("PASSIVE_EVENTS", "$session_end", "passive_events has `$session_end`"),
            ("KEEP_ALIVE_EVENTS", "[\" \"]", "keep_alive_events has ` `"),
            ("KEEP_ALIVE_EVENTS", "[a", "keep_alive_events: "),
            ("FIRST_CAMPAIGN", "no", "first_campaign: unknown variant `no`, expected `continue` or `split`"),
        ] {
            let pairs = [&[(name, value)], base.as_slice()].concat();
            let error = settings(&pairs).unwrap_err();
            assert!(error.contains(word), "{name}={value}: {error}");
        }
        let both = [("PASSIVE_EVENTS", "a,b"), ("KEEP_ALIVE_EVENTS", "b"), base[0], base[1]];
        assert!(settings(&both).unwrap_err().contains("both have `b`"));
        // The default gives way.
        let passive = settings(&[("PASSIVE_EVENTS", "$pageleave"), base[0], base[1]]).unwrap();
        assert_eq!(passive.rules.passive_events, ["$pageleave"]);
        assert!(settings(&[("OUTPUT", "stdout")]).unwrap_err().starts_with("TABLE is not set"));
    }
}
