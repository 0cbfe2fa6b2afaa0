//! The bids of the Nexmark benchmark, for its query 11: the bids of each bidder, in sessions with a gap of ten seconds.
//!
//! The generator is the crate `nexmark`. Each event depends on its number alone, so the same arguments give the same bids
//! everywhere.

use nexmark::EventGenerator;
use nexmark::config::NexmarkConfig;
use nexmark::event::{Bid, Event};

/// The time of the first event, in milliseconds since 1970.
const BASE_TIME_MS: u64 = 1_436_918_400_000;
/// Events a second.
const RATE: usize = 100;

/// Returns the bids among the first `events` events, in event-time order: 46 of 50. The others are persons and auctions.
pub fn bids(events: usize) -> impl Iterator<Item = Bid> {
    let config =
        NexmarkConfig { base_time: BASE_TIME_MS, first_rate: RATE, next_rate: RATE, ..NexmarkConfig::default() };
    EventGenerator::new(config).take(events).filter_map(|event| match event {
        Event::Bid(bid) => Some(bid),
        Event::Person(_) | Event::Auction(_) => None,
    })
}

/// Returns a bid as an analytics event. Its visitor is the bidder. `number` makes the event's id.
pub fn event(number: usize, bid: &Bid) -> String {
    let time = chrono::DateTime::from_timestamp_millis(bid.date_time as i64).unwrap_or_default();
    serde_json::json!({
        "uuid": format!("bid-{number:07}"),
        "event": "bid",
        "distinct_id": bid.bidder.to_string(),
        "timestamp": time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
        "properties": {
            "$current_url": bid.url, "auction": bid.auction, "price": bid.price, "channel": bid.channel, "extra": bid.extra,
        },
    })
    .to_string()
}
