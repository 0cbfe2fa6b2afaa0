//! Matomo: one event as a query or a form, or several in `{"requests":["?…"]}`.

use std::borrow::Cow;

use url::Url;

use super::event::{Builder, ClientEvent};
use super::json::{Pairs, check_size, events, object, pairs_of_object, pairs_of_query, quoted, string};
use super::{Family, Head, Item, Translation};
use crate::event::Rejection;

/// Fields of a campaign: the parameters of the page's URL that name it, and our property. The first that is there counts.
const CAMPAIGN: [([&str; 2], &str); 5] = [
    (["mtm_source", "pk_source"], "utm_source"),
    (["mtm_medium", "pk_medium"], "utm_medium"),
    (["mtm_campaign", "pk_campaign"], "utm_campaign"),
    (["mtm_kwd", "pk_kwd"], "utm_term"),
    (["mtm_content", "pk_content"], "utm_content"),
];

/// Translates a body, or the query of a request without one.
pub(super) fn translate<'t>(head: &Head<'_>, text: &'t str) -> Result<Translation<'t>, Rejection> {
    match text.trim_start().starts_with('{') {
        true => translate_bulk(text),
        false => translate_one(head, text),
    }
}

/// Translates a query or a form. A form can have further pairs in the query.
fn translate_one<'t>(head: &Head<'_>, text: &'t str) -> Result<Translation<'t>, Rejection> {
    check_size(text)?;
    let mut pairs = pairs_of_query(text);
    for (name, value) in owned(&pairs_of_query(head.query)) {
        pairs.entry(name).or_insert(value);
    }
    let write_key = site(&pairs);
    let items = match pairs.is_empty() {
        true => Vec::new(),
        false => vec![Item { source: Cow::Borrowed(text), id: None, event: event(pairs) }],
    };
    Ok(Translation { family: Family::Matomo, write_key, items })
}

fn translate_bulk(text: &str) -> Result<Translation<'_>, Rejection> {
    let envelope = object(text).unwrap_or_default();
    let requests = envelope.get("requests").map(|requests| requests.get());
    let requests = events(requests, "the body is not Matomo's; send `{\"requests\":[\"?…\"]}`")?;
    let mut write_key = None;
    let items = requests.into_iter().map(|raw| {
        let pairs = check_size(raw.get()).map(|()| match object(raw.get()) {
            Some(object) => pairs_of_object(&object),
            None => owned(&pairs_of_query(&string(raw).unwrap_or_default())),
        });
        write_key = write_key.take().or_else(|| pairs.as_ref().ok().and_then(site));
        Item { source: Cow::Borrowed(raw.get()), id: None, event: pairs.and_then(event) }
    });
    let items = items.collect();
    Ok(Translation { family: Family::Matomo, write_key, items })
}

/// Returns the site's id, which is the nearest that Matomo has to a key.
fn site(pairs: &Pairs<'_>) -> Option<String> {
    pairs.get("idsite").map(|site| site.clone().into_owned())
}

fn owned<'t>(pairs: &Pairs<'_>) -> Pairs<'t> {
    pairs.iter().map(|(name, value)| (name.clone(), Cow::Owned(value.clone().into_owned()))).collect()
}

/// Translates an event.
fn event(mut pairs: Pairs<'_>) -> Result<ClientEvent, Rejection> {
    pairs.remove("token_auth");
    let mut builder = Builder { name: Some(name(&pairs)), user: pairs.remove("uid"), ..Builder::default() };
    builder.visitor = pairs.remove("cid").or_else(|| pairs.remove("_id")).or_else(|| builder.user.clone());
    builder.timestamp = pairs.remove("cdt").map(|time| Cow::Owned(quoted(&time)));
    let url = pairs.remove("url");
    for (names, ours) in CAMPAIGN {
        let of_url = url.as_deref().and_then(|url| parameter(url, names));
        builder.set_string(ours, of_url.map(Cow::Owned));
    }
    for (name, ours) in [("_rcn", "utm_campaign"), ("_rck", "utm_term")] {
        if !builder.has(ours) {
            builder.set_string(ours, pairs.get(name).cloned());
        }
    }
    builder.set_string("$current_url", url);
    builder.set_string("$referrer", pairs.remove("urlref"));
    builder.set_string("title", pairs.remove("action_name"));
    builder.set_string("$raw_user_agent", pairs.remove("ua"));
    builder.set_screen(pairs.get("res").map(|resolution| &**resolution));
    builder.keep_pairs(&pairs);
    builder.finish("`_id`, `cid` or `uid`")
}

/// Returns the event's name, by the parameters that only its kind has.
fn name<'t>(pairs: &Pairs<'t>) -> Cow<'t, str> {
    let has = |name: &str| pairs.contains_key(name);
    if let Some(action) = pairs.get("e_a").or_else(|| pairs.get("e_c")) {
        return action.clone();
    }
    let goal = pairs.get("idgoal").map(|goal| &**goal);
    Cow::Borrowed(match () {
        () if has("ping") => "page_ping",
        () if goal == Some("0") && has("ec_id") => "ecommerce_order",
        () if goal == Some("0") => "ecommerce_cart_update",
        () if goal.is_some() => "goal",
        () if has("search") => "site_search",
        () if has("download") => "download",
        () if has("link") => "outlink",
        () if has("c_i") => "content_interaction",
        () if has("c_n") => "content_impression",
        () if has("ca") => "custom_action",
        () => "$pageview",
    })
}

/// Returns a parameter of a URL's query by any of its names.
fn parameter(url: &str, names: [&str; 2]) -> Option<String> {
    let url = Url::parse(url).ok()?;
    let value = |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    names.into_iter().find_map(value).filter(|value| !value.is_empty())
}
