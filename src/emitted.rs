//! The events that the service emits itself: `$session_end`, the corrections `$session_merged` and `$session_split`, and
//! `$visitor_erased`. Each is an event like any other, with a `uuid` that is the same whenever it is emitted again.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128;

use crate::session::{EventTotal, Reason, Session, Visitor, datetime, id_time, rfc3339};
use crate::storage::Erased;
use crate::timeline::Correction;

/// An event that the service emits. `P` is its properties.
#[derive(Serialize)]
struct Emitted<'a, P> {
    uuid: Uuid,
    event: &'static str,
    distinct_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    project: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
    properties: P,
}

/// The properties of `$session_end`.
#[derive(Serialize)]
struct EndProperties<'a> {
    #[serde(rename = "$session_id")]
    id: &'a str,
    #[serde(rename = "$session_duration")]
    duration: i64,
    #[serde(rename = "$session_page_views")]
    page_views: u32,
    #[serde(rename = "$entry_url")]
    entry_url: Option<&'a str>,
    #[serde(rename = "$exit_url")]
    exit_url: Option<&'a str>,
    #[serde(rename = "$referrer")]
    referrer: Option<&'a str>,
    #[serde(rename = "$user_id", skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    #[serde(rename = "$session_start_reason")]
    reason: &'static str,
    #[serde(rename = "$session_end_reason")]
    end_reason: &'static str,
    #[serde(rename = "$session_number")]
    number: u32,
    #[serde(rename = "$previous_session_id")]
    previous: Option<&'a str>,
    #[serde(rename = "$session_counts", skip_serializing_if = "has_none")]
    counts: &'a BTreeMap<String, EventTotal>,
    #[serde(rename = "$is_bounce")]
    is_bounce: Option<bool>,
    #[serde(rename = "$session_version")]
    version: u64,
    /// All fields of the session, as the API returns them.
    #[serde(rename = "$session")]
    session: &'a Session,
}

fn has_none(counts: &&BTreeMap<String, EventTotal>) -> bool {
    counts.is_empty()
}

/// The properties of `$session_merged` and `$session_split`.
#[derive(Serialize)]
struct CorrectionProperties {
    from: Uuid,
    into: Uuid,
    /// The time of the first event that moved. Only for a split.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    /// The `uuid` of the first event that moved. Events of the same time with a lesser `uuid` stay. Only for a split.
    #[serde(skip_serializing_if = "Option::is_none")]
    from_event: Option<String>,
    #[serde(rename = "$session_version")]
    version: u64,
}

/// The properties of `$visitor_erased`. They have no `$session_version`: the erasure is no correction of a session.
#[derive(Serialize)]
struct ErasedProperties<'a> {
    erased_at: &'a str,
    erased: &'a Erased,
}

/// Returns the `$session_end` of a session as a line of JSON. Its `timestamp` is the session's last activity.
pub fn end_line(session: &Session, end_reason: Reason) -> String {
    let properties = EndProperties {
        id: &session.id,
        duration: session.duration_seconds(),
        page_views: session.page_views,
        entry_url: session.entry_url.as_deref(),
        exit_url: session.exit_page.as_deref(),
        referrer: session.referrer.as_deref(),
        user_id: session.user_id.as_deref(),
        reason: session.reason.name(),
        end_reason: end_reason.name(),
        number: session.number,
        previous: session.previous_session_id.as_deref(),
        counts: &session.counts,
        is_bounce: session.is_bounce(),
        version: session.version,
        session,
    };
    line(&Emitted {
        uuid: emitted_uuid(&["$session_end", &session.id, &session.version.to_string()]),
        event: "$session_end",
        distinct_id: &session.distinct_id,
        project: &session.project,
        timestamp: Some(rfc3339(session.last_activity)),
        properties,
    })
}

/// Returns a correction as a line of JSON: `$session_merged` or `$session_split`. Its `timestamp` is the time of the first event that
/// moved. For a merge that is the time in the id of `from`. Without one, consumers could not tell whether an erasure covers it.
pub fn correction_line(visitor: &Visitor, correction: &Correction) -> String {
    let (event, from, into, at, from_event, version) = match correction {
        Correction::Merged { from, into, version } => ("$session_merged", from, into, None, None, *version),
        Correction::Split { from, into, at, uuid, version } => {
            ("$session_split", from, into, Some(rfc3339(datetime(*at))), Some(uuid.to_string()), *version)
        }
    };
    line(&Emitted {
        uuid: emitted_uuid(&[event, &from.to_string(), &into.to_string(), &version.to_string()]),
        event,
        distinct_id: &visitor.distinct_id,
        project: &visitor.project,
        timestamp: Some(at.clone().unwrap_or_else(|| rfc3339(datetime(id_time(*from))))),
        properties: CorrectionProperties { from: *from, into: *into, at, from_event, version },
    })
}

/// Returns the `$visitor_erased` of a visitor as a line of JSON. Its `timestamp` is the time of the erasure.
pub fn erased_line(visitor: &Visitor, erased: &Erased, at: DateTime<Utc>) -> String {
    let at = rfc3339(at);
    line(&Emitted {
        uuid: emitted_uuid(&["$visitor_erased", &visitor.project, &visitor.distinct_id, &at]),
        event: "$visitor_erased",
        distinct_id: &visitor.distinct_id,
        project: &visitor.project,
        timestamp: Some(at.clone()),
        properties: ErasedProperties { erased_at: &at, erased },
    })
}

/// Returns a `uuid` that is derived from what identifies an emitted event. Emitting the same again gives the same `uuid`.
fn emitted_uuid(key: &[&str]) -> Uuid {
    Uuid::new_v8(xxh3_128(key.join("#").as_bytes()).to_be_bytes())
}

fn line(emitted: &impl Serialize) -> String {
    // Writing plain data to a string cannot fail.
    serde_json::to_string(emitted).unwrap_or_default()
}
