//! Session replay, under the Cargo feature `replay`: what a recorder in the page saw, kept beside the sessions and given back in order.
//!
//! Recorded events arrive as events of the ordinary batch (`$replay`, and PostHog's `$snapshot`). [`recording`] takes them out, [`mask`]
//! hides what was typed, [`chunk`] packs them, and [`store`] keeps the chunks in an object store: S3, or a folder. They never become
//! part of a timeline. Chunks are named by visitor and time and not by session, so that a merge or a split moves nothing: which
//! session an event belongs to is decided when a session's replay is read ([`SessionManager::replay`]).
//!
//! `docs/replay.md` tells how to use it.
//!
//! [`SessionManager::replay`]: crate::manager::SessionManager::replay

mod bounds;
pub mod chunk;
pub mod mask;
pub mod page;
pub mod recording;
mod rrweb;
pub mod s3;
pub mod store;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::session::write_time;
pub use store::{ReplayStore, ReplaySummary};

/// An event of a recording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplayEvent {
    /// When it happened, by the service's clock.
    #[serde(serialize_with = "write_time")]
    pub timestamp: DateTime<Utc>,
    /// What kind of event it is.
    pub event_type: ReplayEventType,
    /// What the recorder wrote. For rrweb, it is rrweb's own event, which its player takes.
    pub data: serde_json::Value,
}

/// The kind of a recorded event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplayEventType {
    /// The page's content, or a change of it.
    Dom,
    /// The pointer moved, or a button was pressed.
    Mouse,
    /// Something was scrolled.
    Scroll,
    /// Something was typed or chosen in a form.
    Input,
    /// The page's address or the window's size.
    Viewport,
    /// Anything else.
    Custom,
}

/// The recorded events of a session, or a page of them, ordered by time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionReplay {
    /// The session's id.
    pub session_id: String,
    /// The events.
    pub events: Vec<ReplayEvent>,
}

/// What becomes of the values of inputs when recorded events arrive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Inputs {
    /// They are masked, so that what was typed is never stored.
    #[default]
    Mask,
    /// They are kept as the recorder sent them.
    Keep,
}
