//! `local serve`: the HTTP API as it is deployed, the closer, and signals.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Folder, Running, refused};

/// A server on ports of its own.
pub(super) struct Server {
    pub running: Running,
    address: String,
    _folder: Folder,
}

/// An HTTP response.
pub(super) struct Answer {
    pub status: u16,
    head: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    pub fn json(&self) -> Value {
        let kinds = [Some("application/json"), Some("application/problem+json")];
        assert!(kinds.contains(&self.header("content-type")), "{}", self.head);
        serde_json::from_str(&self.body).unwrap()
    }
}

impl Server {
    pub fn start(name: &str, more: &[&str]) -> Self {
        let folder = Folder::new(name);
        let running = Running::start(&folder.0, &[&["serve", "--port", "0", "--dynamodb-port", "0"], more].concat());
        let line = running.log("HTTP API");
        let address = line.split("http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
        Self { running, address, _folder: folder }
    }

    /// Sends bytes on a new connection.
    pub fn send(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(super::MAX_WAIT)).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    }

    /// Sends a request and returns the response.
    pub fn request(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        self.request_as(&format!("host: x\r\n{headers}"), method, path, body)
    }

    /// Sends a request with all these headers and returns the response.
    pub fn request_as(&self, headers: &str, method: &str, path: &str, body: &str) -> Answer {
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n");
        let mut response = Vec::new();
        self.send(&[head.as_bytes(), body.as_bytes()].concat()).read_to_end(&mut response).unwrap();
        let response = String::from_utf8_lossy(&response);
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }
}

pub(super) const EVENT: &str = r#"{"uuid":"e1","event":"$pageview","distinct_id":"ada-lovelace"}"#;

#[test]
fn paths_are_those_that_are_deployed_and_errors_are_json() {
    let server = Server::start("paths", &[]);
    let answer = server.request("POST", "/events", "", EVENT);
    let id = answer.json()["events"][0]["properties"]["$session_id"].as_str().unwrap().to_owned();
    let session = server.request("GET", &format!("/sessions/{id}"), "", "").json();
    assert_eq!((&session["id"], &session["is_active"]), (&json!(id), &json!(true)));
    assert_eq!(server.request("POST", &format!("/sessions/{id}/end"), "", "").json()["is_active"], false);
    assert_eq!(server.request("GET", "/health", "", "").json()["status"], "ok");
    let listed = server.request("GET", "/v1/visitors/ada%2Dlovelace/sessions?limit=1", "", "").json();
    assert_eq!((&listed["sessions"][0]["id"], &listed["after"]), (&json!(id), &Value::Null));
    assert_eq!(server.request("DELETE", "/v1/visitors/ada-lovelace", "", "").json()["erased"]["timelines"], 1);
    assert_eq!(server.request("GET", "/v1/visitors/ada-lovelace/session", "", "").status, 404);
    assert_eq!(server.request("GET", "/", "", "").json()["service"], "session-tracking");
    for (method, path, status, code, allow) in [
        ("POST", "/health", 405, "method_not_allowed", Some("GET")),
        ("GET", "/visitors/x", 405, "method_not_allowed", Some("DELETE")),
        ("POST", "/elsewhere", 404, "no_such_path", None),
        ("GET", "/favicon.ico", 404, "no_such_path", None),
        ("GET", "/sessions", 404, "no_such_path", None),
        ("GET", "/sessions/", 404, "no_such_path", None),
        ("GET", "/events", 405, "method_not_allowed", Some("POST")),
        ("DELETE", "/sessions/x", 405, "method_not_allowed", Some("GET")),
        ("GET", "/sessions/x/end", 405, "method_not_allowed", Some("POST")),
        ("GET", "/sessions/x", 404, "not_found", None),
    ] {
        let answer = server.request(method, path, "", if method == "POST" { EVENT } else { "" });
        assert_eq!((answer.status, answer.header("allow")), (status, allow), "{method} {path}: {}", answer.body);
        assert_eq!(answer.json()["error"]["code"], code, "{method} {path}");
    }
    assert_eq!(server.request("HEAD", "/health", "", "").status, 200);
    for path in ["/", "/events/", "/prod//events"] {
        assert_eq!(server.request("POST", path, "", EVENT).status, 200, "{path}");
    }
    assert_eq!(
        server.request("POST", "/v1/track", "", r#"{"type":"track","event":"x","userId":7}"#).json()["success"],
        true
    );
    let pixel = server.request("GET", "/i?e=pv&duid=d&url=https%3A%2F%2Fshop.test%2F", "", "");
    assert_eq!((pixel.status, pixel.header("content-type"), &pixel.body[..6]), (200, Some("image/gif"), "GIF89a"));
}

#[test]
fn a_body_of_any_size_gets_the_services_own_answer() {
    let server = Server::start("large", &[]);
    let (mut bodies, kind) = (Vec::new(), "content-type: text/plain\r\n");
    // Below and above the default limit of axum, and above the limit of API Gateway.
    for megabytes in [1, 3, 12] {
        let answer = server.request("POST", "/events", kind, &"x".repeat(megabytes * 1024 * 1024 + 1));
        assert_eq!(answer.status, 413);
        assert_eq!(answer.json()["error"]["code"], "body_too_large");
        bodies.push(answer.body);
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
}

#[test]
fn cors_is_the_functions() {
    let server = Server::start("cors", &[]);
    let origin = "origin: https://shop.test\r\n";
    let preflight_headers =
        format!("{origin}access-control-request-method: POST\r\naccess-control-request-headers: content-type\r\n");
    for (path, allowed) in [("/events", "*"), ("/v1/p", "*"), ("/track/", "https://shop.test")] {
        let preflight = server.request("OPTIONS", path, &preflight_headers, "");
        assert_eq!((preflight.status, preflight.body.as_str()), (204, ""));
        assert_eq!(preflight.header("access-control-allow-origin"), Some(allowed));
        assert!(preflight.header("access-control-allow-headers").is_some_and(|names| names.contains("content-type")));
    }
    // Pages can read the answer, errors included. A request without an origin gets no CORS header.
    for (path, status) in [("/events", 200), ("/elsewhere", 404)] {
        let answer = server.request("POST", path, origin, EVENT);
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (status, Some("*")));
        assert_eq!(answer.header("access-control-expose-headers"), Some("retry-after"));
        assert_eq!(server.request("POST", path, "", EVENT).header("access-control-allow-origin"), None);
    }
}

#[test]
fn ends_are_printed_and_the_log_is_plain() {
    let rules = r#"{"timeout_seconds":1,"lateness_seconds":0}"#;
    let server = Server::start("ends", &["--close-every", "1", "--grace", "0", "--rules", rules]);
    server.request("GET", "/nowhere", "", "");
    let answered = server.running.log("handled");
    assert!(answered.contains("status=404"), "{answered}");
    server.request("POST", "/events", "", &format!("{EVENT}\nnonsense\n"));
    let handled = server.running.log("handled");
    for field in ["status=200", "applied=1", "rejected=1"] {
        assert!(handled.contains(field), "{handled}");
    }
    let end: Value = serde_json::from_str(&server.running.line()).unwrap();
    assert_eq!((&end["event"], &end["distinct_id"]), (&json!("$session_end"), &json!("ada-lovelace")));
    let id = end["properties"]["$session_id"].as_str().unwrap();
    let closed = loop {
        let closed = server.running.log("closed");
        if closed.contains(" closed=1") {
            break closed;
        }
    };
    assert!(closed.contains("examined=1") && !closed.contains('{'), "{closed}");
    for line in [&handled, &answered, &closed] {
        assert!(!line.contains("ada-lovelace") && !line.contains(id) && !line.contains("CloseReport"), "{line}");
    }
}

#[test]
fn a_port_that_is_taken_is_named_with_its_option() {
    let server = Server::start("taken", &[]);
    let folder = Folder::new("taken-too");
    let port = server.address.split(':').nth(1).unwrap();
    for (option, other) in [("--port", "--dynamodb-port"), ("--dynamodb-port", "--port")] {
        let message = refused(&folder.0, &["serve", option, port, other, "0"], 1);
        assert!(
            message.contains(option) && message.contains(&format!("port {port} of 127.0.0.1 cannot be used")),
            "{message}"
        );
    }
}

#[cfg(unix)]
#[test]
fn a_half_sent_request_does_not_delay_the_shutdown() {
    let half = b"POST /events HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{\"event\"";
    for signal in ["INT", "TERM"] {
        let mut server = Server::start(&format!("half-{signal}"), &[]);
        let streams = [server.send(half), server.send(&half[..30]), server.send(b"")];
        // They have arrived once a later request is answered.
        server.request("GET", "/health", "", "");
        server.running.signal(signal);
        assert_eq!(server.running.ends_within(Duration::from_secs(20)), 0);
        drop(streams);
    }
}

#[cfg(unix)]
#[test]
fn a_second_signal_ends_it_at_once() {
    for (first, second) in [("INT", "INT"), ("TERM", "INT"), ("INT", "TERM")] {
        // On a busy machine the two seconds of the shutdown can be over before the second signal arrives. Then another attempt is
        // made.
        let is_ended = (0..10).any(|attempt| {
            let mut server = Server::start(&format!("twice-{first}-{second}-{attempt}"), &[]);
            let stream = server.send(b"POST /events HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{");
            server.request("GET", "/health", "", "");
            server.running.signal(first);
            server.running.log("stopping");
            server.running.signal(second);
            let status = server.running.ends_within(Duration::from_secs(20));
            drop(stream);
            assert!(status == 130 || status == 0, "{status}");
            status == 130
        });
        assert!(is_ended, "{first}, {second}");
    }
}
