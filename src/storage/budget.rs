//! A retry budget: a service that fails gets hardly more calls than one that works.

use std::sync::atomic::{AtomicU32, Ordering};

/// The number of successful calls that earn one retry.
const SUCCESSES_PER_RETRY: u32 = 5;
/// The maximum number of retries that can be saved up. It is also the number at the start.
const MAX_RETRIES: u32 = 10;

/// The retries that may be made, counted in the successful calls that earn them.
#[derive(Debug)]
pub(super) struct RetryBudget(AtomicU32);

impl Default for RetryBudget {
    fn default() -> Self {
        Self(AtomicU32::new(MAX_RETRIES * SUCCESSES_PER_RETRY))
    }
}

impl RetryBudget {
    /// Adds a successful call.
    pub(super) fn earn(&self) {
        let add = |successes: u32| Some((successes + 1).min(MAX_RETRIES * SUCCESSES_PER_RETRY));
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Takes one retry. Returns `false` if none is left.
    pub(super) fn spend(&self) -> bool {
        let take = |successes: u32| successes.checked_sub(SUCCESSES_PER_RETRY);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_bounded_and_earned_by_successes() {
        let budget = RetryBudget::default();
        budget.earn();
        assert_eq!((0..100).filter(|_| budget.spend()).count(), MAX_RETRIES as usize);
        (0..2 * SUCCESSES_PER_RETRY - 1).for_each(|_| budget.earn());
        assert_eq!((0..100).filter(|_| budget.spend()).count(), 1);
    }
}
