//! `POST /v1/explain`: what would become of events, and why. It asks for credentials, because it tells what is stored about a visitor.

use super::reply::Answer;
use super::{Request, failure_status, refused, viewer_of, write_key};
use crate::clock::Clock;
use crate::event::{Delivery, Origin};
use crate::manager::SessionManager;
use crate::session::Millis;
use crate::storage::SessionStorage;
use crate::trigger::answer::quoted_len;
use crate::trigger::batch::{Counts, IncomingEvent, explain_events};
use crate::trigger::body::{Limits, form};
use crate::trigger::explain;
use crate::trigger::split_body::{Batch, split_body};

/// Explains the events of a body, which is as for `POST /events`.
pub(super) async fn handle<S: SessionStorage, C: Clock>(
    manager: &SessionManager<S, C>,
    request: &Request<'_>,
    deadline: Millis,
) -> (Answer, Counts) {
    let form = form(request.headers.content_type.as_deref());
    let body = form.and_then(|form| Ok((form, request.decoded()?)));
    let batch = match &body {
        Ok((form, body)) => split_body(body, *form, Limits::REQUEST.events),
        Err(error) => Err(*error),
    };
    let Batch { raw_events, sent_at } = match batch {
        Ok(batch) => batch,
        Err(why) => return refused(why.status(), why.code(), &why.to_string()),
    };
    let readable = body.as_ref().ok().map(|(_, body)| &**body);
    // The caller has credentials and needs no key. One that is known names the project, as for `POST /events`.
    let project =
        write_key::project(manager.projects(), || write_key::of_request(request, readable)).unwrap_or_default();
    let delivery = Delivery { received_at: request.received_at, trusts_received_at: false };
    let viewer = viewer_of(manager, request);
    let origin = |index| Origin { delivery, id: &request.id, index, sent_at, project, viewer: viewer.as_ref() };
    let incoming =
        raw_events.into_iter().enumerate().map(|(index, raw_event)| IncomingEvent { raw_event, origin: origin(index) });
    let outcomes = explain_events(manager, incoming, deadline).await;
    let Some(body) = explain::body(&outcomes, quoted_len) else {
        return refused(413, "answer_too_large", explain::TOO_LARGE_MESSAGE);
    };
    match explain::failure(&outcomes) {
        None => (Answer::new(200, body), Counts::default()),
        Some(why) => (Answer::new(failure_status(why), body), Counts::only(why.code())),
    }
}
