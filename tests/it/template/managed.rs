//! `template-managed.yaml` differs from `template.yaml` only where Lambda Managed Instances need it.

use serde_yaml_ng::Value;

use super::{TEMPLATE, keys, template};

const MANAGED: &str = include_str!("../../../template-managed.yaml");

/// Collects the paths at which two templates differ.
fn differences(path: &str, one: &Value, other: &Value, found: &mut Vec<String>) {
    if one == other {
        return;
    }
    let (Some(_), Some(_)) = (one.as_mapping(), other.as_mapping()) else { return found.push(path.to_owned()) };
    for key in keys(one).union(&keys(other)) {
        differences(&format!("{path}/{key}"), &one[key.as_str()], &other[key.as_str()], found);
    }
}

#[test]
fn only_what_managed_instances_need_is_different() {
    let (usual, managed) = (template(), serde_yaml_ng::from_str(MANAGED).unwrap());
    let mut found = Vec::new();
    differences("", &usual, &managed, &mut found);
    let expected = [
        "/Conditions/HasReservedConcurrency",
        "/Description",
        "/Metadata/AWS::CloudFormation::Interface/ParameterGroups",
        "/Metadata/AWS::CloudFormation::Interface/ParameterLabels/IngestReservedConcurrency",
        "/Metadata/AWS::CloudFormation::Interface/ParameterLabels/InvocationsAtOnce",
        "/Metadata/AWS::CloudFormation::Interface/ParameterLabels/MaxEnvironments",
        "/Metadata/AWS::CloudFormation::Interface/ParameterLabels/MaxVCpuCount",
        "/Metadata/AWS::CloudFormation::Interface/ParameterLabels/MinEnvironments",
        "/Metadata/AWS::CloudFormation::Interface/ParameterLabels/SecurityGroupIds",
        "/Metadata/AWS::CloudFormation::Interface/ParameterLabels/SubnetIds",
        "/Parameters/IngestMemoryMegabytes/Default",
        "/Parameters/IngestMemoryMegabytes/MaxValue",
        "/Parameters/IngestMemoryMegabytes/MinValue",
        "/Parameters/IngestReservedConcurrency",
        "/Parameters/InvocationsAtOnce",
        "/Parameters/MaxEnvironments",
        "/Parameters/MaxVCpuCount",
        "/Parameters/MinEnvironments",
        "/Parameters/SecurityGroupIds",
        "/Parameters/SubnetIds",
        "/Resources/IngestCapacity",
        "/Resources/IngestCapacityRole",
        "/Resources/IngestFunction/Metadata/BuildProperties/Binary",
        "/Resources/IngestFunction/Properties/CapacityProviderConfig",
        "/Resources/IngestFunction/Properties/FunctionScalingConfig",
        "/Resources/IngestFunction/Properties/PublishToLatestPublished",
        "/Resources/IngestFunction/Properties/ReservedConcurrentExecutions",
        "/Resources/SettingsCheck/Properties/Settings",
    ];
    assert_eq!(found, expected, "if template.yaml was changed, run ci/managed-template");
}

/// The comments are the same, too, so that no explanation is of an older template.
#[test]
fn its_comments_are_those_of_the_template() {
    let comments = |text: &'static str| text.lines().map(str::trim).filter(|line| line.starts_with('#'));
    let of_managed: Vec<&str> = comments(MANAGED).collect();
    for comment in comments(TEMPLATE) {
        assert!(of_managed.contains(&comment), "run ci/managed-template: {comment}");
    }
}

/// The binary that it deploys is one that Cargo builds with the feature only, and cargo-lambda builds it with the feature, and else as
/// the others.
#[test]
fn its_binary_is_built_with_the_feature() {
    let managed: Value = serde_yaml_ng::from_str(MANAGED).unwrap();
    let binary = managed["Resources"]["IngestFunction"]["Metadata"]["BuildProperties"]["Binary"].as_str().unwrap();
    let cargo = include_str!("../../../Cargo.toml");
    let declared =
        format!("name = \"{binary}\"\npath = \"src/bin/{binary}.rs\"\nrequired-features = [\"managed-instances\"]");
    assert!(cargo.contains(&declared), "{binary}");
    let section = |name: &str| {
        let (_, rest) = cargo.split_once(&format!("[package.metadata.lambda.{name}]\n")).unwrap();
        let lines = rest.lines().map(str::trim).take_while(|line| *line != "]");
        lines.filter(|line| !line.starts_with('#')).collect::<Vec<_>>()
    };
    let own = section(&format!("bin.{binary}.build"));
    assert_eq!(own, [&["features = [\"managed-instances\"]"], &section("build")[..]].concat());
}
