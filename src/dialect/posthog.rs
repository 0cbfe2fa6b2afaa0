//! PostHog: `{"api_key","batch":[…],"sent_at"}`, one event, or an array of events.

use std::borrow::Cow;

use serde_json::value::RawValue;
use uuid::Uuid;

use super::event::{Builder, ClientEvent, Standing};
use super::json::{Members, Object, array, events, fields, id, object, quoted, string};
use super::{Family, Head, Item, Translation, not_a_body};
use crate::event::{RejectCode, Rejection, time_of_json};
use crate::session::{Millis, datetime, rfc3339};

/// Libraries that send a batch again with the time of the first try. Their `sent_at` does not show whether their clock is wrong.
const STALE_LIBRARIES: [&str; 2] = ["posthog-node", "posthog-edge"];

/// The `distinct_id` of all visitors whose browsers may keep nothing (`cookieless_mode`).
const COOKIELESS: &str = "$posthog_cookieless";
/// Events about persons and groups.
const ABOUT_PERSONS: [&str; 7] =
    ["$identify", "$groupidentify", "$create_alias", "$merge_dangerously", "$set", "$set_once", "$unset"];

/// What holds for all events of a request.
struct Batch<'t> {
    /// When it was sent, as JSON.
    sent_at: Option<Cow<'t, str>>,
    received_at: Millis,
    /// The library, if a header names it. Otherwise, each event does.
    library: Option<String>,
}

/// Translates a body.
pub(super) fn translate<'t>(family: Family, head: &Head<'_>, text: &'t str) -> Result<Translation<'t>, Rejection> {
    let envelope = object(text);
    let needed = "the body is not PostHog's; send an event, an array of events, or `{\"batch\":[…]}`";
    let found = match &envelope {
        Some(envelope) => match envelope.get("batch") {
            Some(batch) => events(Some(batch.get()), needed)?,
            None => vec![whole(text)?],
        },
        None => events(Some(text), needed)?,
    };
    let header = |name| (head.header)(name).map(|value| Cow::Owned(quoted(&value)));
    // The oldest clients write the time of sending into the query. They keep it when they try again.
    let in_query = || head.parameter("_").filter(|_| head.parameter("retry_count").is_none()).map(Cow::Owned);
    let beside = envelope.as_ref().and_then(|envelope| envelope.given("sent_at")).map(|raw| raw.get().into());
    let sent_at = beside.or_else(|| header("posthog-request-timestamp")).or_else(in_query);
    let library = (head.header)("posthog-sdk-info").and_then(|info| info.split('/').next().map(str::to_owned));
    let batch = Batch { sent_at, received_at: head.received_at, library };
    let mut write_key = envelope.as_ref().and_then(key).or_else(|| head.bearer());
    let items = found.into_iter().map(|raw| {
        let fields = fields(raw);
        write_key = write_key.take().or_else(|| fields.as_ref().ok().and_then(event_key));
        Item {
            source: Cow::Borrowed(raw.get()),
            id: fields.as_ref().ok().and_then(|fields| fields.id("uuid")).map(Cow::into_owned),
            event: fields.and_then(|fields| event(fields, &batch)),
        }
    });
    let items = items.collect();
    Ok(Translation { family, write_key, items })
}

/// Returns the body as one raw value.
fn whole(text: &str) -> Result<&RawValue, Rejection> {
    serde_json::from_str(text).map_err(|_| not_a_body("the body is not JSON; send one object or an array of events"))
}

/// Returns the project's key that stands in an object.
fn key(fields: &Object<'_>) -> Option<String> {
    ["api_key", "token", "$token"].iter().find_map(|name| fields.string(name)).map(Cow::into_owned)
}

fn event_key(fields: &Object<'_>) -> Option<String> {
    key(fields).or_else(|| key(&fields.object("properties")))
}

/// Translates an event.
fn event<'t>(mut fields: Object<'t>, batch: &Batch<'t>) -> Result<ClientEvent, Rejection> {
    let mut properties = properties(&mut fields)?;
    let mut builder = Builder { name: fields.remove("event").and_then(string), ..Builder::default() };
    let library = properties.string("$lib").or_else(|| fields.string("library"));
    let library = library.or_else(|| batch.library.clone().map(Cow::Owned)).unwrap_or_default();
    identify(&mut builder, &fields, &properties, &library);
    builder.id = fields.remove("uuid").and_then(id);
    date(&mut builder, &mut fields, batch, STALE_LIBRARIES.contains(&&*library));
    for name in ["$session_id", "session_id"] {
        let own = properties.remove(name).or_else(|| fields.remove(name));
        builder.set_raw("$client_session_id", own);
    }
    for name in ["api_key", "token"] {
        fields.remove(name);
    }
    properties.remove("token");
    builder.set_raw("$window_id", fields.remove("window_id"));
    // What PostHog itself reads beside the properties, it also reads in them.
    let (of_posthog, others): (Object<'_>, Object<'_>) =
        fields.into_iter().partition(|(name, _)| name.starts_with('$') || name == "distinct_id");
    builder.add_all(properties);
    builder.add_all(of_posthog);
    builder.keep(&others);
    builder.finish("`distinct_id`")
}

/// Takes the event's properties.
fn properties<'t>(fields: &mut Object<'t>) -> Result<Object<'t>, Rejection> {
    match fields.remove("properties").filter(|raw| raw.get() != "null") {
        None => Ok(Object::new()),
        Some(raw) => object(raw.get())
            .or_else(|| array(raw.get()).filter(Vec::is_empty).map(|_| Object::new()))
            .ok_or_else(|| {
                Rejection::new(
                    RejectCode::InvalidProperties,
                    "`properties` is not an object; send `{…}` or leave it out",
                )
            }),
    }
}

/// Sets the visitor, the user, and how the event counts.
///
/// The visitor is the device, which stays the same over a login. After `reset()`, the client keeps the device's id and gets a new
/// anonymous `distinct_id`: then that is the visitor. The next login on the device cannot be told from the first one, so its
/// events belong to the device again.
fn identify<'t>(builder: &mut Builder<'t>, fields: &Object<'t>, properties: &Object<'t>, library: &str) {
    let distinct_id = fields.id("distinct_id").or_else(|| properties.id("distinct_id"));
    let device = properties.id("$device_id");
    let anonymous = properties.id("$anon_distinct_id");
    // A server has no login: it sends the device along with whoever is logged in.
    let is_server = device.is_some() && properties.is("$is_server", "true");
    let is_identified = is_server || properties.is("$is_identified", "true");
    builder.user =
        properties.id("$user_id").or_else(|| distinct_id.clone().filter(|_| is_identified && distinct_id != device));
    let is_login = builder.name.as_deref() == Some("$identify");
    let is_made_up = distinct_id.as_deref() == Some(COOKIELESS)
        || (library == "posthog-python" && is_made_up(fields, properties, &distinct_id));
    builder.standing = standing(builder.name.as_deref(), device.is_some(), is_made_up);
    if is_login && device.is_none() && anonymous.is_some() {
        builder.user.clone_from(&distinct_id);
    }
    builder.visitor = match device {
        _ if is_login && anonymous.is_some() => anonymous,
        Some(device) if builder.user.is_some() || is_identified || distinct_id.is_none() => Some(device),
        _ => distinct_id,
    };
}

/// Returns how an event counts. Events about persons and groups are no acts of a visitor; only a login in a browser is.
fn standing(name: Option<&str>, has_device: bool, is_made_up: bool) -> Standing {
    match name {
        // Without a device, a group's event has an id that is random or the group's.
        Some("$groupidentify") if !has_device => Standing::Nobody,
        Some("$identify") if has_device => Standing::Activity,
        Some(name) if ABOUT_PERSONS.contains(&name) => Standing::Passive,
        _ if is_made_up => Standing::Nobody,
        _ => Standing::Activity,
    }
}

/// Returns whether the id can be one that the Python library made up: a random one for each event that has none.
fn is_made_up(fields: &Object<'_>, properties: &Object<'_>, distinct_id: &Option<Cow<'_, str>>) -> bool {
    let is_personless = properties.is("$process_person_profile", "false")
        || fields.object("options").is("process_person_profile", "false");
    let is_random =
        || distinct_id.as_deref().is_some_and(|id| Uuid::try_parse(id).is_ok_and(|id| id.get_version_num() == 4));
    is_personless && is_random()
}

/// Sets when the event happened and when it was sent.
fn date<'t>(builder: &mut Builder<'t>, fields: &mut Object<'t>, batch: &Batch<'t>, is_stale: bool) {
    let own = |raw: &'t RawValue| Cow::Borrowed(raw.get());
    let sent_at = fields.remove("sent_at").filter(|raw| raw.get() != "null").map(own).or_else(|| batch.sent_at.clone());
    let offset = fields.remove("offset").and_then(|raw| raw.get().parse::<Millis>().ok());
    let timestamp = fields.remove("timestamp").filter(|raw| raw.get() != "null").map(own);
    match (timestamp, offset) {
        // Old browser clients count back from the time of sending.
        (None, Some(offset)) => {
            let sent = sent_at.as_deref().and_then(time_of_json);
            let at = sent.unwrap_or(batch.received_at).saturating_sub(offset);
            builder.timestamp = Some(Cow::Owned(quoted(&rfc3339(datetime(at)))));
            builder.sent_at = sent_at.filter(|_| sent.is_some());
        }
        (timestamp, _) => {
            builder.timestamp = timestamp;
            builder.sent_at = sent_at.filter(|_| !is_stale);
        }
    }
}
