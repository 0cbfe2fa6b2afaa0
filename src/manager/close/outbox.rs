//! Lines of many timelines, sent together: a message of the output queue holds many, and each costs as much as a full one.

use std::sync::{Mutex, PoisonError};

use tokio::sync::{Semaphore, oneshot};

use crate::output::Output;

/// Sendings under way at once. What comes meanwhile is sent together by the next.
const SENDINGS_AT_ONCE: usize = 2;

/// Gathers lines for an output.
pub(super) struct Outbox<'o, O> {
    output: &'o O,
    waiting: Mutex<Vec<Parcel>>,
    sendings: Semaphore,
}

/// The lines of a timeline.
struct Parcel {
    lines: Vec<String>,
    /// To whom to tell of each line whether it was taken.
    sender: oneshot::Sender<Vec<bool>>,
}

impl<'o, O: Output> Outbox<'o, O> {
    pub fn new(output: &'o O) -> Self {
        Self { output, waiting: Mutex::default(), sendings: Semaphore::new(SENDINGS_AT_ONCE) }
    }

    /// Sends lines, along with those of others; says of each whether it was taken.
    pub async fn send(&self, lines: Vec<String>) -> Vec<bool> {
        let count = lines.len();
        if count == 0 {
            return Vec::new();
        }
        let (sender, answer) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(Parcel { lines, sender });
        {
            let _turn = self.sendings.acquire().await;
            let parcels = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            // Another one that had its turn meanwhile may have taken these lines along.
            if !parcels.is_empty() {
                self.dispatch(parcels).await;
            }
        }
        // Whoever took them along and gave up has not told.
        answer.await.unwrap_or_else(|_| vec![false; count])
    }

    async fn dispatch(&self, mut parcels: Vec<Parcel>) {
        let counts: Vec<usize> = parcels.iter().map(|parcel| parcel.lines.len()).collect();
        let lines: Vec<String> = parcels.iter_mut().flat_map(|parcel| std::mem::take(&mut parcel.lines)).collect();
        let mut taken = vec![true; lines.len()];
        for line in self.output.send(&lines).await {
            if let Some(taken) = taken.get_mut(line) {
                *taken = false;
            }
        }
        let mut rest = taken.as_slice();
        for (parcel, count) in parcels.into_iter().zip(counts) {
            let (own, others) = rest.split_at(count);
            rest = others;
            // Nobody waits for it where the run was given up.
            let _ = parcel.sender.send(own.to_vec());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use futures_util::future::join_all;

    use super::*;

    /// Takes its time, and does not take what ends with an x.
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
    async fn what_comes_while_others_are_sent_goes_together_and_each_is_told_of_its_own() {
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
