//! Explains what [`Timeline::apply`] would decide. It places the events in a copy of the timeline by the same code, and reads what
//! that code compared. So there is no second implementation of the rules that could differ.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::ids::primary_ids;
use super::known_events::ByFingerprint;
use super::late::{LateDecision, Span};
use super::{
    Arrival, Assignment, Check, Compared, Comparison, Correction, ExplainedSession, Explanation, Recalled, Rule, Split,
    Timeline,
};
use crate::attribution::Source;
use crate::config::SessionConfig;
use crate::model::{Activity, Decision, Entry, Kind, SessionState};
use crate::rules::fold_with_decisions;
use crate::session::{Millis, Reason};

impl Timeline {
    /// Returns what [`Timeline::apply`] would decide about each arrival, and why. `recalled` is as there. Changes nothing.
    pub fn explain(
        &self,
        arrivals: &[Arrival],
        recalled: impl Into<Recalled>,
        config: &SessionConfig,
    ) -> Vec<Explanation> {
        let recalled = recalled.into();
        let known_ids = self.ids().chain(recalled.sessions.iter().flat_map(SessionState::ids)).collect();
        let mut placed = self.clone();
        let mut late = Vec::new();
        let assignments = placed.place(arrivals, recalled, config, Some(&mut late)).assignments;
        let mut explainer = Explainer::new(self, &placed, known_ids, late, config);
        arrivals.iter().zip(assignments).map(|(arrival, assignment)| explainer.explain(arrival, assignment)).collect()
    }
}

/// What is known about events after they were placed.
struct Explainer<'t> {
    before: &'t Timeline,
    config: &'t SessionConfig,
    /// The ids of the sessions that were there before.
    known_ids: HashSet<Uuid>,
    late: ByFingerprint<LateDecision>,
    /// The decisions about unfinalized events, each with the entry that it is about. The entry of a duplicate can have another time.
    decisions: ByFingerprint<(Decision, Option<Uuid>, &'t Entry)>,
    /// The keep-alive events that are known, or were explained already.
    known_keep_alive: HashSet<u64>,
    merges: HashMap<Uuid, Vec<Uuid>>,
    splits: HashMap<Uuid, Vec<Split>>,
}

impl<'t> Explainer<'t> {
    fn new(
        before: &'t Timeline,
        placed: &'t Timeline,
        known_ids: HashSet<Uuid>,
        late: Vec<LateDecision>,
        config: &'t SessionConfig,
    ) -> Self {
        let previous = placed.previous.as_ref();
        let (views, decisions) = fold_with_decisions(previous, placed.open.as_ref(), &placed.unfinalized, config);
        let ids = primary_ids(&placed.anchors, &views);
        let id_of = |decision: &Decision| match decision.before.as_ref()?.view {
            Some(view) => Some(ids[view]),
            None => previous.map(|previous| previous.id),
        };
        let decided = placed.unfinalized.iter().zip(decisions).map(|(entry, decision)| {
            let id = id_of(&decision);
            (entry.uuid.fingerprint(), (decision, id, entry))
        });
        let (mut merges, mut splits) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        for correction in &placed.corrections[before.corrections.len()..] {
            match *correction {
                Correction::Merged { from, into, .. } => merges.entry(into).or_default().push(from),
                Correction::Split { from, into, .. } => {
                    [from, into].into_iter().for_each(|id| splits.entry(id).or_default().push(Split { from, into }));
                }
            }
        }
        let decisions = decided.collect();
        let late = late.into_iter().map(|decision| (decision.fingerprint, decision)).collect();
        let is_keep_alive = |entry: &&Entry| entry.kind == Kind::KeepAlive;
        let known = before.unfinalized.iter().filter(is_keep_alive).map(|entry| entry.uuid.fingerprint());
        Self { before, config, known_ids, late, decisions, known_keep_alive: known.collect(), merges, splits }
    }

    fn explain(&mut self, arrival: &Arrival, assignment: Option<Assignment>) -> Explanation {
        let entry = &arrival.entry;
        let fingerprint = entry.uuid.fingerprint();
        // A late keep-alive event is not among the decisions, and is not remembered either.
        let is_keep_alive =
            !arrival.passive && entry.kind == Kind::KeepAlive && self.decisions.contains_key(&fingerprint);
        let is_known_keep_alive = is_keep_alive && !self.known_keep_alive.insert(fingerprint);
        let is_duplicate = is_known_keep_alive || assignment.as_ref().is_some_and(|assignment| assignment.is_duplicate);
        let late = self.late.get(&fingerprint).filter(|_| !arrival.passive && !is_duplicate);
        let decided = self.decisions.get(&fingerprint).filter(|_| !arrival.passive && late.is_none());
        let rule = match (&assignment, late, decided) {
            (None, ..) => Rule::NoSession,
            (Some(_), Some(late), _) => {
                if late.joins {
                    Rule::LateJoins
                } else {
                    Rule::LateBegins
                }
            }
            (Some(_), ..) if is_duplicate => Rule::Duplicate,
            (Some(_), None, Some((decision, ..))) => decision.reason.map_or(Rule::Continues, Rule::Begins),
            (Some(_), None, None) => Rule::Annotated,
        };
        let changes = assignment.as_ref().filter(|_| !matches!(rule, Rule::Duplicate | Rule::Annotated));
        let id = changes.map(|assignment| assignment.session_id);
        // Each is told once, with the first event of its session: a long visit can merge hundreds of sessions.
        let merges = id.and_then(|id| self.merges.remove(&id)).unwrap_or_default();
        let splits = id.and_then(|id| self.splits.remove(&id)).unwrap_or_default();
        Explanation {
            uuid: entry.uuid.to_string(),
            event_time: entry.at,
            received_at: arrival.received_at,
            rule,
            is_late: assignment.as_ref().is_some_and(|assignment| assignment.is_late),
            watermark: Some(self.before.watermark).filter(|&watermark| watermark > Millis::MIN),
            allowed_lateness_ms: self.config.lateness_ms(),
            session_before: match late {
                Some(late) => late.before.as_ref().map(|span| self.after_span(span, entry)),
                None => decided.and_then(|(decision, id, entry)| self.after_session(decision, (*id)?, entry)),
            },
            session_after: late.and_then(|late| Some(self.before_span(late.after.as_ref()?, entry))),
            merges,
            splits,
            session: assignment.map(|assignment| self.session(&assignment)),
        }
    }

    fn session(&self, assignment: &Assignment) -> ExplainedSession {
        ExplainedSession {
            id: assignment.session_id,
            is_new: !self.known_ids.contains(&assignment.session_id),
            is_start: assignment.is_start,
            reason: assignment.reason,
            number: assignment.number,
            previous_session_id: assignment.previous,
            started_at: assignment.started_at,
        }
    }

    /// Compares an event with the session before it, as the fold does.
    fn after_session(&self, decision: &Decision, session_id: Uuid, entry: &Entry) -> Option<Comparison> {
        let before = decision.before.as_ref()?;
        let Activity { started_at, last_activity, event_count, ended_by_request } = before.activity;
        let mut rules = vec![Check { rule: Reason::Explicit, holds: ended_by_request, compared: None }];
        rules.extend(self.time_checks(entry.at - last_activity, entry.at - started_at));
        let (session, event) = (self.config.day(last_activity), self.config.day(entry.at));
        if self.config.midnight.is_some() {
            let holds = self.config.is_other_day(last_activity, entry.at);
            rules.push(Check { rule: Reason::Midnight, holds, compared: Some(Compared::Days { session, event }) });
        }
        if let Some(max_events) = self.config.max_events {
            let compared = Some(Compared::Count { events: event_count, max_events });
            rules.push(Check { rule: Reason::MaxEvents, holds: self.config.is_full(event_count), compared });
        }
        if let Some(attribution) = before.attribution.as_ref().filter(|_| entry.kind != Kind::KeepAlive) {
            rules.extend(self.source_checks(&attribution.source(), &entry.source()));
        }
        Some(Comparison { session_id, started_at, last_activity, is_finalized: before.view.is_none(), rules })
    }

    /// Compares a late event with the session before it or around it.
    fn after_span(&self, span: &Span, entry: &Entry) -> Comparison {
        let mut rules = self.time_checks(entry.at - span.last, entry.at.max(span.last) - span.start);
        // A session of any length takes an event within it, and one that is not over is not extended.
        rules[1].holds = entry.at > span.last && !span.fits(span.start, entry.at, self.config);
        rules.extend(self.source_checks(&span.attribution.source(), &entry.source()));
        Comparison {
            session_id: span.id,
            started_at: span.start,
            last_activity: span.last,
            is_finalized: span.is_over,
            rules,
        }
    }

    /// Compares a late event with the session after it.
    fn before_span(&self, span: &Span, entry: &Entry) -> Comparison {
        let mut rules = self.time_checks(span.start - entry.at, span.last - entry.at);
        rules[1].holds = !span.fits(entry.at, span.last, self.config);
        rules.extend(self.source_checks(&entry.source(), &span.attribution.source()).map(swap));
        Comparison {
            session_id: span.id,
            started_at: span.start,
            last_activity: span.last,
            is_finalized: span.is_over,
            rules,
        }
    }

    /// Returns the rules of the timeout and of the maximum duration.
    fn time_checks(&self, gap: Millis, duration: Millis) -> Vec<Check> {
        let config = self.config;
        let check = |rule, holds, ms, max_ms| Check { rule, holds, compared: Some(Compared::Time { ms, max_ms }) };
        vec![
            check(Reason::Timeout, config.is_timeout(gap), gap, config.timeout_ms()),
            check(Reason::MaxDuration, config.is_too_long(duration), duration, config.max_duration_ms()),
        ]
    }

    /// Returns the rules of sources that are on. `first` is the earlier source.
    fn source_checks(&self, first: &Source<'_>, next: &Source<'_>) -> impl Iterator<Item = Check> {
        let config = self.config;
        let click = |source: &Source<'_>| source.click.map(|hash| format!("{hash:x}"));
        let utm = config.new_session_on_utm_change.then(|| Check {
            rule: Reason::UtmChange,
            holds: first.has_other_utm(next, config),
            compared: Some(Compared::Campaigns { session: first.utm.cloned(), event: next.utm.cloned() }),
        });
        let referrer = config.new_session_on_referrer_change.then(|| Check {
            rule: Reason::ReferrerChange,
            holds: first.has_other_referrer(next, config),
            compared: Some(Compared::Referrers { session: first.referrer.cloned(), event: next.referrer.cloned() }),
        });
        let click = config.new_session_on_click_id_change.then(|| Check {
            rule: Reason::ClickIdChange,
            holds: first.has_other_click(next, config),
            compared: Some(Compared::Clicks { session: click(first), event: click(next) }),
        });
        [utm, referrer, click].into_iter().flatten()
    }
}

/// Exchanges the values of the session and of the event, which came first.
fn swap(check: Check) -> Check {
    let compared = check.compared.map(|compared| match compared {
        Compared::Campaigns { session, event } => Compared::Campaigns { session: event, event: session },
        Compared::Referrers { session, event } => Compared::Referrers { session: event, event: session },
        Compared::Clicks { session, event } => Compared::Clicks { session: event, event: session },
        other => other,
    });
    Check { compared, ..check }
}
