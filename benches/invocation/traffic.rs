//! Batches of 100 one-KB events of 33 visitors, for direct invocations.

use std::fmt::Write;

use session_tracking::clock::{Clock, SystemClock};
use session_tracking::session::{Millis, datetime, rfc3339};

/// Events in a batch.
const EVENTS: usize = 100;
/// Visitors in a batch.
const VISITORS: usize = 33;
/// The size of an event.
const EVENT_BYTES: usize = 1024;
/// The time between two events of a visitor, in milliseconds.
const STEP_MS: Millis = 10_000;
/// How long ago a visit began, in milliseconds: less than the default allowed lateness.
const AGO_MS: Millis = 240_000;

/// A group of visitors whose events are in the same batches.
pub struct Visitors {
    /// The start of each visitor's `distinct_id`.
    name: String,
    began: Millis,
    /// How many batches were made.
    batches: usize,
}

impl Visitors {
    /// Returns new visitors whose `distinct_id`s begin with `name`.
    pub fn new(name: String) -> Self {
        Self { name, began: SystemClock.now() - AGO_MS, batches: 0 }
    }

    /// Returns the payload of their next batch: three events of each visitor, and one more of the first.
    pub fn batch(&mut self) -> String {
        let mut payload = String::with_capacity(EVENTS * (EVENT_BYTES + 1) + 16);
        payload.push_str(r#"{"events":["#);
        for at in 0..EVENTS {
            if at > 0 {
                payload.push(',');
            }
            let event = self.event(at % VISITORS, at / VISITORS);
            payload.push_str(&event);
        }
        payload.push_str("]}");
        self.batches += 1;
        payload
    }

    /// Returns a shop's event, like those of `dev/shop.rs`.
    fn event(&self, visitor: usize, at: usize) -> String {
        let number = 3 * self.batches + at;
        let page = (number * 37 + visitor * 101) % 5_000;
        let time = rfc3339(datetime(self.began + number as Millis * STEP_MS + visitor as Millis));
        let (url, referrer) = match number {
            0 => (
                format!(
                    "https://shop.example.com/c/{page:04}?utm_source=google&utm_medium=cpc&utm_campaign=spring-{:02}",
                    visitor % 40
                ),
                "https://www.google.com/",
            ),
            _ => (
                format!("https://shop.example.com/category/{page:04}/a-product-with-a-speaking-name-{page:04}.html"),
                "https://shop.example.com/",
            ),
        };
        let id = uuid::Uuid::from_u64_pair(
            0x0198_c5f0_0000_7000 | (number as u64 & 0xfff),
            0x8000_0000_0000_0000 | xxhash_rust::xxh3::xxh3_64(format!("{}-{visitor}-{at}", self.name).as_bytes()) >> 2,
        );
        let name = if number.is_multiple_of(2) { "$pageview" } else { "add_to_cart" };
        let mut event = format!(
            "{{\"uuid\":\"{id}\",\"event\":\"{name}\",\"distinct_id\":\"{}-{visitor:04}\",\"timestamp\":\"{time}\",\
             \"properties\":{{\"$current_url\":\"{url}\",\"$referrer\":\"{referrer}\",\"$device_type\":\"Desktop\",\
             \"$os\":\"Mac OS X\",\"$browser\":\"Chrome\",\"$browser_version\":131,\"$screen_width\":1728,\
             \"$screen_height\":1117,\"$lib\":\"web\",\"price\":{}.99,\"is_member\":true",
            self.name,
            page % 200,
        );
        for extra in 0.. {
            let length = event.len();
            let _ = write!(event, ",\"attribute_{extra}\":\"value {} of the shop\"", (page * (extra + 3)) % 9_973);
            if event.len() + 2 > EVENT_BYTES {
                event.truncate(length);
                break;
            }
        }
        event.push_str("}}");
        event
    }
}
