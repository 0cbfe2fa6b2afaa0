//! Outages, in virtual time, with the real functions' code: what the operator sees, and what a consumer of the output ends up with.
//! `docs/operations.md` tells each of them.

mod table;
mod world;

use std::collections::HashMap;

use serde_json::Value;
use session_tracking::config::SessionConfig;
use session_tracking::session::Millis;

use crate::cases::NOON;
use crate::consumer::Consumer;
use crate::oracle;
use crate::pipeline::{self, Shape};
use crate::support::FinalSession;
use world::{MINUTE, Part, World};

const HOUR: Millis = 60 * MINUTE;

/// The worlds of each outage.
const SEEDS: std::ops::Range<u64> = 0..2;

/// Twelve hours of traffic: visits of all lengths, out of order by up to two minutes.
fn world(seed: u64) -> World {
    let config = SessionConfig::default();
    let timeout = config.timeout.num_milliseconds();
    let shape = Shape { seed, visitors: 200, max_events: 60, timeout, start: NOON, disorder: 2 * MINUTE };
    World::new(shape.events(), config)
}

/// Checks that the consumer has the oracle's sessions in every field.
fn check_exact(world: &World) {
    let lines: Vec<String> = world.lines().into_iter().map(|(_, line)| line).collect();
    pipeline::check(&world.events, &world.config, &lines);
}

#[tokio::test]
async fn without_an_outage_all_is_in_time() {
    for seed in SEEDS {
        let mut world = world(seed);
        world.finish().await;
        check_exact(&world);
        assert_eq!((world.redelivered, world.dead_letters(), world.max_close_lag()), (0, 0, 0));
        assert_eq!(world.failed_close_runs(), 0);
    }
}

/// Ten minutes: each message is delivered again until the table is back, and none reaches the dead-letter queue.
#[tokio::test]
async fn the_table_is_down_for_ten_minutes() {
    for seed in SEEDS {
        let mut world = world(seed);
        world.run(NOON + 3 * HOUR, &[]).await;
        world.run(NOON + 3 * HOUR + 10 * MINUTE, &[Part::Table]).await;
        assert!(world.redelivered > 0);
        assert_eq!(world.failed_close_runs(), 10, "each run cannot list what is due");
        world.finish().await;
        assert_eq!((world.dead_letters(), world.failed_close_runs()), (0, 10));
        check_exact(&world);
    }
}

/// Two hours: messages become dead letters after half an hour. A day later they are redriven.
#[tokio::test]
async fn the_table_is_down_for_two_hours() {
    for seed in SEEDS {
        let mut world = world(seed);
        world.run(NOON + 3 * HOUR, &[]).await;
        world.run(NOON + 3 * HOUR + 25 * MINUTE, &[Part::Table]).await;
        assert_eq!(world.dead_letters(), 0);
        world.run(NOON + 5 * HOUR, &[Part::Table]).await;
        world.run(NOON + 27 * HOUR, &[]).await;
        assert!(world.dead_letters() > 0);
        world.redrive();
        world.finish().await;
        assert_eq!(world.dead_letters(), 0);
        check_counted_once(&world);
    }
}

/// Three hours without the output. Events are applied in time, but are not handed on, so their messages become dead letters. Redriven,
/// they are known, and handed on with the sessions that they had.
#[tokio::test]
async fn the_output_is_down_for_three_hours() {
    for seed in SEEDS {
        let mut world = world(seed);
        world.run(NOON + 3 * HOUR, &[]).await;
        world.run(NOON + 6 * HOUR, &[Part::Output]).await;
        assert!(world.dead_letters() > 0 && world.failed_close_runs() > 0);
        let lag = world.max_close_lag();
        assert!((120..=190).contains(&lag), "the ends that wait are that old: {lag} minutes");
        world.run(NOON + 7 * HOUR, &[]).await;
        world.redrive();
        world.finish().await;
        check_exact(&world);
    }
}

/// A day without the close function. Ends are emitted late, and that is all.
#[tokio::test]
async fn the_closer_is_down_for_a_day() {
    for seed in SEEDS {
        let mut world = world(seed);
        world.run(NOON + HOUR, &[]).await;
        let closed = world.lines().len();
        world.run(NOON + 25 * HOUR, &[Part::Closer]).await;
        let is_end = |(_, line): &(Millis, String)| line.contains("$session_end");
        assert_eq!(world.lines()[closed..].iter().filter(|line| is_end(line)).count(), 0);
        assert_eq!((world.redelivered, world.dead_letters()), (0, 0), "events are annotated all the time");
        world.finish().await;
        check_exact(&world);
    }
}

/// The table goes back by an hour. The schedule is off until the input of that hour was sent again, and the consumer forgets what it
/// received in that hour. The result is as if nothing had happened.
#[tokio::test]
async fn the_table_is_restored_to_an_hour_ago() {
    for seed in SEEDS {
        let mut world = world(seed);
        let (point, end) = (NOON + 3 * HOUR, NOON + 4 * HOUR);
        world.run(point, &[]).await;
        let backup = world.table.backup();
        world.run(end, &[]).await;
        let lost = world.lines().iter().filter(|(at, _)| *at > point).count();
        assert!(lost > 0);

        world.table.restore(backup);
        // Some minutes before the point: what the input queue had then, and what was on its way.
        world.replay_since(point - 5 * MINUTE);
        world.run(end + 5 * MINUTE, &[Part::Closer]).await;
        world.finish().await;
        let kept = world.lines().into_iter().filter(|(at, _)| *at <= point || *at > end).map(|(_, line)| line);
        pipeline::check(&world.events, &world.config, &kept.collect::<Vec<_>>());
    }
}

/// Why the consumer has to forget that hour: the table counts versions from where it went back to, so a later end can have a lower
/// version than an earlier one, or the same with another content.
#[tokio::test]
async fn a_restored_table_gives_versions_again() {
    let mut again = 0;
    for seed in SEEDS {
        let mut world = world(seed);
        world.run(NOON + 3 * HOUR, &[]).await;
        let backup = world.table.backup();
        world.run(NOON + 4 * HOUR, &[]).await;
        world.table.restore(backup);
        world.finish().await;
        let mut newest: HashMap<(String, String), (u64, Value)> = HashMap::new();
        for (_, line) in world.lines() {
            let line: Value = serde_json::from_str(&line).unwrap();
            let properties = &line["properties"];
            if line["event"] != "$session_end" {
                continue;
            }
            let key = (line["distinct_id"].to_string(), properties["$session_id"].to_string());
            let version = properties["$session_version"].as_u64().unwrap();
            let before = newest.insert(key, (version, properties.clone()));
            again += before.is_some_and(|(known, content)| known >= version && content != *properties) as usize;
        }
    }
    assert!(again > 0);
}

/// Checks that a consumer has each event once, in a session of its time, and that the sessions' own counts agree. Late events can
/// be in other sessions than if they had come in time, but most are in the same.
fn check_counted_once(world: &World) {
    let lines = world.lines().into_iter().map(|(_, line)| serde_json::from_str::<Value>(&line).unwrap());
    let emitted: Vec<Value> = lines.filter(|line| line["event"].is_string()).collect();
    let consumer = Consumer::read(&emitted);
    let usable = world.usable();
    assert_eq!(consumer.events.len(), usable.len());
    let sessions = consumer.sessions();
    for session in &sessions {
        assert_eq!(session.event_count as usize, session.events.len(), "{session:?}");
    }
    assert_eq!(sessions.iter().map(|session| session.events.len()).sum::<usize>(), usable.len());
    let expected: Vec<FinalSession> =
        oracle::sessions(&usable, &world.config).into_iter().map(FinalSession::from).collect();
    let same = expected.iter().filter(|session| sessions.contains(session)).count();
    println!("{same} of {} sessions are those of events in time", expected.len());
    assert!(same * 5 >= expected.len() * 4, "{same} of {}", expected.len());
}
