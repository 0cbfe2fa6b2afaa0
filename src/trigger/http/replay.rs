//! The replay of a session: `GET /v1/sessions/{id}/replay`. It asks for credentials, like all that is stored.

use super::reply::Answer;
use super::visitors::{parameter, whole};
use super::{Request, failure_answer, refused};
use crate::clock::Clock;
use crate::manager::SessionManager;
use crate::replay::chunk::StoredEvent;
use crate::replay::page::{PageLimits, ReplayPosition};
use crate::storage::SessionStorage;
use crate::trigger::answer::{MAX_ANSWER_BYTES, json, quoted_len};
use crate::trigger::batch::Counts;

/// The number of events in a page, without `limit`.
const DEFAULT_LIMIT: usize = 1_000;
/// The maximum of `limit`.
const MAX_LIMIT: usize = 10_000;
/// The bytes that an event takes in the answer beside its data: its time, its kind, the names of its members.
const FRAME_BYTES: usize = 128;
/// The bytes that the page takes beside its events.
const PAGE_BYTES: usize = 1_024;

/// Answers a request for a session's replay.
pub(super) async fn handle<S: SessionStorage, C: Clock>(
    manager: &SessionManager<S, C>,
    request: &Request<'_>,
    session_id: &str,
) -> (Answer, Counts) {
    if manager.replay_store().is_none() {
        return refused(404, "replay_off", "session replay is off; the operator turns it on (docs/replay.md)");
    }
    let query = request.query();
    let events = match parameter(&query, "limit").map(|limit| limit.parse()) {
        None => DEFAULT_LIMIT,
        Some(Ok(limit)) if (1..=MAX_LIMIT).contains(&limit) => limit,
        Some(_) => {
            let message = "`limit` is not a number from 1 to 10000; correct it, or leave it out";
            return refused(400, "invalid_limit", message);
        }
    };
    let after = match parameter(&query, "after").map(|after| ReplayPosition::read(&after)) {
        None => None,
        Some(Some(after)) => Some(after),
        Some(None) => {
            return refused(400, "invalid_after", "`after` is not one of an answer; send the last answer's `after`");
        }
    };
    let limits = PageLimits { events, bytes: MAX_ANSWER_BYTES - PAGE_BYTES, size };
    match manager.replay(session_id, after, limits).await {
        Ok(page) => whole(json(&page)),
        Err(error) => failure_answer(&error),
    }
}

/// Returns the bytes that an event takes in the answer, whose body is a JSON string in an envelope.
fn size(event: &StoredEvent) -> usize {
    quoted_len(&event.data) + FRAME_BYTES
}
