//! The `ingest` function: takes events from every trigger.

// The handler's future contains the futures of all calls below it. They are nested deeper than the default limit of 128.
#![recursion_limit = "256"]

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::value::RawValue;
use session_tracking::startup::{Service, deadline};
use session_tracking::trigger::Ingest;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let service = Service::start().await?;
    let (output, rejects, origins) = (service.output()?, service.rejects()?, service.origins());
    let role = service.pipe_role();
    let ingest = Ingest { manager: service.manager, output, rejects, origins };
    let ingest = &ingest;
    run(service_fn(|event: LambdaEvent<Box<RawValue>>| async move {
        let context = &event.context;
        let answer = ingest.handle_in_pipe(role, &context.request_id, event.payload.get(), deadline(context)).await?;
        Ok::<_, Error>(RawValue::from_string(answer)?)
    }))
    .await
}
