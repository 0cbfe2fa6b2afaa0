//! `template.yaml`, `docs/configuration.md` and the code agree: every variable that the functions read is set, every rule
//! has the same default and bounds in all of them, and no policy has a wildcard.

mod deployment;
mod managed;

use std::collections::BTreeSet;

use regex_lite::Regex;
use serde_json::json;
use serde_yaml_ng::Value;
use session_tracking::config::{AllowedOrigins, AnswerDetail, GivenRules, PublicAccess, SessionConfig, Settings};

const TEMPLATE: &str = include_str!("../../template.yaml");
const CONFIGURATION: &str = include_str!("../../docs/configuration.md");

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
    read.extend(
        ["TABLE", "OUTPUT", "RETENTION_DAYS", "PROFILE", "PROJECTS", "POWERTOOLS_SERVICE_NAME", "METRICS_BY_PROJECT"]
            .map(str::to_owned),
    );
    assert_eq!(set, read);
    let ingest = &template["Resources"]["IngestFunction"]["Properties"]["Environment"]["Variables"];
    // The `MALLOC_…` variables are read by the C library.
    assert_eq!(
        keys(ingest),
        BTreeSet::from(
            [
                "CORS_ORIGINS",
                "MALLOC_MMAP_THRESHOLD_",
                "MALLOC_TRIM_THRESHOLD_",
                "MAX_VISITORS_PER_REQUEST",
                "MAX_STATE_BYTES_PER_REQUEST",
                "PUBLIC_ANSWER",
                "REJECTS",
                "REPLAY_BUCKET",
                "REPLAY_INPUTS",
            ]
            .map(str::to_owned)
        )
    );
}

/// The parameter of a rule.
fn parameter<'t>(template: &'t Value, rule: &str) -> &'t Value {
    let name: String = rule.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect();
    let parameter = &template["Parameters"][name.as_str()];
    assert!(!parameter.is_null(), "{name} is no parameter");
    parameter
}

/// A value in the template as a function finds it in its environment.
fn as_variable(value: &Value) -> String {
    serde_yaml_ng::to_string(value).unwrap().trim().trim_matches(['\'', '"']).to_owned()
}

/// What the code makes of a rule's variable alone.
fn with(rule: &str, value: &str) -> Result<SessionConfig, String> {
    let variable = |name: &str| (name == rule.to_uppercase()).then(|| value.to_owned());
    SessionConfig::from_variables(variable).map_err(|error| error.to_string())
}

/// The template passes nothing for a parameter that is not set, so that it does not override a profile. Its descriptions have the
/// code's defaults.
#[test]
fn every_rule_is_a_parameter_without_a_value() {
    let template = template();
    let profile = GivenRules::of_profile("matomo").unwrap();
    for rule in SessionConfig::rule_names() {
        let parameter = parameter(&template, rule);
        assert_eq!(parameter["Default"], Value::String(String::new()), "{rule}");
        let description = parameter["Description"].as_str().unwrap();
        let (_, default) = description.split_once(" Default: ").unwrap();
        let is_in_profiles = default.ends_with(", or the profile's.");
        let default = default.trim_end_matches(", or the profile's.").trim_end_matches('.');
        match default {
            "none" | "the usual ones" => {}
            default => assert_eq!(with(rule, default).unwrap(), SessionConfig::default(), "{rule}"),
        }
        let over_profile = GivenRules::of_json(json!({ rule: null })).unwrap().with(profile.clone());
        let is_set_by_profile = format!("{over_profile:?}") == format!("{profile:?}");
        assert_eq!(is_in_profiles, is_set_by_profile, "{rule}");
    }
}

#[test]
fn every_profile_is_a_value_of_the_parameter() {
    let template = template();
    let parameter = &template["Parameters"]["Profile"];
    let values = parameter["AllowedValues"].as_sequence().unwrap().iter().map(|value| value.as_str().unwrap());
    assert!(values.eq(std::iter::once("").chain(GivenRules::profile_names())));
}

/// A deployment fails at once for a value that the functions would refuse to start with, and takes every other.
#[test]
fn every_parameter_has_the_bounds_of_its_rule() {
    let template = template();
    for rule in SessionConfig::rule_names() {
        let parameter = parameter(&template, rule);
        if let Some(values) = parameter["AllowedValues"].as_sequence() {
            let values: Vec<String> = values.iter().map(as_variable).filter(|value| !value.is_empty()).collect();
            let refused = with(rule, "nonsense").unwrap_err();
            for value in &values {
                with(rule, value).unwrap();
                assert!(refused.contains(value), "{rule}: {refused}");
            }
            // Words are quoted there, all that there are; `true` and `false` are not.
            let words = refused.split('`').skip(3).step_by(2).count();
            assert!(words == values.len() || (words == 0 && values == ["true", "false"]), "{rule}: {refused}");
        }
        let Some(pattern) = parameter["AllowedPattern"].as_str() else { continue };
        let pattern = Regex::new(&format!("^(?:{pattern})$")).unwrap();
        for probe in PROBES {
            let (fits, is_taken) = (pattern.is_match(probe), with(rule, probe).is_ok());
            match rule.ends_with("_seconds") {
                true => assert_eq!(fits, is_taken, "{rule}: {probe}"),
                // These patterns cannot list every value that is refused or taken.
                false if rule == "midnight" || rule.ends_with("_events") && rule != "max_events" => {}
                false => assert!(!fits || is_taken, "{rule}: {probe}"),
            }
        }
    }
}

/// Values at the bounds of the rules and beyond.
const PROBES: [&str; 31] = [
    "",
    "0",
    "1",
    "9",
    "10",
    "60",
    "1800",
    "86400",
    "99999",
    "100000",
    "999999",
    "1000000",
    "1999999",
    "2000000",
    "2499999",
    "2500000",
    "2579999",
    "2580000",
    "2589999",
    "2590000",
    "2591999",
    "2592000",
    "2592001",
    "2600000",
    "10000000",
    "none",
    "source",
    "source,term",
    "source;id",
    "999999999",
    "-1",
];

/// The table of docs/configuration.md has a row for each rule, in their order, with its default.
#[test]
fn every_rule_is_in_the_documents_with_its_default() {
    let (_, section) = CONFIGURATION.split_once("\n## Rules\n").unwrap();
    let rows = section.lines().filter_map(|line| {
        let (rule, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
        Some((rule, rest.split_once(" | ")?.0.trim_matches('`')))
    });
    let rows: Vec<_> = rows.take(SessionConfig::rule_names().count()).collect();
    assert!(SessionConfig::rule_names().eq(rows.iter().map(|(rule, _)| *rule)), "{rows:?}");
    for (rule, default) in rows {
        let default: serde_json::Value = match (rule, default) {
            ("nobody_ids", _) => documented("Ids that stand for nobody").collect(),
            ("strip_query_params", _) => documented("Credentials in URLs").collect(),
            (_, "none") => serde_json::Value::Null,
            (_, json) => serde_json::from_str(json).unwrap(),
        };
        let rules = SessionConfig::from_rules(serde_json::json!({ rule: default })).unwrap();
        assert_eq!(rules, SessionConfig::default(), "{rule}");
    }
}

/// The values of the indented block of a section of the document, in which two blanks or a line's end stand between them.
fn documented(section: &str) -> impl Iterator<Item = &'static str> {
    let (_, section) = CONFIGURATION.split_once(&format!("\n### {section}\n")).unwrap();
    let section = section.split("\n#").next().unwrap();
    let lines = section.lines().filter_map(|line| line.strip_prefix("    "));
    lines.flat_map(|line| line.split("  ")).map(str::trim).filter(|id| !id.is_empty())
}

/// The function answers preflights, so the API must not; and it has to get them, and the requests of every client.
#[test]
fn the_function_answers_preflights_and_every_client() {
    let template = template();
    assert!(template["Resources"]["Api"]["Properties"]["CorsConfiguration"].is_null());
    let events = &template["Resources"]["IngestFunction"]["Properties"]["Events"];
    let paths = &template["Resources"]["Api"]["Properties"]["DefinitionBody"]["paths"];
    let preflight = &paths["/{proxy+}"]["options"];
    assert!(preflight["x-amazon-apigateway-integration"].is_mapping() && preflight["security"].is_null());
    // Both routes ask for credentials by the same condition, and only by it.
    for operation in [&paths["/events"]["post"], &paths["/{proxy+}"]["x-amazon-apigateway-any-method"]] {
        let choice = tagged(operation).unwrap();
        assert_eq!(choice[0], "AsksForCredentials");
        assert!(choice[1]["security"].is_sequence() && choice[2]["security"].is_null());
        let integration = |operation: &Value| serde_yaml_ng::to_string(&operation["x-amazon-apigateway-integration"]);
        assert_eq!(integration(&choice[1]).unwrap(), integration(&choice[2]).unwrap());
    }
    // Every other path of the API shows or changes what is stored.
    let mut private = Vec::new();
    for (name, event) in events.as_mapping().unwrap() {
        if event["Type"] == "HttpApi" {
            assert_eq!(string(&event["Properties"]["Auth"]["Authorizer"]), "AWS_IAM", "{name:?}");
            private.push(string(&event["Properties"]["Path"]));
        }
    }
    for path in ["/sessions/{id}", "/sessions/{id}/end", "/visitors/{proxy+}", "/explain"] {
        assert!(private.contains(&path.to_owned()) && private.contains(&format!("/v1{path}")), "{path}: {private:?}");
    }
    let default = string(&template["Parameters"]["CorsOrigins"]["Default"]);
    assert_eq!(AllowedOrigins::parse(&default).unwrap(), AllowedOrigins::default());
}

#[test]
fn policies_name_their_actions_and_resources() {
    let template = template();
    for (name, resource) in template["Resources"].as_mapping().unwrap() {
        let Some(policies) = resource["Properties"]["Policies"].as_sequence() else { continue };
        for statement in policies.iter().flat_map(|policy| policy["PolicyDocument"]["Statement"].as_sequence().unwrap())
        {
            let yaml = serde_yaml_ng::to_string(statement).unwrap();
            // X-Ray's actions take no resource, and the statement is there only if it is used.
            if yaml.starts_with("!If\n- TracesActively\n") && yaml.matches("xray:Put").count() == 2 {
                continue;
            }
            assert!(!yaml.contains('*'), "{name:?}: {yaml}");
            assert!(statement["Action"].as_sequence().is_none_or(|actions| actions.len() <= 3), "{name:?}: {yaml}");
        }
    }
}

/// The defaults of the template are the least: no answer beyond ids, brakes on, no plain connections.
#[test]
fn the_template_is_locked_by_default() {
    let template = template();
    let default = |name: &str| as_variable(&template["Parameters"][name]["Default"]);
    let variable = |name: &str| {
        let own = match name {
            "TABLE" => "t",
            "OUTPUT" => "stdout",
            "PUBLIC_ANSWER" => &default("PublicAnswer"),
            "MAX_VISITORS_PER_REQUEST" => &default("MaxVisitorsPerRequest"),
            "MAX_STATE_BYTES_PER_REQUEST" => &default("MaxStateBytesPerRequest"),
            _ => return None,
        };
        Some(own.to_owned())
    };
    let settings = Settings::from_variables(variable, |_| Err(std::io::ErrorKind::NotFound.into())).unwrap();
    assert_eq!(settings.public, PublicAccess::default());
    assert_eq!(PublicAccess::default().answer, AnswerDetail::Ids);
    assert_eq!(default("DeletionProtection"), "true");
    let throttling = &template["Resources"]["Api"]["Properties"]["DefaultRouteSettings"];
    assert_eq!(string(&throttling["ThrottlingRateLimit"]), "ThrottlingRate");
    assert!(default("ThrottlingRate").parse::<u32>().unwrap() > 0);
    let queues = template["Resources"].as_mapping().unwrap().iter();
    for (name, _) in queues.filter(|(_, resource)| resource["Type"] == "AWS::SQS::Queue") {
        let policy = &template["Resources"][format!("{}Policy", name.as_str().unwrap()).as_str()]["Properties"];
        assert_eq!(string(&policy["Queues"][0]), name.as_str().unwrap());
        let statement = &policy["PolicyDocument"]["Statement"][0];
        assert_eq!((&statement["Effect"], &statement["Principal"]), (&"Deny".into(), &"*".into()));
        assert_eq!(statement["Condition"]["Bool"]["aws:SecureTransport"], "false");
    }
    // An access log must not hold what tells who someone is.
    let format = template["Resources"]["Api"]["Properties"]["AccessLogSettings"]["Format"].as_str().unwrap();
    for private in ["sourceIp", "userAgent", "path", "queryString", "authorizer", "identity"] {
        assert!(!format.contains(private), "{private}");
    }
}

/// Without `Replay=true` there is no bucket, no permission and no variable of it. With it, the ingest function may read, write and
/// delete what has the prefix of recordings, and nothing else; recordings expire, are encrypted, and are not public.
#[test]
fn replay_is_off_by_default_and_has_the_least_permissions() {
    let template = template();
    assert_eq!(as_variable(&template["Parameters"]["Replay"]["Default"]), "false");
    assert_eq!(as_variable(&template["Parameters"]["ReplayInputs"]["Default"]), "mask");
    let resources = template["Resources"].as_mapping().unwrap();
    let of_replay = resources.iter().filter(|(name, _)| name.as_str().unwrap().starts_with("Replay"));
    let kinds: BTreeSet<&str> = of_replay
        .inspect(|(name, resource)| assert_eq!(resource["Condition"], "HasReplay", "{name:?}"))
        .map(|(_, resource)| resource["Type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, BTreeSet::from(["AWS::IAM::Policy", "AWS::S3::Bucket", "AWS::S3::BucketPolicy"]));
    let variables = &template["Resources"]["IngestFunction"]["Properties"]["Environment"]["Variables"];
    for name in ["REPLAY_BUCKET", "REPLAY_INPUTS"] {
        let choice = tagged(&variables[name]).unwrap();
        assert_eq!((&choice[0], string(&choice[2])), (&"HasReplay".into(), "AWS::NoValue".to_owned()), "{name}");
    }
    let policy = &template["Resources"]["ReplayPolicy"]["Properties"];
    assert_eq!(string(&policy["Roles"][0]), "IngestRole");
    let statements = policy["PolicyDocument"]["Statement"].as_sequence().unwrap();
    let actions: Vec<&str> = statements
        .iter()
        .flat_map(|statement| statement["Action"].as_sequence().unwrap())
        .map(|action| action.as_str().unwrap())
        .collect();
    assert_eq!(actions, ["s3:PutObject", "s3:GetObject", "s3:DeleteObject", "s3:ListBucket"]);
    assert_eq!(string(&statements[0]["Resource"]), "${ReplayBucket.Arn}/replay/*");
    assert_eq!(statements[1]["Condition"]["StringLike"]["s3:prefix"], "replay/*");
    let bucket = &template["Resources"]["ReplayBucket"]["Properties"];
    let rule = &bucket["LifecycleConfiguration"]["Rules"][0];
    assert_eq!((&rule["Status"], &rule["Prefix"]), (&"Enabled".into(), &"replay/".into()));
    assert_eq!(string(&rule["ExpirationInDays"]), "RetentionDays");
    assert!(bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"][0].is_mapping());
    let access = bucket["PublicAccessBlockConfiguration"].as_mapping().unwrap();
    assert!(access.len() == 4 && access.values().all(|value| value == &Value::Bool(true)));
}

/// Only the function that erases visitors may delete items.
#[test]
fn only_the_ingest_function_deletes_items() {
    let template = template();
    for (role, wanted) in [("IngestRole", true), ("CloseRole", false)] {
        let role = serde_yaml_ng::to_string(&template["Resources"][role]).unwrap();
        assert_eq!(role.contains("dynamodb:DeleteItem"), wanted);
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

/// Every alarm has a section in the operator's document, and watches a metric that the functions write or AWS does.
#[test]
fn every_alarm_is_explained_and_watches_a_metric_that_exists() {
    const OPERATIONS: &str = include_str!("../../docs/operations.md");
    const METRICS: [&str; 2] = [include_str!("../../src/metrics.rs"), include_str!("../../src/trigger.rs")];
    let template = template();
    let resources = template["Resources"].as_mapping().unwrap();
    let is_alarm = |value: &&Value| value["Type"] == "AWS::CloudWatch::Alarm";
    let alarms: Vec<(&str, &Value)> = resources
        .iter()
        .filter(|(_, value)| is_alarm(value))
        .map(|(name, value)| (name.as_str().unwrap(), value))
        .collect();
    assert_eq!(alarms.len(), 8);
    for (name, alarm) in alarms {
        assert!(OPERATIONS.contains(&format!("\n### {name}\n")), "{name}");
        let properties = &alarm["Properties"];
        let description = properties["AlarmDescription"].as_str().unwrap();
        assert!(description.ends_with(&format!("docs/operations.md#{}", name.to_lowercase())), "{description}");
        if properties["Namespace"] == "SessionTracking" {
            let metric = format!("\"{}\"", properties["MetricName"].as_str().unwrap());
            assert!(METRICS.iter().any(|source| source.contains(&metric)), "{metric} is not written");
        }
    }
    let dashboard = string(&resources["Dashboard"]["Properties"]["DashboardBody"]);
    let own = Regex::new(r#"\["SessionTracking","([A-Za-z]+)""#).unwrap();
    let watched: Vec<&str> = own.captures_iter(&dashboard).map(|found| found.get(1).unwrap().as_str()).collect();
    assert!(watched.len() > 10, "{watched:?}");
    for metric in watched {
        assert!(METRICS.iter().any(|source| source.contains(&format!("\"{metric}\""))), "{metric} is not written");
        assert!(OPERATIONS.contains(&format!("`{metric}`")), "{metric} is not explained");
    }
}
