//! The shapes of what is stored, apart from those that the rules work on.

mod journal;
mod origin;
mod session;

use serde::{Deserialize, Serialize};

use super::texts::{Reader, Texts};
use super::{FormatError, id_half, id_of};
use crate::rules::Previous;
use crate::session::{Millis, Visitor};
use crate::timeline::{Notice, Timeline};
use journal::{WireEntry, WireHead, WireNotice, WireUuid, canonical};
use origin::{WireOrigin, each_origin_text};
pub(super) use session::{WireSession, each_session_text};

type IdHalf = [u8; 8];

#[derive(Serialize, Deserialize)]
pub(super) struct WireTimeline<'a> {
    #[serde(borrow)]
    texts: Vec<(u32, &'a str)>,
    seq: u64,
    frontier: Option<Millis>,
    archived: u32,
    previous: Option<WirePrevious>,
    #[serde(borrow)]
    ended: Vec<WireSession<'a>>,
    #[serde(borrow)]
    open: Option<WireSession<'a>>,
    /// Campaigns, devices and places of the journal: most entries say the same.
    contexts: Vec<WireOrigin>,
    journal: Vec<WireEntry>,
    heads: Vec<WireHead>,
    notices: Vec<WireNotice>,
}

/// What is stored behind a timeline since format 2.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct WireWatermark {
    held_until: Option<Millis>,
    frontier_id: Option<WireUuid>,
}

impl WireWatermark {
    pub(super) fn write(timeline: &Timeline, texts: &Texts<'_>) -> Self {
        Self {
            held_until: timeline.held_until,
            frontier_id: timeline.frontier_id.as_ref().map(|id| WireUuid::write(id, texts)),
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
    for entry in &timeline.journal {
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
    if let Some(id) = timeline.frontier_id.as_deref().filter(|id| canonical(id).is_none()) {
        add(id);
    }
    for notice in &timeline.notices {
        if let Notice::Split { uuid, .. } = notice {
            add(uuid);
        }
    }
}

impl<'a> WireTimeline<'a> {
    pub(super) fn write(timeline: &Timeline, texts: &Texts<'a>) -> Self {
        let mut contexts = Vec::new();
        let mut before = 0;
        let journal = timeline.journal.iter().map(|entry| {
            let wire = WireEntry::write(entry, before, &mut contexts, texts);
            before = entry.at;
            wire
        });
        let journal = journal.collect();
        Self {
            texts: texts.stored(),
            seq: timeline.seq,
            frontier: (timeline.frontier != Millis::MIN).then_some(timeline.frontier),
            archived: timeline.archived,
            previous: timeline.previous.as_ref().map(|previous| WirePrevious {
                id: id_half(previous.id),
                started_at: previous.started_at,
                lasted: previous.last_activity.abs_diff(previous.started_at),
                event_count: previous.event_count,
                ended_by_call: previous.ended_by_call,
                number: previous.number,
            }),
            ended: timeline.ended.iter().map(|tally| WireSession::write(tally, texts)).collect(),
            open: timeline.open.as_ref().map(|tally| WireSession::write(tally, texts)),
            contexts,
            journal,
            heads: timeline.heads.iter().map(WireHead::write).collect(),
            notices: timeline.notices.iter().map(|notice| WireNotice::write(notice, texts)).collect(),
        }
    }

    pub(super) fn read(&self, watermark: WireWatermark, visitor: Visitor) -> Result<Timeline, FormatError> {
        let bits = visitor.bits();
        let texts = Reader::new(&self.texts)?;
        let contexts = self.contexts.iter().map(|wire| wire.read(&texts)).collect::<Result<Vec<_>, _>>()?;
        let mut journal = Vec::with_capacity(self.journal.len());
        let mut before = 0;
        for wire in &self.journal {
            let entry = wire.read(before, &contexts, &texts)?;
            before = entry.at;
            journal.push(entry);
        }
        let previous = match &self.previous {
            Some(previous) => Some(Previous {
                id: id_of(previous.id, bits),
                started_at: previous.started_at,
                last_activity: after(previous.started_at, previous.lasted)?,
                event_count: previous.event_count,
                ended_by_call: previous.ended_by_call,
                number: previous.number,
            }),
            None => None,
        };
        Ok(Timeline {
            visitor,
            seq: self.seq,
            frontier: self.frontier.unwrap_or(Millis::MIN),
            frontier_id: watermark.frontier_id.map(|id| id.read(&texts)).transpose()?,
            held_until: watermark.held_until,
            archived: self.archived,
            previous,
            ended: self.ended.iter().map(|wire| wire.read(&texts, bits)).collect::<Result<_, _>>()?,
            open: self.open.as_ref().map(|wire| wire.read(&texts, bits)).transpose()?,
            journal,
            heads: self.heads.iter().map(|wire| wire.read(bits)).collect::<Result<_, _>>()?,
            notices: self.notices.iter().map(|wire| wire.read(&texts, bits)).collect::<Result<_, _>>()?,
            due_at: None,
        })
    }
}
