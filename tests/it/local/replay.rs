//! `local replay`: streams, files, and errors.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Folder, Running, json_lines, refused, run, run_with, utf8};

/// Returns events of three visitors, one a minute.
fn events(count: usize) -> String {
    (0..count).fold(String::new(), |mut all, at| {
        let time = format!("2026-03-10T{:02}:{:02}:00Z", at / 60, at % 60);
        let url = format!("https://shop.test/{at}");
        let event = json!({
            "uuid": format!("e{at}"), "event": "$pageview", "distinct_id": format!("v{}", at % 3), "timestamp": time,
            "properties": { "$current_url": url },
        });
        writeln!(all, "{event}").unwrap();
        all
    })
}

#[test]
fn the_real_traffic_gives_the_known_sessions() {
    let folder = Folder::new("traffic");
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");
    let output = run(&folder.0, &["replay", &format!("{data}/weblog-events.ndjson"), "--sessions", "out"]);
    assert!(output.status.success(), "{output:?}");
    let expected = json_lines(&std::fs::read_to_string(format!("{data}/weblog-sessions.ndjson")).unwrap());
    let found = json_lines(&folder.read("out"));
    assert_eq!(found.len(), expected.len());
    for (mut found, expected) in found.into_iter().zip(expected) {
        found.as_object_mut().unwrap().retain(|name, _| expected.get(name).is_some());
        assert_eq!(found, expected);
    }
    let report = utf8(&output.stdout);
    for line in [
        "  events    9999, ",
        "  visitors  1861\n",
        "  sessions  3231: 1861 first, 1362 timeout, 8 referrer_change\n",
        " a million events, at 3.1 events a session, on demand in\n            us-east-1 on 20",
    ] {
        assert!(report.contains(line), "{report}");
    }
    assert_eq!(utf8(&output.stderr), "", "progress is shown only on terminals");
}

/// The events of three projects are 11 minutes apart. Only a project's own timeout separates them.
#[test]
fn each_project_is_replayed_by_its_own_rules() {
    let folder = Folder::new("rules-per-project");
    let events = (0..9).map(|at| {
        let (project, time) = (["", "long", "short"][at % 3], format!("2026-03-10T12:{:02}:00Z", at / 3 * 11));
        let event = json!({ "uuid": format!("e{at}"), "event": "x", "distinct_id": "u", "timestamp": time, "project": project });
        if project.is_empty() { event.to_string().replace(",\"project\":\"\"", "") } else { event.to_string() }
    });
    folder.write("in", &(events.collect::<Vec<_>>().join("\n") + "\n"));
    folder.write(
        "projects.json",
        "{\"long\": {\"profile\": \"ga4\"}, \"short\": {\"rules\": {\"timeout_seconds\": 60}}}",
    );
    let args = ["replay", "in", "--profile", "datadog", "--projects", "projects.json", "--sessions", "out"];
    let output = run(&folder.0, &args);
    assert!(output.status.success(), "{output:?}");
    let sessions = json_lines(&folder.read("out"));
    let count = |project: &str| {
        sessions.iter().filter(|session| session["project"].as_str().unwrap_or_default() == project).count()
    };
    assert_eq!([count(""), count("long"), count("short")], [1, 1, 3], "{sessions:?}");
}

/// The price is that of the units, by the prices of `docs/cost.md`.
#[test]
fn the_price_is_that_of_the_units() {
    let folder = Folder::new("price");
    folder.write("in", &events(300));
    let output = run(&folder.0, &["replay", "in"]);
    let report = utf8(&output.stdout);
    let row = report.lines().find(|line| line.starts_with("  DynamoDB")).unwrap();
    let number =
        |after: &str| row.split(after).nth(1).unwrap().split_whitespace().next().unwrap().parse::<f64>().unwrap();
    let dollars = (number("DynamoDB  ") * 0.625 + number("index), ") * 0.125) / 300.0;
    assert!(report.contains(&format!("            ${dollars:.2} a million events, at ")), "{dollars}: {report}");
    let empty = run_with(&folder.0, &["replay", "-"], "");
    assert!(!utf8(&empty.stdout).contains('$'), "{empty:?}");
}

#[test]
fn an_event_is_annotated_while_its_stream_continues() {
    let folder = Folder::new("stream");
    let mut replay = Running::start(&folder.0, &["replay", "-", "--annotated", "-", "--sessions", "out"]);
    let lines: Vec<String> = events(4).lines().map(str::to_owned).collect();
    for line in &lines[..3] {
        // A batch of 100 is not full yet.
        replay.write(&format!("{line}\n"));
        let annotated: Value = serde_json::from_str(&replay.line()).unwrap();
        assert!(annotated["properties"]["$session_id"].is_string());
    }
    // An unfinished line is not an event yet, but the last line needs no newline.
    replay.write(&lines[3]);
    replay.stdin = None;
    assert_eq!(serde_json::from_str::<Value>(&replay.line()).unwrap()["uuid"], "e3");
    assert_eq!(replay.ends_within(Duration::from_secs(30)), 0);
    assert_eq!(json_lines(&folder.read("out")).len(), 3);
}

#[test]
fn ctrl_c_ends_a_stream_with_its_sessions() {
    for signal in ["INT", "TERM"] {
        let folder = Folder::new(&format!("stop-{signal}"));
        let mut replay = Running::start(&folder.0, &["replay", "-", "--annotated", "-", "--sessions", "out"]);
        replay.write(&events(2));
        for _ in 0..2 {
            replay.line();
        }
        replay.signal(signal);
        assert_eq!(replay.ends_within(Duration::from_secs(30)), 0);
        assert_eq!(json_lines(&folder.read("out")).len(), 2);
    }
}

#[cfg(unix)]
#[test]
fn a_second_ctrl_c_ends_it_even_if_its_output_is_not_read() {
    let folder = Folder::new("unread");
    folder.write("in", &events(1_400));
    let mut command = super::local(&folder.0, &["replay", "in", "--annotated", "-"]);
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
    // The pipe holds a tenth of the output. The first byte shows that the command handles signals by now.
    let mut first = [0];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut first).unwrap();
    let status = loop {
        std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
    };
    assert_eq!(status.code(), Some(130));
}

#[test]
fn rejected_lines_are_printed_with_number_and_code() {
    let folder = Folder::new("rejected");
    let long = format!("{{\"event\":\"x\",\"distinct_id\":\"a\",\"pad\":\"{}\"}}", "x".repeat(200_000));
    let good = events(2);
    let (one, two) = good.split_once('\n').unwrap();
    folder.write("in", &format!("\u{feff}{one}\r\n\n  \nnonsense\n{{\"event\":\"x\"}}\n{long}\n{two}"));
    let output = run(&folder.0, &["replay", "in", "--annotated", "out"]);
    assert!(output.status.success());
    let message: Vec<&str> = utf8(&output.stderr).lines().collect();
    assert_eq!(message.len(), 3, "{message:?}");
    for (line, expected) in
        message.iter().zip(["line 4: invalid_json: ", "line 5: missing_distinct_id: ", "line 6: too_large: "])
    {
        assert!(line.starts_with(expected), "{line}");
    }
    assert!(message[2].contains(&format!("has {} bytes", long.len())), "{}", message[2]);
    let codes = "  events    5 (3 rejected: 1 invalid_json, 1 missing_distinct_id, 1 too_large), ";
    assert!(utf8(&output.stdout).contains(codes), "{output:?}");
    let lines = json_lines(&folder.read("out"));
    let kinds: Vec<_> = lines.iter().map(|line| line["rejected"]["code"].as_str().unwrap_or("event")).collect();
    assert_eq!(kinds, ["event", "invalid_json", "missing_distinct_id", "too_large", "event"]);
}

#[test]
fn a_rejected_line_does_not_advance_the_time() {
    let folder = Folder::new("no-time");
    // An array of times, which is rejected, then an event without a time.
    let event = |uuid: &str| json!({ "uuid": uuid, "event": "x", "distinct_id": "a" });
    let lines = format!("{}[\"2030-01-01T00:00:00Z\",\"2030-01-01T00:00:00Z\"]\n{}\n", events(1), event("late"));
    let output = run_with(&folder.0, &["replay", "-", "--sessions", "-"], &lines);
    let sessions = json_lines(utf8(&output.stdout));
    assert_eq!(sessions[0]["started_at"], "2026-03-10T00:00:00.000Z", "{sessions:?}");
}

#[test]
fn a_flood_of_rejected_lines_is_counted() {
    let folder = Folder::new("flood");
    let output = run_with(&folder.0, &["replay", "-"], &"nonsense\n".repeat(5_000));
    let message: Vec<&str> = utf8(&output.stderr).lines().collect();
    assert_eq!(message.len(), 101);
    assert!(message[99].starts_with("line 100: ") && message[100].starts_with("more rejected lines"));
    assert!(utf8(&output.stdout).contains("(5000 rejected: 5000 invalid_json)"));
}

#[test]
fn lines_for_programs_and_the_report_do_not_mix() {
    let folder = Folder::new("mix");
    folder.write("in", &events(5));
    for option in ["--annotated", "--sessions"] {
        let output = run(&folder.0, &["replay", "in", option, "-"]);
        assert!(output.status.success());
        assert_eq!(json_lines(utf8(&output.stdout)).len(), if option == "--annotated" { 5 } else { 3 });
        assert!(utf8(&output.stderr).contains("\nTotals:\n"), "{output:?}");
    }
    assert!(!folder.0.join("-").exists());
    // A reader may close the pipe after one line.
    folder.write("in", &events(1_000));
    let shell = format!("{} replay in --annotated - 2>err | head -n 1", super::example("local"));
    let output = std::process::Command::new("sh").args(["-c", &shell]).current_dir(&folder.0).output().unwrap();
    assert!(utf8(&output.stdout).contains("$session_id"), "{output:?}");
    assert_eq!(folder.read("err").lines().count(), 1, "only the line about the input: {}", folder.read("err"));
}

#[cfg(unix)]
#[test]
fn two_outputs_in_one_file_are_refused_and_nothing_is_lost() {
    let folder = Folder::new("same");
    folder.write("in", &events(5));
    folder.write("a", "precious\n");
    std::os::unix::fs::symlink("a", folder.0.join("link")).unwrap();
    std::os::unix::fs::symlink("nothing-yet", folder.0.join("dangling")).unwrap();
    std::fs::hard_link(folder.0.join("a"), folder.0.join("hard")).unwrap();
    std::fs::create_dir(folder.0.join("b")).unwrap();
    let full = folder.0.join("a").display().to_string();
    for (one, other) in [
        ("a", "a"),
        ("./a", "a"),
        ("b/../a", "a"),
        ("link", "a"),
        ("hard", "./link"),
        (&full, "a"),
        ("new", "./new"),
        ("dangling", "nothing-yet"),
    ] {
        let message = refused(&folder.0, &["replay", "in", "--annotated", one, "--sessions", other], 2);
        assert!(message.contains("`--annotated` and `--sessions` are the same file"), "{one}, {other}: {message}");
        assert_eq!(folder.read("a"), "precious\n");
    }
    assert!(!folder.0.join("new").exists() && !folder.0.join("nothing-yet").exists());
    let message = refused(&folder.0, &["replay", "in", "--annotated", "-", "--sessions", "-"], 2);
    assert!(message.contains("are both standard output"), "{message}");
    for (option, path) in [("--annotated", "in"), ("--sessions", "./in")] {
        let message = refused(&folder.0, &["replay", "in", option, path], 2);
        assert!(message.contains(&format!("`{option}` is the input itself")), "{message}");
    }
    let message = refused(&folder.0, &["replay", "in", "--annotated", "new", "--sessions", "no/such"], 1);
    assert!(message.contains("`no/such`") && !folder.0.join("new").exists(), "{message}");
    assert_eq!(folder.read("in"), events(5));
    let shell = format!("{} replay in --sessions out > out", super::example("local"));
    let output = std::process::Command::new("sh").args(["-c", &shell]).current_dir(&folder.0).output().unwrap();
    assert!(utf8(&output.stderr).contains("the file that standard output goes to"), "{output:?}");
    // A device may be used twice, because nothing can be lost in it.
    assert!(run(&folder.0, &["replay", "in", "--annotated", "/dev/null", "--sessions", "/dev/null"]).status.success());
}

#[test]
fn files_that_cannot_be_used_are_named_with_their_option() {
    let folder = Folder::new("unusable");
    folder.write("in", &events(1));
    for (args, expected) in [
        (&["replay", "."][..], "the input `.` cannot be read: it is a folder, not a file"),
        (&["replay", "none"], "the input `none` cannot be read: there is no such file"),
        (&["replay", "in", "--annotated", "."], "--annotated: `.` cannot be used: it is a folder"),
        (&["replay", "in", "--sessions", "no/such/out"], "--sessions: `no/such/out` cannot be used: there is no such"),
        (
            &["replay", "in", "--sessions", "in/out"],
            "--sessions: `in/out` cannot be used: a part of its path is a file",
        ),
        (&["invoke", "in", "none"], "the file `none` cannot be read: there is no such file"),
        (&["invoke", "."], "the file `.` cannot be read: it is a folder"),
    ] {
        let message = refused(&folder.0, args, 1);
        assert!(message.contains(expected), "{args:?}: {message}");
    }
}

#[test]
fn times_and_strings_are_read_as_the_functions_read_them() {
    let folder = Folder::new("spellings");
    // An hour of events with other spellings of times, and with a NUL in a title.
    let events = [
        r#"{"uuid":"a","event":"$pageview","distinct_id":"ada","timestamp":1773144000}"#,
        r#"{"uuid":"b","event":"$pageview","distinct_id":"ada","timestamp":"2026-03-10 12:10:00+00","properties":{"title":"a\u0000b"}}"#,
        r#"{"uuid":"c","event":"$pageview","distinct_id":"ada","timestamp":"1773147600000"}"#,
    ];
    let output = run_with(&folder.0, &["replay", "-", "--annotated", "out"], &events.join("\n"));
    assert!(output.status.success(), "{output:?}");
    let found = json_lines(&folder.read("out"));
    let property = |name: &str| found.iter().map(|event| event["properties"][name].clone()).collect::<Vec<_>>();
    assert_eq!(property("$session_start_reason"), ["first", "first", "timeout"]);
    assert_eq!(property("$session_duration"), [0, 600, 0]);
    assert_eq!(property("$sanitized"), [Value::Null, json!(true), Value::Null]);
    assert_eq!(found[1]["properties"]["title"], "a\u{fffd}b");
}
