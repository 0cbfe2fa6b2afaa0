//! The snippets of `docs/triggers.md` are YAML, have no wildcard in a policy, and name only resources that exist.

use std::collections::BTreeSet;

use serde_yaml_ng::Value;

const DOCUMENT: &str = include_str!("../../docs/triggers.md");
const TEMPLATE: &str = include_str!("../../template.yaml");
/// What a reader brings: the sources and targets that are not part of the template.
const READERS_OWN: [&str; 7] =
    ["AWS::AccountId", "EventBucket", "EventBus", "EventStream", "EventTopic", "Listener", "SessionStream"];

fn snippets() -> Vec<&'static str> {
    DOCUMENT.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// The parts of a snippet that stand in different places of the template: a line of its own that is not indented begins one.
fn parts(snippet: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for line in snippet.lines() {
        if line.starts_with('#') {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push_str(line);
            part.push('\n');
        }
    }
    parts.into_iter().filter(|part| !part.trim().is_empty()).collect()
}

/// Every text in a value, and every name that `!Ref`, `!GetAtt` or `!Sub` refers to.
fn texts(value: &Value, texts: &mut Vec<String>, names: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => texts.push(text.clone()),
        Value::Sequence(values) => values.iter().for_each(|value| self::texts(value, texts, names)),
        Value::Mapping(members) => members.values().for_each(|value| self::texts(value, texts, names)),
        Value::Tagged(tagged) => {
            let text = tagged.value.as_str().unwrap_or_default();
            let name = text.split("${").last().unwrap_or_default().split(['.', '}']).next().unwrap_or_default();
            names.insert(name.to_owned());
        }
        _ => {}
    }
}

#[test]
fn snippets_are_yaml_with_least_privilege() {
    let template: Value = serde_yaml_ng::from_str(TEMPLATE).unwrap();
    let resources = template["Resources"].as_mapping().unwrap();
    let mut known: BTreeSet<String> = resources.keys().map(|key| key.as_str().unwrap().to_owned()).collect();
    known.extend(READERS_OWN.map(str::to_owned));
    let parts: Vec<Value> = snippets()
        .into_iter()
        .flat_map(parts)
        .map(|part| serde_yaml_ng::from_str(&part).unwrap_or_else(|error| panic!("{error}:\n{part}")))
        .collect();
    assert!(parts.len() >= 9, "{}", parts.len());
    let (mut all, mut names) = (Vec::new(), BTreeSet::new());
    for part in &parts {
        texts(part, &mut all, &mut names);
        if let Some(members) = part.as_mapping() {
            known.extend(members.keys().filter_map(Value::as_str).map(str::to_owned));
        }
    }
    let wild: Vec<_> = all.iter().filter(|text| text.ends_with(":*") || *text == "*").collect();
    assert_eq!(wild, [""; 0]);
    let unknown: Vec<_> = names.difference(&known).collect();
    assert_eq!(unknown, [""; 0]);
}

#[test]
fn every_trigger_of_the_table_has_a_section() {
    let links = DOCUMENT.split("](#").skip(1).map(|rest| rest.split(')').next().unwrap());
    let headings: BTreeSet<String> = DOCUMENT
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|line| line.to_lowercase().replace(' ', "-"))
        .collect();
    let missing: Vec<_> = links.filter(|link| !headings.contains(*link)).collect();
    assert_eq!(missing, [""; 0]);
}
