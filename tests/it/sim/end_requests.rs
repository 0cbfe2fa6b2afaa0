//! Requests that end sessions. Their callers retry until they are answered, or give up.

use session_tracking::session::{Millis, Visitor};

use super::source::SimEvent;
use crate::support::Seeded;

/// A request that ends a session of a visitor.
#[derive(Debug)]
pub struct EndRequest {
    pub visitor: Visitor,
    /// The session that is to be ended. It is chosen when the request is first sent.
    pub id: Option<String>,
    /// When the request is sent next.
    pub at: Millis,
    pub in_flight: bool,
    pub done: bool,
    pub tries: u32,
}

/// The requests of a world.
#[derive(Debug)]
pub struct EndRequests(pub Vec<EndRequest>);

impl EndRequests {
    /// Draws no request in a third of the worlds, and one or three in the others. Each is sent when an event of its visitor
    /// arrives, or some time after.
    pub fn plan(events: &[SimEvent], timeout: Millis, random: &mut Seeded) -> Self {
        let request = |random: &mut Seeded| {
            let event = &events[random.below(events.len())];
            let after = [0, 1, timeout / 3, timeout, 2 * timeout][random.below(5)];
            let (visitor, at) = (event.visitor.clone(), event.arrives_at + after);
            EndRequest { visitor, id: None, at, in_flight: false, done: false, tries: 0 }
        };
        Self((0..[0, 1, 3][random.below(3)]).map(|_| request(random)).collect())
    }

    /// Returns the index of a request that is to be sent now, and marks it as in flight.
    pub fn take(&mut self, now: Millis) -> Option<usize> {
        let index = self.0.iter().position(|request| !request.done && !request.in_flight && request.at <= now)?;
        self.0[index].in_flight = true;
        self.0[index].tries += 1;
        Some(index)
    }

    /// Records that a request was answered, or that nobody will answer it any more. If it is not done, its caller retries or gives
    /// up.
    pub fn finish(&mut self, index: usize, is_done: bool, retry_at: Millis, random: &mut Seeded) {
        let request = &mut self.0[index];
        let gives_up = random.below(4) == 0;
        request.in_flight = false;
        request.done = is_done || gives_up;
        request.at = retry_at;
    }

    pub fn is_done(&self) -> bool {
        self.0.iter().all(|request| request.done)
    }

    /// Returns when the next request is sent.
    pub fn next(&self, now: Millis) -> Option<Millis> {
        self.0.iter().filter(|request| !request.done && !request.in_flight).map(|request| request.at.max(now + 1)).min()
    }
}
