//! RudderStack: what differs from Segment. The rest is in [`super::segment`].
//!
//! Its clients write `originalTimestamp` in place of `timestamp`, `""` for a user that is not known, `$direct` for no referrer, and
//! a session's number into `context.sessionId`. `reset()` keeps `anonymousId`, so the visitor stays the same.

use super::json::{Members, Object};

/// The library of RudderStack's Node client, and of Segment's old one, from which it comes.
const STALE_LIBRARY: &str = "analytics-node";

/// Returns whether a message's `sentAt` is that of the first try. It then does not show whether the sender's clock is wrong.
pub(super) fn is_stale(context: &Object<'_>) -> bool {
    context.object("library").string("name").is_some_and(|name| name == STALE_LIBRARY)
}
