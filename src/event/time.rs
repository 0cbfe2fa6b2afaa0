//! An event's time, by the service's clock.

mod number;
mod spelling;

use chrono::DateTime;

use super::raw::{given, string};
use super::{Delivery, Origin};
use crate::config::SessionConfig;
use crate::session::Millis;

/// How far ahead of its receipt an event may be, in milliseconds. An event further ahead is dated to its receipt. The value is
/// PostHog's, 23 hours: a time in a wrong time zone is accepted, a wrong date is not.
const MAX_AHEAD_MS: Millis = 23 * 3_600_000;
/// The earliest valid time: 2000-01-01T00:00:00Z. An earlier one comes from a field that was never filled, or from a clock that
/// was never set.
const EARLIEST: Millis = 946_684_800_000;

/// What is wrong with an event's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeFlag {
    /// The event's time is more than 23 hours ahead of its receipt. The time of receipt is used.
    ClampedFuture,
    /// The event's `timestamp` is not a time, or lies before the year 2000. The time of receipt is used.
    Unparseable,
    /// The event's time is used, although it is further ahead of its receipt than the allowed lateness. Its sender's clock is
    /// wrong.
    Ahead,
}

impl TimeFlag {
    /// Returns the flag's name in `$time_flag`.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClampedFuture => "clamped_future",
            Self::Unparseable => "unparseable",
            Self::Ahead => "ahead",
        }
    }
}

/// When an event happened, and where that time comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EventTime {
    /// The event's time, by the service's clock.
    pub at: Millis,
    /// What is wrong with the time, if anything.
    pub flag: Option<TimeFlag>,
    /// Whether `at` comes from the event's `timestamp` rather than from its receipt.
    pub is_stated: bool,
    /// Whether `at` is exactly the event's `timestamp`, written in RFC 3339, which every consumer can read.
    pub is_own: bool,
    /// Whether `sent_at` corrected it. Such an event has another time when it is sent again.
    pub is_corrected: bool,
}

impl EventTime {
    /// Returns whether the event can have another time when it is sent again: because its receipt decides the time, or because
    /// the time is so far ahead that a receipt can decide it.
    pub fn may_change(&self) -> bool {
        !self.is_stated || self.is_corrected || self.flag == Some(TimeFlag::Ahead)
    }
}

impl EventTime {
    fn of_receipt(received_at: Millis, flag: Option<TimeFlag>) -> Self {
        Self { at: received_at, flag, is_stated: false, is_own: false, is_corrected: false }
    }
}

/// A time that an event states.
#[derive(Debug, Clone, Copy)]
struct StatedTime {
    at: Millis,
    /// Whether it is written in RFC 3339.
    is_rfc3339: bool,
}

/// The fast path: reads a time in the most common form, `2026-03-10T12:00:00Z`, with or without a fraction of 3 to 9 digits.
///
/// Returns `None` for any other form, and for a leap second. That does not mean that the time is invalid.
fn parse_fast(text: &[u8]) -> Option<Millis> {
    let (head, fraction) = text.split_first_chunk::<19>()?;
    let [_, _, _, _, b'-', _, _, b'-', _, _, b'T', _, _, b':', _, _, b':', _, _] = head else { return None };
    let two = |at: usize| Some(10 * digit(head[at])? + digit(head[at + 1])?);
    let (year, month, day) = (100 * two(0)? + two(2)?, two(5)?, two(8)?);
    let (hour, minute, second) = (two(11)?, two(14)?, two(17)?);
    if !(1..=12).contains(&month)
        || !(1..=days_in(year, month)).contains(&day)
        || hour > 23
        || minute > 59
        || second > 59
    {
        return None;
    }
    Some((((days_to(year, month, day) * 24 + hour) * 60 + minute) * 60 + second) * 1000 + millis(fraction)?)
}

/// Reads an optional fraction of a second and the `Z`, and returns milliseconds.
fn millis(text: &[u8]) -> Option<Millis> {
    match text {
        [b'Z'] => Some(0),
        [b'.', a, b, c, more @ .., b'Z'] if more.len() <= 6 && more.iter().all(u8::is_ascii_digit) => {
            Some(100 * digit(*a)? + 10 * digit(*b)? + digit(*c)?)
        }
        _ => None,
    }
}

fn digit(byte: u8) -> Option<Millis> {
    let digit = byte.wrapping_sub(b'0');
    (digit <= 9).then_some(Millis::from(digit))
}

/// Returns the days from 1970-01-01 to a date. Years are counted from March, so that a leap day is the last day of its year. 400
/// years are added, so that no year is negative.
fn days_to(year: Millis, month: Millis, day: Millis) -> Millis {
    let (year, month) = if month < 3 { (year + 399, month + 9) } else { (year + 400, month - 3) };
    // From March on, the lengths of the months repeat: 31, 30, 31, 30, 31 days.
    365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 865_566
}

/// Returns the number of days in a month.
fn days_in(year: Millis, month: Millis) -> Millis {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn is_leap(year: Millis) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Reads the time that a value states, in any known spelling.
fn stated_time(json: &str) -> Option<StatedTime> {
    let Some(text) = string(json) else { return number_time(json) };
    let common = parse_fast(text.as_bytes()).map(|at| StatedTime { at, is_rfc3339: true });
    common.or_else(|| parse_slow(&text)).filter(|stated| stated.at >= 0)
}

/// The slow path: reads a time in any known spelling.
fn parse_slow(text: &str) -> Option<StatedTime> {
    let rfc3339 = DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_millis());
    let rfc3339 = rfc3339.map(|at| StatedTime { at, is_rfc3339: true });
    rfc3339.or_else(|| Some(StatedTime { at: spelling::parse(text)?, is_rfc3339: false }))
}

fn number_time(json: &str) -> Option<StatedTime> {
    let at = number::parse(Some(json).filter(|json| json.starts_with(|first: char| first.is_ascii_digit()))?)?;
    Some(StatedTime { at, is_rfc3339: false })
}

/// Returns the time that a JSON string or number states, if it states one.
pub(super) fn of_json(json: &str) -> Option<Millis> {
    let stated = match serde_json::from_str::<std::borrow::Cow<'_, str>>(json) {
        Ok(text) => parse_slow(&text)?.at,
        Err(_) => number::parse(json)?,
    };
    Some(stated).filter(|&stated| stated >= 0)
}

/// Returns when the event was received: the delivery's time, or an earlier one that the event of a trusted sender states.
pub(super) fn received_at(json: Option<&str>, delivery: Delivery) -> Millis {
    if !delivery.trusts_received_at {
        return delivery.received_at;
    }
    let stated = json.and_then(stated_time).map(|stated| stated.at).filter(|&stated| stated >= EARLIEST);
    stated.map_or(delivery.received_at, |stated| stated.min(delivery.received_at))
}

/// Returns the event's time: its `timestamp`, corrected by how far `sent_at` shows the sender's clock to be off.
///
/// A time never causes an event to be rejected. If `timestamp` is not a valid time, the time of receipt is used.
pub(super) fn event_time(
    timestamp: Option<&str>,
    sent_at: Option<&str>,
    origin: &Origin<'_>,
    received_at: Millis,
    config: &SessionConfig,
) -> EventTime {
    let Some(timestamp) = given(timestamp) else {
        return EventTime::of_receipt(received_at, None);
    };
    let Some(stated) = stated_time(timestamp) else {
        return EventTime::of_receipt(received_at, Some(TimeFlag::Unparseable));
    };
    let at = match given(sent_at).is_some() || origin.sent_at.is_some() {
        true => corrected(stated.at, sent_at, origin, received_at, config),
        false => stated.at,
    };
    if at > received_at.saturating_add(MAX_AHEAD_MS) {
        return EventTime::of_receipt(received_at, Some(TimeFlag::ClampedFuture));
    }
    if at < EARLIEST {
        return EventTime::of_receipt(received_at, Some(TimeFlag::Unparseable));
    }
    let flag = (at > received_at.saturating_add(config.lateness_ms())).then_some(TimeFlag::Ahead);
    let is_corrected = at != stated.at;
    EventTime { at, flag, is_stated: true, is_own: stated.is_rfc3339 && !is_corrected, is_corrected }
}

/// Returns the stated time by the service's clock: corrected by the difference between receipt and `sent_at`.
///
/// A difference within `clock_skew_tolerance` is transit time and corrects nothing. A `sent_at` that would turn a valid time into
/// an invalid one corrects nothing either, because then `sent_at` itself is wrong, for example a field that was never filled.
fn corrected(
    stated_at: Millis,
    sent_at: Option<&str>,
    origin: &Origin<'_>,
    received_at: Millis,
    config: &SessionConfig,
) -> Millis {
    let Some(sent_at) = sent_at.and_then(stated_time).map(|sent| sent.at).or(origin.sent_at) else { return stated_at };
    let skew = received_at.saturating_sub(sent_at);
    if skew.saturating_abs() <= config.clock_skew_tolerance_ms() {
        return stated_at;
    }
    let is_possible = |at: Millis| (EARLIEST..=received_at.saturating_add(MAX_AHEAD_MS)).contains(&at);
    let corrected = stated_at.saturating_add(skew);
    if is_possible(stated_at) && !is_possible(corrected) { stated_at } else { corrected }
}

#[cfg(test)]
mod tests;
