//! `template.yaml` agrees with the code: every variable that the functions read is set, and no policy has a wildcard.

use std::collections::BTreeSet;

use serde_yaml_ng::Value;
use session_tracking::config::SessionConfig;

const TEMPLATE: &str = include_str!("../../template.yaml");

fn template() -> Value {
    serde_yaml_ng::from_str(TEMPLATE).unwrap()
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_mapping().unwrap().keys().map(|key| key.as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_variable_is_set() {
    let template = template();
    let set = keys(&template["Globals"]["Function"]["Environment"]["Variables"]);
    let mut read: BTreeSet<String> = SessionConfig::rule_names().map(str::to_uppercase).collect();
    read.extend(["TABLE", "OUTPUT", "RETENTION_DAYS"].map(str::to_owned));
    assert_eq!(set, read);
    let ingest = &template["Resources"]["IngestFunction"]["Properties"]["Environment"]["Variables"];
    // The `MALLOC_…` variables are read by the C library.
    assert_eq!(
        keys(ingest),
        BTreeSet::from(["MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "REJECTS"].map(str::to_owned))
    );
}

#[test]
fn every_rule_is_a_parameter_with_its_default() {
    let template = template();
    let parameters = &template["Parameters"];
    // The template's defaults must give the code's defaults.
    let value = |rule: &str| {
        let name: String = rule.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect();
        let default = &parameters[name.as_str()]["Default"];
        assert!(!default.is_null(), "{name} is no parameter, or has no default");
        let value = serde_yaml_ng::to_string(default).unwrap().trim().trim_matches(['\'', '"']).to_owned();
        Some(value)
    };
    let rules = SessionConfig::from_variables(|name| value(&name.to_lowercase())).unwrap();
    assert_eq!(rules, SessionConfig::default());
}

#[test]
fn policies_name_their_actions_and_resources() {
    let template = template();
    for (name, resource) in template["Resources"].as_mapping().unwrap() {
        let Some(policies) = resource["Properties"]["Policies"].as_sequence() else { continue };
        for statement in policies.iter().flat_map(|policy| policy["PolicyDocument"]["Statement"].as_sequence().unwrap())
        {
            let yaml = serde_yaml_ng::to_string(statement).unwrap();
            assert!(!yaml.contains('*'), "{name:?}: {yaml}");
            assert!(statement["Action"].as_sequence().is_none_or(|actions| actions.len() <= 3), "{name:?}: {yaml}");
        }
    }
}

#[test]
fn both_functions_are_built_by_cargo_lambda() {
    let template = template();
    for (function, binary) in [("IngestFunction", "ingest"), ("CloseFunction", "close")] {
        let metadata = &template["Resources"][function]["Metadata"];
        assert_eq!(metadata["BuildMethod"], "rust-cargolambda");
        assert_eq!(metadata["BuildProperties"]["Binary"], binary);
    }
}

/// For every value of `CloserCount`, the enabled schedules together cover each shard once.
#[test]
fn the_schedules_share_the_work() {
    let template = template();
    let counts = template["Parameters"]["CloserCount"]["AllowedValues"].as_sequence().unwrap();
    let events = template["Resources"]["CloseFunction"]["Properties"]["Events"].as_mapping().unwrap();
    for count in counts.iter().map(|count| count.as_u64().unwrap()) {
        let mut shards = Vec::new();
        for schedule in events.values().map(|event| &event["Properties"]) {
            let is_on = match schedule["State"].as_sequence().or_else(|| tagged(&schedule["State"])) {
                None => true,
                Some(choice) => {
                    assert_eq!([&choice[1], &choice[2]].map(|state| state.as_str().unwrap()), ["ENABLED", "DISABLED"]);
                    match choice[0].as_str().unwrap() {
                        "TwoClosers" => count >= 2,
                        "FourClosers" => count >= 4,
                        "EightClosers" => count == 8,
                        other => panic!("{other}"),
                    }
                }
            };
            let input = string(&schedule["Input"]).replace("${CloserCount}", &count.to_string());
            let input: serde_json::Value = serde_json::from_str(&input).unwrap();
            if is_on {
                let share = session_tracking::trigger::schedule::share(&input).unwrap();
                shards.extend(share.shards());
            }
        }
        shards.sort_unstable();
        assert_eq!(shards, (0..session_tracking::storage::DUE_SHARDS).collect::<Vec<_>>(), "{count} closers");
    }
}

/// Returns the argument of an intrinsic function that is a list.
fn tagged(value: &Value) -> Option<&Vec<Value>> {
    match value {
        Value::Tagged(tagged) => tagged.value.as_sequence(),
        _ => None,
    }
}

/// Returns a string, or the argument of an intrinsic function that is a string.
fn string(value: &Value) -> String {
    match value {
        Value::Tagged(tagged) => tagged.value.as_str().unwrap().to_owned(),
        other => other.as_str().unwrap().to_owned(),
    }
}
