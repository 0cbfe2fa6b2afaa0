//! A plain store, as one would write it first. For each event it reads the visitor's session and writes it, which also moves the
//! session in the index of last activities. It is not safe under races and ignores late events. Only its cost counts here.

use std::collections::HashMap;
use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, ConsumedCapacity, GlobalSecondaryIndex, KeySchemaElement,
    KeyType, Projection, ProjectionType, ReturnConsumedCapacity, ScalarAttributeType,
};
use session_tracking::config::SessionConfig;
use session_tracking::event::{Delivery, Event};

use crate::AnyError;
use crate::dynamodb::EmbeddedDynamoDb;
use crate::prices::dollars_per_million;
use crate::shop::Batch;

const TABLE: &str = "plain";
const TIMEOUT_MS: i64 = 1_800_000;

/// The plain store, and the units that it consumed.
pub struct PlainStore {
    client: Client,
    read_units: f64,
    write_units: f64,
}

impl PlainStore {
    /// Applies batches; returns the dollars for a million events.
    pub async fn run(batches: &[Batch]) -> Result<f64, AnyError> {
        let database = EmbeddedDynamoDb::start(0)?;
        let mut plain = Self { client: database.client(), read_units: 0.0, write_units: 0.0 };
        plain.create().await?;
        let config = SessionConfig::default();
        let mut events = 0;
        for batch in batches {
            let delivery = Delivery { received_at: batch.received_at, trusts_received_at: false };
            for json in &batch.events {
                plain.apply(&Event::parse(json.as_bytes(), delivery, &config)?, &config).await?;
                events += 1;
            }
        }
        Ok(dollars_per_million(plain.write_units, plain.read_units, events))
    }

    async fn apply(&mut self, event: &Event<'_>, config: &SessionConfig) -> Result<(), AnyError> {
        let key = AttributeValue::S(event.distinct_id.to_string());
        let get = self.client.get_item().table_name(TABLE).key("pk", key.clone());
        let answer = get.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await?;
        self.read_units += units(answer.consumed_capacity());
        let known = answer.item.filter(|item| event.at - number(item, "last_activity") <= TIMEOUT_MS);
        let context = event.arrival(config).map(|arrival| arrival.entry.context).unwrap_or_default();
        let string = |value: &Option<Arc<str>>| value.as_deref().map(str::to_owned);
        let mut item = known.unwrap_or_else(|| {
            let source = context
                .utm
                .and_then(|utm| utm.campaign.clone())
                .or_else(|| string(&context.referrer))
                .unwrap_or_default();
            HashMap::from([
                ("session_id".to_owned(), AttributeValue::S(format!("{}-{}", event.distinct_id, event.at))),
                ("started_at".to_owned(), AttributeValue::N(event.at.to_string())),
                ("entry_url".to_owned(), AttributeValue::S(string(&context.url).unwrap_or_default())),
                ("source".to_owned(), AttributeValue::S(source)),
            ])
        });
        let events = number(&item, "events") + 1;
        item.insert("pk".to_owned(), key);
        item.insert("shard".to_owned(), AttributeValue::S("0".to_owned()));
        item.insert("last_activity".to_owned(), AttributeValue::N(event.at.to_string()));
        item.insert("events".to_owned(), AttributeValue::N(events.to_string()));
        item.insert("exit_url".to_owned(), AttributeValue::S(string(&context.url).unwrap_or_default()));
        let put = self.client.put_item().table_name(TABLE).set_item(Some(item));
        let answer = put.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await?;
        self.write_units += units(answer.consumed_capacity());
        Ok(())
    }

    async fn create(&self) -> Result<(), AnyError> {
        let attribute =
            |name: &str, kind| AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build();
        let key = |name: &str, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build();
        let index = GlobalSecondaryIndex::builder()
            .index_name("last_activity")
            .key_schema(key("shard", KeyType::Hash)?)
            .key_schema(key("last_activity", KeyType::Range)?)
            .projection(Projection::builder().projection_type(ProjectionType::KeysOnly).build())
            .build()?;
        let create = self.client.create_table().table_name(TABLE).billing_mode(BillingMode::PayPerRequest);
        create
            .attribute_definitions(attribute("pk", ScalarAttributeType::S)?)
            .attribute_definitions(attribute("shard", ScalarAttributeType::S)?)
            .attribute_definitions(attribute("last_activity", ScalarAttributeType::N)?)
            .key_schema(key("pk", KeyType::Hash)?)
            .global_secondary_indexes(index)
            .send()
            .await?;
        Ok(())
    }
}

fn units(capacity: Option<&ConsumedCapacity>) -> f64 {
    capacity.and_then(ConsumedCapacity::capacity_units).unwrap_or_default()
}

fn number(item: &HashMap<String, AttributeValue>, name: &str) -> i64 {
    item.get(name).and_then(|value| value.as_n().ok()?.parse().ok()).unwrap_or_default()
}
