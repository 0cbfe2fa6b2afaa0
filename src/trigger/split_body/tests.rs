use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;

const MAX_EVENTS: usize = 100;

/// Splits a body into strings. Bytes that are not UTF-8 become `\u{fffd}`.
fn split(body: &[u8]) -> Result<Vec<String>, BodyError> {
    let batch = split_body(body, Form::Any, MAX_EVENTS)?;
    Ok(batch.raw_events.into_iter().map(|raw_event| String::from_utf8_lossy(raw_event.bytes()).into_owned()).collect())
}

#[track_caller]
fn check(body: &str, wanted: &[&str]) {
    assert_eq!(split(body.as_bytes()).unwrap(), wanted, "{body}");
}

#[test]
fn the_four_forms() {
    check(r#" {"event":"a"} "#, &[r#"{"event":"a"}"#]);
    check("{\n  \"event\": \"a\",\n  \"b\": [1,\n{}]\n}\n", &["{\n  \"event\": \"a\",\n  \"b\": [1,\n{}]\n}"]);
    check(r#"[ {"a":1} , {"b":[2,{"c":","}]},3 ]"#, &[r#"{"a":1}"#, r#"{"b":[2,{"c":","}]}"#, "3"]);
    check(r#"{"k":[{"events":[1]}],"events" : [{"a":"]"},{"b":2}],"sent_at":"x"}"#, &[r#"{"a":"]"}"#, r#"{"b":2}"#]);
    check("{\"a\":1}\r\n\r\n  \n{\"b\":2}\n", &[r#"{"a":1}"#, r#"{"b":2}"#]);
    check("\u{feff}[1]", &["1"]);
}

#[test]
fn the_form_lines_splits_at_line_breaks_only() {
    let raw_events = |body| split_body(body, Form::Lines, MAX_EVENTS).unwrap().raw_events;
    let lines = |body| raw_events(body).iter().map(RawEvent::bytes).collect::<Vec<_>>();
    assert_eq!(lines(b"{\"events\":[1,2]}"), [&b"{\"events\":[1,2]}"[..]]);
    assert_eq!(lines(b"[1]\n[2]"), [&b"[1]"[..], b"[2]"]);
}

#[test]
fn brackets_and_keys_inside_strings_are_ignored() {
    check(r#"["a\"],","\\",{"x":"{[\\\""}]"#, &[r#""a\"],""#, r#""\\""#, r#"{"x":"{[\\\""}"#]);
    check(r#"{"x":"\"events\":[1]","events":[2]}"#, &["2"]);
    check(r#"{"x":{"events":[1]},"events":[2]}"#, &["2"]);
    check(r#"{"x":"events","y":["events",[1]],"events":[2]}"#, &["2"]);
}

#[test]
fn an_event_with_a_field_named_events_stays_one_event() {
    for body in [r#"{"event":"x","events":[1,2]}"#, r#"{"events":[1,2],"event":"x"}"#, r#"{"event":"x","events":3}"#] {
        check(body, &[body]);
    }
    let many = format!(r#"{{"events":[{}1],"event":"x"}}"#, "1,".repeat(MAX_EVENTS));
    check(&many, &[&many]);
}

#[test]
fn a_body_without_events_is_an_error() {
    for body in ["", " \n", "[]", " [ \n ] ", r#"{"events":[]}"#, "\u{feff}"] {
        assert_eq!(split(body.as_bytes()), Err(BodyError::Empty), "{body}");
    }
    for body in [r#"{"events":{"a":1}}"#, r#"{"events":"[]"}"#, r#"{"events":null,"x":1}"#] {
        assert_eq!(split(body.as_bytes()), Err(BodyError::EventsNotAnArray), "{body}");
    }
}

#[test]
fn a_body_with_too_many_events_is_an_error() {
    for (before, between, after) in [("[", ",", "]"), (r#"{"events":["#, ",", "]}"), ("", "\n", "")] {
        let body = |count| format!("{before}{}{after}", vec!["1"; count].join(between));
        assert_eq!(split(body(MAX_EVENTS).as_bytes()).unwrap().len(), MAX_EVENTS);
        assert_eq!(split(body(MAX_EVENTS + 1).as_bytes()), Err(BodyError::TooManyEvents(MAX_EVENTS)));
    }
}

#[test]
fn a_broken_element_does_not_affect_the_others() {
    check(r#"[{"a":1},,{"b":2},]"#, &[r#"{"a":1}"#, "", r#"{"b":2}"#, ""]);
    check(r#"[{"a":1},nonsense,{"b":2}]"#, &[r#"{"a":1}"#, "nonsense", r#"{"b":2}"#]);
    check(r#"[{"a":[1,2},{"b":2}]"#, &[r#"{"a":[1,2}"#, r#"{"b":2}"#]);
    check(r#"[{"a":1]},{"b":2}]"#, &[r#"{"a":1]}"#, r#"{"b":2}"#]);
    check(r#"[{"a":1}},{"b":2}]"#, &[r#"{"a":1}}"#, r#"{"b":2}"#]);
    check(r#"[{{a}},{"b":2}]"#, &["{{a}}", r#"{"b":2}"#]);
    check("[{\"a\":\"line\nbreak\"},{\"b\":2}]", &["{\"a\":\"line\nbreak\"}", r#"{"b":2}"#]);
    check("[\"\0\",{\"b\":2}]", &["\"\0\"", r#"{"b":2}"#]);
    assert_eq!(split(b"[{\"a\":\"\xff\xfe\"},{\"b\":2}]").unwrap(), ["{\"a\":\"\u{fffd}\u{fffd}\"}", r#"{"b":2}"#]);
}

#[test]
fn an_element_that_is_never_closed_ends_where_the_next_one_begins() {
    check(r#"[1,{"a":{"b":1},{"c":2},{"d":3}]"#, &["1", r#"{"a":{"b":1}"#, r#"{"c":2}"#, r#"{"d":3}"#]);
    check(r#"{"events":[{"a":[{},{"c":2}],"x":{},{"d":3}]}"#, &[r#"{"a":[{},{"c":2}],"x":{}"#, r#"{"d":3}"#]);
}

#[test]
fn a_body_that_is_cut_off_has_a_broken_last_event() {
    check(r#"[{"a":1},{"b":"#, &[r#"{"a":1}"#, r#"{"b":"#]);
    check(r#"[{"a":1},{"b":2},"#, &[r#"{"a":1}"#, r#"{"b":2}"#, ""]);
    check(r#"[{"a":1},{"b":"x},{"c":3}]"#, &[r#"{"a":1}"#, r#"{"b":"x},{"c":3}]"#]);
    check(r#"{"events":[{"a":1},{"b"#, &[r#"{"a":1}"#, r#"{"b"#]);
    check(r#"{"events":[{"a":1}]"#, &[r#"{"a":1}"#, ""]);
    check(r#"{"events":[{"a":1}],"x":"#, &[r#"{"a":1}"#, r#","x":"#]);
    check("{\n  \"event\": \"a\",\n  \"b\": {", &["{\n  \"event\": \"a\",\n  \"b\": {"]);
    check("[", &[""]);
}

#[test]
fn what_follows_the_events_is_not_dropped() {
    check(r#"[{"a":1}] {"b":2}"#, &[r#"{"a":1}"#, r#"{"b":2}"#]);
    check(r#"{"events":[1]} x"#, &["1", "x"]);
    check(r#"{"a":1} x"#, &[r#"{"a":1} x"#]);
}

#[test]
fn objects_in_a_row_are_events() {
    check(r#"{"a":1}{"b":"}{"}{"c":[{"d":1}]}"#, &[r#"{"a":1}"#, r#"{"b":"}{"}"#, r#"{"c":[{"d":1}]}"#]);
    check(
        "{\"a\":1} {\"b\":2}\n{\"c\":3}\r\n{\"d\":4}{\"e\":5}\n",
        &[r#"{"a":1}"#, r#"{"b":2}"#, r#"{"c":3}"#, r#"{"d":4}"#, r#"{"e":5}"#],
    );
    // Objects over several lines each.
    check("{\n  \"a\": 1\n}\n{\n  \"b\": {}\n}{\n}", &["{\n  \"a\": 1\n}", "{\n  \"b\": {}\n}", "{\n}"]);
    check(r#"[{"a":1}{"b":2},{"c":3} {"d":4}]"#, &[r#"{"a":1}"#, r#"{"b":2}"#, r#"{"c":3}"#, r#"{"d":4}"#]);
    // A broken object takes the rest of its line with it.
    check("{\"a\":1}{\"b\":{\"c\":2}{\"d\":3}\n{\"e\":4}", &[r#"{"a":1}"#, r#"{"b":{"c":2}{"d":3}"#, r#"{"e":4}"#]);
}

#[test]
fn sent_at_is_read_beside_the_events() {
    let sent_at = |body: &str| split_body(body.as_bytes(), Form::Any, MAX_EVENTS).unwrap().sent_at;
    let noon = Some(1_773_144_000_000);
    for body in [
        r#"{"sent_at":"2026-03-10T12:00:00Z","events":[1]}"#,
        r#"{"events":[1],"sent_at":"2026-03-10T12:00:00Z"}"#,
        r#"{"batch":[{"event":"x"}], "sent_at" : 1773144000 , "api_key":"k"}"#,
        r#"{"sent_at":1773144000000,"batch":[1]}"#,
    ] {
        assert_eq!(sent_at(body), noon, "{body}");
    }
    for body in [
        r#"{"events":[1]}"#,
        r#"{"sent_at":{"a":1},"events":[1]}"#,
        r#"{"sent_at":"soon","events":[1]}"#,
        r#"{"x":{"sent_at":1773144000},"events":[{"sent_at":1773144000}]}"#,
        // An event's own `sent_at`.
        r#"{"event":"x","sent_at":1773144000}"#,
        "{\"event\":\"x\",\"sent_at\":1773144000}\n{\"event\":\"y\"}",
    ] {
        assert_eq!(sent_at(body), None, "{body}");
    }
}

#[test]
fn a_broken_line_does_not_affect_the_others() {
    for first in [r#"{"a":"#, r#"{"a":{"b":1}"#, r#"{"a":[1,2}"#, r#"{"a":"x"#, "nonsense", "7", r#"{"a":1}}"#] {
        check(&format!("{first}\n{{\"b\":2}}\n{{\"c\":3}}\n"), &[first, r#"{"b":2}"#, r#"{"c":3}"#]);
        check(&format!("{{\"b\":2}}\n{first}\n{{\"c\":3}}"), &[r#"{"b":2}"#, first, r#"{"c":3}"#]);
    }
    check("{\"events\":7}\n{\"b\":2}", &[r#"{"events":7}"#, r#"{"b":2}"#]);
}

#[test]
fn hostile_brackets_are_split_in_linear_time() {
    // Quadratic time on these would be minutes.
    for unit in ["[", "{", "{]", "[}", "{\"a\":[", "]", "},{", "\"\\", "[{", "{{"] {
        for before in ["", "[", "{\"events\":["] {
            let body = format!("{before}{}", unit.repeat(300_000 / unit.len()));
            let _ = split_body(body.as_bytes(), Form::Any, MAX_EVENTS);
        }
    }
}

/// Generates events as JSON objects with different white space.
fn event() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<i32>().prop_map(|number| number.to_string()),
        ".{0,8}".prop_map(|string| serde_json::to_string(&string).unwrap()),
        "[\\[\\]{}\",:\\\\]{0,6}".prop_map(|string| serde_json::to_string(&string).unwrap()),
    ];
    let value = leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(|items| format!("[{}]", items.join(" , "))),
            prop::collection::vec(inner, 0..3).prop_map(|items| {
                let members: Vec<_> = items.iter().enumerate().map(|(at, item)| format!("\"k{at}\" :{item}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    });
    (value, any::<bool>()).prop_map(|(value, first)| {
        if first { format!(r#"{{"event":"x","v":{value}}}"#) } else { format!(r#"{{"v":{value}, "event":"x"}}"#) }
    })
}

/// Generates bytes that look like JSON more often than random ones.
fn jsonish() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![8 => prop::sample::select(b"[]{}\",:\\ \n1a".to_vec()), 1 => any::<u8>()];
    let word = prop_oneof![
        8 => byte.prop_map(|byte| vec![byte]),
        1 => Just(b"\"events\":[".to_vec()),
        1 => Just(b"{\"event\":".to_vec()),
    ];
    prop::collection::vec(word, 0..60).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn events_are_recovered_from_every_form(events in prop::collection::vec(event(), 1..6)) {
        let joined = events.join(" ,\n");
        prop_assert_eq!(&split(format!("[{joined}]").as_bytes()).unwrap(), &events);
        prop_assert_eq!(&split(format!("{{\"events\":[{joined}] }}").as_bytes()).unwrap(), &events);
        prop_assert_eq!(&split(events.join("\n").as_bytes()).unwrap(), &events);
        prop_assert_eq!(&split(events.concat().as_bytes()).unwrap(), &events);
        prop_assert_eq!(&split(events.join(" ").as_bytes()).unwrap(), &events);
        prop_assert_eq!(&split(events[0].as_bytes()).unwrap(), &events[..1]);
    }

    #[test]
    fn a_json_array_is_split_as_serde_json_does(
        events in prop::collection::vec(event(), 1..6),
        cut in prop_oneof![Just(0), 0_usize..100],
    ) {
        // The end of a valid array is sometimes a valid array itself.
        let json = format!("[{}]", events.join(","));
        let json = json.get(cut.min(json.len())..).unwrap_or(&json);
        if let Ok(elements) = serde_json::from_str::<Vec<&RawValue>>(json) && !elements.is_empty() {
            let elements: Vec<_> = elements.into_iter().map(|element| element.get().to_owned()).collect();
            prop_assert_eq!(split(json.as_bytes()).unwrap(), elements);
        }
    }

    #[test]
    fn any_bytes_are_accepted(body in prop_oneof![jsonish(), prop::collection::vec(any::<u8>(), 0..60)]) {
        for form in [Form::Any, Form::Lines] {
            let Ok(Batch { raw_events, .. }) = split_body(&body, form, MAX_EVENTS) else { continue };
            // The raw events are in order and do not overlap.
            let mut from = body.as_ptr() as usize;
            for raw_event in raw_events.iter().map(RawEvent::bytes).filter(|raw_event| !raw_event.is_empty()) {
                prop_assert!(raw_event.as_ptr() as usize >= from);
                from = raw_event.as_ptr() as usize + raw_event.len();
            }
            prop_assert!(from <= body.as_ptr() as usize + body.len());
        }
    }

    #[test]
    fn one_broken_element_does_not_affect_the_others(
        events in prop::collection::vec(event(), 2..6),
        bad in prop_oneof![
            Just("{\"a\":[1,2}"), Just("{a:1}"), Just("\u{0}"), Just("{\"a\":1}}"), Just("tru"), Just("{{}}"), Just(""),
        ],
        place in any::<prop::sample::Index>(),
    ) {
        let mut events = events;
        let place = place.index(events.len());
        events[place] = bad.to_owned();
        prop_assert_eq!(&split(format!("[{}]", events.join(",")).as_bytes()).unwrap(), &events);
    }
}
