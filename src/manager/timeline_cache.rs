//! Timelines that this process wrote last, so that the common case needs no read.
//!
//! They are never trusted: what follows from one is written under the condition that it is still the stored one, and where
//! nothing is to be written it is read first. A hit saves half a read unit, a tenth of a write unit's price; a timeline that
//! another process has changed meanwhile costs a conflict, a whole one. So they are used only while at least ten of eleven
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
/// What a right speculative write earns, and a wrong one costs: the prices of half a read unit and of a write unit are as 1 to 10.
const RIGHT: i32 = 1;
const WRONG: i32 = -10;
/// Bounds of what is earned: after two wrong guesses it has to be earned anew, by a hundred right ones at the most.
const SCORE: std::ops::RangeInclusive<i32> = -100..=20;

/// The timelines written last, and how well they would have served.
#[derive(Debug, Default)]
pub(super) struct TimelineCache(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// Two generations: once the young weigh half of what may be kept, they become the old, and the old go.
    young: HashSet<OfVisitor, RandomState>,
    old: HashSet<OfVisitor, RandomState>,
    weight: usize,
    score: i32,
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

impl TimelineCache {
    /// Takes out the visitor's timeline, if it is here and likely to be the stored one at `now`.
    pub fn take(&self, visitor: &Visitor, now: Millis) -> Option<Stored> {
        let mut kept = self.kept();
        if kept.score > 0 { kept.remove(visitor, now) } else { None }
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

    /// Learns from a read what a speculative write would have been worth. What could not be read is no longer guessed either.
    pub fn learn(&self, visitor: &Visitor, read: &Result<Option<Stored>, SessionError>, now: Millis) {
        let mut kept = self.kept();
        if let (Some(cached), Ok(read)) = (kept.remove(visitor, now), read) {
            kept.judge(read.as_ref().is_some_and(|read| read.etag == cached.etag));
        }
    }

    /// Learns what a speculative write was worth.
    pub fn judge(&self, is_right: bool) {
        self.kept().judge(is_right);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Whatever a panic left behind is only a speculative write.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// One that is due is no speculative write: the close function may have been there.
    fn remove(&mut self, visitor: &Visitor, now: Millis) -> Option<Stored> {
        let stored = self.young.take(visitor).or_else(|| self.old.take(visitor))?.0;
        stored.timeline.due_at.is_none_or(|due_at| now < due_at).then_some(*stored)
    }

    fn judge(&mut self, is_right: bool) {
        let change = if is_right { RIGHT } else { WRONG };
        self.score = (self.score + change).clamp(*SCORE.start(), *SCORE.end());
    }
}

/// Roughly its memory, in units of half a kilobyte: that of an event.
fn weight(timeline: &Timeline) -> usize {
    let states = timeline.ended.iter().chain(&timeline.open);
    let fingerprints: usize =
        states.map(|state| 4 + (state.fingerprints.len() + state.late.fingerprints.len()) / 64).sum();
    1 + timeline.unfinalized.len() + fingerprints
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SessionState;

    fn stored(name: &str, etag: u64) -> Stored {
        Stored { timeline: Timeline::new(Visitor::new(name)), etag }
    }

    #[test]
    fn speculative_writes_have_to_be_earned() {
        let (cache, visitor) = (TimelineCache::default(), Visitor::new("a"));
        cache.put(stored("a", 1));
        assert_eq!(cache.take(&visitor, 0), None);
        cache.learn(&visitor, &Ok(Some(stored("a", 1))), 0);
        cache.put(stored("a", 2));
        assert_eq!(cache.take(&visitor, 0), Some(stored("a", 2)));
        assert_eq!(cache.take(&visitor, 0), None, "what is taken is gone");
        // Somebody else wrote: ten right ones are needed to make up for it.
        cache.judge(false);
        for round in 0..10 {
            cache.put(stored("a", round));
            assert_eq!(cache.take(&visitor, 0), None);
            cache.learn(&visitor, &Ok(Some(stored("a", round))), 0);
        }
        cache.put(stored("a", 3));
        assert_eq!(cache.take(&visitor, 0), Some(stored("a", 3)));
    }

    #[test]
    fn of_a_visitors_timelines_the_last_is_kept() {
        let cache = TimelineCache::default();
        cache.judge(true);
        cache.put(stored("a", 1));
        cache.put(stored("a", 2));
        assert_eq!(cache.take(&Visitor::new("a"), 0), Some(stored("a", 2)));
        assert_eq!(cache.take(&Visitor::new("a"), 0), None);
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_oldest_go() {
        let cache = TimelineCache::default();
        cache.judge(true);
        for visitor in 0..10 * MOST {
            cache.put(stored(&visitor.to_string(), 1));
            let kept = cache.kept();
            // Half of what fits goes at once, when there is no room for one more.
            let expected = if visitor < MOST { visitor } else { MOST / 2 + visitor % (MOST / 2) };
            assert_eq!(kept.young.len() + kept.old.len(), expected + 1);
        }
        assert!(cache.take(&Visitor::new(&(10 * MOST - 1).to_string()), 0).is_some());
        assert!(cache.take(&Visitor::new("0"), 0).is_none());
    }

    #[test]
    fn one_that_is_due_is_not_used() {
        let (cache, visitor) = (TimelineCache::default(), Visitor::new("a"));
        cache.judge(true);
        let due = || Stored { timeline: Timeline { due_at: Some(5), ..stored("a", 1).timeline }, etag: 1 };
        cache.put(due());
        assert_eq!(cache.take(&visitor, 5), None);
        cache.put(due());
        // Nor is it judged: the score for one is still there.
        cache.learn(&visitor, &Ok(None), 5);
        cache.put(due());
        assert_eq!(cache.take(&visitor, 4), Some(due()));
    }

    #[test]
    fn one_that_is_too_large_is_not_kept() {
        let mut large = stored("a", 1);
        large.timeline.open = Some(state(64 * MOST));
        let cache = TimelineCache::default();
        cache.judge(true);
        cache.put(large);
        assert_eq!(cache.take(&Visitor::new("a"), 0), None);
    }

    fn state(fingerprints: usize) -> SessionState {
        SessionState { fingerprints: vec![0; fingerprints], ..SessionState::empty(uuid::Uuid::nil()) }
    }

    #[test]
    fn what_is_kept_is_weighed_by_its_sessions_and_what_they_have_seen() {
        let mut timeline = stored("a", 1).timeline;
        assert_eq!(weight(&timeline), 1);
        timeline.ended = vec![state(640), state(63)];
        assert_eq!(weight(&timeline), 1 + 14 + 4);
        let mut open = state(64);
        open.late.fingerprints = vec![0; 128];
        timeline.open = Some(open);
        assert_eq!(weight(&timeline), 1 + 14 + 4 + 7);
    }
}
