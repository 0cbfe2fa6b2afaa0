//! A standard SQS queue: a worker takes messages, and answers with those that must be redelivered.

use std::collections::{BTreeSet, HashSet};
use std::sync::Mutex;

use serde_json::{Value, json};
use session_tracking::session::Millis;

use super::Event;
use crate::support::Seeded;

/// A batch is picked from this many messages at the head of the queue.
const HEAD: usize = 16;

/// Events that are delivered together.
struct Message {
    /// The indexes of its events.
    events: Vec<usize>,
    sent_at: Millis,
}

pub struct Queue {
    pub events: Vec<Event>,
    messages: Vec<Message>,
    /// The allowed lateness. A message is not handed out while an event is not done that would become late by it.
    lateness: Millis,
    state: Mutex<State>,
}

struct State {
    random: Seeded,
    /// The messages that can be handed out, in order.
    ready: Vec<usize>,
    /// Each message that is not done, with the time of its earliest event.
    open: BTreeSet<(Millis, usize)>,
    /// When the newest message that was handed out was sent.
    newest: Millis,
}

/// Messages that were taken together.
pub struct Batch(Vec<usize>);

impl Queue {
    /// Groups events into messages, in the order of their arrival. Some events are in two messages.
    pub fn new(seed: u64, events: Vec<Event>, lateness: Millis) -> Self {
        let mut random = Seeded(seed);
        let mut messages: Vec<Message> = Vec::new();
        let mut room = 0;
        for (index, event) in events.iter().enumerate() {
            // A message is sent when its last event arrives. It does not wait long for that.
            let is_long = |message: &Message| event.arrives_at > events[message.events[0]].arrives_at + lateness / 4;
            if room == 0 || messages.last().is_some_and(is_long) {
                room = 1 + random.below(4);
                messages.push(Message { events: Vec::new(), sent_at: 0 });
            }
            room -= 1;
            if let Some(message) = messages.last_mut() {
                message.events.push(index);
                message.sent_at = message.sent_at.max(event.arrives_at);
            }
        }
        let earliest = |message: &Message| message.events.iter().map(|&event| events[event].at).min().unwrap();
        let open = messages.iter().enumerate().map(|(at, message)| (earliest(message), at)).collect();
        // A producer that got no answer sends an event again, in its next message.
        for from in (0..messages.len() - 1).step_by(10) {
            let duplicate = messages[from].events[0];
            messages[from + 1].events.insert(0, duplicate);
        }
        let ready = (0..messages.len()).collect();
        let state = State { random, ready, open, newest: 0 };
        Self { events, messages, lateness, state: Mutex::new(state) }
    }

    /// Takes up to `max` messages from the head of the queue. Returns `None` if the remaining messages have to wait for others.
    pub fn take(&self, max: usize) -> Option<Batch> {
        let state = &mut *self.state.lock().unwrap();
        let latest = state.open.first().map_or(Millis::MAX, |(at, _)| at + self.lateness);
        let mut batch = Vec::new();
        for _ in 0..=state.random.below(max) {
            let is_free = |message: usize| self.messages[message].sent_at <= latest && !batch.contains(&message);
            let head = state.ready.iter().take(HEAD).enumerate();
            let free: Vec<usize> =
                head.filter(|&(_, &message)| is_free(message)).map(|(position, _)| position).collect();
            if free.is_empty() {
                break;
            }
            let position = free[state.random.below(free.len())];
            batch.push(state.ready.remove(position));
        }
        state.newest = batch.iter().map(|&message| self.messages[message].sent_at).fold(state.newest, Millis::max);
        (!batch.is_empty()).then_some(Batch(batch))
    }

    /// Handles the answer to a batch. Failed messages are redelivered. Sometimes, much later, so is a message that is done.
    pub fn answered(&self, batch: Batch, answer: &str) {
        let answer: Value = serde_json::from_str(answer).unwrap();
        let failures = answer["batchItemFailures"].as_array().unwrap();
        let failed: HashSet<&str> = failures.iter().map(|item| item["itemIdentifier"].as_str().unwrap()).collect();
        let state = &mut *self.state.lock().unwrap();
        for message in batch.0 {
            if failed.contains(message.to_string().as_str()) {
                state.put_back(message);
                continue;
            }
            state.open.retain(|(_, open)| *open != message);
            if state.random.below(16) == 0 {
                let position = state.random.below(state.ready.len() + 1);
                state.ready.insert(position, message);
            }
        }
    }

    /// Redelivers all messages of a batch that was not answered.
    pub fn unanswered(&self, batch: Batch) {
        let mut state = self.state.lock().unwrap();
        batch.0.into_iter().for_each(|message| state.put_back(message));
    }

    /// Redelivers some messages that are done.
    pub fn redeliver_some(&self) {
        let mut state = self.state.lock().unwrap();
        for _ in 0..HEAD {
            let message = state.random.below(self.messages.len());
            state.put_back(message);
        }
    }

    /// Returns whether every message is done and none is to be redelivered.
    pub fn is_done(&self) -> bool {
        let state = self.state.lock().unwrap();
        state.open.is_empty() && state.ready.is_empty()
    }

    /// Returns the time of the earliest event that is not done; `None` if all are done.
    pub fn earliest(&self) -> Option<Millis> {
        self.state.lock().unwrap().open.first().map(|&(at, _)| at)
    }

    /// Returns when the newest message that was handed out was sent.
    pub fn newest(&self) -> Millis {
        self.state.lock().unwrap().newest
    }

    /// Returns the payload that SQS passes to the function.
    pub fn payload(&self, batch: &Batch) -> String {
        let record = |&at: &usize| {
            let message = &self.messages[at];
            let lines: Vec<String> = message.events.iter().map(|&event| self.events[event].json()).collect();
            json!({
                "messageId": at.to_string(), "body": lines.join("\n"),
                "eventSource": "aws:sqs", "eventSourceARN": "arn:aws:sqs:x:1:q",
                "attributes": { "SentTimestamp": message.sent_at.to_string() },
            })
        };
        json!({ "Records": batch.0.iter().map(record).collect::<Vec<_>>() }).to_string()
    }
}

impl State {
    /// Puts a message back near the head of the queue.
    fn put_back(&mut self, message: usize) {
        let position = self.random.below(HEAD.min(self.ready.len() + 1));
        self.ready.insert(position, message);
    }
}
