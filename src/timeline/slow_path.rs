//! The slow path: applies any events, also duplicates, late events and events out of order.

use std::collections::HashSet;
use std::collections::hash_map::Entry as MapEntry;

use uuid::Uuid;

use super::ids::primary_ids;
use super::known_events::{ByFingerprint, EventLocation};
use super::late::LateDecision;
use super::{Applied, Arrival, Assignment, Overflow, Recalled, Timeline};
use crate::config::SessionConfig;
use crate::model::{Kind, Position, SessionState};
use crate::rules::fold_with_positions;
use crate::session::Millis;

/// The result of [`Timeline::place`]; see [`Applied`].
pub(super) struct Placed {
    pub assignments: Vec<Option<Assignment>>,
    pub changed: bool,
    pub reopened: u32,
}

impl Timeline {
    /// Applies events wherever they belong.
    pub(super) fn apply_slow(&mut self, arrivals: &[Arrival], recalled: Recalled, config: &SessionConfig) -> Applied {
        let corrected = self.corrections.len();
        let Placed { assignments, changed, reopened } = self.place(arrivals, recalled, config, None);
        let overflow = if changed { self.bound(arrivals, corrected, config) } else { Overflow::default() };
        Applied { assignments, changed, overflow, reopened }
    }

    /// Places events wherever they belong, and finalizes none of them. Adds to `late_decisions` how late events were placed.
    pub(super) fn place(
        &mut self,
        arrivals: &[Arrival],
        recalled: Recalled,
        config: &SessionConfig,
        late_decisions: Option<&mut Vec<LateDecision>>,
    ) -> Placed {
        let Recalled { sessions: mut recalled, pages } = recalled;
        let (mut before, realigned) = self.aligned(config);
        self.drop_known(&mut recalled);
        recalled.extend(self.closed.iter().map(|closed| closed.state.clone()));
        let mut known_events = self.known_events(&recalled, &pages);
        let mut new = self.new_events(arrivals, &mut known_events);
        let changed = !new.is_empty();
        if self.finalize_for_late(&new, config) {
            before = self.sessions_before(config).unwrap_or_default();
            known_events = self.known_events(&recalled, &pages);
            new = self.new_events(arrivals, &mut known_events);
        }
        let is_duplicate = duplicates(arrivals, &new);
        let emitted = self.emitted();
        if changed {
            // Higher than the versions under which the recalled sessions were archived.
            self.seq = recalled.iter().map(|state| state.version).fold(self.seq, u64::max) + 1;
            // In order of time, because a late event can move the watermark, and the events after it are then late, too.
            new.sort_by_key(|arrival| (arrival.entry.at, &arrival.entry.uuid));
            let fresh = self.place_late(new, &mut recalled, &mut known_events, config, late_decisions);
            fresh.iter().for_each(|arrival| self.hold(arrival, config));
            if !fresh.is_empty() {
                self.insert(fresh.into_iter().map(|arrival| arrival.entry.clone()).collect(), &before, config);
            }
        }
        let reopened = emitted.saturating_sub(self.emitted());
        let mut assignments = self.assign(arrivals, &known_events, &recalled, config);
        for (assignment, is_duplicate) in assignments.iter_mut().zip(is_duplicate) {
            if let Some(assignment) = assignment {
                assignment.is_duplicate = is_duplicate;
            }
        }
        Placed { assignments, changed: changed || realigned, reopened }
    }

    /// Returns the events that are not known, and adds them to the known ones.
    fn new_events<'a>(
        &self,
        arrivals: &'a [Arrival],
        known_events: &mut ByFingerprint<EventLocation>,
    ) -> Vec<&'a Arrival> {
        let mut new = Vec::new();
        for arrival in arrivals.iter().filter(|arrival| !arrival.passive) {
            if let MapEntry::Vacant(vacant) = known_events.entry(arrival.entry.uuid.fingerprint()) {
                // A late keep-alive event changes nothing, so it gets no fingerprint. It is annotated like a passive event.
                if arrival.entry.kind == Kind::KeepAlive && self.is_late(&arrival.entry) {
                    continue;
                }
                vacant.insert(EventLocation::Unfinalized);
                new.push(arrival);
            }
        }
        new
    }

    /// Drops recalled sessions that the timeline has itself. A run of the close function can have archived a session without the
    /// time to take it out of the timeline. Then the timeline's copy counts, also if it was merged into another session since.
    fn drop_known(&self, recalled: &mut Vec<SessionState>) {
        if recalled.is_empty() {
            return;
        }
        let mut ids: HashSet<Uuid> = self.ids().collect();
        recalled.retain(|session| !ids.contains(&session.id));
        ids.extend(recalled.iter().map(|session| session.id));
        // An alias is not visible to a late event if its session lies outside of the recalled range, as after a change of
        // `max_duration_seconds`. So the event can have begun a session with the same id.
        for session in recalled {
            session.aliases.retain(|&alias| ids.insert(alias));
        }
    }

    /// Returns the assignment of each arrival.
    fn assign(
        &self,
        arrivals: &[Arrival],
        known_events: &ByFingerprint<EventLocation>,
        recalled: &[SessionState],
        config: &SessionConfig,
    ) -> Vec<Option<Assignment>> {
        let (views, positions) =
            fold_with_positions(self.previous.as_ref(), self.open.as_ref(), &self.unfinalized, 0, config);
        let ids = primary_ids(&self.anchors, &views);
        let by_fingerprint: ByFingerprint<usize> =
            self.unfinalized.iter().enumerate().map(|(index, entry)| (entry.uuid.fingerprint(), index)).collect();
        let of_view = |number: usize, at: Millis, position: Option<&Position>| {
            self.assignment(&views[number], number, &ids, at, position, self.seq)
        };
        // The id is that of a session that is over, of the open session, or of an anchor; an anchor leads to a view.
        let of_id = |id: Uuid, at: Millis| {
            if let Some(state) = recalled.iter().chain(&self.ended).find(|state| state.id == id) {
                return Some(state.assignment(at, self.seq));
            }
            if self.open.as_ref().is_some_and(|open| open.id == id) {
                return Some(of_view(0, at, None));
            }
            let anchor = self.anchors.iter().find(|anchor| anchor.id == id)?;
            Some(of_view(positions[anchor.entry].view?, at, None))
        };
        let assign = |arrival: &Arrival| {
            let at = arrival.entry.at;
            let fingerprint = arrival.entry.uuid.fingerprint();
            let is_unplaced = arrival.entry.kind == Kind::KeepAlive && !known_events.contains_key(&fingerprint);
            if arrival.passive || is_unplaced {
                let number = views.iter().rposition(|view| view.facts.started_at <= at);
                return match number {
                    Some(number) if !config.is_timeout(at - views[number].facts.last_activity) => {
                        Some(of_view(number, at, None))
                    }
                    Some(_) => None,
                    None => self
                        .ended
                        .iter()
                        .rev()
                        .find(|state| state.covers(at, config))
                        .map(|state| state.assignment(at, self.seq)),
                };
            }
            match known_events.get(&fingerprint)? {
                EventLocation::Unfinalized => {
                    let index = *by_fingerprint.get(&fingerprint)?;
                    Some(of_view(positions[index].view?, self.unfinalized[index].at, Some(&positions[index])))
                }
                EventLocation::Finalized(id) => {
                    // The time under which it was counted is no longer known, but it lies in the finalized part of the session.
                    let session = recalled.iter().chain(&self.ended).chain(&self.open).find(|state| state.id == *id)?;
                    let counted_at = at.clamp(session.facts.started_at, session.facts.last_activity);
                    of_id(*id, at).map(|assignment| Assignment { at: counted_at, ..assignment })
                }
                EventLocation::Late(id) => of_id(*id, at).map(|assignment| Assignment { is_late: true, ..assignment }),
            }
        };
        arrivals.iter().map(assign).collect()
    }
}

/// Returns for each arrival whether it is an event that was known before. `new` are those that were not, in the same order.
fn duplicates(arrivals: &[Arrival], new: &[&Arrival]) -> Vec<bool> {
    let mut new = new.iter().peekable();
    let is_known = |arrival: &Arrival| new.next_if(|new| std::ptr::eq(**new, arrival)).is_none();
    let is_event = |arrival: &Arrival| !arrival.passive && matches!(arrival.entry.kind, Kind::Pageview | Kind::Event);
    arrivals.iter().map(is_known).zip(arrivals).map(|(is_known, arrival)| is_known && is_event(arrival)).collect()
}
