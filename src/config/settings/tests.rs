use serde_json::json;

use super::*;
use crate::config::{
    Boundary, DirectThenSource, FirstCampaign, InternalCampaigns, NobodyIds, ProjectRules, ReferrerMatch,
    SessionConfig, UtmField,
};

fn settings(pairs: &[(&str, &str)]) -> Result<Settings, String> {
    let variable = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    let read_file = |path: &Path| match path.to_str() {
        Some("/opt/projects.json") => Ok(r#"{"shop": {"rules": {"timeout_seconds": 60}}}"#.to_owned()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    Settings::from_variables(variable, read_file).map_err(|error| error.to_string())
}

/// Sets the variables of all rules together, and then each of them alone.
#[test]
fn every_rule_has_a_variable() {
    let variables = [
        ("TIMEOUT_SECONDS", "600"),
        ("BOUNDARY", "exclusive"),
        ("MAX_DURATION_SECONDS", " 7200 "),
        ("NEW_SESSION_ON_REFERRER_CHANGE", "false"),
        ("NEW_SESSION_ON_UTM_CHANGE", "false"),
        ("UTM_FIELDS", "term, content,"),
        ("UTM_IGNORE_CASE", "true"),
        ("DIRECT_THEN_SOURCE", "upgrade"),
        ("FIRST_CAMPAIGN", "split"),
        ("INTERNAL_CAMPAIGNS", "ignore"),
        ("REFERRER_MATCH", "site"),
        ("NEW_SESSION_ON_CLICK_ID_CHANGE", "true"),
        ("MIDNIGHT", "Europe/Berlin"),
        ("INTERNAL_HOSTS", "www.a.test, *.b.test"),
        ("IGNORED_REFERRERS", "[\"pay.test\"]"),
        ("PASSIVE_EVENTS", "beat,12"),
        ("KEEP_ALIVE_EVENTS", "[]"),
        ("COUNTED_EVENTS", "order:value, $exception"),
        ("NOBODY_IDS", "[\"a,b\", \"Nobody\"]"),
        ("EXCLUDE_BOTS", "true"),
        ("VIEWER_HEADERS", "true"),
        ("STRIP_QUERY_PARAMS", "a,*b"),
        ("MAX_EVENTS", "7"),
        ("LATENESS_SECONDS", "0"),
        ("CLOCK_SKEW_TOLERANCE_SECONDS", "0"),
    ];
    let expected = SessionConfig {
        timeout: TimeDelta::minutes(10),
        boundary: Boundary::Exclusive,
        max_duration: TimeDelta::hours(2),
        new_session_on_referrer_change: false,
        new_session_on_utm_change: false,
        utm_fields: vec![UtmField::Term, UtmField::Content],
        utm_ignore_case: true,
        direct_then_source: DirectThenSource::Upgrade,
        first_campaign: FirstCampaign::Split,
        internal_campaigns: InternalCampaigns::Ignore,
        referrer_match: ReferrerMatch::Site,
        new_session_on_click_id_change: true,
        midnight: Some(chrono_tz::Europe::Berlin),
        internal_hosts: vec!["a.test".parse().unwrap(), "*.b.test".parse().unwrap()],
        ignored_referrers: vec!["pay.test".parse().unwrap()],
        passive_events: vec!["beat".to_owned(), "12".to_owned()],
        keep_alive_events: Vec::new(),
        counted_events: vec!["order:value".parse().unwrap(), "$exception".parse().unwrap()],
        nobody_ids: NobodyIds::new(["a,b", "nobody"]),
        exclude_bots: true,
        viewer_headers: true,
        strip_query_params: serde_json::from_str(r#"["a","*b"]"#).unwrap(),
        max_events: Some(7),
        lateness: TimeDelta::zero(),
        clock_skew_tolerance: TimeDelta::zero(),
    };
    let base = [("TABLE", "t"), ("OUTPUT", "https://sqs.test/1/q")];
    let set = settings(&[&base[..], &variables].concat()).unwrap();
    assert_eq!(set.output, Destination::Queue("https://sqs.test/1/q".to_owned()));
    assert_eq!(set.retention, TimeDelta::days(30));
    assert_eq!(*set.projects.default_rules(), expected);
    assert!(SessionConfig::rule_names().map(str::to_uppercase).eq(variables.map(|(name, _)| name)));
    for (name, value) in variables {
        let one = settings(&[&base[..], &[(name, value)]].concat()).unwrap();
        assert_ne!(*one.projects.default_rules(), SessionConfig::default(), "{name}");
        let empty = settings(&[&base[..], &[(name, " ")]].concat()).unwrap();
        assert_eq!(*empty.projects.default_rules(), SessionConfig::default(), "{name}");
    }
}

#[test]
fn a_pipes_role_is_a_setting() {
    let role = |role| {
        settings(&[("TABLE", "t"), ("OUTPUT", "stdout"), ("PIPE_ROLE", role)]).map(|settings| settings.pipe_role)
    };
    assert_eq!(role(""), Ok(PipeRole::Enrichment));
    assert_eq!(role("enrichment"), Ok(PipeRole::Enrichment));
    assert_eq!(role(" target "), Ok(PipeRole::Target));
}

#[cfg(feature = "replay")]
#[test]
fn replay_is_on_where_a_bucket_is_named() {
    use crate::replay::Inputs;
    let base = [("TABLE", "t"), ("OUTPUT", "stdout")];
    let replay = |pairs: &[(&str, &str)]| settings(&[&base[..], pairs].concat()).map(|settings| settings.replay);
    assert_eq!(replay(&[("REPLAY_INPUTS", "keep")]), Ok(None));
    let on = replay(&[("REPLAY_BUCKET", " b ")]).unwrap().unwrap();
    assert_eq!((&*on.bucket, on.inputs), ("b", Inputs::Mask));
    assert_eq!(replay(&[("REPLAY_BUCKET", "b"), ("REPLAY_INPUTS", "keep")]).unwrap().unwrap().inputs, Inputs::Keep);
    assert!(replay(&[("REPLAY_INPUTS", "yes")]).unwrap_err().contains("REPLAY_INPUTS is `yes`; it must be `mask`"));
}

#[test]
fn errors_name_the_setting_and_what_to_write() {
    let base = [("TABLE", "t"), ("OUTPUT", "stdout")];
    for (name, value, sentence) in [
        ("OUTPUT", "", "stdout"),
        ("OUTPUT", "a-queue", "URL"),
        ("TIMEOUT_SECONDS", "0", "timeout_seconds"),
        ("TIMEOUT_SECONDS", "soon", "timeout_seconds: invalid type: string \"soon\", expected a whole number"),
        ("MAX_EVENTS", "0", "max_events is 0; it must be at least 1, or left out"),
        ("MAX_EVENTS", "-1", "max_events: invalid value: integer `-1`, expected a whole number, at least 1"),
        ("NEW_SESSION_ON_UTM_CHANGE", "yes", "expected true or false"),
        ("MIDNIGHT", "Berlin", "midnight is `Berlin`; it must be a time zone's IANA name, such as `Europe/Berlin`"),
        ("MIDNIGHT", "5", "midnight is `5`; it must be"),
        (
            "LATENESS_SECONDS",
            "2592001",
            "lateness_seconds is 2592001; it must be a number of seconds from 0 to 2592000",
        ),
        (
            "UTM_FIELDS",
            "source,id",
            "utm_fields: unknown variant `id`, expected `source`, `medium`, `campaign`, `term` or",
        ),
        ("STRIP_QUERY_PARAMS", "token,a b", "strip_query_params has `a b`; write the name of a parameter"),
        ("STRIP_QUERY_PARAMS", "*", "strip_query_params has `*`"),
        ("NOBODY_IDS", "[0]", "nobody_ids: invalid type: integer `0`, expected a string"),
        ("BOUNDARY", "open", "boundary: unknown variant `open`, expected `inclusive`"),
        ("RETENTION_DAYS", "0", "1 to 3650"),
        ("CORS_ORIGINS", "https://a.test, b.test", "CORS_ORIGINS has `b.test`"),
        ("CORS_ORIGINS", "https://a.test/", "CORS_ORIGINS has `https://a.test/`"),
        ("CORS_ORIGINS", "*, https://a.test", "CORS_ORIGINS has `*`"),
        ("PIPE_ROLE", "source", "PIPE_ROLE is `source`; it must be `enrichment` or `target`"),
        (
            "INTERNAL_HOSTS",
            "shop.*",
            "internal_hosts has `shop.*`, which no host can match; write a host such as `shop`",
        ),
        ("IGNORED_REFERRERS", "a.test, *", "ignored_referrers has `*`"),
        ("PASSIVE_EVENTS", "$session_end", "passive_events has `$session_end`"),
        ("KEEP_ALIVE_EVENTS", "[\" \"]", "keep_alive_events has ` `"),
        ("KEEP_ALIVE_EVENTS", "[a", "keep_alive_events: "),
        ("FIRST_CAMPAIGN", "no", "first_campaign: unknown variant `no`, expected `continue` or `split`"),
    ] {
        let pairs = [&[(name, value)], base.as_slice()].concat();
        let error = settings(&pairs).unwrap_err();
        assert!(error.contains(sentence), "{name}={value}: {error}");
    }
    let both = [("PASSIVE_EVENTS", "a,b"), ("KEEP_ALIVE_EVENTS", "b"), base[0], base[1]];
    assert!(settings(&both).unwrap_err().contains("both have `b`"));
    // The default list is not in conflict with `passive_events`, whether it is left out or set, as `template.yaml` does.
    for keep_alive in ["", "$pageleave"] {
        let variables = [("PASSIVE_EVENTS", "$pageleave"), ("KEEP_ALIVE_EVENTS", keep_alive), base[0], base[1]];
        assert_eq!(settings(&variables).unwrap().projects.default_rules().passive_events, ["$pageleave"]);
    }
    assert!(settings(&[("OUTPUT", "stdout")]).unwrap_err().starts_with("TABLE is not set"));
}

#[test]
fn variables_override_the_profile() {
    let base = [("TABLE", "t"), ("OUTPUT", "stdout"), ("PROFILE", " matomo ")];
    let with = |pairs: &[(&str, &str)]| settings(&[&base[..], pairs].concat());
    let rules = |pairs| with(pairs).unwrap().projects.default_rules().clone();
    let matomo = rules(&[]);
    assert_eq!((matomo.midnight, matomo.max_events), (Some(chrono_tz::UTC), Some(10_000)));
    assert_eq!(rules(&[("MIDNIGHT", ""), ("BOUNDARY", "exclusive")]), matomo);
    let own =
        rules(&[("BOUNDARY", "inclusive"), ("MIDNIGHT", "none"), ("MAX_EVENTS", "none"), ("UTM_FIELDS", "source")]);
    let expected = SessionConfig {
        boundary: Boundary::Inclusive,
        midnight: None,
        max_events: None,
        utm_fields: vec![UtmField::Source],
        ..matomo
    };
    assert_eq!(own, expected);
    for (name, value, sentence) in [
        ("PROFILE", "piwik", "PROFILE: `piwik` is no profile; the profiles are `ga4`, "),
        ("TIMEOUT_SECONDS", "none", "timeout_seconds: invalid type: string \"none\", expected a whole number"),
        ("PASSIVE_EVENTS", "$ping", "keep_alive_events and passive_events both have `$ping`"),
    ] {
        let error = settings(&[&[(name, value)], &base[..]].concat()).unwrap_err();
        assert!(error.starts_with(sentence), "{error}");
    }
}

#[test]
fn projects_are_json_or_a_file_with_it() {
    let base = [("TABLE", "t"), ("OUTPUT", "stdout"), ("TIMEOUT_SECONDS", "600"), ("LATENESS_SECONDS", "7")];
    let with = |value| settings(&[&base[..], &[("PROJECTS", value)]].concat());
    for (value, shop_timeout) in [
        ("", 600),
        (r#" {"shop": {}}"#, 600),
        (r#"{"shop": {"rules": {"timeout_seconds": 60}}}"#, 60),
        (" /opt/projects.json ", 60),
    ] {
        let projects = with(value).unwrap().projects;
        assert_eq!(projects.default_rules().timeout, TimeDelta::seconds(600), "{value}");
        assert_eq!(projects.rules_of("shop").timeout, TimeDelta::seconds(shop_timeout), "{value}");
        assert_eq!(projects.rules_of("shop").lateness, TimeDelta::seconds(7), "{value}");
    }
    for (value, sentence) in [
        ("/opt/other.json", "PROJECTS is `/opt/other.json`, which cannot be read (entity not found); name a file"),
        ("projects.json", "PROJECTS: the projects cannot be read: a JSON object is expected; write an object"),
        (r#"{"shop": {"key": []}}"#, "PROJECTS: project `shop`: `key` is unknown; the members of a project are"),
    ] {
        let error = with(value).unwrap_err();
        assert!(error.starts_with(sentence), "{error}");
    }
    let wrong_rule = [("TIMEOUT_SECONDS", "0"), ("PROJECTS", "{}"), base[0], base[1]];
    assert!(settings(&wrong_rule).unwrap_err().starts_with("timeout_seconds is 0"));
}

/// Covers the values that JSON can hold and a variable cannot.
#[test]
fn rules_are_read_from_json() {
    let read = |rules: serde_json::Value| SessionConfig::from_rules(rules).map_err(|error| error.to_string());
    let all_left_out = SessionConfig::rule_names().map(|name| (name.to_owned(), serde_json::Value::Null));
    assert_eq!(read(serde_json::Value::Object(all_left_out.collect())), Ok(SessionConfig::default()));
    for (rules, error) in [
        (json!([]), "the rules are not a JSON object"),
        (json!({"nonsense": null}), "nonsense is no rule; the rules are `timeout_seconds`, `boundary`, "),
        (json!({"boundary": "exclusive", "timeout": 1}), "timeout is no rule; the rules are `timeout_seconds`, "),
        (json!({"boundary": 3}), "boundary: invalid type: integer `3`, expected a string"),
        (json!({"boundary": {"inclusive": null}}), "boundary: invalid type: map, expected a string"),
        (json!({"timeout_seconds": "600"}), "timeout_seconds: invalid type: string \"600\", expected a whole number"),
        (json!({"timeout_seconds": 1.5}), "timeout_seconds: invalid type: floating point `1.5`, expected a whole"),
        (json!({"timeout_seconds": [600]}), "timeout_seconds: invalid type: sequence, expected a whole number"),
        (json!({"timeout_seconds": u64::MAX}), "timeout_seconds: invalid value: integer `18446744073709551615`, "),
        (json!({"utm_fields": "source"}), "utm_fields: invalid type: string \"source\", expected a list"),
        (json!({"utm_ignore_case": "true"}), "utm_ignore_case: invalid type: string \"true\", expected true or false"),
        (json!({"internal_hosts": ["a.test", null]}), "internal_hosts: invalid type: null, expected a string"),
        (json!({"internal_hosts": {"a.test": 1}}), "internal_hosts: invalid type: map, expected a list"),
    ] {
        let found = read(rules.clone()).unwrap_err();
        assert!(found.starts_with(error), "{rules}: {found}");
    }
}
