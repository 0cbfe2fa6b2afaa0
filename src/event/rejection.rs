//! Why an event is rejected.

/// Why an event was rejected. The set is closed, and the names ([`RejectCode::name`]) are part of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RejectCode {
    /// It is not UTF-8, and the fault is not in a string that can be repaired.
    InvalidUtf8,
    /// It is not valid JSON, or has one of the fields that the service reads twice.
    InvalidJson,
    /// It is JSON, but not an object.
    NotAnObject,
    /// It has more than [`MAX_EVENT_BYTES`] bytes.
    TooLarge,
    /// It is nested deeper than [`MAX_DEPTH`] levels.
    TooDeep,
    /// It contains a NUL character that cannot be repaired.
    NulCharacter,
    /// It contains half of a surrogate pair that cannot be repaired.
    LoneSurrogate,
    /// It has no `distinct_id`.
    MissingDistinctId,
    /// Its `distinct_id` is not a string of 1 to [`MAX_DISTINCT_ID_CHARS`] characters, or is blank.
    InvalidDistinctId,
    /// It has no `event`.
    MissingEvent,
    /// Its `event` is not a string of 1 to [`MAX_NAME_CHARS`] characters, or is blank.
    InvalidEvent,
    /// Its `uuid` is not a string of 1 to [`MAX_NAME_CHARS`] characters, or begins with U+10FFFF.
    InvalidUuid,
    /// Its `project` is not a string, is blank or too long ([`MAX_PROJECT_BYTES`]), or contains `#`.
    InvalidProject,
    /// Its `properties` are not an object. (Null and an empty array count as an empty object.)
    InvalidProperties,
    /// It is of another visitor than those that a request without credentials may bring.
    TooManyVisitors,
    /// It comes after the events that a request without credentials may store.
    TooMuchState,
    /// Its recorded events cannot be used.
    #[cfg(feature = "replay")]
    InvalidReplay,
}

impl RejectCode {
    /// Returns the code's name in answers and in the rejects queue.
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidUtf8 => "invalid_utf8",
            Self::InvalidJson => "invalid_json",
            Self::NotAnObject => "not_an_object",
            Self::TooLarge => "too_large",
            Self::TooDeep => "too_deep",
            Self::NulCharacter => "nul_character",
            Self::LoneSurrogate => "lone_surrogate",
            Self::MissingDistinctId => "missing_distinct_id",
            Self::InvalidDistinctId => "invalid_distinct_id",
            Self::MissingEvent => "missing_event",
            Self::InvalidEvent => "invalid_event",
            Self::InvalidUuid => "invalid_uuid",
            Self::InvalidProject => "invalid_project",
            Self::InvalidProperties => "invalid_properties",
            Self::TooManyVisitors => "too_many_visitors",
            Self::TooMuchState => "too_much_state",
            #[cfg(feature = "replay")]
            Self::InvalidReplay => "invalid_replay",
        }
    }
}

/// Why an event cannot be used, and what its sender has to change. Sending the same event again never helps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Rejection {
    /// The reason, from a closed set.
    pub code: RejectCode,
    /// A sentence that names the field and the fix. It contains nothing of the event's content.
    pub message: String,
}

impl Rejection {
    pub(crate) fn new(code: RejectCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Returns whether the event was rejected for a NUL character, half of a surrogate pair or invalid UTF-8. [`super::Repaired`] may
    /// be able to use such an event.
    pub fn is_text(&self) -> bool {
        matches!(self.code, RejectCode::NulCharacter | RejectCode::LoneSurrogate | RejectCode::InvalidUtf8)
    }
}
