//! The store in DynamoDB: keys, items and expressions, all in this file.
//!
//! ```text
//!  pk      sk                                        attributes
//!  9f0c…   t#<project>#<distinct_id>                 v etag state due_shard due_at   a timeline with something to close
//!  9f0c…   t#<project>#<distinct_id>                 v etag state expires_at         a timeline with nothing to close
//!  9f0c…   s#<id half>#<project>#<distinct_id>       v version state expires_at      an archived session
//!  9f0c…   s#<id half>#<project>#<distinct_id>       into version expires_at         one merged into another
//!
//!  index `due`       due_shard, due_at               keys only; a timeline with nothing to close is not in it
//! ```
//!
//! `pk` is the visitor's 64 bits in hexadecimal: the last 16 digits of all its session ids, so a session is found by
//! its id alone; the id's other half is in its sort key. Visitors with equal bits share a partition, so every sort key names its
//! owner in full: no visitor's item can replace another's, or be taken for it. `state` is the stored form of `stored.rs`, `v`
//! its version; `into` is the half of an id, and of two accounts of an id the one with the higher `version` stays. `expires_at`
//! (seconds) is the TTL: garbage collection, on which no rule relies. What is in the index has
//! none: it is not closed yet.

mod failure;

use std::collections::HashMap;
use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeValue, ConsumedCapacity, KeysAndAttributes, ReturnConsumedCapacity, ReturnValuesOnConditionCheckFailure,
};
use uuid::Uuid;

use super::budget::Budget;
use super::connections::Connections;
use super::{
    Commit, CommitOutcome, Consumed, Due, ENDLESS, Found, MAX_MERGES, Partition, Reading, SessionError, SessionStorage,
    StorageErrorKind, Stored, due_shard,
};
use crate::model::SessionState;
use crate::session::{Millis, Visitor, visitor_bits};
use crate::stored::{FORMAT, FormatError, NEWEST_FORMAT, decode_session, decode_timeline, encode_item, encode_session};
use failure::{answered, failed};

/// The index of timelines with something to close.
pub const DUE_INDEX: &str = "due";
/// Rounds in which keys that a `BatchGetItem` left unread are asked for again.
const BATCH_ROUNDS: usize = 3;
/// An answer ends at 16 MB. One with as many bytes of timelines as this left keys unread for its size, not for trouble.
const LARGE_ANSWER_BYTES: usize = 8 << 20;

type Item = HashMap<String, AttributeValue>;

/// Keeps sessions in a DynamoDB table.
#[derive(Debug, Clone)]
pub struct DynamoDbSessionStorage {
    client: Client,
    table: String,
    consumed: Option<Arc<Consumed>>,
    /// Of rounds that ask for unread keys again.
    rounds: Arc<Budget>,
    connections: Arc<Connections>,
}

impl DynamoDbSessionStorage {
    /// A store in this table.
    pub fn new(client: Client, table: impl Into<String>) -> Self {
        Self { client, table: table.into(), consumed: None, rounds: Arc::default(), connections: Arc::default() }
    }

    /// Has DynamoDB report the capacity of every call and adds it up.
    #[must_use]
    pub fn counting(self, consumed: Arc<Consumed>) -> Self {
        Self { consumed: Some(consumed), ..self }
    }

    fn reported(&self) -> Option<ReturnConsumedCapacity> {
        self.consumed.as_ref().map(|_| ReturnConsumedCapacity::Indexes)
    }

    fn count_read(&self, capacity: Option<&ConsumedCapacity>) {
        if let (Some(consumed), Some(capacity)) = (&self.consumed, capacity) {
            consumed.add_read(capacity);
        }
    }

    fn count_write(&self, capacity: Option<&ConsumedCapacity>) {
        if let (Some(consumed), Some(capacity)) = (&self.consumed, capacity) {
            consumed.add_write(capacity);
        }
    }

    fn count_conflict(&self) {
        if let Some(consumed) = &self.consumed {
            consumed.add_conflict();
        }
    }

    /// Reads items by their keys, in whatever order; keys that stay unread after some rounds are an error.
    async fn batch_get(&self, keys: Vec<Item>, reading: Reading) -> Result<Vec<Item>, SessionError> {
        let mut items = Vec::with_capacity(keys.len());
        let mut pending = KeysAndAttributes::builder()
            .set_keys(Some(keys))
            .consistent_read(reading == Reading::Strong)
            .build()
            .map_err(|error| SessionError::storage(StorageErrorKind::Other, error))?;
        for _ in 0..BATCH_ROUNDS {
            let request = self.client.batch_get_item().request_items(&self.table, pending);
            let request = request.set_return_consumed_capacity(self.reported());
            let slot = self.connections.slot().await;
            let answer = request.send().await.map_err(failed)?;
            drop(slot);
            answer.consumed_capacity().iter().for_each(|capacity| self.count_read(Some(capacity)));
            let read = answer.responses.unwrap_or_default().remove(&self.table).unwrap_or_default();
            let bytes: usize = read.iter().filter_map(|item| read_bytes(item, "state")).map(<[u8]>::len).sum();
            items.extend(read);
            match answer.unprocessed_keys.unwrap_or_default().remove(&self.table) {
                Some(rest) if !rest.keys().is_empty() => pending = rest,
                _ => {
                    self.rounds.earn();
                    return Ok(items);
                }
            }
            if bytes < LARGE_ANSWER_BYTES && !self.rounds.spend() {
                break;
            }
        }
        Err(SessionError::storage(StorageErrorKind::Throttled, "the table left keys unread"))
    }

    /// Reads the visitors' timelines, each as `read` has it; the answer is in the order of the question.
    async fn load_items<T>(
        &self,
        visitors: &[Visitor],
        reading: Reading,
        read: impl Fn(&Item, Visitor) -> Result<T, SessionError>,
    ) -> Vec<Result<Option<T>, SessionError>> {
        if visitors.is_empty() {
            return Vec::new();
        }
        let key_of = |visitor: &Visitor| key(&partition_key(visitor.bits()), timeline_key(visitor));
        match self.batch_get(visitors.iter().map(key_of).collect(), reading).await {
            Err(error) => visitors.iter().map(|_| Err(error.clone())).collect(),
            Ok(items) => {
                // A timeline's sort key names its visitor in full.
                let by_key: HashMap<&str, &Item> =
                    items.iter().filter_map(|item| Some((read_text(item, "sk")?, item))).collect();
                let stored = |visitor: &Visitor| match by_key.get(timeline_key(visitor).as_str()) {
                    Some(item) => read(item, visitor.clone()).map(Some),
                    None => Ok(None),
                };
                visitors.iter().map(stored).collect()
            }
        }
    }

    /// Reads all items of a partition whose sort key lies in a range.
    async fn range(&self, pk: &str, from: String, to: String, reading: Reading) -> Result<Vec<Item>, SessionError> {
        let mut items = Vec::new();
        let mut start = None;
        loop {
            let query = self
                .client
                .query()
                .table_name(&self.table)
                .key_condition_expression("pk = :pk AND sk BETWEEN :from AND :to")
                .expression_attribute_values(":pk", text(pk))
                .expression_attribute_values(":from", text(from.as_str()))
                .expression_attribute_values(":to", text(to.as_str()))
                .consistent_read(reading == Reading::Strong)
                .set_exclusive_start_key(start)
                .set_return_consumed_capacity(self.reported());
            let slot = self.connections.slot().await;
            let answer = query.send().await.map_err(failed)?;
            drop(slot);
            self.count_read(answer.consumed_capacity());
            items.extend(answer.items.unwrap_or_default());
            start = answer.last_evaluated_key;
            if start.is_none() {
                return Ok(items);
            }
        }
    }

    /// Puts an item in the slot of one with a lower version, or with the same; says whether it did. One that this version of the
    /// service could not read is not replaced.
    async fn put_newest(&self, mut item: Item, version: u64) -> Result<bool, SessionError> {
        let version = AttributeValue::N(version.to_string());
        item.insert("version".to_owned(), version.clone());
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item))
            .condition_expression(
                "attribute_not_exists(pk) OR (version <= :version AND (attribute_not_exists(v) OR v <= :newest))",
            )
            .expression_attribute_values(":version", version)
            .expression_attribute_values(":newest", number(i64::from(NEWEST_FORMAT)))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .set_return_consumed_capacity(self.reported());
        let slot = self.connections.slot().await;
        let answer = put.send().await;
        drop(slot);
        match answer {
            Ok(answer) => {
                self.count_write(answer.consumed_capacity());
                Ok(true)
            }
            Err(error) => match condition_failure(error)? {
                Some(there) if format_of(&there).is_ok_and(|version| version > NEWEST_FORMAT) => {
                    Err(unreadable(&there, &FormatError::Newer(format_of(&there)?)))
                }
                _ => Ok(false),
            },
        }
    }

    /// The session of its owner that an item leads to, merge by merge.
    async fn follow(&self, mut item: Item, owner: &Visitor) -> Result<Option<SessionState>, SessionError> {
        let bits = owner.bits();
        for _ in 0..MAX_MERGES {
            if !item.contains_key("into") {
                return read_session(&item, bits).map(Some);
            }
            let into = read_text(&item, "into").and_then(|half| u64::from_str_radix(half, 16).ok());
            let into = into.ok_or_else(|| corrupt(&item, "`into` is no id"))?;
            let key = key(&partition_key(bits), session_key(Uuid::from_u64_pair(into, bits), owner));
            match self.batch_get(vec![key], Reading::Strong).await?.pop() {
                Some(next) => item = next,
                None => return Ok(None),
            }
        }
        if item.contains_key("into") {
            return Err(corrupt(&item, ENDLESS));
        }
        read_session(&item, bits).map(Some)
    }
}

impl SessionStorage for DynamoDbSessionStorage {
    async fn load(&self, visitors: &[Visitor], reading: Reading) -> Vec<Result<Option<Stored>, SessionError>> {
        self.load_items(visitors, reading, read_timeline).await
    }

    async fn commit(&self, commit: Commit<'_>) -> Result<CommitOutcome, SessionError> {
        let visitor = &commit.timeline.visitor;
        let state = encode_item(commit.timeline, commit.room).ok_or(SessionError::Full)?;
        let mut put = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(timeline_item(&commit, state)))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .set_return_consumed_capacity(self.reported());
        put = match commit.replaces {
            None => put.condition_expression("attribute_not_exists(pk)"),
            Some(etag) => {
                put.condition_expression("etag = :replaces").expression_attribute_values(":replaces", etag_value(etag))
            }
        };
        let slot = self.connections.slot().await;
        let answer = put.send().await;
        drop(slot);
        match answer {
            Ok(answer) => {
                self.count_write(answer.consumed_capacity());
                Ok(CommitOutcome::Done)
            }
            Err(error) => match condition_failure(error)? {
                None => {
                    self.count_conflict();
                    Ok(CommitOutcome::Conflict(None))
                }
                // An earlier attempt of this very write took effect, and its answer was lost on the way.
                Some(item) if item.get("etag") == Some(&etag_value(commit.etag)) => Ok(CommitOutcome::Done),
                Some(item) => {
                    self.count_conflict();
                    Ok(CommitOutcome::Conflict(Some(Box::new(read_timeline(&item, visitor.clone())?))))
                }
            },
        }
    }

    async fn load_within(&self, visitors: &[Visitor], max_bytes: usize) -> Vec<Result<Option<Found>, SessionError>> {
        let found = |item: &Item, visitor: Visitor| {
            if read_bytes(item, "state").is_some_and(|state| state.len() > max_bytes) {
                return Ok(Found::TooLarge);
            }
            read_timeline(item, visitor).map(Found::Timeline)
        };
        self.load_items(visitors, Reading::Strong, found).await
    }

    async fn due(&self, shard: u8, after: Option<&Due>, now: Millis, limit: usize) -> Result<Vec<Due>, SessionError> {
        let mut due = Vec::new();
        let mut start = after.map(|due| due_key(shard, due));
        while due.len() < limit {
            let query = self
                .client
                .query()
                .table_name(&self.table)
                .index_name(DUE_INDEX)
                .key_condition_expression("due_shard = :shard AND due_at <= :now")
                .expression_attribute_values(":shard", text(shard.to_string()))
                .expression_attribute_values(":now", number(now))
                .limit(i32::try_from(limit - due.len()).unwrap_or(i32::MAX))
                .set_exclusive_start_key(start)
                .set_return_consumed_capacity(self.reported());
            let slot = self.connections.slot().await;
            let answer = query.send().await.map_err(failed)?;
            drop(slot);
            self.count_read(answer.consumed_capacity());
            due.extend(answer.items().iter().filter_map(read_due));
            start = answer.last_evaluated_key;
            if start.is_none() {
                break;
            }
        }
        Ok(due)
    }

    async fn archive(&self, visitor: &Visitor, session: &SessionState, expires_at: Millis) -> Result<(), SessionError> {
        let pk = partition_key(visitor.bits());
        let expires_at = number(expires_at / 1000);
        let mut item = key(&pk, session_key(session.id, visitor));
        item.insert("v".to_owned(), number(i64::from(FORMAT)));
        item.insert("state".to_owned(), AttributeValue::B(Blob::new(encode_session(session))));
        item.insert("expires_at".to_owned(), expires_at.clone());
        if !self.put_newest(item, session.version).await? {
            return Ok(());
        }
        for &alias in &session.aliases {
            let mut item = key(&pk, session_key(alias, visitor));
            item.insert("into".to_owned(), text(format!("{:016x}", session.id.as_u64_pair().0)));
            item.insert("expires_at".to_owned(), expires_at.clone());
            self.put_newest(item, session.version).await?;
        }
        Ok(())
    }

    async fn archived(&self, visitor: &Visitor, from: Millis, to: Millis) -> Result<Vec<SessionState>, SessionError> {
        let bits = visitor.bits();
        // The first 48 bits of an id are its time.
        let bound = |at: Millis, rest: u64, end: char| {
            format!("{SESSION}{:016x}{end}", (at.clamp(0, (1 << 48) - 1).unsigned_abs() << 16) | rest)
        };
        let (from, to) = (bound(from, 0, OWNED), bound(to, 0xffff, BEHIND_OWNED));
        let items = self.range(&partition_key(bits), from, to, Reading::Strong).await?;
        // Others with equal bits have theirs in between. Where an id leads to another one, that one has a slot of its own.
        let is_own = |item: &&Item| owner_of(item, SESSION).as_ref() == Some(visitor) && !item.contains_key("into");
        items.iter().filter(is_own).map(|item| read_session(item, bits)).collect()
    }

    async fn find(&self, session_id: Uuid) -> Result<Partition, SessionError> {
        let pk = partition_key(visitor_bits(session_id));
        let owned = |item: &Item, kind| owner_of(item, kind).ok_or_else(|| corrupt(item, "its keys are not ours"));
        // Every sort key that begins with `t#`.
        let items = self.range(&pk, TIMELINE.to_owned(), "t$".to_owned(), Reading::Strong).await?;
        let timeline = |item: &Item| Ok(read_timeline(item, owned(item, TIMELINE)?)?.timeline);
        let mut timelines = items.iter().map(timeline).collect::<Result<Vec<_>, SessionError>>()?;
        timelines.sort_by(|a, b| a.visitor.cmp(&b.visitor));
        let half = session_id.as_u64_pair().0;
        let bound = |end| format!("{SESSION}{half:016x}{end}");
        let items = self.range(&pk, bound(OWNED), bound(BEHIND_OWNED), Reading::Strong).await?;
        let mut archived = Vec::with_capacity(items.len());
        for item in items {
            let owner = owned(&item, SESSION)?;
            // In a box, as merges are rare and the future of a call is large.
            if let Some(session) = Box::pin(self.follow(item, &owner)).await? {
                archived.push((owner, session));
            }
        }
        archived.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(Partition { timelines, archived })
    }
}

fn partition_key(visitor_bits: u64) -> String {
    format!("{visitor_bits:016x}")
}

/// What the sort keys of timelines begin with.
const TIMELINE: &str = "t#";
/// What the sort keys of archived sessions and of ids that were merged into them begin with.
const SESSION: &str = "s#";
/// Stands between a session's id and its owner.
const OWNED: char = '#';
/// The character behind it, in the order of sort keys.
const BEHIND_OWNED: char = '$';

fn timeline_key(visitor: &Visitor) -> String {
    format!("{TIMELINE}{}#{}", visitor.project, visitor.distinct_id)
}

/// The key of a visitor's session. It fits a sort key, which has 1,024 bytes, as the longest names come to 1,020.
fn session_key(session_id: Uuid, owner: &Visitor) -> String {
    format!("{SESSION}{:016x}{OWNED}{}#{}", session_id.as_u64_pair().0, owner.project, owner.distinct_id)
}

/// The visitor whom an item's keys name: the sort key in full, the partition by its bits. A project's name holds no `#`.
fn owner_of(item: &Item, kind: &str) -> Option<Visitor> {
    let mut owner = read_text(item, "sk")?.strip_prefix(kind)?;
    if kind == SESSION {
        owner = owner.split_once(OWNED)?.1;
    }
    let (project, distinct_id) = owner.split_once('#')?;
    let owner = Visitor { project: project.to_owned(), distinct_id: distinct_id.to_owned() };
    (read_text(item, "pk")? == partition_key(owner.bits())).then_some(owner)
}

fn key(pk: &str, sk: String) -> Item {
    HashMap::from([("pk".to_owned(), text(pk)), ("sk".to_owned(), text(sk))])
}

fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

fn number(value: i64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

fn etag_value(etag: u64) -> AttributeValue {
    AttributeValue::B(Blob::new(etag.to_be_bytes()))
}

fn timeline_item(commit: &Commit<'_>, state: Vec<u8>) -> Item {
    let timeline = commit.timeline;
    let mut item = key(&partition_key(timeline.visitor.bits()), timeline_key(&timeline.visitor));
    item.insert("v".to_owned(), number(i64::from(FORMAT)));
    item.insert("etag".to_owned(), etag_value(commit.etag));
    item.insert("state".to_owned(), AttributeValue::B(Blob::new(state)));
    match timeline.due_at {
        Some(due_at) => {
            item.insert("due_shard".to_owned(), text(due_shard(&timeline.visitor).to_string()));
            item.insert("due_at".to_owned(), number(due_at));
        }
        // What is still to be closed is no garbage.
        None => drop(item.insert("expires_at".to_owned(), number(commit.expires_at / 1000))),
    }
    item
}

/// Where an entry stands in the index: what a query goes on behind.
fn due_key(shard: u8, due: &Due) -> Item {
    let mut key = key(&partition_key(due.visitor.bits()), timeline_key(&due.visitor));
    key.insert("due_shard".to_owned(), text(shard.to_string()));
    key.insert("due_at".to_owned(), number(due.due_at));
    key
}

/// An entry of the index. One row that is not ours must not hold up its shard.
fn read_due(item: &Item) -> Option<Due> {
    let due = owner_of(item, TIMELINE).zip(read_number(item, "due_at"));
    if due.is_none() {
        tracing::error!(error = %corrupt(item, "its keys are not ours"), "an index entry is passed over");
    }
    due.map(|(visitor, due_at)| Due { visitor, due_at })
}

fn read_text<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

fn read_number(item: &Item, name: &str) -> Option<i64> {
    item.get(name)?.as_n().ok()?.parse().ok()
}

fn read_bytes<'a>(item: &'a Item, name: &str) -> Option<&'a [u8]> {
    Some(item.get(name)?.as_b().ok()?.as_ref())
}

/// The stored form in an item, and its version.
fn read_state(item: &Item) -> Result<(u32, &[u8]), SessionError> {
    let version = format_of(item)?;
    let state = read_bytes(item, "state").ok_or_else(|| corrupt(item, "`state` is missing"))?;
    Ok((version, state))
}

/// The version of the stored form in an item.
fn format_of(item: &Item) -> Result<u32, SessionError> {
    let version = read_number(item, "v").and_then(|version| u32::try_from(version).ok());
    version.ok_or_else(|| corrupt(item, "`v` is missing"))
}

fn read_timeline(item: &Item, visitor: Visitor) -> Result<Stored, SessionError> {
    let (version, state) = read_state(item)?;
    let mut timeline = decode_timeline(version, state, visitor).map_err(|error| unreadable(item, &error))?;
    timeline.due_at = read_number(item, "due_at");
    let etag = read_bytes(item, "etag").and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
    let etag = etag.ok_or_else(|| corrupt(item, "`etag` is missing"))?;
    Ok(Stored { timeline, etag: u64::from_be_bytes(etag) })
}

fn read_session(item: &Item, visitor_bits: u64) -> Result<SessionState, SessionError> {
    let (version, state) = read_state(item)?;
    decode_session(version, state, visitor_bits).map_err(|error| unreadable(item, &error))
}

fn unreadable(item: &Item, error: &FormatError) -> SessionError {
    SessionError::unreadable(name(item), error)
}

/// An item that cannot be read.
fn corrupt(item: &Item, reason: impl ToString) -> SessionError {
    SessionError::Corrupt { item: name(item), reason: reason.to_string() }
}

/// An item in errors: its partition and kind, and of a session the half of its id. The rest of a sort key is the visitor's id.
fn name(item: &Item) -> String {
    let pk = read_text(item, "pk").unwrap_or("?");
    match read_text(item, "sk").and_then(|sk| sk.strip_prefix(SESSION)?.split_once(OWNED)) {
        Some((half, _)) => format!("{pk}/{SESSION}{half}"),
        None => format!("{pk}/t"),
    }
}

/// The item that was there, where a put failed for its condition; an error where it failed otherwise.
fn condition_failure(error: SdkError<PutItemError>) -> Result<Option<Item>, SessionError> {
    match error {
        SdkError::ServiceError(failure) => {
            let status = failure.raw().status();
            match failure.into_err() {
                PutItemError::ConditionalCheckFailedException(failure) => Ok(failure.item),
                other => Err(answered(&other, status)),
            }
        }
        other => Err(failed(other)),
    }
}
