//! The function that takes events in: from HTTP, from a queue, by direct invocation.

// The handler's future holds those of all calls below it; the compiler gives up at 128 of them, one inside the other.
#![recursion_limit = "256"]

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::value::RawValue;
use session_tracking::startup::{Service, deadline};
use session_tracking::trigger::Ingest;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let service = Service::start().await?;
    let (output, rejects) = (service.output()?, service.rejects()?);
    let ingest = Ingest { manager: service.manager, output, rejects };
    let ingest = &ingest;
    run(service_fn(|event: LambdaEvent<Box<RawValue>>| async move {
        let context = &event.context;
        let answer = ingest.handle_as(&context.request_id, event.payload.get(), deadline(context)).await?;
        Ok::<_, Error>(RawValue::from_string(answer)?)
    }))
    .await
}
