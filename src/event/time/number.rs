//! Times written as numbers: seconds, milliseconds, microseconds or nanoseconds since 1970, or compact dates.

use super::spelling::compact;
use crate::session::Millis;

/// Numbers below this are seconds; numbers below 1,000 times this are milliseconds, and so on.
///
/// Seconds reach this value in the year 5138, and milliseconds reached it in March 1973. So the unit of every time from the year
/// 2000 to 5138 follows from its size.
const MAX_SECONDS: u128 = 100_000_000_000;
/// Maximum number of digits that are read. No time has as many.
const MAX_DIGITS: usize = 38;

/// Returns the time that a number states.
pub(super) fn parse(text: &str) -> Option<Millis> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.len() {
        // Read as an epoch time, each of these would lie before 1974 or after the year 2280, so a date is more likely.
        8 | 14 | 17 if is_digits && !text.starts_with('0') => compact(text).or_else(|| epoch(text)),
        _ => epoch(text),
    }
}

/// Reads a number of units since 1970, truncated to milliseconds.
fn epoch(text: &str) -> Option<Millis> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > MAX_DIGITS || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    // Digits after the 38th do not change the result.
    let fraction = &fraction[..fraction.len().min(MAX_DIGITS - whole.len())];
    let digits: u128 = [whole, fraction].concat().parse().ok()?;
    let scale = exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let unit = match scaled(digits, scale)? {
        number if number < MAX_SECONDS => 3,
        number if number < MAX_SECONDS * 1_000 => 0,
        number if number < MAX_SECONDS * 1_000_000 => -3,
        number if number < MAX_SECONDS * 1_000_000_000 => -6,
        _ => return None,
    };
    Millis::try_from(scaled(digits, scale.checked_add(unit)?)?).ok()
}

/// Returns `digits` · 10^`scale`, truncated to an integer.
fn scaled(digits: u128, scale: i32) -> Option<u128> {
    let power = 10_u128.checked_pow(scale.unsigned_abs());
    match scale {
        0.. => digits.checked_mul(power?),
        _ => Some(power.map_or(0, |power| digits / power)),
    }
}
