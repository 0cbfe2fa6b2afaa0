//! The watermark: every event behind it is finalized, so an event that arrives behind it is late. Finalization moves the
//! watermark no further than needed. A backdated event holds finalization for a while.
//!
//! With a timeout of 30 minutes:
//!
//! ```text
//!   12:00  12:10                    12:40:00.001
//!   a      b                        ^ the watermark if the session of a and b is over
//!   a      b ^ the watermark if a and b are finalized, but their session may continue
//! ```

use uuid::Uuid;

use super::{Arrival, Timeline};
use crate::config::SessionConfig;
use crate::model::{Entry, Kind, PreviousSession, SessionState};
use crate::session::{EventId, Millis};

impl Arrival {
    /// Returns whether the event took longer to arrive than the allowed lateness.
    pub(super) fn is_backdated(&self, config: &SessionConfig) -> bool {
        self.entry.at < self.received_at - config.lateness_ms()
    }
}

impl Timeline {
    /// Returns whether an event is late, that is, behind the watermark. Its age does not matter.
    pub(super) fn is_late(&self, entry: &Entry) -> bool {
        let is_behind = |id: &EventId| entry.at == self.watermark && entry.uuid <= *id;
        entry.at < self.watermark || self.watermark_id.as_ref().is_some_and(is_behind)
    }

    /// Returns the first time at which no event is late, independent of its id.
    pub(super) fn first_time(&self) -> Millis {
        self.watermark + Millis::from(self.watermark_id.is_some())
    }

    /// Holds finalization if a new event is backdated. The event must not be late. The hold gives other requests time to arrive:
    /// what was recorded offline often comes in several requests, in any order.
    pub(super) fn hold(&mut self, arrival: &Arrival, config: &SessionConfig) {
        if arrival.is_backdated(config) {
            self.held_until = self.held_until.max(Some(arrival.received_at + config.timeout_ms()));
        }
    }

    /// Returns whether finalization is held at `now`. Clears a hold that is over.
    pub(super) fn is_held(&mut self, now: Millis) -> bool {
        self.held_until = self.held_until.filter(|&until| now < until);
        self.held_until.is_some()
    }

    /// Moves the watermark forward; never back.
    pub(super) fn advance(&mut self, watermark: Millis) {
        if watermark > self.watermark {
            self.watermark = watermark;
            self.watermark_id = None;
        }
    }

    /// Moves the watermark behind this finalized event. Events of the same time that sort after it are not finalized.
    pub(super) fn advance_behind(&mut self, at: Millis, id: EventId) {
        if at >= self.watermark {
            self.watermark = at;
            self.watermark_id = Some(id);
        }
    }

    /// Moves the watermark forward if a late event extended or began the session `id`, and this is the visitor's last session.
    /// An event that follows within the timeout is then late, too, and joins that session. Otherwise it would begin another
    /// session next to it.
    ///
    /// The watermark stays at or before the first unfinalized entry. It also stays at or before `max_watermark`, the receipt less
    /// the allowed lateness, so that no event in time becomes late.
    pub(super) fn advance_to_late_session(
        &mut self,
        id: Uuid,
        max_watermark: Millis,
        recalled: &[SessionState],
        config: &SessionConfig,
    ) {
        if self.open.is_some() {
            return;
        }
        let Some(session) = self.ended.iter().chain(recalled).find(|session| session.id == id) else { return };
        let is_last = |last: &PreviousSession| last.id == id || session.facts.started_at > last.activity.started_at;
        if !self.previous.as_ref().is_none_or(is_last) {
            return;
        }
        let last = PreviousSession::from(session);
        let first = self.unfinalized.first().map_or(max_watermark, |first| first.at);
        self.advance(last.activity.over_from(config).min(max_watermark).min(first));
        // Without an open session, entries begin a session, apart from keep-alive events.
        if self.unfinalized.iter().all(|entry| entry.kind == Kind::KeepAlive) {
            self.previous = Some(last);
        }
    }
}
