//! STUB
use crate::clock::Clock;
use crate::config::SessionConfig;
use crate::event::Event;
use crate::session::{Millis, Session};
use crate::storage::{SessionError, SessionStorage};
use crate::timeline::Assignment;

/// What became of an event.
#[derive(Debug)]
pub enum Outcome {
    /// It is applied, now or before; none where it belongs to no session.
    Placed(Option<Assignment>),
    /// It is not known to be applied: its source has to send it again.
    Failed(SessionError),
}

pub struct SessionManager<S, C> {
    pub storage: S,
    pub clock: C,
    pub config: SessionConfig,
}

impl<S: SessionStorage, C: Clock> SessionManager<S, C> {
    pub fn config(&self) -> &SessionConfig {
        &self.config
    }
    pub fn clock(&self) -> &C {
        &self.clock
    }
    /// One outcome per event, in order. `deadline`: work stops in time before it.
    pub async fn resolve(&self, _events: &[Event<'_>], _deadline: Millis) -> Vec<Outcome> {
        todo!()
    }
    pub async fn get(&self, _session_id: &str) -> Result<Session, SessionError> {
        todo!()
    }
    pub async fn end_session(&self, _session_id: &str) -> Result<Session, SessionError> {
        todo!()
    }
}
