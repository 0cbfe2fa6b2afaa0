//! What clients take for success, and for a failure that they should try again.

use serde_json::{Map, Value, json};

use super::{Endpoint, Family, Head};

/// A transparent GIF of one pixel, as base64.
const PIXEL: &str = "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7";

/// An answer to a client.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The value of `content-type`.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
    /// Whether the body is base64 of bytes.
    pub is_base64: bool,
}

impl Answer {
    fn json(status: u16, body: &Value) -> Self {
        Self { status, content_type: "application/json", body: body.to_string(), is_base64: false }
    }

    fn pixel() -> Self {
        Self { status: 200, content_type: "image/gif", body: PIXEL.to_owned(), is_base64: true }
    }
}

/// What became of an event of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientOutcome {
    /// It is applied.
    Applied,
    /// It is unusable, and sending it again does not help.
    Rejected,
    /// It may not be applied, and has to be sent again.
    Failed,
}

/// What became of a request's events.
#[derive(Debug, Default)]
pub struct Report {
    /// The client's id of each event, if it has one, and the event's outcome.
    pub events: Vec<(Option<String>, ClientOutcome)>,
}

impl Report {
    /// Returns how many events have an outcome.
    pub fn count(&self, outcome: ClientOutcome) -> usize {
        self.events.iter().filter(|(_, own)| *own == outcome).count()
    }
}

/// Returns the answer to events of which none has to be sent again, or of which the client sends again those that are named.
pub fn success(family: Family, head: &Head<'_>, text: &str, report: &Report) -> Answer {
    let (applied, rejected) = (report.count(ClientOutcome::Applied), report.count(ClientOutcome::Rejected));
    match family {
        Family::Snowplow if head.method == "GET" => Answer::pixel(),
        Family::PostHog | Family::Snowplow => Answer::json(200, &json!({ "status": 1 })),
        Family::PostHogV1 => Answer::json(200, &json!({ "results": results(report) })),
        Family::Segment => Answer::json(200, &json!({ "success": true })),
        Family::Mixpanel => mixpanel(head),
        Family::Amplitude => Answer::json(
            200,
            &json!({
                "code": 200,
                "events_ingested": applied,
                "payload_size_bytes": head.body.len(),
                "server_upload_time": head.received_at,
            }),
        ),
        Family::Matomo if text.trim_start().starts_with('{') => {
            Answer::json(200, &json!({ "status": "success", "tracked": applied, "invalid": rejected }))
        }
        Family::Matomo if has_pair(head, "send_image=0") => {
            Answer { status: 204, content_type: "text/plain", body: String::new(), is_base64: false }
        }
        Family::Matomo => Answer::pixel(),
    }
}

/// Returns PostHog's v1 answer: a result for each event's id.
fn results(report: &Report) -> Map<String, Value> {
    let result = |outcome| match outcome {
        ClientOutcome::Applied => "ok",
        ClientOutcome::Rejected => "drop",
        ClientOutcome::Failed => "retry",
    };
    let named =
        report.events.iter().filter_map(|(id, outcome)| Some((id.clone()?, json!({ "result": result(*outcome) }))));
    named.collect()
}

/// Returns Mixpanel's answer: a number, or an object if the client asks for more.
fn mixpanel(head: &Head<'_>) -> Answer {
    let is_import = head.path.trim_end_matches('/').ends_with("import");
    if has_pair(head, "img=1") {
        return Answer::pixel();
    }
    match is_import || has_pair(head, "verbose=1") {
        true => Answer::json(200, &json!({ "code": 200, "status": 1, "error": "" })),
        false => Answer::json(200, &json!(1)),
    }
}

/// Returns whether the query or the form has a pair. Neither its name nor its value may need an escape.
fn has_pair(head: &Head<'_>, pair: &str) -> bool {
    let is_in = |bytes: &[u8]| bytes.split(|&byte| byte == b'&').any(|own| own == pair.as_bytes());
    is_in(head.query.as_bytes()) || is_in(head.body)
}

/// Returns the answer to a request that carries no events: configuration, flags, profiles.
pub fn without_events(endpoint: Endpoint, head: &Head<'_>) -> Answer {
    match endpoint {
        // Without `gzip-js`, the browser client sends JSON. An HTTP API passes gzip in `text/plain` as text, which breaks it.
        Endpoint::PostHogConfig => Answer::json(
            200,
            &json!({ "supportedCompression": [], "hasFeatureFlags": false, "sessionRecording": false }),
        ),
        Endpoint::PostHogScript => {
            Answer { status: 200, content_type: "text/javascript", body: String::new(), is_base64: false }
        }
        Endpoint::PostHogFlags => Answer::json(
            200,
            &json!({
                "flags": {},
                "featureFlags": {},
                "featureFlagPayloads": {},
                "errorsWhileComputingFlags": false,
                "supportedCompression": [],
            }),
        ),
        Endpoint::SegmentSettings => {
            let mut segments = head.path.split('/').rev().filter(|segment| !segment.is_empty());
            let key = segments.nth(1).unwrap_or_default();
            Answer::json(200, &json!({ "integrations": { "Segment.io": { "apiKey": key } } }))
        }
        Endpoint::RudderStackConfig => {
            let key = head.basic_user().or_else(|| head.parameter("writeKey"));
            let source = json!({
                "id": "source",
                "name": "source",
                "writeKey": key,
                "enabled": true,
                "workspaceId": "workspace",
                "config": {},
                "destinations": [],
            });
            Answer::json(200, &json!({ "source": source }))
        }
        // Profiles.
        _ => mixpanel(head),
    }
}

/// Returns PostHog's configuration where session replay is on. The page brings the recorder itself: see `docs/replay.md`.
#[cfg(feature = "replay")]
pub fn config_with_recording() -> Answer {
    Answer::json(
        200,
        &json!({
            "supportedCompression": [],
            "hasFeatureFlags": false,
            "sessionRecording": { "endpoint": "/s/" },
        }),
    )
}

/// Returns the answer to a request that failed or is refused. Amplitude reads a number as the code; the others a word.
pub fn failure(family: Family, status: u16, code: &str, message: &str) -> Answer {
    let body = match family {
        Family::Amplitude => json!({ "code": status, "error": message }),
        Family::Mixpanel => json!({ "status": 0, "error": message, "code": status }),
        Family::Matomo => json!({ "status": "error", "message": message }),
        _ => json!({ "code": code, "message": message, "error": { "code": code, "message": message } }),
    };
    Answer::json(status, &body)
}
