//! A table that fails for a while: how many requests arrive for each call.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_config::SdkConfig;
use aws_sdk_dynamodb::config::{Credentials, Region, SharedCredentialsProvider};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::StreamExt;
use serde_json::{Value, json};
use session_tracking::aws;
use session_tracking::clock::SystemClock;
use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event};
use session_tracking::manager::{Outcome, SessionManager};
use session_tracking::session::Millis;
use session_tracking::storage::DynamoDbSessionStorage;

use crate::dynamodb::TABLE;
use crate::support::Seeded;

/// The maximum number of requests that arrive for each call, on average.
const MAX_AMPLIFICATION: f64 = 1.3;
/// Invocations before the table fails.
const WARM_UP_INVOCATIONS: usize = 100;
/// Invocations while the table fails.
const INVOCATIONS: usize = 200;

/// How a table fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    None,
    Error,
    Throttling,
    /// No answer.
    Silence,
    /// An answer that leaves every key unread.
    Unread,
}

/// An empty table that fails at a share of the requests.
struct Table {
    /// How it fails, and at one request in how many.
    failure: Mutex<(Failure, usize)>,
    arrived: AtomicUsize,
    /// The ids of the calls. All attempts of a call have one id.
    calls: Mutex<HashSet<String>>,
}

impl Table {
    fn next(&self, headers: &HeaderMap) -> Failure {
        let arrived = self.arrived.fetch_add(1, Ordering::Relaxed);
        let id = headers["amz-sdk-invocation-id"].to_str().unwrap().to_owned();
        self.calls.lock().unwrap().insert(id);
        let (failure, every) = *self.failure.lock().unwrap();
        if Seeded(arrived as u64).below(every) == 0 { failure } else { Failure::None }
    }

    /// Sets how the table fails, and resets the counts.
    fn fail(&self, failure: Failure, every: usize) {
        *self.failure.lock().unwrap() = (failure, every);
        self.arrived.store(0, Ordering::Relaxed);
        self.calls.lock().unwrap().clear();
    }

    /// Returns how many requests arrived for each call.
    fn amplification(&self) -> f64 {
        self.arrived.load(Ordering::Relaxed) as f64 / self.calls.lock().unwrap().len() as f64
    }
}

async fn answer(State(table): State<Arc<Table>>, headers: HeaderMap, body: String) -> Response {
    let failed = |status: StatusCode, name: &str| {
        (status, json!({ "__type": format!("com.amazonaws.dynamodb.v20120810#{name}") }).to_string()).into_response()
    };
    match table.next(&headers) {
        Failure::Error => failed(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError"),
        Failure::Throttling => failed(StatusCode::BAD_REQUEST, "ThrottlingException"),
        Failure::Silence => std::future::pending().await,
        Failure::Unread if headers["x-amz-target"].to_str().unwrap().ends_with("BatchGetItem") => {
            let body: Value = serde_json::from_str(&body).unwrap();
            json!({ "Responses": {}, "UnprocessedKeys": body["RequestItems"] }).to_string().into_response()
        }
        // An empty list of keys means the same as no list.
        Failure::None if headers["x-amz-target"].to_str().unwrap().ends_with("BatchGetItem") => {
            json!({ "Responses": {}, "UnprocessedKeys": { TABLE: { "Keys": [] } } }).to_string().into_response()
        }
        Failure::None | Failure::Unread => {
            json!({ "Responses": {}, "UnprocessedKeys": {} }).to_string().into_response()
        }
    }
}

/// Returns a table, and a manager on it with the functions' own client.
async fn world() -> (Arc<Table>, SessionManager<DynamoDbSessionStorage, SystemClock>) {
    let failure = Mutex::new((Failure::None, 1));
    let table = Arc::new(Table { failure, arrived: AtomicUsize::new(0), calls: Mutex::default() });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::new().route("/", post(answer)).with_state(Arc::clone(&table));
    tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
    let config = SdkConfig::builder()
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new("local", "local", None, None, "local")))
        .region(Region::new("local"))
        .endpoint_url(endpoint)
        .build();
    let storage = DynamoDbSessionStorage::new(aws::dynamodb(&aws::with_limits(config), None), TABLE);
    (table, SessionManager::new(SessionConfig::default(), storage))
}

/// Runs `count` invocations of one event each, `at_once` at the same time. Returns how many failed.
async fn invoke(manager: &SessionManager<DynamoDbSessionStorage, SystemClock>, count: usize, at_once: usize) -> usize {
    let invoke = |at: usize| async move {
        let json = json!({ "uuid": format!("e{at}"), "event": "x", "distinct_id": format!("v{at}") }).to_string();
        let delivery = Delivery { received_at: 1_773_144_000_000, trusts_received_at: false };
        let event = Event::parse(json.as_bytes(), delivery, manager.config()).unwrap();
        let outcomes = manager.resolve(&[event], Millis::MAX).await;
        usize::from(matches!(outcomes[..], [Outcome::Failed(_)]))
    };
    futures_util::stream::iter(0..count).map(invoke).buffer_unordered(at_once).fold(0, async |a, b| a + b).await
}

#[tokio::test]
async fn a_failing_table_gets_few_retries() {
    for (failure, every) in
        [(Failure::Error, 1), (Failure::Throttling, 1), (Failure::Error, 2), (Failure::Throttling, 2)]
    {
        let (table, manager) = world().await;
        assert_eq!(invoke(&manager, WARM_UP_INVOCATIONS, 1).await, 0);
        table.fail(failure, every);
        let failed = invoke(&manager, INVOCATIONS, 1).await;
        let amplification = table.amplification();
        println!(
            "{failure:?}, one in {every}: {amplification:.2} arrive for each call, {failed} of {INVOCATIONS} failed"
        );
        assert!(amplification <= MAX_AMPLIFICATION, "{amplification}");
    }
}

#[tokio::test]
async fn a_silent_table_gets_few_retries() {
    let (table, manager) = world().await;
    assert_eq!(invoke(&manager, WARM_UP_INVOCATIONS, 1).await, 0);
    table.fail(Failure::Silence, 1);
    assert_eq!(invoke(&manager, INVOCATIONS, 100).await, INVOCATIONS);
    let amplification = table.amplification();
    println!("{amplification:.2}");
    assert!(amplification <= MAX_AMPLIFICATION, "{amplification}");
}

#[tokio::test]
async fn unread_keys_get_few_retries() {
    for every in [1, 2] {
        let (table, manager) = world().await;
        assert_eq!(invoke(&manager, WARM_UP_INVOCATIONS, 1).await, 0);
        table.fail(Failure::Unread, every);
        let failed = invoke(&manager, INVOCATIONS, 1).await;
        // An unread key is not taken for a missing item.
        assert!(failed == INVOCATIONS || every > 1, "{failed}");
        // Each invocation reads once, and writes if the read succeeded.
        let asked = 2 * INVOCATIONS - failed;
        let amplification = table.arrived.load(Ordering::Relaxed) as f64 / asked as f64;
        println!("one in {every}: {amplification:.2}, {failed} of {INVOCATIONS} failed");
        assert!(amplification <= MAX_AMPLIFICATION, "{amplification}");
    }
}

#[tokio::test]
async fn rare_failures_are_retried() {
    let (table, manager) = world().await;
    for failure in [Failure::Error, Failure::Throttling, Failure::Silence, Failure::Unread] {
        table.fail(failure, 50);
        assert_eq!(invoke(&manager, 100, 1).await, 0, "{failure:?}");
    }
}
