//! Times as numbers: since 1970, in seconds, milliseconds, microseconds or nanoseconds; or compact dates.

use super::spelling::compact;
use crate::session::Millis;

/// Seconds are below it until the year 5138; milliseconds were not before March 1973. So each unit is told by its size: every
/// time from the year 2000 to 5138 is read right, whatever its unit.
const MAX_SECONDS: u128 = 100_000_000_000;
/// More digits than any time has.
const MAX_DIGITS: usize = 38;

/// Returns the time that a number means.
pub(super) fn parse(text: &str) -> Option<Millis> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.len() {
        // As epoch times all of these lie before 1974 or after the year 2280.
        8 | 14 | 17 if is_digits && !text.starts_with('0') => compact(text).or_else(|| epoch(text)),
        _ => epoch(text),
    }
}

/// Reads a number that counts from 1970 on, to the millisecond before.
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
    // Digits behind the 38th change nothing that is kept.
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

/// Returns `digits` · 10^`scale`, cut to a whole number.
fn scaled(digits: u128, scale: i32) -> Option<u128> {
    let power = 10_u128.checked_pow(scale.unsigned_abs());
    match scale {
        0.. => digits.checked_mul(power?),
        _ => Some(power.map_or(0, |power| digits / power)),
    }
}
