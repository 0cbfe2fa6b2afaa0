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
        let mut new: Vec<&Arrival> = Vec::new();
        for arrival in arrivals.iter().filter(|arrival| !arrival.passive) {
            if let MapEntry::Vacant(vacant) = spots.entry(arrival.entry.uuid.print()) {
                // A late keep-alive event moves nothing, so it is not remembered: it is annotated like a passive event.
                if arrival.entry.kind == Kind::KeepAlive && self.is_late(&arrival.entry) {
                    continue;
                }
                vacant.insert(Spot::Journal);
                new.push(arrival);
            }
        }
        let changed = !new.is_empty();
        if changed {
            // Above the versions that recalled sessions were archived under.
            self.seq = recalled.iter().map(|tally| tally.version).fold(self.seq, u64::max) + 1;
            // In order of time: where a late event takes the watermark along, what follows it may be late, too.
            new.sort_by_key(|arrival| (arrival.entry.at, &arrival.entry.uuid));
            let fresh = self.place_late(new, &mut recalled, &mut spots, config);
            fresh.iter().for_each(|arrival| self.hold(arrival, config));
            if !fresh.is_empty() {
                self.insert(fresh.into_iter().map(|arrival| arrival.entry.clone()).collect(), &before, config);
            }
        }
        let assignments = self.assign(arrivals, &spots, &recalled, config);
        let changed = changed || realigned;
        let overflow = if changed { self.bound(arrivals, noticed, config) } else { Overflow::default() };
        Applied { assignments, changed, overflow }
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
                Spot::Settled(id) => {
                    // When it was counted is not known any more: somewhere in what is finalized of its session.
                    let session = recalled.iter().chain(&self.ended).chain(&self.open).find(|tally| tally.id == *id)?;
                    let at_most = at.clamp(session.started_at, session.last_activity);
                    of_id(*id, at).map(|assignment| Assignment { at: at_most, ..assignment })
                }
                Spot::Late(id) => of_id(*id, at).map(|assignment| Assignment { is_late: true, ..assignment }),
            }
        };
        arrivals.iter().map(assign).collect()
    }
}
