//! Items and their keys: what `dynamodb.rs` writes and reads. Its drawing shows all of them.

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use uuid::Uuid;

use crate::model::{FingerprintPage, SessionState};
use crate::session::{Millis, Visitor};
use crate::storage::{Commit, Due, SessionError, Stored, due_shard};
use crate::stored::{FORMAT, FormatError, decode_page, decode_session, decode_timeline, encode_page};

/// An item's attributes by their names.
pub(super) type Item = HashMap<String, AttributeValue>;

pub(super) fn partition_key(visitor_bits: u64) -> String {
    format!("{visitor_bits:016x}")
}

/// The prefix of the sort keys of timelines.
pub(super) const TIMELINE_PREFIX: &str = "t#";
/// The prefix of the sort keys of archived sessions and aliases.
pub(super) const SESSION_PREFIX: &str = "s#";
/// The prefix of the sort keys of pages.
pub(super) const PAGE_PREFIX: &str = "p#";
/// The bit of a page's number in its key that tells pages of late events from the others. Five hexadecimal digits hold it. A
/// session would need 33 million events to use up the numbers below it; then its first page is replaced.
const LATE_PAGE: u32 = 0x8_0000;
/// The character between a session's id and its owner in a sort key.
pub(super) const OWNER_SEPARATOR: char = '#';
/// The next character in the order of sort keys. It is the end of a range over all owners of an id.
pub(super) const AFTER_OWNER_SEPARATOR: char = '$';

/// Why an item is corrupt whose keys name no owner.
pub(super) const INVALID_KEYS: &str = "its keys are not those of a timeline or session";

pub(super) fn timeline_key(visitor: &Visitor) -> String {
    format!("{TIMELINE_PREFIX}{}#{}", visitor.project, visitor.distinct_id)
}

/// Returns the sort key of a visitor's archived session or alias. It has at most 1,020 bytes; DynamoDB's limit is 1,024.
pub(super) fn session_key(session_id: Uuid, owner: &Visitor) -> String {
    format!(
        "{SESSION_PREFIX}{:016x}{OWNER_SEPARATOR}{}#{}",
        session_id.as_u64_pair().0,
        owner.project,
        owner.distinct_id
    )
}

/// Returns the sort key of a page. Nothing separates its parts, because they have fixed lengths, and so it has at most 1,024 bytes,
/// which is DynamoDB's limit.
fn page_key(page: &FingerprintPage, owner: &Visitor) -> String {
    let number = (page.number % LATE_PAGE) | if page.is_late { LATE_PAGE } else { 0 };
    let half = page.session_id.as_u64_pair().0;
    format!("{PAGE_PREFIX}{half:016x}{number:05x}{}#{}", owner.project, owner.distinct_id)
}

/// Returns the item of a page.
pub(super) fn page_item(owner: &Visitor, page: &FingerprintPage, expires_at: Option<Millis>) -> Item {
    let mut item = key(&partition_key(owner.bits()), page_key(page, owner));
    item.insert("v".to_owned(), number(i64::from(FORMAT)));
    item.insert("state".to_owned(), AttributeValue::B(Blob::new(encode_page(page))));
    if let Some(expires_at) = expires_at {
        item.insert("expires_at".to_owned(), number(expires_at / 1000));
    }
    item
}

/// Reads a page of a session. Returns `None` if it is a page of another visitor.
pub(super) fn read_page(
    item: &Item,
    owner: &Visitor,
    session_id: Uuid,
) -> Result<Option<FingerprintPage>, SessionError> {
    let rest = read_string(item, "sk").and_then(|sk| sk.get(PAGE_PREFIX.len() + 16..)?.split_at_checked(5));
    let (digits, _) = rest.ok_or_else(|| corrupt(item, INVALID_KEYS))?;
    if page_owner(item) != Some((&owner.project, &owner.distinct_id)) {
        return Ok(None);
    }
    let number = u32::from_str_radix(digits, 16).map_err(|_| corrupt(item, INVALID_KEYS))?;
    let (version, state) = read_state(item)?;
    let fingerprints = decode_page(version, state).map_err(|error| unreadable(item, &error))?;
    let (is_late, number) = (number >= LATE_PAGE, number % LATE_PAGE);
    Ok(Some(FingerprintPage { session_id, is_late, number, fingerprints }))
}

/// Returns the project and the `distinct_id` in a page's sort key. Returns `None` if it is not the key of a page.
pub(super) fn page_owner(item: &Item) -> Option<(&str, &str)> {
    let page = read_string(item, "sk")?.strip_prefix(PAGE_PREFIX)?;
    page.get(16 + 5..)?.split_once('#')
}

/// Returns the visitor that an item's keys name: the sort key in full, and the partition key by its bits. Returns `None` if the
/// keys are not of this kind, or contradict each other. A project's name contains no `#`.
pub(super) fn owner_of(item: &Item, kind: &str) -> Option<Visitor> {
    let mut owner = read_string(item, "sk")?.strip_prefix(kind)?;
    if kind == SESSION_PREFIX {
        owner = owner.split_once(OWNER_SEPARATOR)?.1;
    }
    let (project, distinct_id) = owner.split_once('#')?;
    let owner = Visitor { project: project.to_owned(), distinct_id: distinct_id.to_owned() };
    (read_string(item, "pk")? == partition_key(owner.bits())).then_some(owner)
}

pub(super) fn key(pk: &str, sk: String) -> Item {
    HashMap::from([("pk".to_owned(), string(pk)), ("sk".to_owned(), string(sk))])
}

pub(super) fn string(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

pub(super) fn number(value: i64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

pub(super) fn etag_value(etag: u64) -> AttributeValue {
    AttributeValue::B(Blob::new(etag.to_be_bytes()))
}

pub(super) fn timeline_item(commit: &Commit<'_>, state: Vec<u8>) -> Item {
    let timeline = commit.timeline;
    let mut item = key(&partition_key(timeline.visitor.bits()), timeline_key(&timeline.visitor));
    item.insert("v".to_owned(), number(i64::from(FORMAT)));
    item.insert("etag".to_owned(), etag_value(commit.etag));
    item.insert("state".to_owned(), AttributeValue::B(Blob::new(state)));
    match timeline.due_at {
        Some(due_at) => {
            item.insert("due_shard".to_owned(), string(due_shard(&timeline.visitor).to_string()));
            item.insert("due_at".to_owned(), number(due_at));
        }
        // Only a timeline with nothing to close may expire.
        None => drop(item.insert("expires_at".to_owned(), number(commit.expires_at / 1000))),
    }
    item
}

/// Returns the keys of an entry of the index. A query with this start key continues behind the entry.
pub(super) fn due_key(shard: u8, due: &Due) -> Item {
    let mut key = key(&partition_key(due.visitor.bits()), timeline_key(&due.visitor));
    key.insert("due_shard".to_owned(), string(shard.to_string()));
    key.insert("due_at".to_owned(), number(due.due_at));
    key
}

/// Reads an entry of the index. Logs an entry with invalid keys and returns `None`, so that it does not block its shard.
pub(super) fn read_due(item: &Item) -> Option<Due> {
    let due = owner_of(item, TIMELINE_PREFIX).zip(read_number(item, "due_at"));
    if due.is_none() {
        tracing::error!(error = %corrupt(item, INVALID_KEYS), "an index entry was skipped");
    }
    due.map(|(visitor, due_at)| Due { visitor, due_at })
}

pub(super) fn read_string<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

pub(super) fn read_number(item: &Item, name: &str) -> Option<i64> {
    item.get(name)?.as_n().ok()?.parse().ok()
}

pub(super) fn read_bytes<'a>(item: &'a Item, name: &str) -> Option<&'a [u8]> {
    Some(item.get(name)?.as_b().ok()?.as_ref())
}

/// Returns an item's format version and its stored form.
pub(super) fn read_state(item: &Item) -> Result<(u32, &[u8]), SessionError> {
    let version = format_of(item)?;
    let state = read_bytes(item, "state").ok_or_else(|| corrupt(item, "`state` is missing"))?;
    Ok((version, state))
}

/// Returns the version of the stored form in an item.
pub(super) fn format_of(item: &Item) -> Result<u32, SessionError> {
    let version = read_number(item, "v").and_then(|version| u32::try_from(version).ok());
    version.ok_or_else(|| corrupt(item, "`v` is missing"))
}

pub(super) fn read_timeline(item: &Item, visitor: Visitor) -> Result<Stored, SessionError> {
    let (version, state) = read_state(item)?;
    let mut timeline = decode_timeline(version, state, visitor).map_err(|error| unreadable(item, &error))?;
    timeline.due_at = read_number(item, "due_at");
    let etag = read_bytes(item, "etag").and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
    let etag = etag.ok_or_else(|| corrupt(item, "`etag` is missing"))?;
    Ok(Stored { timeline, etag: u64::from_be_bytes(etag) })
}

pub(super) fn read_session(item: &Item, visitor_bits: u64) -> Result<SessionState, SessionError> {
    let (version, state) = read_state(item)?;
    decode_session(version, state, visitor_bits).map_err(|error| unreadable(item, &error))
}

pub(super) fn unreadable(item: &Item, error: &FormatError) -> SessionError {
    SessionError::unreadable(item_name(item), error)
}

/// Returns the error of an item that breaks the rules.
pub(super) fn corrupt(item: &Item, reason: impl ToString) -> SessionError {
    SessionError::Corrupt { item: item_name(item), reason: reason.to_string() }
}

/// Returns an item's name in errors: its partition key and kind, and for a session or page half of its id. It leaves out the rest of the
/// sort key, which is the visitor's id.
pub(super) fn item_name(item: &Item) -> String {
    let pk = read_string(item, "pk").unwrap_or("?");
    let sk = read_string(item, "sk").unwrap_or_default();
    let page = sk.strip_prefix(PAGE_PREFIX).and_then(|page| page.get(..21));
    let session = sk.strip_prefix(SESSION_PREFIX).and_then(|session| session.split_once(OWNER_SEPARATOR));
    match (session, page) {
        (Some((half, _)), _) => format!("{pk}/{SESSION_PREFIX}{half}"),
        (None, Some(page)) => format!("{pk}/{PAGE_PREFIX}{page}"),
        (None, None) => format!("{pk}/t"),
    }
}
