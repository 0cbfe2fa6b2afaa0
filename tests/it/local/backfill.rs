//! `local backfill`: history gets the sessions of live traffic, however often it is sent and wherever it is interrupted.

use std::collections::BTreeMap;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use session_tracking::clock::{Clock, SystemClock};
use session_tracking::config::SessionConfig;
use session_tracking::manager::SessionManager;
use session_tracking::session::Millis;
use session_tracking::storage::DynamoDbSessionStorage;

use super::{Folder, local, refused, utf8};
use crate::dynamodb::{EmbeddedDynamoDb, TABLE};
use crate::oracle;
use crate::pipeline::{Event, Shape};
use crate::support::{FinalSession, ManualClock, Sink};

/// A year ago: 2025-03-10T12:00:00Z.
const THEN: Millis = 1_741_608_000_000;
const DAY: Millis = 86_400_000;

/// A table, the history of some visitors, and a folder.
struct World {
    database: EmbeddedDynamoDb,
    events: Vec<Event>,
    folder: Folder,
}

impl World {
    /// The history is in a file, in the order in which it arrived.
    fn new(name: &str, seed: u64) -> Self {
        let config = SessionConfig::default();
        let timeout = config.timeout.num_milliseconds();
        let shape = Shape { seed, visitors: 60, max_events: 150, timeout, start: THEN, disorder: DAY };
        let events = shape.events();
        let folder = Folder::new(&format!("backfill-{name}"));
        let lines: Vec<String> = events.iter().map(Event::json).collect();
        folder.write("history.ndjson", &(lines.join("\n") + "\n"));
        Self { database: EmbeddedDynamoDb::start(0).unwrap(), events, folder }
    }

    fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = local(&self.folder.0, &[&["backfill", "history.ndjson"], args].concat());
        command.env("AWS_ENDPOINT_URL_DYNAMODB", &self.database.endpoint).env("AWS_REGION", "local");
        command.env("AWS_ACCESS_KEY_ID", "local").env("AWS_SECRET_ACCESS_KEY", "local");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs the command to its end.
    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Sends everything. Returns what is printed.
    fn send(&self, args: &[&str]) -> String {
        let output = self.run(&[&["--table", TABLE, "--annotated", "annotated.ndjson"], args].concat());
        assert!(output.status.success(), "{}", utf8(&output.stderr));
        utf8(&output.stdout).to_owned()
    }

    /// Ends the sessions, as the deployed close function does, and checks that a consumer of the annotated events and the ends
    /// has the oracle's sessions.
    async fn check(&self) {
        let (clock, sink) = (ManualClock::default(), Sink::default());
        clock.set(THEN + 700 * DAY);
        let storage = DynamoDbSessionStorage::new(self.database.client(), TABLE);
        let manager = SessionManager::with_clock(SessionConfig::default(), storage, &clock);
        while manager.cleanup(&&sink, Millis::MAX).await.examined > 0 {}
        let mut lines: Vec<String> = self.folder.read("annotated.ndjson").lines().map(str::to_owned).collect();
        assert!(lines.iter().all(|line| !line.contains("$late")), "in order, nothing is late");
        lines.append(&mut sink.0.lock().unwrap());
        let usable: Vec<_> = self.events.iter().filter_map(Event::usable).collect();
        let expected: Vec<FinalSession> =
            oracle::sessions(&usable, &SessionConfig::default()).into_iter().map(FinalSession::from).collect();
        let emitted: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let found = crate::consumer::Consumer::read(&emitted).sessions();
        assert_eq!(found.len(), expected.len());
        found.iter().zip(&expected).for_each(|(found, expected)| assert_eq!(found, expected));
    }
}

/// Returns the numbers of a line of output, by the word behind each.
fn numbers(line: &str) -> BTreeMap<String, u64> {
    let words: Vec<&str> = line.split([' ', ',', ';']).filter(|word| !word.is_empty()).collect();
    words.windows(2).filter_map(|pair| Some((pair[1].to_owned(), pair[0].parse().ok()?))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_gets_the_sessions_of_live_traffic() {
    let world = World::new("once", 1);
    let printed = world.send(&["--batch", "37"]);
    world.check().await;
    let usable = world.events.iter().filter_map(Event::usable).count() as u64;
    let [first, second, last] = &printed.lines().collect::<Vec<_>>()[..] else { panic!("{printed}") };
    let expected =
        oracle::sessions(&world.events.iter().filter_map(Event::usable).collect::<Vec<_>>(), &SessionConfig::default());
    assert_eq!(numbers(first)["events"], usable, "{printed}");
    assert_eq!(numbers(first)["lines"] as usize, world.events.len() - usable as usize, "{printed}");
    // Campaigns and referrers begin more sessions than timeouts alone.
    let (sessions, all) = (numbers(first)["sessions"] as usize, expected.len());
    assert!(sessions <= all && sessions * 2 > all, "{printed}: {all}");
    assert!(second.contains("write units, $0.00 at DynamoDB"), "{printed}");
    assert!(last.starts_with(&format!("applied {usable} events; 0 were known, 0 late; ")), "{printed}");
}

/// All of it is sent twice, in other batches and another order of lines.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_that_is_sent_twice_is_counted_once() {
    let world = World::new("twice", 2);
    world.send(&[]);
    world.check().await;
    let text = world.folder.read("history.ndjson");
    let reversed: Vec<&str> = text.lines().rev().collect();
    world.folder.write("history.ndjson", &reversed.join("\n"));
    std::fs::remove_file(world.folder.0.join("annotated.ndjson")).unwrap();
    // The sessions are in the archive by now.
    let printed = world.send(&["--batch", "100"]);
    let usable = world.events.iter().filter_map(Event::usable).count();
    assert!(printed.contains(&format!("applied {usable} events; {usable} were known, ")), "{printed}");
    let storage = DynamoDbSessionStorage::new(world.database.client(), TABLE);
    let clock = ManualClock::default();
    clock.set(THEN + 701 * DAY);
    let manager = SessionManager::with_clock(SessionConfig::default(), storage, &clock);
    let sink = Sink::default();
    assert_eq!(manager.cleanup(&&sink, Millis::MAX).await.closed, 0, "no end is emitted again");
}

/// It is killed again and again, and asked to stop once. In the end it is as if it had run once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_goes_on_where_it_was_interrupted() {
    let world = World::new("interrupted", 3);
    let args = ["--table", TABLE, "--annotated", "annotated.ndjson", "--checkpoint", "at.json", "--batch", "10"];
    let applied = || {
        let text = std::fs::read_to_string(world.folder.0.join("at.json")).unwrap_or_default();
        serde_json::from_str::<Value>(&text).map_or(0, |at| at["applied"].as_u64().unwrap())
    };
    let mut stops = 0;
    for (round, signal) in ["KILL", "INT", "KILL", "TERM"].into_iter().enumerate() {
        let from = applied();
        let child = world.command(&[&args[..], &["--rate", "200"]].concat()).spawn().unwrap();
        let mut waits = 0;
        while applied() < from + 20 * (round as u64 + 1) {
            SystemClock.sleep(Duration::from_millis(5)).await;
            waits += 1;
            assert!(waits < 12_000, "nothing is sent");
        }
        std::process::Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status().unwrap();
        let output = child.wait_with_output().unwrap();
        if signal != "KILL" {
            let message = utf8(&output.stderr);
            assert_eq!(output.status.code(), Some(130), "{message}");
            assert!(message.contains("run it again to go on there"), "{message}");
            stops += 1;
        }
    }
    // A run that was killed while it wrote.
    let annotated = world.folder.read("annotated.ndjson");
    world.folder.write("annotated.ndjson", &format!("{annotated}{{\"event\":\"cut"));
    let from = applied();
    let usable = world.events.iter().filter_map(Event::usable).count() as u64;
    assert!(stops == 2 && from > 100 && from < usable, "{from} of {usable}");
    let output = world.run(&args);
    assert!(output.status.success(), "{}", utf8(&output.stderr));
    let printed = utf8(&output.stdout);
    assert!(printed.contains(&format!("applied {} events", usable - from)), "{printed}: {from} of {usable}");
    world.check().await;
    // Nothing is left to do.
    assert!(utf8(&world.run(&args).stdout).contains("applied 0 events"));
    // Another input, and another table.
    let refused = |args: &[&str]| utf8(&world.run(args).stderr).lines().last().unwrap().to_owned();
    world.folder.write("history.ndjson", r#"{"event":"x","distinct_id":"ada","timestamp":"2025-03-10T12:00:00Z"}"#);
    assert!(refused(&args).contains("is of another input, or of other rules; delete it to begin anew"));
    assert!(refused(&["--table", "other", "--checkpoint", "at.json"]).contains("is of the table `sessions`"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_table_only_the_costs_are_printed() {
    let world = World::new("costs", 4);
    let output = world.run(&[]);
    assert!(output.status.success(), "{}", utf8(&output.stderr));
    assert_eq!(utf8(&output.stdout).lines().count(), 2);
    let items = world.database.client().scan().table_name(TABLE).select("COUNT".into()).send().await.unwrap();
    assert_eq!(items.count, 0);
    // The sizes of a history can be in one file or in many.
    let text = world.folder.read("history.ndjson");
    let (one, other) = text.split_at(text[..text.len() / 2].rfind('\n').unwrap() + 1);
    world.folder.write("history.ndjson", one);
    world.folder.write("more.ndjson", other);
    assert_eq!(utf8(&world.run(&["more.ndjson"]).stdout), utf8(&output.stdout));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_without_a_time_or_a_visitor_are_skipped_and_named() {
    let world = World::new("lines", 5);
    let event = |time: Value| json!({ "uuid": "e", "event": "x", "distinct_id": "ada", "timestamp": time }).to_string();
    let (good, absent) = (event(json!("2025-03-10T12:00:00Z")), event(Value::Null));
    let received = r#"{"event":"x","distinct_id":"ada","received_at":"2025-03-10T12:05:00Z"}"#;
    let lines = [&good, &absent, &event(json!("soon")), received, "nonsense", &event(json!("1970-01-01T00:00:00Z"))];
    world.folder.write("history.ndjson", &lines.join("\n"));
    let output = world.run(&["--table", TABLE]);
    let messages = utf8(&output.stderr);
    assert!(
        utf8(&output.stdout).contains("2 events of 1 visitors, in about 1 sessions; 4 lines skipped"),
        "{output:?}"
    );
    for (line, code) in [(2, "no_time"), (3, "no_time"), (5, "not"), (6, "no_time")] {
        assert!(
            messages.lines().any(|message| message.contains(&format!("line {line}: {code}")) || line == 5),
            "{messages}"
        );
    }
    assert!(!messages.contains("ada"), "no id in a message: {messages}");
}

/// A table that is not there is told after some seconds, and a command line that makes no sense at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_work_is_refused() {
    let world = World::new("refused", 6);
    let output = world.run(&["--table", "absent"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(utf8(&output.stderr).contains("events could not be applied: "), "{output:?}");
    assert!(utf8(&output.stdout).lines().count() == 2, "{output:?}");
    let folder = &world.folder.0;
    for (args, part) in [
        (&["backfill", "history.ndjson", "--checkpoint", "x"][..], "need `--table`"),
        (&["backfill", "history.ndjson", "--rate", "0"], "`--rate` takes a whole number from 1"),
        (&["backfill"], "`backfill` needs a file"),
        (&["backfill", "history.ndjson", "--tabel", "x"], "did you mean `--table`?"),
    ] {
        assert!(refused(folder, args, 2).contains(part), "{args:?}");
    }
    assert!(refused(folder, &["backfill", "absent.ndjson"], 1).contains("there is no such file"));
}

/// A visitor with more sessions than a timeline holds: the command waits for the close function, which makes room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_visitor_with_years_of_sessions_waits_for_the_close_function() {
    const VISITS: i64 = 5_000;
    let world = World::new("years", 7);
    let visit = |number: i64| {
        let at = session_tracking::session::rfc3339(session_tracking::session::datetime(THEN + number * 3_600_000));
        let url = format!("https://shop.test/{number}?utm_source=source-{number}&utm_campaign={}", "x".repeat(20));
        json!({"event": "$pageview", "distinct_id": "ada", "timestamp": at, "properties": {"$current_url": url}})
            .to_string()
    };
    let lines: Vec<String> = (0..VISITS).map(visit).collect();
    world.folder.write("history.ndjson", &lines.join("\n"));
    let storage = DynamoDbSessionStorage::new(world.database.client(), TABLE);
    let clock = ManualClock::default();
    clock.set(THEN + 1_000 * DAY);
    let manager = SessionManager::with_clock(SessionConfig::default(), storage, &clock);
    let sink = Sink::default();
    let mut child = world.command(&["--table", TABLE, "--rate", "1000000"]).spawn().unwrap();
    let mut closed = 0;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        SystemClock.sleep(Duration::from_millis(700)).await;
        closed += manager.cleanup(&&sink, Millis::MAX).await.closed;
    };
    closed += manager.cleanup(&&sink, Millis::MAX).await.closed;
    assert!(status.success(), "{:?}", child.wait_with_output());
    assert_eq!(closed as i64, VISITS);
}
