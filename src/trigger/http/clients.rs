//! Requests of other tracking clients ([`crate::dialect`]).
//!
//! A client does not read the events in an answer, so annotated events go to `output` and unusable ones to `rejects`, as for a
//! queue. The answer is what the client takes for success, also if events are unusable: a 4xx makes some clients lose the whole
//! batch, and ends the process of others.

use futures_util::future::join;

use super::super::Ingest;
use super::super::batch::{Counts, EventOutcome, IncomingEvent, Placed, resolve_bounded};
use super::super::bounds::{Bounds, Exceeded, Excess};
use super::super::message::reject::Reject;
use super::super::process::one_line;
use super::super::split_body::RawEvent;
use super::write_key::{self, UNKNOWN_KEY, USE_A_KEY};
use super::{Answer, Request};
use crate::clock::Clock;
use crate::dialect::answer::{self, ClientOutcome, Report};
#[cfg(feature = "replay")]
use crate::dialect::recordings::Recordings;
use crate::dialect::{self, Endpoint, Family, Head, Item, Translation, sniff, translate};
use crate::event::{Delivery, Event, Origin, RejectCode, Rejection};
use crate::output::Output;
use crate::session::Millis;
use crate::storage::SessionStorage;
use crate::timeline::Assignment;

const TRY_AGAIN: &str = "events may not be applied; it is safe to send the whole request again";

/// Answers a request to an endpoint of a client.
pub(super) async fn handle<S: SessionStorage, C: Clock, O: Output>(
    ingest: &Ingest<S, C, O>,
    request: &Request<'_>,
    endpoint: Endpoint,
    deadline: Millis,
) -> (Answer, Counts) {
    let body = request.base64_removed();
    let header = |name: &str| request.header(name);
    let head = Head {
        method: &request.method,
        path: &request.path,
        query: &request.query(),
        header: &header,
        body: &body,
        received_at: request.received_at,
    };
    #[cfg(feature = "replay")]
    match (endpoint, ingest.manager.replay_store()) {
        (Endpoint::PostHogRecordings, None) => {
            return super::refused(
                404,
                "replay_off",
                "session replay is off; the operator turns it on (docs/replay.md)",
            );
        }
        (Endpoint::PostHogConfig, Some(_)) => {
            return (Answer::of(answer::config_with_recording()), Counts::default());
        }
        _ => {}
    }
    if !endpoint.carries_events() {
        return (Answer::of(answer::without_events(endpoint, &head)), Counts::default());
    }
    let text = match sniff::text(endpoint, &head) {
        Ok(text) => text,
        Err(why) => return unreadable(ingest, request, endpoint, &head, why).await,
    };
    #[cfg(feature = "replay")]
    let (text, recordings) = {
        let taken_out = |store: &crate::replay::ReplayStore| Recordings::take_out(endpoint, &text, store.inputs());
        match ingest.manager.replay_store().and_then(taken_out) {
            Some((rest, recordings)) => (std::borrow::Cow::Owned(rest), recordings),
            None => (text, Recordings::default()),
        }
    };
    match translate(endpoint, &head, &text) {
        #[cfg(feature = "replay")]
        Ok(mut translation) => {
            recordings.join(&mut translation);
            ingest_events(ingest, request, &head, &text, translation, deadline).await
        }
        #[cfg(not(feature = "replay"))]
        Ok(translation) => ingest_events(ingest, request, &head, &text, translation, deadline).await,
        Err(why) => unreadable(ingest, request, endpoint, &head, why).await,
    }
}

/// Answers a body that cannot be read. It goes to the rejects, and the client is told that all is well, because sending it again
/// would not help.
async fn unreadable<S: SessionStorage, C: Clock, O: Output>(
    ingest: &Ingest<S, C, O>,
    request: &Request<'_>,
    endpoint: Endpoint,
    head: &Head<'_>,
    why: Rejection,
) -> (Answer, Counts) {
    let family = endpoint.family();
    let counts = Counts::only(why.code.name());
    if why.code == RejectCode::TooLarge && family.halves_after_413() {
        return (failed(family, 413, "body_too_large", &why.message), counts);
    }
    // The key can be in the body that cannot be read. But if nobody needed a key for that, anybody could fill the rejects.
    if write_key::project(ingest.manager.projects(), || write_key::of_head(request)).is_err() {
        return unknown_key(family);
    }
    let reject = Reject {
        source: family.name(),
        message_id: &request.id,
        code: why.code.name(),
        why: &why.message,
        index: None,
        #[cfg(not(feature = "replay"))]
        raw: head.body,
        // What a recorder saw is not stored unmasked.
        #[cfg(feature = "replay")]
        raw: if endpoint == Endpoint::PostHogRecordings { b"" } else { head.body },
    };
    match ingest.rejects.send(&[reject.line()]).await.is_empty() {
        true => (Answer::of(answer::success(family, head, "", &Report::default())), counts),
        false => (failed(family, 503, "try_again", TRY_AGAIN), counts),
    }
}

/// Applies the events of a request, and sends them on.
async fn ingest_events<S: SessionStorage, C: Clock, O: Output>(
    ingest: &Ingest<S, C, O>,
    request: &Request<'_>,
    head: &Head<'_>,
    text: &str,
    translation: Translation<'_>,
    deadline: Millis,
) -> (Answer, Counts) {
    let Translation { family, items, write_key: key } = translation;
    let key = || key.or_else(|| write_key::of_head(request));
    let Ok(project) = write_key::project(ingest.manager.projects(), key) else { return unknown_key(family) };
    // A client that loses a batch that is refused, or sends it again for ever, has only the events in excess rejected.
    let excess = if family.halves_after_413() { Excess::Refused } else { Excess::Rejected };
    let bounds = Bounds { access: ingest.access_of(request), excess };
    let (outcomes, placed) = match resolve(ingest, request, project, &items, bounds, deadline).await {
        Ok(resolved) => resolved,
        Err(why) => return (failed(family, 413, why.code(), why.message()), Counts::only(why.code())),
    };
    let mut counts = Counts { placed, ..Counts::default() };
    let mut report = Report::default();
    let (mut events, mut rejects) = (Lines::default(), Lines::default());
    for (index, (item, outcome)) in items.into_iter().zip(outcomes).enumerate() {
        let outcome = match outcome {
            EventOutcome::Applied(line) => {
                counts.applied += 1;
                events.push(line, index);
                ClientOutcome::Applied
            }
            EventOutcome::Rejected(why) => {
                counts.rejected += 1;
                counts.code(why.code.name());
                rejects.push(reject_line(family, &request.id, index, &item.source, &why), index);
                ClientOutcome::Rejected
            }
            EventOutcome::Failed(error) => {
                counts.failed += 1;
                counts.code(error.code());
                ClientOutcome::Failed
            }
        };
        report.events.push((item.id, outcome));
    }
    // Events that are applied are sent on even if others failed: a beacon is never sent again, and sending an event twice is
    // idempotent for consumers.
    let (unsent_events, unsent_rejects) =
        join(ingest.output.send(&events.lines), ingest.rejects.send(&rejects.lines)).await;
    counts.not_accepted(unsent_events.len());
    for (sent, unsent) in [(&events, unsent_events), (&rejects, unsent_rejects)] {
        for owner in unsent.into_iter().filter_map(|line| sent.owners.get(line)) {
            report.events[*owner].1 = ClientOutcome::Failed;
        }
    }
    (answer_to(family, head, text, &report), counts)
}

/// Resolves the events that could be translated. Returns an outcome for every event; that of an applied one is its line.
async fn resolve<S: SessionStorage, C: Clock, O: Output>(
    ingest: &Ingest<S, C, O>,
    request: &Request<'_>,
    project: Option<&str>,
    items: &[Item<'_>],
    bounds: Bounds,
    deadline: Millis,
) -> Result<(Vec<EventOutcome<String>>, Placed), Exceeded> {
    // Anyone can reach these paths, so an event's own `received_at` is not trusted.
    let delivery = Delivery { received_at: request.received_at, trusts_received_at: false };
    // A client in a browser is the visitor's own; a library on a server is told by its agent.
    let viewer = request.viewer(false);
    let origin = |index| Origin { delivery, id: &request.id, index, sent_at: None, project, viewer: viewer.as_ref() };
    let incoming: Vec<IncomingEvent<'_>> = items
        .iter()
        .enumerate()
        .filter_map(|(index, item)| {
            let raw_event = RawEvent::Translated(item.event.as_ref().ok()?);
            Some(IncomingEvent { raw_event, origin: origin(index) })
        })
        .collect();
    let annotate = |event: &Event<'_>, assignment: Option<&Assignment>| one_line(event.annotate(assignment));
    let (resolved, placed) = resolve_bounded(&ingest.manager, incoming.into_iter(), bounds, deadline, annotate).await?;
    let mut resolved = resolved.into_iter();
    let outcome = |item: &Item<'_>| match &item.event {
        Err(why) => Some(EventOutcome::Rejected(why.clone())),
        Ok(_) => resolved.next(),
    };
    Ok((items.iter().filter_map(outcome).collect(), placed))
}

fn reject_line(family: Family, id: &str, index: usize, source: &str, why: &Rejection) -> String {
    let raw = source.as_bytes();
    let code = why.code.name();
    Reject { source: family.name(), message_id: id, code, why: &why.message, index: Some(index), raw }.line()
}

/// Returns the answer to events that were applied, rejected or not applied.
fn answer_to(family: Family, head: &Head<'_>, text: &str, report: &Report) -> Answer {
    let failures = report.count(ClientOutcome::Failed);
    // In PostHog's v1 the client sends only those events again that the answer names.
    let is_named = family == Family::PostHogV1 && failures < report.events.len();
    match failures > 0 && !is_named {
        true => failed(family, 503, "try_again", TRY_AGAIN),
        false => Answer::of(answer::success(family, head, text, report)),
    }
}

/// Returns the answer to a request without a known key.
fn unknown_key(family: Family) -> (Answer, Counts) {
    (failed(family, 401, UNKNOWN_KEY, USE_A_KEY), Counts::only(UNKNOWN_KEY))
}

/// Returns the answer to a request that is refused or failed.
pub(super) fn failed(family: Family, status: u16, code: &str, message: &str) -> Answer {
    Answer::of(dialect::answer::failure(family, status, code, message))
}

/// Lines of JSON to send, and the index of the event that each belongs to.
#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    owners: Vec<usize>,
}

impl Lines {
    fn push(&mut self, line: String, owner: usize) {
        self.lines.push(line);
        self.owners.push(owner);
    }
}
