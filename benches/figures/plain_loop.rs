//! A plain loop that finds the sessions of a file of events in event-time order. It compares each event's time with that of the
//! visitor's last one, and knows no other rule. It neither stores anything nor returns the events.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};

use foldhash::fast::RandomState;
use serde::Deserialize;
use session_tracking::session::Millis;

use crate::AnyError;

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "event")]
    name: Cow<'a, str>,
    distinct_id: Cow<'a, str>,
    timestamp: Cow<'a, str>,
    #[serde(borrow)]
    properties: Properties<'a>,
}

#[derive(Deserialize)]
struct Properties<'a> {
    #[serde(rename = "$current_url", default)]
    url: Cow<'a, str>,
}

struct Session {
    start: Millis,
    end: Millis,
    events: u32,
    page_views: u32,
    entry_url: String,
}

/// Prints the sessions of a file as CSV, in the columns of [`crate::sessions::print`].
pub fn print(gap_seconds: i64, file: &str) -> Result<(), AnyError> {
    let mut input = BufReader::with_capacity(1 << 20, File::open(file)?);
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut sessions: HashMap<String, Session, RandomState> = HashMap::default();
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line)? > 0 {
        let event: Event<'_> = serde_json::from_slice(&line)?;
        let at = chrono::DateTime::parse_from_rfc3339(&event.timestamp)?.timestamp_millis();
        let views = u32::from(event.name == "$pageview");
        match sessions.get_mut(&*event.distinct_id) {
            Some(session) if at - session.end <= gap_seconds * 1000 => {
                session.end = at;
                session.events += 1;
                session.page_views += views;
            }
            before => {
                let entry_url = event.properties.url.into_owned();
                let session = Session { start: at, end: at, events: 1, page_views: views, entry_url };
                match before {
                    Some(ended) => write(&event.distinct_id, &std::mem::replace(ended, session), &mut out)?,
                    None => drop(sessions.insert(event.distinct_id.into_owned(), session)),
                }
            }
        }
        line.clear();
    }
    sessions.iter().try_for_each(|(visitor, session)| write(visitor, session, &mut out))?;
    Ok(out.flush()?)
}

fn write(visitor: &str, session: &Session, out: &mut impl Write) -> std::io::Result<()> {
    let Session { start, end, events, page_views, entry_url } = session;
    writeln!(out, "{visitor},{start},{end},{events},{page_views},{entry_url}")
}
