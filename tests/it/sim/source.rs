//! The sources of a world's events: SQS queues, standard and FIFO, and HTTP callers who retry until they are answered.

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
    /// When it reaches its queue, or its HTTP caller.
    pub arrives_at: Millis,
    pub url: Option<String>,
    pub referrer: Option<&'static str>,
    pub utm: Option<&'static str>,
    /// It is invalid, and must be rejected.
    pub is_poison: bool,
    /// It has neither an id nor a time: both come from the delivery.
    pub is_bare: bool,
}

impl SimEvent {
    pub fn json(&self) -> String {
        if self.is_poison {
            return format!(r#"{{"uuid":"{}","event":"x"}}"#, self.uuid);
        }
        if self.is_bare {
            return format!(r#"{{"event":"{}",{}}}"#, self.name, self.visitor_members());
        }
        let mut properties = Vec::new();
        let named = [("$current_url", self.url.as_deref()), ("$referrer", self.referrer), ("utm_source", self.utm)];
        for (name, value) in named.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            properties.push(format!(r#""{name}":"{value}""#));
        }
        format!(
            r#"{{"uuid":"{}","event":"{}",{},"timestamp":"{}","properties":{{{}}}}}"#,
            self.uuid,
            self.name,
            self.visitor_members(),
            datetime(self.at).to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            properties.join(",")
        )
    }

    /// Returns the members that name the visitor.
    fn visitor_members(&self) -> String {
        let Visitor { project, distinct_id } = &self.visitor;
        match project.as_str() {
            "" => format!(r#""distinct_id":"{distinct_id}""#),
            project => format!(r#""project":"{project}","distinct_id":"{distinct_id}""#),
        }
    }
}

/// The trigger through which a message reaches the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    Standard,
    Fifo,
    Http,
}

/// Events that are delivered together.
#[derive(Debug)]
pub struct Message {
    pub trigger: Trigger,
    /// The indexes of its events.
    pub events: Vec<usize>,
    pub arrives_at: Millis,
    pub visible_at: Millis,
    pub in_flight: bool,
    pub done: bool,
    /// Whether it was ever acknowledged. A standard queue may deliver such a message again.
    pub was_done: bool,
    pub deliveries: u32,
}

/// The messages of a world.
pub struct Sources {
    pub messages: Vec<Message>,
}

impl Sources {
    /// Groups events into messages, in the order of their arrival. A FIFO message holds events of one visitor.
    pub fn from_events(events: &[SimEvent], random: &mut Seeded) -> Self {
        let mut order: Vec<usize> = (0..events.len()).collect();
        order.sort_by_key(|&index| events[index].arrives_at);
        let trigger = [Trigger::Standard, Trigger::Fifo, Trigger::Http][random.below(3)];
        let is_mixed = random.below(3) == 0;
        let mut messages: Vec<Message> = Vec::new();
        for index in order {
            let trigger = if is_mixed { [Trigger::Standard, Trigger::Http][random.below(2)] } else { trigger };
            let last = messages.last_mut().filter(|last| {
                let visitor = &events[last.events[0]].visitor;
                // A message waits for its last event, but not so long that its first one becomes late.
                let waited = events[index].arrives_at - events[last.events[0]].arrives_at;
                last.trigger == trigger
                    && waited <= 300_000
                    && (trigger != Trigger::Fifo || *visitor == events[index].visitor)
            });
            match last {
                Some(last) if random.below(2) == 0 => {
                    last.events.push(index);
                    last.arrives_at = events[index].arrives_at;
                    last.visible_at = last.arrives_at;
                }
                _ => messages.push(Message {
                    trigger,
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

    /// Removes the id and the time of some events of a queue, so that equal events come in one message and in several. The service
    /// must derive both from the message, so that they are the same in every delivery.
    pub fn strip(&self, events: &mut [SimEvent], random: &mut Seeded) {
        for (id, message) in self.messages.iter().enumerate().filter(|(_, message)| message.trigger != Trigger::Http) {
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
                let json = event.json();
                event.uuid =
                    Event::parse(json.as_bytes(), origin, &SessionConfig::default()).unwrap().uuid.into_owned();
            }
        }
    }

    /// Returns what one invocation gets: some visible messages of one trigger. The messages of a FIFO group are delivered in
    /// order, and none while an earlier one is in flight.
    pub fn deliver(&mut self, now: Millis, events: &[SimEvent], random: &mut Seeded) -> Option<(Trigger, Vec<usize>)> {
        let visible = |message: &Message| !message.done && !message.in_flight && message.visible_at <= now;
        let candidates: Vec<usize> = (0..self.messages.len()).filter(|&at| visible(&self.messages[at])).collect();
        let mut picked = Vec::new();
        let mut trigger = None;
        for at in candidates {
            let message = &self.messages[at];
            if trigger.is_some_and(|trigger| trigger != message.trigger)
                || (trigger == Some(Trigger::Http) && !picked.is_empty())
            {
                continue;
            }
            if message.trigger == Trigger::Fifo && self.is_blocked(at, &picked, events) {
                continue;
            }
            if random.below(3) > 0 {
                trigger = Some(message.trigger);
                picked.push(at);
            }
        }
        for &at in &picked {
            self.messages[at].in_flight = true;
            self.messages[at].deliveries += 1;
        }
        Some((trigger?, picked))
    }

    /// Returns whether all messages are done.
    pub fn is_done(&self) -> bool {
        self.messages.iter().all(|message| message.done)
    }

    /// Returns when a message can next be delivered, if there is a worker for it.
    pub fn next(&self, now: Millis, events: &[SimEvent]) -> Option<Millis> {
        let waiting = (0..self.messages.len()).filter(|&at| !self.messages[at].done && !self.messages[at].in_flight);
        let free =
            waiting.filter(|&at| self.messages[at].trigger != Trigger::Fifo || !self.is_blocked(at, &[], events));
        free.map(|at| self.messages[at].visible_at.max(now + 1)).min()
    }

    fn is_blocked(&self, at: usize, picked: &[usize], events: &[SimEvent]) -> bool {
        let group = |message: &Message| &events[message.events[0]].visitor;
        let earlier = (0..at).filter(|&other| group(&self.messages[other]) == group(&self.messages[at]));
        let mut unfinished = earlier.filter(|&other| !self.messages[other].done);
        unfinished.any(|other| !picked.contains(&other))
    }

    /// Records that an invocation is over: its message is done, or is redelivered. A standard queue may redeliver a message that
    /// is done.
    pub fn finish(&mut self, at: usize, is_done: bool, retry_at: Millis, random: &mut Seeded) {
        let message = &mut self.messages[at];
        message.in_flight = false;
        message.was_done |= is_done;
        message.done =
            is_done && !(message.trigger == Trigger::Standard && message.deliveries < 3 && random.below(8) == 0);
        // Sometimes so late that its events are archived by then.
        let is_much_later = is_done && !message.done && random.below(4) == 0;
        message.visible_at = retry_at + if is_much_later { random.below(3 * 3_600_000) as Millis } else { 0 };
    }
}
