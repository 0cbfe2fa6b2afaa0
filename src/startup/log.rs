//! The functions' log: to standard error, which Lambda hands to CloudWatch.
//!
//! Each invocation writes one line of its own, with its metrics. Other lines are warnings and errors.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lambda_runtime::Context;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::clock::{Clock, SystemClock};
use crate::metrics::{InvocationInfo, MetricLine, MetricNames};
use crate::storage::Consumed;

/// Writes the invocations' lines.
#[derive(Debug)]
pub struct InvocationLog {
    names: MetricNames,
    consumed: Arc<Consumed>,
    is_cold_start: AtomicBool,
}

impl InvocationLog {
    pub(super) fn new(names: MetricNames, consumed: Arc<Consumed>) -> Self {
        Self { names, consumed, is_cold_start: AtomicBool::new(true) }
    }

    /// Begins an invocation's line.
    pub fn begin(&self, function: &'static str, context: &Context) -> MetricLine {
        MetricLine::new(&InvocationInfo {
            function,
            request_id: &context.request_id,
            trace_id: context.xray_trace_id.as_deref().unwrap_or_default(),
            is_cold_start: self.is_cold_start.swap(false, Ordering::Relaxed),
        })
    }

    /// Completes an invocation's line and writes it. What was consumed since the last line is this invocation's.
    pub fn write(&self, line: MetricLine, message: &str) {
        self.write_consumed(line, &self.consumed.take(), message);
    }

    /// Completes the line of an invocation that consumed this, and writes it.
    pub(super) fn write_consumed(&self, mut line: MetricLine, consumed: &Consumed, message: &str) {
        line.consumed(consumed);
        let json = line.json(message, &self.names, SystemClock.now());
        // A log that cannot be written must not fail the invocation.
        let _ = writeln!(std::io::stderr().lock(), "{json}");
    }
}

/// Starts the log of warnings and errors, with the level and format that Lambda's logging configuration sets.
#[allow(
    clippy::disallowed_methods,
    reason = "these variables are Lambda's, and logging starts before the settings are read"
)]
pub(super) fn start() {
    let level = std::env::var("AWS_LAMBDA_LOG_LEVEL").ok().and_then(|level| level.parse().ok());
    let filter = filter(level.unwrap_or(LevelFilter::INFO));
    let lines = fmt::layer().with_target(false).with_writer(std::io::stderr);
    if std::env::var("AWS_LAMBDA_LOG_FORMAT").is_ok_and(|format| format.eq_ignore_ascii_case("json")) {
        tracing_subscriber::registry().with(lines.json().with_span_list(false).with_filter(filter)).init();
    } else {
        tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    }
}

/// Returns what is logged at this level. The libraries below us log bodies, credentials and addresses at their finer levels, so
/// they are held at warnings, whatever level is set.
fn filter(level: LevelFilter) -> Targets {
    let others = level.min(LevelFilter::WARN);
    Targets::new()
        .with_default(others)
        .with_target("session_tracking", level)
        // The runtime's span, whose fields are the request and trace ids.
        .with_target("lambda_runtime", level.min(LevelFilter::INFO))
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn libraries_never_log_their_finer_levels() {
        let filter = filter(LevelFilter::TRACE);
        assert!(filter.would_enable("session_tracking::manager", &Level::TRACE));
        for library in ["aws_smithy_runtime::client", "hyper_util::client", "rustls::client", "aws_sigv4", "h2"] {
            assert!(
                filter.would_enable(library, &Level::WARN) && !filter.would_enable(library, &Level::INFO),
                "{library}"
            );
        }
        assert!(!filter.would_enable("lambda_runtime::requests", &Level::DEBUG));
        let quiet = super::filter(LevelFilter::ERROR);
        assert!(!quiet.would_enable("session_tracking", &Level::WARN) && !quiet.would_enable("hyper", &Level::WARN));
    }
}
