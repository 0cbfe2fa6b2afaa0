//! Timelines that this process wrote last, so that the common case needs no read.
//!
//! They are never trusted: what follows from one is written under the condition that it is still the stored one, and where
//! nothing is to be written it is read first. A hit saves half a read unit, a tenth of a write unit's price; a timeline that
//! another process has changed meanwhile costs a lost race, a whole one. So they are used only while at least ten of eleven
//! prove right, which is known without using them: each read shows what would have been.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;

use crate::session::{Millis, Visitor};
use crate::storage::{SessionError, Stored};
use crate::timeline::Timeline;

/// What all timelines kept weigh at the most; see [`weight`]. Some 4 MB.
const MOST: usize = 8_192;
/// What a right guess earns, and a wrong one costs: the prices of half a read unit and of a write unit are as 1 to 10.
const RIGHT: i32 = 1;
const WRONG: i32 = -10;
/// Bounds of what is earned: after two wrong guesses it has to be earned anew, by a hundred right ones at the most.
const CREDIT: std::ops::RangeInclusive<i32> = -100..=20;

/// The timelines written last, and how well they would have served.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// Two generations: once the young weigh half of what may be kept, they become the old, and the old go.
    young: HashSet<OfVisitor, RandomState>,
    old: HashSet<OfVisitor, RandomState>,
    weight: usize,
    credit: i32,
}

/// A visitor's timeline, found by its visitor. In a box: a set that grows moves what it holds.
#[derive(Debug)]
struct OfVisitor(Box<Stored>);

impl Borrow<Visitor> for OfVisitor {
    fn borrow(&self) -> &Visitor {
        &self.0.timeline.visitor
    }
}

impl Hash for OfVisitor {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.timeline.visitor.hash(state);
    }
}

impl PartialEq for OfVisitor {
    fn eq(&self, other: &Self) -> bool {
        self.0.timeline.visitor == other.0.timeline.visitor
    }
}

impl Eq for OfVisitor {}

impl Recent {
    /// Takes out the visitor's timeline, if it is here and likely to be the stored one at `now`.
    pub fn take(&self, visitor: &Visitor, now: Millis) -> Option<Stored> {
        let mut kept = self.kept();
        if kept.credit > 0 { kept.remove(visitor, now) } else { None }
    }

    /// Puts in what was just written.
    pub fn put(&self, stored: Stored) {
        let mut kept = self.kept();
        kept.weight += weight(&stored.timeline);
        if kept.weight > MOST / 2 {
            kept.old = std::mem::take(&mut kept.young);
            kept.weight = weight(&stored.timeline);
        }
        if kept.weight <= MOST / 2 {
            kept.young.replace(OfVisitor(Box::new(stored)));
        }
    }

    /// Learns from a read what a guess would have been worth. What could not be read is no longer guessed either.
    pub fn learn(&self, visitor: &Visitor, read: &Result<Option<Stored>, SessionError>, now: Millis) {
        let mut kept = self.kept();
        if let (Some(guess), Ok(read)) = (kept.remove(visitor, now), read) {
            kept.judge(read.as_ref().is_some_and(|read| read.etag == guess.etag));
        }
    }

    /// Learns what a guess was worth.
    pub fn judge(&self, is_right: bool) {
        self.kept().judge(is_right);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Whatever a panic left behind is only a guess.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// One that is due is no guess: the close function may have been there.
    fn remove(&mut self, visitor: &Visitor, now: Millis) -> Option<Stored> {
        let stored = self.young.take(visitor).or_else(|| self.old.take(visitor))?.0;
        stored.timeline.due_at.is_none_or(|due_at| now < due_at).then_some(*stored)
    }

    fn judge(&mut self, is_right: bool) {
        let change = if is_right { RIGHT } else { WRONG };
        self.credit = (self.credit + change).clamp(*CREDIT.start(), *CREDIT.end());
    }
}

/// Roughly its memory, in units of half a kilobyte: that of an event.
fn weight(timeline: &Timeline) -> usize {
    let tallies = timeline.ended.iter().chain(&timeline.open);
    let seen: usize = tallies.map(|tally| 4 + (tally.seen.len() + tally.late.seen.len()) / 64).sum();
    1 + timeline.journal.len() + seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Tally;

    fn stored(name: &str, etag: u64) -> Stored {
        Stored { timeline: Timeline::new(Visitor::new(name)), etag }
    }

    #[test]
    fn a_guess_has_to_be_earned() {
        let (recent, visitor) = (Recent::default(), Visitor::new("a"));
        recent.put(stored("a", 1));
        assert_eq!(recent.take(&visitor, 0), None);
        recent.learn(&visitor, &Ok(Some(stored("a", 1))), 0);
        recent.put(stored("a", 2));
        assert_eq!(recent.take(&visitor, 0), Some(stored("a", 2)));
        assert_eq!(recent.take(&visitor, 0), None, "what is taken is gone");
        // Somebody else wrote: ten right ones are needed to make up for it.
        recent.judge(false);
        for round in 0..10 {
            recent.put(stored("a", round));
            assert_eq!(recent.take(&visitor, 0), None);
            recent.learn(&visitor, &Ok(Some(stored("a", round))), 0);
        }
        recent.put(stored("a", 3));
        assert_eq!(recent.take(&visitor, 0), Some(stored("a", 3)));
    }

    #[test]
    fn of_a_visitors_timelines_the_last_is_kept() {
        let recent = Recent::default();
        recent.judge(true);
        recent.put(stored("a", 1));
        recent.put(stored("a", 2));
        assert_eq!(recent.take(&Visitor::new("a"), 0), Some(stored("a", 2)));
        assert_eq!(recent.take(&Visitor::new("a"), 0), None);
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_oldest_go() {
        let recent = Recent::default();
        recent.judge(true);
        for visitor in 0..10 * MOST {
            recent.put(stored(&visitor.to_string(), 1));
            let kept = recent.kept();
            // Half of what fits goes at once, when there is no room for one more.
            let expected = if visitor < MOST { visitor } else { MOST / 2 + visitor % (MOST / 2) };
            assert_eq!(kept.young.len() + kept.old.len(), expected + 1);
        }
        assert!(recent.take(&Visitor::new(&(10 * MOST - 1).to_string()), 0).is_some());
        assert!(recent.take(&Visitor::new("0"), 0).is_none());
    }

    #[test]
    fn one_that_is_due_is_no_guess() {
        let (recent, visitor) = (Recent::default(), Visitor::new("a"));
        recent.judge(true);
        let due = || Stored { timeline: Timeline { due_at: Some(5), ..stored("a", 1).timeline }, etag: 1 };
        recent.put(due());
        assert_eq!(recent.take(&visitor, 5), None);
        recent.put(due());
        // Nor is it judged: the credit for one is still there.
        recent.learn(&visitor, &Ok(None), 5);
        recent.put(due());
        assert_eq!(recent.take(&visitor, 4), Some(due()));
    }

    #[test]
    fn one_that_is_too_large_is_not_kept() {
        let mut large = stored("a", 1);
        large.timeline.open = Some(tally(64 * MOST));
        let recent = Recent::default();
        recent.judge(true);
        recent.put(large);
        assert_eq!(recent.take(&Visitor::new("a"), 0), None);
    }

    fn tally(seen: usize) -> Tally {
        Tally { seen: vec![0; seen], ..Tally::empty(uuid::Uuid::nil()) }
    }

    #[test]
    fn what_is_kept_is_weighed_by_its_sessions_and_what_they_have_seen() {
        let mut timeline = stored("a", 1).timeline;
        assert_eq!(weight(&timeline), 1);
        timeline.ended = vec![tally(640), tally(63)];
        assert_eq!(weight(&timeline), 1 + 14 + 4);
        let mut open = tally(64);
        open.late.seen = vec![0; 128];
        timeline.open = Some(open);
        assert_eq!(weight(&timeline), 1 + 14 + 4 + 7);
    }
}
