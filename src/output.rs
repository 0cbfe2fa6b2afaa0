//! The outputs for annotated events, ends of sessions, corrections and rejected events, all as lines of JSON.

mod batching;
mod sqs;
mod stdout;

use std::future::Future;
use std::sync::{Mutex, PoisonError};

use crate::clock::Clock;
pub use sqs::SqsOutput;
pub use stdout::StdoutOutput;

/// A sink for lines of JSON. Sending is idempotent for consumers, so a line may be sent again.
pub trait Output: Send + Sync {
    /// Sends lines. Returns the indexes of the lines that were not accepted, in order. An empty list means that all were
    /// accepted.
    fn send(&self, lines: &[String]) -> impl Future<Output = Vec<usize>> + Send;
}

impl<O: Output> Output for &O {
    fn send(&self, lines: &[String]) -> impl Future<Output = Vec<usize>> + Send {
        (*self).send(lines)
    }
}

/// The output that a function is configured with.
#[derive(Debug)]
pub enum AnyOutput<C> {
    /// Standard output.
    Stdout(StdoutOutput),
    /// An SQS queue.
    Sqs(SqsOutput<C>),
}

impl<C: Clock> Output for AnyOutput<C> {
    async fn send(&self, lines: &[String]) -> Vec<usize> {
        match self {
            Self::Stdout(stdout) => stdout.send(lines).await,
            Self::Sqs(sqs) => sqs.send(lines).await,
        }
    }
}

/// Keeps lines in memory, for tests and for local use.
#[derive(Debug, Default)]
pub struct MemoryOutput(Mutex<Vec<String>>);

impl MemoryOutput {
    /// Removes and returns the lines sent so far.
    pub fn take(&self) -> Vec<String> {
        // A poisoned lock is safe to use: each holder makes one complete change, so a panic leaves nothing half done.
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Output for MemoryOutput {
    async fn send(&self, lines: &[String]) -> Vec<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(lines);
        Vec::new()
    }
}
