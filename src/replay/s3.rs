//! Chunks in S3. Requests go through the HTTP client of the AWS SDK, so that there is one TLS stack and one list of trusted
//! authorities.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_dynamodb::config::{ProvideCredentials, SharedCredentialsProvider};
use aws_smithy_runtime_api::client::http::{HttpConnector as _, SharedHttpConnector};
use aws_smithy_types::body::SdkBody;
use http_body_util::BodyExt;
use object_store::aws::{AmazonS3Builder, AwsCredential};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};
use object_store::{BackoffConfig, ClientOptions, CredentialProvider, RetryConfig};

use super::{Inputs, ReplayStore};
use crate::config::ConfigError;

/// Retries of a call. As for the table, a caller that retries later costs less than a function that waits.
const RETRIES: RetryConfig = RetryConfig {
    backoff: BackoffConfig {
        init_backoff: Duration::from_millis(25),
        max_backoff: Duration::from_millis(200),
        base: 2.0,
    },
    max_retries: 1,
    retry_timeout: Duration::from_millis(2_800),
};
/// The time limit of one attempt, with its answer.
const ATTEMPT: Duration = Duration::from_millis(1_400);

/// Returns the store in a bucket. `aws` names the region and the credentials, `endpoint` another server than S3's own.
///
/// # Errors
/// The bucket cannot be used.
pub fn in_bucket(
    bucket: &str,
    endpoint: Option<&str>,
    aws: &SdkConfig,
    connector: SharedHttpConnector,
    inputs: Inputs,
) -> Result<ReplayStore, ConfigError> {
    let wrong = |why: &str| ConfigError(format!("REPLAY_BUCKET is `{bucket}`, which cannot be used: {why}"));
    let region = aws.region().ok_or_else(|| wrong("no region is set; set AWS_REGION"))?;
    let provider = aws.credentials_provider().ok_or_else(|| wrong("there are no credentials"))?;
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(region.as_ref())
        .with_credentials(Arc::new(Credentials(provider)))
        .with_http_connector(Connector(connector))
        .with_retry(RETRIES);
    if let Some(endpoint) = endpoint.map(str::to_owned).or_else(|| special_endpoint(aws)) {
        builder = builder.with_allow_http(endpoint.starts_with("http://")).with_endpoint(endpoint);
    }
    let store = builder.build().map_err(|error| wrong(&error.to_string()))?;
    Ok(ReplayStore::new(Arc::new(store), inputs))
}

/// Returns the region's FIPS or dual-stack endpoint, if the settings ask for one.
fn special_endpoint(aws: &SdkConfig) -> Option<String> {
    let (fips, dual_stack) = (aws.use_fips() == Some(true), aws.use_dual_stack() == Some(true));
    let infix = format!("{}{}", if fips { "-fips" } else { "" }, if dual_stack { ".dualstack" } else { "" });
    (fips || dual_stack)
        .then(|| format!("https://s3{infix}.{}.amazonaws.com", aws.region().map_or("", |region| region.as_ref())))
}

/// The credentials of the SDK, which come from the function's environment.
#[derive(Debug)]
struct Credentials(SharedCredentialsProvider);

#[async_trait]
impl CredentialProvider for Credentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let found = self.0.provide_credentials().await;
        let found = found.map_err(|error| object_store::Error::Generic { store: "S3", source: Box::new(error) })?;
        Ok(Arc::new(AwsCredential {
            key_id: found.access_key_id().to_owned(),
            secret_key: found.secret_access_key().to_owned(),
            token: found.session_token().map(str::to_owned),
        }))
    }
}

/// Makes `object_store` use an HTTP client of the SDK.
#[derive(Debug)]
struct Connector(SharedHttpConnector);

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Service(self.0.clone())))
    }
}

#[derive(Debug)]
struct Service(SharedHttpConnector);

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answer = tokio::time::timeout(ATTEMPT, self.attempt(request)).await;
        answer.unwrap_or_else(|elapsed| Err(HttpError::new(HttpErrorKind::Timeout, elapsed)))
    }
}

impl Service {
    async fn attempt(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        // A chunk is in memory anyway.
        let body = body.collect().await?.to_bytes();
        let request = http::Request::from_parts(parts, SdkBody::from(body));
        let request = request.try_into().map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        let response = self.0.call(request).await.map_err(|error| {
            let kind = match () {
                () if error.is_timeout() => HttpErrorKind::Timeout,
                () if error.is_io() => HttpErrorKind::Interrupted,
                () => HttpErrorKind::Connect,
            };
            HttpError::new(kind, error)
        })?;
        let response: http::Response<SdkBody> =
            response.try_into_http1x().map_err(|error| HttpError::new(HttpErrorKind::Decode, error))?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| HttpError::new_boxed(HttpErrorKind::Interrupted, error))?;
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::from(body.to_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::config::Region;

    use super::*;

    #[test]
    fn the_settings_of_the_other_clients_hold_for_the_bucket() {
        let aws = |fips, dual_stack| {
            let config = SdkConfig::builder().region(Region::new("eu-west-1"));
            special_endpoint(&config.use_fips(fips).use_dual_stack(dual_stack).build())
        };
        assert_eq!(aws(false, false), None);
        assert_eq!(aws(true, false).as_deref(), Some("https://s3-fips.eu-west-1.amazonaws.com"));
        assert_eq!(aws(true, true).as_deref(), Some("https://s3-fips.dualstack.eu-west-1.amazonaws.com"));
    }
}
