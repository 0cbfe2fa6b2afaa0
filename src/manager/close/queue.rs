//! What a run has before it: the shards that are to be listed, the timelines that were listed and are to be closed. Pure.

use std::collections::VecDeque;

use crate::session::Millis;
use crate::storage::Due;

/// Timelines that are listed at once.
pub(super) const PAGE: usize = 100;
/// A shard with fewer timelines waiting is listed further.
const LOW: usize = PAGE / 2;
/// Timelines that are read at once, at the most: at their largest they have 2.8 MB, which arrive in time.
const MAX_GROUP: usize = 8;
/// Timelines of the first group. A run that is killed, or whose reads fail, for the size of what it reads, comes further in
/// the next minute: it begins with the same timelines, in small groups.
const FIRST_GROUP: usize = 2;
/// Groups of timelines that are closed at once.
const GROUPS_AT_ONCE: usize = 24;
/// Large timelines that are closed at once. Each may take tens of megabytes of memory.
const LARGE_AT_ONCE: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listing {
    /// There may be more.
    Open,
    UnderWay,
    /// There is no more, or it cannot be listed.
    Ended,
}

#[derive(Debug)]
struct Shard {
    number: u8,
    listing: Listing,
    /// The last timeline that was listed.
    last: Option<Due>,
    /// Those that nobody has taken yet.
    due: VecDeque<Due>,
}

/// The work of a run.
#[derive(Debug)]
pub(super) struct Queue {
    shards: Vec<Shard>,
    /// The shard whose turn it is.
    turn: usize,
    /// How many timelines the next group has.
    group_size: usize,
    groups: usize,
    /// Timelines that are closed by themselves, each a step at a time, in turn.
    large: VecDeque<Due>,
    large_under_way: usize,
    /// When the oldest was due of those that were tried and are left behind.
    oldest_left: Option<Millis>,
}

impl Queue {
    pub fn new(shards: impl Iterator<Item = u8>) -> Self {
        let shard = |number| Shard { number, listing: Listing::Open, last: None, due: VecDeque::new() };
        let shards = shards.map(shard).collect();
        let (group_size, large) = (FIRST_GROUP, VecDeque::new());
        Self { shards, turn: 0, group_size, groups: 0, large, large_under_way: 0, oldest_left: None }
    }

    /// A shard to list further: its place here, its number, and what to list behind.
    pub fn shard_to_list(&mut self) -> Option<(usize, u8, Option<Due>)> {
        let is_wanted = |shard: &Shard| shard.listing == Listing::Open && shard.due.len() < LOW;
        let at = self.shards.iter().position(is_wanted)?;
        self.shards[at].listing = Listing::UnderWay;
        Some((at, self.shards[at].number, self.shards[at].last.clone()))
    }

    /// A shard was listed further; `None`: it could not be.
    pub fn listed(&mut self, at: usize, due: Option<Vec<Due>>) {
        let shard = &mut self.shards[at];
        let due = due.unwrap_or_default();
        shard.listing = if due.len() < PAGE { Listing::Ended } else { Listing::Open };
        shard.last = due.last().cloned().or(shard.last.take());
        shard.due.extend(due);
    }

    /// The next group to close, if another may be under way: of each shard in turn the longest due.
    pub fn group(&mut self) -> Option<Vec<Due>> {
        let mut group = Vec::new();
        let mut passed_over = 0;
        while self.groups < GROUPS_AT_ONCE && group.len() < self.group_size && passed_over < self.shards.len() {
            let shard = self.turn % self.shards.len();
            self.turn = shard + 1;
            match self.shards[shard].due.pop_front() {
                Some(due) => {
                    group.push(due);
                    passed_over = 0;
                }
                None => passed_over += 1,
            }
        }
        self.groups += usize::from(!group.is_empty());
        (!group.is_empty()).then_some(group)
    }

    /// A group is closed. After one that held a large timeline, or could not be read, groups are smaller.
    pub fn group_is_done(&mut self, is_heavy: bool) {
        self.groups -= 1;
        let size = if is_heavy { self.group_size / 2 } else { self.group_size * 2 };
        self.group_size = size.clamp(1, MAX_GROUP);
    }

    /// A timeline is to be closed by itself, after those that wait for that already.
    pub fn push_large(&mut self, due: Due) {
        self.large.push_back(due);
    }

    /// The next timeline to close by itself, if another may be under way.
    pub fn large(&mut self) -> Option<Due> {
        let due = if self.large_under_way < LARGE_AT_ONCE { self.large.pop_front() } else { None };
        self.large_under_way += usize::from(due.is_some());
        due
    }

    pub fn large_is_done(&mut self) {
        self.large_under_way -= 1;
    }

    /// A timeline was tried, and is left behind.
    pub fn leave(&mut self, due: &Due) {
        self.oldest_left = self.oldest_left.into_iter().chain([due.due_at]).min();
    }

    /// Whether something was not listed, or not tried.
    pub fn is_unfinished(&self) -> bool {
        let is_unfinished = |shard: &Shard| shard.listing != Listing::Ended || !shard.due.is_empty();
        !self.large.is_empty() || self.shards.iter().any(is_unfinished)
    }

    /// When the oldest was due of what is left, as far as it was listed.
    pub fn oldest(&self) -> Option<Millis> {
        let left = |shard: &Shard| {
            let behind = shard.last.as_ref().filter(|_| shard.listing != Listing::Ended);
            shard.due.front().or(behind).map(|due| due.due_at)
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
    fn shards_take_turns_and_a_full_one_is_listed_no_further() {
        let mut queue = Queue::new([3, 7].into_iter());
        assert_eq!(queue.shard_to_list(), Some((0, 3, None)));
        assert_eq!(queue.shard_to_list(), Some((1, 7, None)));
        assert_eq!(queue.shard_to_list(), None, "both are under way");
        queue.listed(0, Some((0..PAGE).map(|n| due(&format!("a{n}"), n as Millis)).collect()));
        queue.listed(1, Some(vec![due("b0", 5), due("b1", 6)]));
        assert_eq!((queue.shard_to_list(), queue.oldest(), queue.is_unfinished()), (None, Some(0), true));
        assert_eq!(names(queue.group()), ["a0", "b0"]);
        queue.group_is_done(false);
        assert_eq!(names(queue.group()), ["a1", "b1", "a2", "a3"]);
        // A large timeline among them: the next group is smaller.
        queue.group_is_done(true);
        assert_eq!(names(queue.group()), ["a4", "a5"]);
        for _ in 0..5 {
            queue.group_is_done(true);
            assert_eq!(names(queue.group()).len(), 1);
        }
        while queue.shards[0].due.len() >= LOW {
            assert!(queue.group().is_some());
            queue.group_is_done(false);
        }
        assert_eq!(queue.shard_to_list(), Some((0, 3, Some(due("a99", 99)))));
    }

    #[test]
    fn so_many_are_under_way_and_what_is_left_is_known() {
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
    fn a_shard_that_cannot_be_listed_is_let_be() {
        let mut queue = Queue::new([0].into_iter());
        queue.shard_to_list();
        queue.listed(0, None);
        assert_eq!((queue.shard_to_list(), queue.group(), queue.is_unfinished()), (None, None, false));
    }
}
