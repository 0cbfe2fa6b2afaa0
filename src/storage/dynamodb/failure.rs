//! Converts the SDK's errors of failed DynamoDB calls to storage errors, with as much of the cause as a log may contain.
//!
//! Of an error with which DynamoDB answered, only the code and the status are kept. The message may name roles, tables and
//! accounts, and the response of a failed condition contains the visitor's item. So the SDK's error must not leave this module.

use std::error::Error;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::http::StatusCode;

use crate::storage::{SessionError, StorageErrorKind};

/// The codes for more calls than the service accepts.
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
/// The codes for a request that the service did not receive in time.
const TIMED_OUT: [&str; 2] = ["RequestTimeout", "RequestTimeoutException"];
/// The codes for credentials that the service does not accept, and for missing permissions.
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

/// Why a call failed, with nothing that a log must not contain.
#[derive(Debug, thiserror::Error)]
enum CallError {
    /// The service answered with an error.
    #[error("{code} (status {status}){hint}")]
    ErrorAnswer { code: String, status: u16, hint: &'static str },
    /// There was no answer, or it cannot be read.
    #[error("{message}")]
    NoAnswer { message: String, source: Box<dyn Error + Send + Sync> },
}

/// Returns the storage error for a call that failed.
pub(super) fn call_error<E>(error: SdkError<E, HttpResponse>) -> SessionError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let kind = match &error {
        SdkError::ServiceError(failure) => return answer_error(failure.err(), failure.raw().status()),
        SdkError::TimeoutError(_) => StorageErrorKind::TimedOut,
        SdkError::DispatchFailure(failure) if failure.is_timeout() => StorageErrorKind::TimedOut,
        _ => StorageErrorKind::Other,
    };
    let message = error.to_string();
    match error.into_source() {
        Ok(source) => SessionError::storage(kind, CallError::NoAnswer { message, source }),
        Err(_) => SessionError::storage(kind, message),
    }
}

/// Returns the storage error for a call that the service answered with an error.
pub(super) fn answer_error(error: &impl ProvideErrorMetadata, status: StatusCode) -> SessionError {
    let (code, status) = (error.code(), status.as_u16());
    let kind = kind_of_answer(code, status);
    let hint = code.map_or("", hint);
    let code = code.unwrap_or("an answer without a code").to_owned();
    SessionError::storage(kind, CallError::ErrorAnswer { code, status, hint })
}

/// Returns what to look at, if the error means that the table is not one for this service. DynamoDB's own message would tell, but it
/// may hold what a log must not.
fn hint(code: &str) -> &'static str {
    match code {
        "ResourceNotFoundException" => "; there is no table of the name in TABLE",
        "ValidationException" => "; the keys of the table, or its index `due`, are not those that docs/deploy.md lists",
        _ => "",
    }
}

/// Returns the kind of an error by its code. If the code is not in the lists, the status decides, because a proxy or a gateway
/// may have answered instead of DynamoDB.
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

    /// Returns the SDK's error for an answer with this code and status, and with a message that no log may contain.
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
            (
                answer(Some("ResourceNotFoundException"), 400),
                other,
                "ResourceNotFoundException (status 400); there is no table",
            ),
            (
                answer(Some("ValidationException"), 400),
                other,
                "ValidationException (status 400); the keys of the table",
            ),
            (answer(Some("ServiceUnavailable"), 503), other, "ServiceUnavailable (status 503)"),
            (answer(None, 502), other, "an answer without a code (status 502)"),
            // Proxies and gateways answer without a code, or with codes of their own.
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
            let error = call_error(error);
            let SessionError::Storage { kind: found, .. } = &error else { panic!("{error:?}") };
            let line = error.with_causes();
            assert_eq!((*found, error.code()), (kind, "storage_unavailable"), "{line}");
            assert!(line.starts_with(&format!("storage is not available: {reason}")), "{line}");
            assert!(!line.contains(SECRET) && !format!("{error:?}").contains(SECRET), "{error:?}");
        }
    }
}
