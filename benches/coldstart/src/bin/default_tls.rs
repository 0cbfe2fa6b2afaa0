//! The ingest function with the SDK's default HTTP client. Everything else is as shipped.

// As in `src/bin/ingest.rs`.
#![recursion_limit = "256"]

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::value::RawValue;
use session_tracking::aws;
use session_tracking::startup::{Service, deadline};
use session_tracking::trigger::Ingest;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let service = Service::start_with(async |_| {
        let config = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
        Ok(aws::with_limits(config))
    })
    .await?;
    let (output, rejects) = (service.output()?, service.rejects()?);
    let ingest = Ingest { origins: service.origins(), public: service.public(), manager: service.manager, output, rejects };
    let ingest = &ingest;
    run(service_fn(move |event: LambdaEvent<Box<RawValue>>| async move {
        let answer = ingest.handle(event.payload.get(), deadline(&event.context)).await?;
        Ok::<_, Error>(RawValue::from_string(answer)?)
    }))
    .await
}
