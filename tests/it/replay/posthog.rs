//! PostHog's recorder: `$snapshot` at `/s/` and at its other paths, as posthog-js sends it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{T0, World, change, full, gzip, meta, request};

fn snapshot(visitor: &str, recorded: &[Value]) -> Value {
    json!({
        "event": "$snapshot", "uuid": "0196a1b2-0000-7000-8000-000000000001", "timestamp": "2026-03-10T12:00:05.000Z",
        "properties": {
            "$snapshot_data": recorded, "$snapshot_bytes": 1_234, "$session_id": "client-1", "$window_id": "w",
            "token": "phc_test", "distinct_id": visitor, "$lib": "web",
        },
    })
}

/// Sends bytes, which the API hands over as base64.
async fn post_bytes(world: &World, path: &str, body: &[u8]) -> Value {
    let mut request = request("POST", path, "ip=0&_=1773144005000&compression=gzip-js", &STANDARD.encode(body), false);
    request["isBase64Encoded"] = true.into();
    request["headers"] = json!({"content-type": "text/plain"});
    world.handle(&request).await
}

#[tokio::test]
async fn snapshots_are_kept_however_they_are_sent() {
    let recorded = [meta(T0 + 1), full(T0 + 2, "ada@x"), change(T0 + 3, "a")];
    let one = snapshot("ada", &recorded).to_string();
    let array = json!([snapshot("ada", &recorded)]).to_string();
    let batch =
        json!({"api_key": "phc_test", "batch": [snapshot("ada", &recorded)], "sent_at": "2026-03-10T12:00:05Z"})
            .to_string();
    for (path, body) in [
        ("/s/", one.clone().into_bytes()),
        ("/s/", array.clone().into_bytes()),
        ("/s", gzip(array.as_bytes())),
        ("/prod/s/", STANDARD.encode(&array).into_bytes()),
        ("/e/", array.clone().into_bytes()),
        ("/batch/", gzip(batch.as_bytes())),
        ("/i/v0/e/", one.clone().into_bytes()),
    ] {
        let world = World::new();
        let session = world.view("ada", T0, "/").await;
        let answer = post_bytes(&world, path, &body).await;
        assert_eq!((&answer["statusCode"], &answer["body"]), (&json!(200), &json!(r#"{"status":1}"#)), "{path}");
        assert_eq!(world.replay(&session).await, [meta(T0 + 1), full(T0 + 2, "*****"), change(T0 + 3, "a")], "{path}");
        // The event itself is passed on, without the recording.
        let lines = world.function.output.take();
        assert_eq!(lines.len(), 1, "{path}");
        let line: Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(line["properties"]["$snapshot_data"]["count"], 3);
        assert_eq!(line["properties"]["$session_id"], json!(session));
        assert_eq!(line["properties"]["$client_session_id"], "client-1");
    }
}

/// A page of half a megabyte, compressed by the recorder itself, beside ordinary events of the batch.
#[tokio::test]
async fn a_large_page_that_the_recorder_compressed_is_stored_as_rrweb_wrote_it() {
    let world = World::new();
    let text = "x".repeat(500_000);
    let page = json!({"node": {"type": 0, "id": 1, "childNodes": [{"type": 3, "id": 2, "textContent": text}]}});
    let data: String = gzip(page.to_string().as_bytes()).into_iter().map(char::from).collect();
    let compressed = json!({"type": 2, "timestamp": T0 + 1, "cv": "2024-10", "data": data});
    let event = json!({"event": "$pageview", "timestamp": "2026-03-10T12:00:00Z", "properties": {"distinct_id": "ada", "token": "t", "$current_url": "https://shop.test/"}});
    let body = json!([event, snapshot("ada", &[compressed]), {"event": 7}]);
    assert_eq!(post_bytes(&world, "/s/", body.to_string().as_bytes()).await["statusCode"], 200);
    let lines = world.function.output.take();
    let line: Value = serde_json::from_str(&lines[0]).unwrap();
    let session = line["properties"]["$session_id"].as_str().unwrap();
    assert_eq!(world.replay(session).await, [json!({"type": 2, "timestamp": T0 + 1, "data": page})]);
    assert_eq!(world.function.rejects.take().len(), 1, "the third event has no name and no visitor");
}

/// The visitor is the device once the page tells it, as for every event: `docs/replay.md` has the lines for that.
#[tokio::test]
async fn after_a_login_the_recording_stays_with_the_device() {
    let world = World::new();
    let event = json!({"event": "$pageview", "timestamp": "2026-03-10T12:00:00Z", "properties": {
        "distinct_id": "user-1", "$device_id": "device", "$is_identified": true, "token": "t", "$current_url": "https://shop.test/"}});
    let mut recorded = snapshot("user-1", &[full(T0 + 1, "")]);
    recorded["properties"]["$device_id"] = "device".into();
    recorded["properties"]["$is_identified"] = true.into();
    post_bytes(&world, "/s/", json!([event, recorded]).to_string().as_bytes()).await;
    let sessions = request("GET", "/v1/visitors/device/session", "", "", true);
    let (_, session) = super::answered(&world.handle(&sessions).await);
    assert_eq!(world.replay(session["id"].as_str().unwrap()).await.len(), 1);
}

/// posthog-js asks for its configuration before it records.
#[tokio::test]
async fn the_configuration_turns_the_recorder_on() {
    let world = World::new();
    let (status, config) =
        super::answered(&world.handle(&request("GET", "/array/phc_test/config", "", "", false)).await);
    assert_eq!((status, &config["sessionRecording"]["endpoint"]), (200, &json!("/s/")));
    assert_eq!(world.handle(&request("GET", "/s/", "", "", false)).await["statusCode"], 405);
    assert_eq!(world.handle(&request("OPTIONS", "/s/", "", "", false)).await["statusCode"], 204);
}
