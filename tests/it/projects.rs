//! Projects with rules of their own, in one service: each has the sessions that it would have in a service of its own.

use serde_json::{Value, json};
use session_tracking::config::{AllowedOrigins, GivenRules, ProjectRules, Projects, PublicAccess};
use session_tracking::manager::SessionManager;
use session_tracking::output::MemoryOutput;
use session_tracking::session::{Millis, SessionContext, Visitor, datetime, rfc3339};
use session_tracking::storage::{InMemorySessionStorage, SessionError};
use session_tracking::trigger::Ingest;

use crate::cases::{MINUTE, NOON};
use crate::support::{ManualClock, Seeded};

/// Projects whose rules differ in all that decides on a session, and in how an event is read.
fn projects() -> Projects {
    let service = GivenRules::of_json(json!({"timeout_seconds": 600, "lateness_seconds": 120})).unwrap();
    let projects = json!({
        "short": {"rules": {"timeout_seconds": 60, "lateness_seconds": 0, "passive_events": ["click"]}},
        "sources": {"profile": "universal-analytics"},
        "limits": {"rules": {"max_events": 2, "keep_alive_events": ["click"], "nobody_ids": ["v1"]}},
        "plain": {},
    });
    Projects::from_json(&service, &projects.to_string()).unwrap()
}

const NAMES: [&str; 6] = ["", "short", "sources", "limits", "plain", "not-configured"];

/// What happens in a world of one seed, for each step: events, and what else.
struct Step {
    /// The time by which the clock is later than in the step before.
    pause: Millis,
    events: Vec<Event>,
    /// The visitor whose latest session a request ends.
    ends: Option<Visitor>,
    closes: bool,
    /// Whether another process goes on.
    restarts: bool,
}

struct Event {
    visitor: Visitor,
    json: String,
}

/// Draws a world: events of two visitors in each project, most of them in order, some late, over half a day.
fn world(seed: u64) -> Vec<Step> {
    let mut random = Seeded(seed);
    let mut now = NOON;
    let mut number = 0;
    let mut steps = Vec::new();
    for _ in 0..20 {
        let pause = [1_000, 30_000, 61_000, 5 * MINUTE, 11 * MINUTE, 40 * MINUTE][random.below(6)];
        now += pause;
        let visitor = |random: &mut Seeded| Visitor {
            project: NAMES[random.below(NAMES.len())].to_owned(),
            distinct_id: format!("v{}", random.below(2)),
        };
        let events = (0..random.below(12)).map(|_| {
            number += 1;
            let visitor = visitor(&mut random);
            let at = now - [0, 0, 0, 100_000, 3 * MINUTE, 2 * 60 * MINUTE][random.below(6)];
            let mut event = json!({
                "uuid": format!("e{number}"),
                "event": (["$pageview", "click"][random.below(2)]),
                "distinct_id": visitor.distinct_id,
                "timestamp": rfc3339(datetime(at)),
                "properties": {"$current_url": "https://shop.test/", "$referrer": "https://a.test/"},
            });
            if !visitor.project.is_empty() {
                event["project"] = visitor.project.clone().into();
            }
            match random.below(5) {
                0 => event["properties"]["utm_source"] = ["ads", "mail"][random.below(2)].into(),
                1 => event["properties"]["gclid"] = ["x", "y"][random.below(2)].into(),
                _ => {}
            }
            Event { visitor, json: event.to_string() }
        });
        let events = events.collect();
        let ends = (random.below(4) == 0).then(|| visitor(&mut random));
        let (closes, restarts) = (random.below(2) == 0, random.below(4) == 0);
        steps.push(Step { pause, events, ends, closes, restarts });
    }
    steps.push(Step { pause: 2_880 * MINUTE, events: Vec::new(), ends: None, closes: true, restarts: true });
    steps
}

/// Runs the part of a world that belongs to some projects. Returns all that a consumer gets of each visitor, in order.
async fn run(projects: &Projects, steps: &[Step], is_included: impl Fn(&str) -> bool) -> Vec<(Visitor, Value)> {
    let (storage, clock, output) = (InMemorySessionStorage::new(), ManualClock::default(), MemoryOutput::default());
    let start = || Ingest {
        manager: SessionManager::with_clock(projects.clone(), &storage, &clock),
        output: &output,
        rejects: &output,
        origins: AllowedOrigins::default(),
        public: PublicAccess::default(),
    };
    let mut service = start();
    let mut now = NOON;
    let mut got = Vec::new();
    for step in steps {
        now += step.pause;
        clock.set(now);
        if step.restarts {
            service = start();
        }
        let events: Vec<&Event> = step.events.iter().filter(|event| is_included(&event.visitor.project)).collect();
        if !events.is_empty() {
            let body: Vec<&str> = events.iter().map(|event| event.json.as_str()).collect();
            let answer = service.handle(&format!("[{}]", body.join(",")), Millis::MAX).await.unwrap();
            let answer: Value = serde_json::from_str(&answer).unwrap();
            let annotated = answer["events"].as_array().unwrap();
            assert_eq!(annotated.len(), events.len(), "{answer}");
            got.extend(events.iter().zip(annotated).map(|(event, line)| (event.visitor.clone(), line.clone())));
        }
        if let Some(visitor) = step.ends.as_ref().filter(|visitor| is_included(&visitor.project)) {
            match service.manager.get_by_user(visitor.clone()).await {
                Ok(session) => {
                    let ended = service.manager.end_session(&session.id).await.unwrap();
                    let found = [session, ended].map(|session| serde_json::to_value(session).unwrap());
                    got.extend(found.map(|session| (visitor.clone(), session)));
                }
                Err(SessionError::NotFound) => {}
                Err(error) => panic!("{error}"),
            }
        }
        if step.closes {
            let report = service.manager.cleanup(&&output, Millis::MAX).await;
            assert_eq!(report.failed, 0, "{report:?}");
            let mut lines: Vec<Value> = output.take().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
            lines.sort_by_key(|line| line["uuid"].to_string());
            got.extend(lines.into_iter().map(|line| {
                let string = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
                (Visitor { project: string("project"), distinct_id: string("distinct_id") }, line)
            }));
        }
    }
    got
}

#[tokio::test]
async fn projects_stay_apart_through_ingest_late_events_close_and_restart() {
    let all = projects();
    let mut ends = [0; NAMES.len()];
    for seed in 0..50 {
        let steps = world(seed);
        let together = run(&all, &steps, |_| true).await;
        for (index, name) in NAMES.into_iter().enumerate() {
            let alone = run(&all.rules_of(name).clone().into(), &steps, |project| project == name).await;
            let of_project = together.iter().filter(|(visitor, _)| visitor.project == name);
            let differing = of_project.clone().zip(&alone).find(|(together, alone)| together != alone);
            assert_eq!(differing, None, "seed {seed}, project `{name}`");
            assert_eq!(of_project.count(), alone.len(), "seed {seed}, project `{name}`");
            ends[index] += alone.iter().filter(|(_, line)| line["event"] == "$session_end").count();
        }
    }
    assert!(ends.iter().all(|&count| count > 100), "{ends:?}");
}

/// The same events in two projects: their timeouts decide, at every step by which a session comes and goes.
#[tokio::test]
async fn the_same_visits_in_two_projects() {
    let (storage, clock, output) = (InMemorySessionStorage::new(), ManualClock::default(), MemoryOutput::default());
    let projects = Projects::from_json(
        &GivenRules::default(),
        r#"{"long": {"rules": {"timeout_seconds": 600}}, "short": {"rules": {"timeout_seconds": 60}}}"#,
    );
    let projects = projects.unwrap();
    let start = || Ingest {
        manager: SessionManager::with_clock(projects.clone(), &storage, &clock),
        output: &output,
        rejects: &output,
        origins: AllowedOrigins::default(),
        public: PublicAccess::default(),
    };
    let mut service = start();
    let event = |project: &str, uuid: &str, at: Millis| {
        let timestamp = rfc3339(datetime(at));
        json!({"uuid": uuid, "event": "$pageview", "distinct_id": "ada", "project": project, "timestamp": timestamp})
    };
    let visitor = |project: &str| Visitor { project: project.to_owned(), distinct_id: "ada".to_owned() };
    let begins = |answer: &str| {
        let answer: Value = serde_json::from_str(answer).unwrap();
        let events = answer["events"].as_array().unwrap();
        events.iter().map(|event| event["properties"]["$session_start"].as_bool().unwrap()).collect::<Vec<_>>()
    };
    // Each step: the time, the event's time, and whether the event begins a session in the long and in the short project.
    for (step, (at, event_at, wanted)) in [
        (0, 0, [true, true]),
        (5, 5, [false, true]),
        // Late: the short project has a session of its own for it.
        (14, 3, [false, true]),
        (14, 14, [false, true]),
    ]
    .into_iter()
    .enumerate()
    {
        clock.set(NOON + at * MINUTE);
        let events = ["long", "short"].map(|project| event(project, &format!("e{step}"), NOON + event_at * MINUTE));
        assert_eq!(begins(&service.handle(&json!(events).to_string(), Millis::MAX).await.unwrap()), wanted, "{step}");
        service = start();
    }
    // Two minutes of silence: a live session in the one, none in the other, to read and to end.
    clock.set(NOON + 16 * MINUTE);
    for (project, is_active) in [("long", true), ("short", false)] {
        let session = service.manager.get_by_user(visitor(project)).await.unwrap();
        assert_eq!(session.is_active, is_active, "{project}");
        assert_eq!(service.manager.get(&session.id).await.unwrap().is_active, is_active, "{project}");
        let same = service.manager.get_or_create(visitor(project), SessionContext::default()).await.unwrap();
        assert_eq!(same.id == session.id, is_active, "{project}");
    }
    // The same of a visitor of one event, whose only session has the same id by the rules of both.
    for (project, is_live) in [("long", true), ("short", false)] {
        let mut one = event(project, "one", NOON + 15 * MINUTE);
        one["distinct_id"] = "ben".into();
        let answer = service.handle(&one.to_string(), Millis::MAX).await.unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        clock.set(NOON + 17 * MINUTE);
        let ben = Visitor { project: project.to_owned(), distinct_id: "ben".to_owned() };
        let session = service.manager.get_or_create(ben, SessionContext::default()).await.unwrap();
        assert_eq!(answer["events"][0]["properties"]["$session_id"] == session.id, is_live, "{project}");
    }
    // The short project's sessions are due long before the other's.
    let close = async |at: Millis| {
        clock.set(NOON + at * MINUTE);
        let report = service.manager.cleanup(&&output, Millis::MAX).await;
        assert_eq!(report.failed, 0, "{report:?}");
        let lines: Vec<Value> = output.take().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let ends = lines.iter().filter(|line| line["event"] == "$session_end");
        ends.map(|line| line["project"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(close(25).await, ["short"; 7]);
    assert_eq!(close(40).await, ["long"; 2]);
}

/// A request in our own format: what it has beside its body, the body, and the status and projects of its answer.
type Request = (Value, &'static str, u64, &'static [&'static str]);

/// Over HTTP the key names the project, whatever the events say. A queue and a direct invocation need no key.
#[tokio::test]
async fn a_write_key_names_the_project_of_a_requests_events() {
    let (storage, clock, output) = (InMemorySessionStorage::new(), ManualClock::default(), MemoryOutput::default());
    let rejects = MemoryOutput::default();
    clock.set(NOON);
    let projects =
        r#"{"shop": {"keys": ["k1", "k2"], "rules": {"passive_events": ["x"]}}, "blog": {"keys": ["k3"]}, "bare": {}}"#;
    let projects = Projects::from_json(&GivenRules::default(), projects).unwrap();
    let manager = SessionManager::with_clock(projects, &storage, &clock);
    let service = Ingest {
        manager,
        output: &output,
        rejects: &rejects,
        origins: AllowedOrigins::default(),
        public: PublicAccess::default(),
    };
    let call = async |payload: Value| {
        let answer = service.handle(&payload.to_string(), Millis::MAX).await.unwrap();
        serde_json::from_str::<Value>(&answer).unwrap()
    };
    let post = async |head: &Value, body: &str| {
        call(json!({
            "version": "2.0", "rawPath": "/events", "rawQueryString": head["query"], "headers": head["headers"],
            "requestContext": {"http": {"method": "POST"}}, "body": body,
        }))
        .await
    };
    let one = r#"{"event":"x","distinct_id":"u"}"#;
    let own = r#"[{"event":"x","distinct_id":"u","project":"blog"},{"event":"x","distinct_id":"u","project":7}]"#;
    let requests: [Request; 14] = [
        (json!({"headers": {"x-write-key": "k1"}}), one, 200, &["shop"]),
        (json!({"headers": {"x-write-key": "k2"}}), own, 200, &["shop", "shop"]),
        (json!({"headers": {"authorization": "Bearer k3"}}), one, 200, &["blog"]),
        (json!({"query": "write_key=k1"}), own, 200, &["shop", "shop"]),
        (json!({}), r#"{"api_key":"k3","batch":[{"event":"x","distinct_id":"u","project":"shop"}]}"#, 200, &["blog"]),
        // Characters that are repaired.
        (
            json!({"query": "write_key=k3"}),
            r#"{"event":"x","distinct_id":"u","project":"shop","a":"\u0000"}"#,
            200,
            &["blog"],
        ),
        (json!({}), one, 401, &[]),
        (json!({}), own, 401, &[]),
        (json!({"headers": {"x-write-key": "shop"}}), one, 401, &[]),
        // A key that is wrong is not made up for by another one.
        (json!({"headers": {"x-write-key": "wrong"}, "query": "write_key=k1"}), one, 401, &[]),
        (json!({}), "", 401, &[]),
        (json!({"headers": {"content-type": "image/png"}}), r#"{"api_key":"k1"}"#, 401, &[]),
        (json!({"headers": {"content-type": "image/png", "x-write-key": "k1"}}), "", 415, &[]),
        (json!({"query": "write_key=k1"}), "", 400, &[]),
    ];
    for (head, body, status, wanted) in requests {
        let answer = post(&head, body).await;
        assert_eq!(answer["statusCode"], status, "{head} {body}: {answer}");
        let result: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        let events = result["events"].as_array().unwrap();
        assert!(events.iter().map(|event| event["project"].as_str().unwrap()).eq(wanted.iter().copied()), "{result}");
        // A passive event of the shop is in no session.
        let is_in_session = |event: &Value| event["properties"]["$session_id"].is_string();
        assert!(events.iter().all(|event| is_in_session(event) != (event["project"] == "shop")), "{result}");
        assert_eq!(answer["headers"]["www-authenticate"] == "Bearer", status == 401, "{answer}");
        assert_eq!(result["error"]["code"] == "unknown_write_key", status == 401, "{answer}");
    }
    // Other clients' paths, in their own form.
    for (path, body, key, status) in [
        ("/batch/", r#"{"api_key":"k1","batch":[{"event":"y","distinct_id":"u","uuid":"p"}]}"#, "", 200),
        ("/batch/", r#"{"api_key":"k","batch":[{"event":"y","distinct_id":"u","uuid":"q"}]}"#, "", 401),
        ("/batch/", r#"{"batch":[{"event":"y","distinct_id":"u","uuid":"r"}]}"#, "k1", 200),
        ("/v1/track", "nonsense", "", 401),
        ("/v1/track", "nonsense", "k1", 200),
        ("/flags/", "{}", "", 200),
    ] {
        let answer = call(json!({
            "version": "2.0", "rawPath": path, "headers": {"x-write-key": key},
            "requestContext": {"http": {"method": "POST"}}, "body": body,
        }));
        let answer = answer.await;
        assert_eq!(answer["statusCode"], status, "{path} {body}: {answer}");
    }
    let lines = output.take();
    assert!(lines.len() == 2 && lines.iter().all(|line| line.contains(r#""project":"shop""#)), "{lines:?}");
    assert_eq!(rejects.take().len(), 1, "a body that cannot be read needs a key, too");
    // The pipeline's own ways in.
    let body = r#"[{"event":"y","distinct_id":"u","project":"blog"},{"event":"y","distinct_id":"u","api_key":"k1"}]"#;
    let answer = service.handle(body, Millis::MAX).await.unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((&answer["events"][0]["project"], &answer["events"][1]["project"]), (&json!("blog"), &Value::Null));
    call(json!({"Records": [{"messageId": "m", "eventSource": "aws:sqs", "body": body, "attributes": {}}]})).await;
    let lines: Vec<Value> = output.take().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["project"], &lines[1]["project"]), (&json!("blog"), &Value::Null));
    // Sessions are read without a key: AWS credentials protect them.
    let id = answer["events"][0]["properties"]["$session_id"].as_str().unwrap();
    let path = format!("/sessions/{id}");
    let http = json!({"rawPath": path, "requestContext": {"http": {"method": "GET"}}});
    assert_eq!(call(http).await["statusCode"], 200);
}
