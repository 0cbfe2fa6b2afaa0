//! The AWS clients, set up for a function that starts cold, freezes between invocations and pays by the millisecond.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_smithy_http_client::tls;

/// Attempts of a call, the first included. Few: a caller that asks again later is cheaper than a function that waits.
const ATTEMPTS: u32 = 2;
/// The base of the pause before the second attempt; the SDK's own is a second.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
/// How long a connection may stay unused: below the 60 s or so after which servers drop it. A thawed function would
/// otherwise write into a dead one.
const IDLE: Duration = Duration::from_secs(20);

/// The configuration that all clients share: credentials and region from the environment, timeouts by hand (the SDK has none).
pub async fn sdk_config() -> SdkConfig {
    // `ring`: the SDK's default, `aws-lc`, gathers entropy for its first handshake, which takes most of a cold start.
    let tls = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring);
    let http = aws_smithy_http_client::Builder::new().pool_idle_timeout(IDLE).tls_provider(tls).build_https();
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_millis(1_000))
        .operation_attempt_timeout(Duration::from_millis(1_200))
        .operation_timeout(Duration::from_millis(2_800))
        .build();
    let retries = RetryConfig::standard().with_max_attempts(ATTEMPTS).with_initial_backoff(FIRST_PAUSE);
    aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .timeout_config(timeouts)
        .retry_config(retries)
        .load()
        .await
}
