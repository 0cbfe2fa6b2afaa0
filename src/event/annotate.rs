//! Writing an event's JSON with its session's properties.

use uuid::Uuid;

use super::raw::{given, range_in, string};
use super::{Event, Role};
use crate::config::AnswerDetail;
use crate::session::{datetime, rfc3339};
use crate::timeline::Assignment;

/// Bytes that annotating adds to a usual event. Long URLs and referrers add more.
pub const USUAL_ADDED_BYTES: usize = 640;

impl Event<'_> {
    /// Returns the event's JSON with the session's properties in its `properties`.
    ///
    /// Members of the same names are replaced, and every other byte stays. Without an assignment, only a derived `uuid` and flags
    /// such as `$time_flag` are added.
    pub fn annotate(&self, assignment: Option<&Assignment>) -> String {
        let mut out = String::with_capacity(self.text.len() + USUAL_ADDED_BYTES);
        self.annotate_into(assignment, &mut out);
        out
    }

    /// Like [`Event::annotate`], but appends the JSON to `out`.
    pub fn annotate_into(&self, assignment: Option<&Assignment>, out: &mut String) {
        self.annotate_for(AnswerDetail::Full, assignment, out);
    }

    /// Like [`Event::annotate_into`], but writes only the properties that a caller may see.
    pub fn annotate_for(&self, detail: AnswerDetail, assignment: Option<&Assignment>, out: &mut String) {
        if self.role == Role::Lifecycle {
            return out.push_str(self.text);
        }
        let mut fields = [
            ("properties", self.fields.properties, assignment.is_some() || self.is_flagged()),
            ("uuid", self.fields.uuid, self.writes_uuid),
            ("project", self.fields.project, self.writes_project),
        ]
        .map(|(name, json, is_written)| (name, json.map(|json| range_in(self.text, json)), is_written));
        // In the order of the event, and those that it does not have last.
        fields.sort_by_key(|(_, range, _)| range.as_ref().map_or(usize::MAX, |range| range.start));
        let mut copied = 0;
        for (name, range, _) in fields.iter().filter(|(.., is_written)| *is_written) {
            match range {
                Some(range) => {
                    out.push_str(&self.text[copied..range.start]);
                    copied = range.end;
                }
                None => {
                    // An event has at least its `distinct_id`, so a comma comes first.
                    out.push_str(&self.text[copied..self.text.len() - 1]);
                    copied = self.text.len() - 1;
                    out.push_str(",\"");
                    out.push_str(name);
                    out.push_str("\":");
                }
            }
            match *name {
                "properties" => self.write_properties(detail, assignment, out),
                "uuid" => out.push_str(&json_string(&self.uuid)),
                _ => out.push_str(&json_string(&self.project)),
            }
        }
        out.push_str(&self.text[copied..]);
    }

    /// Returns whether a flag has to be added, with or without a session.
    fn is_flagged(&self) -> bool {
        self.time_flag.is_some() || self.is_repaired || self.is_bot || self.role == Role::Nobody
    }

    fn write_properties(&self, detail: AnswerDetail, assignment: Option<&Assignment>, out: &mut String) {
        out.push('{');
        // What is no object is null or an empty array, which have no members.
        if let Some(members) = self.fields.properties.and_then(|json| json.strip_prefix('{')?.strip_suffix('}')) {
            self.kept_members(members, assignment.is_some(), out);
        }
        self.added_members(detail, assignment, out);
        out.push('}');
    }

    /// Copies the members that stay, each with the comma after it. Without a session, the event keeps its own session
    /// properties, such as a client's `$session_id`.
    fn kept_members(&self, members: &str, has_session: bool, out: &mut String) {
        let mut rest = members;
        for replaced in self.properties.replaced.iter().filter(|replaced| has_session || replaced.is_flag) {
            let value = range_in(rest, replaced.json);
            out.push_str(&rest[..member_start(&rest[..value.start])]);
            rest = &rest[value.end..];
            rest = rest.trim_ascii_start().strip_prefix(',').unwrap_or(rest);
        }
        let rest = rest.trim_ascii_end();
        if !rest.is_empty() {
            out.push_str(rest);
            out.push(',');
        }
    }

    /// Writes the new members, with commas between them.
    fn added_members(&self, detail: AnswerDetail, assignment: Option<&Assignment>, out: &mut String) {
        let mut members = MemberWriter { out, is_first: true };
        if let Some(assignment) = assignment {
            self.session_members(detail, assignment, &mut members);
        }
        match self.role {
            Role::Nobody => members.plain_string(",\"$no_session\":", "nobody"),
            Role::Bot => members.plain_string(",\"$no_session\":", "bot"),
            _ => {}
        }
        if self.is_bot {
            members.raw(",\"$is_bot\":", "true");
        }
        if let Some(flag) = self.time_flag {
            members.plain_string(",\"$time_flag\":", flag.name());
        }
        if self.is_repaired {
            members.raw(",\"$sanitized\":", "true");
        }
    }

    fn session_members(&self, detail: AnswerDetail, assignment: &Assignment, members: &mut MemberWriter<'_>) {
        members.id(",\"$session_id\":", Some(assignment.session_id));
        let seconds = (assignment.at - assignment.started_at).max(0) / 1000;
        members.number(",\"$session_duration\":", seconds);
        members.number(",\"$session_page_views\":", assignment.page_views);
        match detail {
            AnswerDetail::Full => self.members_of_other_events(assignment, members),
            AnswerDetail::Ids => self.own_members(members),
        }
        members.plain_string(",\"$session_start_reason\":", assignment.reason.name());
        members.number(",\"$session_number\":", assignment.number);
        if detail == AnswerDetail::Full {
            members.id(",\"$previous_session_id\":", assignment.previous);
        }
        members.raw(",\"$session_start\":", if assignment.is_start { "true" } else { "false" });
        members.number(",\"$session_version\":", assignment.version);
        if assignment.is_late {
            members.raw(",\"$late\":", "true");
        }
        // On a duplicate, `assignment.at` is the time that was counted first.
        if !self.is_own_time || assignment.at != self.at {
            members.plain_string(",\"$event_time\":", &rfc3339(datetime(assignment.at)));
        }
    }

    /// Writes what other events of the session may have brought: its URLs, its referrer and its user.
    fn members_of_other_events(&self, assignment: &Assignment, members: &mut MemberWriter<'_>) {
        members.string(",\"$entry_url\":", assignment.entry_url.as_deref());
        members.string(",\"$exit_url\":", assignment.exit_page.as_deref());
        members.string(",\"$referrer\":", assignment.referrer.as_deref());
        let properties = &self.properties;
        if let Some(own) = given(properties.referrer)
            && string(own).as_deref() != assignment.referrer.as_deref()
        {
            members.raw(",\"$event_referrer\":", own);
        }
        match (properties.user(), &assignment.user_id) {
            (None, Some(user_id)) => members.string(",\"$user_id\":", Some(user_id)),
            (None, None) => {
                if let Some(no_user) = properties.no_user() {
                    members.raw(",\"$user_id\":", no_user);
                }
            }
            (Some(_), _) => {}
        }
    }

    /// Writes the event's own values of members that are otherwise replaced by those of the session.
    fn own_members(&self, members: &mut MemberWriter<'_>) {
        if let Some(own) = self.properties.referrer {
            members.raw(",\"$referrer\":", own);
        }
        if let Some(no_user) = self.properties.no_user() {
            members.raw(",\"$user_id\":", no_user);
        }
    }
}

/// Writes an object's members. Keys are given as they are written after another member: with comma, quotation marks and colon.
struct MemberWriter<'o> {
    out: &'o mut String,
    is_first: bool,
}

impl MemberWriter<'_> {
    /// Writes a value that is JSON.
    fn raw(&mut self, key: &'static str, json: &str) {
        self.out.push_str(&key[usize::from(self.is_first)..]);
        self.out.push_str(json);
        self.is_first = false;
    }

    fn number(&mut self, key: &'static str, number: impl itoa::Integer) {
        self.raw(key, itoa::Buffer::new().format(number));
    }

    /// Writes a string that needs no escape.
    fn plain_string(&mut self, key: &'static str, value: &str) {
        self.raw(key, "\"");
        self.out.push_str(value);
        self.out.push('"');
    }

    fn string(&mut self, key: &'static str, value: Option<&str>) {
        match value {
            None => self.raw(key, "null"),
            Some(value) if needs_no_escape(value) => self.plain_string(key, value),
            Some(value) => self.raw(key, &json_string(value)),
        }
    }

    fn id(&mut self, key: &'static str, id: Option<Uuid>) {
        match id {
            None => self.raw(key, "null"),
            Some(id) => self.plain_string(key, id.as_hyphenated().encode_lower(&mut Uuid::encode_buffer())),
        }
    }
}

/// Returns a string as JSON.
fn json_string(value: &str) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Returns whether a string can be written as a JSON string without escapes.
fn needs_no_escape(value: &str) -> bool {
    // Not `any`: without an early end, several bytes are compared at once.
    value.bytes().fold(0, |found, byte| found | u8::from(byte < b' ' || byte == b'"' || byte == b'\\')) == 0
}

/// Returns where a member begins, from what is before its value. Its key is one of the names that annotating writes. No such name
/// has a quotation mark in it, however it is spelled.
fn member_start(before_value: &str) -> usize {
    let key_end = before_value.rfind('"').unwrap_or_default();
    before_value[..key_end].rfind('"').unwrap_or_default()
}

#[cfg(test)]
mod tests {
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
        let start =
            r#"{"uuid":"e","event":"x","distinct_id":"u","big":1.50e400, "properties":{ "z":01"#.replace("01", "1");
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
            assert_eq!(
                annotated(&format!("{head}{members}}}}}")),
                expect(&format!("{head}{left}"), "", "}}"),
                "{members}"
            );
        }
    }

    /// The session's user is added to an event that names none; the event's own user stays.
    #[test]
    fn an_event_gets_the_user_of_its_session() {
        let properties = |user_id, own: &str| {
            let json = format!(r#"{{"uuid":"e","event":"x","distinct_id":"u","properties":{{{own}}}}}"#);
            let annotated = annotated_of(user_id, &json);
            assert_eq!(
                annotated.matches("\"$user_id\"").count(),
                usize::from(user_id.is_some() || own.contains("user"))
            );
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
}
