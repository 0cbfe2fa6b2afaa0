//! Metrics of projects.

use super::*;
use crate::config::{GivenRules, Projects};
use crate::metrics::{InvocationInfo, MetricLine, MetricNames};

/// Returns the lines of an invocation with events of two configured projects and of one that only events name.
async fn lines(have_metrics: bool) -> Vec<Value> {
    let projects = Projects::from_json(&GivenRules::default(), r#"{"shop":{},"blog":{}}"#).unwrap();
    let projects = projects.with_metrics(have_metrics);
    let manager = SessionManager::with_clock(projects, FaultyStore::default(), StoppedClock::default());
    let function = Ingest { manager, ..function() };
    let event = |uuid: &str, project: &str, distinct_id: &str| json!({"uuid": uuid, "event": "x", "distinct_id": distinct_id, "project": project, "timestamp": NOW});
    let events = json!({"events": [
        event("1", "shop", "ada"),
        event("2", "shop", "ada"),
        event("2", "shop", "ada"),
        event("3", "shop", "down"),
        event("4", "blog", "ada"),
        event("5", "made up by a sender", "ada"),
    ]});
    let handled = function.handle_measured(PipeRole::Enrichment, "r1", &events.to_string(), Millis::MAX).await.unwrap();
    let mut line = MetricLine::new(&InvocationInfo::default());
    handled.measure(&mut line);
    let json = line.json("handled", &MetricNames::from_variables(|_| None), NOW);
    json.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_configured_project_has_metrics_of_its_own() {
    let [all, blog, shop] = &lines(true).await[..] else { panic!("three lines") };
    let counts = |line: &Value| {
        ["EventsApplied", "EventsFailed", "EventsDuplicate", "SessionsStarted"]
            .map(|name| line[name].as_u64().unwrap_or(0))
    };
    assert_eq!((counts(all), all.get("project")), ([5, 1, 1, 3], None));
    assert_eq!((counts(blog), &blog["project"]), ([1, 0, 0, 1], &"blog".into()));
    assert_eq!((counts(shop), &shop["project"]), ([3, 1, 1, 1], &"shop".into()));
}

#[tokio::test]
async fn without_the_option_there_is_one_line() {
    assert_eq!(lines(false).await.len(), 1);
}
