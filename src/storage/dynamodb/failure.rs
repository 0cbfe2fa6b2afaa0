//! What a failed call of DynamoDB is: its kind, and as much of its reason as a log may hold.
//!
//! Of an error that DynamoDB answered with, the code and the status are kept. Its message may name roles, tables and accounts,
//! and the response of a failed condition holds the visitor's item, so the SDK's own error ends here.

use std::error::Error;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::http::StatusCode;

use crate::storage::{SessionError, StorageErrorKind};

/// Codes of a service that takes fewer calls than it was sent.
const THROTTLED: [&str; 8] = [
    "ProvisionedThroughputExceededException",
    "ThrottlingException",
    "Throttling",
    "ThrottledException",
    "RequestThrottledException",
    "RequestLimitExceeded",
    "TooManyRequestsException",
    "LimitExceededException",
];
/// Codes of a service that gave up waiting.
const TIMED_OUT: [&str; 2] = ["RequestTimeout", "RequestTimeoutException"];
/// Codes of a service that does not accept who calls, or what they ask for.
const DENIED: [&str; 14] = [
    "AccessDeniedException",
    "AccessDenied",
    "UnrecognizedClientException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "IncompleteSignatureException",
    "IncompleteSignature",
    "MissingAuthenticationTokenException",
    "MissingAuthenticationToken",
    "ExpiredTokenException",
    "ExpiredToken",
    "NotAuthorized",
    "OptInRequired",
];

/// Why a call failed, in words that a log may hold.
#[derive(Debug, thiserror::Error)]
enum CallError {
    /// The service answered with an error.
    #[error("{code} (status {status})")]
    Answered { code: String, status: u16 },
    /// No answer came, or none that can be read.
    #[error("{how}")]
    Broken { how: String, source: Box<dyn Error + Send + Sync> },
}

/// Returns the error of a call that failed.
pub(super) fn failed<E>(error: SdkError<E, HttpResponse>) -> SessionError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let kind = match &error {
        SdkError::ServiceError(failure) => return answered(failure.err(), failure.raw().status()),
        SdkError::TimeoutError(_) => StorageErrorKind::TimedOut,
        SdkError::DispatchFailure(failure) if failure.is_timeout() => StorageErrorKind::TimedOut,
        _ => StorageErrorKind::Other,
    };
    let how = error.to_string();
    match error.into_source() {
        Ok(source) => SessionError::storage(kind, CallError::Broken { how, source }),
        Err(_) => SessionError::storage(kind, how),
    }
}

/// Returns the error of a call that the service answered with an error.
pub(super) fn answered(error: &impl ProvideErrorMetadata, status: StatusCode) -> SessionError {
    let (code, status) = (error.code(), status.as_u16());
    let kind = kind_of_answer(code, status);
    let code = code.unwrap_or("an answer without a code").to_owned();
    SessionError::storage(kind, CallError::Answered { code, status })
}

/// Returns the kind of an answer by its code. One whose code is not in the lists goes by its status: a proxy or a gateway
/// in between may have answered.
fn kind_of_answer(code: Option<&str>, status: u16) -> StorageErrorKind {
    match (code, status) {
        (Some(code), _) if THROTTLED.contains(&code) => StorageErrorKind::Throttled,
        (Some(code), _) if TIMED_OUT.contains(&code) => StorageErrorKind::TimedOut,
        (Some(code), _) if DENIED.contains(&code) => StorageErrorKind::Denied,
        (_, 429) => StorageErrorKind::Throttled,
        (_, 408 | 504) => StorageErrorKind::TimedOut,
        (_, 401 | 403) => StorageErrorKind::Denied,
        _ => StorageErrorKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::error::ErrorMetadata;
    use aws_sdk_dynamodb::operation::put_item::PutItemError;
    use aws_smithy_runtime_api::client::result::ConnectorError;

    use super::*;

    type PutError = SdkError<PutItemError, HttpResponse>;

    const SECRET: &str = "arn:aws:iam::123456789012:role/secret";

    /// An answer with a code, if it has one, and with a message that no log may hold.
    fn answer(code: Option<&str>, status: u16) -> PutError {
        let mut error = ErrorMetadata::builder().message(SECRET);
        error = match code {
            Some(code) => error.code(code),
            None => error,
        };
        let response = HttpResponse::new(status.try_into().unwrap(), SECRET.into());
        SdkError::service_error(PutItemError::generic(error.build()), response)
    }

    #[test]
    fn every_error_of_the_sdk_has_a_kind_and_a_reason() {
        let (throttled, timed_out) = (StorageErrorKind::Throttled, StorageErrorKind::TimedOut);
        let (denied, other) = (StorageErrorKind::Denied, StorageErrorKind::Other);
        let mut table = vec![
            (answer(Some("InternalServerError"), 500), other, "InternalServerError (status 500)"),
            (answer(Some("ResourceNotFoundException"), 400), other, "ResourceNotFoundException (status 400)"),
            (answer(Some("ServiceUnavailable"), 503), other, "ServiceUnavailable (status 503)"),
            (answer(None, 502), other, "an answer without a code (status 502)"),
            // What stands between the service and the table has codes of its own.
            (answer(None, 429), throttled, "an answer without a code (status 429)"),
            (answer(Some("Busy"), 429), throttled, "Busy (status 429)"),
            (answer(None, 504), timed_out, "an answer without a code (status 504)"),
            (answer(None, 403), denied, "an answer without a code (status 403)"),
            (answer(Some("Forbidden"), 403), denied, "Forbidden (status 403)"),
            (SdkError::timeout_error("after 1.2s"), timed_out, "request has timed out: after 1.2s"),
            (
                SdkError::dispatch_failure(ConnectorError::timeout("connect".into())),
                timed_out,
                "dispatch failure: timeout: connect",
            ),
            (
                SdkError::dispatch_failure(ConnectorError::io("refused".into())),
                other,
                "dispatch failure: io error: refused",
            ),
            (
                SdkError::dispatch_failure(ConnectorError::other("no credentials".into(), None)),
                other,
                "dispatch failure: other: no credentials",
            ),
            (SdkError::construction_failure("no table"), other, "failed to construct request: no table"),
            (
                SdkError::response_error("cut off", HttpResponse::new(200.try_into().unwrap(), SECRET.into())),
                other,
                "response error: cut off",
            ),
        ];
        for (codes, kind) in [(&THROTTLED[..], throttled), (&TIMED_OUT[..], timed_out), (&DENIED[..], denied)] {
            table.extend(codes.iter().map(|code| (answer(Some(code), 400), kind, *code)));
        }
        for (error, kind, reason) in table {
            let error = failed(error);
            let SessionError::Storage { kind: found, .. } = &error else { panic!("{error:?}") };
            let line = error.with_causes();
            assert_eq!((*found, error.code()), (kind, "storage_unavailable"), "{line}");
            assert!(line.starts_with(&format!("storage is not available: {reason}")), "{line}");
            assert!(!line.contains(SECRET) && !format!("{error:?}").contains(SECRET), "{error:?}");
        }
    }
}
