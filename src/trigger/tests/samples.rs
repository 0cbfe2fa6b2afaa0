//! Every payload in `events/` through the real handlers, so that samples cannot rot.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

/// What `events/expected.json` says of a payload; a fact that it does not name is not checked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    function: String,
    /// Payloads that are handled before, on the same store.
    #[serde(default)]
    after: Vec<String>,
    /// Whether the invocation itself fails.
    #[serde(default)]
    fails: bool,
    /// Of an HTTP answer.
    status: Option<u64>,
    error: Option<String>,
    /// The session that is answered with, and whether it is over.
    session: Option<String>,
    ended: Option<bool>,
    /// Messages that have to come again.
    again: Option<Vec<String>>,
    /// Events that came out, from an answer or the output.
    events: Option<usize>,
    /// Codes in `rejected`, or in the rejects.
    rejected: Option<Vec<String>>,
    /// Different `$session_id`s, and events that say `$late`.
    sessions: Option<usize>,
    late: Option<usize>,
    /// Of each event that came out.
    reasons: Option<Vec<Value>>,
    page_views: Option<Vec<Value>>,
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

/// What came out: of the answer, or, where nobody reads that, of the outputs.
struct Came {
    status: Option<u64>,
    body: Value,
    events: Vec<Value>,
    rejected: Vec<Value>,
}

fn came(function: &Function, answer: &str) -> Came {
    let answer: Value = serde_json::from_str(answer).unwrap();
    let status = answer["statusCode"].as_u64();
    let body = answer["body"].as_str().map_or(answer.clone(), |body| serde_json::from_str(body).unwrap());
    let list = |name: &str, output: &Picky| body[name].as_array().cloned().unwrap_or_else(|| sent(output));
    let (events, rejected) = (list("events", &function.output), list("rejected", &function.rejects));
    Came { status, events, rejected, body }
}

fn check(name: &str, expected: &Expected, came: &Came) {
    let property = |name: &str| came.events.iter().map(|event| event["properties"][name].clone()).collect::<Vec<_>>();
    let texts = |values: Vec<&Value>| values.iter().map(|text| text.as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let codes = || texts(came.rejected.iter().map(|rejected| &rejected["code"]).collect());
    let again = || {
        let failures = came.body["batchItemFailures"].as_array().into_iter().flatten();
        texts(failures.map(|failure| &failure["itemIdentifier"]).collect())
    };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    assert_eq!(came.status, expected.status, "{name}: {}", came.body);
    assert_eq!(text(&came.body["error"]["code"]), expected.error, "{name}");
    assert_eq!(text(&came.body["id"]), expected.session, "{name}");
    let is = |what: &str, found: Value, wanted: Option<Value>| {
        if let Some(wanted) = wanted {
            assert_eq!(found, wanted, "{what} of {name}: {}", came.body);
        }
    };
    let sessions: BTreeSet<_> = property("$session_id").iter().map(Value::to_string).collect();
    let late = property("$late").iter().filter(|late| **late == true).count();
    is("ended", came.body["ended_at"].is_string().into(), expected.ended.map(Value::from));
    is("again", again().into(), expected.again.clone().map(Value::from));
    is("events", came.events.len().into(), expected.events.map(Value::from));
    is("rejected", codes().into(), expected.rejected.clone().map(Value::from));
    is("sessions", sessions.len().into(), expected.sessions.map(Value::from));
    is("late", late.into(), expected.late.map(Value::from));
    is("reasons", property("$session_start_reason").into(), expected.reasons.clone().map(Value::from));
    is("page_views", property("$session_page_views").into(), expected.page_views.clone().map(Value::from));
    is("time_flags", property("$time_flag").into(), expected.time_flags.clone().map(Value::from));
}

#[tokio::test]
async fn every_payload_does_what_is_expected() {
    for (name, expected) in expected().iter().filter(|(_, expected)| expected.function == "ingest") {
        let function = function();
        for before in &expected.after {
            function.handle(&read(before), NOW + 60_000).await.unwrap();
        }
        match function.handle(&read(name), NOW + 60_000).await {
            Ok(answer) => {
                assert!(!expected.fails, "{name}");
                check(name, expected, &came(&function, &answer));
            }
            Err(error) => assert!(expected.fails, "{name}: {error}"),
        }
    }
}

#[test]
fn every_payload_is_expected_and_explained() {
    let files = fs::read_dir(path("")).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let files: BTreeSet<_> = files.filter(|name| name.ends_with(".json") && name != "expected.json").collect();
    assert_eq!(files, expected().into_keys().collect());
    let readme = read("README.md");
    let missing: Vec<_> = files.iter().filter(|name| !readme.contains(&format!("`{name}`"))).collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn every_reject_code_has_a_payload() {
    // The names that `RejectCode` gives out, as its source lists them.
    let source = include_str!("../../event.rs");
    let names: BTreeSet<_> = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Self::")?.split_once("=> \""))
        .filter_map(|(_, name)| Some(name.split_once('"')?.0))
        .collect();
    let shown = &expected()["rejected-every-code.json"].rejected;
    assert_eq!(names, shown.iter().flatten().map(String::as_str).collect());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever a payload is cut to or garbled to, the function does not panic, and what it answers is JSON.
    #[test]
    fn garbled_payloads_are_answered(
        file in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), "[\\[\\]{}\",:\\\\0a\u{0}\u{e9}]{0,2}"), 1..4),
    ) {
        let names: Vec<_> = expected().into_keys().collect();
        let mut payload = read(&names[file.index(names.len())]);
        for (place, text) in &changes {
            let at = payload.floor_char_boundary(place.index(payload.len()));
            let end = payload.ceil_char_boundary((at + 1).min(payload.len()));
            payload.replace_range(at..end, text);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        if let Ok(answer) = runtime.block_on(function().handle(&payload, NOW + 60_000)) {
            prop_assert!(serde_json::from_str::<Value>(&answer).is_ok(), "{}", answer);
        }
    }
}
