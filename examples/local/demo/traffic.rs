//! Real traffic in batches: compares its sessions with the known ones, and shows how many there are and what they cost.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Instant;

use serde_json::Value;
use session_tracking::event::time_of_json;
use session_tracking::session::{Millis, datetime, rfc3339};

use super::Service;
use super::screen::Screen;
use crate::clock::VirtualClock;
use crate::failure::Failure;
use crate::price;

/// Real traffic, and its sessions as another program computed them.
const TRAFFIC: &str = "tests/data/weblog-events.ndjson";
const SESSIONS: &str = "tests/data/weblog-sessions.ndjson";
/// Events in a batch.
const BATCH_EVENTS: usize = 100;
/// How often the close function runs, in milliseconds of the traffic's time.
const CLOSE_EVERY_MS: Millis = 60_000;
/// How far time moves at the end, in milliseconds, so that every session is final.
const REST_MS: Millis = 86_400_000;

/// Applies the traffic and shows its sessions and cost.
///
/// # Errors
/// The sessions are not the known ones, or a step failed.
pub async fn run(screen: &Screen) -> Result<(), Failure> {
    let events = lines(TRAFFIC)?;
    screen.line(format_args!(
        "\n{}",
        screen.strong("Real traffic: three and a half days of a web site's log, in batches of 100")
    ))?;
    let clock = VirtualClock::default();
    let service = Service::start(&clock)?;
    #[allow(clippy::disallowed_methods, reason = "the rate that is shown is in real time")]
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

/// Sends the events in batches, at the times when they happened, and runs the close function in between.
async fn replay(service: &Service<'_>, events: &[String]) -> Result<Vec<Value>, Failure> {
    let (mut emitted, mut now, mut closed_at) = (Vec::new(), 0, 0);
    let is_watched = std::io::stderr().is_terminal();
    for (number, batch) in events.chunks(BATCH_EVENTS).enumerate() {
        let batch: Vec<String> = batch.iter().map(|json| received(json, &mut now)).collect();
        let batch: Vec<&str> = batch.iter().map(String::as_str).collect();
        service.send(now, &batch).await?;
        if now - closed_at >= CLOSE_EVERY_MS {
            closed_at = now;
            emitted.extend(service.close(now).await?);
        }
        if is_watched {
            eprint!("\r  {} of {} events", number * BATCH_EVENTS + batch.len(), events.len());
            // The replay goes on even if its progress cannot be shown.
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

/// Adds `received_at` to an event: the time of the newest event so far.
fn received(json: &str, now: &mut Millis) -> String {
    let mut event = parsed(json);
    *now = time_of_json(&event["timestamp"].to_string()).map_or(*now, |at| at.max(*now));
    event["received_at"] = rfc3339(datetime(*now)).into();
    event.to_string()
}

/// Returns the highest version of each session's end, without the sessions that were merged into others afterwards.
fn final_sessions(emitted: &[Value]) -> HashMap<String, Value> {
    let version = |properties: &Value| properties["$session_version"].as_u64();
    let string = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut ends: HashMap<String, Value> = HashMap::new();
    for line in emitted.iter().filter(|line| line["event"] == "$session_end") {
        let known = ends.entry(string(&line["properties"]["$session_id"])).or_insert(Value::Null);
        if version(known) < version(&line["properties"]) {
            *known = line["properties"].clone();
        }
    }
    for line in emitted.iter().filter(|line| line["event"] == "$session_merged") {
        let from = string(&line["properties"]["from"]);
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
    screen.line(format_args!(
        "  events    {events} of {} visitors, {:.0} a second here",
        visitors.len(),
        events as f64 / seconds
    ))?;
    screen.line(format_args!("  sessions  {}, each as expected: {}", ends.len(), reasons.join(", ")))?;
    screen.line(format_args!("  DynamoDB  {writes:.0} write units, {reads:.0} read units"))?;
    let price = price::sentence(consumed, events, ends.len());
    price.iter().try_for_each(|line| screen.line(format_args!("{:12}{line}", "")))
}

/// Returns the fields of a session that are compared, as one string.
fn key(session: &Value) -> String {
    let fields = ["distinct_id", "reason", "started_at", "last_activity", "event_count", "page_views", "exit_page"];
    fields.map(|field| session[field].to_string()).join(" ")
}

fn parsed(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_default()
}

/// Returns the lines of a file of the repository. The current folder does not matter.
fn lines(name: &str) -> Result<Vec<String>, Failure> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let content = std::fs::read_to_string(&path).map_err(|error| Failure::file("the traffic", &path, &error))?;
    Ok(content.lines().map(str::to_owned).collect())
}
