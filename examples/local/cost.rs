//! Prints the bill of a month of traffic, by the formula of `docs/cost.md`.

mod bill;

use std::io::Write;

use crate::cli::{Command, Files, Opt, Takes, Words};
use crate::failure::Failure;
use crate::prices::PRICES_OF;
pub use bill::backfill_dollars;
use bill::{Line, MIN_INSTANCES, Traffic, managed_flink, managed_instances, total};

pub const COMMAND: Command = Command {
    name: "cost",
    about: "Prints what a month of traffic costs at AWS, line by line, and beside it two other ways.",
    files: Files::None,
    options: &[
        Opt {
            name: "events-per-month",
            value: "N",
            takes: Takes::Whole(1, 1_000_000_000_000),
            default: "10000000",
            about: "events a month",
        },
        Opt {
            name: "events-per-session",
            value: "N",
            takes: Takes::Whole(1, 1_000_000),
            default: "20",
            about: "events a session, on average",
        },
        Opt { name: "batch", value: "N", takes: Takes::Whole(1, 1000), default: "100", about: "events a batch" },
        Opt {
            name: "per-visitor",
            value: "N",
            takes: Takes::Whole(1, 1000),
            default: "3",
            about: "events of the same visitor in a batch; fewer if a batch or a session has fewer",
        },
        Opt {
            name: "instance-hour",
            value: "DOLLARS",
            takes: Takes::Dollars,
            default: "0.0816",
            about: "an hour of an EC2 instance of two processors, for Managed Instances",
        },
    ],
    notes: "
The prices are those of us-east-1, on demand. The formula, what was measured and what is estimated: docs/cost.md.",
};

/// The most characters of what is described on a line.
const LABEL_WIDTH: usize = 46;
/// The most managed instances that are considered.
const MAX_INSTANCES: u32 = 1_000;

pub struct Options {
    traffic: Traffic,
    /// Dollars for an hour of an instance.
    instance_hour: f64,
}

impl Options {
    /// Reads the options of the command line.
    pub fn read(words: &Words) -> Result<Self, Failure> {
        let [events, per_session, batch, per_visitor] = [
            words.whole("events-per-month")?,
            words.whole("events-per-session")?,
            words.whole("batch")?,
            words.whole("per-visitor")?,
        ];
        if per_visitor > batch && words.text("per-visitor")?.is_some() {
            return Err(Failure::usage(format!(
                "`--per-visitor` is {per_visitor}, but a batch has {batch} events (`--batch`): at most that many are of one visitor"
            )));
        }
        if events < per_session {
            return Err(Failure::usage(format!(
                "`--events-per-session` is {per_session}, but the month has {events} events (`--events-per-month`)"
            )));
        }
        let per_visitor = per_visitor.min(batch).min(per_session);
        let [events, per_session, batch, per_visitor] =
            [events, per_session, batch, per_visitor].map(|number| number as f64);
        let traffic = Traffic { events, per_session, batch, per_visitor };
        Ok(Self { traffic, instance_hour: words.dollars("instance-hour")? })
    }
}

/// Prints the bill.
pub fn run(options: Options) -> Result<(), Failure> {
    let bill = printed(options.traffic, options.instance_hour);
    std::io::stdout().write_all(bill.as_bytes()).map_err(|error| Failure::output("standard output", &error))
}

/// Returns the bill of a month, what it is compared with, and the assumptions.
fn printed(traffic: Traffic, instance_hour: f64) -> String {
    let lines = traffic.bill();
    let [events, sessions, per_session] = [traffic.events, traffic.sessions(), traffic.per_session].map(whole);
    let [batch, per_visitor] = [traffic.batch, traffic.per_visitor].map(whole);
    let mut page = format!(
        "Events a month: {events}, in {sessions} sessions of {per_session}\n\
         Events a batch: {batch}; of one visitor: {per_visitor}\n\n{:LABEL_WIDTH$}{:>14}{:>20}\n",
        "", "$ a month", "$ a million events"
    );
    let mut row = |label: String, dollars: f64| {
        page += &format!("{label:LABEL_WIDTH$}{:>14}{:>20.3}\n", money(dollars), dollars / traffic.events * 1e6);
    };
    for Line { service, what, dollars } in &lines {
        row(format!("{service:<10}{what}"), *dollars);
    }
    row("total".to_owned(), total(&lines));
    row("the same with SQS in place of the HTTP API".to_owned(), with_sqs(traffic));
    row("the same on Lambda Managed Instances".to_owned(), on_instances(traffic, instance_hour));
    row("the same with one event a session".to_owned(), total(&traffic.sparse().bill()));
    row("a plain store at DynamoDB, without an API".to_owned(), traffic.plain_store());
    row("a plain store, one event a session".to_owned(), traffic.sparse().plain_store());
    row("Managed Flink, without a stream".to_owned(), managed_flink());
    page + &notes(traffic, instance_hour)
}

fn notes(traffic: Traffic, instance_hour: f64) -> String {
    let cheaper = events_where_flink_is_cheaper(traffic);
    let instances = match events_where_instances_are_cheaper(traffic, instance_hour) {
        Some(events) => format!("from {} million on", whole(events / 1e6)),
        None => "at no number".to_owned(),
    };
    format!(
        "\nWith such sessions, Flink costs less from {} million events a month on,\n\
         and with such batches, Managed Instances do {instances}.\n\n\
         Assumed: us-east-1, on demand, no free tier; prices of {PRICES_OF}, as other\n\
         sites quoted them. Events of 1 KB; functions of 256 MB that take 10 ms a batch\n\
         and 0.2 ms an event; 0.02 conflicts a write. Sessions of up to 8 events stay in\n\
         their visitor's timeline; longer ones are archived. The plain store reads and\n\
         writes for each event and never closes a session. Managed Instances:\n\
         {} of them, at ${instance_hour} an hour and 15 % more. Flink is its smallest\n\
         application: one processing unit and one for orchestration. The formula:\n\
         docs/cost.md.\n",
        whole(cheaper / 1e6),
        whole(traffic.instances()),
    )
}

/// Returns the total of the bill with the ingest function on Managed Instances, which are billed in place of its time.
fn on_instances(traffic: Traffic, instance_hour: f64) -> f64 {
    total(&traffic.bill()) - traffic.lambda_time() + managed_instances(traffic.instances(), instance_hour)
}

/// Returns the events a month from which on Managed Instances cost less than what Lambda takes for its time; `None` if they never
/// do. It looks at up to as many instances as an account may be expected to have.
fn events_where_instances_are_cheaper(traffic: Traffic, instance_hour: f64) -> Option<f64> {
    let an_event = traffic.lambda_time() / traffic.events;
    let equal = |instances: u32| managed_instances(f64::from(instances), instance_hour) / an_event;
    let suffice = |instances: u32| Traffic { events: equal(instances), ..traffic }.instances() <= f64::from(instances);
    (MIN_INSTANCES as u32..=MAX_INSTANCES).find(|&instances| suffice(instances)).map(equal)
}

/// Returns the total of the bill with SQS in place of the HTTP API.
fn with_sqs(traffic: Traffic) -> f64 {
    let lines = traffic.bill();
    let others = lines.iter().filter(|line| line.service != "HTTP API");
    others.map(|line| line.dollars).sum::<f64>() + traffic.sqs()
}

/// Returns the events a month at which the bill is that of Managed Flink.
fn events_where_flink_is_cheaper(traffic: Traffic) -> f64 {
    let idle = total(&Traffic { events: 0.0, ..traffic }.bill());
    let an_event = (total(&traffic.bill()) - idle) / traffic.events;
    (managed_flink() - idle) / an_event
}

/// Returns dollars with cents and with commas between thousands.
fn money(dollars: f64) -> String {
    let cents = (dollars * 100.0).round();
    format!("{}.{:02}", whole((cents / 100.0).floor()), (cents % 100.0) as u32)
}

/// Returns a whole number with commas between thousands.
fn whole(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
