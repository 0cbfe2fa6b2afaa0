//! A DynamoDB that knows nothing and takes everything, behind TLS 1.3 on a port of the loopback interface.

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

/// The machine's trusted certificates: who trusts them reads and parses them all, as on Lambda.
const BUNDLES: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];
/// The authorities that our client trusts first.
const AMAZON: &str = include_str!("../../../../../src/aws/amazon.pem");

/// Where it is, whom to trust, and the writes that came.
pub struct Endpoint {
    pub url: String,
    /// A file of the machine's trusted certificates and its own authority's.
    pub machine: PathBuf,
    /// A file of Amazon's authorities and its own.
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
    /// Starts one, with an authority of its own.
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

    /// When the next write had arrived.
    pub async fn write(&mut self) -> Result<Instant, Failure> {
        Ok(self.writes.recv().await.ok_or("the endpoint has ended")?)
    }

    /// Forgets what came so far.
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
