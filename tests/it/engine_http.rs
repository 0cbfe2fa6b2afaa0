//! Many workers and closers at once on a real engine, over HTTP. In the end a consumer of their output has the oracle's sessions.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection, ProjectionType,
    ScalarAttributeType,
};
use serde_json::Value;
use session_tracking::clock::{Clock, SystemClock};
use session_tracking::config::SessionConfig;
use session_tracking::manager::{CLOSE_GRACE_MS, SessionManager};
use session_tracking::output::MemoryOutput;
use session_tracking::session::Millis;
use session_tracking::storage::{Consumed, DUE_SHARDS, DynamoDbSessionStorage, SessionStorage};
use session_tracking::trigger::Ingest;

use crate::dynamodb::{EmbeddedDynamoDb, TABLE, client, table_definition};
use crate::pipeline::{self, Queue, Shape};
use crate::storage;

const WORKERS: usize = 8;
const CLOSERS: usize = 2;
/// The maximum number of messages in an invocation.
const MAX_BATCH: usize = 6;
const START: Millis = 1_773_144_000_000;
const TIMEOUT_S: Millis = 60;
const LATENESS_S: Millis = 1_200;
/// Longer than everything here takes, in milliseconds.
const YEAR_MS: Millis = 365 * 86_400_000;

/// What all workers and closers share.
struct Run {
    endpoint: String,
    config: SessionConfig,
    queue: Queue,
    output: MemoryOutput,
    rejects: MemoryOutput,
    consumed: Arc<Consumed>,
}

/// The clock of a worker or a closer. Pauses and random numbers are real.
enum RunClock<'r> {
    /// A worker's clock: the time of the newest message.
    Worker(&'r Run),
    /// A closer's clock. It closes exactly what no event can change any more.
    Closer(&'r Run),
    /// The clock after the last event: everything is over.
    AtTheEnd,
}

impl Clock for RunClock<'_> {
    fn now(&self) -> Millis {
        match self {
            Self::Worker(run) => run.queue.newest(),
            Self::Closer(run) => {
                run.queue.earliest().unwrap_or_else(|| run.queue.newest()) + LATENESS_S * 1000 + CLOSE_GRACE_MS
            }
            Self::AtTheEnd => START + YEAR_MS,
        }
    }

    async fn sleep(&self, time: Duration) {
        SystemClock.sleep(time).await;
    }

    fn random(&self) -> u64 {
        SystemClock.random()
    }
}

impl Run {
    /// Returns a manager with a client of its own, as each function has.
    fn manager<'r>(&self, clock: RunClock<'r>) -> SessionManager<DynamoDbSessionStorage, RunClock<'r>> {
        let storage = DynamoDbSessionStorage::new(client(&self.endpoint), TABLE).counting(Arc::clone(&self.consumed));
        // The clock at the end is a year later, and every session is to be found then.
        let retention = chrono::TimeDelta::milliseconds(2 * YEAR_MS);
        SessionManager::with_clock(self.config.clone(), storage, clock).with_retention(retention)
    }

    async fn work(&'static self) {
        let manager = self.manager(RunClock::Worker(self));
        let ingest = Ingest {
            manager,
            output: &self.output,
            rejects: &self.rejects,
            origins: Default::default(),
            public: Default::default(),
        };
        while !self.queue.is_done() {
            match self.queue.take(MAX_BATCH) {
                Some(batch) => {
                    let answer = ingest.handle(&self.queue.payload(&batch), Millis::MAX).await.unwrap();
                    self.queue.answered(batch, &answer);
                }
                None => SystemClock.sleep(Duration::from_millis(1)).await,
            }
        }
    }

    async fn close(&'static self) {
        let manager = self.manager(RunClock::Closer(self));
        while !self.queue.is_done() {
            let report = manager.cleanup(&&self.output, Millis::MAX).await;
            assert_eq!(report.failed, 0, "{report:?}");
            SystemClock.sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Runs everything on an engine with an empty table.
async fn run(endpoint: &str) {
    let rules = serde_json::json!({ "timeout_seconds": TIMEOUT_S, "lateness_seconds": LATENESS_S });
    let (timeout, disorder) = (TIMEOUT_S * 1000, LATENESS_S * 500);
    let events = Shape { seed: 1, visitors: 60, max_events: 700, timeout, start: START, disorder }.events();
    assert!(events.len() >= 3_000, "{} events", events.len());
    // Tasks on several threads need a `'static` reference. Leaking one run a test does no harm.
    let run: &'static Run = Box::leak(Box::new(Run {
        endpoint: endpoint.to_owned(),
        config: SessionConfig::from_rules(rules).unwrap(),
        queue: Queue::new(2, events, LATENESS_S * 1000),
        output: MemoryOutput::default(),
        rejects: MemoryOutput::default(),
        consumed: Arc::default(),
    }));
    let mut tasks: Vec<_> = (0..WORKERS).map(|_| tokio::spawn(run.work())).collect();
    tasks.extend((0..CLOSERS).map(|_| tokio::spawn(run.close())));
    for task in tasks {
        task.await.unwrap();
    }
    let conflicts = run.consumed.conflicts();
    assert!(conflicts > 0, "there was no conflict");

    let manager = run.manager(RunClock::AtTheEnd);
    let mut lines = run.output.take();
    let count = |name: &str| {
        let distinct: HashSet<&String> =
            lines.iter().filter(|line| line.contains(&format!(r#""event":"{name}""#))).collect();
        distinct.len()
    };
    let (ends, merges, splits) = (count("$session_end"), count("$session_merged"), count("$session_split"));
    while manager.cleanup(&&run.output, Millis::MAX).await.examined > 0 {}
    lines.extend(run.output.take());
    lines.extend(run.rejects.take());
    let sessions = pipeline::check(&run.queue.events, &run.config, &lines);
    println!(
        "{} events, {} sessions, {conflicts} conflicts; meanwhile {ends} ends, {merges} merges and {splits} splits emitted",
        run.queue.events.len(),
        sessions.len()
    );
    assert!(ends > sessions.len() / 2 && merges > 0 && splits > 0, "the closers had little to do meanwhile");
    check_table(&manager, &sessions).await;
}

/// Checks that every session is found by its id as it was emitted, and that nothing is left to close.
async fn check_table(manager: &SessionManager<DynamoDbSessionStorage, RunClock<'_>>, sessions: &[Value]) {
    for session in sessions {
        let found = manager.get(session["id"].as_str().unwrap()).await.unwrap();
        assert_eq!(&serde_json::to_value(found).unwrap(), session);
    }
    for shard in 0..DUE_SHARDS {
        assert_eq!(manager.storage().due(shard, None, Millis::MAX / 2, 10).await, Ok(Vec::new()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_workers_on_the_embedded_dynamodb() {
    run(&EmbeddedDynamoDb::start(0).unwrap().endpoint).await;
}

/// Runs the same, and the contract, on DynamoDB Local.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a DynamoDB Local at $DYNAMODB_LOCAL: run ci/dynamodb-local"]
#[allow(clippy::disallowed_methods, reason = "a test's own setting")]
async fn dynamodb_local() {
    let endpoint = std::env::var("DYNAMODB_LOCAL").expect("DYNAMODB_LOCAL is the endpoint, e.g. http://127.0.0.1:8000");
    let client = client(&endpoint);
    create_table(&client, TABLE).await;
    storage::contract(DynamoDbSessionStorage::new(client.clone(), TABLE)).await;
    client.delete_table().table_name(TABLE).send().await.unwrap();
    create_table(&client, TABLE).await;
    run(&endpoint).await;
}

/// Creates the table of the template with this name.
pub async fn create_table(client: &Client, name: &str) {
    let table = table_definition(include_str!("../../template.yaml")).unwrap();
    let string = |value: &Value, name: &str| value[name].as_str().unwrap().to_owned();
    let keys = |value: &Value| -> Vec<KeySchemaElement> {
        let element = |key: &Value| {
            let kind = KeyType::from(string(key, "KeyType").as_str());
            KeySchemaElement::builder().attribute_name(string(key, "AttributeName")).key_type(kind).build().unwrap()
        };
        value["KeySchema"].as_array().unwrap().iter().map(element).collect()
    };
    let attribute = |value: &Value| {
        let kind = ScalarAttributeType::from(string(value, "AttributeType").as_str());
        AttributeDefinition::builder()
            .attribute_name(string(value, "AttributeName"))
            .attribute_type(kind)
            .build()
            .unwrap()
    };
    let index = |value: &Value| {
        let projection = ProjectionType::from(string(&value["Projection"], "ProjectionType").as_str());
        let projection = Projection::builder().projection_type(projection).build();
        let index = GlobalSecondaryIndex::builder().index_name(string(value, "IndexName"));
        index.set_key_schema(Some(keys(value))).projection(projection).build().unwrap()
    };
    let all = |name: &str| table[name].as_array().unwrap().iter();
    client
        .create_table()
        .table_name(name)
        .set_attribute_definitions(Some(all("AttributeDefinitions").map(attribute).collect()))
        .set_key_schema(Some(keys(&table)))
        .set_global_secondary_indexes(Some(all("GlobalSecondaryIndexes").map(index).collect()))
        .billing_mode(BillingMode::from(string(&table, "BillingMode").as_str()))
        .send()
        .await
        .unwrap();
}
