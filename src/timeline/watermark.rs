//! The watermark: every event behind it is finalized, so one that arrives behind it is late. It moves no further than what
//! is finalized needs, and a backdated event holds it where it is for a while.
//!
//! ```text
//!   12:00  12:10                    12:40:00.001
//!   a      b                        ^ the session of a and b is over, with a timeout of 30 minutes: the watermark
//!   a      b ^ the watermark where only a and b are finalized, and their session may go on
//! ```

use uuid::Uuid;

use super::{Arrival, Timeline};
use crate::config::SessionConfig;
use crate::model::{Entry, PreviousSession, SessionState};
use crate::session::{EventId, Millis};

impl Arrival {
    /// Whether the event took longer to arrive than the allowed lateness.
    pub(super) fn is_backdated(&self, config: &SessionConfig) -> bool {
        self.entry.at < self.received_at - config.lateness_ms()
    }
}

impl Timeline {
    /// Whether an event is late: all that it could have changed is finalized. Its age does not matter.
    pub(super) fn is_late(&self, entry: &Entry) -> bool {
        let is_within = |id: &EventId| entry.at == self.watermark && entry.uuid <= *id;
        entry.at < self.watermark || self.watermark_id.as_ref().is_some_and(is_within)
    }

    /// The first time at which no event is late, whatever its id.
    pub(super) fn first_time(&self) -> Millis {
        self.watermark + Millis::from(self.watermark_id.is_some())
    }

    /// Holds finalization where a new event, which is not late, is backdated: what was recorded offline often comes in
    /// several requests, in any order.
    pub(super) fn hold(&mut self, arrival: &Arrival, config: &SessionConfig) {
        if arrival.is_backdated(config) {
            self.held_until = self.held_until.max(Some(arrival.received_at + config.timeout_ms()));
        }
    }

    /// Whether finalization is held; a hold that is over is dropped.
    pub(super) fn is_held(&mut self, now: Millis) -> bool {
        self.held_until = self.held_until.filter(|&until| now < until);
        self.held_until.is_some()
    }

    /// Moves the watermark on; never back.
    pub(super) fn advance(&mut self, watermark: Millis) {
        if watermark > self.watermark {
            self.watermark = watermark;
            self.watermark_id = None;
        }
    }

    /// Moves the watermark to behind this event, which is finalized; those of the same time that follow it are not.
    pub(super) fn advance_behind(&mut self, at: Millis, id: EventId) {
        if at >= self.watermark {
            self.watermark = at;
            self.watermark_id = Some(id);
        }
    }

    /// Takes the watermark along where a late event made the last session longer, or a last one: what follows within the
    /// timeout is to join that session, not to begin another beside it. But no entry of the unfinalized events falls behind it, nor
    /// what is received in time: `most` is the receipt less the allowed lateness.
    pub(super) fn go_along(&mut self, id: Uuid, most: Millis, recalled: &[SessionState], config: &SessionConfig) {
        if self.open.is_some() {
            return;
        }
        let Some(session) = self.ended.iter().chain(recalled).find(|session| session.id == id) else { return };
        let is_last = |last: &PreviousSession| last.id == id || session.facts.started_at > last.activity.started_at;
        if !self.previous.as_ref().is_none_or(is_last) {
            return;
        }
        let last = PreviousSession::from(session);
        let first = self.unfinalized.first().map_or(most, |first| first.at);
        self.advance(last.activity.over_from(config).min(most).min(first));
        if self.unfinalized.is_empty() {
            self.previous = Some(last);
        }
    }
}
