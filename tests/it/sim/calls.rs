//! Calls that end sessions: their callers send again until they are answered, or give up.

use session_tracking::session::{Millis, Visitor};

use super::source::SimEvent;
use crate::support::Seeded;

/// A call that ends a session of a visitor.
#[derive(Debug)]
pub struct Call {
    pub visitor: Visitor,
    /// The session that is meant: chosen when the call is first made.
    pub id: Option<String>,
    pub at: Millis,
    pub in_flight: bool,
    pub done: bool,
    pub tries: u32,
}

/// The calls that are not done.
#[derive(Debug)]
pub struct Calls(pub Vec<Call>);

impl Calls {
    /// In two worlds of three there are calls: when an event of their visitor arrives, or some time after.
    pub fn plan(events: &[SimEvent], timeout: Millis, random: &mut Seeded) -> Self {
        let call = |random: &mut Seeded| {
            let event = &events[random.below(events.len())];
            let after = [0, 1, timeout / 3, timeout, 2 * timeout][random.below(5)];
            let (visitor, at) = (event.visitor.clone(), event.arrives_at + after);
            Call { visitor, id: None, at, in_flight: false, done: false, tries: 0 }
        };
        Self((0..[0, 1, 3][random.below(3)]).map(|_| call(random)).collect())
    }

    /// The next call that is to be made.
    pub fn take(&mut self, now: Millis) -> Option<usize> {
        let at = self.0.iter().position(|call| !call.done && !call.in_flight && call.at <= now)?;
        self.0[at].in_flight = true;
        self.0[at].tries += 1;
        Some(at)
    }

    /// A call was answered, or nobody will answer it any more.
    pub fn finish(&mut self, at: usize, is_done: bool, again_at: Millis, random: &mut Seeded) {
        let call = &mut self.0[at];
        let gives_up = random.below(4) == 0;
        call.in_flight = false;
        call.done = is_done || gives_up;
        call.at = again_at;
    }

    pub fn is_done(&self) -> bool {
        self.0.iter().all(|call| call.done)
    }

    /// When the next call can be made.
    pub fn next(&self, now: Millis) -> Option<Millis> {
        self.0.iter().filter(|call| !call.done && !call.in_flight).map(|call| call.at.max(now + 1)).min()
    }
}
