//! The general way to place events: wherever they belong, known ones and late ones among them.

use std::collections::hash_map::Entry as MapEntry;

use uuid::Uuid;

use super::ids::lead_ids;
use super::spots::{ByPrint, Spot};
use super::{Applied, Arrival, Assignment, Overflow, Timeline};
use crate::config::SessionConfig;
use crate::rules::{Kind, Place, Tally, fold_places};
use crate::session::Millis;

impl Timeline {
    /// Places events wherever they belong.
    pub(super) fn place(&mut self, arrivals: &[Arrival], mut recalled: Vec<Tally>, config: &SessionConfig) -> Applied {
        let noticed = self.notices.len();
        let (before, realigned) = self.aligned(config);
        // A session that is still here was archived by a close function that had no time to take it out.
        recalled.retain(|session| !self.holds(session.id));
        let mut spots = self.spots(&recalled);
        let mut fresh = Vec::new();
        let mut late = Vec::new();
        for arrival in arrivals.iter().filter(|arrival| !arrival.passive) {
            if let MapEntry::Vacant(vacant) = spots.entry(arrival.entry.uuid.print()) {
                let is_late = self.is_late(arrival, config);
                // A late keep-alive event moves nothing, so it is not remembered: it is annotated like a passive event.
                if is_late && arrival.entry.kind == Kind::KeepAlive {
                    continue;
                }
                vacant.insert(Spot::Journal);
                if is_late {
                    late.push(&arrival.entry);
                } else {
                    fresh.push(arrival.entry.clone());
                }
            }
        }
        let changed = !fresh.is_empty() || !late.is_empty();
        if changed {
            // Above the versions that recalled sessions were archived under.
            self.seq = recalled.iter().map(|tally| tally.version).fold(self.seq, u64::max) + 1;
        }
        if !fresh.is_empty() {
            self.insert(fresh, &before, config);
        }
        if !late.is_empty() {
            self.place_late(late, &mut recalled, &mut spots, config);
        }
        let assignments = self.assign(arrivals, &spots, &recalled, config);
        self.take_back(recalled);
        let changed = changed || realigned;
        let overflow = if changed { self.bound(arrivals, noticed, config) } else { Overflow::default() };
        Applied { assignments, changed, overflow }
    }

    /// Whether an event is too late to be placed exactly; or lies within a session that late events made, if its delivery
    /// took longer than theirs.
    pub(super) fn is_late(&self, arrival: &Arrival, config: &SessionConfig) -> bool {
        let at = arrival.entry.at;
        at < self.frontier
            || at < arrival.received_at - config.lateness_ms()
            || self.ended.iter().any(|tally| (tally.started_at..=tally.last_activity).contains(&at))
    }

    /// The session of each arrival.
    fn assign(
        &self,
        arrivals: &[Arrival],
        spots: &ByPrint<Spot>,
        recalled: &[Tally],
        config: &SessionConfig,
    ) -> Vec<Option<Assignment>> {
        let (drafts, places) = fold_places(self.previous.as_ref(), self.open.as_ref(), &self.journal, 0, config);
        let ids = lead_ids(&self.heads, &drafts);
        let by_print: ByPrint<usize> =
            self.journal.iter().enumerate().map(|(index, entry)| (entry.uuid.print(), index)).collect();
        let of_draft = |number: usize, at: Millis, place: Option<&Place<'_>>| {
            self.assignment(&drafts[number], number, &ids, at, place, self.seq)
        };
        // A session by its id: over, or the draft on whose entries the id stands.
        let of_id = |id: Uuid, at: Millis| {
            if let Some(tally) = recalled.iter().chain(&self.ended).find(|tally| tally.id == id) {
                return Some(tally.assignment(at, self.seq));
            }
            if self.open.as_ref().is_some_and(|open| open.id == id) {
                return Some(of_draft(0, at, None));
            }
            let head = self.heads.iter().find(|head| head.id == id)?;
            Some(of_draft(places[head.entry].draft?, at, None))
        };
        let assign = |arrival: &Arrival| {
            let at = arrival.entry.at;
            let print = arrival.entry.uuid.print();
            let is_unplaced = arrival.entry.kind == Kind::KeepAlive && !spots.contains_key(&print);
            if arrival.passive || is_unplaced {
                let number = drafts.iter().rposition(|draft| draft.started_at <= at);
                return match number {
                    Some(number) if !config.is_timeout(at - drafts[number].last_activity) => {
                        Some(of_draft(number, at, None))
                    }
                    Some(_) => None,
                    None => self
                        .ended
                        .iter()
                        .rev()
                        .find(|tally| tally.covers(at, config))
                        .map(|t| t.assignment(at, self.seq)),
                };
            }
            match spots.get(&print)? {
                Spot::Journal => {
                    let index = *by_print.get(&print)?;
                    Some(of_draft(places[index].draft?, self.journal[index].at, Some(&places[index])))
                }
                Spot::Settled(id) => of_id(*id, at),
                Spot::Late(id) => of_id(*id, at).map(|assignment| Assignment { is_late: true, ..assignment }),
            }
        };
        arrivals.iter().map(assign).collect()
    }
}
