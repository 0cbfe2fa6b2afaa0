//! Library calls that begin, update, end and find one session at a time; late events; and rules that change while timelines are
//! stored.

use std::sync::Arc;

use serde_json::json;
use session_tracking::config::SessionConfig;
use session_tracking::output::Output;
use session_tracking::session::{EventType, Reason, SessionContext, UtmParams, Visitor, datetime, rfc3339};
use session_tracking::storage::{InMemorySessionStorage, SessionError, SessionStorage};

use crate::cases::{MINUTE, NOON, Service};
use crate::support::ManualClock;

const VIEW: &str = "$pageview";

#[tokio::test]
async fn a_session_is_begun_updated_and_ended_by_calls() {
    let (storage, clock) = (InMemorySessionStorage::new(), ManualClock::default());
    let service = Service::new(&storage, &clock);
    let visitor = Visitor::new("u1");
    let manager = &service.manager;
    let begun = manager.get_or_create(&visitor, SessionContext::default()).await.unwrap();
    assert_eq!((begun.distinct_id.as_str(), begun.is_active, begun.page_views, begun.event_count), ("u1", true, 0, 0));
    clock.set(NOON + MINUTE);
    let same = manager.get_or_create(&visitor, SessionContext::default()).await.unwrap();
    assert_eq!((same.id, same.version), (begun.id.clone(), begun.version), "nothing is written");
    let page = EventType::Pageview("https://shop.test/home".to_owned());
    let updated = manager.update(&begun.id, page).await.unwrap();
    assert_eq!((updated.page_views, updated.landing_page.as_deref()), (1, Some("https://shop.test/home")));
    let updated = manager.update(&begun.id, EventType::Event).await.unwrap();
    assert_eq!(updated.event_count, 2);

    let ended = manager.end_session(&begun.id).await.unwrap();
    assert!(!ended.is_active && ended.version > updated.version);
    assert_eq!(ended.ended_at, Some(ended.last_activity));
    // Ending it again changes nothing; the next event begins a session.
    assert_eq!(manager.end_session(&begun.id).await.unwrap().version, ended.version);
    let next = service.apply(&[("a", VIEW, NOON + 2 * MINUTE)]).await;
    assert_eq!((next[0].reason, next[0].previous.unwrap().to_string()), (Reason::Explicit, begun.id.clone()));
    // An event from before the request still belongs to the session that was ended.
    let late = service.apply(&[("b", VIEW, NOON + MINUTE - 1000)]).await;
    assert_eq!(late[0].session_id.to_string(), begun.id);
    // Ending it again does not change the session after it either.
    assert_eq!(manager.end_session(&begun.id).await.unwrap().id, begun.id);
    assert!(service.latest().await.is_active);
    assert!(matches!(manager.end_session("nothing").await, Err(SessionError::NotFound)));
}

#[tokio::test]
async fn another_campaign_begins_a_session_by_call_too() {
    let (storage, clock) = (InMemorySessionStorage::new(), ManualClock::default());
    let service = Service::new(&storage, &clock);
    let from = |source: &str| SessionContext {
        utm: Some(Arc::new(UtmParams { source: Some(source.to_owned()), ..UtmParams::default() })),
        ..SessionContext::default()
    };
    let visitor = Visitor::new("u1");
    let ads = service.manager.get_or_create(&visitor, from("ads")).await.unwrap();
    let mail = service.manager.get_or_create(&visitor, from("mail")).await.unwrap();
    assert_eq!((mail.reason, mail.number), (Reason::UtmChange, 2));
    assert_eq!(mail.previous_session_id, Some(ads.id));
}

#[tokio::test]
async fn an_ended_session_is_closed_as_soon_as_nothing_in_time_can_reach_it() {
    let (storage, clock) = (InMemorySessionStorage::new(), ManualClock::default());
    let service = Service::new(&storage, &clock);
    let id = service.apply(&[("a", VIEW, NOON)]).await[0].session_id;
    clock.set(NOON + MINUTE);
    service.manager.end_session(&id.to_string()).await.unwrap();
    assert_eq!(service.close(NOON + 7 * MINUTE).await.0.examined, 0);
    let (report, _) = service.close(NOON + 7 * MINUTE + 1).await;
    assert_eq!(report.closed, 1);
    let next = service.apply(&[("b", VIEW, NOON + 8 * MINUTE)]).await;
    assert_eq!(next[0].reason, Reason::Explicit);
    // A session that is finalized in part, because the timeline was due too early.
    service.apply(&[("c", VIEW, NOON + 37 * MINUTE)]).await;
    assert_eq!(service.close(NOON + 44 * MINUTE + 1).await.0.waiting, 1);
    assert_eq!(service.close(NOON + 60 * MINUTE).await.0.rescheduled, 1);
    let open = service.latest().await;
    assert!(service.manager.end_session(&id.to_string()).await.unwrap().id == id.to_string());
    assert!(service.latest().await.is_active, "the request named another session");
    assert!(!service.manager.end_session(&open.id).await.unwrap().is_active);
}

#[tokio::test]
async fn a_phone_sends_its_visit_hours_later_and_once_more_after_its_end() {
    let (storage, clock) = (InMemorySessionStorage::new(), ManualClock::default());
    let service = Service::new(&storage, &clock);
    service.apply(&[("live", VIEW, NOON)]).await;
    let before = service.latest().await;
    let hours = |hours: i64, minutes: i64| NOON - hours * 60 * MINUTE + minutes * MINUTE;
    let late = [("m1", VIEW, hours(4, 0)), ("m2", VIEW, hours(4, 5)), ("m3", VIEW, hours(4, 10))];
    let assigned = service.apply(&late).await;
    // Nothing is finalized, so the visit is placed exactly, before the live session. That session does not change otherwise.
    assert!(assigned.iter().all(|a| !a.is_late && a.session_id == assigned[0].session_id));
    let after = service.latest().await;
    let expected = serde_json::json!({
        "number": 2, "reason": "timeout", "previous_session_id": assigned[0].session_id, "version": after.version,
    });
    let mut before = serde_json::to_value(&before).unwrap();
    before.as_object_mut().unwrap().extend(expected.as_object().unwrap().clone());
    assert_eq!(serde_json::to_value(&after).unwrap(), before);

    // The visit is emitted and archived when the hold has ended. A late event then changes it, with a higher version.
    let end_of = |ends: &[serde_json::Value]| {
        let id = assigned[0].session_id.to_string();
        ends.iter().find(|end| end["properties"]["$session_id"] == id).unwrap().clone()
    };
    let (_, ends) = service.close(NOON + 40 * MINUTE).await;
    let emitted = end_of(&ends);
    assert_eq!(emitted["properties"]["$session"]["event_count"], 3);
    assert_eq!(emitted["properties"]["$session_duration"], 600);
    let more = service.apply(&[("m4", VIEW, hours(4, 20)), ("m2", VIEW, hours(4, 5))]).await;
    assert!(more.iter().all(|a| a.session_id == assigned[0].session_id));
    assert_eq!([more[0].is_late, more[1].is_late], [true, false], "m2 was not late when it was counted");
    // The changed session waits for other late events, as long as the allowed lateness.
    let (report, _) = service.close(NOON + 42 * MINUTE).await;
    assert_eq!(report.closed, 0);
    let (_, ends) = service.close(NOON + 50 * MINUTE).await;
    let corrected = end_of(&ends);
    let version = |end: &serde_json::Value| end["properties"]["$session_version"].as_u64();
    assert_eq!(corrected["properties"]["$session"]["event_count"], 4);
    assert_eq!(corrected["properties"]["$session_duration"], 1200);
    assert!(version(&corrected) > version(&emitted));
    assert_ne!(corrected["uuid"], emitted["uuid"]);
}

#[tokio::test]
async fn merged_and_split_ids_keep_their_meaning_and_are_emitted_once() {
    let (storage, clock) = (InMemorySessionStorage::new(), ManualClock::default());
    let config = SessionConfig::from_rules(json!({ "timeout_seconds": 120 })).unwrap();
    let service = Service::with(&storage, &clock, config);
    let first = service.apply(&[("a", VIEW, NOON)]).await[0].session_id;
    let second = service.apply(&[("c", VIEW, NOON + 3 * MINUTE)]).await[0].session_id;
    assert_ne!(first, second);
    // An event between them merges them. The older id stays, and both ids lead to the session.
    assert_eq!(service.apply(&[("b", VIEW, NOON + 90_000)]).await[0].session_id, first);
    for id in [first, second] {
        assert_eq!(service.manager.get(&id.to_string()).await.unwrap().id, first.to_string());
    }
    clock.set(NOON + 5 * MINUTE);
    let report = service.manager.cleanup(&service.output, i64::MAX).await;
    assert_eq!((report.examined, report.corrections, report.closed, report.rescheduled), (1, 1, 0, 0));
    let emitted: serde_json::Value = serde_json::from_str(&service.output.take()[0]).unwrap();
    assert_eq!(emitted["event"], "$session_merged");
    assert_eq!((&emitted["properties"]["from"], &emitted["properties"]["into"]), (&json!(second), &json!(first)));
    // The time of the first event that moved, so that consumers can tell whether an erasure covers it.
    assert_eq!(emitted["timestamp"], rfc3339(datetime(NOON + 3 * MINUTE)));
    assert_eq!(service.manager.cleanup(&service.output, i64::MAX).await.corrections, 0);
    // After the end both ids still lead to it.
    service.close(NOON + 30 * MINUTE).await;
    for id in [first, second] {
        let session = service.manager.get(&id.to_string()).await.unwrap();
        assert_eq!((session.id, session.event_count), (first.to_string(), 3));
    }
}

/// A deployment with other rules reads timelines of the old rules. Nothing breaks, and corrections are emitted.
#[tokio::test]
async fn timelines_of_old_rules_are_read_under_new_rules() {
    let (storage, clock) = (InMemorySessionStorage::new(), ManualClock::default());
    let old = Service::new(&storage, &clock);
    old.apply(&[("a", VIEW, NOON), ("b", VIEW, NOON + 2 * MINUTE)]).await;
    let before = old.latest().await;
    let shorter = SessionConfig::from_rules(json!({ "timeout_seconds": 60 })).unwrap();
    let new = Service::with(&storage, &clock, shorter.clone());
    let first = new.manager.get(&before.id).await.unwrap();
    assert!(first.event_count == 1 && first.version > before.version, "{first:?}");
    let assigned = new.apply(&[("c", VIEW, NOON + 150_000), ("a", VIEW, NOON)]).await;
    assert_ne!(assigned[0].session_id, assigned[1].session_id);
    assert_eq!(assigned[0].number, 2);
    let timeline = storage.read(&Visitor::new("u1")).await.unwrap().unwrap().timeline;
    assert_eq!(timeline.corrections.len(), 1, "b moved to the second session: {:?}", timeline.corrections);
    // With the old rules again, the two sessions are one, under the older id, and the closer emits that, too.
    let back = Service::new(&storage, &clock);
    assert_eq!(back.latest().await.event_count, 3);
    let (report, ends) = back.close(NOON + 60 * MINUTE).await;
    assert_eq!((report.closed, report.corrections, ends.len()), (1, 2, 1));
    assert_eq!(back.manager.get(&assigned[0].session_id.to_string()).await.unwrap().event_count, 3);
}

/// An output that looks up each correction when it is emitted: the stored timeline has to know the session that events move into.
struct Emitted<'a>(&'a InMemorySessionStorage);

impl Output for Emitted<'_> {
    async fn send(&self, lines: &[String]) -> Vec<usize> {
        let timeline = self.0.read(&Visitor::new("u1")).await.unwrap().unwrap().timeline;
        for line in lines {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let into = line["properties"]["into"].as_str().map(str::to_owned);
            assert!(into.is_none_or(|into| timeline.anchors.iter().any(|anchor| anchor.id.to_string() == into)));
        }
        (0..lines.len()).collect()
    }
}

/// Under new rules, the closer writes the ids that it gives out before it emits anything. A run that dies after that, while other
/// functions still have the old rules, would otherwise leave corrections and archived sessions that nobody takes back.
#[tokio::test]
async fn a_closer_with_new_rules_emits_nothing_that_is_not_stored() {
    let (storage, clock) = (InMemorySessionStorage::new(), ManualClock::default());
    let old = Service::new(&storage, &clock);
    old.apply(&[("a", VIEW, NOON), ("b", VIEW, NOON + 2 * MINUTE)]).await;
    let shorter = SessionConfig::from_rules(json!({ "timeout_seconds": 60 })).unwrap();
    let new = Service::with(&storage, &clock, shorter);
    clock.set(NOON + 60 * MINUTE);
    let report = new.manager.cleanup(&Emitted(&storage), i64::MAX).await;
    assert_eq!((report.examined, report.failed), (1, 1), "{report:?}");
    let (report, ends) = new.close(NOON + 60 * MINUTE).await;
    assert_eq!((report.closed, report.corrections, ends.len()), (2, 1, 2));
}

/// An id that a library call returns under new rules is stored, although the visitor's timeline was written under old ones.
#[tokio::test]
async fn an_id_that_is_given_out_under_new_rules_is_found() {
    let (storage, clock) = (InMemorySessionStorage::new(), ManualClock::default());
    let old = Service::new(&storage, &clock);
    old.apply(&[("a", VIEW, NOON), ("b", VIEW, NOON + 2 * MINUTE)]).await;
    let shorter = SessionConfig::from_rules(json!({ "timeout_seconds": 60 })).unwrap();
    let new = Service::with(&storage, &clock, shorter);
    clock.set(NOON + 2 * MINUTE + 1_000);
    let begun = new.manager.get_or_create("u1", SessionContext::default()).await.unwrap();
    assert_eq!((begun.number, begun.event_count), (2, 1));
    old.apply(&[("c", VIEW, NOON + 2 * MINUTE + 2_000)]).await;
    assert_eq!(new.manager.get(&begun.id).await.unwrap().event_count, 2);
}

/// A session that a request has ended can be over for another reason, too: by other rules, or by an event that arrived after the
/// request. It is closed only when the mark of the request is finalized, because the next session begins for the request.
#[tokio::test]
async fn a_request_counts_for_a_session_that_is_over_already() {
    let (storage, clock) = (InMemorySessionStorage::new(), ManualClock::default());
    let config = SessionConfig::from_rules(json!({ "timeout_seconds": 120, "max_events": 3 })).unwrap();
    let service = Service::with(&storage, &clock, config);
    service.apply(&[("a", VIEW, NOON)]).await;
    let id = service.apply(&[("b", VIEW, NOON + 2 * MINUTE)]).await[0].session_id;
    clock.set(NOON + 3 * MINUTE + 30_000);
    service.manager.end_session(&id.to_string()).await.unwrap();
    service.apply(&[("c", VIEW, NOON + 3 * MINUTE)]).await;
    // The closer runs when `a` alone would be over: after `c`, which fills the session, and before the request.
    service.close(NOON + 9 * MINUTE + 10_000).await;
    let next = service.apply(&[("d", VIEW, NOON + 10 * MINUTE)]).await;
    assert_eq!((next[0].reason, next[0].number), (Reason::Explicit, 2));

    let shorter = SessionConfig::from_rules(json!({ "timeout_seconds": 600 })).unwrap();
    let (storage, clock) = (InMemorySessionStorage::new(), ManualClock::default());
    let old = Service::new(&storage, &clock);
    let id = old.apply(&[("a", VIEW, NOON)]).await[0].session_id;
    clock.set(NOON + 20 * MINUTE);
    old.manager.end_session(&id.to_string()).await.unwrap();
    let mut timeline = storage.read(&Visitor::new("u1")).await.unwrap().unwrap().timeline;
    assert_eq!(timeline.close(NOON + 20 * MINUTE, &shorter).ended.len(), 0);
    let bytes = session_tracking::stored::encode_timeline(&timeline);
    let read = session_tracking::stored::decode_timeline(session_tracking::stored::FORMAT, &bytes, Visitor::new("u1"));
    assert!(read.is_ok(), "{read:?}");
    assert_eq!(timeline.due_at, Some(NOON + 25 * MINUTE + 1));
    assert_eq!(timeline.close(NOON + 25 * MINUTE + 1, &shorter).ended.len(), 1);
}

/// A phone whose clock is hours ahead does not delay the end of a session that ends now.
#[tokio::test]
async fn an_event_ahead_of_time_delays_no_other_end() {
    let (storage, clock) = (InMemorySessionStorage::new(), ManualClock::default());
    let service = Service::new(&storage, &clock);
    service.apply(&[("a", VIEW, NOON)]).await;
    let ahead = format!(
        r#"{{"uuid":"f","event":"x","distinct_id":"u1","timestamp":"{}"}}"#,
        session_tracking::session::rfc3339(session_tracking::session::datetime(NOON + 20 * 60 * MINUTE))
    );
    let delivery = session_tracking::event::Delivery { received_at: NOON, trusts_received_at: false };
    let event = session_tracking::event::Event::parse(ahead.as_bytes(), delivery, service.manager.config()).unwrap();
    service.manager.resolve(&[event], i64::MAX).await;
    // `due_at` follows from the first session that can be closed, not from the event that lies ahead.
    let (_, ends) = service.close(NOON + 37 * MINUTE).await;
    assert_eq!(ends.len(), 1);
    assert_eq!(ends[0]["timestamp"], "2026-03-10T12:00:00.000Z");
    let later = service.apply(&[("b", VIEW, NOON + 60 * MINUTE)]).await;
    assert_eq!(later[0].number, 2);
    let (_, ends) = service.close(NOON + 100 * MINUTE).await;
    assert_eq!(ends.len(), 1, "due again after its own timeout, not a day later");
}

/// A phone whose clock is hours ahead does not hide the session of now from calls, and a request ends that session.
#[tokio::test]
async fn an_event_ahead_of_time_hides_no_live_session() {
    let (storage, clock) = (InMemorySessionStorage::new(), ManualClock::default());
    let service = Service::new(&storage, &clock);
    let manager = &service.manager;
    let live = service.apply(&[("a", VIEW, NOON)]).await[0].session_id.to_string();
    let ahead = r#"{"uuid":"f","event":"x","distinct_id":"u1","timestamp":"2026-03-10T15:00:00Z"}"#;
    let delivery = session_tracking::event::Delivery { received_at: NOON, trusts_received_at: false };
    let event = session_tracking::event::Event::parse(ahead.as_bytes(), delivery, manager.config()).unwrap();
    manager.resolve(&[event], i64::MAX).await;
    clock.set(NOON + MINUTE);
    assert!(manager.get(&live).await.unwrap().is_active);
    assert_eq!(manager.get_or_create("u1", SessionContext::default()).await.unwrap().id, live);
    assert_eq!(manager.update(&live, EventType::Event).await.unwrap().id, live);
    assert!(!manager.end_session(&live).await.unwrap().is_active);
    let next = service.apply(&[("b", VIEW, NOON + 2 * MINUTE)]).await;
    assert_eq!((next[0].number, next[0].reason), (2, Reason::Explicit));
    // With no session at the time of a call, the call begins one before the session that lies ahead.
    clock.set(NOON + 60 * MINUTE);
    let begun = manager.get_or_create("u1", SessionContext::default()).await.unwrap();
    assert_eq!((begun.number, begun.reason, begun.is_active), (3, Reason::Timeout, true));
    // The session that lies ahead can be ended, too.
    let ahead = service.latest().await;
    assert!((ahead.number, ahead.is_active) == (4, true) && !manager.end_session(&ahead.id).await.unwrap().is_active);
}

/// Library calls, one after the other, within one millisecond: the clock stands still.
#[tokio::test]
async fn calls_are_ordered_as_they_were_made() {
    let from = |source: &str| SessionContext {
        utm: Some(Arc::new(UtmParams { source: Some(source.to_owned()), ..UtmParams::default() })),
        ..SessionContext::default()
    };
    for run in 0..1000 {
        let (storage, clock) = (InMemorySessionStorage::new(), ManualClock::default());
        let service = Service::new(&storage, &clock);
        // Every run draws different random numbers.
        for _ in 0..run {
            session_tracking::clock::Clock::random(&service.clock);
        }
        let (manager, visitor) = (&service.manager, Visitor::new("u1"));
        // An event of the same millisecond, with an id that sorts after most others.
        if run % 3 == 0 {
            service.apply(&[(["zzz?utm_source=zero", "ffffffff?utm_source=zero"][run % 2], VIEW, NOON)]).await;
        }
        let earlier = u32::from(run % 3 == 0);
        let first = manager.get_or_create(&visitor, from("one")).await.unwrap();
        let second = manager.get_or_create(&visitor, from("two")).await.unwrap();
        let expected = (earlier + 1, earlier + 2, Reason::UtmChange);
        assert_eq!((first.number, second.number, second.reason), expected, "run {run}");
        // Another process, which does not know these ids.
        let other = Service::new(&storage, &clock);
        let third = other.manager.get_or_create(&visitor, from("three")).await.unwrap();
        assert_eq!((third.number, third.reason), (second.number + 1, Reason::UtmChange), "run {run}");
        manager.end_session(&third.id).await.unwrap();
        let page = EventType::Pageview("https://shop.test/".to_owned());
        let viewed = other.manager.update(&third.id, page.clone()).await.unwrap();
        assert_eq!(
            (viewed.number, viewed.reason, viewed.page_views),
            (third.number + 1, Reason::Explicit, 1),
            "run {run}"
        );
        let viewed = manager.update(&viewed.id, page).await.unwrap();
        assert_eq!((viewed.number, viewed.page_views), (third.number + 1, 2), "run {run}");
    }
}

/// Strings that a program passes to a library call are bounded like those of events.
#[tokio::test]
async fn strings_of_calls_are_bounded_like_those_of_events() {
    let manager = session_tracking::SessionManager::new(SessionConfig::default(), InMemorySessionStorage::new());
    let long = |count: usize| format!("https://shop.test/\0{}", "x".repeat(count));
    let context = SessionContext {
        url: Some(long(1_000_000).into()),
        utm: Some(std::sync::Arc::new(UtmParams { source: Some("a\0b".to_owned()), ..UtmParams::default() })),
        ..SessionContext::default()
    };
    let begun = manager.get_or_create("u1", context).await.unwrap();
    let updated = manager.update(&begun.id, EventType::Pageview(long(1_000_000))).await.unwrap();

    let urls = [updated.entry_url, updated.landing_page, updated.exit_page].map(Option::unwrap);
    assert!(urls.iter().all(|url| url.len() <= 2048 && url.starts_with("https://shop.test/\u{fffd}x")));
    assert_eq!(updated.utm.unwrap().source.as_deref(), Some("a\u{fffd}b"));
}
