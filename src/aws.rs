//! The AWS clients, set up for a function that starts cold, freezes between invocations and pays by the millisecond.

mod trust;

use std::time::Duration;

use aws_config::environment::{EnvironmentVariableCredentialsProvider, EnvironmentVariableRegionProvider};
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, SdkConfig};
use aws_sdk_dynamodb::config::retry::{RetryPartition, TokenBucket};

use crate::config::{ConfigError, Settings};
use crate::manager::CALLS_AT_ONCE;

/// Attempts of a call, the first included. Few: a caller that asks again later is cheaper than a function that waits.
const ATTEMPTS: u32 = 2;
/// The base of the pause before the second attempt; the SDK's own is a second.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
/// Second attempts that a client may make of its first credit: as many as connections may be found dead at once after a
/// freeze.
const RETRIES_SAVED: usize = CALLS_AT_ONCE;
/// Successes that earn one more second attempt. A service that fails for all gets few calls beside the first ones, and one
/// that fails half of them gets a tenth more. The SDK's own budget takes nothing for a second attempt that succeeds.
const SUCCESSES_A_RETRY: u32 = 5;

/// The configuration that all clients share.
///
/// # Errors
/// The settings name authorities to trust which cannot be used.
pub async fn sdk_config(settings: &Settings) -> Result<SdkConfig, ConfigError> {
    let http = trust::client(settings.ca_bundle.as_deref())?;
    // A function has both in its environment. For the other places where the SDK would look it makes clients at every start.
    let loader = loader().credentials_provider(EnvironmentVariableCredentialsProvider::new());
    Ok(loader.region(EnvironmentVariableRegionProvider::new()).http_client(http).load().await)
}

/// What to load, but for the HTTP client, credentials and region: timeouts by hand (the SDK has none).
pub fn loader() -> ConfigLoader {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_millis(1_000))
        .operation_attempt_timeout(Duration::from_millis(1_200))
        .operation_timeout(Duration::from_millis(2_800))
        .build();
    let retries = RetryConfig::standard().with_max_attempts(ATTEMPTS).with_initial_backoff(FIRST_PAUSE);
    aws_config::defaults(BehaviorVersion::latest()).timeout_config(timeouts).retry_config(retries)
}

/// A client of DynamoDB.
pub fn dynamodb(config: &SdkConfig) -> aws_sdk_dynamodb::Client {
    let config = aws_sdk_dynamodb::config::Builder::from(config).retry_partition(retry_budget("dynamodb")).build();
    aws_sdk_dynamodb::Client::from_conf(config)
}

/// A client of SQS.
pub fn sqs(config: &SdkConfig) -> aws_sdk_sqs::Client {
    let config = aws_sdk_sqs::config::Builder::from(config).retry_partition(retry_budget("sqs")).build();
    aws_sdk_sqs::Client::from_conf(config)
}

/// A budget of second attempts: a success earns a token, an attempt costs the same whatever failed.
fn retry_budget(service: &'static str) -> RetryPartition {
    let bucket = TokenBucket::builder()
        .capacity(RETRIES_SAVED * SUCCESSES_A_RETRY as usize)
        .retry_cost(SUCCESSES_A_RETRY)
        .throttling_retry_cost(SUCCESSES_A_RETRY)
        .timeout_retry_cost(SUCCESSES_A_RETRY)
        .success_reward(1.0)
        .build();
    RetryPartition::custom(service).token_bucket(bucket).build()
}
