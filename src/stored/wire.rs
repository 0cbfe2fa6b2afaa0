//! The wire types of the stored form. They are separate from the types that the rules work on.

mod origin;
mod session;
mod unfinalized;

use serde::{Deserialize, Serialize};

use super::string_table::{StringTable, StringTableReader};
use super::{FormatError, id_half, id_of};
use crate::model::counts::is_late_count;
use crate::model::{Activity, Counts, Entry, PreviousSession};
use crate::session::{Millis, Visitor};
use crate::timeline::{ClosedSession, Correction, SessionAnchor, Timeline};
use origin::{Hidden, WireOrigin, each_origin_string, each_property_string};
pub(super) use session::{WireSession, WireSessionMore, each_session_string, fingerprints, read_fingerprints};
use unfinalized::{WireAnchor, WireCorrection, WireEntry, WireUuid, canonical};

/// The half of a session id that the visitor does not determine; see [`id_half`].
type IdHalf = [u8; 8];

/// A timeline, as it is stored since format 1. The visitor and `due_at` are attributes of the item.
#[derive(Serialize, Deserialize)]
pub(super) struct WireTimeline<'a> {
    #[serde(borrow)]
    strings: Vec<(u32, &'a str)>,
    seq: u64,
    watermark: Option<Millis>,
    archived: u32,
    previous: Option<WirePrevious>,
    #[serde(borrow)]
    ended: Vec<WireSession<'a>>,
    #[serde(borrow)]
    open: Option<WireSession<'a>>,
    /// Campaigns, devices and locations of the unfinalized events. They are stored once, because most entries share them.
    origins: Vec<WireOrigin>,
    unfinalized: Vec<WireEntry>,
    anchors: Vec<WireAnchor>,
    corrections: Vec<WireCorrection>,
}

/// The fields that follow the timeline since format 2.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct WireWatermark {
    held_until: Option<Millis>,
    watermark_id: Option<WireUuid>,
}

impl WireWatermark {
    pub(super) fn write(timeline: &Timeline, strings: &StringTable<'_>) -> Self {
        Self {
            held_until: timeline.held_until,
            watermark_id: timeline.watermark_id.as_ref().map(|id| WireUuid::write(id, strings)),
        }
    }
}

/// The fields of a timeline and of its sessions that follow since format 3.
#[derive(Serialize, Deserialize)]
pub(super) struct WireMore<'a> {
    ended: Vec<WireSessionMore>,
    open: Option<WireSessionMore>,
    #[serde(borrow)]
    closed: Vec<WireClosed<'a>>,
}

/// A closed session.
#[derive(Serialize, Deserialize)]
struct WireClosed<'a> {
    #[serde(borrow)]
    session: WireSession<'a>,
    more: WireSessionMore,
    /// When it was closed: the time since its last activity. It is negative if clocks differed.
    closed_after_ms: i64,
}

impl<'a> WireMore<'a> {
    pub(super) fn write(timeline: &Timeline, strings: &StringTable<'a>) -> Self {
        Self {
            ended: timeline.ended.iter().map(WireSessionMore::write).collect(),
            open: timeline.open.as_ref().map(WireSessionMore::write),
            closed: timeline.closed.iter().map(|closed| WireClosed::write(closed, strings)).collect(),
        }
    }

    pub(super) fn read(&self, strings: &StringTableReader, timeline: &mut Timeline) -> Result<(), FormatError> {
        if self.ended.len() != timeline.ended.len() || self.open.is_some() != timeline.open.is_some() {
            return Err(FormatError::Rule("the sessions do not have the fields of their format"));
        }
        let states = timeline.ended.iter_mut().chain(&mut timeline.open);
        self.ended.iter().chain(&self.open).zip(states).for_each(|(more, state)| more.read(state));
        let bits = timeline.visitor.bits();
        timeline.closed = self.closed.iter().map(|wire| wire.read(strings, bits)).collect::<Result<_, _>>()?;
        Ok(())
    }
}

impl WireClosed<'_> {
    fn write(closed: &ClosedSession, strings: &StringTable<'_>) -> Self {
        Self {
            session: WireSession::write(&closed.state, strings),
            more: WireSessionMore::write(&closed.state),
            closed_after_ms: closed.closed_at.saturating_sub(closed.state.facts.last_activity),
        }
    }

    fn read(&self, strings: &StringTableReader, visitor_bits: u64) -> Result<ClosedSession, FormatError> {
        let mut state = self.session.read(strings, visitor_bits)?;
        self.more.read(&mut state);
        let closed_at = state.facts.last_activity.checked_add(self.closed_after_ms);
        let closed_at = closed_at.ok_or(FormatError::Rule("a time is out of range"))?;
        Ok(ClosedSession { state, closed_at })
    }
}

/// The previous session.
#[derive(Serialize, Deserialize)]
struct WirePrevious {
    id: IdHalf,
    started_at: Millis,
    duration_ms: u64,
    event_count: u32,
    ended_by_request: bool,
    number: u32,
}

/// Returns the time `milliseconds` after `start`.
fn after(start: Millis, milliseconds: u64) -> Result<Millis, FormatError> {
    start.checked_add_unsigned(milliseconds).ok_or(FormatError::Rule("a time is out of range"))
}

/// Calls `add` with every string that a timeline stores in the string table.
pub(super) fn each_string<'a>(timeline: &'a Timeline, add: &mut impl FnMut(&'a str)) {
    for session in timeline.finalized() {
        each_session_string(session, add);
    }
    for entry in &timeline.unfinalized {
        let context = &entry.context;
        [&context.url, &context.referrer].into_iter().flatten().for_each(|url| add(url));
        each_origin_string(context.utm.as_deref(), context.device.as_deref(), context.geo.as_deref(), add);
        let properties = entry.properties.iter().map(|(key, value)| (key, value));
        each_property_string(properties, Hidden { user_id: context.user_id.as_deref(), ended_by: None }, add);
        if canonical(&entry.uuid).is_none() {
            add(&entry.uuid);
        }
    }
    for (key, count) in timeline.anchors.iter().flat_map(|anchor| &anchor.late.counts) {
        add(key);
        add(count);
    }
    if let Some(id) = timeline.watermark_id.as_deref().filter(|id| canonical(id).is_none()) {
        add(id);
    }
    for correction in &timeline.corrections {
        if let Correction::Split { uuid, .. } = correction {
            add(uuid);
        }
    }
}

impl<'a> WireTimeline<'a> {
    /// Returns the string table.
    pub(super) fn strings(&self) -> Result<StringTableReader, FormatError> {
        StringTableReader::new(&self.strings)
    }

    pub(super) fn write(timeline: &Timeline, strings: &StringTable<'a>) -> Self {
        let mut origins = Vec::new();
        let mut before = 0;
        // Only ids of sessions have late events; see `ids::gather_late`. Their counts are stored with the session's first entry.
        let mut primaries = timeline.anchors.iter().filter(|anchor| anchor.is_primary).peekable();
        let none = Counts::new();
        let unfinalized = timeline.unfinalized.iter().enumerate().map(|(index, entry)| {
            let late_counts =
                primaries.next_if(|anchor| anchor.entry == index).map_or(&none, |anchor| &anchor.late.counts);
            let wire = WireEntry::write(entry, late_counts, before, &mut origins, strings);
            before = entry.at;
            wire
        });
        let unfinalized = unfinalized.collect();
        Self {
            strings: strings.stored(),
            seq: timeline.seq,
            watermark: (timeline.watermark != Millis::MIN).then_some(timeline.watermark),
            archived: timeline.archived,
            previous: timeline.previous.as_ref().map(|previous| WirePrevious {
                id: id_half(previous.id),
                started_at: previous.activity.started_at,
                duration_ms: previous.activity.last_activity.abs_diff(previous.activity.started_at),
                event_count: previous.activity.event_count,
                ended_by_request: previous.activity.ended_by_request,
                number: previous.number,
            }),
            ended: timeline.ended.iter().map(|state| WireSession::write(state, strings)).collect(),
            open: timeline.open.as_ref().map(|state| WireSession::write(state, strings)),
            origins,
            unfinalized,
            anchors: timeline.anchors.iter().map(WireAnchor::write).collect(),
            corrections: timeline
                .corrections
                .iter()
                .map(|correction| WireCorrection::write(correction, strings))
                .collect(),
        }
    }

    pub(super) fn read(
        &self,
        strings: &StringTableReader,
        watermark: WireWatermark,
        visitor: Visitor,
    ) -> Result<Timeline, FormatError> {
        let bits = visitor.bits();
        let origins = self.origins.iter().map(|wire| wire.read(strings)).collect::<Result<Vec<_>, _>>()?;
        let mut unfinalized: Vec<Entry> = Vec::with_capacity(self.unfinalized.len());
        let mut before = 0;
        for wire in &self.unfinalized {
            let entry = wire.read(before, &origins, strings)?;
            before = entry.at;
            unfinalized.push(entry);
        }
        let previous = match &self.previous {
            Some(previous) => Some(PreviousSession {
                id: id_of(previous.id, bits),
                number: previous.number,
                activity: Activity {
                    started_at: previous.started_at,
                    last_activity: after(previous.started_at, previous.duration_ms)?,
                    event_count: previous.event_count,
                    ended_by_request: previous.ended_by_request,
                },
            }),
            None => None,
        };
        let mut anchors = self.anchors.iter().map(|wire| wire.read(bits)).collect::<Result<Vec<SessionAnchor>, _>>()?;
        for anchor in anchors.iter_mut().filter(|anchor| anchor.is_primary) {
            if let Some(entry) = unfinalized.get_mut(anchor.entry) {
                anchor.late.counts = entry.properties.extract_if(.., |(key, _)| is_late_count(key)).collect();
            }
        }
        Ok(Timeline {
            visitor,
            seq: self.seq,
            watermark: self.watermark.unwrap_or(Millis::MIN),
            watermark_id: watermark.watermark_id.map(|id| id.read(strings)).transpose()?,
            held_until: watermark.held_until,
            archived: self.archived,
            previous,
            closed: Vec::new(),
            ended: self.ended.iter().map(|wire| wire.read(strings, bits)).collect::<Result<_, _>>()?,
            open: self.open.as_ref().map(|wire| wire.read(strings, bits)).transpose()?,
            unfinalized,
            anchors,
            corrections: self.corrections.iter().map(|wire| wire.read(strings, bits)).collect::<Result<_, _>>()?,
            due_at: None,
        })
    }
}
