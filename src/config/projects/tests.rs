use serde_json::{Value, json};

use super::*;

fn read(service: &Value, projects: &str) -> Result<Projects, String> {
    let service = GivenRules::of_json(service.clone()).unwrap();
    Projects::from_json(&service, projects).map_err(|error| error.to_string())
}

fn rules(rules: Value) -> SessionConfig {
    SessionConfig::from_rules(rules).unwrap()
}

#[test]
fn a_project_has_its_own_rules_over_those_of_the_service() {
    let service = json!({"timeout_seconds": 60, "midnight": "UTC", "new_session_on_click_id_change": false});
    let projects = json!({
        "shop": {"keys": ["k1", "k2"], "rules": {"timeout_seconds": 600, "midnight": null}},
        "blog": {"keys": ["k3"], "profile": null, "rules": null},
        "app": {"rules": {"new_session_on_click_id_change": true}},
        "bare": {},
    });
    let projects = read(&service, &projects.to_string()).unwrap();
    assert_eq!(*projects.default_rules(), rules(service.clone()));
    for (name, wanted) in [
        // `null` is the default, not the service's value.
        ("shop", json!({"timeout_seconds": 600})),
        ("blog", service.clone()),
        ("app", json!({"timeout_seconds": 60, "midnight": "UTC", "new_session_on_click_id_change": true})),
        ("bare", service.clone()),
        ("", service.clone()),
        ("unknown", service.clone()),
    ] {
        assert_eq!(*projects.rules_of(name), rules(wanted), "{name}");
    }
    for (key, wanted) in
        [("k1", Some("shop")), ("k2", Some("shop")), ("k3", Some("blog")), ("K1", None), ("", None), ("shop", None)]
    {
        assert_eq!(projects.by_key(key).map(|project| project.name.as_str()), wanted, "{key}");
    }
    assert!(projects.have_keys());
    assert_eq!(projects.all_rules().count(), 5);
}

#[test]
fn a_profile_lies_between_the_service_and_the_rules() {
    let service = json!({"timeout_seconds": 60, "lateness_seconds": 7, "internal_hosts": ["a.test"]});
    let projects = r#"{"a": {"profile": "datadog"}, "b": {"profile": "datadog", "rules": {"boundary": "inclusive"}}}"#;
    let projects = read(&service, projects).unwrap();
    let [a, b] = ["a", "b"].map(|name| projects.rules_of(name));
    assert_eq!((a.timeout_ms(), a.boundary), (900_000, crate::config::Boundary::Exclusive));
    // What a profile does not set stays the service's.
    assert_eq!((a.lateness_ms(), a.internal_hosts.len()), (7_000, 1));
    assert_eq!(*b, SessionConfig { boundary: crate::config::Boundary::Inclusive, ..a.clone() });
}

#[test]
fn without_projects_all_events_have_the_same_rules() {
    let config = rules(json!({"timeout_seconds": 60}));
    for projects in [Projects::from(config.clone()), read(&json!({"timeout_seconds": 60}), " {} ").unwrap()] {
        assert_eq!((projects.rules_of(""), projects.rules_of("shop")), (&config, &config));
        assert!(!projects.have_keys());
        assert_eq!(projects.by_key(""), None);
    }
}

#[test]
fn errors_name_the_member_and_the_fix() {
    let long = "k".repeat(201);
    for (projects, sentence) in [
        (
            "",
            "the projects cannot be read: EOF while parsing a value at line 1 column 0; write an object such as {\"shop\":",
        ),
        ("[]", "the projects cannot be read: a JSON object is expected; write an object such as {\"shop\":"),
        ("{\"shop\":{}", "the projects cannot be read: EOF while parsing an object"),
        ("{\"shop\":{}} x", "the projects cannot be read: trailing characters"),
        ("{\"shop\":{},\"shop\":{}}", "the projects cannot be read: `shop` is given twice"),
        ("{\"shop\":7}", "project `shop`: cannot be read: a JSON object is expected; write an object with `keys`, "),
        ("{\"shop\":null}", "project `shop`: cannot be read: a JSON object is expected"),
        ("{\"shop\":\"secret\"}", "project `shop`: cannot be read: a JSON object is expected"),
        ("\"secret\"", "the projects cannot be read: a JSON object is expected"),
        ("{\"shop\":{\"keys\":\"secret\"}}", "project `shop`: `keys` is not a list of strings"),
        ("{\"shop\":{\"rules\":\"secret\"}}", "project `shop`: `rules` cannot be read: a JSON object is expected"),
        ("{\"\":{}}", "project ``: cannot be a name; write 1 to 200 bytes"),
        ("{\" \":{}}", "project ` `: cannot be a name"),
        ("{\"a#b\":{}}", "project `a#b`: cannot be a name; write 1 to 200 bytes, not all blank, without `#`"),
        (
            "{\"shop\":{\"key\":[]}}",
            "project `shop`: `key` is unknown; the members of a project are `keys`, `profile` and `rules`",
        ),
        ("{\"shop\":{\"keys\":[],\"keys\":[]}}", "project `shop`: cannot be read: `keys` is given twice"),
        ("{\"shop\":{\"keys\":\"k1\"}}", "project `shop`: `keys` is not a list of strings; write a list such as"),
        ("{\"shop\":{\"keys\":[1]}}", "project `shop`: `keys` is not a list of strings"),
        (
            "{\"shop\":{\"keys\":[\"k1\",\"\"]}}",
            "project `shop`: key 2 of `keys` cannot be used; write 1 to 200 letters",
        ),
        ("{\"shop\":{\"keys\":[\"k 1\"]}}", "project `shop`: key 1 of `keys` cannot be used"),
        ("{\"shop\":{\"keys\":[\"é\"]}}", "project `shop`: key 1 of `keys` cannot be used"),
        (&format!("{{\"shop\":{{\"keys\":[\"{long}\"]}}}}"), "project `shop`: key 1 of `keys` cannot be used"),
        (
            "{\"shop\":{\"keys\":[\"secret\"]},\"blog\":{\"keys\":[\"k2\",\"secret\"]}}",
            "project `blog`: key 2 of `keys` is a key of `shop` already; give each project its own",
        ),
        ("{\"shop\":{\"keys\":[\"k1\",\"k1\"]}}", "project `shop`: key 2 of `keys` is a key of `shop` already"),
        ("{\"shop\":{\"profile\":[]}}", "project `shop`: `profile` is not a string; write a profile's name such as"),
        ("{\"shop\":{\"profile\":\"ga5\"}}", "project `shop`: `ga5` is no profile; the profiles are `ga4`, "),
        (
            "{\"shop\":{\"rules\":[]}}",
            "project `shop`: `rules` cannot be read: a JSON object is expected; write an object such as",
        ),
        (
            "{\"shop\":{\"rules\":{\"timeout\":1}}}",
            "project `shop`: timeout is no rule; the rules are `timeout_seconds`, ",
        ),
        ("{\"shop\":{\"rules\":{\"timeout_seconds\":0}}}", "project `shop`: timeout_seconds is 0; it must be"),
        (
            "{\"shop\":{\"rules\":{\"timeout_seconds\":\"600\"}}}",
            "project `shop`: timeout_seconds: invalid type: string",
        ),
        (
            "{\"shop\":{\"rules\":{\"boundary\":\"inclusive\",\"boundary\":\"exclusive\"}}}",
            "project `shop`: `rules` cannot be read: `boundary` is given twice",
        ),
        (
            "{\"shop\":{\"rules\":{\"passive_events\":[\"a\"],\"keep_alive_events\":[\"a\"]}}}",
            "project `shop`: keep_alive_events and passive_events both have `a`",
        ),
    ] {
        let error = read(&json!({}), projects).unwrap_err();
        assert!(error.contains(sentence), "{projects}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

/// A passive event of the service and a keep-alive event of a project are one event that is both.
#[test]
fn rules_are_checked_together() {
    let service = json!({"passive_events": ["beat"]});
    let error = read(&service, r#"{"shop": {"rules": {"keep_alive_events": ["beat"]}}}"#).unwrap_err();
    assert!(error.starts_with("project `shop`: keep_alive_events and passive_events both have `beat`"), "{error}");
}

#[test]
fn what_is_formatted_has_no_key() {
    let projects = read(&json!({}), r#"{"shop": {"keys": ["canary"]}}"#).unwrap();
    let formatted = format!("{projects:?} {:?}", projects.by_key("canary"));
    assert!(formatted.contains("shop") && !formatted.contains("canary"), "{formatted}");
}
