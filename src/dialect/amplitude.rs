//! Amplitude: `{"api_key","events":[…],"client_upload_time"}`.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::event::{Builder, ClientEvent, Standing};
use super::json::{Members, Object, events, fields, id, object, quoted};
use super::{Family, Item, Translation, not_a_body};
use crate::event::Rejection;

/// Names of ours for fields of Amplitude.
const RENAMED: [(&str, &str); 6] = [
    ("os_name", "$os"),
    ("os_version", "$os_version"),
    ("user_agent", "$raw_user_agent"),
    ("country", "$geoip_country_name"),
    ("region", "$geoip_subdivision_1_name"),
    ("city", "$geoip_city_name"),
];

/// Translates a body.
pub(super) fn translate(text: &str) -> Result<Translation<'_>, Rejection> {
    let needed = "the body is not Amplitude's; send `{\"api_key\":…,\"events\":[…]}`";
    let envelope = object(text).ok_or_else(|| not_a_body(needed))?;
    let events = events(envelope.get("events").map(|events| events.get()), needed)?;
    let sent_at = envelope.given("client_upload_time").map(RawValue::get);
    let items = events.into_iter().map(|raw| Item {
        source: Cow::Borrowed(raw.get()),
        id: None,
        event: fields(raw).and_then(|fields| event(fields, sent_at)),
    });
    let write_key = envelope.string("api_key").map(Cow::into_owned);
    Ok(Translation { family: Family::Amplitude, write_key, items: items.collect() })
}

/// Translates an event.
fn event<'t>(mut fields: Object<'t>, sent_at: Option<&'t str>) -> Result<ClientEvent, Rejection> {
    let device = fields.remove("device_id").and_then(id);
    let user = fields.remove("user_id").and_then(id);
    let name = fields.remove("event_type").and_then(id);
    let mut builder = Builder {
        standing: match name.as_deref() {
            // Their time is that of a change of a profile, and they have no page that a session could begin with.
            Some("$identify" | "$groupidentify") => Standing::Passive,
            _ => Standing::Activity,
        },
        name: name.map(|name| match &*name {
            "[Amplitude] Page Viewed" => "$pageview".into(),
            "[Amplitude] Screen Viewed" => "$screen".into(),
            _ => name,
        }),
        visitor: device.or_else(|| user.clone()),
        user,
        id: fields.remove("insert_id").and_then(id),
        timestamp: fields.remove("time").filter(|raw| raw.get() != "null").map(|raw| raw.get().into()),
        sent_at: sent_at.map(Cow::Borrowed),
        ..Builder::default()
    };
    let properties = fields.object("event_properties");
    fields.remove("event_properties");
    let location = properties.string("[Amplitude] Page Location");
    builder.set_string("$current_url", location.or_else(|| properties.string("$current_url")));
    builder.set_string("$referrer", properties.string("referrer").or_else(|| properties.string("$referrer")));
    // -1 is how the clients write that there is no session.
    if let Some(session) = fields.remove("session_id").and_then(id).filter(|session| session != "-1") {
        builder.set("$client_session_id", quoted(&session));
    }
    for (name, ours) in RENAMED {
        builder.set_raw(ours, fields.remove(name).filter(|raw| raw.get() != "null"));
    }
    builder.add_all(properties);
    builder.keep(&fields);
    builder.finish("`device_id` or `user_id`")
}
