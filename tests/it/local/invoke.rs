//! `local invoke`: payloads of every trigger through the functions' real handlers, in virtual time.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::{Folder, Running, json_lines, run, run_with, utf8};

fn samples() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/events"))
}

/// Runs `invoke` on files or on standard input. Returns the lines of its output.
fn invoked(args: &[&str], input: &str) -> Vec<Value> {
    let output = run_with(&samples(), &[&["invoke"], args].concat(), input);
    assert!(output.status.success(), "{output:?}");
    json_lines(utf8(&output.stdout))
}

/// Returns the annotated events: those of the answer, or those of the output if the answer has none.
fn events_of(line: &Value) -> Vec<Value> {
    let answer = &line["answer"];
    let body = answer["body"].as_str().map_or(answer.clone(), |body| serde_json::from_str(body).unwrap());
    // A Pipe gets an answer for each of its records.
    if let Some(answers) = body.as_array() {
        return answers.iter().filter_map(|answer| answer["events"].as_array()).flatten().cloned().collect();
    }
    if let Some(records) = body["records"].as_array() {
        // Firehose gets the events of a record as lines, in base64.
        let data =
            records.iter().filter(|record| record["result"] == "Ok").filter_map(|record| record["data"].as_str());
        let lines = data.map(|data| String::from_utf8(BASE64_STANDARD.decode(data).unwrap()).unwrap());
        return lines.collect::<String>().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    }
    body["events"].as_array().or(line["output"].as_array()).cloned().unwrap_or_default()
}

#[test]
fn every_sample_works() {
    let expected: Value =
        serde_json::from_str(&std::fs::read_to_string(samples().join("expected.json")).unwrap()).unwrap();
    let expected = expected.as_object().unwrap();
    for (name, expected) in expected {
        let after: Vec<&str> = expected["after"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let files: Vec<&str> = after.iter().copied().chain([name.as_str()]).collect();
        let lines = invoked(&files, "");
        assert_eq!(lines.len(), files.len(), "{name}: one payload a file, on one line or on several");
        let line = lines.last().unwrap();
        if expected["fails"] == true {
            assert!(line["error"].is_string(), "{name}: {line}");
            continue;
        }
        assert!(
            // A Pipe gets an array.
            (line["answer"].is_object() || line["answer"].is_array())
                && line["output"].is_array()
                && line["rejects"].is_array(),
            "{name}: {line}"
        );
        assert_eq!(line["answer"].get("statusCode"), expected.get("status"), "{name}: {line}");
        if expected["function"] == "close" {
            assert!(line["answer"]["closed"].is_u64(), "{name}: {line}");
            continue;
        }
        let events = events_of(line);
        if let Some(count) = expected["events"].as_u64() {
            assert_eq!(events.len() as u64, count, "{name}: {line}");
        }
        if let Some(flags) = expected["time_flags"].as_array() {
            let found: Vec<Value> = events.iter().map(|event| event["properties"]["$time_flag"].clone()).collect();
            assert_eq!(&found, flags, "{name}: {line}");
        }
        if let Some(count) = expected["sessions"].as_u64() {
            let ids: BTreeSet<String> =
                events.iter().map(|event| event["properties"]["$session_id"].to_string()).collect();
            assert_eq!(ids.len() as u64, count, "{name}: {line}");
        }
    }
}

fn request(event: &Value) -> Value {
    json!({
        "version": "2.0", "rawPath": "/events", "body": event.to_string(),
        "requestContext": { "http": { "method": "POST" }, "timeEpoch": 1_773_144_000_000_i64 },
    })
}

fn message(event: &Value) -> Value {
    json!({ "Records": [{
        "messageId": "m1", "eventSource": "aws:sqs", "body": event.to_string(), "attributes": { "SentTimestamp": "1773144000000" },
    }] })
}

fn event(uuid: &str, distinct_id: &str) -> Value {
    json!({ "uuid": uuid, "event": "$pageview", "distinct_id": distinct_id, "timestamp": "2026-03-10T12:00:00Z" })
}

#[test]
fn advance_seconds_moves_the_time_and_closes_what_is_due() {
    let payloads = [
        request(&event("a", "u1")),
        message(&event("b", "u2")),
        message(&json!("nonsense")),
        json!({ "advance_seconds": 1_800 }),
        json!({ "advance_seconds": 400.5 }),
        json!({ "advance_seconds": 0 }),
        json!({ "advance_seconds": -1 }),
        json!({ "advance_seconds": "long" }),
    ];
    let input: String = payloads.iter().map(|payload| format!("{payload}\n")).collect();
    let lines = invoked(&["-"], &input);
    assert_eq!(lines.len(), payloads.len());
    assert_eq!(lines[0]["answer"]["statusCode"], 200);
    assert_eq!(lines[0]["output"], json!([]));
    assert_eq!(lines[1]["answer"], json!({ "batchItemFailures": [] }));
    assert_eq!(lines[1]["output"][0]["properties"]["$session_number"], 1);
    assert_eq!(lines[2]["rejects"][0]["code"], "not_an_object");
    assert_eq!((&lines[3]["output"], &lines[3]["answer"]["now"]), (&json!([]), &json!("2026-03-10T12:30:00.000Z")));
    let ends: Vec<_> =
        lines[4]["output"].as_array().unwrap().iter().map(|end| (&end["event"], &end["distinct_id"])).collect();
    assert_eq!(ends, [(&json!("$session_end"), &json!("u1")), (&json!("$session_end"), &json!("u2"))]);
    assert_eq!(lines[4]["answer"]["now"], "2026-03-10T12:36:40.500Z");
    assert_eq!(lines[5]["output"], json!([]), "an end is emitted once");
    for line in &lines[6..] {
        assert!(line["error"].as_str().unwrap().contains("`advance_seconds` takes a number"), "{line}");
    }
    assert_eq!(invoked(&["-"], &input), lines, "the same in every run");
}

#[test]
fn rules_and_the_time_at_the_beginning_can_be_set() {
    let input = format!("{}\n{}\n", json!({ "event": "x", "distinct_id": "u" }), json!({ "advance_seconds": 100 }));
    let rules = r#"{"timeout_seconds":10,"lateness_seconds":0}"#;
    let lines = invoked(&["-", "--rules", rules, "--now", "2026-07-01T00:00:00Z"], &input);
    assert_eq!(lines[1]["output"][0]["timestamp"], "2026-07-01T00:00:00.000Z");
    let lines = invoked(&["-"], &input);
    assert_eq!((&lines[1]["output"], &lines[1]["answer"]["now"]), (&json!([]), &json!("2026-03-10T12:02:40.000Z")));
    // An event with a `timestamp` is received at that time.
    let at = |time: &str| json!({ "event": "x", "distinct_id": "u", "timestamp": time });
    let input = format!("{}\n{}\n{{\"advance_seconds\":0}}\n", at("2026-07-01T00:00:00Z"), at("2026-07-01T00:40:00Z"));
    let lines = invoked(&["-", "--rules", rules], &input);
    assert_eq!(lines[1]["answer"]["events"][0]["properties"]["$session_number"], 2);
    assert_eq!(lines[2]["answer"]["now"], "2026-07-01T00:40:00.000Z");
}

#[test]
fn payloads_over_several_lines_one_a_line_and_broken_ones() {
    let folder = Folder::new("payloads");
    let one = event("a", "u");
    let pretty = serde_json::to_string_pretty(&json!({ "events": [one, event("b", "u")] })).unwrap();
    // An event over several lines is in the answer as it was sent, but the answer is still one line.
    let array = "[\n{\"event\":\"x\",\n\"distinct_id\":\"u\"},\n{\"event\":\"y\",\"distinct_id\":\"u\"}\n]\n";
    for (input, expected) in [
        (pretty.clone(), "2"),
        (format!("{one}\n{one}\n\n{one}"), "1 1 1"),
        (format!("{pretty}\n{pretty}\n"), "2 2"),
        (format!("{one} {one}\n"), "1 1"),
        (array.to_owned(), "2"),
        (format!("{one}\nnonsense\n{one}\n"), "1 line 2 1"),
        // The lines after a truncated one can be taken for its rest.
        (format!("{one}\n{{\"cut\":\n{one}\n{one}\n"), "1 line 2 1"),
        (format!("{one}\n{{\"cut\":\"\n{one}\n"), "1 line 2 1"),
        (format!("{}\n{one}\n", pretty.replacen("\"events\"", "events", 1)), "line 1 1"),
        (format!("{one}\n{{\"cut\":"), "1 line 2"),
        ("7\n\"text\"\n".to_owned(), "0 0"),
        (String::new(), ""),
    ] {
        folder.write("in", &input);
        let output = run(&folder.0, &["invoke", "in"]);
        let lines = json_lines(super::utf8(&output.stdout));
        let found: Vec<String> = lines
            .iter()
            .map(|line| match line["error"].as_str() {
                Some(error) => error.split([':', ',']).nth(1).unwrap().trim().to_owned(),
                None => events_of(line).len().to_string(),
            })
            .collect();
        assert_eq!(found.join(" "), expected, "{input}\n{lines:?}");
    }
    std::fs::write(folder.0.join("in"), [&b"{\"a\":\"\xff\"}\n"[..], one.to_string().as_bytes()].concat()).unwrap();
    let lines = json_lines(super::utf8(&run(&folder.0, &["invoke", "in"]).stdout));
    assert!(lines.len() == 2 && lines[0]["error"].is_string() && lines[1]["answer"].is_object(), "{lines:?}");
}

#[test]
fn an_answer_comes_before_the_next_payload_is_sent() {
    let folder = Folder::new("dialog");
    let mut invoke = Running::start(&folder.0, &["invoke", "-"]);
    for _ in 0..3 {
        invoke.write(&format!("{}\n", serde_json::to_string_pretty(&event("a", "u")).unwrap()));
        let line: Value = serde_json::from_str(&invoke.line()).unwrap();
        assert_eq!(events_of(&line)[0]["properties"]["$session_page_views"], 1);
    }
    invoke.stdin = None;
    assert_eq!(invoke.ends_within(Duration::from_secs(30)), 0);
}
