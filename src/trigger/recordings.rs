//! Session replay in the step that all triggers share: takes the recorded events out of raw events, and keeps them once it is known
//! whose they are and when they happened. What is left of an event is resolved like any other.

use std::collections::BTreeMap;

use super::rewritten::{Rewritten, without_recording};
use super::split_body::RawEvent;
use crate::clock::Clock;
use crate::config::ProjectRules;
use crate::event::{Event, Origin, Rejection, Role, time_of_json};
use crate::manager::{Outcome, SessionManager};
use crate::replay::Inputs;
use crate::replay::chunk::StoredEvent;
use crate::replay::recording::{Budget, Recording, TakenOut, take_out};
use crate::session::Visitor;
use crate::storage::SessionStorage;

/// The recordings of a batch.
pub(super) struct Recordings {
    /// What becomes of the values of inputs; `None` if replay is off.
    inputs: Option<Inputs>,
    budget: Budget,
    /// The id of the request or message that the budget is for.
    delivery: String,
    /// The recordings, each with the index of its event in the batch.
    found: Vec<(usize, Recording)>,
}

impl Recordings {
    /// Returns no recordings yet.
    pub fn of<S: SessionStorage, C: Clock>(manager: &SessionManager<S, C>) -> Self {
        let inputs = manager.replay_store().map(crate::replay::ReplayStore::inputs);
        Self { inputs, budget: Budget::default(), delivery: String::new(), found: Vec::new() }
    }

    /// Takes the recording out of the raw event with this index. Returns the event without it, or why it cannot be used. Returns
    /// `None` for any other event, and for one of another client, whose recording was taken out when it was translated.
    pub fn take_out(
        &mut self,
        index: usize,
        raw_event: &RawEvent<'_>,
        origin: Origin<'_>,
        rules: &crate::config::Projects,
    ) -> Option<Result<Rewritten, Rejection>> {
        let inputs = self.inputs?;
        if let RawEvent::Translated(event) = raw_event {
            self.found.extend(event.recording.clone().map(|recording| (index, recording)));
            return None;
        }
        let json = std::str::from_utf8(raw_event.bytes()).ok()?;
        if self.delivery != origin.id {
            (self.budget, self.delivery) = (Budget::default(), origin.id.to_owned());
        }
        let TakenOut { json, recording } = take_out(json, &mut self.budget, inputs)?;
        Some(recording.map(|recording| {
            self.found.extend(recording.map(|recording| (index, recording)));
            without_recording(json, origin, rules)
        }))
    }

    /// Keeps the recordings of the events that are applied. `rejections` has an entry for each raw event, `events` and `outcomes`
    /// for each one that was not rejected. The outcome of an event whose recording may not be kept becomes a failure.
    pub async fn keep<S: SessionStorage, C: Clock>(
        self,
        manager: &SessionManager<S, C>,
        rejections: &[Option<Rejection>],
        events: &[Event<'_>],
        outcomes: &mut [Outcome],
        deadline: i64,
    ) {
        if self.found.is_empty() {
            return;
        }
        // The index among the events of each raw event.
        let mut usable = 0..;
        let positions: Vec<Option<usize>> =
            rejections.iter().map(|rejection| if rejection.is_none() { usable.next() } else { None }).collect();
        let mut by_visitor: BTreeMap<Visitor, (Vec<usize>, Vec<StoredEvent>)> = BTreeMap::new();
        for (index, recording) in self.found {
            let Some(position) = positions.get(index).copied().flatten() else { continue };
            let event = &events[position];
            if !matches!(event.role, Role::Activity(_) | Role::Passive) {
                manager.drop_replay(recording.events.len());
            } else if matches!(outcomes[position], Outcome::Placed(_)) {
                let (positions, stored) = by_visitor.entry(event.visitor()).or_default();
                positions.push(position);
                stored.extend(placed(recording, event, manager.projects()));
            }
        }
        let (owners, recordings): (Vec<Vec<usize>>, BTreeMap<Visitor, Vec<StoredEvent>>) =
            by_visitor.into_iter().map(|(visitor, (positions, stored))| (positions, (visitor, stored))).unzip();
        for (positions, kept) in owners.into_iter().zip(manager.keep_replay(recordings, deadline).await) {
            if let Err(error) = kept {
                positions.into_iter().for_each(|position| outcomes[position] = Outcome::Failed(error.clone()));
            }
        }
    }
}

/// Returns the recorded events with their times by the service's clock: the event's own time was corrected by as much. Query
/// parameters that look like credentials are removed from their URLs.
fn placed(recording: Recording, event: &Event<'_>, rules: &impl ProjectRules) -> Vec<StoredEvent> {
    let stripped = &rules.rules_of(&event.project).strip_query_params;
    let correction = event.timestamp().and_then(time_of_json).map_or(0, |stated| event.at - stated);
    let stored = |recorded: crate::replay::recording::Recorded| StoredEvent {
        at: (recorded.stated_at + correction).max(0),
        stated_at: recorded.stated_at,
        event_type: recorded.event_type,
        data: stripped.strip(&recorded.data).unwrap_or(recorded.data),
    };
    recording.events.into_iter().map(stored).collect()
}
