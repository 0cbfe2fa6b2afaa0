//! What a request without credentials is answered, and how much it may do.

use super::ConfigError;

/// How much of a session is written into the annotated events of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AnswerDetail {
    /// The session's id, number, start and counters. Nothing that other events of the visitor brought: no URL, no referrer, no
    /// user, no other session.
    #[default]
    Ids,
    /// All of it.
    Full,
}

/// The limits of HTTP requests that bring no credentials. Anyone who can reach the API can send those.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicAccess {
    /// `PUBLIC_ANSWER`: what such a request is answered about its events' sessions.
    pub answer: AnswerDetail,
    /// `MAX_VISITORS_PER_REQUEST`: how many visitors the events of one such request may have. Each costs at least one write.
    pub max_visitors: usize,
    /// `MAX_STATE_BYTES_PER_REQUEST`: how many bytes the events of one such request may add to what is stored. A kilobyte costs a
    /// write.
    pub max_state_bytes: usize,
}

impl Default for PublicAccess {
    fn default() -> Self {
        Self { answer: AnswerDetail::Ids, max_visitors: 100, max_state_bytes: 512 * 1024 }
    }
}

impl PublicAccess {
    /// The access of a service that only trusted callers can reach.
    pub const TRUSTED: Self =
        Self { answer: AnswerDetail::Full, max_visitors: usize::MAX, max_state_bytes: usize::MAX };

    /// Reads the variables. An empty one keeps its default.
    ///
    /// # Errors
    /// Returns a [`ConfigError`] that names the variable and what to set it to.
    pub(super) fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let value = |name| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let answer = match value("PUBLIC_ANSWER").as_deref() {
            None | Some("ids") => AnswerDetail::Ids,
            Some("full") => AnswerDetail::Full,
            Some(other) => return Err(ConfigError(format!("PUBLIC_ANSWER is `{other}`; it must be `ids` or `full`"))),
        };
        let limit = |name, default, min: usize, max: usize| match value(name) {
            None => Ok(default),
            Some(number) => {
                let parsed = number.parse().ok().filter(|number| (min..=max).contains(number));
                parsed.ok_or_else(|| {
                    ConfigError(format!("{name} is `{number}`; it must be a number from {min} to {max}"))
                })
            }
        };
        let default = Self::default();
        Ok(Self {
            answer,
            max_visitors: limit("MAX_VISITORS_PER_REQUEST", default.max_visitors, 1, 1000)?,
            max_state_bytes: limit("MAX_STATE_BYTES_PER_REQUEST", default.max_state_bytes, 16_384, 6_291_456)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variables_are_read() {
        let read = |answer: &str, visitors: &str, bytes: &str| {
            PublicAccess::from_variables(|name| {
                let value = match name {
                    "PUBLIC_ANSWER" => answer,
                    "MAX_VISITORS_PER_REQUEST" => visitors,
                    _ => bytes,
                };
                Some(value.to_owned())
            })
        };
        let default = PublicAccess { answer: AnswerDetail::Ids, max_visitors: 100, max_state_bytes: 524_288 };
        assert_eq!(read("", " ", ""), Ok(default));
        assert_eq!(read(" ids", "", " "), Ok(default));
        let set = PublicAccess { answer: AnswerDetail::Full, max_visitors: 1000, max_state_bytes: 16_384 };
        assert_eq!(read("full", "1000", "16384"), Ok(set));
        for (answer, visitors, bytes, name) in [
            ("all", "", "", "PUBLIC_ANSWER is `all`"),
            ("", "0", "", "MAX_VISITORS_PER_REQUEST is `0`"),
            ("", "1001", "", "MAX_VISITORS_PER_REQUEST is `1001`"),
            ("", "many", "", "MAX_VISITORS_PER_REQUEST is `many`"),
            ("", "", "16383", "MAX_STATE_BYTES_PER_REQUEST is `16383`"),
            ("", "", "1 MB", "MAX_STATE_BYTES_PER_REQUEST is `1 MB`"),
        ] {
            let error = read(answer, visitors, bytes).unwrap_err().to_string();
            assert!(error.starts_with(name) && error.contains("; it must be "), "{error}");
        }
    }
}
