//! The work queue of a run: the shards that have to be listed, and the listed timelines that have to be closed. Pure.

use std::collections::VecDeque;

use crate::session::Millis;
use crate::storage::Due;

/// The number of timelines that are listed with one call.
pub(super) const PAGE_SIZE: usize = 100;
/// A shard with fewer waiting timelines is listed further.
const LOW_WATER: usize = PAGE_SIZE / 2;
/// The maximum number of timelines that are read with one call. At their largest they have 2.8 MB, which arrive in time.
const MAX_GROUP: usize = 8;
/// The number of timelines in the first group. It is small for the case that a run is killed, or its reads fail, because of the
/// size of what it reads. The run in the next minute begins with the same timelines, and with small groups it gets further.
const FIRST_GROUP: usize = 2;
/// The maximum number of groups of timelines that are closed concurrently.
const GROUPS_AT_ONCE: usize = 24;
/// The maximum number of large timelines that are closed concurrently. Each can take tens of megabytes of memory.
const LARGE_AT_ONCE: usize = 2;

/// How far a shard is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listing {
    /// There may be more timelines.
    Open,
    /// A call is running.
    UnderWay,
    /// There are no more timelines, or the shard cannot be listed.
    Ended,
}

#[derive(Debug)]
struct Shard {
    number: u8,
    listing: Listing,
    /// The last timeline that was listed.
    last: Option<Due>,
    /// The listed timelines that are in no group yet, the longest due first.
    due: VecDeque<Due>,
}

/// The work of a run.
#[derive(Debug)]
pub(super) struct Queue {
    shards: Vec<Shard>,
    /// The index of the next shard to take a timeline from.
    turn: usize,
    /// The number of timelines in the next group.
    group_size: usize,
    /// The number of groups that are being closed.
    groups: usize,
    /// Timelines that wait to be closed by themselves, one step in each turn.
    large: VecDeque<Due>,
    large_under_way: usize,
    /// The earliest due time of the timelines that were tried and left for the next run.
    oldest_left: Option<Millis>,
}

impl Queue {
    /// Returns a queue of shards with these numbers, none of which is listed yet.
    pub fn new(shards: impl Iterator<Item = u8>) -> Self {
        let shard = |number| Shard { number, listing: Listing::Open, last: None, due: VecDeque::new() };
        let shards = shards.map(shard).collect();
        let (group_size, large) = (FIRST_GROUP, VecDeque::new());
        Self { shards, turn: 0, group_size, groups: 0, large, large_under_way: 0, oldest_left: None }
    }

    /// Returns a shard to list further: its index here, its number, and the timeline after which to continue.
    pub fn shard_to_list(&mut self) -> Option<(usize, u8, Option<Due>)> {
        let is_wanted = |shard: &Shard| shard.listing == Listing::Open && shard.due.len() < LOW_WATER;
        let at = self.shards.iter().position(is_wanted)?;
        self.shards[at].listing = Listing::UnderWay;
        Some((at, self.shards[at].number, self.shards[at].last.clone()))
    }

    /// Adds the timelines that were listed of the shard with this index; `None` if the call failed.
    pub fn listed(&mut self, at: usize, due: Option<Vec<Due>>) {
        let shard = &mut self.shards[at];
        let due = due.unwrap_or_default();
        shard.listing = if due.len() < PAGE_SIZE { Listing::Ended } else { Listing::Open };
        shard.last = due.last().cloned().or(shard.last.take());
        shard.due.extend(due);
    }

    /// Returns the next group to close, unless too many are under way. Shards take turns; each gives its longest due timeline.
    pub fn group(&mut self) -> Option<Vec<Due>> {
        let mut group = Vec::new();
        let mut empty_shards = 0;
        while self.groups < GROUPS_AT_ONCE && group.len() < self.group_size && empty_shards < self.shards.len() {
            let shard = self.turn % self.shards.len();
            self.turn = shard + 1;
            match self.shards[shard].due.pop_front() {
                Some(due) => {
                    group.push(due);
                    empty_shards = 0;
                }
                None => empty_shards += 1,
            }
        }
        self.groups += usize::from(!group.is_empty());
        (!group.is_empty()).then_some(group)
    }

    /// Records that a group is closed. `is_heavy`: it had a large timeline or could not be read. Then the next groups are
    /// smaller, else larger.
    pub fn group_is_done(&mut self, is_heavy: bool) {
        self.groups -= 1;
        let size = if is_heavy { self.group_size / 2 } else { self.group_size * 2 };
        self.group_size = size.clamp(1, MAX_GROUP);
    }

    /// Adds a timeline to those that wait to be closed by themselves.
    pub fn push_large(&mut self, due: Due) {
        self.large.push_back(due);
    }

    /// Returns the next timeline to close by itself, unless too many are under way.
    pub fn large(&mut self) -> Option<Due> {
        let due = if self.large_under_way < LARGE_AT_ONCE { self.large.pop_front() } else { None };
        self.large_under_way += usize::from(due.is_some());
        due
    }

    /// Records that a step of a large timeline is closed.
    pub fn large_is_done(&mut self) {
        self.large_under_way -= 1;
    }

    /// Records that a timeline was tried and is left for the next run.
    pub fn leave(&mut self, due: &Due) {
        self.oldest_left = self.oldest_left.into_iter().chain([due.due_at]).min();
    }

    /// Returns whether a shard was not listed to its end, or a timeline was not tried.
    pub fn is_unfinished(&self) -> bool {
        let is_unfinished = |shard: &Shard| shard.listing != Listing::Ended || !shard.due.is_empty();
        !self.large.is_empty() || self.shards.iter().any(is_unfinished)
    }

    /// Returns the earliest due time of the timelines that are left. In a shard that was not listed to its end, that can be the
    /// last listed timeline, because the others are due after it.
    pub fn oldest(&self) -> Option<Millis> {
        let left = |shard: &Shard| {
            let last_listed = shard.last.as_ref().filter(|_| shard.listing != Listing::Ended);
            shard.due.front().or(last_listed).map(|due| due.due_at)
        };
        let large = self.large.iter().map(|due| due.due_at);
        self.shards.iter().filter_map(left).chain(large).chain(self.oldest_left).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Visitor;

    fn due(name: &str, due_at: Millis) -> Due {
        Due { visitor: Visitor::new(name), due_at }
    }

    fn names(group: Option<Vec<Due>>) -> Vec<String> {
        group.into_iter().flatten().map(|due| due.visitor.distinct_id).collect()
    }

    #[test]
    fn shards_take_turns_and_a_full_shard_is_not_listed_further() {
        let mut queue = Queue::new([3, 7].into_iter());
        assert_eq!(queue.shard_to_list(), Some((0, 3, None)));
        assert_eq!(queue.shard_to_list(), Some((1, 7, None)));
        assert_eq!(queue.shard_to_list(), None, "both are under way");
        queue.listed(0, Some((0..PAGE_SIZE).map(|n| due(&format!("a{n}"), n as Millis)).collect()));
        queue.listed(1, Some(vec![due("b0", 5), due("b1", 6)]));
        assert_eq!((queue.shard_to_list(), queue.oldest(), queue.is_unfinished()), (None, Some(0), true));
        assert_eq!(names(queue.group()), ["a0", "b0"]);
        queue.group_is_done(false);
        assert_eq!(names(queue.group()), ["a1", "b1", "a2", "a3"]);
        // That group had a large timeline, so the next one is smaller.
        queue.group_is_done(true);
        assert_eq!(names(queue.group()), ["a4", "a5"]);
        for _ in 0..5 {
            queue.group_is_done(true);
            assert_eq!(names(queue.group()).len(), 1);
        }
        while queue.shards[0].due.len() >= LOW_WATER {
            assert!(queue.group().is_some());
            queue.group_is_done(false);
        }
        assert_eq!(queue.shard_to_list(), Some((0, 3, Some(due("a99", 99)))));
    }

    #[test]
    fn concurrency_is_bounded_and_the_oldest_left_is_known() {
        let mut queue = Queue::new([0].into_iter());
        assert_eq!((queue.oldest(), queue.is_unfinished()), (None, true));
        queue.shard_to_list();
        queue.listed(0, Some((0..60).map(|n| due(&format!("a{n}"), n)).collect()));
        for _ in 0..GROUPS_AT_ONCE {
            assert_eq!(queue.group().map(|group| group.len()), Some(FIRST_GROUP));
        }
        assert_eq!(queue.group(), None);
        for n in 0..3 {
            queue.push_large(due("large", n));
        }
        assert_eq!(
            [queue.large(), queue.large(), queue.large()].map(|due| due.map(|due| due.due_at)),
            [Some(0), Some(1), None]
        );
        assert_eq!(queue.oldest(), Some(2));
        queue.large_is_done();
        assert_eq!(queue.large(), Some(due("large", 2)));
        assert_eq!((queue.oldest(), queue.is_unfinished()), (Some(48), true));
        for _ in 0..GROUPS_AT_ONCE {
            queue.group_is_done(false);
        }
        assert_eq!([queue.group(), queue.group(), queue.group()].map(|group| names(group).len()), [8, 4, 0]);
        assert_eq!((queue.oldest(), queue.is_unfinished()), (None, false));
    }

    #[test]
    fn a_shard_that_cannot_be_listed_is_skipped() {
        let mut queue = Queue::new([0].into_iter());
        queue.shard_to_list();
        queue.listed(0, None);
        assert_eq!((queue.shard_to_list(), queue.group(), queue.is_unfinished()), (None, None, false));
    }
}
