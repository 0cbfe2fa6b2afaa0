//! The seeded scheduler: every storage, output and clock step of every task waits here until it is its turn. One thread, no
//! real time; the same seed gives the same run.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use session_tracking::session::Millis;

use crate::support::Seeded;

/// Shared by all that runs in one simulated world.
pub struct Engine(Mutex<State>);

pub struct State {
    pub random: Seeded,
    /// True time; workers' clocks differ from it.
    pub now: Millis,
    /// The task that is being polled.
    pub task: usize,
    /// Faults of a thousand steps.
    pub faults: usize,
    /// While the table hardly answers.
    pub brown_out: std::ops::Range<Millis>,
    tickets: Vec<Ticket>,
    next: u64,
    granted: Option<u64>,
}

/// A step that waits for its turn.
struct Ticket {
    id: u64,
    task: usize,
    ready_at: Millis,
    waker: Waker,
}

/// What goes wrong at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// It fails and has no effect.
    Before,
    /// It takes effect, and its answer is lost.
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
            next: 0,
            granted: None,
        }))
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub fn below(&self, limit: usize) -> usize {
        self.state().random.below(limit)
    }

    /// Waits for this step's turn, at least so many milliseconds away.
    pub fn step(&self, delay: Millis) -> Step<'_> {
        Step { engine: self, delay, id: None }
    }

    /// What goes wrong at this step.
    pub fn fault(&self) -> Fault {
        let mut state = self.state();
        let faults = if state.brown_out.contains(&state.now) { 900 } else { state.faults };
        match state.random.below(1000) {
            roll if roll >= faults => Fault::None,
            roll if roll % 2 == 0 => Fault::Before,
            _ => Fault::After,
        }
    }

    /// Lets one waiting step go on; the task to poll for it. None if no step is ready yet.
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

    /// When the next waiting step is ready.
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
                let id = state.next;
                state.next += 1;
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
