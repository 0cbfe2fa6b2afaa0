//! What the functions send to their queues: printed, and shown on the page.

use std::sync::Arc;

use serde::Deserialize;
use session_tracking::clock::Clock;
use session_tracking::output::{Output, StdoutOutput};

use super::clock::ServeClock;
use crate::feed::{Feed, item};

/// An output that prints lines, and hands them to the page.
#[derive(Debug, Clone)]
pub struct Tap {
    pub feed: Arc<Feed>,
    pub clock: ServeClock,
    /// Whether the lines are those of the rejects.
    pub is_rejects: bool,
}

/// The code of a line of the rejects.
#[derive(Deserialize)]
struct Reject {
    code: String,
}

impl Output for Tap {
    async fn send(&self, lines: &[String]) -> Vec<usize> {
        let unsent = StdoutOutput.send(lines).await;
        let now = self.clock.now();
        let rejected = |line: &String| {
            let reject: Reject = serde_json::from_str(line).ok()?;
            Some(item::refused("rejected", &reject.code, now))
        };
        let sent = lines.iter().enumerate().filter(|(at, _)| !unsent.contains(at)).map(|(_, line)| line);
        match self.is_rejects {
            true => self.feed.push(sent.filter_map(rejected)),
            false => self.feed.push(sent.filter_map(|line| item::output(line, now))),
        }
        unsent
    }
}
