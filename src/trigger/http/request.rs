//! A request, as API Gateway, a function URL or a load balancer hands it over.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use url::form_urlencoded;

use crate::event::Viewer;
use crate::session::Millis;
use crate::trigger::HandlerError;
use crate::trigger::body::{BodyError, Limits, decode, from_base64};
use crate::trigger::envelope::{Envelope, Headers, header, received_at, string, string_bytes, time};

/// A request, from either envelope.
pub(in crate::trigger) struct Request<'a> {
    pub(super) method: Cow<'a, str>,
    pub(super) path: Cow<'a, str>,
    pub(super) headers: Headers<'a>,
    pub(super) body: Cow<'a, [u8]>,
    pub(super) is_base64: bool,
    pub(super) received_at: Millis,
    /// The request's id; empty if the envelope has none.
    pub(super) id: Cow<'a, str>,
    /// Whether it came through a route for any path.
    pub(super) is_catch_all: bool,
    /// Whether API Gateway or the function URL checked credentials of the caller.
    pub(super) is_authenticated: bool,
    /// Whether those were AWS credentials, whose policies say what the caller may do.
    pub(super) is_signed: bool,
    /// What only requests of other clients need.
    unread: Unread<'a>,
}

/// Parts of a request that are parsed when they are needed.
#[derive(Default)]
struct Unread<'a> {
    headers: Option<&'a RawValue>,
    several_headers: Option<&'a RawValue>,
    query: Option<&'a RawValue>,
    /// The query of payload 1.0.
    parameters: Option<&'a RawValue>,
    /// Whether the parameters are still encoded. A REST API decodes them, a load balancer does not.
    is_encoded: bool,
}

impl<'a> Request<'a> {
    /// Reads payload 2.0, which an HTTP API or a function URL sends.
    pub fn read_2(envelope: &Envelope<'a>, now: Millis) -> Result<Self, HandlerError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Context<'a> {
            #[serde(borrow)]
            http: Http<'a>,
            #[serde(borrow)]
            time_epoch: Option<&'a RawValue>,
            #[serde(borrow)]
            request_id: Option<&'a RawValue>,
            #[serde(borrow)]
            authorizer: Option<&'a RawValue>,
        }
        #[derive(Deserialize)]
        struct Http<'a> {
            #[serde(borrow)]
            method: Cow<'a, str>,
        }
        let context: Context<'a> = read_context(envelope, "`requestContext.http.method`")?;
        Ok(Self {
            method: context.http.method,
            path: envelope.raw_path.and_then(string).unwrap_or_default(),
            is_catch_all: envelope.route_key.is_some_and(|key| key.get() == "\"$default\"" || is_catch_all(key)),
            is_authenticated: is_filled(context.authorizer),
            is_signed: has_member(context.authorizer, "iam"),
            ..Self::read(envelope, received_at(time(context.time_epoch), now), context.request_id)
        })
    }

    /// Reads payload 1.0, which a REST API sends.
    pub fn read_1(envelope: &Envelope<'a>, now: Millis) -> Result<Self, HandlerError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Context<'a> {
            #[serde(borrow)]
            request_time_epoch: Option<&'a RawValue>,
            #[serde(borrow)]
            elb: Option<&'a RawValue>,
            #[serde(borrow)]
            authorizer: Option<&'a RawValue>,
            #[serde(borrow)]
            identity: Option<&'a RawValue>,
            #[serde(borrow)]
            request_id: Option<&'a RawValue>,
        }
        let context: Context<'a> = read_context(envelope, "`requestContext`")?;
        let mut request = Self {
            method: envelope.http_method.and_then(string).unwrap_or_default(),
            path: envelope.path.and_then(string).unwrap_or_default(),
            ..Self::read(envelope, received_at(time(context.request_time_epoch), now), context.request_id)
        };
        request.unread.is_encoded = context.elb.is_some();
        // A load balancer has no routes, and checks no AWS credentials.
        request.is_catch_all = context.elb.is_some() || envelope.resource.is_some_and(is_catch_all);
        request.is_signed = context.elb.is_none() && has_member(context.identity, "userArn");
        request.is_authenticated = request.is_signed || (context.elb.is_none() && is_filled(context.authorizer));
        Ok(request)
    }

    /// Reads what both payloads have in common.
    fn read(envelope: &Envelope<'a>, received_at: Millis, id: Option<&'a RawValue>) -> Self {
        let several = Headers::read(envelope.multi_value_headers, Headers::value);
        let headers = Headers::read(envelope.headers, Headers::value).or(several);
        Self {
            method: Cow::Borrowed(""),
            path: Cow::Borrowed(""),
            headers,
            body: envelope.body.and_then(string_bytes).unwrap_or_default(),
            is_base64: envelope.is_base64_encoded.is_some_and(|flag| flag.get() == "true"),
            received_at,
            id: id.and_then(string).unwrap_or_default(),
            is_catch_all: false,
            is_authenticated: false,
            is_signed: false,
            unread: Unread {
                headers: envelope.headers,
                several_headers: envelope.multi_value_headers,
                query: envelope.raw_query_string,
                parameters: envelope.multi_value_query_string_parameters.or(envelope.query_string_parameters),
                is_encoded: false,
            },
        }
    }

    /// Returns the value of a header, by its name in lower case.
    pub(super) fn header(&self, name: &str) -> Option<String> {
        let maps = [self.unread.headers, self.unread.several_headers];
        maps.into_iter().flatten().find_map(|map| header(map, name))
    }

    /// Returns what the request tells about the visitor, if a browser sent it. `needs_rule`: it counts only under
    /// `viewer_headers`.
    pub(super) fn viewer(&self, needs_rule: bool) -> Option<Arc<Viewer>> {
        let maps = [self.unread.headers, self.unread.several_headers].into_iter().flatten();
        let maps: Vec<BTreeMap<Cow<'a, str>, &RawValue>> =
            maps.filter_map(|map| serde_json::from_str(map.get()).ok()).collect();
        Viewer::of_browser(needs_rule, |name| {
            let header = maps.iter().flatten().find(|(own, _)| own.eq_ignore_ascii_case(name));
            header.and_then(|(_, value)| Headers::value(value))
        })
    }

    /// Returns the query, encoded.
    pub(super) fn query(&self) -> Cow<'_, str> {
        if let Some(query) = self.unread.query {
            return string(query).unwrap_or_default();
        }
        let parameters =
            self.unread.parameters.and_then(|raw| serde_json::from_str::<BTreeMap<String, OneOrMany>>(raw.get()).ok());
        let pairs = parameters.unwrap_or_default().into_iter().flat_map(|(name, values)| {
            let values = match values {
                OneOrMany::One(value) => vec![value],
                OneOrMany::Many(values) => values,
            };
            values.into_iter().map(move |value| (name.clone(), value))
        });
        if self.unread.is_encoded {
            return Cow::Owned(pairs.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&"));
        }
        Cow::Owned(form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish())
    }

    /// Returns the body as the client sent it. What should be base64 and is not stays as it is.
    pub(super) fn base64_removed(&self) -> Cow<'_, [u8]> {
        let decoded = if self.is_base64 { from_base64(&self.body).ok() } else { None };
        decoded.map_or(Cow::Borrowed(&*self.body), Cow::Owned)
    }

    /// Returns the decoded body.
    pub(super) fn decoded(&self) -> Result<Cow<'_, [u8]>, BodyError> {
        decode(&self.body, self.is_base64, self.headers.content_encoding.as_deref(), Limits::REQUEST.bytes)
    }
}

/// A parameter of payload 1.0.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// Returns whether a route key or a resource covers any path.
fn is_catch_all(route: &RawValue) -> bool {
    route.get().ends_with("+}\"")
}

/// Returns whether an authorizer left something: the member of its kind (`iam`, `jwt`, `lambda`), or what it found (payload 1.0).
/// Without one, gateways and their emulators leave the object out, or write null, an empty object or members that are null.
fn is_filled(authorizer: Option<&RawValue>) -> bool {
    members(authorizer).values().any(|value| value.get() != "null")
}

/// Returns whether an object has a member that is not null.
fn has_member(object: Option<&RawValue>, name: &str) -> bool {
    object.is_some() && members(object).get(name).is_some_and(|value| value.get() != "null")
}

fn members(object: Option<&RawValue>) -> BTreeMap<String, &RawValue> {
    object.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
}

fn read_context<'a, T: Deserialize<'a>>(envelope: &Envelope<'a>, needed: &str) -> Result<T, HandlerError> {
    let raw = envelope.request_context.map_or("{}", |raw| raw.get());
    serde_json::from_str(raw).map_err(|_| HandlerError(format!("the API's envelope has no usable {needed}")))
}
