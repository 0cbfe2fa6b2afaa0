//! The shape of a stored session.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::origin::{WireOrigin, each_origin_text, pairs, read_pairs};
use super::{IdHalf, after};
use crate::rules::{Late, SessionState};
use crate::session::{Millis, Reason};
use crate::stored::string_table::{Reader, StringIndex, StringTable};
use crate::stored::{FormatError, id_half, id_of};

/// Bytes of a fingerprint.
const FINGERPRINT_BYTES: usize = 6;

#[derive(Serialize, Deserialize)]
pub(in crate::stored) struct WireSession<'a> {
    id: IdHalf,
    version: u64,
    reason: Reason,
    number: u32,
    previous: Option<IdHalf>,
    started_at: Millis,
    lasted: u64,
    event_count: u32,
    page_views: u32,
    entry_url: StringIndex,
    landing_page: StringIndex,
    exit_page: StringIndex,
    referrer: StringIndex,
    click: Option<[u8; 8]>,
    origin: WireOrigin,
    properties: Vec<(StringIndex, StringIndex)>,
    ended_by_call: bool,
    aliases: Vec<IdHalf>,
    #[serde(borrow)]
    fingerprints: Cow<'a, [u8]>,
    late: WireLate,
}

#[derive(Serialize, Deserialize)]
pub(super) struct WireLate {
    event_count: u32,
    page_views: u32,
    fingerprints: Vec<u8>,
}

/// Visits every text that a session stores.
pub(in crate::stored) fn each_session_text<'a>(session: &'a SessionState, add: &mut impl FnMut(&'a str)) {
    let strings = [&session.entry_url, &session.landing_page, &session.exit_page, &session.referrer];
    strings.into_iter().flatten().for_each(|text| add(text));
    each_origin_text(session.utm.as_deref(), session.device.as_deref(), session.geo.as_deref(), add);
    session.properties.iter().for_each(|(key, value)| {
        add(key);
        add(value);
    });
}

impl WireSession<'_> {
    pub(in crate::stored) fn write(state: &SessionState, strings: &StringTable<'_>) -> Self {
        Self {
            id: id_half(state.id),
            version: state.version,
            reason: state.reason,
            number: state.number,
            previous: state.previous.map(id_half),
            started_at: state.started_at,
            lasted: state.last_activity.abs_diff(state.started_at),
            event_count: state.event_count,
            page_views: state.page_views,
            entry_url: strings.index_of(state.entry_url.as_deref()),
            landing_page: strings.index_of(state.landing_page.as_deref()),
            exit_page: strings.index_of(state.exit_page.as_deref()),
            referrer: strings.index_of(state.referrer.as_deref()),
            click: state.click.map(u64::to_be_bytes),
            origin: WireOrigin::write(state.utm.as_deref(), state.device.as_deref(), state.geo.as_deref(), strings),
            properties: pairs(state.properties.iter(), strings),
            ended_by_call: state.ended_by_call,
            aliases: state.aliases.iter().map(|&id| id_half(id)).collect(),
            fingerprints: fingerprints(&state.fingerprints).into(),
            late: WireLate::write(&state.late),
        }
    }

    pub(in crate::stored) fn read(&self, strings: &Reader, visitor_bits: u64) -> Result<SessionState, FormatError> {
        let (utm, device, geo) = self.origin.read(strings)?;
        Ok(SessionState {
            id: id_of(self.id, visitor_bits),
            version: self.version,
            reason: self.reason,
            number: self.number,
            previous: self.previous.map(|half| id_of(half, visitor_bits)),
            started_at: self.started_at,
            last_activity: after(self.started_at, self.lasted)?,
            event_count: self.event_count,
            page_views: self.page_views,
            entry_url: strings.get(self.entry_url)?,
            landing_page: strings.get(self.landing_page)?,
            exit_page: strings.get(self.exit_page)?,
            referrer: strings.get(self.referrer)?,
            utm,
            click: self.click.map(u64::from_be_bytes),
            device,
            geo,
            properties: read_pairs(&self.properties, strings)?.into_iter().collect::<BTreeMap<_, _>>(),
            ended_by_call: self.ended_by_call,
            aliases: self.aliases.iter().map(|&half| id_of(half, visitor_bits)).collect(),
            fingerprints: read_fingerprints(&self.fingerprints)?,
            late: self.late.read()?,
        })
    }
}

impl WireLate {
    pub(super) fn write(late: &Late) -> Self {
        Self {
            event_count: late.event_count,
            page_views: late.page_views,
            fingerprints: fingerprints(&late.fingerprints),
        }
    }

    pub(super) fn read(&self) -> Result<Late, FormatError> {
        Ok(Late {
            event_count: self.event_count,
            page_views: self.page_views,
            fingerprints: read_fingerprints(&self.fingerprints)?,
        })
    }
}

fn fingerprints(fingerprints: &[u64]) -> Vec<u8> {
    fingerprints.iter().flat_map(|fingerprint| fingerprint.to_le_bytes().into_iter().take(FINGERPRINT_BYTES)).collect()
}

fn read_fingerprints(bytes: &[u8]) -> Result<Vec<u64>, FormatError> {
    let (chunks, rest) = bytes.as_chunks::<FINGERPRINT_BYTES>();
    if !rest.is_empty() {
        return Err(FormatError::Rule("a fingerprint is cut off"));
    }
    Ok(chunks.iter().map(|&[a, b, c, d, e, f]| u64::from_le_bytes([a, b, c, d, e, f, 0, 0])).collect())
}
