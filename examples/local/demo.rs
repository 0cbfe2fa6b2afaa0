//! The default command: shows two visitors step by step, then replays real traffic. Everything goes through the ingest
//! function's own handler and the close function, on an embedded DynamoDB, in virtual time.

mod screen;
pub mod script;
mod traffic;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use session_tracking::config::{AllowedOrigins, PublicAccess, SessionConfig};
use session_tracking::manager::SessionManager;
use session_tracking::output::MemoryOutput;
use session_tracking::session::Millis;
use session_tracking::storage::{Consumed, DynamoDbSessionStorage};
use session_tracking::trigger::Ingest;

use crate::clock::VirtualClock;
use crate::dynamodb::TABLE;
use crate::failure::Failure;
use screen::Screen;
use script::{SCRIPT, Step, at};

/// How often the close function runs during the story, in milliseconds of virtual time. The template schedules it each minute.
const CLOSE_EVERY_MS: Millis = 60_000;

/// The two functions on one machine.
struct Service<'c> {
    clock: &'c VirtualClock,
    ingest: Ingest<DynamoDbSessionStorage, &'c VirtualClock, MemoryOutput>,
    consumed: Arc<Consumed>,
}

impl<'c> Service<'c> {
    fn start(clock: &'c VirtualClock) -> Result<Self, Failure> {
        let consumed = Arc::new(Consumed::default());
        let client = crate::table::client()?;
        let storage = DynamoDbSessionStorage::new(client, TABLE).counting(Arc::clone(&consumed));
        let manager = SessionManager::with_clock(SessionConfig::default(), storage, clock);
        let ingest = Ingest {
            manager,
            output: MemoryOutput::default(),
            rejects: MemoryOutput::default(),
            origins: AllowedOrigins::default(),
            public: PublicAccess::default(),
        };
        Ok(Self { clock, ingest, consumed })
    }

    /// Invokes the ingest function at a time with these events; returns the annotated events.
    async fn send(&self, now: Millis, events: &[&str]) -> Result<Vec<Value>, Failure> {
        self.clock.move_to(now);
        let payload = format!("{{\"events\":[{}]}}", events.join(","));
        let answer = self.ingest.handle(&payload, Millis::MAX).await.map_err(|error| error.to_string())?;
        let mut answer: Value = serde_json::from_str(&answer).map_err(|error| error.to_string())?;
        match answer["events"].take() {
            Value::Array(annotated) if annotated.len() == events.len() => Ok(annotated),
            _ => Err(Failure::work(format!("the service did not apply all events: {answer}"))),
        }
    }

    /// Runs the close function at a time; returns what it emits.
    async fn close(&self, now: Millis) -> Result<Vec<Value>, Failure> {
        self.clock.move_to(now);
        let report = self.ingest.manager.cleanup(&self.ingest.output, Millis::MAX).await;
        if report.failed > 0 {
            return Err(Failure::work(format!("the close function failed: {report:?}")));
        }
        let parse = |line: &String| serde_json::from_str(line).map_err(|error| Failure::work(error.to_string()));
        self.ingest.output.take().iter().map(parse).collect()
    }
}

/// The letters that stand for session ids on the screen, in the order in which the ids appear.
#[derive(Default)]
struct Letters {
    letters: BTreeMap<String, usize>,
    /// The sessions whose end was emitted.
    ended: BTreeSet<usize>,
}

impl Letters {
    /// Returns the number of a session's letter.
    fn of(&mut self, id: &str) -> usize {
        let next = self.letters.len();
        *self.letters.entry(id.to_owned()).or_insert(next)
    }
}

/// Shows the story, then the traffic.
pub async fn run() -> Result<(), Failure> {
    let screen = Screen::standard();
    story(&screen).await?;
    traffic::run(&screen).await?;
    screen.line(format_args!("\n{}", screen.strong("Go on")))?;
    screen.line("  cargo run --example local -- serve        the HTTP API, live")?;
    screen.line("  cargo run --example local -- replay FILE  your own events")?;
    screen.line("  cargo run --example local -- --help       every command")
}

async fn story(screen: &Screen) -> Result<(), Failure> {
    screen.line(screen.strong("Two visitors, step by step"))?;
    screen.line("Events go through the ingest function, the close function runs each minute,")?;
    screen.line("time is virtual. Letters stand for session ids.\n")?;
    screen.line(screen.dim("arrives visitor event                           session"))?;
    let clock = VirtualClock::default();
    let service = Service::start(&clock)?;
    let mut letters = Letters::default();
    let mut shown = None;
    let mut now = at("10:00");
    for step in SCRIPT {
        while now + CLOSE_EVERY_MS <= at(step.arrives) {
            now += CLOSE_EVERY_MS;
            for line in service.close(now).await? {
                screen.line(emitted_line(&line, now, &mut letters, screen))?;
            }
        }
        let Some(event) = step.event() else { continue };
        let annotated = service.send(at(step.arrives), &[&event]).await?.remove(0);
        screen.line(arrived_line(step, &annotated, &mut letters, screen))?;
        if step.is_shown {
            shown = Some(annotated);
        }
    }
    if let Some(event) = shown {
        screen.line(format_args!("\n{}", screen.strong("An annotated event (ada's of 10:12)")))?;
        print_properties(&event, screen)?;
    }
    Ok(())
}

/// Returns the line for an event that arrived, with its session and why the session began.
fn arrived_line(step: &Step, annotated: &Value, letters: &mut Letters, screen: &Screen) -> String {
    let properties = &annotated["properties"];
    let letter = letters.of(properties["$session_id"].as_str().unwrap_or_default());
    let is_start = properties["$session_start"] == true;
    let reason = if is_start { properties["$session_start_reason"].as_str().unwrap_or_default() } else { "" };
    let late = if properties["$late"] == true { "late" } else { "" };
    let why = [reason, late].into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(", ");
    let line = format!("  {} {:<7} {:<31} {}", step.arrives, step.visitor, step.what, screen.session(letter));
    let note = if step.note.is_empty() { String::new() } else { format!("\n{:17}{}", "", screen.dim(step.note)) };
    format!("{}{note}", format!("{line}  {}", screen.strong(&why)).trim_end())
}

/// Returns the line for an event that the close function emitted.
fn emitted_line(line: &Value, now: Millis, letters: &mut Letters, screen: &Screen) -> String {
    let properties = &line["properties"];
    let string = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let event = string(&line["event"]);
    let mut letter = |name: &str| letters.of(&string(&properties[name]));
    let what = match event.as_str() {
        "$session_merged" => {
            format!("{} is one with {}", screen.session(letter("from")), screen.session(letter("into")))
        }
        "$session_split" => {
            format!("{} is split off {}", screen.session(letter("into")), screen.session(letter("from")))
        }
        _ => {
            let ended = letter("$session_id");
            let is_first = letters.ended.insert(ended);
            let session = &properties["$session"];
            let minutes = properties["$session_duration"].as_i64().unwrap_or_default() / 60;
            let campaign = session["utm"]["source"].as_str().map_or(String::new(), |name| format!(", campaign {name}"));
            let (events, version) = (&session["event_count"], &properties["$session_version"]);
            let correction = if is_first { "" } else { ", again" };
            format!("{}  {minutes} min, {events} events{campaign}, v{version}{correction}", screen.session(ended))
        }
    };
    format!("  {} {:<7} {} {what}", script::clock_time(now), string(&line["distinct_id"]), screen.event(&event))
}

/// Prints the properties of an annotated event.
fn print_properties(event: &Value, screen: &Screen) -> Result<(), Failure> {
    let Some(properties) = event["properties"].as_object() else { return Ok(()) };
    for (name, value) in properties {
        screen.line(format_args!("  {} {value}", screen.name(name)))?;
    }
    Ok(())
}
