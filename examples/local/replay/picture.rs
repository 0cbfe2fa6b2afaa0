//! What `--html` shows: the newest lines of the replay, as a page in one file.

use serde_json::Value;
use session_tracking::output::Output;
use session_tracking::session::Millis;

use super::ledger::Ledgers;
use crate::feed::{Feed, item};
use crate::page;

/// Collects what the page shows. Beyond a bound, the oldest lines are left out, so that memory does not grow with the input.
#[derive(Default)]
pub struct Picture(Feed);

impl Picture {
    /// Adds an annotated event, and what was explained about it.
    pub fn event(&self, line: &str, received_at: Millis, explanation: Option<&Value>) {
        self.0.push(item::event(line, received_at, |_| explanation));
    }

    /// Adds a rejected event.
    pub fn rejected(&self, code: &str, received_at: Millis) {
        self.0.push([item::refused("rejected", code, received_at)]);
    }

    /// Returns the page.
    pub fn html(&self, name: &str) -> String {
        page::document(&format!("Sessions of {name}"), &self.0.all()).html
    }
}

/// The output of the closer: the ledgers, and the page if one is asked for.
pub struct Tee<'a> {
    pub ledgers: &'a Ledgers,
    pub picture: Option<&'a Picture>,
    pub now: Millis,
}

impl Output for Tee<'_> {
    async fn send(&self, lines: &[String]) -> Vec<usize> {
        if let Some(Picture(feed)) = self.picture {
            feed.push(lines.iter().filter_map(|line| item::output(line, self.now)));
        }
        self.ledgers.send(lines).await
    }
}
