//! The store in DynamoDB. All keys, items and expressions are in this file.
//!
//! ```text
//!  pk      sk                                        attributes
//!  9f0c…   t#<project>#<distinct_id>                 v etag state due_shard due_at   a timeline with something to close
//!  9f0c…   t#<project>#<distinct_id>                 v etag state expires_at         a timeline with nothing to close
//!  9f0c…   s#<id half>#<project>#<distinct_id>       v version state expires_at      an archived session
//!  9f0c…   s#<id half>#<project>#<distinct_id>       into version expires_at         an alias: an id merged into another
//!  9f0c…   p#<id half><page><project>#<distinct_id>  v state                         a page of a live session's fingerprints
//!  9f0c…   p#<id half><page><project>#<distinct_id>  v state expires_at              a page of an archived session's fingerprints
//!
//!  index `due`       due_shard, due_at               keys only; contains the timelines with something to close
//! ```
//!
//! - `pk` is the visitor's 64 bits in hexadecimal ([`Visitor::bits`]). All its session ids end with these 16 digits, so a session
//!   is found by its id alone. The id's other half is in the sort key.
//! - `sk` contains the owner in full, because visitors with equal bits share a partition. So no visitor's item can replace that
//!   of another, or be taken for it.
//! - `state` is the stored form of `stored.rs`, and `v` its format version.
//! - `<page>` is a page's number in five hexadecimal digits. The first bit tells pages of late events from the others.
//! - `into` is the first half of the id that an alias refers to.
//! - `version` is the session's version. An archived item is not replaced by one with a lower version.
//! - `expires_at` is the TTL, in seconds. It is garbage collection only: no rule relies on it. A timeline with something to close
//!   has none, and neither has a page until its session is archived.

mod erase;
mod failure;
mod items;

use std::collections::HashMap;
use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeValue, ConsumedCapacity, KeysAndAttributes, ReturnConsumedCapacity, ReturnValuesOnConditionCheckFailure,
};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use uuid::Uuid;

use super::budget::RetryBudget;
use super::connections::{Connections, Slot};
use super::{
    Commit, CommitOutcome, Consumed, Due, ENDLESS_MERGES, Erased, Found, MAX_MERGES, Partition, Reading, SessionError,
    SessionStorage, StorageErrorKind, Stored,
};
use crate::model::{FingerprintPage, SessionState};
use crate::session::{Millis, Visitor, visitor_bits};
use crate::stored::{FORMAT, FormatError, NEWEST_FORMAT, encode_item, encode_session};
use failure::{answer_error, call_error};
use items::{
    AFTER_OWNER_SEPARATOR, INVALID_KEYS, Item, OWNER_SEPARATOR, PAGE_PREFIX, SESSION_PREFIX, TIMELINE_PREFIX, corrupt,
    due_key, etag_value, format_of, key, number, owner_of, page_item, partition_key, read_bytes, read_due, read_page,
    read_session, read_string, read_timeline, session_key, string, timeline_item, timeline_key, unreadable,
};

/// The name of the index of due timelines.
pub const DUE_INDEX: &str = "due";
/// The maximum number of `BatchGetItem` calls for one read. Each call after the first asks for the keys that the one before left
/// unread.
const MAX_BATCH_ROUNDS: usize = 3;
/// DynamoDB limits an answer to 16 MB. An answer with at least this many bytes of timelines left keys unread because of that
/// limit. A smaller one was throttled.
const LARGE_ANSWER_BYTES: usize = 8 << 20;

/// How many aliases of a session are archived at once, and how many pages are stored at once.
const PUTS_AT_ONCE: usize = 16;

/// A store of timelines and archived sessions in a DynamoDB table.
#[derive(Debug, Clone)]
pub struct DynamoDbSessionStorage {
    client: Client,
    table: String,
    consumed: Option<Arc<Consumed>>,
    /// The budget for calls that ask for unread keys again.
    retry_budget: Arc<RetryBudget>,
    connections: Arc<Connections>,
}

impl DynamoDbSessionStorage {
    /// Returns a store in this table. Its keys and index must be as `template.yaml` defines them.
    pub fn new(client: Client, table: impl Into<String>) -> Self {
        Self { client, table: table.into(), consumed: None, retry_budget: Arc::default(), connections: Arc::default() }
    }

    /// Makes DynamoDB report the capacity that each call consumes, and adds it to `consumed`.
    #[must_use]
    pub fn counting(self, consumed: Arc<Consumed>) -> Self {
        Self { consumed: Some(consumed), ..self }
    }

    /// Returns what DynamoDB is to report of the consumed capacity.
    fn capacity_report(&self) -> Option<ReturnConsumedCapacity> {
        self.consumed.as_ref().map(|_| ReturnConsumedCapacity::Indexes)
    }

    /// Waits until a call may begin, and counts it, whatever becomes of it.
    async fn begin_call(&self) -> Slot<'_> {
        let slot = self.connections.slot().await;
        if let Some(consumed) = &self.consumed {
            consumed.add_call();
        }
        slot
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

    /// Reads items by their keys, and returns them in any order. Returns an error if keys stay unread.
    async fn batch_get(&self, keys: Vec<Item>, reading: Reading) -> Result<Vec<Item>, SessionError> {
        let mut items = Vec::with_capacity(keys.len());
        let mut pending = KeysAndAttributes::builder()
            .set_keys(Some(keys))
            .consistent_read(reading == Reading::Strong)
            .build()
            .map_err(|error| SessionError::storage(StorageErrorKind::Other, error))?;
        for _ in 0..MAX_BATCH_ROUNDS {
            let request = self.client.batch_get_item().request_items(&self.table, pending);
            let request = request.set_return_consumed_capacity(self.capacity_report());
            let slot = self.begin_call().await;
            let answer = request.send().await.map_err(call_error)?;
            drop(slot);
            answer.consumed_capacity().iter().for_each(|capacity| self.count_read(Some(capacity)));
            let read = answer.responses.unwrap_or_default().remove(&self.table).unwrap_or_default();
            let bytes: usize = read.iter().filter_map(|item| read_bytes(item, "state")).map(<[u8]>::len).sum();
            items.extend(read);
            match answer.unprocessed_keys.unwrap_or_default().remove(&self.table) {
                Some(rest) if !rest.keys().is_empty() => pending = rest,
                _ => {
                    self.retry_budget.earn();
                    return Ok(items);
                }
            }
            if bytes < LARGE_ANSWER_BYTES && !self.retry_budget.spend() {
                break;
            }
        }
        Err(SessionError::storage(StorageErrorKind::Throttled, "the table left keys unread"))
    }

    /// Reads the items of the visitors' timelines, and converts each with `read`. Returns a result for each visitor, in their
    /// order.
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
                // A timeline's sort key contains its visitor in full, so it identifies the item.
                let by_key: HashMap<&str, &Item> =
                    items.iter().filter_map(|item| Some((read_string(item, "sk")?, item))).collect();
                let stored = |visitor: &Visitor| match by_key.get(timeline_key(visitor).as_str()) {
                    Some(item) => read(item, visitor.clone()).map(Some),
                    None => Ok(None),
                };
                visitors.iter().map(stored).collect()
            }
        }
    }

    /// Reads all items of a partition whose sort keys are from `from` to `to`.
    async fn range(&self, pk: &str, from: String, to: String, reading: Reading) -> Result<Vec<Item>, SessionError> {
        let mut items = Vec::new();
        let mut start = None;
        loop {
            let query = self
                .client
                .query()
                .table_name(&self.table)
                .key_condition_expression("pk = :pk AND sk BETWEEN :from AND :to")
                .expression_attribute_values(":pk", string(pk))
                .expression_attribute_values(":from", string(from.as_str()))
                .expression_attribute_values(":to", string(to.as_str()))
                .consistent_read(reading == Reading::Strong)
                .set_exclusive_start_key(start)
                .set_return_consumed_capacity(self.capacity_report());
            let slot = self.begin_call().await;
            let answer = query.send().await.map_err(call_error)?;
            drop(slot);
            self.count_read(answer.consumed_capacity());
            items.extend(answer.items.unwrap_or_default());
            start = answer.last_evaluated_key;
            if start.is_none() {
                return Ok(items);
            }
        }
    }

    /// Puts an item, unless the table has one with these keys and a higher version. Returns whether the item was put. An item
    /// whose format is too new to be read is not replaced, and is an error.
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
            .set_return_consumed_capacity(self.capacity_report());
        let slot = self.begin_call().await;
        let answer = put.send().await;
        drop(slot);
        match answer {
            Ok(answer) => {
                self.count_write(answer.consumed_capacity());
                Ok(true)
            }
            Err(error) => match condition_failure(error)? {
                Some(current) if format_of(&current).is_ok_and(|version| version > NEWEST_FORMAT) => {
                    Err(unreadable(&current, &FormatError::Newer(format_of(&current)?)))
                }
                _ => Ok(false),
            },
        }
    }

    /// Puts the item of a page.
    async fn put_page(&self, item: Item) -> Result<(), SessionError> {
        let put = self.client.put_item().table_name(&self.table).set_item(Some(item));
        let put = put.set_return_consumed_capacity(self.capacity_report());
        let slot = self.begin_call().await;
        let answer = put.send().await;
        drop(slot);
        self.count_write(answer.map_err(call_error)?.consumed_capacity());
        Ok(())
    }

    /// Returns the archived session of an item, or the session that an alias leads to. Returns `None` if that session is gone.
    async fn follow(&self, mut item: Item, owner: &Visitor) -> Result<Option<SessionState>, SessionError> {
        let bits = owner.bits();
        for _ in 0..MAX_MERGES {
            if !item.contains_key("into") {
                return read_session(&item, bits).map(Some);
            }
            let into = read_string(&item, "into").and_then(|half| u64::from_str_radix(half, 16).ok());
            let into = into.ok_or_else(|| corrupt(&item, "`into` is no id"))?;
            let key = key(&partition_key(bits), session_key(Uuid::from_u64_pair(into, bits), owner));
            match self.batch_get(vec![key], Reading::Strong).await?.pop() {
                Some(next) => item = next,
                None => return Ok(None),
            }
        }
        if item.contains_key("into") {
            return Err(corrupt(&item, ENDLESS_MERGES));
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
            .set_return_consumed_capacity(self.capacity_report());
        put = match commit.replaces {
            None => put.condition_expression("attribute_not_exists(pk)"),
            Some(etag) => {
                put.condition_expression("etag = :replaces").expression_attribute_values(":replaces", etag_value(etag))
            }
        };
        let slot = self.begin_call().await;
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
                // An earlier attempt of the same write took effect, but its answer did not arrive.
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
                .expression_attribute_values(":shard", string(shard.to_string()))
                .expression_attribute_values(":now", number(now))
                .limit(i32::try_from(limit - due.len()).unwrap_or(i32::MAX))
                .set_exclusive_start_key(start)
                .set_return_consumed_capacity(self.capacity_report());
            let slot = self.begin_call().await;
            let answer = query.send().await.map_err(call_error)?;
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
        let put_alias = |alias| {
            let mut item = key(&pk, session_key(alias, visitor));
            item.insert("into".to_owned(), string(format!("{:016x}", session.id.as_u64_pair().0)));
            item.insert("expires_at".to_owned(), expires_at.clone());
            self.put_newest(item, session.version)
        };
        // A timeout of seconds and backdated events can give a session thousands of aliases.
        let puts: Vec<_> = session.aliases.iter().map(|&alias| put_alias(alias)).collect();
        stream::iter(puts).buffer_unordered(PUTS_AT_ONCE).try_for_each(|_| std::future::ready(Ok(()))).await
    }

    async fn archived(&self, visitor: &Visitor, from: Millis, to: Millis) -> Result<Vec<SessionState>, SessionError> {
        let bits = visitor.bits();
        // The first 48 bits of an id are the time at which its session began.
        let bound = |at: Millis, rest: u64, end: char| {
            format!("{SESSION_PREFIX}{:016x}{end}", (at.clamp(0, (1 << 48) - 1).unsigned_abs() << 16) | rest)
        };
        let (from, to) = (bound(from, 0, OWNER_SEPARATOR), bound(to, 0xffff, AFTER_OWNER_SEPARATOR));
        let items = self.range(&partition_key(bits), from, to, Reading::Strong).await?;
        // The range also contains the items of other visitors with equal bits, and aliases. Aliases are skipped, because the
        // session that an alias refers to has an item of its own.
        let is_own =
            |item: &&Item| owner_of(item, SESSION_PREFIX).as_ref() == Some(visitor) && !item.contains_key("into");
        items.iter().filter(is_own).map(|item| read_session(item, bits)).collect()
    }

    async fn put_pages(
        &self,
        visitor: &Visitor,
        pages: &[FingerprintPage],
        expires_at: Option<Millis>,
    ) -> Result<(), SessionError> {
        let puts: Vec<_> = pages.iter().map(|page| self.put_page(page_item(visitor, page, expires_at))).collect();
        stream::iter(puts).buffer_unordered(PUTS_AT_ONCE).try_for_each(|()| std::future::ready(Ok(()))).await
    }

    async fn pages(&self, visitor: &Visitor, session_id: Uuid) -> Result<Vec<FingerprintPage>, SessionError> {
        let half = session_id.as_u64_pair().0;
        // The range contains every page of a session with this half of an id, because `g` follows all hexadecimal digits.
        let (from, to) = (format!("{PAGE_PREFIX}{half:016x}"), format!("{PAGE_PREFIX}{half:016x}g"));
        let items = self.range(&partition_key(visitor.bits()), from, to, Reading::Strong).await?;
        let pages = items.iter().filter_map(|item| read_page(item, visitor, session_id).transpose());
        pages.collect()
    }

    async fn find(&self, session_id: Uuid) -> Result<Partition, SessionError> {
        let pk = partition_key(visitor_bits(session_id));
        let require_owner = |item: &Item, kind| owner_of(item, kind).ok_or_else(|| corrupt(item, INVALID_KEYS));
        // The range contains every sort key that begins with `t#`, because `$` follows `#`.
        let items = self.range(&pk, TIMELINE_PREFIX.to_owned(), "t$".to_owned(), Reading::Strong).await?;
        let timeline = |item: &Item| Ok(read_timeline(item, require_owner(item, TIMELINE_PREFIX)?)?.timeline);
        let mut timelines = items.iter().map(timeline).collect::<Result<Vec<_>, SessionError>>()?;
        timelines.sort_by(|a, b| a.visitor.cmp(&b.visitor));
        let half = session_id.as_u64_pair().0;
        let bound = |end| format!("{SESSION_PREFIX}{half:016x}{end}");
        let items = self.range(&pk, bound(OWNER_SEPARATOR), bound(AFTER_OWNER_SEPARATOR), Reading::Strong).await?;
        let mut archived = Vec::with_capacity(items.len());
        for item in items {
            let owner = require_owner(&item, SESSION_PREFIX)?;
            // Boxed, because the future of a call is large and merges are rare.
            if let Some(session) = Box::pin(self.follow(item, &owner)).await? {
                archived.push((owner, session));
            }
        }
        archived.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(Partition { timelines, archived })
    }

    async fn erase(&self, visitor: &Visitor) -> Result<Erased, SessionError> {
        self.erase_items(visitor).await
    }
}

/// Returns the stored item if a put failed because of its condition; `None` if there is no item. Returns an error if the put
/// failed for another reason.
fn condition_failure(error: SdkError<PutItemError>) -> Result<Option<Item>, SessionError> {
    match error {
        SdkError::ServiceError(failure) => {
            let status = failure.raw().status();
            match failure.into_err() {
                PutItemError::ConditionalCheckFailedException(failure) => Ok(failure.item),
                other => Err(answer_error(&other, status)),
            }
        }
        other => Err(call_error(other)),
    }
}
