//! The named profiles: the visits of `tests/data/profile-visits.jsonl` begin and end where each system's own do, and
//! `docs/profiles.md` has the rules of each.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::json;
use session_tracking::config::{GivenRules, SessionConfig};

use crate::conformance::sessions_of;

const PROFILES: &str = include_str!("../../docs/profiles.md");

/// A visit of one person under a profile.
#[derive(Deserialize)]
struct Visit {
    profile: String,
    title: String,
    /// The time, the name, the query of the URL and, if there is one, the referrer of each event.
    events: Vec<Vec<String>>,
    /// Why each session began.
    reasons: Vec<String>,
}

fn rules(profile: &str) -> SessionConfig {
    GivenRules::of_profile(profile).unwrap().read().unwrap()
}

#[tokio::test]
async fn visits_begin_and_end_as_in_the_system_itself() {
    let mut tried = BTreeSet::new();
    for line in include_str!("../data/profile-visits.jsonl").lines() {
        let visit: Visit = serde_json::from_str(line).unwrap();
        let event = |(index, event): (usize, &Vec<String>)| {
            let url = format!("https://shop.test/{}", event[2]);
            json!({
                "uuid": format!("{index:03}"), "event": event[1], "distinct_id": "u", "timestamp": event[0],
                "properties": {"$current_url": url, "$referrer": event.get(3)},
            })
            .to_string()
        };
        let events: Vec<String> = visit.events.iter().enumerate().map(event).collect();
        let batches: Vec<Vec<&str>> = events.iter().map(|event| vec![event.as_str()]).collect();
        let sessions = sessions_of(&rules(&visit.profile), &batches).await;
        let reasons: Vec<&str> = sessions.iter().map(|session| session.reason.as_str()).collect();
        assert_eq!(reasons, visit.reasons, "{}: {}", visit.profile, visit.title);
        tried.insert(visit.profile);
    }
    assert!(GivenRules::profile_names().all(|profile| tried.contains(profile)), "{tried:?}");
}

/// Each profile has a section with its rules, as JSON, and a row of what it does not reproduce.
#[test]
fn the_document_has_the_rules_of_each_profile() {
    let sections: Vec<&str> = PROFILES.split("\n### `").skip(1).collect();
    assert!(GivenRules::profile_names().eq(sections.iter().map(|section| section.split('`').next().unwrap())));
    for section in sections {
        let name = section.split('`').next().unwrap();
        let json = section.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
        let documented = SessionConfig::from_rules(serde_json::from_str(json).unwrap()).unwrap();
        assert_eq!(documented, rules(name), "{name}");
        assert_eq!(PROFILES.matches(&format!("\n| `{name}` | ")).count(), 1, "{name} has no row");
        assert!(section.contains("https://"), "{name} has no source");
    }
}
