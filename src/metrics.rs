//! Metrics in CloudWatch's embedded metric format: a line of the log that CloudWatch turns into metrics, without a call.
//!
//! The line is also the invocation's only line in the log: an object whose members are fields to query. The format is described in
//! the CloudWatch documentation, "Specification: Embedded metric format".

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::manager::{CloseReport, Counted};
use crate::session::{Millis, datetime, rfc3339};
use crate::storage::Consumed;

/// The namespace of the metrics, unless `POWERTOOLS_METRICS_NAMESPACE` names another.
const NAMESPACE: &str = "SessionTracking";
/// The dimension `service`, unless `POWERTOOLS_SERVICE_NAME` names another.
const SERVICE: &str = "session-tracking";

/// How metrics are named, from the variables that Powertools for AWS Lambda has made common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricNames {
    /// `POWERTOOLS_METRICS_NAMESPACE`.
    pub namespace: String,
    /// `POWERTOOLS_SERVICE_NAME`.
    pub service: String,
    /// `POWERTOOLS_METRICS_DISABLED`: whether the line holds no metrics.
    pub is_disabled: bool,
    /// `METRICS_BY_PROJECT`: whether each configured project has metrics of its own, too, under the dimension `project`.
    pub are_by_project: bool,
}

impl MetricNames {
    /// Reads the variables. An empty one counts as not set.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let given = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let is_true = |name: &str| {
            given(name)
                .is_some_and(|value| matches!(value.trim().to_ascii_lowercase().as_str(), "true" | "1" | "yes" | "on"))
        };
        Self {
            namespace: given("POWERTOOLS_METRICS_NAMESPACE").unwrap_or_else(|| NAMESPACE.to_owned()),
            service: given("POWERTOOLS_SERVICE_NAME").unwrap_or_else(|| SERVICE.to_owned()),
            is_disabled: is_true("POWERTOOLS_METRICS_DISABLED"),
            are_by_project: is_true("METRICS_BY_PROJECT"),
        }
    }
}

/// What identifies an invocation in the log.
#[derive(Debug, Clone, Default)]
pub struct InvocationInfo<'a> {
    /// The function: `ingest` or `close`.
    pub function: &'static str,
    /// Lambda's request id.
    pub request_id: &'a str,
    /// The X-Ray trace id; empty if there is none.
    pub trace_id: &'a str,
    /// Whether it is the first invocation of its process.
    pub is_cold_start: bool,
}

/// The unit of a metric, as CloudWatch names it.
#[derive(Debug, Clone, Copy)]
enum Unit {
    Count,
    Seconds,
    None,
}

/// An invocation's line: metrics, and fields that are no metrics.
#[derive(Debug)]
pub struct MetricLine {
    metrics: Vec<(String, Unit, Value)>,
    fields: Map<String, Value>,
    /// The counts of projects that have metrics of their own.
    projects: BTreeMap<String, Vec<(&'static str, u64)>>,
}

impl MetricLine {
    /// Begins the line of an invocation.
    pub fn new(info: &InvocationInfo<'_>) -> Self {
        let mut line = Self { metrics: Vec::new(), fields: Map::new(), projects: BTreeMap::new() };
        line.field("level", "INFO");
        line.field("function", info.function);
        line.field("version", env!("CARGO_PKG_VERSION"));
        line.field("faas.invocation_id", info.request_id);
        line.field("faas.coldstart", info.is_cold_start);
        if !info.trace_id.is_empty() {
            line.field("xray_trace_id", info.trace_id);
        }
        line.count_if_any("ColdStart", u64::from(info.is_cold_start));
        line
    }

    /// Makes it the line of an invocation that failed as a whole, with a sentence that contains nothing of its payload.
    pub fn failed(&mut self, why: &str) {
        self.field("level", "ERROR");
        self.field("error", why);
        self.count("FailedInvocations", 1);
    }

    /// Adds a field that is no metric.
    pub fn field(&mut self, name: &str, value: impl Into<Value>) {
        self.fields.insert(name.to_owned(), value.into());
    }

    /// Adds a count, also if it is zero, so that an alarm on it has data.
    pub fn count(&mut self, name: &str, count: u64) {
        self.metrics.push((name.to_owned(), Unit::Count, count.into()));
    }

    /// Adds a count unless it is zero. A metric that is never written costs nothing.
    pub fn count_if_any(&mut self, name: &str, count: u64) {
        if count > 0 {
            self.count(name, count);
        }
    }

    /// Adds counts by name, each as the metric `prefix.name`.
    pub fn counts_by<'n>(&mut self, prefix: &str, counts: impl IntoIterator<Item = (&'n str, usize)>) {
        for (name, count) in counts {
            self.count_if_any(&format!("{prefix}.{name}"), count as u64);
        }
    }

    /// Adds a count of a project, unless it is zero. It is also part of the count of all.
    pub fn count_of_project(&mut self, project: &str, name: &'static str, count: u64) {
        if count > 0 {
            self.projects.entry(project.to_owned()).or_default().push((name, count));
        }
    }

    /// Adds what the manager counted.
    pub fn counted(&mut self, counted: Counted) {
        let Counted { conflicts, speculative_right, speculative_wrong, finalized_early, reopened, .. } = counted;
        self.count("Conflicts", conflicts);
        self.count_if_any("SpeculativeWritesRight", speculative_right);
        self.count_if_any("SpeculativeWritesWrong", speculative_wrong);
        self.count_if_any("EventsFinalizedEarly", finalized_early);
        self.count_if_any("SessionsCorrectedAfterEnd", reopened);
        #[cfg(feature = "replay")]
        {
            self.count_if_any("ReplayEvents", counted.replay_kept);
            self.count_if_any("ReplayBytes", counted.replay_bytes);
            self.count_if_any("ReplayEventsDropped", counted.replay_dropped);
        }
    }

    /// Adds what the calls of the table consumed.
    pub fn consumed(&mut self, consumed: &Consumed) {
        self.count("TableCalls", consumed.calls());
        let units = consumed.table_write_units() + consumed.index_write_units();
        for (name, units) in [("ReadUnits", consumed.read_units()), ("WriteUnits", units)] {
            self.metrics.push((name.to_owned(), Unit::None, units.into()));
        }
    }

    /// Adds the report of a close run.
    pub fn closed(&mut self, report: &CloseReport) {
        self.count("SessionsEnded", report.closed as u64);
        self.count_if_any("SessionsMerged", report.merged as u64);
        self.count_if_any("SessionsSplit", (report.corrections - report.merged) as u64);
        self.count("CloseFailures", (report.failed + report.unlisted) as u64);
        self.count_if_any("CorruptItems", report.corrupt as u64);
        self.count("Conflicts", report.conflicts as u64);
        self.count("TimelinesLeft", report.left() as u64);
        for (project, &closed) in &report.closed_by_project {
            self.count_of_project(project, "SessionsEnded", closed as u64);
        }
        let lag = report.oldest_due_seconds.unwrap_or(0);
        self.metrics.push(("CloseLag".to_owned(), Unit::Seconds, lag.into()));
        let CloseReport { examined, waiting, rescheduled, is_incomplete, .. } = *report;
        self.field("examined", examined);
        self.field("waiting", waiting);
        self.field("rescheduled", rescheduled);
        self.field("is_incomplete", is_incomplete);
    }

    /// Returns the line of JSON, as of this time. A line for each project with metrics of its own follows, because an object has one
    /// value for a dimension.
    pub fn json(mut self, message: &str, names: &MetricNames, now: Millis) -> String {
        let projects = std::mem::take(&mut self.projects);
        let function = self.fields.get("function").cloned().unwrap_or_default();
        let mut lines = self.line(message, names, now, &["service"]);
        for (project, counts) in projects {
            let mut line = Self { metrics: Vec::new(), fields: Map::new(), projects: BTreeMap::new() };
            line.field("level", "INFO");
            line.field("function", function.clone());
            line.field("project", project);
            counts.into_iter().for_each(|(name, count)| line.count(name, count));
            lines = lines + "\n" + &line.line("project", names, now, &["service", "project"]);
        }
        lines
    }

    /// Returns one line, with metrics of these dimensions.
    fn line(self, message: &str, names: &MetricNames, now: Millis, dimensions: &[&str]) -> String {
        let Self { metrics, fields, .. } = self;
        let mut line = Map::new();
        line.insert("timestamp".to_owned(), rfc3339(datetime(now)).into());
        line.insert("message".to_owned(), message.into());
        line.insert("service".to_owned(), names.service.as_str().into());
        line.extend(fields);
        if !names.is_disabled {
            let declared: Vec<Value> =
                metrics.iter().map(|(name, unit, _)| json!({"Name": name, "Unit": format!("{unit:?}")})).collect();
            let directive = json!({"Namespace": names.namespace, "Dimensions": [dimensions], "Metrics": declared});
            line.insert("_aws".to_owned(), json!({"Timestamp": now, "CloudWatchMetrics": [directive]}));
        }
        line.extend(metrics.into_iter().map(|(name, _, value)| (name, value)));
        Value::Object(line).to_string()
    }
}

#[cfg(test)]
mod tests;
