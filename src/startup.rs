//! What both functions do at their start, and the reading of an invocation.

use aws_config::SdkConfig;
use lambda_runtime::{Context, Error};

use crate::aws;
use crate::clock::{Clock, SystemClock};
use crate::config::{ConfigError, Destination, Settings};
use crate::manager::SessionManager;
use crate::output::{AnyOutput, SqsOutput};
use crate::session::Millis;
use crate::storage::DynamoDbSessionStorage;

/// The time that an invocation is taken to have where its deadline is plainly wrong, in milliseconds.
const DEFAULT_TIME_MS: Millis = 30_000;

/// A function's parts, built once.
pub struct Service {
    pub manager: SessionManager<DynamoDbSessionStorage, SystemClock>,
    settings: Settings,
    aws: SdkConfig,
}

impl Service {
    /// Reads the environment, sets up logging and the clients.
    ///
    /// # Errors
    /// A setting that is missing or wrong; the sentence says what to set.
    pub async fn start() -> Result<Self, Error> {
        Self::start_with(aws::sdk_config).await
    }

    /// As [`Service::start`], with another configuration of the clients.
    ///
    /// # Errors
    /// As [`Service::start`].
    pub async fn start_with(aws: impl AsyncFnOnce(&Settings) -> Result<SdkConfig, ConfigError>) -> Result<Self, Error> {
        start_log();
        let settings = Settings::from_env()?;
        let aws = aws(&settings).await?;
        let storage = DynamoDbSessionStorage::new(aws::dynamodb(&aws), &settings.table);
        let manager = SessionManager::new(settings.rules.clone(), storage).with_retention(settings.retention);
        Ok(Self { manager, settings, aws })
    }

    /// Where annotated events and ends go.
    ///
    /// # Errors
    /// A queue that cannot be used.
    pub fn output(&self) -> Result<AnyOutput<SystemClock>, ConfigError> {
        self.sink(&self.settings.output)
    }

    /// Where rejected events go.
    ///
    /// # Errors
    /// It is not set, or cannot be used.
    pub fn rejects(&self) -> Result<AnyOutput<SystemClock>, ConfigError> {
        self.sink(self.settings.rejects()?)
    }

    fn sink(&self, destination: &Destination) -> Result<AnyOutput<SystemClock>, ConfigError> {
        Ok(match destination {
            Destination::Stdout => AnyOutput::Stdout(crate::output::StdoutOutput),
            Destination::Queue(url) => {
                let aws = self.aws.clone();
                AnyOutput::Sqs(SqsOutput::new(move || aws::sqs(&aws), url, SystemClock)?)
            }
        })
    }
}

/// The log goes to standard error, as Lambda's own settings of it say.
#[allow(clippy::disallowed_methods, reason = "these are no settings of ours, and stand before all others")]
fn start_log() {
    let level = std::env::var("AWS_LAMBDA_LOG_LEVEL").ok().and_then(|level| level.parse().ok());
    let log = tracing_subscriber::fmt()
        .with_max_level(level.unwrap_or(tracing::Level::INFO))
        .with_target(false)
        .without_time()
        .with_writer(std::io::stderr);
    if std::env::var("AWS_LAMBDA_LOG_FORMAT").is_ok_and(|format| format.eq_ignore_ascii_case("json")) {
        log.json().init();
    } else {
        log.init();
    }
}

/// When an invocation ends. Some local runtimes say a time long past: then it has some default time.
pub fn deadline(context: &Context) -> Millis {
    let now = SystemClock.now();
    Millis::try_from(context.deadline).ok().filter(|&deadline| deadline > now).unwrap_or(now + DEFAULT_TIME_MS)
}
