//! A DynamoDB that knows nothing and takes everything, behind TLS 1.3 on a port of the loopback interface.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::HeaderMap;
use axum::routing::post;
use axum::serve::Listener;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ServerConfig, version};
use tokio_rustls::server::TlsStream;

use crate::Failure;

/// The machine's trusted certificates: the functions read and parse them all, as they would on Lambda.
const BUNDLES: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// Where it is, whom to trust, and the writes that came.
pub struct Endpoint {
    pub url: String,
    /// A file of the machine's trusted certificates and its own authority's.
    pub trusted: PathBuf,
    writes: UnboundedReceiver<Instant>,
}

struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    /// Handshakes one after the other; whoever breaks one off is forgotten.
    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, address)) = self.listener.accept().await else { continue };
            if stream.set_nodelay(true).is_err() {
                continue;
            }
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
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
        let (acceptor, authority) = identity()?;
        let bundle = BUNDLES.iter().find_map(|path| std::fs::read_to_string(path).ok());
        let bundle = bundle.ok_or("no trusted certificates on this machine; install ca-certificates")?;
        let trusted = std::env::temp_dir().join(format!("coldstart-{}.pem", std::process::id()));
        std::fs::write(&trusted, bundle + &authority)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("https://{}", listener.local_addr()?);
        let (sender, writes) = unbounded_channel();
        let router = Router::new().route("/", post(answer)).layer(DefaultBodyLimit::disable()).with_state(sender);
        tokio::spawn(async { axum::serve(TlsListener { listener, acceptor }, router).await });
        Ok(Self { url, trusted, writes })
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
        let _ = std::fs::remove_file(&self.trusted);
    }
}

/// A server's side of TLS 1.3, and the certificate of who vouches for it.
fn identity() -> Result<(TlsAcceptor, String), Failure> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()])?.signed_by(&key, &authority)?;
    let key = PrivateKeyDer::try_from(key.serialize_der())?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    Ok((TlsAcceptor::from(Arc::new(config)), authority.pem()))
}
