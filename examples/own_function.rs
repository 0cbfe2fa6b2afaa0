//! A Lambda function of your own: it counts a page view and answers with the visitor's session.

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde::Deserialize;
use session_tracking::{EventType, Service, Session, SessionContext};

#[derive(Deserialize)]
struct PageView {
    visitor: String,
    url: String,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let manager = &Service::start().await?.manager;
    let handle = |event: LambdaEvent<PageView>| async move {
        let PageView { visitor, url } = event.payload;
        let session = manager.get_or_create(visitor.as_str(), SessionContext::of_url(&url)).await?;
        Ok::<Session, Error>(manager.update(&session.id, EventType::Pageview(url)).await?)
    };
    run(service_fn(handle)).await
}
