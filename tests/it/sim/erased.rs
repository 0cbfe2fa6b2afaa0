//! The checks of erased visitors. An erasure ends a generation of the visitor: what is stored after it comes from events that were
//! delivered after it, or that were under way. `docs/api.md` says what a race can leave behind until the request is repeated.

mod at_rest;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use session_tracking::model::Kind;
use session_tracking::session::{Millis, Visitor, fingerprint};
use uuid::Uuid;

pub use at_rest::ERASED;

use super::check::{Checker, StoredVisitor, stored_visitor};
use super::deletion::{Deletion, Part};
use super::erasures::REPEAT_AFTER_MS;
use super::faulty::{FaultyStorage, STALE_MS};
use super::source::SimEvent;

/// What is known of a visitor since its timeline was last deleted.
#[derive(Debug, Default)]
pub struct Generation {
    /// The number of the erasure that deleted the timeline.
    attempt: usize,
    /// The step of the world, and the time, of that deletion.
    step: u64,
    at: Millis,
    /// When the invocation began that deleted it.
    began: (u64, Millis),
    /// Whether that invocation was answered.
    is_answered: bool,
    /// Whether this erasure has deleted all items.
    is_complete: bool,
    /// Whether an invocation was under way that can leave something behind.
    has_racers: bool,
    /// Whether this erasure found nothing, and no earlier one found anything within [`REPEAT_AFTER_MS`].
    found_nothing: bool,
    /// When an erasure last deleted something.
    last_found_at: Option<Millis>,
    /// Whether something of before is in the timeline again: a late event recalled a session that was left behind.
    is_tainted: bool,
    /// Whether an event was applied so late that the oracle does not apply.
    pub has_late: bool,
    /// The events that were delivered since, or were under way.
    delivered: BTreeSet<usize>,
    /// The events that were stored since, and when each was first seen.
    stored: BTreeMap<usize, Millis>,
    /// The ids of all sessions of before.
    gone: BTreeSet<Uuid>,
}

impl Generation {
    /// Returns whether nothing can be left of what was stored before.
    fn is_clean(&self) -> bool {
        self.is_complete && !self.is_tainted && (self.found_nothing || !self.has_racers)
    }
}

impl Checker<'_> {
    /// Returns whether everything that is stored of a visitor must be of its last generation.
    pub fn is_clean(&self, visitor: &Visitor) -> bool {
        self.erased.get(visitor).is_none_or(Generation::is_clean)
    }

    /// Returns whether an invocation that began at this step and time can have seen what an erasure has deleted since.
    pub fn may_see_erased(&self, visitor: &Visitor, began: (u64, Millis)) -> bool {
        self.erased.get(visitor).is_some_and(|generation| {
            generation.step >= began.0 || generation.at + STALE_MS >= began.1 || !generation.is_clean()
        })
    }

    /// Records that an invocation with these events begins.
    pub fn delivered(&mut self, events: &[usize], now: Millis) {
        for &event in events {
            if let Some(generation) = self.erased.get_mut(&self.events[event].visitor) {
                generation.delivered.insert(event);
                generation.has_racers |= !generation.is_complete || now <= generation.at + STALE_MS;
            }
        }
    }

    /// Records that an invocation with these events is over.
    pub fn delivery_is_over(&mut self, events: &[usize], now: Millis) {
        for &event in events {
            let SimEvent { visitor, at, .. } = &self.events[event];
            let max_ms = self.max_ms(visitor);
            if let Some(generation) = self.erased.get_mut(visitor) {
                generation.has_late |= generation.stored.get(&event).unwrap_or(&now) - at > max_ms;
            }
        }
    }

    /// Returns how long an event may take so that it is certainly not late.
    fn max_ms(&self, visitor: &Visitor) -> Millis {
        self.rules_of(visitor).lateness.num_milliseconds() - 2 * self.max_skew_ms
    }

    /// Records a step of an erasure by an invocation that began at this step and time. `under_way` are the events of other
    /// invocations. `is_closing` says whether the close function runs.
    pub fn deleted(
        &mut self,
        storage: &FaultyStorage<'_>,
        deletion: Deletion,
        under_way: &[usize],
        is_closing: bool,
        began: (u64, Millis),
        step: u64,
    ) {
        let now = storage.engine.state().now;
        let Deletion { visitor, attempt, part, was_there, ids } = deletion;
        let of_visitor = |event: &&usize| self.events[**event].visitor == visitor;
        let under_way: BTreeSet<usize> = under_way.iter().filter(of_visitor).copied().collect();
        let mut generation = self.erased.remove(&visitor).unwrap_or_default();
        if part == Part::Timeline {
            let is_long_ago = generation.last_found_at.is_none_or(|at| at <= now - REPEAT_AFTER_MS);
            generation = Generation {
                attempt,
                began,
                step,
                at: now,
                found_nothing: is_long_ago,
                last_found_at: generation.last_found_at,
                delivered: under_way.clone(),
                gone: generation.gone,
                ..Generation::default()
            };
            self.event_counts.remove(&visitor);
            self.marks.retain(|(of, _)| *of != visitor);
        }
        generation.gone.extend(ids);
        generation.has_racers |= is_closing || !under_way.is_empty();
        if was_there {
            generation.last_found_at = Some(now);
            generation.found_nothing = false;
        }
        if part == Part::LastItems && attempt == generation.attempt {
            generation.is_complete = true;
            let here = self.entries(&stored_visitor(storage, &visitor));
            generation.is_tainted = !here.is_subset(&generation.delivered);
        }
        self.erased.insert(visitor, generation);
    }

    /// Returns the events that a timeline holds, with those of its sessions.
    fn entries(&self, stored: &StoredVisitor) -> BTreeSet<usize> {
        let Some(timeline) = &stored.timeline else { return BTreeSet::new() };
        let unfinalized = timeline.unfinalized.iter().filter(|entry| entry.kind != Kind::End);
        let unfinalized = unfinalized.map(|entry| fingerprint(&entry.uuid));
        let of_anchors = timeline.anchors.iter().flat_map(|anchor| anchor.late.fingerprints.iter().copied());
        let of_sessions = timeline.finalized().flat_map(|state| stored.fingerprints(state));
        unfinalized.chain(of_anchors).chain(of_sessions).map(|of| self.event(&timeline.visitor, of)).collect()
    }

    /// Returns the event with this fingerprint.
    fn event(&self, visitor: &Visitor, of: u64) -> usize {
        let is_it = |event: &&SimEvent| event.visitor == *visitor && fingerprint(&event.uuid) == of;
        self.events.iter().position(|event| is_it(&event)).expect("every stored event was sent")
    }

    /// Checks what is stored of an erased visitor after its timeline was written.
    pub fn check_generation(&mut self, storage: &FaultyStorage<'_>, visitor: &Visitor, stored: &StoredVisitor) {
        let Some(mut generation) = self.erased.remove(visitor) else { return };
        let now = storage.engine.state().now;
        let here = self.entries(stored);
        let archived = stored.archived.iter().flat_map(|state| stored.fingerprints(state));
        let pages = storage.all_pages(visitor).into_iter().flat_map(|page| page.fingerprints);
        let elsewhere: BTreeSet<usize> = archived.chain(pages).map(|of| self.event(visitor, of)).collect();
        let is_clean = generation.is_clean();
        let (is_here, is_elsewhere) =
            (here.is_subset(&generation.delivered), elsewhere.is_subset(&generation.delivered));
        assert!(is_elsewhere || !is_clean, "archived events of {visitor:?} were erased: {elsewhere:?}, {generation:?}");
        // What a race left in the archive can come back with a late event.
        generation.is_tainted |= !is_elsewhere && !is_here;
        assert!(is_here || generation.is_tainted, "events of {visitor:?} were erased: {here:?}, {generation:?}");
        let max_ms = self.max_ms(visitor);
        for event in here {
            let seen_at = *generation.stored.entry(event).or_insert(now);
            generation.has_late |= seen_at - self.events[event].at > max_ms;
        }
        self.erased.insert(visitor.clone(), generation);
    }

    /// Checks the answer to an erasure: if it succeeded, consumers were told. Returns whether it found nothing; `None` if it failed.
    pub fn erasure_answered(
        &mut self,
        visitor: &Visitor,
        answer: &Value,
        output: &[String],
        began: (u64, Millis),
    ) -> Option<bool> {
        let erased_at = answer["erased_at"].as_str()?;
        let is_told = |line: &Value| is_erasure_of(line, visitor) && line["properties"]["erased_at"] == erased_at;
        let mut lines = output.iter().filter(|line| line.contains("$visitor_erased"));
        let is_told = lines.any(|line| is_told(&serde_json::from_str(line).unwrap()));
        assert!(is_told, "{visitor:?} was erased, but `$visitor_erased` was not emitted: {answer}");
        if let Some(generation) = self.erased.get_mut(visitor) {
            generation.is_answered |= generation.began == began;
        }
        Some(answer["erased"].as_object().unwrap().values().all(|count| count == 0))
    }
}

/// Returns whether a line is about this visitor.
pub fn of_visitor(line: &Value, visitor: &Visitor) -> bool {
    line["distinct_id"] == visitor.distinct_id.as_str()
        && line["project"].as_str().unwrap_or_default() == visitor.project
}

fn is_erasure_of(line: &Value, visitor: &Visitor) -> bool {
    line["event"] == "$visitor_erased" && of_visitor(line, visitor)
}
