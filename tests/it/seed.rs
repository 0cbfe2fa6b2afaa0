//! The three tests of the project's description, unchanged except for their `use` lines. Its readers try them first.

use std::collections::HashMap;
use std::sync::Arc;

use session_tracking::{EventType, InMemorySessionStorage, SessionConfig, SessionContext, SessionManager, UtmParams};

#[tokio::test]
async fn test_session_creation() {
    let storage = Arc::new(InMemorySessionStorage::new());
    let manager = SessionManager::new(SessionConfig::default(), storage);

    let session = manager.get_or_create("user-123", SessionContext::default()).await.unwrap();

    assert_eq!(session.distinct_id, "user-123");
    assert!(session.is_active);
    assert_eq!(session.page_views, 0);
}

#[tokio::test]
async fn test_session_pageview() {
    let storage = Arc::new(InMemorySessionStorage::new());
    let manager = SessionManager::new(SessionConfig::default(), storage);

    let session = manager.get_or_create("user-123", SessionContext::default()).await.unwrap();
    let updated = manager.update(&session.id, EventType::Pageview("/home".to_string())).await.unwrap();

    assert_eq!(updated.page_views, 1);
    assert_eq!(updated.landing_page, Some("/home".to_string()));
}

#[test]
fn test_utm_parsing() {
    let mut params = HashMap::new();
    params.insert("utm_source".to_string(), "google".to_string());
    params.insert("utm_medium".to_string(), "cpc".to_string());

    let utm = UtmParams::from_query_params(&params).unwrap();
    assert_eq!(utm.source, Some("google".to_string()));
    assert_eq!(utm.medium, Some("cpc".to_string()));
}

/// Where the description reads a clock, the time is an argument: a session can be queried for any time.
#[tokio::test]
async fn a_session_is_timed_out_after_the_timeout_and_expired_after_the_maximum() {
    let config = SessionConfig::default();
    let manager = SessionManager::new(config.clone(), InMemorySessionStorage::new());
    let session = manager.get_or_create("user-123", SessionContext::default()).await.unwrap();
    let millisecond = chrono::TimeDelta::milliseconds(1);

    let (idle, old) = (session.last_activity + config.timeout, session.started_at + config.max_duration);
    assert_eq!([idle, idle + millisecond].map(|now| session.is_timed_out(&config, now)), [false, true]);
    assert_eq!([old, old + millisecond].map(|now| session.is_expired(&config, now)), [false, true]);
}
