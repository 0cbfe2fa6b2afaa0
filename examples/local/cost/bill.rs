//! The bill of a month, by the formula of `docs/cost.md`. Pure.

use crate::prices::{MILLION_READ_UNITS, MILLION_WRITE_UNITS};

/// Dollars for a million Lambda requests.
const MILLION_LAMBDA_REQUESTS: f64 = 0.20;
/// Dollars for a second of a function with a gigabyte of memory.
const GIGABYTE_SECOND: f64 = 0.000_016_666_7;
/// Dollars for a million requests of an HTTP API.
const MILLION_HTTP_REQUESTS: f64 = 1.00;
/// Dollars for a million requests to SQS.
const MILLION_SQS_REQUESTS: f64 = 0.40;
/// Dollars for an hour of a processing unit of Managed Flink.
const FLINK_UNIT_HOUR: f64 = 0.11;
/// Dollars for a gigabyte of Managed Flink's running storage, a month.
const FLINK_GIGABYTE_MONTH: f64 = 0.10;

/// What Lambda adds to the price of a managed instance.
const INSTANCE_FEE: f64 = 0.15;

/// Write units of the conflicts, for each write.
const CONFLICTS_A_WRITE: f64 = 0.02;
/// Read units of the read before a write: half a unit, because it is eventually consistent.
const READ_UNITS_A_WRITE: f64 = 0.5;
/// Write units of opening a session, beyond the write of its batch: its entry in the due index.
const OPEN_UNITS: f64 = 1.0;
/// Write units of closing a session: the timeline, and its entry in the due index.
const CLOSE_UNITS: f64 = 2.0;
/// Write units of archiving a session.
const ARCHIVE_UNITS: f64 = 1.0;
/// The most events of a session that is not archived, because it stays in its visitor's timeline.
const SMALL_SESSION_EVENTS: f64 = 8.0;
/// Read units of closing a session: its timeline is read once, consistently.
const CLOSE_READ_UNITS: f64 = 1.0;
/// Partitions of the due index. Each is queried every minute, for half a read unit if nothing is due.
const SHARDS: f64 = 64.0;

/// Gigabytes of memory of a function.
const FUNCTION_GIGABYTES: f64 = 0.25;
/// Seconds that a batch takes: two round trips to DynamoDB, and the CPU of each event. Both are estimated.
const BATCH_SECONDS: f64 = 0.01;
const EVENT_SECONDS: f64 = 0.000_2;
/// Seconds of a processor that a batch takes, beside those of its events: measured, some 7 ms for 100 events of 33 visitors.
const BATCH_CPU_SECONDS: f64 = 0.001;
const EVENT_CPU_SECONDS: f64 = 0.000_07;
/// Managed instances: the least that run, one in each of three zones; their processors that functions have, as Lambda keeps one of
/// two to itself; and the share of these that is used on average, as Lambda scales out at half.
pub const MIN_INSTANCES: f64 = 3.0;
const INSTANCE_PROCESSORS: f64 = 1.0;
const INSTANCE_USE: f64 = 0.5;
/// Kilobytes of an event.
const EVENT_KILOBYTES: f64 = 1.0;
/// Kilobytes that an HTTP API, and SQS, bill as one request.
const HTTP_REQUEST_KILOBYTES: f64 = 512.0;
const SQS_REQUEST_KILOBYTES: f64 = 64.0;
/// Requests to SQS for a message: it is sent, received and deleted.
const REQUESTS_A_MESSAGE: f64 = 3.0;

/// Hours and minutes of a month, as AWS's own estimates count it.
const MONTH_HOURS: f64 = 730.0;
const MONTH_MINUTES: f64 = MONTH_HOURS * 60.0;
/// Processing units of the smallest Managed Flink application, one of them for orchestration, and its gigabytes of storage.
const FLINK_UNITS: f64 = 2.0;
const FLINK_GIGABYTES: f64 = 50.0;

/// A month's traffic.
#[derive(Debug, Clone, Copy)]
pub struct Traffic {
    /// Events a month.
    pub events: f64,
    /// Events a session.
    pub per_session: f64,
    /// Events a batch.
    pub batch: f64,
    /// The most events of one visitor in a batch.
    pub per_visitor: f64,
}

/// A line of the bill.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// The service that bills it; empty if it is that of the line above.
    pub service: &'static str,
    /// What is billed.
    pub what: &'static str,
    /// Dollars a month.
    pub dollars: f64,
}

impl Traffic {
    /// Returns the sessions of a month.
    pub fn sessions(&self) -> f64 {
        self.events / self.per_session
    }

    /// Returns the writes of a month: one for each visitor of a batch.
    fn writes(&self) -> f64 {
        self.sessions() * (self.per_session / self.per_visitor).ceil()
    }

    fn batches(&self) -> f64 {
        self.events / self.batch
    }

    /// Returns the lines of the bill of DynamoDB, but not those that are the same in an idle month.
    fn dynamodb(&self) -> [Line; 6] {
        let write = |units: f64| units * MILLION_WRITE_UNITS / 1e6;
        let read = |units: f64| units * MILLION_READ_UNITS / 1e6;
        let (writes, sessions) = (self.writes(), self.sessions());
        [
            line("DynamoDB", "read before a write", read(writes * READ_UNITS_A_WRITE)),
            line("", "write a visitor's part of a batch", write(writes)),
            line("", "conflicts", write(writes * CONFLICTS_A_WRITE)),
            line("", "open a session", write(sessions * OPEN_UNITS)),
            line("", "close it", write(sessions * CLOSE_UNITS) + read(sessions * CLOSE_READ_UNITS)),
            line("", "archive it", write(sessions * self.archive_units())),
        ]
    }

    /// Returns the write units of archiving a session.
    fn archive_units(&self) -> f64 {
        if self.per_session > SMALL_SESSION_EVENTS { ARCHIVE_UNITS } else { 0.0 }
    }

    /// Returns the lines of the bill, with events that come through an HTTP API.
    pub fn bill(&self) -> Vec<Line> {
        let batches = self.batches();
        let requests = batches + MONTH_MINUTES;
        let queries = SHARDS * MONTH_MINUTES * READ_UNITS_A_WRITE;
        let mut lines = self.dynamodb().to_vec();
        lines.extend([
            line("", "ask each minute what is due", queries * MILLION_READ_UNITS / 1e6),
            line("Lambda", "requests", requests * MILLION_LAMBDA_REQUESTS / 1e6),
            line("", "time", self.lambda_time()),
            line("HTTP API", "requests", self.requests_of(HTTP_REQUEST_KILOBYTES) * MILLION_HTTP_REQUESTS / 1e6),
        ]);
        lines
    }

    /// Returns the dollars a month of the ingest function's time.
    pub fn lambda_time(&self) -> f64 {
        let seconds = self.batches() * BATCH_SECONDS + self.events * EVENT_SECONDS;
        seconds * FUNCTION_GIGABYTES * GIGABYTE_SECOND
    }

    /// Returns the managed instances that the ingest function needs.
    pub fn instances(&self) -> f64 {
        let seconds = self.batches() * BATCH_CPU_SECONDS + self.events * EVENT_CPU_SECONDS;
        (seconds / (MONTH_HOURS * 3_600.0 * INSTANCE_PROCESSORS * INSTANCE_USE)).ceil().max(MIN_INSTANCES)
    }

    /// Returns the dollars a month of SQS, in place of the HTTP API.
    pub fn sqs(&self) -> f64 {
        self.requests_of(SQS_REQUEST_KILOBYTES) * REQUESTS_A_MESSAGE * MILLION_SQS_REQUESTS / 1e6
    }

    /// Returns the requests of a month that carry all batches, if this many kilobytes are billed as one.
    fn requests_of(&self, kilobytes: f64) -> f64 {
        self.batches() * (self.batch * EVENT_KILOBYTES / kilobytes).ceil()
    }

    /// Returns the dollars a month of a plain store at DynamoDB. For each event it reads the session and writes it, which also
    /// takes its entry in an index out and puts another one in. Each session is of a new visitor, who has no entry before.
    pub fn plain_store(&self) -> f64 {
        let units = self.events * 3.0 - self.sessions();
        (units * MILLION_WRITE_UNITS + self.events * 0.5 * MILLION_READ_UNITS) / 1e6
    }

    /// Returns the same traffic with sessions of one event.
    pub fn sparse(self) -> Self {
        Self { per_session: 1.0, per_visitor: 1.0, ..self }
    }
}

/// Returns the write units and the dollars of history: this many writes of a visitor's part of a batch, and sessions that are opened,
/// closed and archived. Nobody else writes these visitors, so there are no conflicts.
pub fn backfill_dollars(writes: f64, sessions: f64) -> (f64, f64) {
    let units = writes + sessions * (OPEN_UNITS + CLOSE_UNITS + ARCHIVE_UNITS);
    let read_units = writes * READ_UNITS_A_WRITE + sessions * CLOSE_READ_UNITS;
    (units, (units * MILLION_WRITE_UNITS + read_units * MILLION_READ_UNITS) / 1e6)
}

/// Returns the dollars a month of the smallest Managed Flink application. They do not depend on the traffic.
pub fn managed_flink() -> f64 {
    FLINK_UNITS * MONTH_HOURS * FLINK_UNIT_HOUR + FLINK_GIGABYTES * FLINK_GIGABYTE_MONTH
}

/// Returns the dollars a month of as many managed instances, of which each costs this much an hour.
pub fn managed_instances(instances: f64, instance_hour: f64) -> f64 {
    instances * MONTH_HOURS * instance_hour * (1.0 + INSTANCE_FEE)
}

/// Returns the sum of a bill.
pub fn total(lines: &[Line]) -> f64 {
    lines.iter().map(|line| line.dollars).sum()
}

fn line(service: &'static str, what: &'static str, dollars: f64) -> Line {
    Line { service, what, dollars }
}
