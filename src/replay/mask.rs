//! Masking of what visitors typed, before it is stored.
//!
//! Each character of a value becomes `*`, so that the page keeps its look. Masked are: the value of every `input` (except the labels of
//! buttons, and what a box or a radio button stands for), `textarea` and `select` in a snapshot or among added nodes; what an input
//! event says was typed; a changed attribute `value`, whatever its element is; and the text inside a `textarea` as far as the same
//! recording shows that it is one. Text that the page itself shows is not masked.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::ReplayEventType;
use super::rrweb::INPUT_SOURCE;

/// Types of `input` whose value is written by the page, not by the visitor.
const OWN_VALUES: [&str; 6] = ["button", "checkbox", "image", "radio", "reset", "submit"];
/// The members of an input event of our own format in which a value can be.
const VALUE_MEMBERS: [&str; 4] = ["content", "key", "text", "value"];

/// Masks the events of one recording.
#[derive(Debug, Default)]
pub struct Mask {
    /// The ids of the nodes that are a `textarea`, or text in one.
    textareas: HashSet<u64>,
}

impl Mask {
    /// Masks an event's data.
    pub fn event(&mut self, event_type: ReplayEventType, data: &mut Value) {
        self.value(data, false);
        // In rrweb's events, what was typed was found by their form.
        if event_type == ReplayEventType::Input && data.get("type").is_none_or(|kind| !kind.is_number()) {
            mask_members(data);
        }
    }

    fn value(&mut self, value: &mut Value, in_textarea: bool) {
        match value {
            Value::Array(elements) => elements.iter_mut().for_each(|element| self.value(element, in_textarea)),
            Value::Object(members) => self.object(members, in_textarea),
            _ => {}
        }
    }

    fn object(&mut self, members: &mut Map<String, Value>, in_textarea: bool) {
        let tag = members.get("tagName").and_then(Value::as_str).map(str::to_ascii_lowercase);
        let is_textarea = tag.as_deref() == Some("textarea");
        let in_textarea = in_textarea || is_textarea || self.is_in_textarea(members);
        match tag.as_deref() {
            Some("input" | "textarea" | "select") => mask_element(members),
            // Which option is chosen is the value of the element around it.
            Some("option") => drop_member(members, "selected"),
            _ => {}
        }
        if in_textarea {
            if let Some(id) = members.get("id").and_then(Value::as_u64) {
                self.textareas.insert(id);
            }
            mask_string(members, "textContent");
            // A changed text of a node that is known to be in a `textarea`.
            mask_string(members, "value");
        }
        if members.get("source").and_then(Value::as_u64) == Some(INPUT_SOURCE) {
            mask_string(members, "text");
        }
        // An input of PostHog's recorder of mobile apps.
        if members.contains_key("inputType") {
            mask_string(members, "value");
        }
        // A changed attribute: the id tells nothing about the element.
        if tag.is_none()
            && let Some(Value::Object(attributes)) = members.get_mut("attributes")
        {
            mask_string(attributes, "value");
            attributes.remove("selected");
        }
        members.values_mut().for_each(|member| self.value(member, in_textarea));
    }

    /// Returns whether an added node or a changed text belongs to a node that is known to be a `textarea`.
    fn is_in_textarea(&self, members: &Map<String, Value>) -> bool {
        let is_known =
            |name: &str| members.get(name).and_then(Value::as_u64).is_some_and(|id| self.textareas.contains(&id));
        !self.textareas.is_empty() && (is_known("parentId") || members.contains_key("value") && is_known("id"))
    }
}

/// Masks the value of an element of a form.
fn mask_element(members: &mut Map<String, Value>) {
    let Some(Value::Object(attributes)) = members.get_mut("attributes") else { return };
    let kind = attributes.get("type").and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
    if !OWN_VALUES.contains(&&*kind) {
        mask_string(attributes, "value");
    }
}

fn drop_member(members: &mut Map<String, Value>, name: &str) {
    if let Some(Value::Object(attributes)) = members.get_mut("attributes") {
        attributes.remove(name);
    }
}

/// Masks the members of an input event of our own format in which a value can be.
fn mask_members(data: &mut Value) {
    match data {
        Value::String(text) => *text = masked(text),
        Value::Array(elements) => elements.iter_mut().for_each(mask_members),
        Value::Object(members) => {
            VALUE_MEMBERS.iter().for_each(|name| mask_string(members, name));
            members.values_mut().filter(|member| member.is_object() || member.is_array()).for_each(mask_nested);
        }
        _ => {}
    }
}

fn mask_nested(data: &mut Value) {
    match data {
        Value::Array(elements) => elements.iter_mut().for_each(mask_nested),
        Value::Object(_) => mask_members(data),
        _ => {}
    }
}

/// Masks a member that is a string or a number.
fn mask_string(members: &mut Map<String, Value>, name: &str) {
    match members.get_mut(name) {
        Some(Value::String(text)) => *text = masked(text),
        Some(number @ Value::Number(_)) => *number = masked(&number.to_string()).into(),
        _ => {}
    }
}

fn masked(text: &str) -> String {
    "*".repeat(text.chars().count())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Masks events in a row, as one recording.
    fn masked_events<const N: usize>(events: [(ReplayEventType, Value); N]) -> [Value; N] {
        let mut mask = Mask::default();
        events.map(|(kind, mut data)| {
            mask.event(kind, &mut data);
            data
        })
    }

    fn element(id: u64, tag: &str, attributes: Value, children: Value) -> Value {
        json!({"type": 2, "id": id, "tagName": tag, "attributes": attributes, "childNodes": children})
    }

    #[test]
    fn values_of_inputs_are_masked_and_what_the_page_wrote_stays() {
        for (tag, attributes, wanted) in [
            (
                "input",
                json!({"type": "text", "value": "ada@x", "name": "mail"}),
                json!({"type": "text", "value": "*****", "name": "mail"}),
            ),
            ("input", json!({"value": "grüß"}), json!({"value": "****"})),
            ("INPUT", json!({"type": "PASSWORD", "value": "x"}), json!({"type": "PASSWORD", "value": "*"})),
            ("input", json!({"type": "number", "value": 42}), json!({"type": "number", "value": "**"})),
            ("input", json!({"type": "hidden", "value": "csrf"}), json!({"type": "hidden", "value": "****"})),
            ("input", json!({"type": "submit", "value": "Buy"}), json!({"type": "submit", "value": "Buy"})),
            (
                "input",
                json!({"type": "checkbox", "value": "on", "checked": true}),
                json!({"type": "checkbox", "value": "on", "checked": true}),
            ),
            ("select", json!({"value": "de"}), json!({"value": "**"})),
            ("option", json!({"value": "de", "selected": true}), json!({"value": "de"})),
            ("textarea", json!({"value": "hi"}), json!({"value": "**"})),
            ("button", json!({"value": "7"}), json!({"value": "7"})),
            ("li", json!({"value": "3"}), json!({"value": "3"})),
        ] {
            let page = json!({"type": 2, "timestamp": 1, "data": {"node": {"childNodes": [element(5, tag, attributes, json!([]))]}}});
            let [page] = masked_events([(ReplayEventType::Dom, page)]);
            assert_eq!(page["data"]["node"]["childNodes"][0]["attributes"], wanted, "{tag}");
        }
    }

    #[test]
    fn text_in_a_textarea_is_masked_in_the_page_and_when_it_changes() {
        let text = |id: u64| json!({"type": 3, "id": id, "textContent": "dear diary"});
        let page = json!({"type": 2, "data": {"node": element(5, "textarea", json!({}), json!([text(6)]))}});
        let other = json!({"type": 2, "data": {"node": element(7, "p", json!({}), json!([text(8)]))}});
        let change = |ids: [u64; 2], parent: u64| {
            json!({"type": 3, "data": {"source": 0, "texts": [{"id": ids[0], "value": "secret"}, {"id": ids[1], "value": "shown"}],
                "adds": [{"parentId": parent, "node": text(9)}]}})
        };
        let [page, other, changed, added] = masked_events([
            (ReplayEventType::Dom, page),
            (ReplayEventType::Dom, other),
            (ReplayEventType::Dom, change([6, 8], 5)),
            (ReplayEventType::Dom, change([9, 8], 7)),
        ]);
        assert_eq!(page["data"]["node"]["childNodes"][0]["textContent"], "**********");
        assert_eq!(other["data"]["node"]["childNodes"][0]["textContent"], "dear diary");
        assert_eq!(changed["data"]["texts"], json!([{"id": 6, "value": "******"}, {"id": 8, "value": "shown"}]));
        assert_eq!(changed["data"]["adds"][0]["node"]["textContent"], "**********");
        assert_eq!(added["data"]["texts"][0]["value"], "******", "a node that was added to it");
        assert_eq!(added["data"]["adds"][0]["node"]["textContent"], "dear diary", "it is in another element now");
    }

    #[test]
    fn what_an_event_says_was_typed_is_masked() {
        let [typed, changed, mobile, own, text, moved] = masked_events([
            (
                ReplayEventType::Input,
                json!({"type": 3, "data": {"source": 5, "id": 9, "text": "secret", "isChecked": false}}),
            ),
            (
                ReplayEventType::Dom,
                json!({"type": 3, "data": {"source": 0, "attributes": [{"id": 9, "attributes": {"value": "secret", "class": "a", "selected": ""}}]}}),
            ),
            (
                ReplayEventType::Dom,
                json!({"type": 2, "data": {"wireframes": [{"id": 1, "type": "input", "inputType": "text", "value": "secret"}]}}),
            ),
            (
                ReplayEventType::Input,
                json!({"target": "#mail", "value": "secret", "fields": [{"name": "a", "text": "secret"}]}),
            ),
            (ReplayEventType::Input, json!("secret")),
            (ReplayEventType::Mouse, json!({"x": 1, "text": "Buy", "value": "Buy"})),
        ]);
        for masked in [&typed, &changed, &mobile, &own, &text] {
            assert!(!masked.to_string().contains("secret"), "{masked}");
        }
        assert_eq!(typed["data"], json!({"source": 5, "id": 9, "text": "******", "isChecked": false}));
        assert_eq!(changed["data"]["attributes"][0]["attributes"], json!({"value": "******", "class": "a"}));
        assert_eq!((&own["target"], &own["fields"][0]["name"]), (&json!("#mail"), &json!("a")));
        assert_eq!(moved, json!({"x": 1, "text": "Buy", "value": "Buy"}));
    }
}
