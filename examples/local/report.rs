//! What a newcomer wants to see of a replay: progress, a few events, a visitor's sessions, totals.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use session_tracking::storage::Consumed;

use crate::ledger::FinalSession;

/// Annotated events that are shown.
const SHOWN: usize = 3;
/// Characters of an address that are shown.
const URL_CHARS: usize = 60;

/// Collects what is shown.
pub struct Report {
    total: usize,
    done: usize,
    tenths: usize,
    pub rejected: usize,
    events: usize,
    shown: Vec<String>,
}

/// What a replay came to.
pub struct Totals {
    pub visitors: usize,
    /// The time that the events took, the closing between them included.
    pub took: Duration,
    pub consumed: Arc<Consumed>,
}

impl Report {
    pub fn new(total: usize) -> Self {
        println!("replaying {total} events through the ingest path, on an embedded DynamoDB …");
        Self { total, done: 0, tenths: 0, rejected: 0, events: 0, shown: Vec::new() }
    }

    /// Keeps the first annotated events that go on with a session.
    pub fn annotated(&mut self, text: &str) {
        self.events += 1;
        if self.shown.len() < SHOWN && text.contains("\"$session_start\":false") {
            self.shown.push(text.to_owned());
        }
    }

    /// Shows how far it is: each tenth on a line of its own, unless a terminal can overwrite one.
    pub fn progress(&mut self, events: usize) {
        self.done += events;
        let tenths = self.done * 10 / self.total.max(1);
        if std::io::stderr().is_terminal() {
            eprint!("\r  {} of {} events", self.done, self.total);
            if self.done == self.total {
                eprintln!();
            }
        } else if tenths > self.tenths {
            eprintln!("  {} of {} events", self.done, self.total);
        }
        self.tenths = tenths;
        // Progress that cannot be shown is no reason to stop.
        let _ = std::io::stderr().flush();
    }

    /// Prints everything.
    pub fn finish(&self, sessions: &[FinalSession], totals: &Totals) {
        println!("\nSome events, with their sessions on them:");
        for text in &self.shown {
            println!("  {}", summary(text));
        }
        if let Some(visitor) = liveliest(sessions) {
            println!("\nThe sessions of visitor {visitor}:");
            for session in sessions.iter().filter(|session| session.distinct_id == visitor) {
                println!("{}", timeline_row(session));
            }
        }
        let mut reasons: BTreeMap<_, usize> = BTreeMap::new();
        for session in sessions {
            *reasons.entry(session.reason).or_default() += 1;
        }
        let reasons: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {}", reason.name())).collect();
        let rejected = if self.rejected > 0 { format!(" ({} rejected)", self.rejected) } else { String::new() };
        let consumed = &totals.consumed;
        let per_second = self.total as f64 / totals.took.as_secs_f64().max(1e-9);
        println!("\nTotals:");
        println!("  events    {}{rejected}, {per_second:.0} a second", self.total);
        println!("  visitors  {}", totals.visitors);
        println!("  sessions  {}: {}", sessions.len(), reasons.join(", "));
        println!(
            "  DynamoDB  {:.0} write units ({:.0} on the table, {:.0} on its index), {:.1} read units",
            consumed.table_write_units() + consumed.index_write_units(),
            consumed.table_write_units(),
            consumed.index_write_units(),
            consumed.read_units()
        );
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

/// The visitor with the most sessions of several page views, with few enough of them to show.
fn liveliest(sessions: &[FinalSession]) -> Option<&str> {
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for session in sessions {
        let (sessions, with_pages) = counts.entry(&session.distinct_id).or_default();
        *sessions += 1;
        *with_pages += usize::from(session.page_views > 1);
    }
    let few = counts.into_iter().filter(|(_, (sessions, _))| *sessions <= 8);
    few.max_by_key(|(_, (sessions, with_pages))| (*with_pages, *sessions)).map(|(visitor, _)| visitor)
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
