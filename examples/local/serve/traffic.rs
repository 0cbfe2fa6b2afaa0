//! Sample traffic: the story of the first run, and real traffic beside it, sent as time passes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;
use session_tracking::clock::Clock;
use session_tracking::event::time_of_json;
use session_tracking::session::{Millis, datetime, rfc3339};

use super::http::{Api, send_events};
use crate::demo::script::{SCRIPT, at};
use crate::failure::reason;

/// Real traffic, from the repository.
const WEBLOG: &str = "tests/data/weblog-events.ndjson";
/// Events of it that are sent: those of ten hours.
const WEBLOG_EVENTS: usize = 1_200;
/// Events that are sent at once, if time runs so fast.
const BATCH_EVENTS: usize = 100;

/// Whether traffic is being sent, and how often it was.
#[derive(Debug, Default)]
pub struct Traffic {
    /// The number of the run that is under way; 0 if none is.
    running: AtomicU64,
    runs: AtomicU64,
}

/// An event that is sent when its time comes.
struct Planned {
    /// When it is sent, in milliseconds after the beginning.
    after: Millis,
    /// When it happened, in milliseconds after the beginning.
    happened: Millis,
    event: Value,
}

/// Begins to send the traffic in the background. Returns how many events it has.
///
/// # Errors
/// A sentence: it is being sent already, or the file with real traffic cannot be read.
pub fn start(api: &Arc<Api>) -> Result<usize, String> {
    let plan = plan()?;
    let run = api.traffic.runs.fetch_add(1, Ordering::Relaxed) + 1;
    if api.traffic.running.compare_exchange(0, run, Ordering::Relaxed, Ordering::Relaxed).is_err() {
        return Err("sample traffic is already being sent; wait until it ends".to_owned());
    }
    let (count, api) = (plan.len(), Arc::clone(api));
    tokio::spawn(async move {
        send(&api, &plan, run).await;
        api.traffic.running.store(0, Ordering::Relaxed);
    });
    Ok(count)
}

/// Sends each event when its time comes, many at once if time runs fast.
async fn send(api: &Api, plan: &[Planned], run: u64) {
    let began = api.clock.now();
    let mut rest = plan;
    while let Some(first) = rest.first() {
        api.clock.wait_until(began + first.after).await;
        let passed = api.clock.now() - began;
        let due = rest.iter().take(BATCH_EVENTS).take_while(|planned| planned.after <= passed).count().max(1);
        let (batch, later) = rest.split_at(due);
        let events: Vec<Value> = batch.iter().map(|planned| planned.at(began, run)).collect();
        send_events(api, &events).await;
        rest = later;
    }
}

impl Planned {
    /// Returns the event with its time and id in a run. A second run brings new events of the same visitors.
    fn at(&self, began: Millis, run: u64) -> Value {
        let mut event = self.event.clone();
        event["timestamp"] = rfc3339(datetime(began + self.happened)).into();
        event["uuid"] = format!("{}-{run}", event["uuid"].as_str().unwrap_or_default()).into();
        event
    }
}

/// Returns all events by the time at which they are sent.
fn plan() -> Result<Vec<Planned>, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(WEBLOG);
    let weblog = std::fs::read_to_string(&path)
        .map_err(|error| format!("the sample traffic `{}` cannot be read: {}", path.display(), reason(&error)))?;
    let weblog: Vec<(Millis, Value)> = weblog.lines().take(WEBLOG_EVENTS).filter_map(timed).collect();
    let first = weblog.first().map_or(0, |(time, _)| *time);
    let weblog = weblog.into_iter().map(|(time, event)| (time - first, time - first, event));
    let story_begins = at("10:00");
    let story = SCRIPT.iter().filter_map(|step| {
        let (happened, event) = timed(&step.event()?)?;
        Some((at(step.arrives) - story_begins, happened - story_begins, event))
    });
    let planned = |(after, happened, event)| Planned { after, happened, event };
    let mut plan: Vec<Planned> = story.chain(weblog).map(planned).collect();
    plan.sort_by_key(|planned| planned.after);
    Ok(plan)
}

fn timed(line: &str) -> Option<(Millis, Value)> {
    let event: Value = serde_json::from_str(line).ok()?;
    Some((time_of_json(&event["timestamp"].to_string())?, event))
}
