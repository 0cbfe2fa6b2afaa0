//! A server with TLS 1.3 on the loopback interface, for the tests and the benches. It has its own certificate authority.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::serve::Listener;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{HandshakeKind, ServerConfig, version};
use tokio_rustls::server::TlsStream;

/// A running server.
pub struct TlsServer {
    /// Its URL.
    pub url: String,
    /// The certificate of its authority, as PEM.
    pub authority: String,
    /// The handshakes so far.
    #[allow(dead_code, reason = "the tests read it, the benches do not")]
    pub handshakes: Arc<Handshakes>,
}

/// How many handshakes a server made, by kind.
#[allow(dead_code, reason = "the tests read it, the benches do not")]
#[derive(Default)]
pub struct Handshakes {
    /// Those in which the client checked the server's certificate.
    pub full: AtomicUsize,
    /// Those that resumed an earlier session by a ticket, which takes a client less CPU.
    pub resumed: AtomicUsize,
}

impl TlsServer {
    /// Starts a server, which runs as long as the runtime.
    ///
    /// # Errors
    /// No certificate can be made, or no port is free.
    pub async fn start(router: Router) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let (acceptor, authority) = identity()?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("https://{}", listener.local_addr()?);
        let handshakes = Arc::<Handshakes>::default();
        let listener = TlsListener { listener, acceptor, handshakes: Arc::clone(&handshakes) };
        tokio::spawn(async { axum::serve(listener, router).await });
        Ok(Self { url, authority, handshakes })
    }
}

struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    handshakes: Arc<Handshakes>,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    /// Accepts a connection. Handshakes are done one after the other, and a connection whose handshake fails is dropped.
    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, address)) = self.listener.accept().await else { continue };
            if stream.set_nodelay(true).is_err() {
                continue;
            }
            if let Ok(stream) = self.acceptor.accept(stream).await {
                let is_resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
                let count = if is_resumed { &self.handshakes.resumed } else { &self.handshakes.full };
                count.fetch_add(1, Ordering::Relaxed);
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// Creates a server's TLS 1.3 configuration, and the certificate of the authority that signed it.
fn identity() -> Result<(TlsAcceptor, String), Box<dyn Error + Send + Sync>> {
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
