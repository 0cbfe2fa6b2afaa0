//! CORS: which pages may send requests and read the answers.

use serde::Serialize;

use crate::config::AllowedOrigins;
use crate::dialect::Endpoint;

/// The methods that pages may use.
const METHODS: &str = "GET, POST, OPTIONS";
/// The headers that pages may send: those of the clients, and those of their attempts after a failure.
const HEADERS: &str = "authorization, content-encoding, content-type, x-write-key, anonymousid, sentat, x-retry-count, rsa-retry-attempt, \
    rsa-retry-reason, rsa-since-first-attempt, rsa-since-last-attempt, sp-anonymous, posthog-attempt, posthog-request-id, \
    posthog-request-timestamp, posthog-sdk-info";
/// How long a browser may keep the answer to a preflight, in seconds: two hours, the most that Chromium takes. Preflights come for
/// each path and page otherwise.
const MAX_AGE_SECONDS: &str = "7200";

/// The headers of an answer to a page.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Permission {
    access_control_allow_origin: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_control_allow_credentials: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_control_allow_methods: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_control_allow_headers: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_control_max_age: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_control_expose_headers: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vary: Option<&'static str>,
}

/// Returns the headers of an answer to a page of this origin. Returns `None` if its pages are not allowed.
///
/// Clients that send credentials read an answer only if it names their origin. All others get `*` if any origin is allowed. No
/// path depends on a cookie, so credentials give a page nothing that it would not have without them.
pub(super) fn headers(allowed: &AllowedOrigins, origin: &str, method: &str, path: &str) -> Option<Permission> {
    if !allowed.has(origin) {
        return None;
    }
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    // A page without an origin, such as a file, calls itself `null`.
    let has_credentials = origin != "null" && Endpoint::of(&segments).is_some_and(Endpoint::has_credentials);
    let is_named = has_credentials || !allowed.is_any();
    let is_preflight = method == "OPTIONS";
    Some(Permission {
        access_control_allow_origin: if is_named { origin.to_owned() } else { "*".to_owned() },
        access_control_allow_credentials: has_credentials.then_some("true"),
        access_control_allow_methods: is_preflight.then_some(METHODS),
        access_control_allow_headers: is_preflight.then_some(HEADERS),
        access_control_max_age: is_preflight.then_some(MAX_AGE_SECONDS),
        access_control_expose_headers: (!is_preflight).then_some("retry-after"),
        vary: is_named.then_some("origin"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn sent(allowed: &str, origin: &str, method: &str, path: &str) -> Value {
        let allowed = AllowedOrigins::parse(allowed).unwrap();
        json!(headers(&allowed, origin, method, path))
    }

    #[test]
    fn an_origin_is_named_where_credentials_are_sent() {
        for path in ["/e/", "/batch/", "/com.snowplowanalytics.snowplow/tp2", "/i", "/track/", "/prod//engage"] {
            let sent = sent("*", "https://shop.test", "POST", path);
            assert_eq!(sent["access-control-allow-origin"], "https://shop.test", "{path}");
            assert_eq!(sent["access-control-allow-credentials"], "true", "{path}");
            assert_eq!(sent["vary"], "origin", "{path}");
        }
        for path in ["/events", "/v1/t", "/2/httpapi", "/sourceConfig/", "/elsewhere", "/sessions/x"] {
            let wanted = json!({"access-control-allow-origin": "*", "access-control-expose-headers": "retry-after"});
            assert_eq!(sent("*", "https://shop.test", "POST", path), wanted, "{path}");
        }
        assert_eq!(sent("*", "null", "POST", "/e/")["access-control-allow-credentials"], Value::Null);
    }

    #[test]
    fn other_origins_than_those_of_the_list_get_nothing() {
        let list = "https://shop.test, http://localhost:3000";
        for path in ["/events", "/e/"] {
            for origin in ["https://shop.test", "HTTP://LOCALHOST:3000"] {
                let sent = sent(list, origin, "OPTIONS", path);
                assert_eq!(sent["access-control-allow-origin"], origin);
                assert_eq!(sent["vary"], "origin");
                assert_eq!(sent["access-control-max-age"], MAX_AGE_SECONDS);
            }
            for origin in ["https://shop.test.evil", "http://shop.test", "null", ""] {
                assert_eq!(sent(list, origin, "OPTIONS", path), Value::Null, "{origin}");
            }
        }
    }
}
