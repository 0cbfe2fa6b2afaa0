//! Keeps the write units a second below a rate, on average.

use std::time::{Duration, Instant};

use session_tracking::clock::{Clock, SystemClock};
use session_tracking::storage::Consumed;

/// A run that paused longer than this, in seconds, does not make up for it: the table would not take the burst.
const MAX_BEHIND_S: f64 = 5.0;

/// A rate of write units, and since when it is kept.
pub struct Pace {
    units_per_second: f64,
    began: Instant,
    /// The units that were used before `began`.
    before: f64,
}

impl Pace {
    /// Returns the pace of a run that begins now.
    pub fn new(units_per_second: f64) -> Self {
        Self { units_per_second, began: now(), before: 0.0 }
    }

    /// Waits until what was used is within the rate.
    pub async fn wait(&mut self, consumed: &Consumed) {
        let used = consumed.table_write_units() + consumed.index_write_units();
        let due_s = (used - self.before) / self.units_per_second;
        let passed_s = self.began.elapsed().as_secs_f64();
        if passed_s > due_s + MAX_BEHIND_S {
            (self.began, self.before) = (now(), used);
        } else if due_s > passed_s {
            SystemClock.sleep(Duration::from_secs_f64(due_s - passed_s)).await;
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "the rate is of real time")]
fn now() -> Instant {
    Instant::now()
}
