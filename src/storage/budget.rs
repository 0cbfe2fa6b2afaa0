//! A budget of second tries, so that a service in trouble is not asked much more than one that is well.

use std::sync::atomic::{AtomicU32, Ordering};

/// Successes that earn one try more.
const SUCCESSES_A_TRY: u32 = 5;
/// Tries that can be saved up, and that there are in the beginning.
const SAVED: u32 = 10;

/// Counts in successes.
#[derive(Debug)]
pub(super) struct Budget(AtomicU32);

impl Default for Budget {
    fn default() -> Self {
        Self(AtomicU32::new(SAVED * SUCCESSES_A_TRY))
    }
}

impl Budget {
    /// Takes note of a success.
    pub(super) fn earn(&self) {
        let more = |saved: u32| Some((saved + 1).min(SAVED * SUCCESSES_A_TRY));
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Takes one try, if there is one.
    pub(super) fn spend(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| saved.checked_sub(SUCCESSES_A_TRY)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_are_saved_up_and_earned_again() {
        let budget = Budget::default();
        budget.earn();
        assert_eq!((0..100).filter(|_| budget.spend()).count(), SAVED as usize);
        (0..2 * SUCCESSES_A_TRY - 1).for_each(|_| budget.earn());
        assert_eq!((0..100).filter(|_| budget.spend()).count(), 1);
    }
}
