//! A stub of DynamoDB on a port of the loopback interface. It keeps items in memory and checks nothing.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::HeaderMap;
use axum::routing::post;
use serde_json::{Map, Value, json};

use crate::Failure;
use crate::tls::TlsServer;

/// How long each call takes: about as long as at AWS, so that concurrent calls overlap like they do there.
const CALL_TIME: Duration = Duration::from_millis(3);

/// A running stub.
pub struct Table {
    /// Its URL.
    pub url: String,
    /// A file with its authority's certificate; `None` without TLS.
    pub authority: Option<PathBuf>,
    state: Arc<Mutex<TableState>>,
}

#[derive(Default)]
struct TableState {
    items: HashMap<String, Value>,
    /// How many calls were made.
    calls: usize,
}

impl TableState {
    /// Returns an item's key as one string. The plain store's table has no sort key.
    fn key_string(key: &Value) -> String {
        ["pk", "sk"].map(|name| key[name]["S"].as_str().unwrap_or_default()).join(" ")
    }

    fn answer(&mut self, operation: &str, request: &Value) -> Result<Value, String> {
        self.calls += 1;
        match operation {
            "PutItem" => {
                self.items.insert(Self::key_string(&request["Item"]), request["Item"].clone());
                Ok(json!({}))
            }
            "GetItem" => Ok(match self.items.get(&Self::key_string(&request["Key"])) {
                Some(item) => json!({ "Item": item }),
                None => json!({}),
            }),
            // The plain store's expression is `SET name = :name, …`, so each value is the attribute of the same name.
            "UpdateItem" => {
                let mut item = request["Key"].as_object().cloned().unwrap_or_default();
                let values = request["ExpressionAttributeValues"].as_object().cloned().unwrap_or_default();
                item.extend(values.into_iter().map(|(name, value)| (name.trim_start_matches(':').to_owned(), value)));
                self.items.insert(Self::key_string(&request["Key"]), Value::Object(item));
                Ok(json!({}))
            }
            "BatchGetItem" => {
                let mut responses = Map::new();
                for (table, asked) in request["RequestItems"].as_object().into_iter().flatten() {
                    let keys = asked["Keys"].as_array().into_iter().flatten();
                    let items: Vec<Value> =
                        keys.filter_map(|key| self.items.get(&Self::key_string(key)).cloned()).collect();
                    responses.insert(table.clone(), items.into());
                }
                Ok(json!({ "Responses": responses, "UnprocessedKeys": {} }))
            }
            other => Err(format!("the stub does not know {other}")),
        }
    }
}

async fn call(State(state): State<Arc<Mutex<TableState>>>, headers: HeaderMap, body: Bytes) -> Result<String, String> {
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    let operation = target.rsplit('.').next().unwrap_or_default();
    let request: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    let answer = state.lock().unwrap_or_else(PoisonError::into_inner).answer(operation, &request)?;
    tokio::time::sleep(CALL_TIME).await;
    Ok(answer.to_string())
}

impl Table {
    fn router(state: &Arc<Mutex<TableState>>) -> Router {
        Router::new().route("/", post(call)).layer(DefaultBodyLimit::disable()).with_state(Arc::clone(state))
    }

    /// Starts a stub behind TLS 1.3, with its own certificate authority.
    ///
    /// # Errors
    /// No certificate can be made, or no port is free.
    pub async fn start_with_tls() -> Result<Self, Failure> {
        let state = Arc::default();
        let TlsServer { url, authority, .. } = TlsServer::start(Self::router(&state)).await?;
        let path = std::env::temp_dir().join(format!("invocation-{}.pem", std::process::id()));
        std::fs::write(&path, authority)?;
        Ok(Self { url, authority: Some(path), state })
    }

    /// Starts a stub with plain HTTP.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start() -> Result<Self, Failure> {
        let state = Arc::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let router = Self::router(&state);
        tokio::spawn(async { axum::serve(listener, router).await });
        Ok(Self { url, authority: None, state })
    }

    /// Returns how many calls were made so far.
    pub fn calls(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).calls
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        if let Some(path) = &self.authority {
            let _ = std::fs::remove_file(path);
        }
    }
}
