use super::super::{Delivery, Event, Origin};
use crate::config::SessionConfig;
use crate::session::{Reason, Visitor, session_id};
use crate::timeline::Assignment;

const NOON: i64 = 1_773_144_000_000;

fn assignment() -> Assignment {
    Assignment {
        session_id: session_id(Visitor::new("u").bits(), NOON, "e", 0),
        reason: Reason::First,
        number: 1,
        previous: None,
        started_at: NOON - 5_500,
        at: NOON,
        page_views: 2,
        entry_url: Some("https://a.test/\"".into()),
        exit_page: None,
        referrer: Some("https://google.com/".into()),
        user_id: None,
        is_start: false,
        is_late: false,
        is_duplicate: false,
        version: 3,
    }
}

fn annotated(json: &str) -> String {
    annotated_of(None, json)
}

/// Annotates an event with a session of this user.
fn annotated_of(user_id: Option<&str>, json: &str) -> String {
    let config = SessionConfig::default();
    let event =
        Event::parse(json.as_bytes(), Delivery { received_at: NOON, trusts_received_at: false }, &config).unwrap();
    let assignment = Assignment { user_id: user_id.map(Into::into), ..assignment() };
    let alone = event.annotate(Some(&assignment));
    let mut appended = "{\"events\":[".to_owned();
    event.annotate_into(Some(&assignment), &mut appended);
    assert_eq!(appended.strip_prefix("{\"events\":["), Some(alone.as_str()));
    alone
}

const ADDED: &str = concat!(
    r#""$session_id":"019cd77d-fe00-7ID-PLACE","$session_duration":5,"$session_page_views":2,"$entry_url":"https://a.test/\"","#,
    r#""$exit_url":null,"$referrer":"https://google.com/","#,
);
const REST: &str = concat!(
    r#""$session_start_reason":"first","$session_number":1,"$previous_session_id":null,"$session_start":false,"#,
    r#""$session_version":3,"$event_time":"2026-03-10T12:00:00.000Z""#,
);

fn expect(before: &str, event_referrer: &str, after: &str) -> String {
    let id = session_id(Visitor::new("u").bits(), NOON, "e", 0).to_string();
    let added = ADDED.replace("019cd77d-fe00-7ID-PLACE", &id);
    format!("{before}{added}{event_referrer}{REST}{after}")
}

#[test]
fn other_members_stay_byte_for_byte() {
    let start = r#"{"uuid":"e","event":"x","distinct_id":"u","big":1.50e400, "properties":{ "z":01"#.replace("01", "1");
    for (json, wanted) in [
        (format!("{start} }}}}"), expect(&format!("{start},"), "", "}}")),
        (
            r#"{"uuid":"e","event":"x","distinct_id":"u"}"#.to_owned(),
            expect(r#"{"uuid":"e","event":"x","distinct_id":"u","properties":{"#, "", "}}"),
        ),
        (
            r#"{"uuid":"e","event":"x","properties":null,"distinct_id":"u"}"#.to_owned(),
            expect(r#"{"uuid":"e","event":"x","properties":{"#, "", r#"},"distinct_id":"u"}"#),
        ),
        (
            r#"{"uuid":"e","event":"x","properties":{},"distinct_id":"u"}"#.to_owned(),
            expect(r#"{"uuid":"e","event":"x","properties":{"#, "", r#"},"distinct_id":"u"}"#),
        ),
    ] {
        assert_eq!(annotated(&json), wanted);
    }
}

#[test]
fn members_of_our_names_are_replaced_and_the_referrer_is_kept() {
    let head = r#"{"uuid":"e","event":"x","distinct_id":"u","properties":{"#;
    let kept = r#""$event_referrer":"https://bing.com/","#;
    for (members, left) in [
        (r#""a":1,"$referrer":"https://bing.com/" , "b":2"#, r#""a":1, "b":2,"#),
        (r#""$referrer":"https://bing.com/","a":1"#, r#""a":1,"#),
        (r#""a":1,"$referrer":"https://bing.com/""#, r#""a":1,"#),
        (r#""a":1,"$session_id":"own","$referrer":"https://bing.com/""#, r#""a":1,"#),
        (r#""$session_id":"own", "$referrer":"https://bing.com/""#, " "),
    ] {
        assert_eq!(
            annotated(&format!("{head}{members}}}}}")),
            expect(&format!("{head}{left}"), kept, "}}"),
            "{members}"
        );
    }
}

/// A member of ours is found however its key and the white space around it are spelled, and nothing else is changed.
#[test]
fn members_are_replaced_however_they_are_spelled() {
    let head = r#"{"uuid":"e","event":"x","distinct_id":"u","properties":{"#;
    for (members, left) in [
        (r#""\u0024session_id" : "a\"\\","z":1.50e400"#, r#""z":1.50e400,"#),
        (
            "\n \"z\" : [1, {\"$late\":2}] ,\t\"$l\\u0061te\"\n:\r{\"a\":[\",\"]} , \"y\":\"$late\\\"\" ",
            "\n \"z\" : [1, {\"$late\":2}] ,\t \"y\":\"$late\\\"\",",
        ),
        (r#""$late":"","$late":[],"$session_start":"\",\"" , "$session_id":{}"#, " "),
        (r#""\"":"\"$late\":1","$late":1"#, r#""\"":"\"$late\":1","#),
    ] {
        assert_eq!(annotated(&format!("{head}{members}}}}}")), expect(&format!("{head}{left}"), "", "}}"), "{members}");
    }
}

/// The session's user is added to an event that names none; the event's own user stays.
#[test]
fn an_event_gets_the_user_of_its_session() {
    let properties = |user_id, own: &str| {
        let json = format!(r#"{{"uuid":"e","event":"x","distinct_id":"u","properties":{{{own}}}}}"#);
        let annotated = annotated_of(user_id, &json);
        assert_eq!(annotated.matches("\"$user_id\"").count(), usize::from(user_id.is_some() || own.contains("user")));
        serde_json::from_str::<serde_json::Value>(&annotated).unwrap()["properties"]["$user_id"].clone()
    };
    for (user_id, own, wanted) in [
        (Some("ann"), "", "\"ann\""),
        (Some("ann \"b\""), r#""a":1"#, r#""ann \"b\"""#),
        (Some("ann"), r#""$user_id":null,"a":1"#, "\"ann\""),
        (Some("ann"), r#""a":1,"$user_id": "" "#, "\"ann\""),
        (Some("ann"), r#""$user_id":"bob""#, "\"bob\""),
        (Some("ann"), r#""$user_id":7"#, "7"),
        (Some("ann"), r#""$user_id":42"#, "42"),
        (Some("ann"), r#""$user_id":{}"#, "\"ann\""),
        (Some("ann"), r#""$user_id":{"id":1},"a":1"#, "\"ann\""),
        (Some("ann"), r#""$user_id":true"#, "\"ann\""),
        (None, r#""$user_id":["b"]"#, "[\"b\"]"),
        (None, r#""$user_id":null"#, "null"),
        (None, r#""$user_id":"","a":1"#, "\"\""),
        (None, r#""$user_id":"bob""#, "\"bob\""),
        (None, "", "null"),
    ] {
        assert_eq!(
            properties(user_id, own),
            serde_json::from_str::<serde_json::Value>(wanted).unwrap(),
            "{user_id:?} {own}"
        );
    }
}

/// The project of a write key takes the place of the event's own, also beside an id that is written.
#[test]
fn the_project_of_a_key_replaces_the_events_own() {
    let config = SessionConfig::default();
    let delivery = Delivery { received_at: NOON, trusts_received_at: false };
    let origin = Origin { project: Some("sh\"op"), ..delivery.into() };
    let properties = r#""properties":{"$session_id":"own","a":1}"#;
    for json in [
        format!(r#"{{"event":"x","distinct_id":"u",{properties},"uuid":"e"}}"#),
        format!(r#"{{"event":"x","distinct_id":"u",{properties}}}"#),
        format!(r#"{{"project":"other project","uuid":null,"event":"x","distinct_id":"u",{properties}}}"#),
        format!(r#"{{"uuid":null,"event":"x","project":"o","distinct_id":"u",{properties}}}"#),
        format!(r#"{{"project":"o","event":"x","distinct_id":"u",{properties},"uuid":null}}"#),
        format!(r#"{{"event":"x",{properties},"project":null,"distinct_id":"u","uuid":"nil"}}"#),
        format!(r#"{{"event":"x",{properties},"uuid":"undefined","distinct_id":"u","project":["o"]}}"#),
        r#"{"event":"x","distinct_id":"u","project":7}"#.to_owned(),
        r#"{"event":"x","distinct_id":"u","project":"sh\u0022op","uuid":"e"}"#.to_owned(),
    ] {
        let event = Event::parse(json.as_bytes(), origin, &config).unwrap();
        assert_eq!(event.project, "sh\"op", "{json}");
        let assignment = assignment();
        for assignment in [None, Some(&assignment)] {
            let annotated = event.annotate(assignment);
            for name in ["\"project\"", "\"uuid\""] {
                assert_eq!(annotated.matches(name).count(), 1, "{annotated}");
            }
            let value: serde_json::Value = serde_json::from_str(&annotated).unwrap();
            assert_eq!((&value["project"], &value["event"]), (&"sh\"op".into(), &"x".into()), "{annotated}");
            assert_eq!(value["uuid"], *event.uuid, "{annotated}");
            assert_eq!(value["properties"]["$session_number"].is_u64(), assignment.is_some(), "{annotated}");
        }
    }
    // An event that names this project stays byte for byte.
    let json = r#"{"uuid":"e","event":"x","distinct_id":"u","project":"sh\u0022op"}"#;
    assert_eq!(Event::parse(json.as_bytes(), origin, &config).unwrap().annotate(None), json);
}

#[test]
fn without_a_session_only_the_flag_is_added() {
    let config = SessionConfig::default();
    let json = |own: &str| {
        format!(r#"{{"uuid":"e","event":"x","distinct_id":"u","timestamp":"soon","properties":{{{own}}}}}"#)
    };
    let own = r#""$session_id":"own","$time_flag":"own","#;
    let before = json(&format!("{own}\"a\":1"));
    let delivery = Delivery { received_at: NOON, trusts_received_at: false };
    let event = Event::parse(before.as_bytes(), delivery, &config).unwrap();
    assert_eq!(event.annotate(None), json(r#""$session_id":"own","a":1,"$time_flag":"unparseable""#));
}

#[test]
fn an_event_of_nobody_is_flagged() {
    let config = SessionConfig::default();
    let annotate = |json: &str| {
        let delivery = Delivery { received_at: NOON, trusts_received_at: false };
        Event::parse(json.as_bytes(), delivery, &config).unwrap().annotate(None)
    };
    let json = |own: &str| format!(r#"{{"uuid":"e","event":"$pageview","distinct_id":"undefined"{own}}}"#);
    let emitted = json(r#","properties":{"$no_session":"nobody"}"#);
    for own in ["", r#","properties":{}"#, r#","properties":null"#, r#","properties":{"$no_session":"own"}"#] {
        assert_eq!(annotate(&json(own)), emitted, "{own}");
    }
    let with = |members: &str| json(&format!(r#","properties":{{{members}}}"#));
    assert_eq!(
        annotate(&with(r#""$session_id":"own","a":1"#)),
        with(r#""$session_id":"own","a":1,"$no_session":"nobody""#)
    );
    // The service's own events are passed on unchanged.
    let end = r#"{"event":"$session_end","distinct_id":"undefined"}"#;
    assert_eq!(annotate(end), end);
}

#[test]
fn an_event_without_an_id_gets_the_same_id_each_time() {
    let json = r#"{"event":"x","distinct_id":"u","properties":{}}"#;
    let once = annotated(json);
    assert_eq!(once, annotated(json));
    assert!(serde_json::from_str::<serde_json::Value>(&once).unwrap()["uuid"].is_string());
}

#[test]
fn a_null_uuid_is_replaced_by_an_id() {
    for json in [
        r#"{"uuid": null ,"event":"x","distinct_id":"u"}"#,
        r#"{"uuid":null,"event":"x","properties":{"$session_id":"own","a":1},"distinct_id":"u"}"#,
        r#"{"event":"x","properties":{"$session_id":"own","a":1},"uuid":null,"distinct_id":"u"}"#,
        r#"{"event":"x","properties":null,"uuid":null,"distinct_id":"u"}"#,
    ] {
        let annotated = annotated(json);
        assert_eq!(annotated.matches("\"uuid\"").count(), 1, "{annotated}");
        let value: serde_json::Value = serde_json::from_str(&annotated).unwrap();
        assert_eq!(value["uuid"].as_str().unwrap().len(), 36, "{annotated}");
        assert_eq!(value["properties"]["$session_number"], 1, "{annotated}");
    }
}
