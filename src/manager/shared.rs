//! What the invocations of a process share, if several run at once (feature `managed-instances`): the projects, the cache of
//! timelines and the numbers of library calls. Each invocation has a manager of its own, so that what it counts is its own.
//! Without the feature, a process has one manager, and nothing is shared.

#[cfg(feature = "managed-instances")]
pub(super) use concurrent::{Shared, share};
#[cfg(not(feature = "managed-instances"))]
pub(super) use single::{Shared, share};

#[cfg(not(feature = "managed-instances"))]
mod single {
    /// A part of the only manager.
    pub(in crate::manager) type Shared<T> = T;

    /// Returns a part of the only manager.
    pub(in crate::manager) fn share<T>(part: T) -> Shared<T> {
        part
    }
}

#[cfg(feature = "managed-instances")]
mod concurrent {
    use std::sync::Arc;

    use crate::clock::Clock;
    use crate::manager::SessionManager;
    use crate::manager::counters::Counters;
    use crate::storage::SessionStorage;

    /// A part that several managers have.
    pub(in crate::manager) type Shared<T> = Arc<T>;

    /// Returns a part that several managers can have.
    pub(in crate::manager) fn share<T>(part: T) -> Shared<T> {
        Arc::new(part)
    }

    impl<S: SessionStorage, C: Clock + Clone> SessionManager<S, C> {
        /// Returns a manager for one invocation. It shares the rules and the cache of timelines with this manager, and has the
        /// given storage and counters of its own, so that what it counts is of this invocation alone.
        #[must_use]
        pub fn for_invocation(&self, storage: S) -> Self {
            Self {
                projects: Arc::clone(&self.projects),
                storage,
                clock: self.clock.clone(),
                cache: Arc::clone(&self.cache),
                calls: Arc::clone(&self.calls),
                counters: Counters::default(),
                #[cfg(feature = "replay")]
                replay: self.replay.clone(),
                ..*self
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::config::SessionConfig;
        use crate::event::{Delivery, Event};
        use crate::manager::{Counted, Outcome};
        use crate::storage::InMemorySessionStorage;

        #[test]
        fn invocations_share_the_cache_and_count_for_themselves() {
            let storage = InMemorySessionStorage::new();
            let process = SessionManager::new(SessionConfig::default(), &storage);
            let invocations: Vec<_> = (0..3).map(|_| process.for_invocation(&storage)).collect();
            // Not in the past, because a timeline that is due is not taken from the cache.
            let received_at = crate::clock::SystemClock.now();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            for (number, invocation) in invocations.iter().enumerate() {
                let json = format!(r#"{{"uuid":"{number}","event":"x","distinct_id":"ada"}}"#);
                let delivery = Delivery { received_at, trusts_received_at: false };
                let event = Event::parse(json.as_bytes(), delivery, invocation.config()).unwrap();
                let outcomes = runtime.block_on(invocation.resolve(&[event], i64::MAX));
                assert!(matches!(outcomes[..], [Outcome::Placed(Some(_))]), "{outcomes:?}");
            }
            // The second invocation finds the first one's timeline current, so the third one uses the second one's.
            let counted: Vec<Counted> = invocations.iter().map(SessionManager::take_counted).collect();
            let used = Counted { speculative_right: 1, ..Counted::default() };
            assert_eq!(counted, [Counted::default(), Counted::default(), used]);
            assert_eq!(process.take_counted(), Counted::default());
        }
    }
}
