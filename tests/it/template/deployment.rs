//! How the template is deployed: its parameters in the console, the check of the settings, an existing table, queues that outlive the
//! stack, the application's metadata, and the environments of `samconfig.toml`.

use std::collections::BTreeSet;

use regex_lite::Regex;
use serde_yaml_ng::Value;

use super::{TEMPLATE, keys, string, tagged, template};

/// Returns the names of the parameters that a value refers to, by `!Ref` or in a string of `!Sub`.
fn referred(value: &Value, template: &Value) -> BTreeSet<String> {
    let yaml = serde_yaml_ng::to_string(value).unwrap();
    let names = Regex::new(r"!Ref '?([A-Za-z]+)|\$\{([A-Za-z]+)\}").unwrap();
    let found = names.captures_iter(&yaml).filter_map(|found| found.get(1).or(found.get(2)));
    let parameters = keys(&template["Parameters"]);
    found.map(|name| name.as_str().to_owned()).filter(|name| parameters.contains(name)).collect()
}

#[test]
fn every_parameter_is_in_one_group_and_has_a_label() {
    let template = template();
    let interface = &template["Metadata"]["AWS::CloudFormation::Interface"];
    let groups = interface["ParameterGroups"].as_sequence().unwrap();
    let mut grouped: Vec<String> =
        groups.iter().flat_map(|group| group["Parameters"].as_sequence().unwrap()).map(string).collect();
    grouped.sort_unstable();
    assert!(grouped.iter().eq(&keys(&template["Parameters"])), "{grouped:?}");
    assert!(grouped.iter().eq(&keys(&interface["ParameterLabels"])));
    for group in groups {
        assert!(!group["Label"]["default"].as_str().unwrap().is_empty());
    }
}

/// What would make the functions refuse to start has to start the check again, and the check has to see it.
#[test]
fn the_settings_are_checked_before_the_functions_get_them() {
    let template = template();
    let resources = &template["Resources"];
    // All that the ingest function is made of, so that the digest also tells one version of it from another.
    let mut wanted = referred(&template["Globals"]["Function"], &template);
    wanted.extend(referred(&resources["IngestFunction"]["Properties"], &template));
    assert!(wanted.remove("Release"));
    let check = &resources["SettingsCheck"]["Properties"];
    // Of those that only choose between values, `Replay` is the one that changes the environment.
    wanted.insert("Replay".to_owned());
    assert_eq!(referred(check, &template), wanted);
    assert_eq!(check["Version"], env!("CARGO_PKG_VERSION"));
    // It differs from the ingest function in what does not decide on its start.
    let of = |function: &str| resources[function]["Properties"]["Environment"]["Variables"].clone();
    let (mut checked, mut own) = (of("SettingsCheckFunction"), of("IngestFunction"));
    assert_eq!(checked.as_mapping_mut().unwrap().remove("POWERTOOLS_METRICS_DISABLED"), Some("true".into()));
    for name in ["MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"] {
        own.as_mapping_mut().unwrap().remove(name);
    }
    assert_eq!(checked, own);
    assert_eq!(resources["SettingsCheckFunction"]["Metadata"], resources["IngestFunction"]["Metadata"]);
    // A function that refers to the check waits for it.
    for function in ["IngestFunction", "CloseFunction"] {
        let tag = serde_yaml_ng::to_string(&resources[function]["Properties"]["Tags"]["settings"]).unwrap();
        assert!(tag.contains("!GetAtt SettingsCheck.Digest"), "{tag}");
    }
}

/// An existing table takes the place of the stack's wherever it is referred to.
#[test]
fn an_existing_table_takes_the_place_of_the_stacks() {
    assert_eq!(template()["Resources"]["SessionsTable"]["Condition"], "MakesTable");
    let lines: Vec<&str> = TEMPLATE.lines().filter(|line| line.contains("SessionsTable")).collect();
    assert!(lines.len() > 5);
    for line in lines.into_iter().filter(|line| *line != "  SessionsTable:") {
        let existing = line.contains("!Ref TableName") || line.contains("table/${TableName}");
        assert!(line.contains("!If [MakesTable, ") && existing, "{line}");
    }
}

/// The check of an existing table asks for what the stack's own has.
#[test]
fn the_check_of_a_table_asks_for_what_the_template_makes() {
    let template = template();
    let table = &template["Resources"]["SessionsTable"]["Properties"];
    let types = table["AttributeDefinitions"].as_sequence().unwrap();
    let python = |keys: &Value| {
        let keys = keys.as_sequence().unwrap().iter().map(|key| {
            let is_it = |one: &&Value| one["AttributeName"] == key["AttributeName"];
            let kind = &types.iter().find(is_it).unwrap()["AttributeType"];
            format!("(\"{}\", \"{}\", \"{}\")", string(&key["AttributeName"]), string(&key["KeyType"]), string(kind))
        });
        format!("[{}]", keys.collect::<Vec<_>>().join(", "))
    };
    let index = &table["GlobalSecondaryIndexes"][0];
    let code = string(&template["Resources"]["DeploymentCheckFunction"]["Properties"]["InlineCode"]);
    for wanted in [
        format!("\nKEYS = {}\n", python(&table["KeySchema"])),
        format!("\nDUE_KEYS = {}\n", python(&index["KeySchema"])),
        format!("\"IndexName\"] == \"{}\"", string(&index["IndexName"])),
        format!("\"AttributeName\"] != \"{}\"", string(&table["TimeToLiveSpecification"]["AttributeName"])),
    ] {
        assert!(code.contains(&wanted), "{wanted}");
    }
}

/// What is read by others, or by a person, can outlive the stack; what the service itself reads does not.
#[test]
fn queues_outlive_the_stack_by_option() {
    let template = template();
    for (queue, by_option) in
        [("InputQueue", false), ("InputDeadLetterQueue", true), ("OutputQueue", true), ("RejectsQueue", true)]
    {
        let queue = &template["Resources"][queue];
        for policy in [&queue["DeletionPolicy"], &queue["UpdateReplacePolicy"]] {
            match by_option {
                true => assert_eq!(tagged(policy).unwrap(), &["KeepsQueues", "Retain", "Delete"]),
                false => assert_eq!(policy, "Delete"),
            }
        }
        let tags = serde_yaml_ng::to_string(&queue["Properties"]["Tags"]).unwrap();
        assert_eq!(tags.contains("!Ref KeepQueues"), by_option);
    }
    // Only this transform takes a choice there, and only before the other.
    let transforms: Vec<String> = template["Transform"].as_sequence().unwrap().iter().map(string).collect();
    assert_eq!(transforms, ["AWS::LanguageExtensions", "AWS::Serverless-2016-10-31"]);
}

/// The bounds of what `sam publish` takes.
#[test]
fn the_application_can_be_published() {
    let application = &template()["Metadata"]["AWS::ServerlessRepo::Application"];
    let fits = |name: &str, pattern: &str| {
        let value = application[name].as_str().unwrap();
        assert!(Regex::new(&format!("^(?:{pattern})$")).unwrap().is_match(value), "{name}: {value}");
    };
    fits("Name", "[a-zA-Z0-9-]{1,140}");
    fits("Description", ".{1,256}");
    fits("Author", "[a-z0-9]+(-[a-z0-9]+)*");
    for label in application["Labels"].as_sequence().unwrap() {
        assert!(Regex::new("^[a-zA-Z0-9+_:/@-]{1,127}$").unwrap().is_match(label.as_str().unwrap()));
    }
    assert_eq!(application["SemanticVersion"], env!("CARGO_PKG_VERSION"));
    assert_eq!(application["SpdxLicenseId"], env!("CARGO_PKG_LICENSE"));
    for file in ["LicenseUrl", "ReadmeUrl"] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(application[file].as_str().unwrap());
        assert!(path.is_file(), "{file}");
    }
}

/// The environments of samconfig.toml have stacks of their own, and set only parameters that there are.
#[test]
fn every_environment_has_a_stack_of_its_own() {
    const CONFIG: &str = include_str!("../../../samconfig.toml");
    let names = Regex::new(r#"(?m)^stack_name = "([a-z-]+)"$"#).unwrap();
    let stacks: Vec<&str> = names.captures_iter(CONFIG).map(|found| found.get(1).unwrap().as_str()).collect();
    assert_eq!(stacks, ["session-tracking", "session-tracking-staging", "session-tracking-prod"]);
    let parameters = keys(&template()["Parameters"]);
    let set = Regex::new(r#""([A-Za-z]+)=[^"]*""#).unwrap();
    let set: Vec<&str> = set.captures_iter(CONFIG).map(|found| found.get(1).unwrap().as_str()).collect();
    assert!(set.len() > 4 && set.iter().all(|name| parameters.contains(*name)), "{set:?}");
}

/// By default there is no alias. With one, events go to it from wherever they come, and it moves only with another version.
#[test]
fn events_go_to_the_alias_if_deployments_are_gradual() {
    let template = template();
    assert_eq!(template["Parameters"]["GradualDeployment"]["Default"], "none");
    let resources = &template["Resources"];
    for name in ["IngestVersion", "IngestAlias", "DeploymentApplication", "IngestDeploymentGroup", "DeploymentRole"] {
        assert_eq!(resources[name]["Condition"], "DeploysGradually", "{name}");
    }
    let users: Vec<&str> = TEMPLATE.lines().filter(|line| line.contains("!Ref IngestAlias")).collect();
    assert!(users.iter().all(|line| line.contains("!If [DeploysGradually, !Ref IngestAlias, ")), "{users:?}");
    let integrations = TEMPLATE.matches("type: aws_proxy").count();
    // The routes of events, the queue's mapping, and the API's permission.
    assert_eq!(users.len(), integrations + 2);
    // A version is published when the release or a setting changes, because both are in its description and in its function's: Lambda
    // publishes none of a function that is as it was.
    let yaml = |value: &Value| serde_yaml_ng::to_string(value).unwrap();
    let function = yaml(&resources["IngestFunction"]["Properties"]["Description"]);
    for description in [yaml(&resources["IngestVersion"]["Properties"]["Description"]), function] {
        assert!(description.contains("${Release} ${Digest}") && description.contains("SettingsCheck.Digest"));
    }
    let alarms = yaml(&resources["IngestDeploymentGroup"]["Properties"]["AlarmConfiguration"]);
    assert!(alarms.contains("!Ref IngestErrorsAlarm") && alarms.contains("!Ref FailedEventsAlarm"));
    let rule = &template["Rules"]["GradualDeploymentsAreNamedAndWatched"];
    for needed in ["Release", "Alarms", "CheckSettings"] {
        assert!(yaml(rule).contains(&format!("!Ref {needed}")), "{needed}");
    }
}
