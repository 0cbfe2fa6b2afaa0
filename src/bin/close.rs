//! The `close` function: closes sessions that are over, on a schedule.

use lambda_runtime::{Diagnostic, Error, LambdaEvent, run, service_fn};
use serde_json::Value;
use session_tracking::manager::CloseReport;
use session_tracking::notice;
use session_tracking::startup::{Service, deadline};
use session_tracking::trigger::schedule::{failure, share};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    if let Some(texts) = notice::asked_for(std::env::args()) {
        println!("{texts}");
        return Ok(());
    }
    let service = Service::start().await?;
    let (output, log) = (service.output()?, service.log());
    let (manager, output, log) = (&service.manager, &output, &log);
    run(service_fn(|event: LambdaEvent<Value>| async move {
        let mut line = log.begin("close", &event.context);
        let share = share(&event.payload)?;
        let report = manager.cleanup_share(output, deadline(&event.context), share).await;
        line.closed(&report);
        log.write(line, "closed");
        report.warn();
        if report.is_failure() { Err(failure(&report)) } else { Ok::<CloseReport, Diagnostic>(report) }
    }))
    .await
}
