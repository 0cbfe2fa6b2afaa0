//! The wire types of a session.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::origin::{Hidden, Properties, WireOrigin, each_origin_string, each_property_string, pairs, read_pairs};
use super::{IdHalf, after};
use crate::attribution::Attribution;
use crate::model::{Counts, LateEvents, SessionFacts, SessionState};
use crate::session::{Millis, Reason};
use crate::stored::string_table::{StringIndex, StringTable, StringTableReader};
use crate::stored::{FormatError, id_half, id_of};

/// The size of a fingerprint in bytes: it has 48 bits.
const FINGERPRINT_BYTES: usize = 6;

/// A session's state.
#[derive(Serialize, Deserialize)]
pub(in crate::stored) struct WireSession<'a> {
    id: IdHalf,
    version: u64,
    reason: Reason,
    number: u32,
    previous: Option<IdHalf>,
    started_at: Millis,
    duration_ms: u64,
    event_count: u32,
    page_views: u32,
    entry_url: StringIndex,
    landing_page: StringIndex,
    exit_page: StringIndex,
    referrer: StringIndex,
    click: Option<[u8; 8]>,
    origin: WireOrigin,
    properties: Vec<(StringIndex, StringIndex)>,
    ended_by_request: bool,
    aliases: Vec<IdHalf>,
    #[serde(borrow)]
    fingerprints: Cow<'a, [u8]>,
    late: WireLate,
}

/// A session's late events.
#[derive(Serialize, Deserialize)]
pub(super) struct WireLate {
    event_count: u32,
    page_views: u32,
    fingerprints: Vec<u8>,
}

/// The fields of a session that are stored since format 3, after the fields before.
#[derive(Serialize, Deserialize)]
pub(in crate::stored) struct WireSessionMore {
    pages: u32,
    late_pages: u32,
}

/// Calls `add` with every string that a session stores in the string table.
pub(in crate::stored) fn each_session_string<'a>(session: &'a SessionState, add: &mut impl FnMut(&'a str)) {
    let SessionFacts { entry_url, landing_page, exit_page, attribution, device, geo, user_id, .. } = &session.facts;
    let strings = [entry_url, landing_page, exit_page, &attribution.referrer];
    strings.into_iter().flatten().for_each(|string| add(string));
    each_origin_string(attribution.utm.as_deref(), device.as_deref(), geo.as_deref(), add);
    let hidden = Hidden { user_id: user_id.as_deref(), ended_by: session.ended_by };
    each_property_string(session.properties.iter(), hidden, add);
}

impl WireSession<'_> {
    pub(in crate::stored) fn write(state: &SessionState, strings: &StringTable<'_>) -> Self {
        let facts = &state.facts;
        let Attribution { referrer, utm, click } = &facts.attribution;
        let hidden = Hidden { user_id: facts.user_id.as_deref(), ended_by: state.ended_by };
        Self {
            id: id_half(state.id),
            version: state.version,
            reason: facts.reason,
            number: state.number,
            previous: state.previous.map(id_half),
            started_at: facts.started_at,
            duration_ms: facts.last_activity.abs_diff(facts.started_at),
            event_count: facts.event_count,
            page_views: facts.page_views,
            entry_url: strings.index_of(facts.entry_url.as_deref()),
            landing_page: strings.index_of(facts.landing_page.as_deref()),
            exit_page: strings.index_of(facts.exit_page.as_deref()),
            referrer: strings.index_of(referrer.as_deref()),
            click: click.map(u64::to_be_bytes),
            origin: WireOrigin::write(utm.as_deref(), facts.device.as_deref(), facts.geo.as_deref(), strings),
            properties: pairs(state.properties.iter(), hidden, strings),
            ended_by_request: facts.ended_by_request,
            aliases: state.aliases.iter().map(|&id| id_half(id)).collect(),
            fingerprints: fingerprints(&state.fingerprints).into(),
            late: WireLate::write(&state.late),
        }
    }

    pub(in crate::stored) fn read(
        &self,
        strings: &StringTableReader,
        visitor_bits: u64,
    ) -> Result<SessionState, FormatError> {
        let (utm, device, geo) = self.origin.read(strings)?;
        let referrer = strings.get(self.referrer)?;
        let Properties { own, user_id, ended_by } = read_pairs(&self.properties, strings)?;
        let facts = SessionFacts {
            reason: self.reason,
            started_at: self.started_at,
            last_activity: after(self.started_at, self.duration_ms)?,
            event_count: self.event_count,
            page_views: self.page_views,
            entry_url: strings.get(self.entry_url)?,
            landing_page: strings.get(self.landing_page)?,
            exit_page: strings.get(self.exit_page)?,
            attribution: Attribution { referrer, utm, click: self.click.map(u64::from_be_bytes) },
            device,
            geo,
            user_id,
            ended_by_request: self.ended_by_request,
        };
        Ok(SessionState {
            id: id_of(self.id, visitor_bits),
            version: self.version,
            number: self.number,
            previous: self.previous.map(|half| id_of(half, visitor_bits)),
            facts,
            ended_by,
            properties: own.into_iter().collect::<BTreeMap<_, _>>(),
            aliases: self.aliases.iter().map(|&half| id_of(half, visitor_bits)).collect(),
            fingerprints: read_fingerprints(&self.fingerprints)?,
            pages: 0,
            late: self.late.read()?,
        })
    }
}

impl WireSessionMore {
    pub(in crate::stored) fn write(state: &SessionState) -> Self {
        Self { pages: state.pages, late_pages: state.late.pages }
    }

    pub(in crate::stored) fn read(&self, state: &mut SessionState) {
        (state.pages, state.late.pages) = (self.pages, self.late_pages);
    }
}

impl WireLate {
    pub(super) fn write(late: &LateEvents) -> Self {
        Self {
            event_count: late.event_count,
            page_views: late.page_views,
            fingerprints: fingerprints(&late.fingerprints),
        }
    }

    pub(super) fn read(&self) -> Result<LateEvents, FormatError> {
        Ok(LateEvents {
            event_count: self.event_count,
            page_views: self.page_views,
            fingerprints: read_fingerprints(&self.fingerprints)?,
            pages: 0,
            counts: Counts::new(),
        })
    }
}

/// Returns the bytes of the fingerprints, one after the other, each little-endian.
pub(in crate::stored) fn fingerprints(fingerprints: &[u64]) -> Vec<u8> {
    fingerprints.iter().flat_map(|fingerprint| fingerprint.to_le_bytes().into_iter().take(FINGERPRINT_BYTES)).collect()
}

/// Returns the fingerprints that [`fingerprints`] wrote.
pub(in crate::stored) fn read_fingerprints(bytes: &[u8]) -> Result<Vec<u64>, FormatError> {
    let (chunks, rest) = bytes.as_chunks::<FINGERPRINT_BYTES>();
    if !rest.is_empty() {
        return Err(FormatError::Rule("a fingerprint is cut off"));
    }
    Ok(chunks.iter().map(|&[a, b, c, d, e, f]| u64::from_le_bytes([a, b, c, d, e, f, 0, 0])).collect())
}
