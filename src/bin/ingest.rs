//! The `ingest` function: takes events from HTTP, from a queue, a stream or a bus, or by direct invocation.

// The handler's future contains the futures of all calls below it. They are nested deeper than the default limit of 128.
#![recursion_limit = "256"]

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::value::RawValue;
use session_tracking::notice;
use session_tracking::startup::{Service, deadline};
use session_tracking::trigger::Ingest;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    if let Some(texts) = notice::asked_for(std::env::args()) {
        println!("{texts}");
        return Ok(());
    }
    let service = Service::start().await?;
    let (output, rejects, origins) = (service.output()?, service.rejects()?, service.origins());
    let public = service.public();
    let (role, log) = (service.pipe_role(), service.log());
    let ingest = Ingest { manager: service.manager, output, rejects, origins, public };
    let (ingest, log) = (&ingest, &log);
    run(service_fn(|event: LambdaEvent<Box<RawValue>>| async move {
        let context = &event.context;
        let mut line = log.begin("ingest", context);
        let payload = event.payload.get();
        let handled = ingest.handle_measured(role, &context.request_id, payload, deadline(context)).await;
        line.counted(ingest.manager.take_counted());
        match handled {
            Ok(handled) => {
                handled.measure(&mut line);
                log.write(line, "handled");
                Ok::<_, Error>(RawValue::from_string(handled.json)?)
            }
            Err(error) => {
                line.failed(&error.to_string());
                log.write(line, "failed");
                Err(error.into())
            }
        }
    }))
    .await
}
