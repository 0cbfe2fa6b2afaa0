//! The table of the replay and of the first run: a DynamoDB in the process, which the client calls without a network.
//!
//! A replay makes more calls than it has events, and most calls are small: to carry one over a socket costs more than to do it.

use std::sync::mpsc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, HttpClient, Region, RuntimeComponents, StalledStreamProtectionConfig};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::http::StatusCode;
use dynoxide::actions::{batch_get_item, create_table, put_item, query};
use dynoxide::errors::DynoxideError;
use dynoxide::storage::Storage;
use futures_util::FutureExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use crate::dynamodb::create_table_request;

/// Keeps the rollback journal in memory, where it takes a few pages. In a file, SQLite's default, each write of the table makes
/// twenty more writes.
const SETTINGS: &str = "PRAGMA journal_mode = MEMORY";

/// The channel to the database, which has a thread of its own.
#[derive(Debug, Clone)]
struct Table(mpsc::Sender<Call>);

/// A call, and the channel for its answer.
type Call = (HttpRequest, oneshot::Sender<Answer>);
type Answer = Result<HttpResponse, ConnectorError>;

/// Returns a client of the template's table. The table is in a temporary file, which is deleted with the process and never synced;
/// a few megabytes of it are in memory.
///
/// # Errors
/// The database or its table cannot be created.
pub fn client() -> Result<Client, String> {
    let storage = open().map_err(|error| error.to_string())?;
    let request = create_table_request()?;
    at_once(create_table::execute(&storage, request)).map_err(|error| error.to_string())?;
    let (sender, calls) = mpsc::channel::<Call>();
    // While the database works on a call, the client prepares the next ones.
    std::thread::spawn(move || {
        for (request, sender) in calls {
            // If the replay was stopped, nobody waits for the answer.
            let _ = sender.send(answer(&storage, &request));
        }
    });
    // Nobody else can call this table, so calls are not signed. A call that fails would fail again, so it is not retried.
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("local"))
        .endpoint_url("http://local")
        .allow_no_auth()
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .http_client(Table(sender))
        .build();
    Ok(Client::from_conf(config))
}

fn open() -> Result<Storage, DynoxideError> {
    // SQLite keeps a database without a name in a temporary file.
    let storage = Storage::new("")?;
    storage.conn().execute_batch(SETTINGS)?;
    Ok(storage)
}

impl HttpClient for Table {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Table {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (sender, answer) = oneshot::channel();
        // Where the thread is gone, so is the sender, which tells.
        let _ = self.0.send((request, sender));
        HttpConnectorFuture::new(async move { answer.await.unwrap_or_else(|_| Err(broken("the database is gone"))) })
    }
}

/// Does what a call asks for.
fn answer(storage: &Storage, request: &HttpRequest) -> Answer {
    let target = request.headers().get("x-amz-target").unwrap_or_default();
    let body = request.body().bytes().unwrap_or_default();
    let result = match target.rsplit('.').next() {
        Some("BatchGetItem") => run(body, |request| batch_get_item::execute(storage, request)),
        Some("PutItem") => run(body, |request| put_item::execute(storage, request)),
        Some("Query") => run(body, |request| query::execute(storage, request)),
        _ => return Err(broken(format!("`{target}` is no operation of the replay's table"))),
    };
    let (status, body) = match result {
        Ok(body) => (200, body),
        Err(error) => (error.status_code(), error.to_json()),
    };
    Ok(HttpResponse::new(StatusCode::try_from(status).map_err(broken)?, body.into()))
}

/// Runs an operation, from JSON to JSON.
fn run<Q: DeserializeOwned, A: Serialize, F: Future<Output = Result<A, DynoxideError>>>(
    body: &[u8],
    operation: impl FnOnce(Q) -> F,
) -> Result<String, DynoxideError> {
    let request =
        serde_json::from_slice(body).map_err(|error| DynoxideError::SerializationException(error.to_string()))?;
    let answer = at_once(operation(request))?;
    serde_json::to_string(&answer).map_err(|error| DynoxideError::InternalServerError(error.to_string()))
}

/// Returns what the database's future comes to. It waits for nothing.
fn at_once<A>(future: impl Future<Output = Result<A, DynoxideError>>) -> Result<A, DynoxideError> {
    future.now_or_never().unwrap_or_else(|| Err(DynoxideError::InternalServerError("it waits".to_owned())))
}

fn broken(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ConnectorError {
    ConnectorError::other(reason.into(), None)
}
