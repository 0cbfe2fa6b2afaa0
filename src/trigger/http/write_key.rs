//! The write key of a request, which names the project of its events.

use serde::Deserialize;
use serde_json::value::RawValue;
use url::form_urlencoded;

use super::Request;
use crate::config::Projects;
use crate::trigger::body::from_base64;
use crate::trigger::envelope::string;

/// The names of a parameter or a member with a key: our own first, then those of other clients.
const NAMES: [&str; 3] = ["write_key", "writeKey", "api_key"];

/// The code of an answer to a request without a known key.
pub(super) const UNKNOWN_KEY: &str = "unknown_write_key";
/// What the sender of such a request has to do.
pub(super) const USE_A_KEY: &str =
    "the request has no write key that is known; send the project's key, for example in the header `x-write-key`";

/// The request has no key, or one that is not known.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnknownKey;

/// Returns the project that a key names. Returns `None` if no project has a key: then every request is welcome.
pub(super) fn project(projects: &Projects, key: impl FnOnce() -> Option<String>) -> Result<Option<&str>, UnknownKey> {
    if !projects.have_keys() {
        return Ok(None);
    }
    let project = key().and_then(|key| projects.by_key(&key)).ok_or(UnknownKey)?;
    Ok(Some(&project.name))
}

/// Returns the key of a request in our own format: that of its headers or its query, or else that of its decoded body.
pub(super) fn of_request(request: &Request<'_>, body: Option<&[u8]>) -> Option<String> {
    of_head(request).or_else(|| in_body(body?))
}

/// Returns the key in the headers or in the query.
pub(super) fn of_head(request: &Request<'_>) -> Option<String> {
    let header =
        |name: &str| request.header(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    header("x-write-key").or_else(|| in_authorization(&header("authorization")?)).or_else(|| in_query(&request.query()))
}

/// Returns the token of `Bearer`, or the user name of `Basic`. Another scheme, such as that of signed requests, has no key.
fn in_authorization(value: &str) -> Option<String> {
    let (scheme, rest) = value.split_once(' ')?;
    let key = if scheme.eq_ignore_ascii_case("bearer") {
        rest.trim().to_owned()
    } else if scheme.eq_ignore_ascii_case("basic") {
        let pair = String::from_utf8(from_base64(rest.trim().as_bytes()).ok()?).ok()?;
        pair.split(':').next().unwrap_or_default().to_owned()
    } else {
        return None;
    };
    (!key.is_empty()).then_some(key)
}

fn in_query(query: &str) -> Option<String> {
    let value = |name| form_urlencoded::parse(query.as_bytes()).find(|(key, value)| key == name && !value.is_empty());
    NAMES.into_iter().find_map(value).map(|(_, value)| value.into_owned())
}

/// Returns the key in a body: of the object around the events, or of the first event.
fn in_body(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Keys<'a> {
        #[serde(borrow)]
        write_key: Option<&'a RawValue>,
        #[serde(borrow, rename = "writeKey")]
        write_key_in_camel_case: Option<&'a RawValue>,
        #[serde(borrow)]
        api_key: Option<&'a RawValue>,
    }
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii();
    let first = body.strip_prefix(b"[").unwrap_or(body);
    // Only the first value is read, because what follows can be megabytes of events.
    let keys = serde_json::Deserializer::from_slice(first).into_iter::<Keys<'_>>().next()?.ok()?;
    [keys.write_key, keys.write_key_in_camel_case, keys.api_key]
        .into_iter()
        .flatten()
        .filter_map(string)
        .find(|key| !key.is_empty())
        .map(Into::into)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::request;
    use super::*;
    use crate::config::GivenRules;

    /// Returns the key of a request with these headers, this query and this body, from both payloads.
    fn key(headers: Value, query: &str, body: &str) -> Option<String> {
        let parameters: serde_json::Map<String, Value> =
            form_urlencoded::parse(query.as_bytes()).map(|(name, value)| (name.into_owned(), json!(value))).collect();
        let payload_2 = json!({
            "version": "2.0", "rawPath": "/events", "rawQueryString": query, "headers": headers,
            "requestContext": {"http": {"method": "POST"}}, "body": body,
        });
        let payload_1 = json!({
            "path": "/events", "httpMethod": "POST", "queryStringParameters": parameters, "headers": headers,
            "requestContext": {}, "body": body,
        });
        let [of_2, of_1] = [payload_2, payload_1].map(|payload| {
            let payload = payload.to_string();
            of_request(&request(&payload), Some(body.as_bytes()))
        });
        assert_eq!(of_1, of_2, "{headers} {query} {body}");
        of_2
    }

    #[test]
    fn a_key_is_found_wherever_a_request_can_have_it() {
        // `a2V5Og==` is `key:`, and `a2V5OnNlY3JldA==` is `key:secret`.
        for (headers, query, body) in [
            (json!({"X-Write-Key": " key "}), "", ""),
            (json!({"x-write-key": "key", "authorization": "Bearer other"}), "write_key=third", ""),
            (json!({"Authorization": "Bearer key"}), "write_key=other", ""),
            (json!({"authorization": "bearer  key "}), "", ""),
            (json!({"authorization": "Basic a2V5Og=="}), "", ""),
            (json!({"authorization": "basic a2V5OnNlY3JldA=="}), "", ""),
            (json!({"authorization": "AWS4-HMAC-SHA256 Credential=x", "x-write-key": ""}), "write_key=key", ""),
            (json!({"authorization": "Basic Og=="}), "a=b&write_key=key", ""),
            (json!({}), "writeKey=key", ""),
            (json!({}), "api_key=key", r#"{"write_key":"other"}"#),
            (json!({}), "write_key=&api_key=k%65y", ""),
            (json!({}), "key=other", r#"{"write_key":"key","api_key":"other","events":[{"api_key":"third"}]}"#),
            (json!({}), "", r#"{"events":[],"writeKey":"key"}"#),
            (json!({}), "", r#"{"write_key":null,"writeKey":"","api_key":"k\u0065y","batch":[]}"#),
            (json!({}), "", r#"{"event":"x","distinct_id":"u","api_key":"key"}"#),
            (json!({}), "", "\u{feff} [ {\"api_key\":\"key\"}, {\"api_key\":\"other\"} ]"),
            (json!({}), "", "{\"api_key\":\"key\"}\n{\"api_key\":\"other\"}"),
            (json!({}), "", "{\"api_key\":\"key\"} and what is no JSON"),
        ] {
            assert_eq!(key(headers.clone(), query, body).as_deref(), Some("key"), "{headers} {query} {body}");
        }
        for (headers, query, body) in [
            (json!({}), "", ""),
            (json!({"authorization": "key"}), "key=key", "[]"),
            (json!({"authorization": "Digest key"}), "write_key", "{}"),
            (json!({"authorization": "Basic key!"}), "", r#"{"properties":{"api_key":"key"}}"#),
            (json!({}), "", r#"{"api_key":7}"#),
            (json!({}), "", r#"["api_key","key"]"#),
            (json!({}), "", r#"{"api_key":"key","api_key":"key"}"#),
        ] {
            assert_eq!(key(headers.clone(), query, body), None, "{headers} {query} {body}");
        }
    }

    #[test]
    fn a_key_is_asked_for_only_where_a_project_has_one() {
        let projects = |json| Projects::from_json(&GivenRules::default(), json).unwrap();
        let with_key = projects(r#"{"shop": {"keys": ["k"]}, "blog": {}}"#);
        assert_eq!(project(&with_key, || Some("k".to_owned())), Ok(Some("shop")));
        assert_eq!(project(&with_key, || Some("K".to_owned())), Err(UnknownKey));
        assert_eq!(project(&with_key, || None), Err(UnknownKey));
        for without in [projects("{}"), projects(r#"{"shop": {}}"#)] {
            assert_eq!(project(&without, || panic!("the request is not searched")), Ok(None));
        }
    }
}
