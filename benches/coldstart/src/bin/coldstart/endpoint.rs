//! A stub of DynamoDB behind TLS 1.3 on a port of the loopback interface. It has no items and accepts every write.

use std::path::PathBuf;
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::HeaderMap;
use axum::routing::post;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::Failure;
use crate::tls::TlsServer;

/// The machine's trusted certificates. A client that trusts them reads and parses all of them, as on Lambda.
const BUNDLES: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];
/// The authorities that the shipped functions trust for AWS.
const AMAZON: &str = include_str!("../../../../../src/aws/amazon.pem");

/// A running stub.
pub struct Endpoint {
    /// Its URL.
    pub url: String,
    /// A file with the machine's trusted certificates and that of the stub's authority.
    pub machine: PathBuf,
    /// A file with Amazon's authorities and the stub's.
    pub few: PathBuf,
    writes: UnboundedReceiver<Instant>,
}

async fn answer(State(writes): State<UnboundedSender<Instant>>, headers: HeaderMap, _body: Bytes) -> &'static str {
    let at = Instant::now();
    let target = headers.get("x-amz-target").map_or(&b""[..], |target| target.as_bytes());
    if target.ends_with(b".PutItem") {
        let _ = writes.send(at);
        return "{}";
    }
    r#"{"Responses":{},"UnprocessedKeys":{}}"#
}

impl Endpoint {
    /// Starts a stub with its own certificate authority.
    ///
    /// # Errors
    /// The machine has no trusted certificates, or no port is free.
    pub async fn start() -> Result<Self, Failure> {
        let (sender, writes) = unbounded_channel();
        let router = Router::new().route("/", post(answer)).layer(DefaultBodyLimit::disable()).with_state(sender);
        let TlsServer { url, authority } = TlsServer::start(router).await?;
        let bundle = BUNDLES.iter().find_map(|path| std::fs::read_to_string(path).ok());
        let bundle = bundle.ok_or("no trusted certificates on this machine; install ca-certificates")?;
        let path = |name| std::env::temp_dir().join(format!("coldstart-{}-{name}.pem", std::process::id()));
        let (machine, few) = (path("machine"), path("few"));
        std::fs::write(&machine, bundle + &authority)?;
        std::fs::write(&few, format!("{AMAZON}\n{authority}"))?;
        Ok(Self { url, machine, few, writes })
    }

    /// Returns when the next write arrived.
    ///
    /// # Errors
    /// The stub has ended.
    pub async fn write(&mut self) -> Result<Instant, Failure> {
        Ok(self.writes.recv().await.ok_or("the endpoint has ended")?)
    }

    /// Forgets the writes that arrived so far.
    pub fn forget(&mut self) {
        while self.writes.try_recv().is_ok() {}
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.machine);
        let _ = std::fs::remove_file(&self.few);
    }
}
