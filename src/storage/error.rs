//! The errors of storage and sessions.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::stored::{FormatError, NEWEST_FORMAT};

/// Why a session cannot be read, stored or found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// No session has this id, or the visitor has no session.
    #[error("session not found")]
    NotFound,
    /// The store did not answer, or it refused. The kind decides whether a retry helps.
    #[error("storage is not available")]
    Storage {
        /// What kind of failure it is.
        kind: StorageErrorKind,
        /// What caused it, for the log.
        source: Cause,
    },
    /// A stored item breaks the rules of the stored form. A retry does not help.
    #[error("stored item {item} cannot be read: {reason}")]
    Corrupt {
        /// The item's partition key, which is a hash, and its kind. For a session, also half of its id. Never the visitor's id.
        item: String,
        /// Which rule the item breaks.
        reason: String,
    },
    /// A newer version of the service wrote a stored item. It is left unchanged. A retry helps once that version runs again.
    #[error("stored item {item} has format version {version}, and this version of the service reads up to {newest}")]
    Newer {
        /// The item, named as in [`SessionError::Corrupt`].
        item: String,
        /// The item's format version.
        version: u32,
        /// The newest format version that this version of the service reads.
        newest: u32,
    },
    /// Two visitors with equal hash bits each have a session with this id.
    #[error("two visitors have a session with this id")]
    Ambiguous,
    /// Every attempt to write the visitor's timeline met a conflict. A retry helps.
    #[error("too many concurrent writers changed the visitor's timeline")]
    Contention,
    /// The invocation's time ran out. A retry helps.
    #[error("the invocation's time ran out")]
    Deadline,
    /// The visitor has more sessions that wait to be closed than an item can hold. A retry helps after the next close.
    #[error("the visitor's timeline is full until its sessions are closed")]
    Full,
}

/// The kind of a storage failure. It tells an operator what to look at, and a caller whether to wait before a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum StorageErrorKind {
    /// The store got more calls than it accepts. A retry helps later; an immediate one makes it worse.
    Throttled,
    /// The store did not answer in time. A write may have taken effect; a retry is safe.
    TimedOut,
    /// The store does not accept the service's credentials or permissions. A retry helps once the operator has corrected them.
    Denied,
    /// Anything else: no connection, a fault of the store, no such table.
    Other,
}

impl StorageErrorKind {
    /// Returns the kind's name, as logs have it: `throttled`, `timed_out`, `denied` or `other`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::TimedOut => "timed_out",
            Self::Denied => "denied",
            Self::Other => "other",
        }
    }
}

/// The cause of a storage failure. Cloning it is cheap, because all visitors of a failed call share it. It goes to the log, so it
/// must contain no visitor's id and nothing of an item.
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

/// Causes are equal if their messages are equal.
impl PartialEq for Cause {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for Cause {}

impl SessionError {
    /// Returns the error of a store that failed. The message of the source goes to the log: see [`Cause`].
    pub fn storage(kind: StorageErrorKind, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Storage { kind, source: Cause(Arc::from(source.into())) }
    }

    /// Returns the error's code in answers and logs. The codes are listed in `docs/api.md`.
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

    /// Returns the [`StorageErrorKind::name`] of a storage failure. Returns `None` for any other error.
    pub fn kind_name(&self) -> Option<&'static str> {
        match self {
            Self::Storage { kind, .. } => Some(kind.name()),
            _ => None,
        }
    }

    /// Returns the error and its causes in one line, for the log.
    pub fn with_causes(&self) -> String {
        let mut line = self.to_string();
        let mut source = self.source();
        while let Some(cause) = source {
            let message = cause.to_string();
            // The messages of some errors end with their cause.
            if !line.ends_with(&message) {
                line = format!("{line}: {message}");
            }
            source = cause.source();
        }
        line
    }

    /// Returns the error of an item whose stored form cannot be read.
    pub(super) fn unreadable(item: String, error: &FormatError) -> Self {
        match *error {
            FormatError::Newer(version) => Self::Newer { item, version, newest: NEWEST_FORMAT },
            _ => Self::Corrupt { item, reason: error.to_string() },
        }
    }
}
