//! How many calls are made at once: few while connections have yet to be opened.
//!
//! A call that finds no idle connection opens one, and a TLS handshake takes as much CPU as four writes. A function's
//! first batch, and the first one after a pause, finds none: one write for each visitor at once would open a connection
//! for each. So calls begin in [`FEW`] slots, and every [`CALLS_PER_SLOT`] answers bring one more: opening connections
//! costs half of what the calls themselves do, at most.
//!
//! A call waits for a slot only for so long as a handshake takes in a small function. A slow table thus never holds up a
//! call beyond that.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

/// Places at the start. A first batch of 33 visitors takes seven rounds.
const FEW: usize = 4;
/// Answers that bring one more slot.
const CALLS_PER_SLOT: usize = 8;
/// Places at most: as many calls as the close function makes at once, more than the manager makes for a batch.
const MOST: usize = crate::manager::CLOSE_CALLS_AT_ONCE;
/// How long a call waits for a slot.
const PATIENCE: Duration = Duration::from_millis(150);
/// How long a connection may stay unused: below the 60 s or so after which servers drop it. A thawed function would
/// otherwise write into a dead one. After that long without a call the slots are few again.
pub(crate) const IDLE: Duration = Duration::from_secs(20);

/// The slots for calls of one client, and so for its connections.
#[derive(Debug)]
pub(super) struct Connections {
    slots: Semaphore,
    used: Mutex<Used>,
}

#[derive(Debug)]
struct Used {
    /// How many slots there are, free or taken.
    slots: usize,
    /// Calls that have a slot now.
    calls: usize,
    /// Answers since the last new slot.
    answers: usize,
    /// When a slot was last left.
    at: Instant,
}

/// A slot for a call, until it is dropped.
pub(super) struct Slot<'a> {
    connections: &'a Connections,
    /// None where the call went ahead without one.
    permit: Option<SemaphorePermit<'a>>,
}

#[allow(
    clippy::disallowed_methods,
    reason = "the pool of connections goes by this clock, too, and nothing else depends on it"
)]
fn now() -> Instant {
    Instant::now()
}

impl Default for Connections {
    fn default() -> Self {
        let used = Used { slots: FEW, calls: 0, answers: 0, at: now() };
        Self { slots: Semaphore::new(FEW), used: Mutex::new(used) }
    }
}

impl Connections {
    /// Waits for a slot, but not for long.
    pub(super) async fn slot(&self) -> Slot<'_> {
        self.begin();
        // Made before it waits: a call that is given up while it waits is counted as gone, too.
        let mut slot = Slot { connections: self, permit: None };
        slot.permit = match self.slots.try_acquire() {
            Ok(permit) => Some(permit),
            Err(_) => timeout(PATIENCE, self.slots.acquire()).await.ok().and_then(Result::ok),
        };
        slot
    }

    /// Takes note of a call; after a pause most slots go, as the connections did.
    fn begin(&self) {
        let mut used = self.used();
        if used.calls == 0 && now().duration_since(used.at) >= IDLE {
            self.slots.forget_permits(used.slots - FEW);
            (used.slots, used.answers) = (FEW, 0);
        }
        used.calls += 1;
    }

    /// Takes note of an answer.
    fn end(&self) {
        let mut used = self.used();
        (used.calls, used.answers, used.at) = (used.calls.saturating_sub(1), used.answers + 1, now());
        if used.answers >= CALLS_PER_SLOT && used.slots < MOST {
            (used.slots, used.answers) = (used.slots + 1, 0);
            self.slots.add_permits(1);
        }
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        // The slot is free before the call is counted as gone, so that all are free where no call is left.
        drop(self.permit.take());
        self.connections.end();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use tokio::time::{advance, sleep};

    use super::*;

    /// Makes so many calls of 5 ms at once; returns how many were under way at most, and how long all of them took.
    #[allow(clippy::disallowed_methods, reason = "the clock stands still but for this")]
    async fn calls(connections: &Connections, count: usize) -> (usize, Duration) {
        let (under_way, most, began) = (std::cell::Cell::new(0), std::cell::Cell::new(0), now());
        join_all((0..count).map(|_| async {
            let _slot = connections.slot().await;
            under_way.set(under_way.get() + 1);
            most.set(most.get().max(under_way.get()));
            sleep(Duration::from_millis(5)).await;
            under_way.set(under_way.get() - 1);
        }))
        .await;
        (most.get(), now() - began)
    }

    #[tokio::test(start_paused = true)]
    async fn places_begin_few_grow_with_answers_and_go_after_a_pause() {
        let connections = Connections::default();
        assert_eq!(calls(&connections, 33).await, (FEW + 3, Duration::from_millis(35)));
        for _ in 0..MOST / 4 {
            calls(&connections, 33).await;
        }
        assert_eq!(calls(&connections, 200).await, (MOST, Duration::from_millis(15)));
        // Just before the pause is over they are all there.
        advance(IDLE - Duration::from_millis(1)).await;
        assert_eq!(calls(&connections, 100).await.0, MOST);
        advance(IDLE).await;
        assert_eq!(calls(&connections, FEW + 1).await, (FEW, Duration::from_millis(10)));
        assert_eq!(connections.slots.available_permits(), connections.used().slots);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_table_holds_nobody_up_for_long() {
        let connections = Connections::default();
        let slow: Vec<_> = join_all((0..FEW).map(|_| connections.slot())).await;
        let began = now();
        let all = join_all((0..100).map(|_| connections.slot())).await;
        assert_eq!(now() - began, PATIENCE);
        assert!(all.iter().all(|slot| slot.permit.is_none()));
        drop((slow, all));
        assert_eq!(connections.used().calls, 0);
        assert_eq!(connections.slots.available_permits(), connections.used().slots);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_given_up_leaves_nothing_behind() {
        let connections = Connections::default();
        let slow: Vec<_> = join_all((0..FEW).map(|_| connections.slot())).await;
        assert!(timeout(PATIENCE / 2, connections.slot()).await.is_err());
        drop(slow);
        assert_eq!(connections.used().calls, 0);
        assert_eq!(connections.slots.available_permits(), connections.used().slots);
    }
}
