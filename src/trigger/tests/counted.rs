//! Counts of named events, from the event to the session and to its end.

use super::*;
use crate::emitted::end_line;

#[tokio::test]
async fn named_events_are_counted_and_their_values_summed() {
    let rules = json!({"counted_events": ["order:value", "$exception", "never", "$pageleave", "ping"], "passive_events": ["ping"]});
    let manager = SessionManager::with_clock(
        SessionConfig::from_rules(rules).unwrap(),
        FaultyStore::default(),
        StoppedClock::default(),
    );
    let function = Ingest { manager, ..function() };
    let event = |uuid: &str, name: &str, properties: Value| json!({"uuid": uuid, "event": name, "distinct_id": "ada", "timestamp": NOW, "properties": properties});
    let events = json!([
        event("1", "order", json!({"value": 0.1, "$session_properties": {"plan": "pro"}})),
        event("2", "order", json!({"value": "0.2"})),
        event("3", "order", json!({"value": {"amount": 7}, "other": 5})),
        event("4", "order", json!({"value": 1e1})),
        event("4", "order", json!({"value": 10})),
        event("5", "$exception", json!({"value": 3})),
        event("6", "$pageview", json!({"value": 3})),
        event("7", "$pageleave", json!({})),
        event("8", "ping", json!({})),
    ]);
    handle(&function, &events).await;
    let session = function.manager.get_by_user(&Visitor::new("ada")).await.unwrap();
    let wanted = json!({"order": {"count": 4, "sum": 10.3}, "$exception": {"count": 1}});
    assert_eq!(serde_json::to_value(&session.counts).unwrap(), wanted);
    // They are none of the session's own properties.
    assert_eq!(session.properties.keys().collect::<Vec<_>>(), ["plan"]);
    let end: Value = serde_json::from_str(&end_line(&session, crate::session::Reason::Timeout)).unwrap();
    assert_eq!((&end["properties"]["$session_counts"], &end["properties"]["$session"]["counts"]), (&wanted, &wanted));
    let export = serde_json::to_string(&function.manager.export(&Visitor::new("ada")).await.unwrap()).unwrap();
    assert!(!export.contains("u0000") && export.contains("pro"), "{export}");
}

/// Without the option, nothing is counted, stored or emitted.
#[tokio::test]
async fn nothing_is_counted_without_the_option() {
    let function = function();
    let event = json!({"uuid": "1", "event": "order", "distinct_id": "ada", "properties": {"value": 2}});
    handle(&function, &event).await;
    let session = function.manager.get_by_user(&Visitor::new("ada")).await.unwrap();
    assert!(session.counts.is_empty() && !serde_json::to_string(&session).unwrap().contains("counts"));
    assert!(!end_line(&session, crate::session::Reason::Timeout).contains("counts"));
}
