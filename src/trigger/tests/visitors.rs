//! Requests about a visitor, by HTTP and by direct invocation.

use super::*;
use crate::stored::Room;

/// Sends a request that passed a route with credentials; returns its status and its body.
async fn ask(function: &Function, method: &str, path: &str, query: &str) -> (u64, Value) {
    let request = json!({
        "version": "2.0", "routeKey": format!("{method} /v1/visitors/{{proxy+}}"), "rawPath": path, "rawQueryString": query,
        "requestContext": {"http": {"method": method}, "authorizer": {"iam": {"userArn": "arn:aws:iam::1:user/x"}}},
    });
    let answer = handle(function, &request).await;
    (answer["statusCode"].as_u64().unwrap(), serde_json::from_str(answer["body"].as_str().unwrap()).unwrap())
}

/// Applies a visit of each of these hours, and archives all but the last one, which is live. Returns their ids, newest first.
async fn visits(function: &Function, distinct_id: &str, project: Option<&str>, hours: i64) -> Vec<String> {
    let mut ids = Vec::new();
    for hour in (0..hours).rev() {
        let at = NOW - hour * 3_600_000;
        let event = json!({
            "uuid": format!("e{hour}"), "event": "$pageview", "distinct_id": distinct_id, "project": project, "timestamp": at,
            "properties": {"$current_url": "https://shop.test/?utm_source=news", "$session_properties": {"plan": "pro"}},
        });
        let answer = handle(function, &event).await;
        ids.push(answer["events"][0]["properties"]["$session_id"].as_str().unwrap().to_owned());
    }
    ids.reverse();
    let visitor = Visitor { project: project.unwrap_or_default().to_owned(), ..Visitor::new(distinct_id) };
    let (storage, config) = (function.manager.storage(), SessionConfig::default());
    let Stored { mut timeline, etag } = storage.read(&visitor).await.unwrap().unwrap();
    // The receipt of backdated events is more than a timeout ago then, but the last visit is not over yet.
    for session in timeline.close(NOW + 31 * 60_000, &config).ended {
        storage.archive(&visitor, &session, NOW).await.unwrap();
    }
    let commit = Commit { timeline: &timeline, replaces: Some(etag), etag: 999, expires_at: NOW, room: Room::ToClose };
    assert_eq!(storage.commit(commit).await, Ok(CommitOutcome::Done));
    ids
}

fn ids(sessions: &Value) -> Vec<String> {
    let id = |session: &Value| session["id"].as_str().unwrap().to_owned();
    sessions.as_array().unwrap().iter().map(id).collect()
}

#[tokio::test]
async fn a_visitors_sessions_are_listed_in_pages_newest_first() {
    let function = function();
    let wanted = visits(&function, "ada", None, 7).await;
    visits(&function, "ben", None, 2).await;
    let mut found = Vec::new();
    let (mut after, mut pages) = (String::new(), 0);
    loop {
        let (status, page) =
            ask(&function, "GET", "/v1/visitors/ada/sessions", &format!("limit=3&after={after}")).await;
        assert_eq!(status, 200, "{page}");
        found.extend(ids(&page["sessions"]));
        pages += 1;
        match page["after"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!((found, pages), (wanted.clone(), 3));
    let (_, all) = ask(&function, "GET", "/visitors/ada/sessions", "").await;
    assert_eq!((ids(&all["sessions"]), &all["after"]), (wanted.clone(), &Value::Null));
    let states: Vec<_> = all["sessions"].as_array().unwrap().iter().map(|session| &session["is_active"]).collect();
    assert_eq!((states[0], states[1]), (&json!(true), &json!(false)));
    let (_, current) = ask(&function, "GET", "/v1/visitors/ada/session", "").await;
    assert_eq!((&current["id"], &current["is_active"]), (&json!(wanted[0]), &json!(true)));
    assert_eq!(
        ask(&function, "GET", "/visitors/eve/sessions", "").await,
        (200, json!({"sessions": [], "after": null}))
    );
    let (status, none) = ask(&function, "GET", "/visitors/eve/session", "").await;
    assert_eq!((status, &none["error"]["code"]), (404, &json!("not_found")));
}

/// A page of a visitor with many sessions does not read all of them.
#[tokio::test]
async fn a_page_reads_what_it_needs_of_many_sessions() {
    let function = function();
    // Every hour of 25 days. Each id is that of the session's first event here.
    let wanted = visits(&function, "ada", None, 600).await;
    let (mut found, mut after, mut reads) = (Vec::new(), String::new(), Vec::new());
    loop {
        function.manager.storage().1.store(0, Ordering::Relaxed);
        let (_, page) = ask(&function, "GET", "/visitors/ada/sessions", &format!("limit=40&after={after}")).await;
        reads.push(function.manager.storage().1.load(Ordering::Relaxed));
        found.extend(ids(&page["sessions"]));
        match page["after"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!((found.len(), found == wanted, reads.len()), (600, true, 15));
    // A week, and two days because a session can begin before its id.
    assert!(reads.iter().all(|&read| read <= 9 * 24 + 2), "{reads:?}");
}

#[tokio::test]
async fn an_id_is_decoded_and_belongs_to_a_project() {
    let function = function();
    let id = "a/b c+%41é@x";
    visits(&function, id, Some("shop"), 1).await;
    for path in ["/v1/visitors/a%2Fb%20c+%2541%C3%A9%40x/session", "/visitors/a%2fb%20c%2B%2541%c3%a9@x/session"] {
        let (status, session) = ask(&function, "GET", path, "project=shop").await;
        assert_eq!((status, &session["distinct_id"]), (200, &json!(id)), "{path}");
        assert_eq!(ask(&function, "GET", path, "").await.0, 404);
        assert_eq!(ask(&function, "GET", path, "project=other").await.0, 404);
    }
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused() {
    let long = "x".repeat(201);
    for (path, query, status, code) in [
        ("/visitors/%20/session", "", 400, "invalid_distinct_id"),
        ("/visitors/%FF/export", "", 400, "invalid_distinct_id"),
        (&format!("/visitors/{long}/sessions"), "", 400, "invalid_distinct_id"),
        ("/visitors/a/session", "project=a%23b", 400, "invalid_project"),
        ("/visitors/a/session", &format!("project={long}"), 400, "invalid_project"),
        ("/visitors/a/sessions", "limit=0", 400, "invalid_limit"),
        ("/visitors/a/sessions", "limit=101", 400, "invalid_limit"),
        ("/visitors/a/sessions", "limit=x", 400, "invalid_limit"),
        ("/visitors/a/sessions", "after=x", 400, "invalid_after"),
        ("/visitors/a/sessions", "after=%C3%A9%C3%A9%C3%A9%C3%A9%C3%A9%C3%A9", 400, "invalid_after"),
        ("/visitors/down/export", "", 503, "storage_unavailable"),
        ("/visitors/corrupt/sessions", "", 500, "stored_item_corrupt"),
    ] {
        let (found, answer) = ask(&function(), "GET", path, query).await;
        assert_eq!((found, &answer["error"]["code"]), (status, &json!(code)), "{path}?{query}");
        assert_eq!((&answer["status"], &answer["code"]), (&json!(status), &json!(code)), "{path}?{query}");
        assert!(!answer.to_string().contains("secret"));
    }
}

#[tokio::test]
async fn an_export_has_all_that_is_stored() {
    let function = function();
    let wanted = visits(&function, "ada", None, 3).await;
    let (status, export) = ask(&function, "GET", "/v1/visitors/ada/export", "").await;
    assert_eq!((status, &export["distinct_id"]), (200, &json!("ada")));
    assert_eq!(ids(&export["sessions"]), wanted);
    let recent = export["recent_events"].as_array().unwrap().last().unwrap();
    assert_eq!((&recent["uuid"], &recent["kind"]), (&json!("e0"), &json!("pageview")));
    assert_eq!((&recent["utm"]["source"], &recent["session_properties"]["plan"]), (&json!("news"), &json!("pro")));
    let fingerprints = export["event_fingerprints"].as_array().unwrap();
    assert!(fingerprints.contains(&json!(format!("{:x}", crate::session::fingerprint("e2")))), "{export}");
    let (status, empty) = ask(&function, "GET", "/v1/visitors/eve/export", "").await;
    assert_eq!((status, &empty["sessions"], &empty["version"]), (200, &json!([]), &Value::Null));
}

#[tokio::test]
async fn a_visitor_is_erased_and_consumers_are_told() {
    let function = function();
    visits(&function, "ada", Some("shop"), 3).await;
    visits(&function, "ada", None, 2).await;
    sent(&function.output);
    let (status, answer) = ask(&function, "DELETE", "/v1/visitors/ada", "project=shop").await;
    let counts = json!({"timelines": 1, "archived_sessions": 2, "merged_ids": 0, "pages": 0});
    assert_eq!((status, &answer["erased"], &answer["project"]), (200, &counts, &json!("shop")), "{answer}");
    let lines = sent(&function.output);
    assert_eq!(lines.len(), 1);
    let line = &lines[0];
    assert_eq!((&line["event"], &line["distinct_id"]), (&json!("$visitor_erased"), &json!("ada")));
    assert_eq!((&line["project"], &line["properties"]["erased"]), (&json!("shop"), &counts));
    assert_eq!((&line["timestamp"], &line["properties"]["erased_at"]), (&answer["erased_at"], &answer["erased_at"]));
    // The same id in another project is another visitor.
    let sessions = async |project| {
        let (_, answer) = ask(&function, "GET", "/visitors/ada/sessions", project).await;
        answer["sessions"].as_array().unwrap().len()
    };
    assert_eq!((sessions("project=shop").await, sessions("").await), (0, 2));
    // By direct invocation. A second time finds nothing, and consumers are told again.
    for archived in [1, 0] {
        let answer = handle(&function, &json!({"erase_visitor": "ada"})).await;
        assert_eq!(answer["erased"]["archived_sessions"], archived, "{answer}");
        assert_eq!(sent(&function.output)[0]["event"], "$visitor_erased");
    }
    for (command, code) in [
        (json!({"erase_visitor": 7}), "invalid_distinct_id"),
        (json!({"erase_visitor": " "}), "invalid_distinct_id"),
        (json!({"erase_visitor": "ada", "project": 7}), "invalid_project"),
        (json!({"erase_visitor": "down"}), "storage_unavailable"),
    ] {
        assert_eq!(handle(&function, &command).await["error"]["code"], code, "{command}");
    }
    assert!(sent(&function.output).is_empty());
}

/// If consumers could not be told, the caller has to repeat the request.
#[tokio::test]
async fn an_erasure_that_the_output_does_not_accept_is_a_503() {
    let mut function = function();
    visits(&function, "ada", None, 1).await;
    function.output.refused = Some("$visitor_erased");
    let (status, answer) = ask(&function, "DELETE", "/v1/visitors/ada", "").await;
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("storage_unavailable")));
    function.output.refused = None;
    assert_eq!(ask(&function, "DELETE", "/v1/visitors/ada", "").await.0, 200);
    assert_eq!(sent(&function.output).last().unwrap()["event"], "$visitor_erased");
}

/// What the service emits is not taken for an event of the visitor, who would be stored again.
#[tokio::test]
async fn an_erasure_that_is_fed_back_stores_nothing() {
    let function = function();
    let event = json!({"uuid": "x", "event": "$visitor_erased", "distinct_id": "ada", "properties": {}});
    let answer = handle(&function, &event).await;
    assert_eq!(answer["events"], json!([event]));
    assert_eq!(ask(&function, "GET", "/visitors/ada/export", "").await.1["version"], Value::Null);
}

/// The version is told to callers with credentials only, also through a route for any path.
#[tokio::test]
async fn a_health_check_tells_the_version_to_callers_with_credentials() {
    for (authorizer, version) in
        [(Value::Null, Value::Null), (json!({"iam": {"userArn": "x"}}), json!(env!("CARGO_PKG_VERSION")))]
    {
        let request = json!({
            "version": "2.0", "routeKey": "$default", "rawPath": "/health",
            "requestContext": {"http": {"method": "GET"}, "authorizer": authorizer},
        });
        let answer = handle(&function(), &request).await;
        let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        assert_eq!((&answer["statusCode"], &body["status"], &body["version"]), (&json!(200), &json!("ok"), &version));
    }
}
