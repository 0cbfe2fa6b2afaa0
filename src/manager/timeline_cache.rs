//! A cache of the timelines that this process wrote last. With it, the common case needs no read.
//!
//! A cached timeline is never trusted. A write that is based on it is speculative: its condition is that the cached timeline is
//! the stored one. If there is nothing to write, the stored timeline is read.
//!
//! A current timeline saves half a read unit, which costs a tenth of a write unit. A stale one, which another process has
//! changed, costs a conflict, which is a whole write unit. So the cache is used only while at least ten of eleven timelines are
//! current. That is known even while the cache is not used, because each read shows whether the cached timeline was current.
//!
//! A timeline whose write met a conflict is not cached, because other writers are at it. Otherwise a few hot visitors, whose cached
//! timelines are often stale, would stop the use of the cache for all.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;

use crate::session::{Millis, Visitor};
use crate::storage::{SessionError, Stored};
use crate::timeline::Timeline;

/// The maximum weight of all cached timelines, some 4 MB; see [`weight`].
const MAX_WEIGHT: usize = 8_192;
/// The change of the score by a current timeline. Half a read unit and a write unit have prices of 1 to 10.
const SCORE_IF_CURRENT: i32 = 1;
/// The change of the score by a stale timeline.
const SCORE_IF_STALE: i32 = -10;
/// The limits of the score. The cache is used while the score is positive. So at most two stale timelines in a row stop its use,
/// and at most 101 current ones in a row start it again.
const SCORE_RANGE: std::ops::RangeInclusive<i32> = -100..=20;

/// The timelines that this process wrote last, and the score that decides whether they are used.
#[derive(Debug, Default)]
pub(super) struct TimelineCache(Mutex<CacheState>);

#[derive(Debug, Default)]
struct CacheState {
    /// The young generation. When it reaches half of [`MAX_WEIGHT`], it becomes the old generation.
    young: HashSet<CachedTimeline, RandomState>,
    /// The old generation. The next one replaces it.
    old: HashSet<CachedTimeline, RandomState>,
    /// The weight of the young generation.
    weight: usize,
    score: i32,
}

/// A timeline, hashed and compared by its visitor. It is boxed, because a growing set moves its elements.
#[derive(Debug)]
struct CachedTimeline(Box<Stored>);

impl Borrow<Visitor> for CachedTimeline {
    fn borrow(&self) -> &Visitor {
        &self.0.timeline.visitor
    }
}

impl Hash for CachedTimeline {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.timeline.visitor.hash(state);
    }
}

impl PartialEq for CachedTimeline {
    fn eq(&self, other: &Self) -> bool {
        self.0.timeline.visitor == other.0.timeline.visitor
    }
}

impl Eq for CachedTimeline {}

impl TimelineCache {
    /// Takes out the visitor's timeline, if it is cached and likely to be the stored one.
    pub fn take(&self, visitor: &Visitor, now: Millis) -> Option<Stored> {
        let mut state = self.lock();
        if state.score > 0 { state.remove(visitor, now) } else { None }
    }

    /// Caches a timeline that was just written, in place of an older one of its visitor. One that is too large is not kept.
    pub fn put(&self, stored: Stored) {
        let weight = weight(&stored.timeline);
        let mut state = self.lock();
        state.forget(&stored.timeline.visitor);
        if weight > MAX_WEIGHT / 2 {
            return;
        }
        if state.weight + weight > MAX_WEIGHT / 2 {
            state.old = std::mem::take(&mut state.young);
            state.weight = 0;
        }
        state.weight += weight;
        state.young.insert(CachedTimeline(Box::new(stored)));
    }

    /// Records by a read whether the cached timeline was current, and takes it out, even if the read failed.
    pub fn learn(&self, visitor: &Visitor, read: &Result<Option<Stored>, SessionError>, now: Millis) {
        let mut state = self.lock();
        if let (Some(cached), Ok(read)) = (state.remove(visitor, now), read) {
            state.record(read.as_ref().is_some_and(|read| read.etag == cached.etag));
        }
    }

    /// Drops the visitor's timeline, because it is erased, or because others write it, too.
    pub fn forget(&self, visitor: &Visitor) {
        self.lock().forget(visitor);
    }

    /// Records whether the timeline of a speculative write was current.
    pub fn record(&self, is_current: bool) {
        self.lock().record(is_current);
    }

    fn lock(&self) -> MutexGuard<'_, CacheState> {
        // A panic can have left the state incomplete. That is harmless, because no cached timeline is trusted.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CacheState {
    /// Takes out the visitor's timeline. Returns `None` if it is due, because the close function may have changed it.
    fn remove(&mut self, visitor: &Visitor, now: Millis) -> Option<Stored> {
        let stored = self.take_young(visitor).or_else(|| self.old.take(visitor))?.0;
        stored.timeline.due_at.is_none_or(|due_at| now < due_at).then_some(*stored)
    }

    fn forget(&mut self, visitor: &Visitor) {
        self.take_young(visitor);
        self.old.remove(visitor);
    }

    /// Takes the visitor's timeline out of the young generation.
    fn take_young(&mut self, visitor: &Visitor) -> Option<CachedTimeline> {
        let taken = self.young.take(visitor)?;
        self.weight -= weight(&taken.0.timeline);
        Some(taken)
    }

    fn record(&mut self, is_current: bool) {
        let change = if is_current { SCORE_IF_CURRENT } else { SCORE_IF_STALE };
        self.score = (self.score + change).clamp(*SCORE_RANGE.start(), *SCORE_RANGE.end());
    }
}

/// Returns roughly the memory that a timeline takes, in units of half a kilobyte, the size of an event.
fn weight(timeline: &Timeline) -> usize {
    let fingerprints: usize =
        timeline.finalized().map(|state| 4 + (state.fingerprints.len() + state.late.fingerprints.len()) / 64).sum();
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
    fn cached_timelines_are_used_only_while_most_are_current() {
        let (cache, visitor) = (TimelineCache::default(), Visitor::new("a"));
        cache.put(stored("a", 1));
        assert_eq!(cache.take(&visitor, 0), None);
        cache.learn(&visitor, &Ok(Some(stored("a", 1))), 0);
        cache.put(stored("a", 2));
        assert_eq!(cache.take(&visitor, 0), Some(stored("a", 2)));
        assert_eq!(cache.take(&visitor, 0), None, "a timeline is taken out only once");
        // The timeline was stale: ten current ones are needed to make up for it.
        cache.record(false);
        for round in 0..10 {
            cache.put(stored("a", round));
            assert_eq!(cache.take(&visitor, 0), None);
            cache.learn(&visitor, &Ok(Some(stored("a", round))), 0);
        }
        cache.put(stored("a", 3));
        assert_eq!(cache.take(&visitor, 0), Some(stored("a", 3)));
    }

    #[test]
    fn a_visitors_last_timeline_is_kept() {
        let cache = TimelineCache::default();
        cache.record(true);
        cache.put(stored("a", 1));
        cache.put(stored("a", 2));
        assert_eq!(cache.take(&Visitor::new("a"), 0), Some(stored("a", 2)));
        assert_eq!(cache.take(&Visitor::new("a"), 0), None);
    }

    #[test]
    fn the_cache_is_bounded_and_drops_the_oldest() {
        let cache = TimelineCache::default();
        cache.record(true);
        for visitor in 0..10 * MAX_WEIGHT {
            cache.put(stored(&visitor.to_string(), 1));
            let state = cache.lock();
            // When there is no room for one more, half of them are dropped at once.
            let expected = if visitor < MAX_WEIGHT { visitor } else { MAX_WEIGHT / 2 + visitor % (MAX_WEIGHT / 2) };
            assert_eq!(state.young.len() + state.old.len(), expected + 1);
        }
        assert!(cache.take(&Visitor::new(&(10 * MAX_WEIGHT - 1).to_string()), 0).is_some());
        assert!(cache.take(&Visitor::new("0"), 0).is_none());
    }

    #[test]
    fn a_timeline_that_is_written_again_and_again_displaces_no_others() {
        let cache = TimelineCache::default();
        cache.record(true);
        cache.put(stored("other", 1));
        for etag in 0..2 * MAX_WEIGHT as u64 {
            cache.put(stored("hot", etag));
            // Half of the writers take it out before.
            assert!(etag % 2 == 0 || cache.take(&Visitor::new("hot"), 0).is_some());
        }
        assert_eq!(cache.take(&Visitor::new("other"), 0), Some(stored("other", 1)));
        assert_eq!(cache.lock().weight, 0);
    }

    #[test]
    fn a_due_timeline_is_not_used() {
        let (cache, visitor) = (TimelineCache::default(), Visitor::new("a"));
        cache.record(true);
        let due = || Stored { timeline: Timeline { due_at: Some(5), ..stored("a", 1).timeline }, etag: 1 };
        cache.put(due());
        assert_eq!(cache.take(&visitor, 5), None);
        cache.put(due());
        // Nor does it change the score, which is still positive.
        cache.learn(&visitor, &Ok(None), 5);
        cache.put(due());
        assert_eq!(cache.take(&visitor, 4), Some(due()));
    }

    #[test]
    fn a_timeline_that_is_too_large_is_not_kept() {
        let mut large = stored("a", 2);
        large.timeline.open = Some(state(64 * MAX_WEIGHT));
        let cache = TimelineCache::default();
        cache.record(true);
        cache.put(stored("a", 1));
        cache.put(stored("b", 1));
        cache.put(large);
        // It replaces an older one of its visitor, and displaces no others.
        cache.put(stored("c", 1));
        let found = ["a", "b", "c"].map(|name| cache.take(&Visitor::new(name), 0));
        assert_eq!(found, [None, Some(stored("b", 1)), Some(stored("c", 1))]);
    }

    fn state(fingerprints: usize) -> SessionState {
        SessionState { fingerprints: vec![0; fingerprints], ..SessionState::empty(uuid::Uuid::nil()) }
    }

    #[test]
    fn the_weight_counts_sessions_and_fingerprints() {
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
