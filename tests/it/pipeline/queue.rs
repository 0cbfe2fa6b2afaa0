//! A standard SQS queue: whoever takes messages says later which of them have to come again.

use std::collections::{BTreeSet, HashSet};
use std::sync::Mutex;

use serde_json::{Value, json};
use session_tracking::session::Millis;

use super::Event;
use crate::support::Seeded;

/// Messages at the queue's head among which a batch is picked.
const HEAD: usize = 16;

/// Events that travel together.
struct Message {
    /// Indexes of events.
    events: Vec<usize>,
    sent_at: Millis,
}

pub struct Queue {
    pub events: Vec<Event>,
    messages: Vec<Message>,
    /// No message is handed out that was sent so much later than an event happened that is not done.
    lateness: Millis,
    state: Mutex<State>,
}

struct State {
    random: Seeded,
    ready: Vec<usize>,
    /// Of each message that is not done, the earliest event.
    open: BTreeSet<(Millis, usize)>,
    /// The newest message that was handed out.
    newest: Millis,
}

/// Messages that were taken together.
pub struct Batch(Vec<usize>);

impl Queue {
    /// Packs events into messages in the order of their arrival; some events travel twice.
    pub fn new(seed: u64, events: Vec<Event>, lateness: Millis) -> Self {
        let mut random = Seeded(seed);
        let mut messages: Vec<Message> = Vec::new();
        let mut room = 0;
        for (index, event) in events.iter().enumerate() {
            // A message does not wait long for its last event: its time is when that arrives.
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
        // A producer that is not sure sends again, with what it has by then.
        for from in (0..messages.len() - 1).step_by(10) {
            let again = messages[from].events[0];
            messages[from + 1].events.insert(0, again);
        }
        let ready = (0..messages.len()).collect();
        let state = State { random, ready, open, newest: 0 };
        Self { events, messages, lateness, state: Mutex::new(state) }
    }

    /// Up to so many messages from the queue's head; none if those that are left have to wait for others.
    pub fn take(&self, most: usize) -> Option<Batch> {
        let state = &mut *self.state.lock().unwrap();
        let latest = state.open.first().map_or(Millis::MAX, |(at, _)| at + self.lateness);
        let mut batch = Vec::new();
        for _ in 0..=state.random.below(most) {
            let is_free = |message: usize| self.messages[message].sent_at <= latest && !batch.contains(&message);
            let head = state.ready.iter().take(HEAD).enumerate();
            let free: Vec<usize> = head.filter(|&(_, &message)| is_free(message)).map(|(place, _)| place).collect();
            if free.is_empty() {
                break;
            }
            let place = free[state.random.below(free.len())];
            batch.push(state.ready.remove(place));
        }
        state.newest = batch.iter().map(|&message| self.messages[message].sent_at).fold(state.newest, Millis::max);
        (!batch.is_empty()).then_some(Batch(batch))
    }

    /// The batch is answered: what failed comes again, and now and then, much later, something that is done.
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
                let place = state.random.below(state.ready.len() + 1);
                state.ready.insert(place, message);
            }
        }
    }

    /// The batch is not answered: all of it comes again.
    pub fn lost(&self, batch: Batch) {
        let mut state = self.state.lock().unwrap();
        batch.0.into_iter().for_each(|message| state.put_back(message));
    }

    /// Some messages that are done come once more.
    pub fn again(&self) {
        let mut state = self.state.lock().unwrap();
        for _ in 0..HEAD {
            let message = state.random.below(self.messages.len());
            state.put_back(message);
        }
    }

    /// Whether every message is done and none comes again.
    pub fn is_done(&self) -> bool {
        let state = self.state.lock().unwrap();
        state.open.is_empty() && state.ready.is_empty()
    }

    /// The earliest event of those not done; none if all are.
    pub fn earliest(&self) -> Option<Millis> {
        self.state.lock().unwrap().open.first().map(|&(at, _)| at)
    }

    /// When the newest message was sent that was handed out.
    pub fn newest(&self) -> Millis {
        self.state.lock().unwrap().newest
    }

    /// What SQS hands to the function.
    pub fn payload(&self, batch: &Batch) -> String {
        let record = |&at: &usize| {
            let message = &self.messages[at];
            let texts: Vec<String> = message.events.iter().map(|&event| self.events[event].text()).collect();
            json!({
                "messageId": at.to_string(), "body": texts.join("\n"),
                "eventSource": "aws:sqs", "eventSourceARN": "arn:aws:sqs:x:1:q",
                "attributes": { "SentTimestamp": message.sent_at.to_string() },
            })
        };
        json!({ "Records": batch.0.iter().map(record).collect::<Vec<_>>() }).to_string()
    }
}

impl State {
    /// It comes again soon, among others.
    fn put_back(&mut self, message: usize) {
        let place = self.random.below(HEAD.min(self.ready.len() + 1));
        self.ready.insert(place, message);
    }
}
