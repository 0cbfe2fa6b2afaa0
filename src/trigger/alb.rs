//! Requests of an Application Load Balancer, with the function as its target. A request is read like one of a REST API. The answer
//! also has a `statusDescription`, and has its headers where the request had them: in `multiValueHeaders`, if the target group's
//! multi-value headers are on, and otherwise in `headers`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::answer::{error, json};
use super::batch::Counts;
use super::envelope::Envelope;
use super::{HandlerError, Reply};

/// Limit of a load balancer for the bytes of an answer: 1 MB.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// Returns whether a request is one of a load balancer, by its context.
pub(super) fn is_request(context: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Context<'a> {
        #[serde(borrow)]
        elb: Option<&'a RawValue>,
    }
    serde_json::from_str::<Context<'_>>(context.get()).is_ok_and(|context| context.elb.is_some())
}

/// An answer to a REST API: the headers are in `headers`, `multiValueHeaders`, or both.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RestAnswer<'a> {
    status_code: u16,
    #[serde(borrow, default)]
    headers: BTreeMap<Cow<'a, str>, &'a RawValue>,
    #[serde(borrow, default)]
    multi_value_headers: BTreeMap<Cow<'a, str>, Vec<&'a RawValue>>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
    #[serde(default)]
    is_base64_encoded: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AlbAnswer<'a> {
    status_code: u16,
    status_description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<BTreeMap<Cow<'a, str>, &'a RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    multi_value_headers: Option<BTreeMap<Cow<'a, str>, Vec<&'a RawValue>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a RawValue>,
    is_base64_encoded: bool,
}

/// Turns the answer to a REST API into one to a load balancer.
///
/// # Errors
/// The answer is not one to a REST API.
pub(super) fn answer(request: &Envelope<'_>, reply: Reply) -> Result<Reply, HandlerError> {
    let is_multi_value = request.multi_value_headers.is_some_and(|headers| headers.get() != "null");
    let json = translated(&reply.json, is_multi_value)?;
    if json.len() <= MAX_ANSWER_BYTES {
        return Ok(Reply { trigger: "alb", json, ..reply });
    }
    let (code, message) =
        ("answer_too_large", "every event is handled, but the answer has no room; send fewer events at once");
    let too_large = serde_json::json!({
        "statusCode": 413, "headers": {"content-type": "application/json"}, "body": error(code, message),
    });
    let json = translated(&too_large.to_string(), is_multi_value)?;
    let mut counts = Counts::only(code);
    counts.add(reply.counts);
    Ok(Reply { trigger: "alb", status: Some(413), counts, json })
}

fn translated(rest: &str, is_multi_value: bool) -> Result<String, HandlerError> {
    let RestAnswer { status_code, mut headers, mut multi_value_headers, body, is_base64_encoded } =
        serde_json::from_str(rest).map_err(|_| HandlerError("the answer is not one to a REST API".to_owned()))?;
    if is_multi_value {
        for (name, value) in headers {
            multi_value_headers.entry(name).or_insert_with(|| vec![value]);
        }
        headers = BTreeMap::new();
    } else {
        // Only one value of a header can be sent.
        for (name, values) in std::mem::take(&mut multi_value_headers) {
            if let (None, Some(value)) = (headers.get(&name), values.last()) {
                headers.insert(name, value);
            }
        }
    }
    Ok(json(&AlbAnswer {
        status_code,
        status_description: format!("{status_code} {}", reason(status_code)),
        headers: (!is_multi_value).then_some(headers),
        multi_value_headers: is_multi_value.then_some(multi_value_headers),
        body,
        is_base64_encoded,
    }))
}

/// Returns the phrase that belongs to a status (RFC 9110).
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        202 => "Accepted",
        204 => "No Content",
        302 => "Found",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ if status < 400 => "Success",
        _ if status < 500 => "Client Error",
        _ => "Server Error",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn headers_are_where_the_request_has_them() {
        let rest = json!({"statusCode": 503, "headers": {"retry-after": "2"},
            "multiValueHeaders": {"set-cookie": ["a=1", "b=2"]}, "body": "{}", "isBase64Encoded": true});
        let translated =
            |is_multi| serde_json::from_str::<Value>(&translated(&rest.to_string(), is_multi).unwrap()).unwrap();
        let wanted = json!({"statusCode": 503, "statusDescription": "503 Service Unavailable",
            "headers": {"retry-after": "2", "set-cookie": "b=2"}, "body": "{}", "isBase64Encoded": true});
        assert_eq!(translated(false), wanted);
        let wanted = json!({"statusCode": 503, "statusDescription": "503 Service Unavailable",
            "multiValueHeaders": {"retry-after": ["2"], "set-cookie": ["a=1", "b=2"]}, "body": "{}",
            "isBase64Encoded": true});
        assert_eq!(translated(true), wanted);
    }

    #[test]
    fn an_answer_is_at_most_a_megabyte() {
        let request: Envelope<'_> = serde_json::from_str(r#"{"multiValueHeaders":null,"headers":{}}"#).unwrap();
        let reply = |bytes: usize| {
            let json = json!({"statusCode": 200, "body": "x".repeat(bytes)}).to_string();
            let reply = Reply { trigger: "http", status: Some(200), counts: Counts::default(), json };
            serde_json::from_str::<Value>(&answer(&request, reply).unwrap().json).unwrap()
        };
        assert_eq!(reply(MAX_ANSWER_BYTES - 1000)["statusCode"], 200);
        let too_large = reply(MAX_ANSWER_BYTES);
        assert_eq!(too_large["statusDescription"], "413 Content Too Large");
        assert!(too_large["body"].as_str().unwrap().contains("answer_too_large"));
    }
}
