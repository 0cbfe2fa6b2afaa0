//! The origins whose pages may use the API.

use super::ConfigError;

/// A list of origins, or any.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AllowedOrigins {
    /// In lower case; `None` for any.
    origins: Option<Vec<String>>,
}

impl AllowedOrigins {
    /// Reads `*`, or origins that are separated by commas.
    ///
    /// # Errors
    /// Returns a [`ConfigError`] for what no browser calls an origin.
    pub fn parse(list: &str) -> Result<Self, ConfigError> {
        let entries: Vec<&str> = list.split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect();
        if entries.is_empty() || entries == ["*"] {
            return Ok(Self { origins: None });
        }
        let origin = |entry: &str| {
            let host = entry.strip_prefix("https://").or_else(|| entry.strip_prefix("http://"));
            let is_origin = host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '*', ' ', '"']));
            let wrong = || {
                ConfigError(format!(
                    "CORS_ORIGINS has `{entry}`; it must be `*`, or origins such as https://www.example.com, separated by commas"
                ))
            };
            is_origin.then(|| entry.to_ascii_lowercase()).ok_or_else(wrong)
        };
        Ok(Self { origins: Some(entries.into_iter().map(origin).collect::<Result<_, _>>()?) })
    }

    /// Returns whether any origin is allowed.
    pub fn is_any(&self) -> bool {
        self.origins.is_none()
    }

    /// Returns whether an origin is allowed.
    pub fn has(&self, origin: &str) -> bool {
        self.origins.as_ref().is_none_or(|origins| origins.iter().any(|own| own.eq_ignore_ascii_case(origin)))
    }
}
