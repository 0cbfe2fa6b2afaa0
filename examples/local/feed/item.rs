//! The items of the feed: of each line only what the page shows, with strings of bounded length.

use std::collections::HashMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use session_tracking::event::time_of_json;
use session_tracking::session::Millis;

use super::explanation;

/// Characters of a URL, a name or another string that the page shows. A visitor's id is kept whole, because it is a key.
const MAX_CHARS: usize = 300;
/// The properties of a campaign, in the order in which they are shown.
const CAMPAIGN: [&str; 5] = ["utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content"];

/// A JSON object whose values are not parsed. Of a member that stands in it twice, the last one counts.
struct Object<'a>(HashMap<String, &'a RawValue>);

impl<'a> Object<'a> {
    fn of(json: &'a str) -> Option<Self> {
        serde_json::from_str(json).ok().map(Self)
    }

    fn get<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.0.get(name)?.get()).ok()
    }

    fn object(&self, name: &str) -> Option<Self> {
        Self::of(self.0.get(name)?.get())
    }

    fn time(&self, name: &str) -> Option<Millis> {
        time_of_json(self.0.get(name)?.get())
    }

    /// Returns a string, cut to what is shown. A number counts as its digits.
    fn text(&self, name: &str) -> Option<String> {
        match self.get(name)? {
            Value::String(text) => Some(cut(&text)),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    fn is_true(&self, name: &str) -> bool {
        self.get(name).unwrap_or_default()
    }
}

/// An event with its session.
#[derive(Serialize)]
struct EventItem {
    kind: &'static str,
    received: Millis,
    visitor: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    project: String,
    uuid: String,
    name: String,
    at: Millis,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    start: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    late: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    bot: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    no_session: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_flag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    referrer: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    campaign: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<Value>,
}

/// What tells an event from all others.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct EventKey {
    project: String,
    visitor: String,
    uuid: String,
}

impl EventKey {
    /// Returns the key of an event that is explained.
    pub fn of(explained: &Value) -> Option<Self> {
        let text = |name: &str| explained[name].as_str().map(str::to_owned);
        Some(Self { project: text("project").unwrap_or_default(), visitor: text("distinct_id")?, uuid: text("uuid")? })
    }
}

/// Returns the item of an annotated event, with what was explained about it. Returns `None` for a line that is no event.
pub fn event<'e>(
    line: &str,
    received: Millis,
    explanation: impl FnOnce(&EventKey) -> Option<&'e Value>,
) -> Option<String> {
    let event = Object::of(line)?;
    let properties = event.object("properties").unwrap_or(Object(HashMap::new()));
    let campaign: Vec<String> = CAMPAIGN.iter().filter_map(|name| properties.text(name)).collect();
    let key = EventKey {
        project: event.get("project").unwrap_or_default(),
        visitor: event.get("distinct_id")?,
        uuid: event.get("uuid").unwrap_or_default(),
    };
    let explanation = explanation(&key).map(explanation::shown);
    let EventKey { project, visitor, uuid } = key;
    let item = EventItem {
        kind: "event",
        received,
        visitor,
        project,
        uuid,
        explanation,
        name: event.text("event")?,
        at: properties.time("$event_time").or_else(|| event.time("timestamp")).unwrap_or(received),
        session: properties.get("$session_id"),
        reason: properties.get("$session_start_reason"),
        number: properties.get("$session_number"),
        version: properties.get("$session_version"),
        start: properties.is_true("$session_start"),
        late: properties.is_true("$late"),
        bot: properties.is_true("$is_bot"),
        no_session: properties.text("$no_session"),
        time_flag: properties.text("$time_flag"),
        url: properties.text("$current_url"),
        // The session's referrer takes the place of the event's own, where both differ.
        referrer: properties.text("$event_referrer").or_else(|| properties.text("$referrer")),
        campaign: campaign.join(" / "),
    };
    serde_json::to_string(&item).ok()
}

/// Returns the item of a line of the output: what the service emitted itself, or an annotated event of another client.
pub fn output(line: &str, received: Millis) -> Option<String> {
    let emitted = Object::of(line)?;
    let kind = match emitted.get::<String>("event")?.as_str() {
        "$session_end" => "end",
        "$session_merged" => "merged",
        "$session_split" => "split",
        "$visitor_erased" => "erased",
        _ => return event(line, received, |_| None),
    };
    let properties = emitted.object("properties")?;
    let mut item = json!({ "kind": kind, "received": received, "visitor": emitted.get::<String>("distinct_id")? });
    if let Some(project) = emitted.get::<String>("project") {
        item["project"] = project.into();
    }
    if let Some(version) = properties.get::<u64>("$session_version") {
        item["version"] = version.into();
    }
    match kind {
        "end" => add_end(&mut item, &properties)?,
        "merged" | "split" => add_correction(&mut item, &properties),
        _ => {}
    }
    Some(item.to_string())
}

/// Adds the members of an end. Returns `None` for an event of this name that the service did not emit.
fn add_end(item: &mut Value, properties: &Object<'_>) -> Option<()> {
    let session = properties.object("$session")?;
    item["session"] = session.get::<String>("id")?.into();
    item["reason"] = session.get::<String>("reason")?.into();
    item["number"] = session.get::<u64>("number").into();
    item["started"] = session.time("started_at")?.into();
    item["ended"] = session.time("last_activity")?.into();
    item["events"] = session.get::<u64>("event_count").into();
    item["pages"] = session.get::<u64>("page_views").into();
    for (name, member) in [("entry_url", "entry"), ("exit_page", "exit"), ("referrer", "referrer")] {
        if let Some(text) = session.text(name) {
            item[member] = text.into();
        }
    }
    let utm = session.object("utm").unwrap_or(Object(HashMap::new()));
    let campaign: Vec<String> = ["source", "medium", "campaign"].iter().filter_map(|name| utm.text(name)).collect();
    if !campaign.is_empty() {
        item["campaign"] = campaign.join(" / ").into();
    }
    Some(())
}

fn add_correction(item: &mut Value, properties: &Object<'_>) {
    for name in ["from", "into", "from_event"] {
        if let Some(text) = properties.text(name) {
            item[name] = text.into();
        }
    }
    if let Some(at) = properties.time("at") {
        item["at"] = at.into();
    }
}

/// Returns the item of an event that was rejected or that failed (`kind`).
pub fn refused(kind: &str, code: &str, received: Millis) -> String {
    json!({ "kind": kind, "received": received, "code": cut(code) }).to_string()
}

/// Returns a string, cut to what is shown.
pub(super) fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_CHARS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
