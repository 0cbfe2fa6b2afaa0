//! A recorded request, and its payload as API Gateway hands it over.

use std::collections::BTreeMap;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::Deserialize;
use serde_json::{Value, json};
use session_tracking::event::time_of_json;
use session_tracking::session::Millis;

/// The files of `tests/data/clients`.
pub const CLIENTS: [&str; 21] = [
    "amplitude-js",
    "amplitude-node",
    "amplitude-python",
    "matomo-node",
    "mixpanel-js",
    "mixpanel-python",
    "posthog-js",
    "posthog-js-old",
    "posthog-js-without-config",
    "posthog-node",
    "posthog-node-old",
    "posthog-python",
    "rudderstack-js",
    "rudderstack-node",
    "rudderstack-python",
    "segment-js",
    "segment-node",
    "segment-node-old",
    "segment-python",
    "snowplow-js",
    "snowplow-python",
];

/// An API's payload format.
#[derive(Debug, Clone, Copy)]
pub enum Payload {
    One,
    Two,
}

/// A request of a client.
#[derive(Debug, Clone, Deserialize)]
pub struct Recorded {
    pub method: String,
    pub path: String,
    #[serde(default)]
    pub query: Option<String>,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    #[serde(default)]
    pub body_text: Option<String>,
    #[serde(default)]
    pub body_base64: Option<String>,
}

/// Reads a client's requests.
pub fn recordings(client: &str) -> Vec<Recorded> {
    let path = format!("{}/tests/data/clients/{client}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

impl Recorded {
    pub fn new(method: &str, path: &str, query: &str, body: impl AsRef<[u8]>) -> Self {
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            query: Some(query.to_owned()),
            headers: BTreeMap::new(),
            body_text: None,
            body_base64: Some(BASE64_STANDARD.encode(body)),
        }
    }

    /// Returns when the client sent the request, as far as it tells: the first of the places where clients write it.
    pub fn sent_at(&self) -> Option<Millis> {
        let body = self.body_text.as_deref().unwrap_or_default();
        let query = self.query.as_deref().unwrap_or_default();
        let header = self.headers.get("posthog-request-timestamp").map(|time| format!("\"{time}\""));
        let names = ["sent_at", "sentAt", "client_upload_time", "stm"];
        let in_body = names.iter().find_map(|name| last(body, name));
        let in_query = ["stm=", "_="].iter().find_map(|name| after(query, name));
        let times =
            header.or(in_body).or(in_query).or_else(|| ["timestamp", "time"].iter().find_map(|name| last(body, name)));
        time_of_json(&times?)
    }

    /// Returns the body as the client sent it.
    pub fn body(&self) -> Vec<u8> {
        match (&self.body_base64, &self.body_text) {
            (Some(base64), _) => BASE64_STANDARD.decode(base64).unwrap(),
            (None, text) => text.clone().unwrap_or_default().into_bytes(),
        }
    }

    /// Returns the request in an API's envelope.
    pub fn payload(&self, payload: Payload, at: Millis) -> String {
        let (body, is_base64) = match (&self.body_base64, &self.body_text) {
            (Some(base64), _) => (Some(base64), true),
            (None, text) => (text.as_ref(), false),
        };
        let query = self.query.as_deref().unwrap_or_default();
        let envelope: Value = match payload {
            Payload::Two => json!({
                "version": "2.0",
                "routeKey": "ANY /{proxy+}",
                "rawPath": self.path,
                "rawQueryString": query,
                "headers": self.headers,
                "requestContext": {"http": {"method": self.method, "path": self.path}, "requestId": format!("r{at}"), "timeEpoch": at},
                "body": body,
                "isBase64Encoded": is_base64,
            }),
            Payload::One => {
                let pairs = url::form_urlencoded::parse(query.as_bytes());
                let parameters: BTreeMap<_, _> =
                    pairs.map(|(name, value)| (name.into_owned(), [value.into_owned()])).collect();
                let headers: BTreeMap<_, _> = self.headers.iter().map(|(name, value)| (name, [value])).collect();
                json!({
                    "version": "1.0",
                    "resource": "/{proxy+}",
                    "path": self.path,
                    "httpMethod": self.method,
                    "headers": null,
                    "multiValueHeaders": headers,
                    "queryStringParameters": null,
                    "multiValueQueryStringParameters": parameters,
                    "requestContext": {"requestId": format!("r{at}"), "requestTimeEpoch": at},
                    "body": body,
                    "isBase64Encoded": is_base64,
                })
            }
        };
        envelope.to_string()
    }
}

/// Returns the last value of a member, as JSON.
fn last(body: &str, name: &str) -> Option<String> {
    let key = format!("\"{name}\":");
    let value = body.rsplit_once(&key)?.1.trim_start();
    let end = match value.strip_prefix('"') {
        Some(text) => text.find('"')? + 2,
        None => value.find([',', '}', ']'])?,
    };
    Some(value[..end].to_owned())
}

/// Returns the digits after a parameter's name.
fn after(query: &str, name: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name))?;
    Some(value.to_owned())
}
