//! The start of both functions, and the deadline of an invocation.

mod log;
#[cfg(feature = "managed-instances")]
mod managed;

use std::sync::Arc;

use aws_config::SdkConfig;
use lambda_runtime::{Context, Error};

use crate::aws;
use crate::clock::{Clock, SystemClock};
use crate::config::{AllowedOrigins, ConfigError, Destination, PublicAccess, Settings};
use crate::manager::SessionManager;
use crate::output::{AnyOutput, SqsOutput};
use crate::session::Millis;
use crate::storage::{Consumed, DynamoDbSessionStorage};
use crate::trigger::PipeRole;
pub use log::InvocationLog;
#[cfg(feature = "managed-instances")]
pub use managed::ManagedIngest;

/// How long an invocation may take if its deadline is plainly wrong, in milliseconds.
const DEFAULT_INVOCATION_MS: Millis = 30_000;

/// What a function needs, built once at its start.
pub struct Service {
    /// The session manager, on the table that the environment names.
    pub manager: SessionManager<DynamoDbSessionStorage, SystemClock>,
    settings: Settings,
    aws: SdkConfig,
    consumed: Arc<Consumed>,
}

impl Service {
    /// Reads the environment, and sets up logging and the AWS clients.
    ///
    /// # Errors
    /// Returns an error if a setting is missing or wrong. Its message names what to set.
    pub async fn start() -> Result<Self, Error> {
        Self::start_with(aws::sdk_config).await
    }

    /// Like [`Service::start`], with another configuration of the AWS clients.
    ///
    /// # Errors
    /// As for [`Service::start`].
    pub async fn start_with(aws: impl AsyncFnOnce(&Settings) -> Result<SdkConfig, ConfigError>) -> Result<Self, Error> {
        log::start();
        let settings = Settings::from_env()?;
        let aws = aws(&settings).await?;
        let consumed = Arc::new(Consumed::default());
        let client = aws::dynamodb(&aws, settings.endpoints.dynamodb.as_deref());
        let storage = DynamoDbSessionStorage::new(client, &settings.table).counting(Arc::clone(&consumed));
        let manager = SessionManager::new(settings.projects.clone(), storage).with_retention(settings.retention);
        #[cfg(feature = "replay")]
        let manager = match &settings.replay {
            None => manager,
            Some(replay) => {
                let connector = aws::connector(settings.ca_bundle.as_deref())?;
                let endpoint = settings.endpoints.s3.as_deref();
                let store = crate::replay::s3::in_bucket(&replay.bucket, endpoint, &aws, connector, replay.inputs)?;
                manager.with_replay(store)
            }
        };
        Ok(Self { manager, settings, aws, consumed })
    }

    /// Returns the output for annotated events, `$session_end` and corrections.
    ///
    /// # Errors
    /// Returns a [`ConfigError`] if the queue cannot be used.
    pub fn output(&self) -> Result<AnyOutput<SystemClock>, ConfigError> {
        self.sink(&self.settings.output)
    }

    /// Returns the output for rejected events.
    ///
    /// # Errors
    /// Returns a [`ConfigError`] if `REJECTS` is not set or cannot be used.
    pub fn rejects(&self) -> Result<AnyOutput<SystemClock>, ConfigError> {
        self.sink(self.settings.rejects()?)
    }

    /// Returns the log of the function's invocations.
    pub fn log(&self) -> InvocationLog {
        InvocationLog::new(self.settings.metrics.clone(), Arc::clone(&self.consumed))
    }

    /// Returns the origins whose pages may use the API.
    pub fn origins(&self) -> AllowedOrigins {
        self.settings.origins.clone()
    }

    /// Returns what HTTP requests without credentials may do.
    pub fn public(&self) -> PublicAccess {
        self.settings.public
    }

    /// Returns what the ingest function is in an EventBridge Pipe.
    pub fn pipe_role(&self) -> PipeRole {
        self.settings.pipe_role
    }

    fn sink(&self, destination: &Destination) -> Result<AnyOutput<SystemClock>, ConfigError> {
        Ok(match destination {
            Destination::Stdout => AnyOutput::Stdout(crate::output::StdoutOutput),
            Destination::Queue(url) => {
                let (aws, endpoint) = (self.aws.clone(), self.settings.endpoints.sqs.clone());
                let client = move || aws::sqs(&aws, endpoint.as_deref());
                AnyOutput::Sqs(SqsOutput::new(client, url, SystemClock)?)
            }
        })
    }
}

/// Returns when an invocation has to end. Some local runtimes state a deadline in the past; 30 seconds from now are used instead.
pub fn deadline(context: &Context) -> Millis {
    let now = SystemClock.now();
    Millis::try_from(context.deadline).ok().filter(|&deadline| deadline > now).unwrap_or(now + DEFAULT_INVOCATION_MS)
}
