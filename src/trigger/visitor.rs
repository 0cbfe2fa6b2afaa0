//! The visitor that a request names, and the answer to its erasure: by HTTP and by direct invocation.

use serde::Serialize;

use crate::event::{MAX_DISTINCT_ID_CHARS, MAX_PROJECT_BYTES};
use crate::session::{Millis, Visitor, datetime, rfc3339};
use crate::storage::Erased;

/// The answer: what was deleted of whom, and when.
#[derive(Serialize)]
pub(super) struct Erasure<'a> {
    distinct_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    project: &'a str,
    erased_at: String,
    erased: Erased,
}

impl<'a> Erasure<'a> {
    pub fn new(visitor: &'a Visitor, erased: Erased, at: Millis) -> Self {
        let Visitor { project, distinct_id } = visitor;
        Self { distinct_id, project, erased_at: rfc3339(datetime(at)), erased }
    }
}

/// Returns the visitor of this name, or the code and the message of the error. `None`: the name is not a string of UTF-8. The
/// limits are those of events, so that every visitor can be named that an event can name.
pub(super) fn named(distinct_id: Option<&str>, project: &str) -> Result<Visitor, (&'static str, &'static str)> {
    let is_valid = |id: &&str| !id.trim().is_empty() && id.chars().count() <= MAX_DISTINCT_ID_CHARS;
    let Some(distinct_id) = distinct_id.filter(is_valid) else {
        let message = "the `distinct_id` is not a string of 1 to 200 characters, or is blank; send a visitor's id";
        return Err(("invalid_distinct_id", message));
    };
    if project.contains('#') || project.len() > MAX_PROJECT_BYTES {
        return Err(("invalid_project", "`project` has more than 200 bytes or contains `#`; send a project's name"));
    }
    Ok(Visitor { project: project.to_owned(), ..Visitor::new(distinct_id) })
}
