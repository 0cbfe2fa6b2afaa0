//! A clock that moves only when the program moves it, so that every run has the same output.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use session_tracking::clock::{Clock, SystemClock};
use session_tracking::session::Millis;

/// Virtual time, and random numbers that are the same in every run.
#[derive(Debug, Default)]
pub struct VirtualClock {
    now: AtomicI64,
    drawn: AtomicU64,
}

impl VirtualClock {
    /// Moves to a time, unless the clock is already past it.
    pub fn move_to(&self, now: Millis) {
        self.now.fetch_max(now, Ordering::Relaxed);
    }
}

impl Clock for &VirtualClock {
    fn now(&self) -> Millis {
        self.now.load(Ordering::Relaxed)
    }

    /// Waits in real time, because the database works in real time.
    async fn sleep(&self, time: Duration) {
        SystemClock.sleep(time).await;
    }

    fn random(&self) -> u64 {
        // Weyl's sequence: no number repeats, which is all that an etag needs.
        self.drawn.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
    }
}
