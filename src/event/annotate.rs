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
mod tests;
