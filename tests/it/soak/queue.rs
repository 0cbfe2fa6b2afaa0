//! A standard queue in real time. Failed messages are visible again after a while.

use std::collections::{HashSet, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};
use session_tracking::session::Millis;

/// How long a failed message is invisible. Deployed it is three minutes; the load would be over by then.
const VISIBILITY: Duration = Duration::from_secs(1);
/// How long a batch waits to be full, as the template's `MaximumBatchingWindowInSeconds`.
const WINDOW: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub struct Message {
    pub id: usize,
    body: String,
    received_at: Millis,
    /// When it is visible, since the load began.
    visible: Duration,
}

impl Message {
    pub fn new(id: usize, body: String, received_at: Millis, sent_ms: u64) -> Self {
        Self { id, body, received_at, visible: Duration::from_millis(sent_ms) }
    }

    /// Returns the same events in another message.
    pub fn again_as(&self, id: usize) -> Self {
        Self { id, ..self.clone() }
    }
}

pub struct Queue(Mutex<State>);

struct State {
    /// In the order in which they are sent.
    fresh: VecDeque<Message>,
    /// In the order in which they become visible again.
    failed: VecDeque<Message>,
    in_flight: usize,
    redelivered: usize,
}

impl Queue {
    pub fn new(messages: Vec<Message>) -> Self {
        let (fresh, failed) = (messages.into(), VecDeque::new());
        Self(Mutex::new(State { fresh, failed, in_flight: 0, redelivered: 0 }))
    }

    /// Takes `max` visible messages, or fewer if one has waited for the batching window; `None` if the batch has to wait.
    pub fn take(&self, max: usize, now: Duration) -> Option<Vec<Message>> {
        let State { fresh, failed, in_flight, .. } = &mut *self.0.lock().unwrap();
        let mut batch = Vec::new();
        let visible =
            |queue: &VecDeque<Message>| queue.iter().take(max).filter(|message| message.visible <= now).count();
        let has_waited =
            |queue: &VecDeque<Message>| queue.front().is_some_and(|message| message.visible + WINDOW <= now);
        if visible(failed) + visible(fresh) < max && !has_waited(failed) && !has_waited(fresh) {
            return None;
        }
        for queue in [failed, fresh] {
            while batch.len() < max && queue.front().is_some_and(|message| message.visible <= now) {
                batch.extend(queue.pop_front());
            }
        }
        *in_flight += batch.len();
        (!batch.is_empty()).then_some(batch)
    }

    /// Handles the answer to a batch.
    pub fn answered(&self, batch: Vec<Message>, answer: &str, now: Duration) {
        let answer: Value = serde_json::from_str(answer).unwrap();
        let items = answer["batchItemFailures"].as_array().unwrap();
        let failed: HashSet<&str> = items.iter().map(|item| item["itemIdentifier"].as_str().unwrap()).collect();
        let is_failed = |message: &Message| failed.contains(message.id.to_string().as_str());
        let state = &mut *self.0.lock().unwrap();
        state.in_flight -= batch.len();
        for message in batch.into_iter().filter(is_failed) {
            state.redelivered += 1;
            state.failed.push_back(Message { visible: now + VISIBILITY, ..message });
        }
    }

    /// Returns whether every message is done.
    pub fn is_done(&self) -> bool {
        let state = self.0.lock().unwrap();
        state.fresh.is_empty() && state.failed.is_empty() && state.in_flight == 0
    }

    pub fn redelivered(&self) -> usize {
        self.0.lock().unwrap().redelivered
    }

    /// Returns the payload that SQS passes to the function.
    pub fn payload(batch: &[Message]) -> String {
        let record = |message: &Message| {
            json!({
                "messageId": message.id.to_string(), "body": message.body,
                "eventSource": "aws:sqs", "eventSourceARN": "arn:aws:sqs:x:1:q",
                "attributes": { "SentTimestamp": message.received_at.to_string() },
            })
        };
        json!({ "Records": batch.iter().map(record).collect::<Vec<_>>() }).to_string()
    }
}
