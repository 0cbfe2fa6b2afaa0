//! Where a world's events come from: SQS queues, standard and FIFO, and HTTP callers who send again until they are told that
//! all went well.

use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event, Origin};
use session_tracking::session::{Millis, Visitor, datetime};

use crate::support::Seeded;

/// An event of a simulated world.
#[derive(Debug, Clone)]
pub struct SimEvent {
    pub visitor: Visitor,
    pub uuid: String,
    pub name: &'static str,
    pub at: Millis,
    /// When its source has it.
    pub arrives_at: Millis,
    pub url: Option<String>,
    pub referrer: Option<&'static str>,
    pub utm: Option<&'static str>,
    /// It can never be understood.
    pub is_poison: bool,
    /// It says neither its id nor its time: both come from the delivery.
    pub is_bare: bool,
}

impl SimEvent {
    pub fn text(&self) -> String {
        if self.is_poison {
            return format!(r#"{{"uuid":"{}","event":"x"}}"#, self.uuid);
        }
        if self.is_bare {
            return format!(r#"{{"event":"{}","distinct_id":"{}"}}"#, self.name, self.visitor.distinct_id);
        }
        let mut properties = Vec::new();
        let named = [("$current_url", self.url.as_deref()), ("$referrer", self.referrer), ("utm_source", self.utm)];
        for (name, value) in named.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            properties.push(format!(r#""{name}":"{value}""#));
        }
        format!(
            r#"{{"uuid":"{}","event":"{}","distinct_id":"{}","timestamp":"{}","properties":{{{}}}}}"#,
            self.uuid,
            self.name,
            self.visitor.distinct_id,
            datetime(self.at).to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            properties.join(",")
        )
    }
}

/// How a message reaches the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Road {
    Standard,
    Fifo,
    Http,
}

/// Some events that travel together.
#[derive(Debug)]
pub struct Message {
    pub road: Road,
    /// Indexes of events.
    pub events: Vec<usize>,
    pub arrives_at: Millis,
    pub visible_at: Millis,
    pub in_flight: bool,
    pub done: bool,
    /// Whether it was acknowledged before.
    pub was_done: bool,
    pub deliveries: u32,
}

/// The messages that are not done.
pub struct Sources {
    pub messages: Vec<Message>,
}

impl Sources {
    /// Packs events into messages, in the order of their arrival. A FIFO message holds one visitor's.
    pub fn pack(events: &[SimEvent], random: &mut Seeded) -> Self {
        let mut order: Vec<usize> = (0..events.len()).collect();
        order.sort_by_key(|&index| events[index].arrives_at);
        let road = [Road::Standard, Road::Fifo, Road::Http][random.below(3)];
        let is_mixed = random.below(3) == 0;
        let mut messages: Vec<Message> = Vec::new();
        for index in order {
            let road = if is_mixed { [Road::Standard, Road::Http][random.below(2)] } else { road };
            let last = messages.last_mut().filter(|last| {
                let visitor = &events[last.events[0]].visitor;
                // What travels together waits for the last of it, but not so long that it would be late.
                let waited = events[index].arrives_at - events[last.events[0]].arrives_at;
                last.road == road && waited <= 300_000 && (road != Road::Fifo || *visitor == events[index].visitor)
            });
            match last {
                Some(last) if random.below(2) == 0 => {
                    last.events.push(index);
                    last.arrives_at = events[index].arrives_at;
                    last.visible_at = last.arrives_at;
                }
                _ => messages.push(Message {
                    road,
                    events: vec![index],
                    arrives_at: events[index].arrives_at,
                    visible_at: events[index].arrives_at,
                    in_flight: false,
                    done: false,
                    was_done: false,
                    deliveries: 0,
                }),
            }
        }
        Self { messages }
    }

    /// Takes id and time from some events that come by a queue, so that equal texts come in one message and in several. What the
    /// service has to give them is known: by the message, which is the same however often it is delivered.
    pub fn strip(&self, events: &mut [SimEvent], random: &mut Seeded) {
        for (id, message) in self.messages.iter().enumerate().filter(|(_, message)| message.road != Road::Http) {
            for (index, &event) in message.events.iter().enumerate() {
                let event = &mut events[event];
                if event.is_poison || random.below(3) > 0 {
                    continue;
                }
                *event = SimEvent {
                    name: "click",
                    is_bare: true,
                    url: None,
                    referrer: None,
                    utm: None,
                    at: message.arrives_at,
                    ..event.clone()
                };
                let id = id.to_string();
                let delivery = Delivery { received_at: message.arrives_at, trusts_received_at: true };
                let origin = Origin { id: &id, index, ..delivery.into() };
                let text = event.text();
                event.uuid =
                    Event::parse(text.as_bytes(), origin, &SessionConfig::default()).unwrap().uuid.into_owned();
            }
        }
    }

    /// What one invocation gets: some visible messages of one road. Of a FIFO group nothing is given while some of it is in
    /// flight, and never a later message before an earlier one.
    pub fn deliver(&mut self, now: Millis, events: &[SimEvent], random: &mut Seeded) -> Option<(Road, Vec<usize>)> {
        let visible = |message: &Message| !message.done && !message.in_flight && message.visible_at <= now;
        let candidates: Vec<usize> = (0..self.messages.len()).filter(|&at| visible(&self.messages[at])).collect();
        let mut picked = Vec::new();
        let mut road = None;
        for at in candidates {
            let message = &self.messages[at];
            if road.is_some_and(|road| road != message.road) || (road == Some(Road::Http) && !picked.is_empty()) {
                continue;
            }
            if message.road == Road::Fifo && self.is_blocked(at, &picked, events) {
                continue;
            }
            if random.below(3) > 0 {
                road = Some(message.road);
                picked.push(at);
            }
        }
        for &at in &picked {
            self.messages[at].in_flight = true;
            self.messages[at].deliveries += 1;
        }
        Some((road?, picked))
    }

    /// Whether everything is done.
    pub fn is_done(&self) -> bool {
        self.messages.iter().all(|message| message.done)
    }

    /// When a message can next be delivered: one that is visible as soon as there is a worker for it.
    pub fn next(&self, now: Millis, events: &[SimEvent]) -> Option<Millis> {
        let waiting = (0..self.messages.len()).filter(|&at| !self.messages[at].done && !self.messages[at].in_flight);
        let free = waiting.filter(|&at| self.messages[at].road != Road::Fifo || !self.is_blocked(at, &[], events));
        free.map(|at| self.messages[at].visible_at.max(now + 1)).min()
    }

    fn is_blocked(&self, at: usize, picked: &[usize], events: &[SimEvent]) -> bool {
        let group = |message: &Message| &events[message.events[0]].visitor;
        let earlier = (0..at).filter(|&other| group(&self.messages[other]) == group(&self.messages[at]));
        let mut unfinished = earlier.filter(|&other| !self.messages[other].done);
        unfinished.any(|other| !picked.contains(&other))
    }

    /// An invocation is over: these messages are done or come again. A standard queue may deliver a done one once more.
    pub fn finish(&mut self, at: usize, is_done: bool, again_at: Millis, random: &mut Seeded) {
        let message = &mut self.messages[at];
        message.in_flight = false;
        message.was_done |= is_done;
        message.done = is_done && !(message.road == Road::Standard && message.deliveries < 3 && random.below(8) == 0);
        // Now and then so late that what it brought is archived.
        let is_much_later = is_done && !message.done && random.below(4) == 0;
        message.visible_at = again_at + if is_much_later { random.below(3 * 3_600_000) as Millis } else { 0 };
    }
}
