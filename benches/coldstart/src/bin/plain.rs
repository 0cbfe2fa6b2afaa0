//! A plain store, as one would write it first: for each event, in order, it reads the visitor's session and writes it. The
//! DynamoDB client has the SDK's defaults, but the TLS of the shipped functions, so that TLS makes no difference. For
//! `benches/invocation`.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use aws_smithy_http_client::tls::{self, TlsContext, TrustStore};
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

const TIMEOUT_MS: i64 = 1_800_000;

#[derive(Deserialize, Serialize)]
struct Batch {
    events: Vec<Map<String, Value>>,
}

fn string(value: Option<&Value>) -> String {
    value.and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn number(item: &HashMap<String, AttributeValue>, name: &str) -> i64 {
    item.get(name).and_then(|value| value.as_n().ok()?.parse().ok()).unwrap_or_default()
}

/// Finds an event's session, updates it, and annotates the event with its id.
async fn apply(client: &Client, table: &str, event: &mut Map<String, Value>) -> Result<(), Error> {
    let visitor = string(event.get("distinct_id"));
    let at = chrono::DateTime::parse_from_rfc3339(&string(event.get("timestamp")))?.timestamp_millis();
    let properties = event.entry("properties").or_insert_with(|| Map::new().into());
    let (url, referrer) = (string(properties.get("$current_url")), string(properties.get("$referrer")));
    let key = AttributeValue::S(visitor.clone());
    let answer = client.get_item().table_name(table).key("pk", key.clone()).send().await?;
    let known = answer.item.filter(|item| at - number(item, "last_activity") <= TIMEOUT_MS).unwrap_or_default();
    let stored_or = |name: &str, new: String| known.get(name).cloned().unwrap_or(AttributeValue::S(new));
    let session = stored_or("session_id", format!("{visitor}-{at}"));
    let update = client.update_item().table_name(table).key("pk", key).update_expression(
        "SET session_id = :session_id, started_at = :started_at, entry_url = :entry_url, referrer = :referrer, \
         exit_url = :exit_url, last_activity = :last_activity, events = :events",
    );
    update
        .expression_attribute_values(":session_id", session.clone())
        .expression_attribute_values(":started_at", stored_or("started_at", at.to_string()))
        .expression_attribute_values(":entry_url", stored_or("entry_url", url.clone()))
        .expression_attribute_values(":referrer", stored_or("referrer", referrer))
        .expression_attribute_values(":exit_url", AttributeValue::S(url))
        .expression_attribute_values(":last_activity", AttributeValue::N(at.to_string()))
        .expression_attribute_values(":events", AttributeValue::N((number(&known, "events") + 1).to_string()))
        .send()
        .await?;
    if let (Some(properties), Ok(session)) = (properties.as_object_mut(), session.as_s()) {
        properties.insert("$session_id".to_owned(), session.clone().into());
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
#[allow(clippy::disallowed_methods, reason = "a function's main reads its environment")]
async fn main() -> Result<(), Error> {
    let pem = std::fs::read(std::env::var("AWS_CA_BUNDLE")?)?;
    let trusted = TlsContext::builder().with_trust_store(TrustStore::empty().with_pem_certificate(pem)).build()?;
    let ring = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring);
    let http = aws_smithy_http_client::Builder::new().tls_provider(ring).tls_context(trusted).build_https();
    let config = aws_config::defaults(aws_config::BehaviorVersion::latest()).http_client(http).load().await;
    let (client, table) = (Client::new(&config), std::env::var("TABLE")?);
    let (client, table) = (&client, table.as_str());
    run(service_fn(move |event: LambdaEvent<Batch>| async move {
        let mut batch = event.payload;
        for event in &mut batch.events {
            apply(client, table, event).await?;
        }
        Ok::<_, Error>(batch)
    }))
    .await
}
