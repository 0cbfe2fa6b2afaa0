//! Runs every payload of `events/` through the real handlers, so that the samples stay valid.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use proptest::prelude::*;
use serde::Deserialize;

use super::*;

/// The expectations for a payload in `events/expected.json`. A member that is missing there is not checked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    /// The function that takes the payload: `ingest` or `close`.
    function: String,
    /// Payloads that are handled before it, with the same store.
    #[serde(default)]
    after: Vec<String>,
    /// Whether the invocation itself fails.
    #[serde(default)]
    fails: bool,
    /// The status of the HTTP answer.
    status: Option<u64>,
    /// The code of the answer's `error`.
    error: Option<String>,
    /// The id of the session in the answer.
    session: Option<String>,
    /// Whether that session has ended.
    ended: Option<bool>,
    /// The messages that are reported as failed, which the queue redelivers.
    again: Option<Vec<String>>,
    /// The result of each record of a Firehose stream.
    results: Option<Vec<String>>,
    /// How many annotated events the answer or the output has.
    events: Option<usize>,
    /// The codes of the rejected events, in the answer's `rejected` or in the rejects.
    rejected: Option<Vec<String>>,
    /// How many different `$session_id`s the events have.
    sessions: Option<usize>,
    /// How many events have `$late`.
    late: Option<usize>,
    /// `$session_start_reason` of each event.
    reasons: Option<Vec<Value>>,
    /// `$session_page_views` of each event.
    page_views: Option<Vec<Value>>,
    /// `$time_flag` of each event.
    time_flags: Option<Vec<Value>>,
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("events").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap()
}

fn expected() -> BTreeMap<String, Expected> {
    serde_json::from_str(&read("expected.json")).unwrap()
}

/// The events and rejections of the answer, or of the outputs if the answer has none.
struct Results {
    status: Option<u64>,
    body: Value,
    events: Vec<Value>,
    rejected: Vec<Value>,
}

fn results(function: &Function, answer: &str) -> Results {
    let answer: Value = serde_json::from_str(answer).unwrap();
    let status = answer["statusCode"].as_u64();
    let body = answer["body"].as_str().map_or(answer.clone(), |body| serde_json::from_str(body).unwrap());
    // A Pipe gets an answer for each of its records.
    let answers = body.as_array().cloned().unwrap_or_else(|| vec![body.clone()]);
    if body["records"].is_array() {
        return Results { status, events: transformed(&body), rejected: sent(&function.rejects), body };
    }
    let list = |name: &str, output: &RefusingOutput| {
        let listed: Vec<_> = answers.iter().filter_map(|answer| answer[name].as_array()).flatten().cloned().collect();
        if answers.iter().any(|answer| answer[name].is_array()) { listed } else { sent(output) }
    };
    let (events, rejected) = (list("events", &function.output), list("rejected", &function.rejects));
    Results { status, body, events, rejected }
}

/// The events in the answer to a Firehose stream.
fn transformed(body: &Value) -> Vec<Value> {
    let records = body["records"].as_array().unwrap().iter().filter(|record| record["result"] == "Ok");
    let data = records.map(|record| BASE64_STANDARD.decode(record["data"].as_str().unwrap()).unwrap());
    let text = String::from_utf8(data.collect::<Vec<_>>().concat()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn check(name: &str, expected: &Expected, results: &Results) {
    let property =
        |name: &str| results.events.iter().map(|event| event["properties"][name].clone()).collect::<Vec<_>>();
    let strings =
        |values: Vec<&Value>| values.iter().map(|value| value.as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let codes = || strings(results.rejected.iter().map(|rejected| &rejected["code"]).collect());
    let redelivered = || {
        let failures = results.body["batchItemFailures"].as_array().into_iter().flatten();
        strings(failures.map(|failure| &failure["itemIdentifier"]).collect())
    };
    let string = |value: &Value| value.as_str().map(str::to_owned);
    assert_eq!(results.status, expected.status, "{name}: {}", results.body);
    assert_eq!(string(&results.body["error"]["code"]), expected.error, "{name}");
    assert_eq!(string(&results.body["id"]), expected.session, "{name}");
    let is = |what: &str, found: Value, wanted: Option<Value>| {
        if let Some(wanted) = wanted {
            assert_eq!(found, wanted, "{what} of {name}: {}", results.body);
        }
    };
    let sessions: BTreeSet<_> = property("$session_id").iter().map(Value::to_string).collect();
    let late = property("$late").iter().filter(|late| **late == true).count();
    is("ended", results.body["ended_at"].is_string().into(), expected.ended.map(Value::from));
    let results_of = || {
        let records = results.body["records"].as_array().into_iter().flatten();
        strings(records.map(|record| &record["result"]).collect())
    };
    is("results", results_of().into(), expected.results.clone().map(Value::from));
    is("again", redelivered().into(), expected.again.clone().map(Value::from));
    is("events", results.events.len().into(), expected.events.map(Value::from));
    is("rejected", codes().into(), expected.rejected.clone().map(Value::from));
    is("sessions", sessions.len().into(), expected.sessions.map(Value::from));
    is("late", late.into(), expected.late.map(Value::from));
    is("reasons", property("$session_start_reason").into(), expected.reasons.clone().map(Value::from));
    is("page_views", property("$session_page_views").into(), expected.page_views.clone().map(Value::from));
    is("time_flags", property("$time_flag").into(), expected.time_flags.clone().map(Value::from));
}

#[tokio::test]
async fn every_payload_meets_its_expectations() {
    for (name, expected) in expected().iter().filter(|(_, expected)| expected.function == "ingest") {
        let function = function();
        for before in &expected.after {
            function.handle(&read(before), NOW + 60_000).await.unwrap();
        }
        match function.handle(&read(name), NOW + 60_000).await {
            Ok(answer) => {
                assert!(!expected.fails, "{name}");
                check(name, expected, &results(&function, &answer));
            }
            Err(error) => assert!(expected.fails, "{name}: {error}"),
        }
    }
}

#[test]
fn every_payload_has_expectations_and_a_description() {
    let files = fs::read_dir(path("")).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let files: BTreeSet<_> = files
        .filter(|name| name.split_once('.').is_some_and(|(_, end)| end == "json") && name != "expected.json")
        .collect();
    assert_eq!(files, expected().into_keys().collect());
    let readme = read("README.md");
    let missing: Vec<_> = files.iter().filter(|name| !readme.contains(&format!("`{name}`"))).collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn every_reject_code_has_a_payload() {
    // The names that `RejectCode::name` returns, read from its source.
    let source = include_str!("../../event/rejection.rs");
    let names: BTreeSet<_> = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Self::")?.split_once("=> \""))
        .filter_map(|(_, name)| Some(name.split_once('"')?.0))
        .collect();
    let shown = &expected()["rejected-every-code.json"].rejected;
    // Only large requests of other clients have events in excess (`tests/clients.rs`), and recorded events need a feature.
    let elsewhere = ["too_many_visitors", "too_much_state", "invalid_replay"];
    assert_eq!(names, shown.iter().flatten().map(String::as_str).chain(elsewhere).collect());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// The function does not panic on a cut or garbled payload, and its answer is JSON.
    #[test]
    fn garbled_payloads_are_answered(
        file in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), "[\\[\\]{}\",:\\\\0a\u{0}\u{e9}]{0,2}"), 1..4),
    ) {
        let names: Vec<_> = expected().into_keys().collect();
        let mut payload = read(&names[file.index(names.len())]);
        for (index, replacement) in &changes {
            let at = payload.floor_char_boundary(index.index(payload.len()));
            let end = payload.ceil_char_boundary((at + 1).min(payload.len()));
            payload.replace_range(at..end, replacement);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        if let Ok(answer) = runtime.block_on(function().handle(&payload, NOW + 60_000)) {
            prop_assert!(serde_json::from_str::<Value>(&answer).is_ok(), "{}", answer);
        }
    }
}
