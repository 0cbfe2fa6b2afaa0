//! The page: that `serve` offers, and that `replay --html` writes. `tests/page/run` looks at it in a browser.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use serde_json::{Value, json};

use super::serve::{EVENT, Server};
use super::{Folder, refused, run, run_with, utf8};

/// Returns the data that stand in a page.
fn data(html: &str) -> Value {
    let json = html.split("id=\"data\">").nth(1).unwrap().split("</script>").next().unwrap();
    serde_json::from_str(json).unwrap()
}

/// Returns the messages of the feed as they come. A clock's message says nothing new.
fn feed(server: &Server, headers: &str) -> impl Iterator<Item = (String, Value)> + use<> {
    let request = format!("GET /_page/feed HTTP/1.1\r\nhost: localhost:9000\r\n{headers}\r\n");
    let mut lines = BufReader::new(server.send(request.as_bytes())).lines().map(Result::unwrap);
    std::iter::from_fn(move || {
        let mut id = String::new();
        loop {
            let line = lines.next()?;
            if let Some(found) = line.strip_prefix("id: ") {
                found.clone_into(&mut id);
            } else if line == "event: reset" {
                return Some(("reset".to_owned(), Value::Null));
            } else if let Some(data) = line.strip_prefix("data: ").filter(|_| !id.is_empty()) {
                return Some((id, serde_json::from_str(data).unwrap()));
            }
        }
    })
}

const HTML: &str = "accept: text/html,application/xhtml+xml\r\n";
const LOCAL: &str = "host: 127.0.0.1:9000\r\n";

#[test]
fn a_browser_gets_the_page_and_others_the_list_of_paths() {
    let server = Server::start("page", &[]);
    let page = server.request("GET", "/", HTML, "");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
    assert!(policy.ends_with("; frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(data(&page.body), json!({ "live": true, "time_travel": false, "replay": false }));
    assert_eq!(server.request("GET", "/", "accept: */*\r\n", "").json()["service"], "session-tracking");
}

#[test]
fn the_feed_has_what_comes_in_and_continues_where_it_was() {
    let server = Server::start("feed", &["--close-every", "1", "--grace", "0"]);
    server.request("POST", "/events", "", &format!("{EVENT}\nnonsense\n"));
    let mut messages = feed(&server, "");
    let (first, message) = messages.next().unwrap();
    let items = message["items"].as_array().unwrap();
    let [event, rejected] = &items[..] else { panic!("{items:?}") };
    assert_eq!(
        (&event["kind"], &event["visitor"], &event["reason"]),
        (&json!("event"), &json!("ada-lovelace"), &json!("first"))
    );
    assert_eq!((&rejected["kind"], &rejected["code"]), (&json!("rejected"), &json!("invalid_json")));
    // An event of another client comes by the output.
    server.request("POST", "/v1/track", "", r#"{"type":"track","event":"bought","userId":"ben"}"#);
    let (second, message) = messages.next().unwrap();
    assert_eq!((&message["items"][0]["name"], &message["left_out"]), (&json!("bought"), &json!(0)));
    server.request("DELETE", "/v1/visitors/ben", "", "");
    assert_eq!(messages.next().unwrap().1["items"][0]["kind"], "erased");
    // Again from the first message on, then from the end.
    let again = feed(&server, &format!("last-event-id: {first}\r\n")).next().unwrap();
    assert_eq!(again.1["items"][0]["name"], "bought", "{second}");
    // A number of another process.
    assert_eq!(feed(&server, "last-event-id: 00-5\r\n").next().unwrap().0, "reset");
}

#[test]
fn the_pages_own_paths_are_for_the_page_of_this_machine_only() {
    let server = Server::start("own", &["--fast-forward"]);
    let cases = [
        ("host: 127.0.0.1:9000\r\n", 200),
        ("host: [::1]:9000\r\nsec-fetch-site: same-origin\r\n", 200),
        ("host: localhost\r\n", 200),
        ("host: evil.test:9000\r\n", 403),
        ("host: localhost.evil.test\r\n", 403),
        ("host: localhost:9000\r\nsec-fetch-site: cross-site\r\n", 403),
        ("host: localhost:9000\r\nsec-fetch-site: same-site\r\n", 403),
    ];
    for (headers, status) in cases {
        let answer = server.request_as(headers, "POST", "/_page/clock", "{\"speed\":1}");
        assert_eq!(answer.status, status, "{headers}: {}", answer.body);
    }
}

#[test]
fn time_runs_faster_only_if_asked_for() {
    let server = Server::start("travel", &["--fast-forward"]);
    let clock = |body: &str| server.request_as(LOCAL, "POST", "/_page/clock", body);
    for body in ["", "{}", "{\"speed\":0}", "{\"speed\":601}", "{\"speed\":-1}", "{\"speed\":1.5}"] {
        assert_eq!(
            (clock(body).status, &clock(body).json()["error"]["code"]),
            (400, &json!("invalid_speed")),
            "{body}"
        );
    }
    let now = clock("{\"speed\":600}").json()["now"].as_i64().unwrap();
    // The session's end needs half an hour, the allowed lateness and two minutes: four seconds at this speed.
    server.request("POST", "/events", "", EVENT);
    let end: Value = serde_json::from_str(&server.running.line()).unwrap();
    assert_eq!(end["event"], "$session_end");
    assert!(clock("{\"speed\":1}").json()["now"].as_i64().unwrap() > now + 1_800_000);
    let plain = Server::start("plain", &[]);
    for path in ["/_page/clock", "/_page/traffic"] {
        assert_eq!(
            plain.request_as(LOCAL, "POST", path, "{\"speed\":9}").json()["error"]["code"],
            "no_such_path",
            "{path}"
        );
    }
}

#[cfg(unix)]
#[test]
fn a_page_that_is_open_does_not_delay_the_shutdown() {
    let mut server = Server::start("open", &[]);
    server.request("POST", "/events", "", EVENT);
    let mut messages = feed(&server, "");
    messages.next().unwrap();
    server.running.signal("TERM");
    assert_eq!(server.running.ends_within(Duration::from_secs(20)), 0);
    assert!(messages.next().is_none());
}

#[test]
fn a_replay_is_written_as_a_page_that_nothing_in_it_can_break() {
    let folder = Folder::new("html");
    let attack = "</script><script>alert(1)</script><!--";
    let event = json!({
        "uuid": "e", "event": attack, "distinct_id": attack, "timestamp": "2026-03-10T12:00:00Z",
        "properties": { "$current_url": format!("https://shop.test/{}{attack}", "x".repeat(400)) },
    });
    folder.write("in<b>.ndjson", &format!("{event}\n7\n"));
    let output = run(&folder.0, &["replay", "in<b>.ndjson", "--html", "out.html"]);
    assert!(output.status.success(), "{output:?}");
    let html = folder.read("out.html");
    assert_eq!(html.matches("<script").count(), 2, "only the page's own elements");
    assert_eq!(html.matches("</script").count(), 2);
    assert!(html.contains("<title>Sessions of in&lt;b&gt;.ndjson</title>"));
    assert!(!html.contains("http-equiv=\"Content-Security-Policy\" content=\"<!--"));
    let items = data(&html)["items"].as_array().unwrap().clone();
    let kinds: Vec<_> = items.iter().map(|item| item["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["rejected", "event", "end"]);
    assert_eq!((&items[1]["visitor"], &items[1]["name"]), (&json!(attack), &json!(attack)));
    assert_eq!(items[1]["url"].as_str().unwrap().chars().count(), 301, "cut, with an ellipsis");
    let page = run_with(&folder.0, &["replay", "-", "--html", "-"], &format!("{event}\n"));
    assert!(utf8(&page.stdout).starts_with("<!doctype html>") && utf8(&page.stderr).contains("Totals:"));
    for other in ["--annotated", "--sessions"] {
        let message = refused(&folder.0, &["replay", "in<b>.ndjson", "--html", "same", other, "same"], 2);
        assert!(message.contains("are the same file"), "{message}");
        refused(&folder.0, &["replay", "in<b>.ndjson", "--html", "-", other, "-"], 2);
    }
}

/// Events that are not as expected: a member twice, other kinds of values, deep nesting, no time.
#[test]
fn events_of_any_form_are_shown() {
    let folder = Folder::new("forms");
    let deep = format!("{}1{}", "[".repeat(20), "]".repeat(20));
    let lines = [
        r#"{"event":"x","distinct_id":"twice","timestamp":1773144000,"properties":{"$current_url":7,"$current_url":8}}"#
            .to_owned(),
        format!(
            r#"{{"event":"x","distinct_id":"deep","properties":{{"$current_url":{{"a":{deep}}},"utm_source":5}}}}"#
        ),
        r#"{"event":"x","distinct_id":"empty","properties":[]}"#.to_owned(),
        r#"{"event":"$session_end","distinct_id":"fake","properties":{"$session":7}}"#.to_owned(),
    ];
    let output = run_with(&folder.0, &["replay", "-", "--html", "out"], &lines.join("\n"));
    assert!(output.status.success(), "{output:?}");
    let items = data(&folder.read("out"))["items"].as_array().unwrap().clone();
    let visitors = |kind: &str| {
        let of_kind = items.iter().filter(|item| item["kind"] == kind).map(|item| item["visitor"].as_str().unwrap());
        of_kind.collect::<Vec<_>>()
    };
    assert_eq!(visitors("event"), ["twice", "deep", "empty", "fake"]);
    assert_eq!(visitors("end").len(), 3, "{items:?}");
}
