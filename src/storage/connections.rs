//! Limits the number of concurrent calls while connections have yet to be opened.
//!
//! A call that finds no idle connection opens one, and a TLS handshake takes as much CPU as four writes. A function's first
//! batch, and the first one after a pause, finds none. One concurrent write for each visitor would open a connection for each.
//! So there are [`INITIAL_SLOTS`] slots for calls at first, and every [`ANSWERS_PER_SLOT`] answers add one. Opening connections
//! then costs at most half as much as the calls themselves.
//!
//! A call waits for a slot at most as long as a handshake takes in a small function ([`MAX_WAIT`]), and then goes ahead without
//! one. So a slow table delays no call for longer.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

/// The number of slots at first. A first batch of 33 visitors takes eight rounds. The first connection's tickets
/// let two more resume its TLS session, which takes half the CPU of another full handshake.
const INITIAL_SLOTS: usize = 3;
/// The number of answers that add a slot.
const ANSWERS_PER_SLOT: usize = 8;
/// The maximum number of slots: as many as the close function makes concurrent calls, which are more than the manager makes for a
/// batch.
const MAX_SLOTS: usize = crate::manager::CLOSE_CALLS_AT_ONCE;
/// The maximum time that a call waits for a slot.
const MAX_WAIT: Duration = Duration::from_millis(150);
/// How long a connection may be idle. Servers drop it after some 60 s, and a function that was frozen would otherwise write into
/// a dead connection. After as long without a call, the number of slots is [`INITIAL_SLOTS`] again.
pub(crate) const IDLE: Duration = Duration::from_secs(20);

/// The slots for the calls of one client, which bound the number of its connections.
#[derive(Debug)]
pub(super) struct Connections {
    slots: Semaphore,
    usage: Mutex<Usage>,
}

#[derive(Debug)]
struct Usage {
    /// The number of slots, free or taken.
    slots: usize,
    /// The number of calls that wait for a slot or are under way.
    calls: usize,
    /// The number of answers since the last slot was added.
    answers: usize,
    /// The time at which the last call ended.
    last_end: Instant,
}

/// A call's slot. Dropping it ends the call.
pub(super) struct Slot<'a> {
    connections: &'a Connections,
    /// `None` while the call waits, and if it went ahead without a slot.
    permit: Option<SemaphorePermit<'a>>,
}

#[allow(
    clippy::disallowed_methods,
    reason = "the HTTP client's connection pool uses this clock, too, and nothing else depends on it"
)]
fn now() -> Instant {
    Instant::now()
}

impl Default for Connections {
    fn default() -> Self {
        let usage = Usage { slots: INITIAL_SLOTS, calls: 0, answers: 0, last_end: now() };
        Self { slots: Semaphore::new(INITIAL_SLOTS), usage: Mutex::new(usage) }
    }
}

impl Connections {
    /// Waits for a slot, at most [`MAX_WAIT`].
    pub(super) async fn slot(&self) -> Slot<'_> {
        self.begin_call();
        // The value exists before the wait, so that a call that is cancelled while it waits is counted as ended, too.
        let mut slot = Slot { connections: self, permit: None };
        slot.permit = match self.slots.try_acquire() {
            Ok(permit) => Some(permit),
            Err(_) => timeout(MAX_WAIT, self.slots.acquire()).await.ok().and_then(Result::ok),
        };
        slot
    }

    /// Counts a call that begins. After a pause, the connections are closed, so most slots are removed.
    fn begin_call(&self) {
        let mut usage = self.usage();
        if usage.calls == 0 && now().duration_since(usage.last_end) >= IDLE {
            self.slots.forget_permits(usage.slots - INITIAL_SLOTS);
            (usage.slots, usage.answers) = (INITIAL_SLOTS, 0);
        }
        usage.calls += 1;
    }

    /// Counts a call that ends.
    fn end_call(&self) {
        let mut usage = self.usage();
        (usage.calls, usage.answers, usage.last_end) = (usage.calls.saturating_sub(1), usage.answers + 1, now());
        if usage.answers >= ANSWERS_PER_SLOT && usage.slots < MAX_SLOTS {
            (usage.slots, usage.answers) = (usage.slots + 1, 0);
            self.slots.add_permits(1);
        }
    }

    fn usage(&self) -> MutexGuard<'_, Usage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        // The slot is freed before the call is counted as ended. So if no call is left, all slots are free and can be removed.
        drop(self.permit.take());
        self.connections.end_call();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use tokio::time::{advance, sleep};

    use super::*;

    /// Makes `count` concurrent calls of 5 ms. Returns the maximum number that was under way, and the time that all of them took.
    #[allow(clippy::disallowed_methods, reason = "the test's clock is paused, so the sleep takes no real time")]
    async fn calls(connections: &Connections, count: usize) -> (usize, Duration) {
        let (under_way, max, began) = (std::cell::Cell::new(0), std::cell::Cell::new(0), now());
        join_all((0..count).map(|_| async {
            let _slot = connections.slot().await;
            under_way.set(under_way.get() + 1);
            max.set(max.get().max(under_way.get()));
            sleep(Duration::from_millis(5)).await;
            under_way.set(under_way.get() - 1);
        }))
        .await;
        (max.get(), now() - began)
    }

    #[tokio::test(start_paused = true)]
    async fn slots_are_few_at_first_grow_with_answers_and_are_removed_after_a_pause() {
        let connections = Connections::default();
        assert_eq!(calls(&connections, 33).await, (INITIAL_SLOTS + 3, Duration::from_millis(40)));
        for _ in 0..MAX_SLOTS / 4 {
            calls(&connections, 33).await;
        }
        assert_eq!(calls(&connections, 200).await, (MAX_SLOTS, Duration::from_millis(15)));
        // A pause that is a millisecond shorter removes none.
        advance(IDLE.checked_sub(Duration::from_millis(1)).unwrap()).await;
        assert_eq!(calls(&connections, 100).await.0, MAX_SLOTS);
        advance(IDLE).await;
        assert_eq!(calls(&connections, INITIAL_SLOTS + 1).await, (INITIAL_SLOTS, Duration::from_millis(10)));
        assert_eq!(connections.slots.available_permits(), connections.usage().slots);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_table_delays_no_call_for_long() {
        let connections = Connections::default();
        let slow: Vec<_> = join_all((0..INITIAL_SLOTS).map(|_| connections.slot())).await;
        let began = now();
        let all = join_all((0..100).map(|_| connections.slot())).await;
        assert_eq!(now() - began, MAX_WAIT);
        assert!(all.iter().all(|slot| slot.permit.is_none()));
        drop((slow, all));
        assert_eq!(connections.usage().calls, 0);
        assert_eq!(connections.slots.available_permits(), connections.usage().slots);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_call_leaves_its_slot() {
        let connections = Connections::default();
        let slow: Vec<_> = join_all((0..INITIAL_SLOTS).map(|_| connections.slot())).await;
        assert!(timeout(MAX_WAIT / 2, connections.slot()).await.is_err());
        drop(slow);
        assert_eq!(connections.usage().calls, 0);
        assert_eq!(connections.slots.available_permits(), connections.usage().slots);
    }
}
