//! Why a session cannot be had, kept or found.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::stored::{FormatError, NEWEST_FORMAT};

/// Why a session cannot be had, kept or found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// No session has this id, or the visitor has none.
    #[error("session not found")]
    NotFound,
    /// The store did not answer, or refused. The kind says whether trying again helps.
    #[error("storage is not available")]
    Storage { kind: StorageErrorKind, source: Cause },
    /// A stored item breaks our rules. Trying again does not help. The item is named by its keys' hash, never by the visitor's
    /// id.
    #[error("stored item {item} cannot be read: {reason}")]
    Corrupt { item: String, reason: String },
    /// A stored item is sound as far as can be told, but a newer version of the service wrote it. Trying again helps once that
    /// version runs again; until then the item is left as it is.
    #[error("stored item {item} has format version {version}, and this version of the service reads up to {newest}")]
    Newer { item: String, version: u32, newest: u32 },
    /// Two visitors with equal bits have a session of this id each.
    #[error("the session id is that of two visitors")]
    Ambiguous,
    /// Others kept changing the visitor's timeline; trying again helps.
    #[error("too many writers changed the visitor's timeline at once")]
    Contention,
    /// The time left did not suffice; trying again helps.
    #[error("the invocation's time ran out")]
    Deadline,
    /// The visitor has more sessions waiting to be closed than an item can hold; trying again after the next close helps.
    #[error("the visitor's timeline is full until its sessions are closed")]
    Full,
}

/// What kind of trouble the store has: what an operator looks at, and whether a caller had better wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum StorageErrorKind {
    /// The store takes fewer calls than it was sent. Trying again helps later, and makes it worse at once.
    Throttled,
    /// The store did not answer in time. A write may have taken effect; trying again is safe.
    TimedOut,
    /// The store does not accept the service's credentials or permissions. Trying again helps once its operator has changed them.
    Denied,
    /// Anything else: no connection, a fault of the store, no such table.
    Other,
}

impl StorageErrorKind {
    /// Returns the kind's name in logs: from a closed set.
    pub fn name(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::TimedOut => "timed_out",
            Self::Denied => "denied",
            Self::Other => "other",
        }
    }
}

/// What a failure of the store came from. It is shared, because one failed call is the failure of every visitor in it. It must
/// hold nothing that a log must not: no visitor's id, and nothing of an item.
#[derive(Clone)]
pub struct Cause(Arc<dyn Error + Send + Sync>);

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// Causes are equal if they say the same.
impl PartialEq for Cause {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for Cause {}

impl SessionError {
    /// Returns the error of a store that failed. What the source displays goes to the log: see [`Cause`].
    pub fn storage(kind: StorageErrorKind, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Storage { kind, source: Cause(Arc::from(source.into())) }
    }

    /// Returns the error's name in answers: from a closed set.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Storage { .. } => "storage_unavailable",
            Self::Corrupt { .. } => "stored_item_corrupt",
            Self::Newer { .. } => "stored_item_newer",
            Self::Ambiguous => "ambiguous_session_id",
            Self::Contention => "contention",
            Self::Deadline => "deadline",
            Self::Full => "timeline_full",
        }
    }

    /// Returns the name of the kind of trouble that the store has; none if the store is not the reason.
    pub fn kind_name(&self) -> Option<&'static str> {
        match self {
            Self::Storage { kind, .. } => Some(kind.name()),
            _ => None,
        }
    }

    /// Returns the error and what it came from in one line, for the log.
    pub fn with_causes(&self) -> String {
        let mut line = self.to_string();
        let mut source = self.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Some errors display their cause themselves.
            if !line.ends_with(&text) {
                line = format!("{line}: {text}");
            }
            source = cause.source();
        }
        line
    }

    /// Returns the error of an item whose bytes cannot be read.
    pub(super) fn unreadable(item: String, error: &FormatError) -> Self {
        match *error {
            FormatError::Newer(version) => Self::Newer { item, version, newest: NEWEST_FORMAT },
            _ => Self::Corrupt { item, reason: error.to_string() },
        }
    }
}
