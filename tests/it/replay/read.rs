//! Reading: which recorded events are a session's, also after sessions were merged and split, and what erasure leaves.

use serde_json::{Value, json};
use session_tracking::config::SessionConfig;
use session_tracking::replay::{Inputs, ReplayStore};

use super::{MINUTE, T0, World, change, full, meta, request};

/// A session's recording is what a passive event of its time would belong to: up to the timeout after its last activity.
#[tokio::test]
async fn events_belong_to_the_session_of_their_time() {
    let world = World::new();
    let first = world.view("ada", T0, "/").await;
    let recorded = [0, 10, 30, 31, 119, 125].map(|minute| change(T0 + minute * MINUTE, "x"));
    for event in &recorded {
        world.record("ada", std::slice::from_ref(event)).await;
    }
    world.clock.set(T0 + 120 * MINUTE);
    let second = world.view("ada", T0 + 120 * MINUTE, "/").await;
    assert_ne!(first, second);
    assert_eq!(world.replay(&first).await, recorded[..3]);
    // 31 minutes after the first session it is in none, and too early for the next one. A minute before that, it leads to it.
    assert_eq!(world.replay(&second).await, recorded[4..]);
}

/// A recorder begins before the first event is sent: its first events belong to no session, and lead to the next.
#[tokio::test]
async fn what_was_recorded_just_before_the_first_event_is_kept() {
    let world = World::new();
    let early = [meta(T0 - 9 * MINUTE), full(T0 - 9 * MINUTE, ""), change(T0 - 50, "x")];
    assert_eq!(world.record("ada", &early).await, None);
    world.record("ada", &[change(T0 - 11 * MINUTE, "too early")]).await;
    let session = world.view("ada", T0, "/").await;
    assert_eq!(world.replay(&session).await, early);
    assert_eq!(world.replay_in(&session, 1).await, early, "page by page");
}

/// A campaign begins a session in the middle of a page. Its replay begins with the page, so that it can be played.
#[tokio::test]
async fn a_replay_begins_with_a_whole_page() {
    let world = World::new();
    let first = world.view("ada", T0, "/?utm_source=news").await;
    let page = [full(T0 + 1, "old"), meta(T0 + 2), full(T0 + 2, ""), change(T0 + 3, "a")];
    world.record("ada", &page).await;
    let second = world.view("ada", T0 + 1_000, "/?utm_source=ads").await;
    world.record("ada", &[change(T0 + 2_000, "b")]).await;
    assert_ne!(first, second);
    let [_, meta_event, page_event, change_a] = page.clone();
    assert_eq!(world.replay(&first).await[1..], page[1..]);
    let wanted = [meta_event, page_event, change_a, change(T0 + 2_000, "b")];
    assert_eq!(world.replay(&second).await, wanted);
    assert_eq!(world.replay_in(&second, 1).await, wanted, "page by page");
    // With a page of its own, it needs no other.
    let third = world.view("ada", T0 + 3_000, "/?utm_source=mail").await;
    world.record("ada", &[full(T0 + 4_000, ""), change(T0 + 5_000, "c")]).await;
    assert_eq!(world.replay(&third).await, [full(T0 + 4_000, ""), change(T0 + 5_000, "c")]);
}

/// An event that fills a gap proves that two sessions are one. The replay of both ids is that of both sessions.
#[tokio::test]
async fn the_replay_of_merged_sessions_is_whole() {
    let world = World::new();
    let first = world.view("ada", T0, "/").await;
    world.record("ada", &[full(T0, ""), change(T0 + MINUTE, "a")]).await;
    world.clock.set(T0 + 40 * MINUTE);
    let second = world.view("ada", T0 + 40 * MINUTE, "/").await;
    world.record("ada", &[full(T0 + 40 * MINUTE, ""), change(T0 + 35 * MINUTE, "between")]).await;
    assert_ne!(first, second);
    assert_eq!(world.replay(&first).await.len(), 2);
    // Of 20 minutes later than the first, backdated within the allowed lateness of its receipt only if it is received soon.
    world.clock.set(T0 + 41 * MINUTE);
    let merged = world.view("ada", T0 + 20 * MINUTE, "/").await;
    let session = |id: &str| request("GET", &format!("/v1/sessions/{id}"), "", "", true);
    let (_, of_second) = super::answered(&world.handle(&session(&second)).await);
    assert_eq!(of_second["id"], json!(merged), "both are one session now");
    let wanted =
        [full(T0, ""), change(T0 + MINUTE, "a"), change(T0 + 35 * MINUTE, "between"), full(T0 + 40 * MINUTE, "")];
    for id in [&first, &second, &merged] {
        let (_, page) = world.page(id, "").await;
        assert_eq!(page["session_id"], of_second["id"]);
        assert_eq!(world.replay(id).await, wanted);
    }
}

/// An out-of-order event with another campaign splits a session. Each part has the recorded events of its time.
#[tokio::test]
async fn the_replay_of_a_split_session_is_split() {
    let world = World::new();
    let first = world.view("ada", T0, "/?utm_source=news").await;
    world.clock.set(T0 + 4 * MINUTE);
    world.view("ada", T0 + 4 * MINUTE, "/shoes").await;
    let recorded = [full(T0, ""), full(T0 + MINUTE, ""), full(T0 + 3 * MINUTE, ""), full(T0 + 5 * MINUTE, "")];
    world.record("ada", &recorded).await;
    assert_eq!(world.replay(&first).await, recorded);
    let second = world.view("ada", T0 + 2 * MINUTE, "/?utm_source=ads").await;
    assert_ne!(first, second);
    assert_eq!(world.replay(&first).await, recorded[..2]);
    assert_eq!(world.replay(&second).await, recorded[2..]);
}

/// A closed session that is no longer kept takes no recorded events from the session after it, as if it had been archived.
#[tokio::test]
async fn a_session_that_is_no_longer_kept_has_no_recorded_events() {
    let world = World::managed(SessionConfig::default(), ReplayStore::in_memory(Inputs::Mask), |manager| {
        manager.with_retention(chrono::TimeDelta::days(1))
    });
    let first = world.view("ada", T0, "/").await;
    let recorded = [full(T0 + 28 * MINUTE, ""), full(T0 + 33 * MINUTE, "")];
    world.record("ada", &recorded).await;
    world.clock.set(T0 + 35 * MINUTE);
    let second = world.view("ada", T0 + 35 * MINUTE, "/").await;
    world.clock.set(T0 + 41 * MINUTE);
    assert_eq!(world.function.manager.cleanup(&world.function.output, i64::MAX).await.closed, 1);
    for minutes in [50, 24 * 60 + 41] {
        world.clock.set(T0 + minutes * MINUTE);
        assert_eq!(world.replay(&first).await, recorded[..1], "{minutes} minutes");
        assert_eq!(world.replay(&second).await, recorded[1..], "{minutes} minutes");
    }
    world.clock.set(T0 + (24 * 60 + 42) * MINUTE);
    assert_eq!(world.page(&first, "").await.0, 404);
    assert_eq!(world.replay(&second).await, recorded);
}

/// Events that come newest first, and a campaign that splits the session, leave an archived session with an id of a later time.
#[tokio::test]
async fn the_replay_of_an_archived_session_is_found_however_late_the_time_of_its_id() {
    let world = World::managed(SessionConfig::default(), ReplayStore::in_memory(Inputs::Mask), |manager| {
        manager.with_closed_bytes(0, 0)
    });
    let start = T0 - 300 * MINUTE;
    let id = world.view("ada", T0, "/").await;
    for minutes in (1..15).map(|number| number * 20) {
        assert_eq!(world.view("ada", T0 - minutes * MINUTE, "/").await, id);
    }
    assert_eq!(world.view("ada", start, "/?utm_source=news").await, id);
    let second = world.view("ada", start + MINUTE, "/?utm_source=ads").await;
    assert_ne!(second, id);
    let recorded = [full(start + 1, ""), full(start + 2 * MINUTE, "")];
    world.record("ada", &recorded).await;
    for is_closed in [false, true] {
        assert_eq!(world.replay(&id).await, recorded[..1], "closed: {is_closed}");
        assert_eq!(world.replay(&second).await, recorded[1..], "closed: {is_closed}");
        world.clock.set(T0 + 180 * MINUTE);
        world.function.manager.cleanup(&world.function.output, i64::MAX).await;
    }
}

/// The same request again, the same events in other requests, and the same event twice in one.
#[tokio::test]
async fn duplicates_are_gone_also_across_chunks() {
    let world = World::new();
    let session = world.view("ada", T0, "/").await;
    let [a, b, c] = [change(T0 + 1, "a"), change(T0 + 1, "b"), change(T0 + 2, "c")];
    for recorded in [[&a, &b, &c].as_slice(), &[&a, &b, &c], &[&b, &c], &[&c, &c], &[&a]] {
        let recorded: Vec<Value> = recorded.iter().map(|event| (*event).clone()).collect();
        world.record("ada", &recorded).await;
    }
    let stored = world.function.manager.replay_store().unwrap();
    assert_eq!(stored.summary(&"ada".into()).await.unwrap().chunks, 4, "the same request is the same chunk");
    for limit in [1, 2, 3, 10] {
        let found = world.replay_in(&session, limit).await;
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!(found[2], c);
    }
}

/// Recordings are read in order of time, however late, in which order and in which batches they came.
#[tokio::test]
async fn events_are_ordered_by_time_across_chunks() {
    let world = World::new();
    let session = world.view("ada", T0, "/").await;
    let events: Vec<Value> = (0..60).map(|n| change(T0 + n * 7_000, &n.to_string())).collect();
    // Five interleaved chunks, the last one first, whose spans overlap.
    for part in (0..5).rev() {
        let recorded: Vec<Value> = events.iter().skip(part).step_by(5).cloned().collect();
        world.record("ada", &recorded).await;
    }
    for limit in [1, 7, 100] {
        assert_eq!(world.replay_in(&session, limit).await, events, "{limit}");
    }
}

/// A session over midnight, with a day's chunks in another part of the store.
#[tokio::test]
async fn a_session_over_midnight_is_read_whole() {
    let world = World::new();
    let midnight = T0 + 12 * 60 * MINUTE;
    world.clock.set(midnight);
    let session = world.view("ada", midnight - MINUTE, "/").await;
    let events = [-30_000, -1, 0, 30_000].map(|offset| change(midnight + offset, "x"));
    for event in &events {
        world.record("ada", std::slice::from_ref(event)).await;
    }
    assert_eq!(world.replay(&session).await, events);
}

/// Erasure removes the visitor's recordings, tells how many chunks, and leaves those of others; the export mentions them.
#[tokio::test]
async fn erasure_removes_the_replay_and_the_export_mentions_it() {
    let world = World::new();
    for visitor in ["ada", "ben"] {
        world.view(visitor, T0, "/").await;
        world.record(visitor, &[full(T0, "")]).await;
        world.record(visitor, &[full(T0 + 1, "")]).await;
        // One that no session has.
        world.record(visitor, &[full(T0 - 90 * MINUTE, "")]).await;
    }
    let ask =
        async |method: &str, path: &str| super::answered(&world.handle(&request(method, path, "", "", true)).await).1;
    let export = ask("GET", "/v1/visitors/ada/export").await;
    assert_eq!(export["replay"]["chunks"], 3, "{export}");
    assert_eq!(export["replay"]["first"], "2026-03-10T10:30:00.000Z");
    assert_eq!(export["replay"]["last"], "2026-03-10T12:00:00.001Z");
    let erased = ask("DELETE", "/v1/visitors/ada").await;
    assert_eq!(erased["erased"]["replay_chunks"], 3, "{erased}");
    assert!(world.function.output.take().iter().any(|line| line.contains(r#""replay_chunks":3"#)));
    assert_eq!(ask("GET", "/v1/visitors/ada/export").await["replay"]["chunks"], 0);
    assert_eq!(ask("GET", "/v1/visitors/ben/export").await["replay"]["chunks"], 3);
    // Erased again, there is nothing left.
    assert_eq!(ask("DELETE", "/v1/visitors/ada").await["erased"].get("replay_chunks"), None);
    let session = world.view("ada", T0, "/").await;
    assert_eq!(world.replay(&session).await, [] as [Value; 0]);
}
