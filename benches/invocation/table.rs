//! A DynamoDB that keeps what it is given and asks no questions, on a port of the loopback interface.

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

/// How long each call takes, about as long as at AWS: calls that are made at once overlap, as they do there.
const CALL: Duration = Duration::from_millis(3);

/// Where it is, whom to trust for it, and the calls that came.
pub struct Table {
    pub url: String,
    /// A file with its authority's certificate; none without TLS.
    pub authority: Option<PathBuf>,
    state: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    items: HashMap<String, Value>,
    calls: usize,
}

impl Kept {
    /// An item's keys as one text, in either kind of table.
    fn name(key: &Value) -> String {
        ["pk", "sk"].map(|name| key[name]["S"].as_str().unwrap_or_default()).join(" ")
    }

    fn answer(&mut self, operation: &str, request: &Value) -> Result<Value, String> {
        self.calls += 1;
        match operation {
            "PutItem" => {
                self.items.insert(Self::name(&request["Item"]), request["Item"].clone());
                Ok(json!({}))
            }
            "GetItem" => Ok(match self.items.get(&Self::name(&request["Key"])) {
                Some(item) => json!({ "Item": item }),
                None => json!({}),
            }),
            // Of `SET name = :name, …`: each value is the attribute of its name.
            "UpdateItem" => {
                let mut item = request["Key"].as_object().cloned().unwrap_or_default();
                let values = request["ExpressionAttributeValues"].as_object().cloned().unwrap_or_default();
                item.extend(values.into_iter().map(|(name, value)| (name.trim_start_matches(':').to_owned(), value)));
                self.items.insert(Self::name(&request["Key"]), Value::Object(item));
                Ok(json!({}))
            }
            "BatchGetItem" => {
                let mut responses = Map::new();
                for (table, asked) in request["RequestItems"].as_object().into_iter().flatten() {
                    let keys = asked["Keys"].as_array().into_iter().flatten();
                    let items: Vec<Value> = keys.filter_map(|key| self.items.get(&Self::name(key)).cloned()).collect();
                    responses.insert(table.clone(), items.into());
                }
                Ok(json!({ "Responses": responses, "UnprocessedKeys": {} }))
            }
            other => Err(format!("the stub does not know {other}")),
        }
    }
}

async fn call(State(state): State<Arc<Mutex<Kept>>>, headers: HeaderMap, body: Bytes) -> Result<String, String> {
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    let operation = target.rsplit('.').next().unwrap_or_default();
    let request: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    let answer = state.lock().unwrap_or_else(PoisonError::into_inner).answer(operation, &request)?;
    tokio::time::sleep(CALL).await;
    Ok(answer.to_string())
}

impl Table {
    fn router(state: &Arc<Mutex<Kept>>) -> Router {
        Router::new().route("/", post(call)).layer(DefaultBodyLimit::disable()).with_state(Arc::clone(state))
    }

    /// Starts one behind TLS 1.3, with an authority of its own.
    pub async fn start_with_tls() -> Result<Self, Failure> {
        let state = Arc::default();
        let TlsServer { url, authority } = TlsServer::start(Self::router(&state)).await?;
        let path = std::env::temp_dir().join(format!("invocation-{}.pem", std::process::id()));
        std::fs::write(&path, authority)?;
        Ok(Self { url, authority: Some(path), state })
    }

    /// Starts one that speaks plain HTTP.
    pub async fn start() -> Result<Self, Failure> {
        let state = Arc::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let router = Self::router(&state);
        tokio::spawn(async { axum::serve(listener, router).await });
        Ok(Self { url, authority: None, state })
    }

    /// How many calls have come so far.
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
