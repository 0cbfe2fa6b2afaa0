//! The `ingest` function on Lambda Managed Instances: as many invocations at once as `AWS_LAMBDA_MAX_CONCURRENCY` allows, on all
//! processors; one at a time without that variable.

// The handler's future contains the futures of all calls below it. They are nested deeper than the default limit of 128.
#![recursion_limit = "256"]

use std::sync::Arc;

use lambda_runtime::{Error, LambdaEvent, run_concurrent, service_fn};
use serde_json::value::RawValue;
use session_tracking::notice;
use session_tracking::startup::{ManagedIngest, Service};

#[tokio::main]
async fn main() -> Result<(), Error> {
    if let Some(texts) = notice::asked_for(std::env::args()) {
        println!("{texts}");
        return Ok(());
    }
    let ingest = Arc::new(ManagedIngest::new(Service::start().await?)?);
    run_concurrent(service_fn(move |event: LambdaEvent<Box<RawValue>>| {
        let ingest = Arc::clone(&ingest);
        async move { ingest.handle(event).await }
    }))
    .await
}
