//! Erases the items of a visitor from its partition, which other visitors can share.

use aws_sdk_dynamodb::types::ReturnValue;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::failure::call_error;
use super::items::{
    Item, PAGE_PREFIX, SESSION_PREFIX, key, owner_of, page_owner, partition_key, read_string, string, timeline_key,
};
use super::{DynamoDbSessionStorage, PUTS_AT_ONCE};
use crate::session::Visitor;
use crate::storage::{Erased, SessionError};

/// The kind of an item that belongs to a visitor, beside its timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Session,
    Alias,
    Page,
}

impl DynamoDbSessionStorage {
    /// Deletes the timeline first. From then on, a write that is based on it fails with a conflict and begins the visitor anew, so
    /// it cannot bring anything back of what is deleted after it.
    ///
    /// Items are told by their keys alone, so that those are deleted, too, which cannot be read.
    pub(super) async fn erase_items(&self, visitor: &Visitor) -> Result<Erased, SessionError> {
        let pk = partition_key(visitor.bits());
        let timelines = usize::from(self.delete(key(&pk, timeline_key(visitor))).await?);
        let mut erased = Erased { timelines, ..Erased::default() };
        let mut start = None;
        loop {
            let query = self
                .client
                .query()
                .table_name(&self.table)
                // Pages and archived sessions. Timelines come after them in the order of sort keys.
                .key_condition_expression("pk = :pk AND sk BETWEEN :from AND :to")
                .expression_attribute_values(":pk", string(pk.as_str()))
                .expression_attribute_values(":from", string(PAGE_PREFIX))
                .expression_attribute_values(":to", string("s$"))
                .projection_expression("pk, sk, #into")
                .expression_attribute_names("#into", "into")
                .consistent_read(true)
                .set_exclusive_start_key(start)
                .set_return_consumed_capacity(self.capacity_report());
            let slot = self.begin_call().await;
            let answer = query.send().await.map_err(call_error)?;
            drop(slot);
            self.count_read(answer.consumed_capacity());
            let items = answer.items.unwrap_or_default();
            self.erase_own(&pk, items.iter().filter_map(|item| Some((kind_of(item, visitor)?, item))), &mut erased)
                .await?;
            start = answer.last_evaluated_key;
            if start.is_none() {
                return Ok(erased);
            }
        }
    }

    /// Deletes items and counts those that were still there.
    async fn erase_own<'i>(
        &self,
        pk: &str,
        items: impl Iterator<Item = (Kind, &'i Item)>,
        erased: &mut Erased,
    ) -> Result<(), SessionError> {
        let delete = async |kind, sk: String| Ok((kind, self.delete(key(pk, sk)).await?));
        let deletes: Vec<_> =
            items.filter_map(|(kind, item)| Some(delete(kind, read_string(item, "sk")?.to_owned()))).collect();
        let mut deleted = stream::iter(deletes).buffer_unordered(PUTS_AT_ONCE);
        while let Some((kind, was_there)) = deleted.try_next().await? {
            let count = match kind {
                Kind::Session => &mut erased.archived_sessions,
                Kind::Alias => &mut erased.merged_ids,
                Kind::Page => &mut erased.pages,
            };
            *count += usize::from(was_there);
        }
        Ok(())
    }

    /// Deletes an item. Returns whether there was one.
    async fn delete(&self, key: Item) -> Result<bool, SessionError> {
        let delete = self
            .client
            .delete_item()
            .table_name(&self.table)
            .set_key(Some(key))
            .return_values(ReturnValue::AllOld)
            .set_return_consumed_capacity(self.capacity_report());
        let slot = self.begin_call().await;
        let answer = delete.send().await;
        drop(slot);
        let answer = answer.map_err(call_error)?;
        self.count_write(answer.consumed_capacity());
        Ok(answer.attributes.is_some_and(|item| !item.is_empty()))
    }
}

/// Returns the kind of an item, if it belongs to this visitor.
fn kind_of(item: &Item, visitor: &Visitor) -> Option<Kind> {
    if page_owner(item) == Some((&visitor.project, &visitor.distinct_id)) {
        return Some(Kind::Page);
    }
    let is_own = owner_of(item, SESSION_PREFIX).as_ref() == Some(visitor);
    is_own.then_some(if item.contains_key("into") { Kind::Alias } else { Kind::Session })
}
