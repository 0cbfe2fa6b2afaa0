//! Segment: a message, or `{"batch":[…],"sentAt","writeKey"}`. RudderStack speaks the same messages; see [`rudderstack`].

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::event::{Builder, ClientEvent, Standing};
use super::json::{Members, Object, events, fields, id, object, quoted};
use super::{Family, Head, Item, Translation, not_a_body, rudderstack};
use crate::event::{RejectCode, Rejection};

/// What holds for all messages of a request.
struct Batch<'t> {
    /// When it was sent, as JSON.
    sent_at: Option<&'t str>,
    /// The context that the messages share.
    context: Object<'t>,
    /// The kind of message that the path names.
    kind: Option<&'static str>,
}

/// Translates a body.
pub(super) fn translate<'t>(head: &Head<'_>, text: &'t str) -> Result<Translation<'t>, Rejection> {
    let unreadable = || not_a_body("the body is not a message; send one object, or `{\"batch\":[…]}`");
    let envelope = object(text).ok_or_else(unreadable)?;
    let kind = kind_of_path(head.path);
    let (messages, batch) = match envelope.get("batch") {
        Some(batch) => {
            let messages = events(Some(batch.get()), "`batch` is not an array; send the messages in one")?;
            let sent_at = envelope.given("sentAt").map(RawValue::get);
            (messages, Batch { sent_at, context: envelope.object("context"), kind: None })
        }
        None => {
            let message = serde_json::from_str(text).map_err(|_| unreadable())?;
            (vec![message], Batch { sent_at: None, context: Object::new(), kind })
        }
    };
    let in_body = envelope.string("writeKey").map(Cow::into_owned);
    let write_key = head.basic_user().or(in_body).or_else(|| head.parameter("writeKey"));
    let items = messages.into_iter().map(|raw| Item {
        source: Cow::Borrowed(raw.get()),
        id: None,
        event: fields(raw).and_then(|message| event(message, &batch)),
    });
    Ok(Translation { family: Family::Segment, write_key, items: items.collect() })
}

/// Returns the kind of message at the end of a path, by its name or its first letter.
fn kind_of_path(path: &str) -> Option<&'static str> {
    Some(match path.split('/').rfind(|segment| !segment.is_empty())? {
        "track" | "t" => "track",
        "page" | "p" => "page",
        "screen" | "s" => "screen",
        "identify" | "i" => "identify",
        "group" | "g" => "group",
        "alias" | "a" => "alias",
        _ => return None,
    })
}

/// Translates a message.
fn event<'t>(mut message: Object<'t>, batch: &Batch<'t>) -> Result<ClientEvent, Rejection> {
    let context = match message.object("context") {
        own if own.is_empty() => batch.context.clone(),
        own => own,
    };
    let kind = message.string("type").or_else(|| batch.kind.map(Cow::Borrowed)).unwrap_or_default();
    let device = message.remove("anonymousId").and_then(id);
    let user = message.remove("userId").and_then(id);
    let mut builder = Builder {
        standing: standing(&kind, device.is_some()),
        visitor: device.or_else(|| user.clone()),
        user,
        id: message.remove("messageId").and_then(id),
        ..Builder::default()
    };
    let properties = message.remove("properties").and_then(|raw| object(raw.get())).unwrap_or_default();
    map_page(&mut builder, &properties, &context);
    builder.add_all(properties);
    map_name(&mut builder, &kind, &mut message)?;
    map_context(&mut builder, &context);
    let own = |raw: &'t RawValue| Cow::Borrowed(raw.get());
    let sent_at = message.remove("sentAt").filter(|raw| raw.get() != "null").map(own);
    builder.sent_at = sent_at.or(batch.sent_at.map(Cow::Borrowed)).filter(|_| !rudderstack::is_stale(&context));
    let original = message.given("originalTimestamp");
    builder.timestamp = message.remove("timestamp").filter(|raw| raw.get() != "null").or(original).map(own);
    message.remove("writeKey");
    builder.keep(&message);
    builder.finish("`anonymousId` or `userId`")
}

/// Returns how a message counts. A login of a device is an act; other messages about persons and groups are not.
fn standing(kind: &str, has_device: bool) -> Standing {
    match kind {
        "identify" if has_device => Standing::Activity,
        "identify" | "alias" | "group" | "merge" => Standing::Passive,
        _ => Standing::Activity,
    }
}

/// Sets the event's name, and keeps the name of a page or screen as a property.
fn map_name<'t>(builder: &mut Builder<'t>, kind: &str, message: &mut Object<'t>) -> Result<(), Rejection> {
    builder.name = Some(match kind {
        "page" => "$pageview".into(),
        "screen" => "$screen".into(),
        "identify" => "$identify".into(),
        "alias" => "$create_alias".into(),
        "group" => "$groupidentify".into(),
        "merge" => "$merge_dangerously".into(),
        "track" | "" => match message.remove("event").and_then(id) {
            Some(name) => name,
            None => {
                return Err(Rejection::new(RejectCode::MissingEvent, "`event` is missing; set it to the event's name"));
            }
        },
        _ => {
            let message = "`type` is unknown; set it to track, page, screen, identify, group or alias";
            return Err(Rejection::new(RejectCode::InvalidEvent, message));
        }
    });
    if matches!(kind, "page" | "screen") && !builder.has("name") {
        builder.set_raw("name", message.remove("name").filter(|raw| raw.get() != "null"));
    }
    Ok(())
}

/// Sets the page. It is in the context, and for page views of server libraries in the properties.
fn map_page<'t>(builder: &mut Builder<'t>, properties: &Object<'t>, context: &Object<'t>) {
    let page = context.object("page");
    builder.set_string("$current_url", page.string("url").or_else(|| properties.string("url")));
    let referrer = page.string("referrer").or_else(|| properties.string("referrer"));
    // `$direct` is how RudderStack writes that there is none.
    builder.set_string("$referrer", referrer.filter(|referrer| referrer != "$direct"));
}

/// Sets the campaign, the device, and the client's own session.
fn map_context<'t>(builder: &mut Builder<'t>, context: &Object<'t>) {
    let campaign = context.object("campaign");
    for (name, field) in [
        ("utm_source", "source"),
        ("utm_medium", "medium"),
        ("utm_campaign", "name"),
        ("utm_term", "term"),
        ("utm_content", "content"),
    ] {
        builder.set_string(name, campaign.id(field));
    }
    let (screen, system, device) = (context.object("screen"), context.object("os"), context.object("device"));
    builder.set_raw("$screen_width", screen.given("width"));
    builder.set_raw("$screen_height", screen.given("height"));
    builder.set_string("$os", system.string("name"));
    builder.set_string("$os_version", system.id("version"));
    builder.set_string("$device_type", device.string("type"));
    builder.set_string("$raw_user_agent", context.string("userAgent"));
    if let Some(session) = context.id("sessionId") {
        builder.set("$client_session_id", quoted(&session));
    }
}
