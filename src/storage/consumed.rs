//! The capacity that a store's calls consumed, as DynamoDB reports it.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_dynamodb::types::ConsumedCapacity;

/// The capacity units that a store's calls consumed. Pass it to [`super::DynamoDbSessionStorage::counting`].
#[derive(Debug, Default)]
pub struct Consumed {
    /// In thousandths of a unit.
    read: AtomicU64,
    /// In thousandths of a unit.
    table_write: AtomicU64,
    /// In thousandths of a unit.
    index_write: AtomicU64,
    conflicts: AtomicU64,
    calls: AtomicU64,
}

impl Consumed {
    /// Returns the read units.
    pub fn read_units(&self) -> f64 {
        thousandths(&self.read)
    }

    /// Returns the write units of the table without its index. A conflict counts as one unit, which is what AWS bills for it.
    pub fn table_write_units(&self) -> f64 {
        thousandths(&self.table_write)
    }

    /// Returns the write units of the index of due timelines.
    pub fn index_write_units(&self) -> f64 {
        thousandths(&self.index_write)
    }

    /// Returns the number of conditional writes whose condition failed.
    pub fn conflicts(&self) -> u64 {
        self.conflicts.load(Ordering::Relaxed)
    }

    /// Returns the number of calls, also those that failed or were not answered in time. What the SDK sends again is one call.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Returns what was consumed so far, and begins anew.
    #[must_use]
    pub fn take(&self) -> Self {
        let take = |counter: &AtomicU64| AtomicU64::new(counter.swap(0, Ordering::Relaxed));
        Self {
            read: take(&self.read),
            table_write: take(&self.table_write),
            index_write: take(&self.index_write),
            conflicts: take(&self.conflicts),
            calls: take(&self.calls),
        }
    }

    /// Adds a call that begins.
    pub(super) fn add_call(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds a conditional write whose condition failed. DynamoDB bills a unit for it, but does not report it with the error.
    pub(super) fn add_conflict(&self) {
        self.conflicts.fetch_add(1, Ordering::Relaxed);
        self.table_write.fetch_add(1000, Ordering::Relaxed);
    }

    /// Adds what a read consumed.
    pub(super) fn add_read(&self, capacity: &ConsumedCapacity) {
        add(&self.read, capacity.capacity_units().unwrap_or_default());
    }

    /// Adds what a write consumed in the table and in the index.
    pub(super) fn add_write(&self, capacity: &ConsumedCapacity) {
        let index = capacity.global_secondary_indexes().map_or(0.0, |indexes| {
            indexes.values().filter_map(aws_sdk_dynamodb::types::Capacity::capacity_units).sum()
        });
        add(&self.index_write, index);
        add(&self.table_write, capacity.capacity_units().unwrap_or_default() - index);
    }
}

fn add(counter: &AtomicU64, units: f64) {
    counter.fetch_add((units * 1000.0).round() as u64, Ordering::Relaxed);
}

fn thousandths(counter: &AtomicU64) -> f64 {
    counter.load(Ordering::Relaxed) as f64 / 1000.0
}
