//! Mixpanel: `{"event","properties":{…}}`, an array of these, or one a line.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::event::{Builder, ClientEvent, Standing};
use super::json::{Members, Object, array, fields, id, quoted, within_limit};
use super::{Family, Head, Item, Translation, not_a_body};
use crate::event::Rejection;

/// How a device's id begins as a `distinct_id`.
const DEVICE: &str = "$device:";
/// Names of ours for properties of Mixpanel.
const RENAMED: [(&str, &str); 3] = [
    ("$city", "$geoip_city_name"),
    ("$region", "$geoip_subdivision_1_name"),
    ("mp_country_code", "$geoip_country_code"),
];
const CAMPAIGN: [&str; 5] = ["utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content"];

/// Translates a body.
pub(super) fn translate<'t>(head: &Head<'_>, text: &'t str) -> Result<Translation<'t>, Rejection> {
    let is_import = head.path.trim_end_matches('/').ends_with("import");
    let sent_at = head.parameter("_").filter(|_| !is_import);
    let found = match text.trim_start().as_bytes().first() {
        Some(b'[') => array(text),
        _ => serde_json::Deserializer::from_str(text).into_iter::<&RawValue>().collect::<Result<_, _>>().ok(),
    };
    let events = within_limit(
        found.ok_or_else(|| not_a_body("the body is not JSON; send `data` with an event or an array of events"))?,
    )?;
    let mut write_key = None;
    let items = events.into_iter().map(|raw| {
        let fields = fields(raw);
        let token = || fields.as_ref().ok()?.object("properties").string("token").map(Cow::into_owned);
        write_key = write_key.take().or_else(token);
        let event = fields.and_then(|fields| event(fields, sent_at.as_deref()));
        Item { source: Cow::Borrowed(raw.get()), id: None, event }
    });
    let items = items.collect();
    Ok(Translation { family: Family::Mixpanel, write_key: write_key.or_else(|| head.basic_user()), items })
}

/// Translates an event.
fn event(mut fields: Object<'_>, sent_at: Option<&str>) -> Result<ClientEvent, Rejection> {
    let mut properties = fields.object("properties");
    fields.remove("properties");
    let name = fields.remove("event").and_then(id);
    let is_page_view = name.as_deref() == Some("$mp_web_page_view");
    let mut builder = Builder {
        name: if is_page_view { Some("$pageview".into()) } else { name },
        id: properties.id("$insert_id"),
        timestamp: properties.remove("time").filter(|raw| raw.get() != "null").map(|raw| raw.get().into()),
        sent_at: sent_at.map(|time| quoted(time).into()),
        ..Builder::default()
    };
    identify(&mut builder, &properties);
    properties.remove("token");
    if properties.contains_key("$current_url") {
        // These stick to later pages, and mix the fields of several campaigns. The URL has the campaign of this page.
        let sticky = CAMPAIGN.iter().filter_map(|&name| properties.remove_entry(name));
        fields.extend(sticky);
    } else {
        builder.set_raw("$current_url", properties.given("current_url"));
    }
    builder.set_raw("$client_session_id", properties.remove("$session_id"));
    for (name, ours) in RENAMED {
        builder.set_raw(ours, properties.given(name));
    }
    builder.add_all(properties);
    builder.keep(&fields);
    builder.finish("`distinct_id` or `$device_id`")
}

/// Sets the visitor, the user, and how the event counts.
fn identify<'t>(builder: &mut Builder<'t>, properties: &Object<'t>) {
    let distinct_id = properties.id("distinct_id");
    let device = properties.id("$device_id");
    let is_device = |id: &Cow<'_, str>| id.starts_with(DEVICE) || Some(id) == device.as_ref();
    let after_login = distinct_id.clone().filter(|id| device.is_some() && !is_device(id));
    builder.user = properties.id("$user_id").or(after_login);
    builder.standing = match builder.name.as_deref() {
        Some("$identify") if device.is_some() => Standing::Activity,
        Some("$identify" | "$create_alias" | "$merge") => Standing::Passive,
        _ => Standing::Activity,
    };
    let bare = |id: Cow<'t, str>| match id.strip_prefix(DEVICE) {
        Some(device) if !device.is_empty() => Cow::Owned(device.to_owned()),
        _ => id,
    };
    builder.visitor = device.or(distinct_id.map(bare)).or_else(|| builder.user.clone());
}
