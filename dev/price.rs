//! DynamoDB's prices: on demand, in us-east-1. `docs/cost.md` has their sources. The local tools and the benches share
//! them.

/// The day when the prices were looked up, these and those of `local cost`.
pub const PRICES_OF: &str = "2026-11-24";
/// Dollars for a million write request units.
pub const MILLION_WRITE_UNITS: f64 = 0.625;
/// Dollars for a million read request units.
pub const MILLION_READ_UNITS: f64 = 0.125;

/// Returns the dollars for these units, for each million of `events`.
pub fn dollars_per_million(write_units: f64, read_units: f64, events: usize) -> f64 {
    (write_units * MILLION_WRITE_UNITS + read_units * MILLION_READ_UNITS) / events as f64
}
