//! The time from a process's start to its first durable write, and the peak memory of a batch.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::Failure;
use crate::endpoint::Endpoint;
use crate::fake_runtime::Function;
use crate::share::Share;

/// The time limit of an invocation, which is never reached.
const TIME_LIMIT: Duration = Duration::from_secs(120);
const EVENT: &str = r#"{"events":[{"uuid":"0b7e3c52-1a1d-4c43-9a6e-5f4f6d1f0001","event":"$pageview",
    "distinct_id":"ada","properties":{"$current_url":"https://shop.test/?utm_source=news",
    "$referrer":"https://www.google.com/"}}]}"#;

/// The authorities that a function trusts. The endpoint's own is among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// All authorities of the machine.
    Machine,
    /// The few that the shipped functions trust for AWS.
    Few,
}

/// Starts a function with the environment of `template.yaml` and this endpoint as its DynamoDB.
async fn function(binary: &str, trust: Trust, share: Option<&Share>, endpoint: &Endpoint) -> Result<Function, Failure> {
    let mut command = Command::new(binary);
    if let Some(share) = share {
        share.confine(&mut command)?;
    }
    let queue = format!("{}/1/queue", endpoint.url);
    let (machine, few) = (endpoint.machine.display().to_string(), endpoint.few.display().to_string());
    let (trusted, own) = if trust == Trust::Few { (few.as_str(), few.as_str()) } else { (machine.as_str(), "") };
    let variables = [
        ("AWS_ENDPOINT_URL_DYNAMODB", endpoint.url.as_str()),
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_SESSION_TOKEN", "token"),
        ("AWS_REGION", "eu-central-1"),
        ("SSL_CERT_FILE", trusted),
        ("AWS_CA_BUNDLE", own),
        ("TABLE", "sessions"),
        ("OUTPUT", &queue),
        ("REJECTS", &queue),
        ("MALLOC_MMAP_THRESHOLD_", "524288"),
        ("MALLOC_TRIM_THRESHOLD_", "4194304"),
    ];
    Ok(Function::start_command(command, &variables).await)
}

/// Returns the time from a process's start until its first write arrived.
///
/// # Errors
/// The process writes nothing.
pub async fn first_write(
    binary: &str,
    trust: Trust,
    share: Option<&Share>,
    endpoint: &mut Endpoint,
) -> Result<Duration, Failure> {
    endpoint.forget();
    let began = Instant::now();
    let mut function = function(binary, trust, share, endpoint).await?;
    function.deliver(EVENT.to_owned(), TIME_LIMIT).await;
    let written = tokio::time::timeout(TIME_LIMIT, endpoint.write()).await;
    function.next_event().await;
    function.kill();
    Ok(written.map_err(|_| format!("{binary} wrote nothing"))??.duration_since(began))
}

/// Returns the peak memory of a process that answered this batch, in bytes.
///
/// # Errors
/// The process did not answer the batch, or `/proc` has no peak.
pub async fn peak_memory(binary: &str, payload: String, endpoint: &Endpoint) -> Result<usize, Failure> {
    let mut function = function(binary, Trust::Few, None, endpoint).await?;
    let answer = function.invoke(payload, TIME_LIMIT).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", function.id()));
    function.kill();
    if !answer.starts_with(r#"{"events":[{"#) && !answer.contains("answer_too_large") {
        return Err(format!("not an answer to a batch: {:.200}", answer).into());
    }
    let status = status?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    Ok(peak.ok_or("/proc has no peak")?.trim().parse::<usize>()? * 1024)
}
