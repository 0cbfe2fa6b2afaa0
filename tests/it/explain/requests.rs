//! The same through the function's own handler: a request is explained, then sent. Over random histories of several visitors and
//! projects, with bodies in every form, events that cannot be used, requests that end sessions, erasure, and sessions that are no
//! longer kept.

use std::collections::BTreeSet;
use std::io::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::TimeDelta;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use session_tracking::config::{AllowedOrigins, GivenRules, Projects, PublicAccess};
use session_tracking::manager::{Counted, SessionManager};
use session_tracking::output::MemoryOutput;
use session_tracking::session::{Millis, Visitor, datetime, rfc3339};
use session_tracking::storage::InMemorySessionStorage;
use session_tracking::trigger::Ingest;

use crate::cases::{MINUTE, NOON};
use crate::mixes::pick;
use crate::support::{ManualClock, Seeded};

const SEEDS: u64 = 60;
const HOUR: Millis = 60 * MINUTE;
const DAY: Millis = 24 * HOUR;
const PROJECTS: [&str; 3] = ["", "shop", "blog"];
const VISITORS: [&str; 3] = ["ada", "ben", "undefined"];
const BOT: &str = "Googlebot/2.1 (+http://www.google.com/bot.html)";

type Function<'w> = Ingest<&'w InMemorySessionStorage, &'w ManualClock, MemoryOutput>;

fn projects(random: &mut Seeded) -> Projects {
    let service = json!({"timeout_seconds": 600, "lateness_seconds": pick(random, &[0, 120, 3600]), "exclude_bots": true,
        "passive_events": ["ping"], "keep_alive_events": ["beat"]});
    let projects = json!({
        "shop": {"keys": pick(random, &[json!([]), json!(["k"])]), "rules": {"max_events": 3, "lateness_seconds": 30}},
        "blog": {"rules": {"midnight": "UTC", "direct_then_source": "split", "nobody_ids": ["ben"]}},
    });
    Projects::from_json(&GivenRules::of_json(service).unwrap(), &projects.to_string()).unwrap()
}

/// Returns what one element of a body can be: mostly an event, known or new.
fn element(random: &mut Seeded, now: Millis, sent: &mut Vec<String>) -> String {
    if random.below(12) == 0 {
        let none = [
            "7",
            "{}",
            r#"{"event":"x"}"#,
            r#"{"event":"","distinct_id":"ada"}"#,
            r#"{"event":"a","distinct_id":"x\u0000"}"#,
        ];
        return pick(random, &none).to_owned();
    }
    if random.below(5) == 0 && !sent.is_empty() {
        return pick(random, sent);
    }
    let ago =
        [0, 0, 1, 500, MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 5 * HOUR, 2 * DAY, 400 * DAY, -2 * MINUTE, -30 * DAY];
    let mut properties =
        json!({"$current_url": format!("https://shop.test/{}", "x".repeat(pick(random, &[0, 0, 5, 900, 40_000])))});
    for (name, values) in [("utm_source", ["ads", "mail"]), ("$referrer", ["https://a.test/", "https://b.test/"])] {
        if random.below(4) == 0 {
            properties[name] = pick(random, &values).into();
        }
    }
    if random.below(10) == 0 {
        properties["$raw_user_agent"] = BOT.into();
    }
    let name =
        pick(random, &["$pageview", "$pageview", "$pageview", "click", "ping", "beat", "$pageleave", "$session_end"]);
    let mut event = json!({"event": name, "distinct_id": pick(random, &VISITORS), "properties": properties});
    if random.below(8) > 0 {
        event["timestamp"] = rfc3339(datetime(now - pick(random, &ago))).into();
    }
    if random.below(8) > 0 {
        event["uuid"] = format!("e{}", sent.len()).into();
    }
    match pick(random, &PROJECTS) {
        "" => {}
        project => event["project"] = project.into(),
    }
    let mut json = event.to_string();
    if random.below(12) == 0 {
        json = json.replacen("https://shop.test/", r"half \ud83d", 1);
    }
    sent.push(json.clone());
    json
}

/// Returns a body with these elements, in one of its forms.
fn body(random: &mut Seeded, elements: &[String], now: Millis) -> String {
    let joined = elements.join(",");
    match random.below(4) {
        0 if elements.len() == 1 => joined,
        0 | 1 => format!("[{joined}]"),
        2 => format!("{{\"events\":[{joined}]}}"),
        _ => format!("{{\"sent_at\":\"{}\",\"events\":[{joined}]}}", rfc3339(datetime(now - 90_000))),
    }
}

/// Returns a request with credentials, for this path.
fn request(path: &str, body: &str, form: usize, key: &str) -> Value {
    let gzip = || {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body.as_bytes()).unwrap();
        BASE64_STANDARD.encode(encoder.finish().unwrap())
    };
    let (body, is_base64, encoding) = match form {
        0 => (gzip(), true, "gzip"),
        1 => (BASE64_STANDARD.encode(body), true, ""),
        _ => (body.to_owned(), false, ""),
    };
    json!({
        "version": "2.0", "routeKey": format!("POST {path}"), "rawPath": path, "body": body, "isBase64Encoded": is_base64,
        "headers": {"content-encoding": encoding, "x-write-key": key},
        "requestContext": {"http": {"method": "POST"}, "requestId": "r", "authorizer": {"iam": {"userArn": "arn:aws:iam::1:user/x"}}},
    })
}

async fn answer(function: &Function<'_>, payload: &str) -> Value {
    let answer = function.handle_as("r", payload, Millis::MAX).await.unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    match answer["body"].as_str() {
        Some(body) => serde_json::from_str(body).unwrap(),
        None => answer,
    }
}

/// Checks what was told about a request by what the request then did. Returns the rules that decided.
fn check(told: &Value, done: &Value) -> BTreeSet<String> {
    let told = told["explanations"].as_array().unwrap_or_else(|| panic!("{told} {done}"));
    let array = |name: &str| done[name].as_array().cloned().unwrap_or_default();
    assert!(array("failed").is_empty(), "{done}");
    let (mut events, mut rejected) = (array("events").into_iter(), array("rejected").into_iter().peekable());
    let mut rules = BTreeSet::new();
    for (index, told) in told.iter().enumerate() {
        assert_eq!(told["index"], index);
        rules.insert(told["rule"].as_str().unwrap().to_owned());
        if let Some(why) = rejected.next_if(|why| why["index"] == index) {
            assert_eq!(
                (&told["rule"], &told["code"], &told["message"]),
                (&json!("rejected"), &why["code"], &why["message"])
            );
            continue;
        }
        let event = events.next().unwrap_or_else(|| panic!("{told} {done}"));
        if told["rule"] == "lifecycle" {
            continue;
        }
        let (properties, session) = (&event["properties"], &told["session"]);
        assert_eq!((&told["distinct_id"], &told["time_flag"]), (&event["distinct_id"], &properties["$time_flag"]));
        assert_eq!((&told["uuid"], &told["project"]), (&event["uuid"], &event["project"]), "{told} {event}");
        let names = ["id", "reason", "number", "previous_session_id", "is_start"];
        let done =
            ["$session_id", "$session_start_reason", "$session_number", "$previous_session_id", "$session_start"];
        for (name, done) in names.into_iter().zip(done) {
            assert_eq!(session[name], properties[done], "{name}: {told} {event}");
        }
        assert_eq!(told["is_late"] == true, properties["$late"] == true, "{told} {event}");
        assert_eq!(
            told["rule"] == "nobody" || told["rule"] == "bot",
            properties["$no_session"].is_string(),
            "{told} {event}"
        );
        // What is not late was compared with a session before it.
        if !told["rule"].as_str().unwrap().starts_with("late_") {
            let rules = told["session_before"]["rules"].as_array();
            let times = rules.into_iter().flatten().filter_map(|rule| rule["ms"].as_i64());
            times.for_each(|ms| assert!(ms >= 0, "{told} {event}"));
        }
        if properties["$event_time"].is_string() && told["rule"] != "duplicate" {
            assert_eq!(told["event_time"], properties["$event_time"], "{told} {event}");
        }
    }
    assert_eq!((events.next(), rejected.next()), (None, None));
    rules
}

async fn run(seed: u64) -> BTreeSet<String> {
    let mut random = Seeded(seed ^ 0x7e57_e4b1);
    let (clock, storage) = (ManualClock::default(), InMemorySessionStorage::new());
    let mut now = NOON;
    clock.set(now);
    let bytes = pick(&mut random, &[(512, 928), (2_000, 2_000), (400, 300), (0, 0)]);
    let manager = SessionManager::with_clock(projects(&mut random), &storage, &clock)
        .with_retention(TimeDelta::days(1))
        .with_page_size(pick(&mut random, &[1, 64]))
        .with_closed_bytes(bytes.0, bytes.1);
    let output = MemoryOutput::default;
    let (origins, public) = (AllowedOrigins::default(), PublicAccess::default());
    let function = Ingest { manager, output: output(), rejects: output(), origins, public };
    let (mut sent, mut rules, mut ids) = (Vec::new(), BTreeSet::new(), Vec::new());
    for _ in 0..4 + random.below(20) {
        now += pick(&mut random, &[0, 1, 500, MINUTE, 11 * MINUTE, HOUR, 10 * HOUR, 30 * HOUR]);
        clock.set(now);
        match random.below(8) {
            0 | 1 => drop(function.manager.cleanup(&function.output, Millis::MAX).await),
            2 if !ids.is_empty() => {
                let id: Value = pick(&mut random, &ids);
                answer(&function, &json!({ "end_session": id }).to_string()).await;
            }
            3 if random.below(6) == 0 => {
                let visitor = Visitor { project: "shop".to_owned(), ..Visitor::new("ada") };
                function.manager.erase(&visitor, &function.output).await.unwrap();
            }
            _ => {}
        }
        let elements: Vec<String> = (0..1 + random.below(6)).map(|_| element(&mut random, now, &mut sent)).collect();
        let (before, form) = (format!("{storage:?}"), random.below(4));
        // A direct invocation has to show that it is one.
        let body = match form {
            3 => format!("{{\"events\":[{}]}}", elements.join(",")),
            _ => body(&mut random, &elements, now),
        };
        drop((function.manager.take_counted(), function.output.take(), function.rejects.take()));
        let payload = |path: &str| match form {
            3 if path == "/v1/explain" => format!("{{\"explain\":{body}}}"),
            3 => body.clone(),
            _ => request(path, &body, form, "k").to_string(),
        };
        let told = answer(&function, &payload("/v1/explain")).await;
        assert_eq!(format!("{storage:?}"), before, "nothing is written");
        assert!(function.output.take().is_empty() && function.rejects.take().is_empty());
        assert_eq!(function.manager.take_counted(), Counted::default(), "nothing is counted");
        let done = answer(&function, &payload("/v1/events")).await;
        rules.extend(check(&told, &done));
        let given =
            done["events"].as_array().into_iter().flatten().map(|event| event["properties"]["$session_id"].clone());
        ids.extend(given.filter(Value::is_string));
    }
    rules
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a test's own settings")]
fn what_a_request_is_told_is_what_it_then_does() {
    let setting = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match setting("EXPLAIN_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("EXPLAIN_SEEDS").unwrap_or(SEEDS),
    };
    let is_one = seeds.end - seeds.start == 1;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut seen = BTreeSet::new();
    for seed in seeds {
        let run = std::panic::AssertUnwindSafe(|| runtime.block_on(run(seed)));
        let Ok(rules) = std::panic::catch_unwind(run) else {
            panic!("to reproduce: EXPLAIN_SEED={seed} cargo test --test it explain::requests -- --nocapture");
        };
        seen.extend(rules);
    }
    for wanted in [
        "annotated",
        "bot",
        "continues",
        "duplicate",
        "explicit",
        "first",
        "late_begins",
        "late_joins",
        "lifecycle",
        "max_events",
        "no_session",
        "nobody",
        "referrer_change",
        "rejected",
        "timeout",
        "utm_change",
    ] {
        assert!(is_one || seen.contains(wanted), "{wanted}: {seen:?}");
    }
}
