//! Whom the functions trust: the real `ingest`, and a table behind TLS that Amazon's authorities do not vouch for.

use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use serde_json::{Value, json};

use crate::binaries::{INGEST, variables};
use crate::fake_runtime::Function;
use crate::tls::TlsServer;

/// The time of an invocation: plenty.
const TIME: Duration = Duration::from_secs(60);
/// A part of a batch: all are written at once.
const VISITORS: usize = 25;
const TURNED: &str = "Amazon's authorities do not vouch for an endpoint";

/// A table that knows nothing and takes everything.
async fn table() -> TlsServer {
    let answer = || async { r#"{"Responses":{},"UnprocessedKeys":{}}"# };
    TlsServer::start(Router::new().route("/", post(answer))).await.unwrap()
}

fn file(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// How many of the events of two invocations fail in each, and what the function logs.
async fn failed(endpoint: &str, trust: &[(&str, &PathBuf)]) -> ([usize; 2], String) {
    let mut all = variables(endpoint);
    all.extend(trust.iter().map(|(name, path)| (*name, path.to_str().unwrap())));
    let mut function = Function::start(INGEST, &all).await;
    let mut failed = [0; 2];
    for failed in &mut failed {
        let event = |at: usize| json!({ "uuid": format!("e{at}"), "event": "x", "distinct_id": format!("v{at}") });
        let payload = json!({ "events": (0..VISITORS).map(event).collect::<Vec<_>>() }).to_string();
        let answer: Value = serde_json::from_str(&function.invoke(payload, TIME).await).unwrap();
        *failed = answer["failed"].as_array().map_or(0, Vec::len);
    }
    (failed, function.kill().log)
}

#[tokio::test]
async fn the_machines_bundle_is_asked_where_amazons_authorities_do_not_suffice() {
    let table = table().await;
    let bundle = file("trust-machine.pem", &table.authority);
    let (failed, log) = failed(&table.url, &[("SSL_CERT_FILE", &bundle)]).await;
    assert_eq!(failed, [0, 0], "{log}");
    assert_eq!(log.matches(TURNED).count(), 1, "{log}");
}

#[tokio::test]
async fn an_endpoint_that_nobody_vouches_for_is_not_trusted() {
    let (table, other) = (table().await, table().await);
    let bundle = file("trust-other.pem", &other.authority);
    let (failed, log) = failed(&table.url, &[("SSL_CERT_FILE", &bundle)]).await;
    assert_eq!(failed, [VISITORS; 2], "{log}");
}

#[tokio::test]
async fn a_bundle_of_ones_own_is_all_that_counts() {
    let (table, other) = (table().await, table().await);
    let (own, others) = (file("trust-own.pem", &table.authority), file("trust-others.pem", &other.authority));
    let (none, log) = failed(&table.url, &[("AWS_CA_BUNDLE", &own)]).await;
    assert_eq!(none, [0, 0], "{log}");
    assert!(!log.contains(TURNED), "{log}");
    let (all, log) = failed(&table.url, &[("AWS_CA_BUNDLE", &others), ("SSL_CERT_FILE", &own)]).await;
    assert_eq!(all, [VISITORS; 2], "{log}");
}

#[tokio::test]
async fn a_bundle_that_cannot_be_used_ends_the_function_with_a_sentence() {
    let table = table().await;
    let good = table.authority.trim_end();
    const WRONG: &str = "which holds none, or one that cannot be used";
    let bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (path, what) in [
        (PathBuf::from("/nowhere/bundle.pem"), "which cannot be read"),
        (file("trust-empty.pem", "no certificate"), WRONG),
        (file("trust-bad.pem", &format!("{good}\n{bad}")), WRONG),
        (file("trust-cut.pem", &good[..good.len() / 2]), WRONG),
    ] {
        let path = path.to_str().unwrap();
        let variables = [variables(&table.url), vec![("AWS_CA_BUNDLE", path)]].concat();
        let ended = Function::start(INGEST, &variables).await.ended();
        let sentence = format!("AWS_CA_BUNDLE is `{path}`, {what}");
        assert!(!ended.status.success() && ended.log.contains(&sentence), "{ended:?}");
    }
}
