//! The certificate authorities that the AWS clients trust: Amazon's own, then the machine's CA bundle; or only those of a given
//! bundle.
//!
//! Five authorities of Amazon sign the certificates of AWS endpoints. Reading and parsing the machine's bundle of about 140 took
//! a quarter of a cold start. So the bundle is only read when an endpoint's certificate is signed by none of the five. The call
//! attempt that meets such an endpoint fails like a broken connection, and the client's retry uses the bundle.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_smithy_http_client::tls::{self, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::config::ConfigError;
use crate::storage::IDLE;

/// Amazon Root CA 1 to 4 and Starfield Services Root Certificate Authority - G2, as in Mozilla's bundle
/// (<https://www.amazontrust.com/repository>). The last one is the first to expire, at the end of 2037.
const AMAZON: &[u8] = include_bytes!("amazon.pem");

/// Returns the HTTP client that all AWS clients share. If `bundle` is given, only the authorities in that PEM file are trusted.
///
/// # Errors
/// Returns a [`ConfigError`] if the bundle cannot be read, contains no certificate, or contains one that cannot be used.
pub fn client(bundle: Option<&Path>) -> Result<SharedHttpClient, ConfigError> {
    let (first, fallback) = match bundle {
        Some(bundle) => (https(TrustStore::empty().with_pem_certificate(certificates(bundle)?))?, None),
        // The machine's bundle may lack Amazon's authorities, because it may be custom.
        None => (
            https(TrustStore::empty().with_pem_certificate(AMAZON))?,
            Some(https(TrustStore::default().with_pem_certificate(AMAZON))?),
        ),
    };
    Ok(SharedHttpClient::new(FallbackClient { first, fallback, is_distrusted: Arc::default() }))
}

/// Returns an HTTP client for calls that are not the SDK's own. It is made with its first call, because it reads the machine's
/// bundle then.
///
/// # Errors
/// As for [`client`].
#[cfg(feature = "replay")]
pub fn connector(bundle: Option<&Path>) -> Result<SharedHttpConnector, ConfigError> {
    let trusted = match bundle {
        Some(bundle) => TrustStore::empty().with_pem_certificate(certificates(bundle)?),
        None => TrustStore::default().with_pem_certificate(AMAZON),
    };
    let context = TlsContext::builder().with_trust_store(trusted).build();
    let context = context.map_err(|error| ConfigError(format!("TLS cannot be set up: {error}")))?;
    Ok(SharedHttpConnector::new(LazyConnector { context, made: std::sync::OnceLock::new() }))
}

/// Makes its connector when it is needed.
#[cfg(feature = "replay")]
#[derive(Debug)]
struct LazyConnector {
    context: TlsContext,
    made: std::sync::OnceLock<SharedHttpConnector>,
}

#[cfg(feature = "replay")]
impl HttpConnector for LazyConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let ring = || tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring);
        let make = || {
            let builder = aws_smithy_http_client::Connector::builder().pool_idle_timeout(IDLE).tls_provider(ring());
            SharedHttpConnector::new(builder.tls_context(self.context.clone()).build())
        };
        self.made.get_or_init(make).call(request)
    }
}

/// Returns an HTTPS client that trusts these authorities.
fn https(trusted: TrustStore) -> Result<SharedHttpClient, ConfigError> {
    let context = TlsContext::builder().with_trust_store(trusted).build();
    let context = context.map_err(|error| ConfigError(format!("TLS cannot be set up: {error}")))?;
    // `ring`, because the SDK's default, `aws-lc`, gathers entropy for its first handshake, which takes most of a cold start.
    let ring = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring);
    let builder = aws_smithy_http_client::Builder::new().pool_idle_timeout(IDLE).tls_provider(ring);
    Ok(builder.tls_context(context).build_https())
}

/// Reads a PEM file and checks its certificates, because one that cannot be used would cause a panic at the first call.
fn certificates(bundle: &Path) -> Result<Vec<u8>, ConfigError> {
    let wrong = |what: &str| {
        let name = bundle.display();
        ConfigError(format!(
            "AWS_CA_BUNDLE is `{name}`, which {what}; set it to a file of certificates in PEM, or to nothing"
        ))
    };
    let pem = std::fs::read(bundle).map_err(|_| wrong("cannot be read"))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found.map(|found| RootCertStore::empty().add_parsable_certificates(found)) {
        Ok((1.., 0)) => Ok(pem),
        _ => Err(wrong("holds none, or one that cannot be used")),
    }
}

/// Uses the first client until it meets an endpoint that it does not trust, and then the fallback.
///
/// It creates no connector in advance. The clients that it chooses from would create one for each AWS client and not use it.
#[derive(Debug)]
struct FallbackClient {
    first: SharedHttpClient,
    fallback: Option<SharedHttpClient>,
    /// Whether the first client met an endpoint that it does not trust.
    is_distrusted: Arc<AtomicBool>,
}

impl HttpClient for FallbackClient {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        match &self.fallback {
            None => self.first.http_connector(settings, components),
            Some(fallback) if self.is_distrusted.load(Ordering::Relaxed) => {
                fallback.http_connector(settings, components)
            }
            Some(_) => SharedHttpConnector::new(WatchedConnector {
                connector: self.first.http_connector(settings, components),
                is_distrusted: Arc::clone(&self.is_distrusted),
            }),
        }
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.first.connector_metadata()
    }
}

/// Records when it meets an endpoint that it does not trust.
#[derive(Debug)]
struct WatchedConnector {
    connector: SharedHttpConnector,
    is_distrusted: Arc<AtomicBool>,
}

impl HttpConnector for WatchedConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (response, is_distrusted) = (self.connector.call(request), Arc::clone(&self.is_distrusted));
        HttpConnectorFuture::new(async move {
            let response = response.await;
            if response.as_ref().is_err_and(|error| is_distrust(error)) && !is_distrusted.swap(true, Ordering::Relaxed)
            {
                tracing::info!(
                    "Amazon's authorities do not vouch for an endpoint; the machine's CA bundle is used from now on"
                );
            }
            response
        })
    }
}

/// Returns whether an error was caused by a certificate. An `io::Error` does not return its cause from `source`.
fn is_distrust(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| match error.downcast_ref::<std::io::Error>() {
        Some(error) => error.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static)),
        None => error.source(),
    })
    .any(|error| matches!(error.downcast_ref(), Some(rustls::Error::InvalidCertificate(_))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_five_authorities_can_be_used() {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(AMAZON) {
            roots.add(certificate.unwrap()).unwrap();
        }
        assert_eq!(roots.len(), 5);
    }
}
