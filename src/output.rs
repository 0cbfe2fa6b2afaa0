//! Where annotated events, ends of sessions and rejected events go: lines of JSON.

mod batching;
mod sqs;
mod stdout;

use std::future::Future;
use std::sync::{Mutex, PoisonError};

use crate::clock::Clock;
pub use sqs::SqsOutput;
pub use stdout::StdoutOutput;

/// A sink for lines of JSON. Sending a line again is allowed: it means the same.
pub trait Output: Send + Sync {
    /// Sends lines; returns the indexes, in order, of those that were not taken. An empty answer means all were.
    fn send(&self, lines: &[String]) -> impl Future<Output = Vec<usize>> + Send;
}

impl<O: Output> Output for &O {
    fn send(&self, lines: &[String]) -> impl Future<Output = Vec<usize>> + Send {
        (*self).send(lines)
    }
}

/// The outputs that a function can be set to.
#[derive(Debug)]
pub enum AnyOutput<C> {
    Stdout(StdoutOutput),
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

/// Keeps lines, for tests and for use on one machine.
#[derive(Debug, Default)]
pub struct MemoryOutput(Mutex<Vec<String>>);

impl MemoryOutput {
    /// Takes the lines sent so far.
    pub fn take(&self) -> Vec<String> {
        // A panic between two whole steps leaves nothing half done.
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Output for MemoryOutput {
    async fn send(&self, lines: &[String]) -> Vec<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(lines);
        Vec::new()
    }
}
