//! What came in and what was emitted, as the page shows it: the newest items, and a signal for those who wait for more.

mod explanation;
pub mod item;

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Items that are kept. The page draws as many without delay; older ones are left out, and the page says so.
const MAX_ITEMS: usize = 60_000;
/// Bytes of the items that are kept. A report of a bug that has them fits into a mail.
const MAX_BYTES: usize = 20 * 1024 * 1024;
/// Bytes of one message to a page. A page that opens late reads what is kept in several of them.
const CHUNK_BYTES: usize = 256 * 1024;

/// The newest items, each a line of JSON (see [`item`]).
#[derive(Debug, Default)]
pub struct Feed {
    log: Mutex<Log>,
    /// The number of the next item.
    next: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Log {
    items: VecDeque<String>,
    /// The number of the oldest item that is kept: as many are left out.
    first: u64,
    bytes: usize,
}

/// Some of the items, in order.
#[derive(Debug)]
pub struct Chunk {
    /// The number of the item behind them.
    pub next: u64,
    /// A JSON object: `{"left_out":…,"items":[…]}`.
    pub json: String,
}

impl Feed {
    /// Appends items.
    pub fn push(&self, items: impl IntoIterator<Item = String>) {
        let next = {
            let mut log = self.log();
            items.into_iter().for_each(|item| log.push(item));
            log.next()
        };
        // Nobody may be waiting.
        self.next.send_replace(next);
    }

    /// Returns the items from this number on, as many as fit into a message. Returns `None` if there are none yet.
    pub fn read(&self, from: u64) -> Option<Chunk> {
        let log = self.log();
        // A number of another process may lie ahead. Then the page begins anew.
        let from = if from > log.next() { log.first } else { from.max(log.first) };
        let rest = log.items.range(usize::try_from(from - log.first).unwrap_or(usize::MAX)..);
        let mut bytes = 0;
        let some: Vec<&str> = rest
            .map(String::as_str)
            .take_while(|item| {
                bytes += item.len();
                bytes <= CHUNK_BYTES || bytes == item.len()
            })
            .collect();
        (!some.is_empty()).then(|| Chunk { next: from + some.len() as u64, json: json(log.first, &some) })
    }

    /// Returns a receiver that is told when there are more items.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.next.subscribe()
    }

    /// Returns whether somebody is waiting for items.
    pub fn is_watched(&self) -> bool {
        self.next.receiver_count() > 0
    }

    /// Returns all items that are kept, as the JSON object of a [`Chunk`].
    pub fn all(&self) -> String {
        let log = self.log();
        json(log.first, &log.items.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        // A poisoned lock is safe to use: at worst an item is missing.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    fn next(&self) -> u64 {
        self.first + self.items.len() as u64
    }

    fn push(&mut self, item: String) {
        self.bytes += item.len();
        self.items.push_back(item);
        while self.items.len() > MAX_ITEMS || self.bytes > MAX_BYTES {
            let Some(oldest) = self.items.pop_front() else { break };
            self.bytes -= oldest.len();
            self.first += 1;
        }
    }
}

fn json(left_out: u64, items: &[&str]) -> String {
    format!("{{\"left_out\":{left_out},\"items\":[{}]}}", items.join(","))
}
