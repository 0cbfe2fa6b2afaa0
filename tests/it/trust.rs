//! Which certificate authorities the functions trust: the real `ingest`, and a table whose TLS certificate is not signed by
//! Amazon's authorities.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use serde_json::{Value, json};

use crate::binaries::{INGEST, variables};
use crate::fake_runtime::Function;
use crate::tls::TlsServer;

/// The time limit of an invocation. None comes near it.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// One chunk of visitors, who are all written at once.
const VISITORS: usize = 25;
/// What is logged when the bundle of the system is used.
const FALLBACK_LOG: &str = "Amazon's authorities do not vouch for an endpoint";

/// Starts a table that is empty and accepts every write.
async fn table() -> TlsServer {
    let answer = || async { r#"{"Responses":{},"UnprocessedKeys":{}}"# };
    TlsServer::start(Router::new().route("/", post(answer))).await.unwrap()
}

/// Writes a temporary file. Returns its path.
fn file(name: &str, content: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, content).unwrap();
    path
}

/// Runs two invocations. Returns how many events fail in each, and the log of the function.
async fn failed(endpoint: &str, trust: &[(&str, &PathBuf)]) -> ([usize; 2], String) {
    let mut environment = variables(endpoint);
    environment.extend(trust.iter().map(|(name, path)| (*name, path.to_str().unwrap())));
    let mut function = Function::start(INGEST, &environment).await;
    let mut failed = [0; 2];
    for failed in &mut failed {
        let event = |at: usize| json!({ "uuid": format!("e{at}"), "event": "x", "distinct_id": format!("v{at}") });
        let payload = json!({ "events": (0..VISITORS).map(event).collect::<Vec<_>>() }).to_string();
        let answer: Value = serde_json::from_str(&function.invoke(payload, TIME_LIMIT).await).unwrap();
        *failed = answer["failed"].as_array().map_or(0, Vec::len);
    }
    (failed, function.kill().log)
}

#[tokio::test]
async fn the_systems_bundle_is_used_if_amazons_authorities_do_not_suffice() {
    let table = table().await;
    let bundle = file("trust-machine.pem", &table.authority);
    let (failed, log) = failed(&table.url, &[("SSL_CERT_FILE", &bundle)]).await;
    assert_eq!(failed, [0, 0], "{log}");
    assert_eq!(log.matches(FALLBACK_LOG).count(), 1, "{log}");
}

#[tokio::test]
async fn an_endpoint_with_an_unknown_authority_is_not_trusted() {
    let (table, other) = (table().await, table().await);
    let bundle = file("trust-other.pem", &other.authority);
    let (failed, log) = failed(&table.url, &[("SSL_CERT_FILE", &bundle)]).await;
    assert_eq!(failed, [VISITORS; 2], "{log}");
}

#[tokio::test]
async fn a_configured_bundle_replaces_all_others() {
    let (table, other) = (table().await, table().await);
    let (own, others) = (file("trust-own.pem", &table.authority), file("trust-others.pem", &other.authority));
    let (none, log) = failed(&table.url, &[("AWS_CA_BUNDLE", &own)]).await;
    assert_eq!(none, [0, 0], "{log}");
    assert!(!log.contains(FALLBACK_LOG), "{log}");
    let (all, log) = failed(&table.url, &[("AWS_CA_BUNDLE", &others), ("SSL_CERT_FILE", &own)]).await;
    assert_eq!(all, [VISITORS; 2], "{log}");
}

/// A full handshake takes a client twice the CPU of one that resumes a session. Only the calls that are made before any answer is there
/// cannot resume one.
#[tokio::test]
async fn connections_after_the_first_ones_resume_a_session() {
    let table = table().await;
    let authority = file("trust-resumed.pem", &table.authority);
    let (failed, log) = failed(&table.url, &[("AWS_CA_BUNDLE", &authority)]).await;
    assert_eq!(failed, [0, 0], "{log}");
    let count = |kind: &AtomicUsize| kind.load(Ordering::Relaxed);
    let (full, resumed) = (count(&table.handshakes.full), count(&table.handshakes.resumed));
    println!("{full} full handshakes, {resumed} resumed");
    assert!(full <= 2 && (2..=8).contains(&resumed), "{full} full, {resumed} resumed");
}

#[tokio::test]
async fn a_bundle_that_cannot_be_used_is_an_error_at_the_start() {
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
        let exited = Function::start(INGEST, &variables).await.wait();
        let sentence = format!("AWS_CA_BUNDLE is `{path}`, {what}");
        assert!(!exited.status.success() && exited.log.contains(&sentence), "{exited:?}");
    }
}
