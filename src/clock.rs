//! Time, waiting and randomness: everything that the service takes from outside, apart from its storage and its output.

use std::future::Future;
use std::time::Duration;

use crate::session::Millis;

/// The source of time and randomness for everything outside of the pure core. A simulation implements its own.
pub trait Clock: Send + Sync {
    /// Returns the current time.
    fn now(&self) -> Millis;
    /// Waits for this long.
    fn sleep(&self, time: Duration) -> impl Future<Output = ()> + Send;
    /// Returns 64 random bits, for etags and jitter.
    fn random(&self) -> u64;
}

/// The machine's clock and random numbers.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    fn now(&self) -> Millis {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |since| Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX))
    }

    #[allow(clippy::disallowed_methods, reason = "this is the one place that waits")]
    async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    #[allow(clippy::disallowed_methods, reason = "this is the one place that draws random bits")]
    fn random(&self) -> u64 {
        let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
        high.rotate_left(32) ^ low
    }
}
