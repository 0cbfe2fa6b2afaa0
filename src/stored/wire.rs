//! The shapes of what is stored, apart from those that the rules work on.

mod origin;
mod session;
mod unfinalized;

use serde::{Deserialize, Serialize};

use super::string_table::{Reader, StringTable};
use super::{FormatError, id_half, id_of};
use crate::model::{Activity, PreviousSession};
use crate::session::{Millis, Visitor};
use crate::timeline::{Correction, Timeline};
use origin::{WireOrigin, each_origin_text};
pub(super) use session::{WireSession, each_session_text};
use unfinalized::{WireAnchor, WireCorrection, WireEntry, WireUuid, canonical};

type IdHalf = [u8; 8];

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
    /// Campaigns, devices and places of the unfinalized events: most entries say the same.
    contexts: Vec<WireOrigin>,
    unfinalized: Vec<WireEntry>,
    anchors: Vec<WireAnchor>,
    corrections: Vec<WireCorrection>,
}

/// What is stored behind a timeline since format 2.
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

#[derive(Serialize, Deserialize)]
struct WirePrevious {
    id: IdHalf,
    started_at: Millis,
    lasted: u64,
    event_count: u32,
    ended_by_call: bool,
    number: u32,
}

/// The time this many milliseconds after another.
fn after(start: Millis, lasted: u64) -> Result<Millis, FormatError> {
    start.checked_add_unsigned(lasted).ok_or(FormatError::Rule("a time is out of range"))
}

/// Visits every text that a timeline stores.
pub(super) fn each_text<'a>(timeline: &'a Timeline, add: &mut impl FnMut(&'a str)) {
    for session in timeline.ended.iter().chain(&timeline.open) {
        each_session_text(session, add);
    }
    for entry in &timeline.unfinalized {
        let context = &entry.context;
        [&context.url, &context.referrer].into_iter().flatten().for_each(|text| add(text));
        each_origin_text(context.utm.as_deref(), context.device.as_deref(), context.geo.as_deref(), add);
        entry.properties.iter().for_each(|(key, value)| {
            add(key);
            add(value);
        });
        if canonical(&entry.uuid).is_none() {
            add(&entry.uuid);
        }
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
    pub(super) fn write(timeline: &Timeline, strings: &StringTable<'a>) -> Self {
        let mut contexts = Vec::new();
        let mut before = 0;
        let unfinalized = timeline.unfinalized.iter().map(|entry| {
            let wire = WireEntry::write(entry, before, &mut contexts, strings);
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
                lasted: previous.activity.last_activity.abs_diff(previous.activity.started_at),
                event_count: previous.activity.event_count,
                ended_by_call: previous.activity.ended_by_call,
                number: previous.number,
            }),
            ended: timeline.ended.iter().map(|state| WireSession::write(state, strings)).collect(),
            open: timeline.open.as_ref().map(|state| WireSession::write(state, strings)),
            contexts,
            unfinalized,
            anchors: timeline.anchors.iter().map(WireAnchor::write).collect(),
            corrections: timeline
                .corrections
                .iter()
                .map(|correction| WireCorrection::write(correction, strings))
                .collect(),
        }
    }

    pub(super) fn read(&self, watermark: WireWatermark, visitor: Visitor) -> Result<Timeline, FormatError> {
        let bits = visitor.bits();
        let strings = Reader::new(&self.strings)?;
        let contexts = self.contexts.iter().map(|wire| wire.read(&strings)).collect::<Result<Vec<_>, _>>()?;
        let mut unfinalized = Vec::with_capacity(self.unfinalized.len());
        let mut before = 0;
        for wire in &self.unfinalized {
            let entry = wire.read(before, &contexts, &strings)?;
            before = entry.at;
            unfinalized.push(entry);
        }
        let previous = match &self.previous {
            Some(previous) => Some(PreviousSession {
                id: id_of(previous.id, bits),
                number: previous.number,
                activity: Activity {
                    started_at: previous.started_at,
                    last_activity: after(previous.started_at, previous.lasted)?,
                    event_count: previous.event_count,
                    ended_by_call: previous.ended_by_call,
                },
            }),
            None => None,
        };
        Ok(Timeline {
            visitor,
            seq: self.seq,
            watermark: self.watermark.unwrap_or(Millis::MIN),
            watermark_id: watermark.watermark_id.map(|id| id.read(&strings)).transpose()?,
            held_until: watermark.held_until,
            archived: self.archived,
            previous,
            ended: self.ended.iter().map(|wire| wire.read(&strings, bits)).collect::<Result<_, _>>()?,
            open: self.open.as_ref().map(|wire| wire.read(&strings, bits)).transpose()?,
            unfinalized,
            anchors: self.anchors.iter().map(|wire| wire.read(bits)).collect::<Result<_, _>>()?,
            corrections: self.corrections.iter().map(|wire| wire.read(&strings, bits)).collect::<Result<_, _>>()?,
            due_at: None,
        })
    }
}
