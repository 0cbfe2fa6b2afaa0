//! The AWS clients, configured for a function that starts cold, is frozen between invocations and is billed by the millisecond.

mod trust;
#[cfg(feature = "replay")]
pub use trust::connector;

use std::time::Duration;

use aws_config::environment::{EnvironmentVariableCredentialsProvider, EnvironmentVariableRegionProvider};
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, SdkConfig};
use aws_sdk_dynamodb::config::retry::{RetryPartition, TokenBucket};

use crate::config::{ConfigError, Settings};
use crate::manager::CALLS_AT_ONCE;

/// Maximum attempts of a call, including the first. Only two, because a caller that retries later costs less than a function that
/// waits.
const MAX_ATTEMPTS: u32 = 2;
/// The base of the backoff before the second attempt. The SDK's default is one second.
const INITIAL_BACKOFF: Duration = Duration::from_millis(25);
/// Retries that a new client may make before any call has succeeded. After a freeze, as many connections can turn out to be dead
/// at once.
const INITIAL_RETRIES: usize = CALLS_AT_ONCE;
/// Successful calls that pay for one more retry. If all calls of a service fail, it gets few retries. If half of them fail, it
/// gets a tenth more calls. The SDK's default budget does not charge for a retry that succeeds.
const SUCCESSES_PER_RETRY: u32 = 5;

/// Loads the configuration that all clients share.
///
/// # Errors
/// Returns a [`ConfigError`] if the certificates in `AWS_CA_BUNDLE` cannot be used.
pub async fn sdk_config(settings: &Settings) -> Result<SdkConfig, ConfigError> {
    let http = trust::client(settings.ca_bundle.as_deref())?;
    // Lambda sets both as environment variables. The SDK's default chain would create clients for its other sources at every
    // start.
    let loader = loader().credentials_provider(EnvironmentVariableCredentialsProvider::new());
    Ok(loader.region(EnvironmentVariableRegionProvider::new()).http_client(http).load().await)
}

/// Returns a loader with timeouts and retries, but without an HTTP client, credentials and a region. The timeouts are set here,
/// because the SDK sets none for a call.
pub fn loader() -> ConfigLoader {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(1))
        .operation_attempt_timeout(Duration::from_millis(1_200))
        .operation_timeout(Duration::from_millis(2_800))
        .build();
    let retries = RetryConfig::standard().with_max_attempts(MAX_ATTEMPTS).with_initial_backoff(INITIAL_BACKOFF);
    aws_config::defaults(BehaviorVersion::latest()).timeout_config(timeouts).retry_config(retries)
}

/// Creates a DynamoDB client.
pub fn dynamodb(config: &SdkConfig) -> aws_sdk_dynamodb::Client {
    let config = aws_sdk_dynamodb::config::Builder::from(config).retry_partition(retry_budget("dynamodb")).build();
    aws_sdk_dynamodb::Client::from_conf(config)
}

/// Creates an SQS client.
pub fn sqs(config: &SdkConfig) -> aws_sdk_sqs::Client {
    let config = aws_sdk_sqs::config::Builder::from(config).retry_partition(retry_budget("sqs")).build();
    aws_sdk_sqs::Client::from_conf(config)
}

/// Returns a retry budget. A successful call earns a token, and every retry costs the same number of tokens, whatever the error.
fn retry_budget(service: &'static str) -> RetryPartition {
    let bucket = TokenBucket::builder()
        .capacity(INITIAL_RETRIES * SUCCESSES_PER_RETRY as usize)
        .retry_cost(SUCCESSES_PER_RETRY)
        .throttling_retry_cost(SUCCESSES_PER_RETRY)
        .timeout_retry_cost(SUCCESSES_PER_RETRY)
        .success_reward(1.0)
        .build();
    RetryPartition::custom(service).token_bucket(bucket).build()
}
