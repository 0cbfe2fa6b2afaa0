//! The lower bound: a function without the SDK. For each event it makes one unsigned request over TLS.

use std::sync::Arc;

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Returns a TLS client that trusts the machine's certificates, like the SDK.
fn connector() -> Result<TlsConnector, Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn put(connector: &TlsConnector, address: &str, event: &str) -> Result<(), Error> {
    let body = serde_json::json!({ "TableName": "sessions", "Item": { "state": { "S": event } } }).to_string();
    let request = format!(
        "POST / HTTP/1.1\r\nhost: {address}\r\nx-amz-target: DynamoDB_20120810.PutItem\r\n\
         content-type: application/x-amz-json-1.0\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let (host, _) = address.split_once(':').ok_or("the endpoint has no port")?;
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut stream = connector.connect(ServerName::try_from(host.to_owned())?, stream).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    if answer.starts_with(b"HTTP/1.1 200") { Ok(()) } else { Err("the write failed".into()) }
}

#[tokio::main(flavor = "current_thread")]
#[allow(clippy::disallowed_methods, reason = "a function's main reads its environment")]
async fn main() -> Result<(), Error> {
    let endpoint = std::env::var("AWS_ENDPOINT_URL_DYNAMODB")?;
    let address = endpoint.strip_prefix("https://").ok_or("the endpoint has no TLS")?;
    let connector = connector()?;
    let connector = &connector;
    run(service_fn(move |event: LambdaEvent<Box<RawValue>>| async move {
        put(connector, address, event.payload.get()).await?;
        Ok::<_, Error>("done")
    }))
    .await
}
