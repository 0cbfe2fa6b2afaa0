use super::*;

fn names() -> MetricNames {
    MetricNames::from_variables(|_| None)
}

#[test]
fn a_line_declares_each_metric_that_it_holds() {
    let info = InvocationInfo { function: "ingest", request_id: "r1", trace_id: "t1", is_cold_start: true };
    let mut line = MetricLine::new(&info);
    line.count("EventsApplied", 3);
    line.count_if_any("EventsLate", 0);
    line.counts_by("Rejected", [("invalid_json", 2)]);
    line.counted(Counted { conflicts: 1, reopened: 4, ..Counted::default() });
    line.closed(&CloseReport {
        closed: 5,
        corrections: 3,
        merged: 1,
        oldest_due_seconds: Some(61),
        ..CloseReport::default()
    });
    let value: Value = serde_json::from_str(&line.json("handled", &names(), 1_773_144_000_000)).unwrap();
    assert_eq!(value["timestamp"], "2026-03-10T12:00:00.000Z");
    assert_eq!(
        (&value["service"], &value["faas.invocation_id"], &value["xray_trace_id"]),
        (&"session-tracking".into(), &"r1".into(), &"t1".into())
    );
    let directive = &value["_aws"]["CloudWatchMetrics"][0];
    assert_eq!((&directive["Namespace"], &directive["Dimensions"]), (&"SessionTracking".into(), &json!([["service"]])));
    let declared: Vec<&str> =
        directive["Metrics"].as_array().unwrap().iter().map(|metric| metric["Name"].as_str().unwrap()).collect();
    for (name, wanted) in
        [("EventsApplied", 3), ("Rejected.invalid_json", 2), ("SessionsSplit", 2), ("CloseLag", 61), ("ColdStart", 1)]
    {
        assert_eq!(value[name], wanted, "{name}");
        assert!(declared.contains(&name), "{name}");
    }
    assert!(!declared.contains(&"EventsLate") && value.get("EventsLate").is_none());
    assert!(declared.len() <= 100, "CloudWatch takes at most 100 metrics in a directive");
}

#[test]
fn a_project_has_a_line_of_its_own() {
    let mut line = MetricLine::new(&InvocationInfo { function: "ingest", ..InvocationInfo::default() });
    line.count("EventsApplied", 3);
    line.count_of_project("shop", "EventsApplied", 2);
    line.count_of_project("shop", "EventsLate", 0);
    line.closed(&CloseReport {
        closed: 4,
        closed_by_project: [("blog".to_owned(), 4)].into(),
        ..CloseReport::default()
    });
    let lines: Vec<Value> =
        line.json("handled", &names(), 0).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [all, blog, shop] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((&all["EventsApplied"], &all["SessionsEnded"], all.get("project")), (&3.into(), &4.into(), None));
    for (line, project, name, count) in [(blog, "blog", "SessionsEnded", 4), (shop, "shop", "EventsApplied", 2)] {
        assert_eq!((&line["project"], &line[name]), (&project.into(), &count.into()));
        let directive = &line["_aws"]["CloudWatchMetrics"][0];
        assert_eq!(directive["Dimensions"], json!([["service", "project"]]));
        assert_eq!(directive["Metrics"], json!([{"Name": name, "Unit": "Count"}]));
    }
}

#[test]
fn the_common_variables_name_the_metrics() {
    let variables = [
        ("POWERTOOLS_METRICS_NAMESPACE", "Shop"),
        ("POWERTOOLS_SERVICE_NAME", "sessions"),
        ("POWERTOOLS_METRICS_DISABLED", "true"),
    ];
    let names = MetricNames::from_variables(|name| {
        variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    });
    let wanted = MetricNames {
        namespace: "Shop".to_owned(),
        service: "sessions".to_owned(),
        is_disabled: true,
        are_by_project: false,
    };
    assert_eq!(names, wanted);
    let mut line = MetricLine::new(&InvocationInfo::default());
    line.count("EventsApplied", 1);
    let value: Value = serde_json::from_str(&line.json("handled", &names, 0)).unwrap();
    assert_eq!((value.get("_aws"), &value["EventsApplied"]), (None, &1.into()));
}
