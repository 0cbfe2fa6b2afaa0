//! The AWS clients, configured for a function that starts cold, is frozen between invocations and is billed by the millisecond.

mod trust;
#[cfg(feature = "replay")]
pub use trust::connector;

use std::time::Duration;

use aws_config::environment::{EnvironmentVariableCredentialsProvider, EnvironmentVariableRegionProvider};
use aws_config::meta::region::ProvideRegion;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_dynamodb::config::SharedCredentialsProvider;
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

/// Returns the configuration that all clients share.
///
/// It is made by hand, from the environment. `aws_config::load_defaults` also looks into the files of the AWS CLI, and links the
/// clients of its other sources of credentials: 300 KB that no function needs.
///
/// # Errors
/// Returns a [`ConfigError`] if the certificates in `AWS_CA_BUNDLE` cannot be used.
pub async fn sdk_config(settings: &Settings) -> Result<SdkConfig, ConfigError> {
    let http = trust::client(settings.ca_bundle.as_deref())?;
    let credentials = EnvironmentVariableCredentialsProvider::new();
    let config = SdkConfig::builder()
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .region(EnvironmentVariableRegionProvider::new().region().await)
        .http_client(http)
        .use_fips(settings.endpoints.use_fips)
        .use_dual_stack(settings.endpoints.use_dual_stack)
        .build();
    Ok(with_limits(config))
}

/// Returns a configuration with the timeouts and retries of the functions. The SDK itself sets no timeout for a call.
pub fn with_limits(config: SdkConfig) -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(1))
        .operation_attempt_timeout(Duration::from_millis(1_200))
        .operation_timeout(Duration::from_millis(2_800))
        .build();
    let retries = RetryConfig::standard().with_max_attempts(MAX_ATTEMPTS).with_initial_backoff(INITIAL_BACKOFF);
    let config = config.into_builder().behavior_version(BehaviorVersion::latest());
    config.timeout_config(timeouts).retry_config(retries).build()
}

/// Creates a DynamoDB client. Without an endpoint, that of the configuration is used.
pub fn dynamodb(config: &SdkConfig, endpoint: Option<&str>) -> aws_sdk_dynamodb::Client {
    let mut builder = aws_sdk_dynamodb::config::Builder::from(config).retry_partition(retry_budget("dynamodb"));
    if let Some(endpoint) = endpoint {
        builder = builder.endpoint_url(endpoint);
    }
    aws_sdk_dynamodb::Client::from_conf(builder.build())
}

/// Creates an SQS client. Without an endpoint, that of the configuration is used.
pub fn sqs(config: &SdkConfig, endpoint: Option<&str>) -> aws_sdk_sqs::Client {
    let mut builder = aws_sdk_sqs::config::Builder::from(config).retry_partition(retry_budget("sqs"));
    if let Some(endpoint) = endpoint {
        builder = builder.endpoint_url(endpoint);
    }
    aws_sdk_sqs::Client::from_conf(builder.build())
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
