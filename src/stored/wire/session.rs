//! The shape of a stored session.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::origin::{WireOrigin, each_origin_text, pairs, read_pairs};
use super::{IdHalf, after};
use crate::rules::{Late, Tally};
use crate::session::{Millis, Reason};
use crate::stored::texts::{Reader, TextRef, Texts};
use crate::stored::{FormatError, id_half, id_of};

/// Bytes of a fingerprint.
const PRINT_BYTES: usize = 6;

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
    entry_url: TextRef,
    landing_page: TextRef,
    exit_page: TextRef,
    referrer: TextRef,
    click: Option<[u8; 8]>,
    origin: WireOrigin,
    properties: Vec<(TextRef, TextRef)>,
    ended_by_call: bool,
    aliases: Vec<IdHalf>,
    #[serde(borrow)]
    seen: Cow<'a, [u8]>,
    late: WireLate,
}

#[derive(Serialize, Deserialize)]
pub(super) struct WireLate {
    event_count: u32,
    page_views: u32,
    seen: Vec<u8>,
}

/// Visits every text that a session stores.
pub(in crate::stored) fn each_session_text<'a>(session: &'a Tally, add: &mut impl FnMut(&'a str)) {
    let texts = [&session.entry_url, &session.landing_page, &session.exit_page, &session.referrer];
    texts.into_iter().flatten().for_each(|text| add(text));
    each_origin_text(session.utm.as_deref(), session.device.as_deref(), session.geo.as_deref(), add);
    session.properties.iter().for_each(|(key, value)| {
        add(key);
        add(value);
    });
}

impl WireSession<'_> {
    pub(in crate::stored) fn write(tally: &Tally, texts: &Texts<'_>) -> Self {
        Self {
            id: id_half(tally.id),
            version: tally.version,
            reason: tally.reason,
            number: tally.number,
            previous: tally.previous.map(id_half),
            started_at: tally.started_at,
            lasted: tally.last_activity.abs_diff(tally.started_at),
            event_count: tally.event_count,
            page_views: tally.page_views,
            entry_url: texts.place(tally.entry_url.as_deref()),
            landing_page: texts.place(tally.landing_page.as_deref()),
            exit_page: texts.place(tally.exit_page.as_deref()),
            referrer: texts.place(tally.referrer.as_deref()),
            click: tally.click.map(u64::to_be_bytes),
            origin: WireOrigin::write(tally.utm.as_deref(), tally.device.as_deref(), tally.geo.as_deref(), texts),
            properties: pairs(tally.properties.iter(), texts),
            ended_by_call: tally.ended_by_call,
            aliases: tally.aliases.iter().map(|&id| id_half(id)).collect(),
            seen: prints(&tally.seen).into(),
            late: WireLate::write(&tally.late),
        }
    }

    pub(in crate::stored) fn read(&self, texts: &Reader, visitor_bits: u64) -> Result<Tally, FormatError> {
        let (utm, device, geo) = self.origin.read(texts)?;
        Ok(Tally {
            id: id_of(self.id, visitor_bits),
            version: self.version,
            reason: self.reason,
            number: self.number,
            previous: self.previous.map(|half| id_of(half, visitor_bits)),
            started_at: self.started_at,
            last_activity: after(self.started_at, self.lasted)?,
            event_count: self.event_count,
            page_views: self.page_views,
            entry_url: texts.get(self.entry_url)?,
            landing_page: texts.get(self.landing_page)?,
            exit_page: texts.get(self.exit_page)?,
            referrer: texts.get(self.referrer)?,
            utm,
            click: self.click.map(u64::from_be_bytes),
            device,
            geo,
            properties: read_pairs(&self.properties, texts)?.into_iter().collect::<BTreeMap<_, _>>(),
            ended_by_call: self.ended_by_call,
            aliases: self.aliases.iter().map(|&half| id_of(half, visitor_bits)).collect(),
            seen: read_prints(&self.seen)?,
            late: self.late.read()?,
        })
    }
}

impl WireLate {
    pub(super) fn write(late: &Late) -> Self {
        Self { event_count: late.event_count, page_views: late.page_views, seen: prints(&late.seen) }
    }

    pub(super) fn read(&self) -> Result<Late, FormatError> {
        Ok(Late { event_count: self.event_count, page_views: self.page_views, seen: read_prints(&self.seen)? })
    }
}

fn prints(seen: &[u64]) -> Vec<u8> {
    seen.iter().flat_map(|print| print.to_le_bytes().into_iter().take(PRINT_BYTES)).collect()
}

fn read_prints(bytes: &[u8]) -> Result<Vec<u64>, FormatError> {
    let (chunks, rest) = bytes.as_chunks::<PRINT_BYTES>();
    if !rest.is_empty() {
        return Err(FormatError::Rule("a fingerprint is cut off"));
    }
    Ok(chunks.iter().map(|&[a, b, c, d, e, f]| u64::from_le_bytes([a, b, c, d, e, f, 0, 0])).collect())
}
