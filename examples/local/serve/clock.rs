//! The clock of `serve`: the machine's, unless the page's time travel makes it run faster (`--fast-forward`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use session_tracking::clock::{Clock, SystemClock};
use session_tracking::session::Millis;

/// The fastest that time runs: ten hours a minute. The closer still runs many times an hour at this speed.
pub const MAX_SPEED: u32 = 600;
/// How long a wait lasts at most before it looks at the speed again, which may have changed.
const LOOK: Duration = Duration::from_millis(200);

/// A clock whose speed can be changed. It never goes back.
#[derive(Debug, Clone)]
pub struct ServeClock(Arc<Mutex<Pace>>);

/// Since when time runs how fast.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// The machine's time when this speed was set.
    real: Millis,
    /// This clock's time when this speed was set.
    own: Millis,
    speed: u32,
}

impl Pace {
    fn now(&self) -> Millis {
        self.own + (SystemClock.now() - self.real).max(0) * Millis::from(self.speed)
    }
}

impl ServeClock {
    /// Returns a clock that shows the machine's time.
    pub fn new() -> Self {
        let now = SystemClock.now();
        Self(Arc::new(Mutex::new(Pace { real: now, own: now, speed: 1 })))
    }

    /// Returns how much faster than the machine's clock it runs.
    pub fn speed(&self) -> u32 {
        self.pace().speed
    }

    /// Sets how much faster than the machine's clock it runs, up to [`MAX_SPEED`].
    pub fn set_speed(&self, speed: u32) {
        let mut pace = self.pace();
        let own = pace.now();
        *pace = Pace { real: SystemClock.now(), own, speed: speed.clamp(1, MAX_SPEED) };
    }

    /// Waits until this clock shows a time.
    pub async fn wait_until(&self, time: Millis) {
        while let Some(left) = Some(time - self.now()).filter(|&left| left > 0) {
            let left = left.unsigned_abs() / u64::from(self.speed()) + 1;
            SystemClock.sleep(Duration::from_millis(left).min(LOOK)).await;
        }
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        // A poisoned lock is safe to use: each holder makes one complete change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for ServeClock {
    fn now(&self) -> Millis {
        self.pace().now()
    }

    /// Waits in real time, because the database works in real time.
    async fn sleep(&self, time: Duration) {
        SystemClock.sleep(time).await;
    }

    fn random(&self) -> u64 {
        SystemClock.random()
    }
}
