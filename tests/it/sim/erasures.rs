//! Requests that erase visitors. Their callers repeat a request until it is answered, because only then the visitor is erased. Some
//! repeat it two minutes later, as `docs/api.md` says.

use session_tracking::session::{Millis, Visitor};

use super::source::SimEvent;
use crate::support::Seeded;

/// One world of this many has erasures.
const ERASED_EVERY: usize = 4;
/// How long after an erasure it is repeated: no invocation that was under way then is under way any more.
pub const REPEAT_AFTER_MS: Millis = 120_000;
/// How long a request waits for its moment.
const PATIENCE_MS: Millis = 1_800_000;

/// What has to be under way when a request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    Any,
    /// A run of the close function.
    Close,
    /// An invocation with events of the visitor, or with a request that ends one of its sessions.
    Visitor,
}

/// A request that erases a visitor.
#[derive(Debug)]
pub struct Erasure {
    pub visitor: Visitor,
    /// The earliest time at which it is sent next.
    pub at: Millis,
    pub moment: Moment,
    /// How often its caller sends it again after it was answered with success, unless nothing was left to delete.
    repetitions: usize,
    pub in_flight: bool,
    pub done: bool,
    pub tries: u32,
}

/// The erasures of a world.
#[derive(Debug, Default)]
pub struct Erasures(pub Vec<Erasure>);

impl Erasures {
    /// Draws no erasure in most worlds, and one or two in the others: about when an event of the visitor arrives, some time
    /// after it, or while its sessions are closed.
    pub fn plan(events: &[SimEvent], timeout: Millis, lateness: Millis, random: &mut Seeded) -> Self {
        if random.below(ERASED_EVERY) > 0 {
            return Self::default();
        }
        let erasure = |random: &mut Seeded| {
            let event = &events[random.below(events.len())];
            let moment = [Moment::Any, Moment::Any, Moment::Close, Moment::Visitor][random.below(4)];
            let closed_after = timeout + lateness + 60_000;
            let after = match moment {
                Moment::Close => closed_after,
                Moment::Visitor => random.below(2) as Millis * timeout,
                Moment::Any => [-2_000, 0, 1, timeout, closed_after + 600_000, 2 * closed_after][random.below(6)],
            };
            let (visitor, at, repetitions) = (event.visitor.clone(), event.arrives_at + after, random.below(3));
            Erasure { visitor, at, moment, repetitions, in_flight: false, done: false, tries: 0 }
        };
        Self((0..=random.below(2)).map(|_| erasure(random)).collect())
    }

    /// Returns the index of a request that may be sent now, and marks it as in flight. `is_under_way` says whether its moment is here.
    pub fn take(&mut self, now: Millis, is_under_way: impl Fn(&Erasure) -> bool) -> Option<usize> {
        let index = self.0.iter().position(|erasure| {
            let is_waiting = !erasure.done && !erasure.in_flight && erasure.at <= now;
            is_waiting && (now >= erasure.at + PATIENCE_MS || is_under_way(erasure))
        })?;
        self.0[index].in_flight = true;
        self.0[index].tries += 1;
        Some(index)
    }

    /// Records that a request failed, or that nobody will answer it any more. Its caller repeats it.
    pub fn failed(&mut self, index: usize, retry_at: Millis) {
        let erasure = &mut self.0[index];
        (erasure.in_flight, erasure.at, erasure.moment) = (false, retry_at, Moment::Any);
    }

    /// Records that a request succeeded, and whether it found anything to delete.
    pub fn succeeded(&mut self, index: usize, found_nothing: bool, now: Millis) {
        let erasure = &mut self.0[index];
        (erasure.in_flight, erasure.tries) = (false, 0);
        erasure.done = found_nothing || erasure.repetitions == 0;
        erasure.repetitions = erasure.repetitions.saturating_sub(1);
        (erasure.at, erasure.moment) = (now + REPEAT_AFTER_MS, Moment::Any);
    }

    /// Returns whether a request waits to be sent, or for its moment.
    pub fn is_due(&self, now: Millis) -> bool {
        self.0.iter().any(|erasure| !erasure.done && !erasure.in_flight && erasure.at <= now)
    }

    pub fn is_done(&self) -> bool {
        self.0.iter().all(|erasure| erasure.done)
    }

    /// Returns when the next request is sent at the latest.
    pub fn next(&self, now: Millis) -> Option<Millis> {
        let waiting = self.0.iter().filter(|erasure| !erasure.done && !erasure.in_flight);
        let next = |erasure: &Erasure| match erasure.moment {
            Moment::Close | Moment::Visitor if erasure.at <= now => (erasure.at + PATIENCE_MS).max(now + 1),
            _ => erasure.at.max(now + 1),
        };
        waiting.map(next).min()
    }
}
