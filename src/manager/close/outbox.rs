//! Batching of output lines. The lines of many timelines are sent together, because a message of the output queue can hold many
//! lines and costs the same if it holds few.

use std::sync::{Mutex, PoisonError};

use tokio::sync::{Semaphore, oneshot};

use crate::output::Output;

/// The maximum number of concurrent sends. Lines that arrive during these are sent together by the next send.
const SENDS_AT_ONCE: usize = 2;

/// Collects lines and sends them to an output in batches.
pub(super) struct Outbox<'o, O> {
    output: &'o O,
    pending: Mutex<Vec<PendingLines>>,
    sends: Semaphore,
}

/// The lines of a timeline that wait to be sent.
struct PendingLines {
    lines: Vec<String>,
    /// Receives whether each line was accepted.
    sender: oneshot::Sender<Vec<bool>>,
}

impl<'o, O: Output> Outbox<'o, O> {
    /// Returns an outbox without pending lines.
    pub fn new(output: &'o O) -> Self {
        Self { output, pending: Mutex::default(), sends: Semaphore::new(SENDS_AT_ONCE) }
    }

    /// Sends lines, together with those of concurrent callers. Returns whether the output accepted each line.
    pub async fn send(&self, lines: Vec<String>) -> Vec<bool> {
        let count = lines.len();
        if count == 0 {
            return Vec::new();
        }
        let (sender, receiver) = oneshot::channel();
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).push(PendingLines { lines, sender });
        {
            let _turn = self.sends.acquire().await;
            let pending = std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner));
            // Another caller can have sent these lines with its own.
            if !pending.is_empty() {
                self.send_batch(pending).await;
            }
        }
        // A caller that was dropped while it sent these lines gives no result.
        receiver.await.unwrap_or_else(|_| vec![false; count])
    }

    /// Sends the pending lines of several callers and gives each caller its results.
    async fn send_batch(&self, mut pending: Vec<PendingLines>) {
        let counts: Vec<usize> = pending.iter().map(|pending| pending.lines.len()).collect();
        let lines: Vec<String> = pending.iter_mut().flat_map(|pending| std::mem::take(&mut pending.lines)).collect();
        let mut accepted = vec![true; lines.len()];
        for line in self.output.send(&lines).await {
            if let Some(accepted) = accepted.get_mut(line) {
                *accepted = false;
            }
        }
        let mut rest = accepted.as_slice();
        for (pending, count) in pending.into_iter().zip(counts) {
            let (own, others) = rest.split_at(count);
            rest = others;
            // A caller that was dropped no longer receives its results.
            let _ = pending.sender.send(own.to_vec());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use futures_util::future::join_all;

    use super::*;

    /// An output that yields once and refuses lines that end with an x. It records the number of lines of each send.
    #[derive(Default)]
    struct Slow(Mutex<Vec<usize>>);

    impl Output for Slow {
        async fn send(&self, lines: &[String]) -> Vec<usize> {
            self.0.lock().unwrap().push(lines.len());
            tokio::task::yield_now().await;
            (0..lines.len()).filter(|&line| lines[line].ends_with('x')).collect()
        }
    }

    #[tokio::test]
    async fn concurrent_lines_are_sent_together_and_each_caller_gets_its_own_results() {
        let output = Slow::default();
        let outbox = Outbox::new(&output);
        let send = async |number: usize| {
            let lines = vec![format!("{number}"), format!("{number}x"), format!("{number}")];
            assert_eq!(outbox.send(lines).await, [true, false, true]);
            assert_eq!(outbox.send(Vec::new()).await, [false; 0]);
        };
        join_all((0..50).map(send)).await;
        let sent = output.0.lock().unwrap();
        assert_eq!(sent.iter().sum::<usize>(), 150);
        assert!(sent.len() < 10, "{sent:?}");
        assert!(sent.iter().collect::<HashSet<_>>().len() > 1);
    }
}
