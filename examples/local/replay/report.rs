//! What a newcomer wants to see of a replay: a few events, a visitor's sessions, totals.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use session_tracking::session::Reason;
use session_tracking::storage::Consumed;

use super::ledger::{FinalSession, VisitorSessions};
use super::sinks::Sink;
use crate::failure::Failure;
use crate::price;

/// Annotated events that are shown.
const SHOWN: usize = 3;
/// Characters of an address that are shown.
const URL_CHARS: usize = 60;

/// Rejected lines that are shown.
const SHOWN_REJECTED: usize = 100;
/// More sessions of a visitor than this are too many to show.
const SHOWN_SESSIONS: usize = 8;

/// Collects what is shown.
#[derive(Default)]
pub struct Report {
    pub events: u64,
    rejected: BTreeMap<&'static str, usize>,
    shown: Vec<String>,
    sessions: usize,
    visitors: usize,
    reasons: BTreeMap<Reason, usize>,
    /// The visitor with the most sessions of several page views: those, all its sessions, and the sessions themselves.
    liveliest: (usize, usize, Vec<FinalSession>),
}

impl Report {
    /// Keeps the first annotated events that go on with a session.
    pub fn annotated(&mut self, text: &str) {
        if self.shown.len() < SHOWN && text.contains("\"$session_start\":false") {
            self.shown.push(text.to_owned());
        }
    }

    /// Counts a rejected line; returns what to print of it.
    pub fn rejected(&mut self, line: u64, code: &'static str, message: &str) -> Option<String> {
        let before: usize = self.rejected.values().sum();
        *self.rejected.entry(code).or_default() += 1;
        match before {
            0..SHOWN_REJECTED => Some(format!("line {line}: {code}: {message}")),
            SHOWN_REJECTED => {
                Some("more rejected lines are counted, not shown; `--annotated` has all of them".to_owned())
            }
            _ => None,
        }
    }

    /// Counts a visitor's final sessions.
    pub fn visitor(&mut self, VisitorSessions { has_events, sessions }: &VisitorSessions) {
        self.visitors += usize::from(*has_events);
        self.sessions += sessions.len();
        for session in sessions {
            *self.reasons.entry(session.reason).or_default() += 1;
        }
        let with_pages = sessions.iter().filter(|session| session.page_views > 1).count();
        let (most, count, _) = self.liveliest;
        if !sessions.is_empty() && sessions.len() <= SHOWN_SESSIONS && (with_pages, sessions.len()) >= (most, count) {
            self.liveliest = (with_pages, sessions.len(), sessions.clone());
        }
    }

    /// Prints everything. `took` is the time that the events took, the closing between them included.
    pub fn finish(&self, took: Duration, consumed: &Consumed, to: &mut Sink) -> Result<(), Failure> {
        to.line("\nSome events, with their sessions on them:")?;
        for text in &self.shown {
            to.line(&format!("  {}", summary(text)))?;
        }
        if let (_, _, sessions) = &self.liveliest
            && let Some(first) = sessions.first()
        {
            to.line(&format!("\nThe sessions of visitor {}:", first.distinct_id))?;
            for session in sessions {
                to.line(&timeline_row(session))?;
            }
        }
        let per_second = self.events as f64 / took.as_secs_f64().max(1e-9);
        let names = |(reason, count): (&Reason, &usize)| format!("{count} {}", reason.name());
        to.line("\nTotals:")?;
        to.line(&format!("  events    {}{}, {per_second:.0} a second", self.events, self.rejected_text()))?;
        to.line(&format!("  visitors  {}", self.visitors))?;
        let reasons: Vec<String> = self.reasons.iter().map(names).collect();
        let reasons = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join(", ")) };
        to.line(&format!("  sessions  {}{reasons}", self.sessions))?;
        to.line(&format!(
            "  DynamoDB  {:.0} write units ({:.0} on the table, {:.0} on its index), {:.1} read units",
            consumed.table_write_units() + consumed.index_write_units(),
            consumed.table_write_units(),
            consumed.index_write_units(),
            consumed.read_units()
        ))?;
        let price = price::sentence(consumed, self.accepted(), self.sessions);
        price.iter().try_for_each(|line| to.line(&format!("{:12}{line}", "")))
    }

    /// Returns the number of events that were not rejected.
    fn accepted(&self) -> usize {
        (self.events as usize).saturating_sub(self.rejected.values().sum())
    }

    fn rejected_text(&self) -> String {
        let codes: Vec<String> = self.rejected.iter().map(|(code, count)| format!("{count} {code}")).collect();
        match self.rejected.values().sum::<usize>() {
            0 => String::new(),
            count => format!(" ({count} rejected: {})", codes.join(", ")),
        }
    }
}

/// An annotated event in a line: what it is, and what was put on it.
fn summary(text: &str) -> String {
    let event: Value = serde_json::from_str(text).unwrap_or_default();
    let property = |name: &str| event["properties"][name].clone();
    let url = property("$current_url").as_str().map(shortened).unwrap_or_default();
    let mut line = format!("{} {} {url}", event["timestamp"].as_str().unwrap_or_default(), event["event"]);
    for name in ["$session_id", "$session_duration", "$session_page_views", "$session_number", "$session_start_reason"]
    {
        line.push_str(&format!("\n    {name}: {}", property(name)));
    }
    line
}

fn timeline_row(session: &FinalSession) -> String {
    let bar = "█".repeat((session.event_count as usize).clamp(1, 20));
    let pages =
        [&session.landing_page, &session.exit_page].map(|page| page.as_deref().map_or("–".to_owned(), shortened));
    format!(
        "  {}  {:>5} s  {:>3} events  {:<15} {bar}\n      {} → {}",
        session.started_at,
        session.duration_seconds,
        session.event_count,
        session.reason.name(),
        pages[0],
        pages[1]
    )
}

fn shortened(url: &str) -> String {
    let bare = url.split_once("://").map_or(url, |(_, rest)| rest);
    let mut short: String = bare.chars().take(URL_CHARS).collect();
    if short.len() < bare.len() {
        short.push('…');
    }
    short
}
