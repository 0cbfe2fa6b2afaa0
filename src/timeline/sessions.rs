//! A timeline's sessions in the form that callers see.

use std::sync::Arc;

use uuid::Uuid;

use super::ids::primary_ids;
use super::{Assignment, Timeline};
use crate::config::SessionConfig;
use crate::model::{SessionState, counts};
use crate::rules::fold;
use crate::session::{Millis, Session, Visitor, datetime};
use serde_json::value::RawValue;

impl Timeline {
    /// Returns all sessions of the timeline as they are at `now`, ordered by start.
    pub fn sessions(&self, now: Millis, config: &SessionConfig) -> Vec<Session> {
        self.states(now, config).iter().map(|(state, is_active)| state.session(&self.visitor, *is_active)).collect()
    }

    /// Returns the session with this id, or the session that this id was merged into. Returns `None` if the timeline has neither.
    pub fn session(&self, id: Uuid, now: Millis, config: &SessionConfig) -> Option<Session> {
        let mut found = self.states(now, config).into_iter();
        let (state, is_active) = found.find(|(state, _)| state.ids().any(|other| other == id))?;
        Some(state.session(&self.visitor, is_active))
    }

    /// Returns the id of the visitor's latest session: the one that an event now would continue or follow. Returns `None` if the
    /// visitor has no session. The session can be archived.
    ///
    /// It need not be the one that began last: a late event can make a session within another one, which then still goes on.
    pub fn latest_id(&self, config: &SessionConfig) -> Option<Uuid> {
        let mut aligned = self.clone();
        aligned.realign(config);
        let views = fold(aligned.previous.as_ref(), aligned.open.as_ref(), &aligned.unfinalized, config);
        let live = primary_ids(&aligned.anchors, &views).pop();
        live.or_else(|| Some(aligned.previous?.id))
    }

    /// Returns the state of every session, as if all its events were finalized, and whether an event at `now` would continue it.
    pub(crate) fn states(&self, now: Millis, config: &SessionConfig) -> Vec<(SessionState, bool)> {
        let mut aligned = self.clone();
        // This changes nothing, unless the rules have changed since the ids were given out.
        aligned.realign(config);
        aligned.aligned_states(now, config)
    }

    /// Returns the same as [`Timeline::states`] for a timeline whose sessions match the rules.
    fn aligned_states(&self, now: Millis, config: &SessionConfig) -> Vec<(SessionState, bool)> {
        let views = fold(self.previous.as_ref(), self.open.as_ref(), &self.unfinalized, config);
        let ids = primary_ids(&self.anchors, &views);
        let closed = self.closed.iter().map(|closed| &closed.state);
        let over = closed.chain(&self.ended).map(|state| (state.clone(), false));
        let live = views.iter().enumerate().map(|(number, view)| {
            (self.state(view, ids[number], number, &ids), self.is_live(number, &views, now, config))
        });
        let mut states: Vec<_> = over.chain(live).collect();
        states.sort_by_key(|(state, _)| state.facts.started_at);
        states
    }
}

impl SessionState {
    /// Returns whether this time lies in the session or within the timeout after it.
    pub(super) fn covers(&self, at: Millis, config: &SessionConfig) -> bool {
        self.facts.started_at <= at && !config.is_timeout(at - self.facts.last_activity)
    }

    /// Returns the assignment of an event at `at` whose position in the session is no longer known.
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
            user_id: self.facts.user_id.clone(),
            // Several events can have the time of the start. Which of them was the first is no longer known.
            is_start: at == self.facts.started_at,
            is_late: false,
            is_duplicate: false,
            version,
        }
    }

    /// Returns the session as callers see it, once it is over.
    pub fn ended_session(&self, visitor: &Visitor) -> Session {
        self.session(visitor, false)
    }

    /// Returns the session as callers see it. `is_active`: an event that came now would continue it.
    pub(crate) fn session(&self, visitor: &Visitor, is_active: bool) -> Session {
        let last_activity = datetime(self.facts.last_activity);
        // Stored values are valid JSON: see `stored/check.rs`.
        let raw_value = |json: &String| RawValue::from_string(json.clone()).ok();
        let string = |value: &Option<Arc<str>>| value.as_deref().map(str::to_owned);
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
            entry_url: string(&self.facts.entry_url),
            referrer: string(&self.facts.attribution.referrer),
            utm: self.facts.attribution.utm.as_deref().cloned(),
            landing_page: string(&self.facts.landing_page),
            exit_page: string(&self.facts.exit_page),
            device: self.facts.device.as_deref().cloned(),
            geo: self.facts.geo.as_deref().cloned(),
            user_id: string(&self.facts.user_id),
            properties: self
                .properties
                .iter()
                .filter(|(key, _)| !counts::is_count(key))
                .filter_map(|(key, json)| Some((key.clone(), raw_value(json)?)))
                .collect(),
            counts: counts::totals(&self.properties),
            is_active,
            version: self.version,
        }
    }
}
