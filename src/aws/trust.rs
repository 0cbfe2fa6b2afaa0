//! Whom the clients trust: Amazon's own authorities, and the machine's bundle once those do not suffice; or a bundle of one's own.
//!
//! Five authorities vouch for the endpoints of AWS. To read and parse the machine's bundle, some 140 of them, took a quarter of a
//! start, so this is left until an endpoint is met whose authority is none of the five. The attempt that meets it fails, as
//! with a connection that breaks, and the client's second attempt goes by the bundle.

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

/// Amazon Root CA 1 to 4 and Starfield Services Root Certificate Authority - G2, as they stand in Mozilla's bundle:
/// <https://www.amazontrust.com/repository>. The first to end is the last, at the end of 2037.
const AMAZON: &[u8] = include_bytes!("amazon.pem");

/// The client of HTTP that all clients of AWS share. A bundle is a file of the only authorities to trust.
///
/// # Errors
/// A bundle that holds no certificates, or one that cannot be read.
pub fn client(bundle: Option<&Path>) -> Result<SharedHttpClient, ConfigError> {
    let (first, then) = match bundle {
        Some(bundle) => (https(TrustStore::empty().with_pem_certificate(certificates(bundle)?))?, None),
        // The bundle may lack the five: it may be one's own.
        None => (
            https(TrustStore::empty().with_pem_certificate(AMAZON))?,
            Some(https(TrustStore::default().with_pem_certificate(AMAZON))?),
        ),
    };
    Ok(SharedHttpClient::new(Trusting { first, then, is_distrusted: Arc::default() }))
}

fn https(trusted: TrustStore) -> Result<SharedHttpClient, ConfigError> {
    let context = TlsContext::builder().with_trust_store(trusted).build();
    let context = context.map_err(|error| ConfigError(format!("TLS cannot be set up: {error}")))?;
    // `ring`: the SDK's default, `aws-lc`, gathers entropy for its first handshake, which takes most of a cold start.
    let ring = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring);
    let builder = aws_smithy_http_client::Builder::new().pool_idle_timeout(IDLE).tls_provider(ring);
    Ok(builder.tls_context(context).build_https())
}

/// A file's certificates, as they stand there. One that cannot be used would be a panic at the first call.
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

/// Unlike the clients it chooses from, it makes no connector ahead for each client of AWS only to throw it away.
#[derive(Debug)]
struct Trusting {
    first: SharedHttpClient,
    then: Option<SharedHttpClient>,
    /// Whether an endpoint was met that the first does not trust.
    is_distrusted: Arc<AtomicBool>,
}

impl HttpClient for Trusting {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        match &self.then {
            None => self.first.http_connector(settings, components),
            Some(then) if self.is_distrusted.load(Ordering::Relaxed) => then.http_connector(settings, components),
            Some(_) => SharedHttpConnector::new(Watched {
                connector: self.first.http_connector(settings, components),
                is_distrusted: Arc::clone(&self.is_distrusted),
            }),
        }
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.first.connector_metadata()
    }
}

/// Says when it meets an endpoint that it does not trust.
#[derive(Debug)]
struct Watched {
    connector: SharedHttpConnector,
    is_distrusted: Arc<AtomicBool>,
}

impl HttpConnector for Watched {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (answer, is_distrusted) = (self.connector.call(request), Arc::clone(&self.is_distrusted));
        HttpConnectorFuture::new(async move {
            let answer = answer.await;
            if answer.as_ref().is_err_and(|error| is_distrust(error)) && !is_distrusted.swap(true, Ordering::Relaxed) {
                tracing::info!("Amazon's authorities do not vouch for an endpoint; the machine's are asked");
            }
            answer
        })
    }
}

/// Whether an error is that of a certificate. One of I/O hides its cause from `source`.
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
    fn the_five_are_what_a_client_takes() {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(AMAZON) {
            roots.add(certificate.unwrap()).unwrap();
        }
        assert_eq!(roots.len(), 5);
    }
}
