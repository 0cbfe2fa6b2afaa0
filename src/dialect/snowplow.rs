//! Snowplow: `{"schema","data":[{…}]}`, or one event as a query. All values are strings.

use std::borrow::Cow;

use super::event::{Builder, ClientEvent};
use super::json::{
    Members, Object, Pairs, array, check_size, events, fields, object, pairs_of_object, pairs_of_query, quoted,
};
use super::{Family, Item, Translation, sniff};
use crate::event::Rejection;

/// Translates a body.
pub(super) fn translate_post(text: &str) -> Result<Translation<'_>, Rejection> {
    let envelope = object(text).unwrap_or_default();
    let data = envelope.get("data").map(|data| data.get());
    let data = events(data, "the body is not Snowplow's; send `{\"schema\":…,\"data\":[…]}`")?;
    let mut write_key = None;
    let items = data.into_iter().map(|raw| {
        let pairs = fields(raw).map(|fields| pairs_of_object(&fields));
        write_key = write_key.take().or_else(|| pairs.as_ref().ok().and_then(application));
        let event = pairs.and_then(event);
        Item { source: Cow::Borrowed(raw.get()), id: None, event }
    });
    let items = items.collect();
    Ok(Translation { family: Family::Snowplow, write_key, items })
}

/// Translates a query.
pub(super) fn translate_query(query: &str) -> Result<Translation<'_>, Rejection> {
    check_size(query)?;
    let pairs = pairs_of_query(query);
    let write_key = application(&pairs);
    let items = match pairs.is_empty() {
        true => Vec::new(),
        false => vec![Item { source: Cow::Borrowed(query), id: None, event: event(pairs) }],
    };
    Ok(Translation { family: Family::Snowplow, write_key, items })
}

/// Returns the application's id, which is the nearest that Snowplow has to a key.
fn application(pairs: &Pairs<'_>) -> Option<String> {
    pairs.get("aid").map(|id| id.clone().into_owned())
}

/// Translates an event.
fn event(mut pairs: Pairs<'_>) -> Result<ClientEvent, Rejection> {
    let mut builder = Builder { id: pairs.remove("eid"), ..Builder::default() };
    let described = decoded(&mut pairs, "ue_pr", "ue_px");
    let described = described.as_deref().map(SelfDescribing::of).unwrap_or_default();
    if let Some(data) = &described.data {
        builder.add_decoded(data);
    }
    let contexts = decoded(&mut pairs, "co", "cx");
    let session = contexts.as_deref().and_then(client_session).unwrap_or_default();
    if let Some(contexts) = contexts.as_deref().and_then(object) {
        builder.set("$contexts", contexts.get("data").map_or("[]", |data| data.get()).to_owned());
    }
    builder.name = name(&mut pairs, &described).map(Cow::Owned);
    builder.user = pairs.remove("uid");
    let network = pairs.remove("tnuid").or_else(|| pairs.remove("nuid"));
    builder.visitor =
        pairs.remove("duid").or(session.user.map(Cow::Owned)).or(network).or_else(|| builder.user.clone());
    builder.set_string("$client_session_id", pairs.remove("sid").or(session.id.map(Cow::Owned)));
    builder.set_string("$current_url", pairs.remove("url"));
    builder.set_string("$referrer", pairs.remove("refr"));
    builder.set_string("title", pairs.remove("page"));
    builder.set_string("$raw_user_agent", pairs.remove("ua"));
    builder.set_screen(pairs.get("res").map(|resolution| &**resolution));
    let quote = |time: Cow<'_, str>| Cow::Owned(quoted(&time));
    let (device, sent) = (pairs.remove("dtm").map(quote), pairs.remove("stm").map(quote));
    // A true time needs no correction.
    match pairs.remove("ttm").map(quote) {
        Some(time) => builder.timestamp = Some(time),
        None => (builder.timestamp, builder.sent_at) = (device, sent),
    }
    builder.keep_pairs(&pairs);
    builder.finish("`duid` or `uid`")
}

/// Returns the event's name.
fn name(pairs: &mut Pairs<'_>, described: &SelfDescribing) -> Option<String> {
    let kind = pairs.remove("e")?;
    Some(match &*kind {
        "pv" => "$pageview".to_owned(),
        "pp" => "page_ping".to_owned(),
        "se" => pairs.get("se_ac").map_or("structured_event", |action| action).to_owned(),
        "tr" => "transaction".to_owned(),
        "ti" => "transaction_item".to_owned(),
        "ue" => match described.name.as_deref() {
            Some("screen_view") => "$screen".to_owned(),
            name => name.unwrap_or("self_describing_event").to_owned(),
        },
        other => other.to_owned(),
    })
}

/// Returns JSON that is either a value as it is or one in base64.
fn decoded(pairs: &mut Pairs<'_>, plain: &str, encoded: &str) -> Option<String> {
    let base64 = pairs.remove(encoded).and_then(|text| sniff::base64(text.as_bytes()));
    let plain = pairs.remove(plain).map(Cow::into_owned);
    plain.or_else(|| base64.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// A self-describing event: `{"schema":…,"data":{"schema":"iglu:vendor/name/format/version","data":{…}}}`.
#[derive(Default)]
struct SelfDescribing {
    name: Option<String>,
    data: Option<String>,
}

impl SelfDescribing {
    fn of(json: &str) -> Self {
        let inner = object(json).map(|outer| outer.object("data")).unwrap_or_default();
        let name = inner.string("schema").and_then(|schema| schema.split('/').nth(1).map(str::to_owned));
        Self { name: name.filter(|name| !name.is_empty()), data: inner.get("data").map(|data| data.get().to_owned()) }
    }
}

/// The context `client_session`, which names the visitor and the session where there are no cookies.
#[derive(Default)]
struct ClientSession {
    user: Option<String>,
    id: Option<String>,
}

fn client_session(contexts: &str) -> Option<ClientSession> {
    let contexts = object(contexts)?;
    let contexts = array(contexts.get("data")?.get())?;
    let entities = contexts.iter().filter_map(|raw| object(raw.get()));
    let is_session =
        |entity: &Object<'_>| entity.string("schema").is_some_and(|schema| schema.contains("/client_session/"));
    let data = entities.filter(is_session).map(|entity| entity.object("data")).next()?;
    let text = |name: &str| data.id(name).map(Cow::into_owned);
    Some(ClientSession { user: text("userId"), id: text("sessionId") })
}
