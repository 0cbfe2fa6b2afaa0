//! Explains what a batch of events would do, without doing it.

use futures_util::StreamExt;
use futures_util::stream;

use super::{Base, Group, Groups, SessionManager, VISITORS_PER_CHUNK};
use crate::clock::Clock;
use crate::config::ProjectRules;
use crate::event::{Event, Role};
use crate::session::Millis;
use crate::storage::{SessionError, SessionStorage};
use crate::timeline::{Explanation, Recalled, Rule, Timeline};

impl<S: SessionStorage, C: Clock> SessionManager<S, C> {
    /// Returns what [`SessionManager::resolve`] would decide about each event of a batch now, and why. Reads what `resolve` would
    /// read, and writes nothing.
    ///
    /// A visitor's events that `resolve` could not apply, because the visitor's item is full, are explained as if it had room.
    pub async fn explain(&self, events: &[Event<'_>], deadline: Millis) -> Vec<Result<Explanation, SessionError>> {
        let mut explanations: Vec<_> = events.iter().map(|event| Ok(self.without_session(event))).collect();
        let groups = Groups::of(events).of_visitors;
        let explained: Vec<_> = groups.iter().map(|group| self.explain_group(group, events, deadline)).collect();
        let mut done = stream::iter(explained).buffer_unordered(VISITORS_PER_CHUNK);
        while let Some((group, explained)) = done.next().await {
            match explained {
                Ok(explained) => {
                    let indexes = group.indexes.iter().copied();
                    indexes.zip(explained).for_each(|(index, explanation)| explanations[index] = Ok(explanation));
                }
                Err(error) => group.indexes.iter().for_each(|&index| explanations[index] = Err(error.clone())),
            }
        }
        explanations
    }

    /// Explains a visitor's events.
    async fn explain_group<'g>(
        &self,
        group: &'g Group,
        events: &[Event<'_>],
        deadline: Millis,
    ) -> (&'g Group, Result<Vec<Explanation>, SessionError>) {
        (group, self.explained(group, events, deadline).await)
    }

    async fn explained(
        &self,
        group: &Group,
        events: &[Event<'_>],
        deadline: Millis,
    ) -> Result<Vec<Explanation>, SessionError> {
        if self.is_time_up(deadline) {
            return Err(SessionError::Deadline);
        }
        let (visitor, config) = (&group.visitor, self.rules_of(&group.visitor));
        let base = Base { stored: self.read(visitor, self.clock.now()).await?, is_speculative: false };
        let arrivals = self.arrivals(group, events, &base);
        let stored = base.stored.map(|stored| stored.timeline);
        let mut timeline = stored.unwrap_or_else(|| Timeline::new(visitor.clone()));
        let sessions = match timeline.recall_range(&arrivals, config) {
            Some((from, to)) => self.storage.archived(visitor, from, to).await?,
            None => Vec::new(),
        };
        let pages = self.pages(visitor, &timeline.sessions_to_look_up(&arrivals, &sessions, config)).await?;
        let mut recalled = Recalled { sessions, pages };
        // The pages would be stored now.
        let _ = timeline.move_to_pages(&mut recalled, self.page_size);
        Ok(timeline.explain(&arrivals, recalled, config))
    }

    /// Returns the explanation of an event that belongs to no visitor.
    fn without_session(&self, event: &Event<'_>) -> Explanation {
        let rule = match event.role {
            Role::Nobody => Rule::Nobody,
            Role::Bot => Rule::Bot,
            Role::Lifecycle => Rule::Lifecycle,
            Role::Activity(_) | Role::Passive => Rule::NoSession,
        };
        let lateness = self.projects.rules_of(&event.project).lateness_ms();
        Explanation::without_session(&event.uuid, event.at, event.received_at, rule, lateness)
    }
}
