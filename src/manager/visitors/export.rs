//! All that is stored about a visitor, in the form of the API's answer.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use uuid::Uuid;

use crate::model::counts::is_count;
use crate::model::{Entry, FingerprintPage, Kind, SessionState};
use crate::session::{DeviceInfo, GeoInfo, Millis, Session, UtmParams, Visitor, datetime, rfc3339};
use crate::timeline::{Correction, Timeline};

/// All that is stored about a visitor.
#[derive(Debug, Serialize)]
pub struct VisitorExport {
    project: String,
    distinct_id: String,
    /// All sessions, newest first.
    sessions: Vec<Session>,
    /// The ids that were merged into a session.
    merged_ids: Vec<MergedId>,
    /// The events that are not finalized, as far as they are kept.
    recent_events: Vec<RecentEvent>,
    /// Corrections that are not emitted yet.
    corrections: Vec<PendingCorrection>,
    /// Hashes of the ids of the events that are counted, by which duplicates are recognized.
    event_fingerprints: Vec<String>,
    /// The version of the timeline; `None` if there is none.
    version: Option<u64>,
    /// The time before which all events are finalized.
    watermark: Option<String>,
    /// What is kept of the visitor's recordings; `None` if replay is off.
    #[cfg(feature = "replay")]
    #[serde(skip_serializing_if = "Option::is_none")]
    replay: Option<crate::replay::ReplaySummary>,
}

#[derive(Debug, Serialize)]
struct MergedId {
    id: Uuid,
    into: Uuid,
}

#[derive(Debug, Serialize)]
struct RecentEvent {
    uuid: String,
    time: String,
    kind: &'static str,
    url: Option<Arc<str>>,
    referrer: Option<Arc<str>>,
    utm: Option<UtmParams>,
    device: Option<DeviceInfo>,
    geo: Option<GeoInfo>,
    user_id: Option<Arc<str>>,
    click_id_hash: Option<String>,
    session_properties: BTreeMap<String, Option<Box<RawValue>>>,
}

#[derive(Debug, Serialize)]
struct PendingCorrection {
    from: Uuid,
    into: Uuid,
    version: u64,
}

impl VisitorExport {
    /// Returns the export of a timeline and of all sessions. The fingerprints on pages are missing: see [`Self::add_pages`].
    pub(super) fn new(visitor: &Visitor, timeline: Option<&Timeline>, states: &[(SessionState, bool)]) -> Self {
        let merged = |state: &SessionState| {
            let into = state.id;
            state.aliases.iter().map(move |&id| MergedId { id, into }).collect::<Vec<_>>()
        };
        let fingerprints =
            states.iter().flat_map(|(state, _)| state.fingerprints.iter().chain(&state.late.fingerprints));
        let watermark = timeline.map(|timeline| timeline.watermark).filter(|&at| at > Millis::MIN);
        Self {
            project: visitor.project.clone(),
            distinct_id: visitor.distinct_id.clone(),
            sessions: states.iter().map(|(state, is_active)| state.session(visitor, *is_active)).collect(),
            merged_ids: states.iter().flat_map(|(state, _)| merged(state)).collect(),
            recent_events: timeline.iter().flat_map(|timeline| &timeline.unfinalized).map(RecentEvent::of).collect(),
            corrections: timeline
                .iter()
                .flat_map(|timeline| &timeline.corrections)
                .map(PendingCorrection::of)
                .collect(),
            event_fingerprints: fingerprints.map(hex).collect(),
            version: timeline.map(|timeline| timeline.seq),
            watermark: watermark.map(|at| rfc3339(datetime(at))),
            #[cfg(feature = "replay")]
            replay: None,
        }
    }

    /// Adds what is kept of the visitor's recordings.
    #[cfg(feature = "replay")]
    pub(super) fn add_replay(&mut self, replay: crate::replay::ReplaySummary) {
        self.replay = Some(replay);
    }

    /// Adds the fingerprints of a session's pages.
    pub(super) fn add_pages(&mut self, pages: &[FingerprintPage]) {
        self.event_fingerprints.extend(pages.iter().flat_map(|page| &page.fingerprints).map(hex));
    }
}

impl RecentEvent {
    fn of(entry: &Entry) -> Self {
        let context = &entry.context;
        let json = |json: &String| RawValue::from_string(json.clone()).ok();
        Self {
            uuid: entry.uuid.to_string(),
            time: rfc3339(datetime(entry.at)),
            kind: match entry.kind {
                Kind::Pageview => "pageview",
                Kind::Event => "event",
                Kind::Touch => "touch",
                Kind::End => "end",
                Kind::KeepAlive => "keep_alive",
            },
            url: context.url.clone(),
            referrer: context.referrer.clone(),
            utm: context.utm.as_deref().cloned(),
            device: context.device.as_deref().cloned(),
            geo: context.geo.as_deref().cloned(),
            user_id: context.user_id.clone(),
            click_id_hash: entry.click.as_ref().map(hex),
            session_properties: entry
                .properties
                .iter()
                .filter(|(key, _)| !is_count(key))
                .map(|(key, value)| (key.clone(), json(value)))
                .collect(),
        }
    }
}

impl PendingCorrection {
    fn of(correction: &Correction) -> Self {
        let (Correction::Merged { from, into, version } | Correction::Split { from, into, version, .. }) = correction;
        Self { from: *from, into: *into, version: *version }
    }
}

fn hex(hash: &u64) -> String {
    format!("{hash:x}")
}
