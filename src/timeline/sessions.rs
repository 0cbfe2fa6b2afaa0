//! What callers see of a timeline: sessions.

use std::sync::Arc;

use uuid::Uuid;

use super::ids::primary_ids;
use super::{Assignment, Timeline};
use crate::config::SessionConfig;
use crate::model::SessionState;
use crate::rules::fold;
use crate::session::{Millis, Session, Visitor, datetime};
use serde_json::value::RawValue;

impl Timeline {
    /// All sessions of the timeline, by start, as they are at `now`.
    pub fn sessions(&self, now: Millis, config: &SessionConfig) -> Vec<Session> {
        self.states(now, config).iter().map(|(state, is_active)| state.session(&self.visitor, *is_active)).collect()
    }

    /// The session that an id means: its own, or the one it was merged into.
    pub fn session(&self, id: Uuid, now: Millis, config: &SessionConfig) -> Option<Session> {
        let mut found = self.states(now, config).into_iter();
        let (state, is_active) = found.find(|(state, _)| state.ids().any(|other| other == id))?;
        Some(state.session(&self.visitor, is_active))
    }

    /// Adds up every session, as if all its events were finalized, and says which one an event at `now` would continue.
    fn states(&self, now: Millis, config: &SessionConfig) -> Vec<(SessionState, bool)> {
        let mut aligned = self.clone();
        // Under the rules that gave the ids out this changes nothing.
        aligned.realign(config);
        aligned.aligned_states(now, config)
    }

    fn aligned_states(&self, now: Millis, config: &SessionConfig) -> Vec<(SessionState, bool)> {
        let views = fold(self.previous.as_ref(), self.open.as_ref(), &self.unfinalized, config);
        let ids = primary_ids(&self.anchors, &views);
        let over = self.ended.iter().map(|state| (state.clone(), false));
        let last = views.len().saturating_sub(1);
        let live = views.iter().enumerate().map(|(number, view)| {
            let is_active = number == last && view.reason_for(now.max(view.facts.last_activity), config).is_none();
            (self.state(view, ids[number], number, &ids), is_active)
        });
        let mut states: Vec<_> = over.chain(live).collect();
        states.sort_by_key(|(state, _)| state.facts.started_at);
        states
    }
}

impl SessionState {
    /// Whether the session spans this time, its timeout after it included.
    pub(super) fn covers(&self, at: Millis, config: &SessionConfig) -> bool {
        self.facts.started_at <= at && !config.is_timeout(at - self.facts.last_activity)
    }

    /// The assignment of an event at `at` whose part in the session is no longer known.
    pub(super) fn assignment(&self, at: Millis, version: u64) -> Assignment {
        Assignment {
            session_id: self.id,
            reason: self.facts.reason,
            number: self.number,
            previous: self.previous,
            started_at: self.facts.started_at,
            at,
            page_views: self.facts.page_views.saturating_add(self.late.page_views),
            entry_url: self.facts.entry_url.clone(),
            exit_page: self.facts.exit_page.clone(),
            referrer: self.facts.attribution.referrer.clone(),
            // Of events at that very time the first cannot be told any more.
            is_start: at == self.facts.started_at,
            is_late: false,
            version,
        }
    }

    /// The session as callers see it, once it is over.
    pub fn ended_session(&self, visitor: &Visitor) -> Session {
        self.session(visitor, false)
    }

    /// The session as callers see it. `is_active`: an event that came now would continue it.
    fn session(&self, visitor: &Visitor, is_active: bool) -> Session {
        let last_activity = datetime(self.facts.last_activity);
        // Stored values are checked JSON: see `stored.rs`.
        let value = |text: &String| RawValue::from_string(text.clone()).ok();
        let text = |text: &Option<Arc<str>>| text.as_deref().map(str::to_owned);
        Session {
            id: self.id.to_string(),
            project: visitor.project.clone(),
            distinct_id: visitor.distinct_id.clone(),
            reason: self.facts.reason,
            number: self.number,
            previous_session_id: self.previous.map(|id| id.to_string()),
            started_at: datetime(self.facts.started_at),
            last_activity,
            ended_at: (!is_active).then_some(last_activity),
            page_views: self.facts.page_views.saturating_add(self.late.page_views),
            event_count: self.facts.event_count.saturating_add(self.late.event_count),
            entry_url: text(&self.facts.entry_url),
            referrer: text(&self.facts.attribution.referrer),
            utm: self.facts.attribution.utm.as_deref().cloned(),
            landing_page: text(&self.facts.landing_page),
            exit_page: text(&self.facts.exit_page),
            device: self.facts.device.as_deref().cloned(),
            geo: self.facts.geo.as_deref().cloned(),
            properties: self.properties.iter().filter_map(|(key, text)| Some((key.clone(), value(text)?))).collect(),
            is_active,
            version: self.version,
        }
    }
}
