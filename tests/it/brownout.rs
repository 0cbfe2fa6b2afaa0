//! A table that fails for a while: what arrives there over what was asked for.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_sdk_dynamodb::config::{Credentials, Region};
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

/// What may arrive for each call.
const MOST: f64 = 1.3;
/// Invocations while the table is well, and while it is not.
const WARM: usize = 100;
const INVOCATIONS: usize = 200;

/// How a table fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failing {
    Never,
    Error,
    Throttling,
    Silence,
    /// An answer that leaves every key unread.
    Unread,
}

/// A table that holds nothing, and fails at one request in so many.
struct Table {
    failing: Mutex<(Failing, usize)>,
    arrived: AtomicUsize,
    /// The calls; all attempts of one bear one id.
    calls: Mutex<HashSet<String>>,
}

impl Table {
    fn next(&self, headers: &HeaderMap) -> Failing {
        let arrived = self.arrived.fetch_add(1, Ordering::Relaxed);
        let id = headers["amz-sdk-invocation-id"].to_str().unwrap().to_owned();
        self.calls.lock().unwrap().insert(id);
        let (failing, every) = *self.failing.lock().unwrap();
        if Seeded(arrived as u64).below(every) == 0 { failing } else { Failing::Never }
    }

    /// Fails so from now on, and counts anew.
    fn fail(&self, failing: Failing, every: usize) {
        *self.failing.lock().unwrap() = (failing, every);
        self.arrived.store(0, Ordering::Relaxed);
        self.calls.lock().unwrap().clear();
    }

    fn amplification(&self) -> f64 {
        self.arrived.load(Ordering::Relaxed) as f64 / self.calls.lock().unwrap().len() as f64
    }
}

async fn answer(State(table): State<Arc<Table>>, headers: HeaderMap, body: String) -> Response {
    let failed = |status: StatusCode, name: &str| {
        (status, json!({ "__type": format!("com.amazonaws.dynamodb.v20120810#{name}") }).to_string()).into_response()
    };
    match table.next(&headers) {
        Failing::Error => failed(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError"),
        Failing::Throttling => failed(StatusCode::BAD_REQUEST, "ThrottlingException"),
        Failing::Silence => std::future::pending().await,
        Failing::Unread if headers["x-amz-target"].to_str().unwrap().ends_with("BatchGetItem") => {
            let body: Value = serde_json::from_str(&body).unwrap();
            json!({ "Responses": {}, "UnprocessedKeys": body["RequestItems"] }).to_string().into_response()
        }
        // A list of no keys says as much as none.
        Failing::Never if headers["x-amz-target"].to_str().unwrap().ends_with("BatchGetItem") => {
            json!({ "Responses": {}, "UnprocessedKeys": { TABLE: { "Keys": [] } } }).to_string().into_response()
        }
        Failing::Never | Failing::Unread => {
            json!({ "Responses": {}, "UnprocessedKeys": {} }).to_string().into_response()
        }
    }
}

/// A manager with the functions' own client, on a table of its own.
async fn world() -> (Arc<Table>, SessionManager<DynamoDbSessionStorage, SystemClock>) {
    let failing = Mutex::new((Failing::Never, 1));
    let table = Arc::new(Table { failing, arrived: AtomicUsize::new(0), calls: Mutex::default() });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::new().route("/", post(answer)).with_state(Arc::clone(&table));
    tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
    let config = aws::loader()
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .credentials_provider(Credentials::new("local", "local", None, None, "local"))
        .region(Region::new("local"))
        .endpoint_url(endpoint)
        .load()
        .await;
    let storage = DynamoDbSessionStorage::new(aws::dynamodb(&config), TABLE);
    (table, SessionManager::new(SessionConfig::default(), storage))
}

/// So many invocations of an event each, some at the same time; how many failed.
async fn invoke(manager: &SessionManager<DynamoDbSessionStorage, SystemClock>, count: usize, at_once: usize) -> usize {
    let invoke = |at: usize| async move {
        let text = json!({ "uuid": format!("e{at}"), "event": "x", "distinct_id": format!("v{at}") }).to_string();
        let delivery = Delivery { received_at: 1_773_144_000_000, trusts_received_at: false };
        let event = Event::parse(text.as_bytes(), delivery, manager.config()).unwrap();
        let outcomes = manager.resolve(&[event], Millis::MAX).await;
        usize::from(matches!(outcomes[..], [Outcome::Failed(_)]))
    };
    futures_util::stream::iter(0..count).map(invoke).buffer_unordered(at_once).fold(0, async |a, b| a + b).await
}

#[tokio::test]
async fn a_table_that_fails_is_not_asked_much_more() {
    for (failing, every) in
        [(Failing::Error, 1), (Failing::Throttling, 1), (Failing::Error, 2), (Failing::Throttling, 2)]
    {
        let (table, manager) = world().await;
        assert_eq!(invoke(&manager, WARM, 1).await, 0);
        table.fail(failing, every);
        let failed = invoke(&manager, INVOCATIONS, 1).await;
        let amplification = table.amplification();
        println!(
            "{failing:?}, one in {every}: {amplification:.2} arrive for each call, {failed} of {INVOCATIONS} failed"
        );
        assert!(amplification <= MOST, "{amplification}");
    }
}

#[tokio::test]
async fn a_table_that_never_answers_is_not_asked_much_more() {
    let (table, manager) = world().await;
    assert_eq!(invoke(&manager, WARM, 1).await, 0);
    table.fail(Failing::Silence, 1);
    assert_eq!(invoke(&manager, INVOCATIONS, 100).await, INVOCATIONS);
    let amplification = table.amplification();
    println!("{amplification:.2}");
    assert!(amplification <= MOST, "{amplification}");
}

#[tokio::test]
async fn keys_left_unread_are_not_asked_for_much_more() {
    for every in [1, 2] {
        let (table, manager) = world().await;
        assert_eq!(invoke(&manager, WARM, 1).await, 0);
        table.fail(Failing::Unread, every);
        let failed = invoke(&manager, INVOCATIONS, 1).await;
        // What is not read is not taken for nothing.
        assert!(failed == INVOCATIONS || every > 1, "{failed}");
        // Each invocation asks once, and writes if it was answered.
        let asked = 2 * INVOCATIONS - failed;
        let amplification = table.arrived.load(Ordering::Relaxed) as f64 / asked as f64;
        println!("one in {every}: {amplification:.2}, {failed} of {INVOCATIONS} failed");
        assert!(amplification <= MOST, "{amplification}");
    }
}

#[tokio::test]
async fn a_hiccup_goes_unseen() {
    let (table, manager) = world().await;
    for failing in [Failing::Error, Failing::Throttling, Failing::Silence, Failing::Unread] {
        table.fail(failing, 50);
        assert_eq!(invoke(&manager, 100, 1).await, 0, "{failing:?}");
    }
}
