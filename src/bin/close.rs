//! The function that closes what went stale, on a schedule.

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde::de::IgnoredAny;
use session_tracking::start::{Service, deadline};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let service = Service::start().await?;
    let output = service.output()?;
    let (manager, output) = (&service.manager, &output);
    run(service_fn(|event: LambdaEvent<IgnoredAny>| async move {
        let report = manager.cleanup(output, deadline(&event.context)).await;
        tracing::info!(?report, "closed");
        Ok::<_, Error>(report)
    }))
    .await
}
