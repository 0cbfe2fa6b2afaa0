//! The seeded scheduler. Every storage, output and clock step of every task waits here for its turn. There is one thread and no
//! real time; the same seed gives the same run.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use session_tracking::session::Millis;

use crate::support::Seeded;

/// The scheduler of one simulated world.
pub struct Engine(Mutex<State>);

pub struct State {
    pub random: Seeded,
    /// The true time. The workers' clocks differ from it.
    pub now: Millis,
    /// The task that is being polled.
    pub task: usize,
    /// How many of a thousand steps fail.
    pub faults: usize,
    /// The time in which the table hardly answers.
    pub brown_out: std::ops::Range<Millis>,
    tickets: Vec<Ticket>,
    next_id: u64,
    /// The ticket whose turn it is.
    granted: Option<u64>,
}

/// A step that waits for its turn.
struct Ticket {
    id: u64,
    task: usize,
    ready_at: Millis,
    waker: Waker,
}

/// How a step fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// It has no effect.
    Before,
    /// It takes effect, but its answer is lost.
    After,
}

impl Engine {
    pub fn new(seed: u64, now: Millis) -> Self {
        Self(Mutex::new(State {
            random: Seeded(seed),
            now,
            task: 0,
            faults: 0,
            brown_out: 0..0,
            tickets: Vec::new(),
            next_id: 0,
            granted: None,
        }))
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub fn below(&self, limit: usize) -> usize {
        self.state().random.below(limit)
    }

    /// Waits for a step's turn, for at least `delay` milliseconds.
    pub fn step(&self, delay: Millis) -> Step<'_> {
        Step { engine: self, delay, id: None }
    }

    /// Draws how this step fails.
    pub fn fault(&self) -> Fault {
        let mut state = self.state();
        let faults = if state.brown_out.contains(&state.now) { 900 } else { state.faults };
        match state.random.below(1000) {
            roll if roll >= faults => Fault::None,
            roll if roll % 2 == 0 => Fault::Before,
            _ => Fault::After,
        }
    }

    /// Gives one waiting step its turn. Returns the task to poll for it, or `None` if no step is ready.
    pub fn grant(&self) -> Option<usize> {
        let mut state = self.state();
        let now = state.now;
        let ready = state.tickets.iter().filter(|ticket| ticket.ready_at <= now).count();
        if ready == 0 {
            return None;
        }
        let turn = state.random.below(ready);
        let at = (0..state.tickets.len()).filter(|&at| state.tickets[at].ready_at <= now).nth(turn)?;
        let ticket = state.tickets.swap_remove(at);
        state.granted = Some(ticket.id);
        state.task = ticket.task;
        drop(state);
        ticket.waker.wake();
        Some(ticket.task)
    }

    /// Returns when the next waiting step is ready.
    pub fn next_ready(&self) -> Option<Millis> {
        self.state().tickets.iter().map(|ticket| ticket.ready_at).min()
    }
}

/// A wait for a step's turn.
pub struct Step<'e> {
    engine: &'e Engine,
    delay: Millis,
    id: Option<u64>,
}

impl Future for Step<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.engine.state();
        match self.id {
            None => {
                let id = state.next_id;
                state.next_id += 1;
                let (task, ready_at) = (state.task, state.now + self.delay);
                state.tickets.push(Ticket { id, task, ready_at, waker: context.waker().clone() });
                drop(state);
                self.id = Some(id);
                Poll::Pending
            }
            Some(id) if state.granted == Some(id) => {
                state.granted = None;
                drop(state);
                self.id = None;
                Poll::Ready(())
            }
            Some(id) => {
                if let Some(ticket) = state.tickets.iter_mut().find(|ticket| ticket.id == id) {
                    ticket.waker = context.waker().clone();
                }
                Poll::Pending
            }
        }
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.engine.state().tickets.retain(|ticket| ticket.id != id);
        }
    }
}
