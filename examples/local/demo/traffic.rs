//! Real traffic in batches: how many sessions it makes, whether they are the known ones, and what it costs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Instant;

use serde_json::Value;
use session_tracking::event::time_of_json;
use session_tracking::session::{Millis, datetime, time_text};

use super::Service;
use super::screen::Screen;
use crate::clock::VirtualClock;
use crate::failure::Failure;

/// The real traffic that the repository carries, and its sessions, which another program worked out.
const TRAFFIC: &str = "tests/data/weblog-events.ndjson";
const SESSIONS: &str = "tests/data/weblog-sessions.ndjson";
/// Events a batch.
const BATCH: usize = 100;
/// How often the close function runs, in milliseconds of the traffic's time.
const CLOSE_EVERY_MS: Millis = 60_000;
/// How long time runs on at the end, so that every session is final, in milliseconds.
const REST_MS: Millis = 86_400_000;
/// Dollars for a million write and read request units, on demand, in us-east-1; see docs/cost.md.
const WRITE_DOLLARS: f64 = 0.625;
const READ_DOLLARS: f64 = 0.125;

/// Applies all of it and says what it came to.
pub async fn run(screen: &Screen) -> Result<(), Failure> {
    let events = lines(TRAFFIC)?;
    screen.line(format_args!(
        "\n{}",
        screen.strong("Real traffic: three and a half days of a web site's log, in batches of 100")
    ))?;
    let clock = VirtualClock::default();
    let service = Service::start(&clock)?;
    #[allow(clippy::disallowed_methods, reason = "the rate that is shown is of real time")]
    let began = Instant::now();
    let emitted = replay(&service, &events).await?;
    let seconds = began.elapsed().as_secs_f64();
    let ends = final_sessions(&emitted);
    let known: BTreeSet<String> = lines(SESSIONS)?.iter().map(|line| key(&parsed(line))).collect();
    let found: BTreeSet<String> = ends.values().map(|end| key(&end["$session"])).collect();
    if found != known {
        return Err(Failure::work("the sessions are not those of tests/data/weblog-sessions.ndjson".to_owned()));
    }
    show(&service, events.len(), &ends, seconds, screen)
}

/// Sends the events in batches, at the times at which they happened, with the close function in between.
async fn replay(service: &Service<'_>, events: &[String]) -> Result<Vec<Value>, Failure> {
    let (mut emitted, mut now, mut closed_at) = (Vec::new(), 0, 0);
    let is_watched = std::io::stderr().is_terminal();
    for (number, batch) in events.chunks(BATCH).enumerate() {
        let batch: Vec<String> = batch.iter().map(|text| received(text, &mut now)).collect();
        let batch: Vec<&str> = batch.iter().map(String::as_str).collect();
        service.send(now, &batch).await?;
        if now - closed_at >= CLOSE_EVERY_MS {
            closed_at = now;
            emitted.extend(service.close(now).await?);
        }
        if is_watched {
            eprint!("\r  {} of {} events", number * BATCH + batch.len(), events.len());
            // Progress that cannot be shown is no reason to stop.
            let _ = std::io::stderr().flush();
        }
    }
    if is_watched {
        eprint!("\r{:40}\r", "");
    }
    for days in [1, 2] {
        emitted.extend(service.close(now + days * REST_MS).await?);
    }
    Ok(emitted)
}

/// Returns an event with the time at which the pipeline received it: when the newest so far happened.
fn received(text: &str, now: &mut Millis) -> String {
    let mut event = parsed(text);
    *now = time_of_json(&event["timestamp"].to_string()).map_or(*now, |at| at.max(*now));
    event["received_at"] = time_text(datetime(*now)).into();
    event.to_string()
}

/// Returns each session's end with the highest version, but for sessions that were merged into others later.
fn final_sessions(emitted: &[Value]) -> HashMap<String, Value> {
    let version = |properties: &Value| properties["$session_version"].as_u64();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut ends: HashMap<String, Value> = HashMap::new();
    for line in emitted.iter().filter(|line| line["event"] == "$session_end") {
        let known = ends.entry(text(&line["properties"]["$session_id"])).or_insert(Value::Null);
        if version(known) < version(&line["properties"]) {
            *known = line["properties"].clone();
        }
    }
    for line in emitted.iter().filter(|line| line["event"] == "$session_merged") {
        let from = text(&line["properties"]["from"]);
        if ends.get(&from).is_some_and(|end| version(end) < version(&line["properties"])) {
            ends.remove(&from);
        }
    }
    ends
}

fn show(
    service: &Service<'_>,
    events: usize,
    ends: &HashMap<String, Value>,
    seconds: f64,
    screen: &Screen,
) -> Result<(), Failure> {
    let visitors: BTreeSet<&str> = ends.values().filter_map(|end| end["$session"]["distinct_id"].as_str()).collect();
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for end in ends.values() {
        *reasons.entry(end["$session_start_reason"].as_str().unwrap_or_default()).or_default() += 1;
    }
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let reasons: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    let consumed = &service.consumed;
    let writes = consumed.table_write_units() + consumed.index_write_units();
    let reads = consumed.read_units();
    let dollars = (writes * WRITE_DOLLARS + reads * READ_DOLLARS) / events as f64;
    screen.line(format_args!(
        "  events    {events} of {} visitors, {:.0} a second here",
        visitors.len(),
        events as f64 / seconds
    ))?;
    screen.line(format_args!("  sessions  {}, each as expected: {}", ends.len(), reasons.join(", ")))?;
    screen.line(format_args!(
        "  DynamoDB  {writes:.0} write units and {reads:.0} read units: ${dollars:.2} a million events"
    ))?;
    screen.line(format_args!(
        "            at {:.1} events a session; more of them cost less: docs/cost.md",
        events as f64 / ends.len() as f64
    ))
}

/// Returns what tells a session from others: whose, when, how many events, and why it began.
fn key(session: &Value) -> String {
    let parts = ["distinct_id", "reason", "started_at", "last_activity", "event_count", "page_views", "exit_page"];
    parts.map(|part| session[part].to_string()).join(" ")
}

fn parsed(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_default()
}

/// Returns the lines of a file of the repository, from whichever folder it is run.
fn lines(name: &str) -> Result<Vec<String>, Failure> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let text = std::fs::read_to_string(&path).map_err(|error| Failure::file("the traffic", &path, &error))?;
    Ok(text.lines().map(str::to_owned).collect())
}
