//! What the traffic of the demo and of a replay costs at DynamoDB.

use session_tracking::storage::Consumed;

use crate::prices::{PRICES_OF, dollars_per_million};

/// Returns the price of what a store's calls consumed, as a sentence with its assumptions, in lines of at most 68 characters.
/// Returns no lines if there were no events or no sessions.
pub fn sentence(consumed: &Consumed, events: usize, sessions: usize) -> Vec<String> {
    if events == 0 || sessions == 0 {
        return Vec::new();
    }
    let writes = consumed.table_write_units() + consumed.index_write_units();
    let dollars = dollars_per_million(writes, consumed.read_units(), events);
    let each = events as f64 / sessions as f64;
    vec![
        format!("${dollars:.2} a million events, at {each:.1} events a session, on demand in"),
        format!("us-east-1 on {PRICES_OF}; `local cost` prints a whole bill"),
    ]
}
