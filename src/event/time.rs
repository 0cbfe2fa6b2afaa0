//! When an event happened, by the clock of the service.

mod number;
mod spelling;

use chrono::DateTime;

use super::raw_field::Json;
use super::{Delivery, Origin};
use crate::config::SessionConfig;
use crate::session::Millis;

/// How far ahead of its receipt an event may lie; a later one is taken to happen at its receipt. 23 hours, as PostHog has
/// it: a wrong time zone passes, a wrong date does not.
const MAX_AHEAD: Millis = 23 * 3_600_000;
/// The earliest time that is one: 2000-01-01T00:00:00Z. What lies before is a field that was never filled, or a clock that
/// was never set.
const EARLIEST: Millis = 946_684_800_000;

/// What has to be known of an event's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeFlag {
    /// It said a time too far ahead: the time of receipt counts.
    ClampedFuture,
    /// What it said is not a time: the time of receipt counts.
    Unparseable,
    /// Its time counts, and lies further ahead of its receipt than events may come late: its sender's clock is wrong.
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

/// When an event happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EventTime {
    pub at: Millis,
    pub flag: Option<TimeFlag>,
    /// Whether the event said a time that counts.
    pub is_stated: bool,
    /// Whether `at` is what its `timestamp` says, in a form that every consumer reads: RFC 3339.
    pub is_own: bool,
    /// Whether `sent_at` moved it: sent again, it has another time.
    pub is_corrected: bool,
}

impl EventTime {
    fn of_receipt(received_at: Millis, flag: Option<TimeFlag>) -> Self {
        Self { at: received_at, flag, is_stated: false, is_own: false, is_corrected: false }
    }
}

/// A time as an event states it.
#[derive(Debug, Clone, Copy)]
struct Stated {
    at: Millis,
    is_rfc3339: bool,
}

/// Reads a time as nearly all are written: `2026-03-10T12:00:00Z`, with or without a fraction of three to nine digits. It
/// says nothing of any other, nor of a leap second.
fn usual(text: &[u8]) -> Option<Millis> {
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

/// A fraction of a second and the `Z` behind it.
fn millis(text: &[u8]) -> Option<Millis> {
    match text {
        [b'Z'] => Some(0),
        [b'.', a, b, c, more @ .., b'Z'] if more.len() <= 6 && more.iter().all(u8::is_ascii_digit) => {
            Some(100 * digit(*a)? + 10 * digit(*b)? + digit(*c)?)
        }
        _ => None,
    }
}

#[inline]
fn digit(byte: u8) -> Option<Millis> {
    let digit = byte.wrapping_sub(b'0');
    (digit <= 9).then_some(Millis::from(digit))
}

/// Days from 1970-01-01 to a date. Years are counted from March on, so that a leap day is the last of its year, and from 400
/// years before, so that none is negative.
fn days_to(year: Millis, month: Millis, day: Millis) -> Millis {
    let (year, month) = if month < 3 { (year + 399, month + 9) } else { (year + 400, month - 3) };
    // Months from March on have 31, 30, 31, 30, 31 days, over and over.
    365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 865_566
}

/// How many days a month has.
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

/// Reads the time that a value states, however it is written.
fn stated(value: Json<'_>) -> Option<Stated> {
    let Some(text) = value.text() else { return of_number(value) };
    let usual = usual(text.as_bytes()).map(|at| Stated { at, is_rfc3339: true });
    usual.or_else(|| unusual(&text)).filter(|stated| stated.at >= 0)
}

#[cold]
#[inline(never)]
fn unusual(text: &str) -> Option<Stated> {
    let strict = DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_millis());
    let strict = strict.map(|at| Stated { at, is_rfc3339: true });
    strict.or_else(|| Some(Stated { at: spelling::parse(text)?, is_rfc3339: false }))
}

#[cold]
#[inline(never)]
fn of_number(value: Json<'_>) -> Option<Stated> {
    let at = number::parse(value.raw().filter(|raw| raw.starts_with(|c: char| c.is_ascii_digit()))?)?;
    Some(Stated { at, is_rfc3339: false })
}

/// Returns the time that a JSON value states, a text or a number, if it states one.
pub(super) fn of_json(json: &str) -> Option<Millis> {
    let stated = match serde_json::from_str::<std::borrow::Cow<'_, str>>(json) {
        Ok(text) => unusual(&text)?.at,
        Err(_) => number::parse(json)?,
    };
    Some(stated).filter(|&stated| stated >= 0)
}

/// When the event was received: what the delivery says, or, from a trusted sender, an earlier time that the event says.
pub(super) fn received_at(value: Json<'_>, delivery: Delivery) -> Millis {
    if !delivery.trusts_received_at {
        return delivery.received_at;
    }
    let stated = stated(value).map(|stated| stated.at).filter(|&stated| stated >= EARLIEST);
    stated.map_or(delivery.received_at, |stated| stated.min(delivery.received_at))
}

/// The event's time: its `timestamp`, corrected by how far the sender's clock was off when it said `sent_at`. Nothing about
/// a time loses an event: where it says none that can be true, its receipt counts.
pub(super) fn event_time(
    timestamp: Json<'_>,
    sent_at: Json<'_>,
    origin: &Origin<'_>,
    received_at: Millis,
    config: &SessionConfig,
) -> EventTime {
    if !timestamp.raw.is_given() {
        return EventTime::of_receipt(received_at, None);
    }
    let Some(stated) = stated(timestamp) else {
        return EventTime::of_receipt(received_at, Some(TimeFlag::Unparseable));
    };
    let at = match sent_at.raw.is_given() || origin.sent_at.is_some() {
        true => corrected(stated.at, sent_at, origin, received_at, config),
        false => stated.at,
    };
    if at > received_at.saturating_add(MAX_AHEAD) {
        return EventTime::of_receipt(received_at, Some(TimeFlag::ClampedFuture));
    }
    if at < EARLIEST {
        return EventTime::of_receipt(received_at, Some(TimeFlag::Unparseable));
    }
    let flag = (at > received_at.saturating_add(config.lateness_ms())).then_some(TimeFlag::Ahead);
    let is_corrected = at != stated.at;
    EventTime { at, flag, is_stated: true, is_own: stated.is_rfc3339 && !is_corrected, is_corrected }
}

/// A stated time by the service's clock. A small difference between sending and receipt is transit, no wrong clock; and a
/// `sent_at` that makes nonsense of a time that makes sense is no time itself, such as a field that was never filled.
fn corrected(
    stated_at: Millis,
    sent_at: Json<'_>,
    origin: &Origin<'_>,
    received_at: Millis,
    config: &SessionConfig,
) -> Millis {
    let Some(sent_at) = stated(sent_at).map(|sent| sent.at).or(origin.sent_at) else { return stated_at };
    let skew = received_at.saturating_sub(sent_at);
    if skew.saturating_abs() <= config.clock_skew_tolerance_ms() {
        return stated_at;
    }
    let is_possible = |at: Millis| (EARLIEST..=received_at.saturating_add(MAX_AHEAD)).contains(&at);
    let corrected = stated_at.saturating_add(skew);
    if is_possible(stated_at) && !is_possible(corrected) { stated_at } else { corrected }
}

#[cfg(test)]
mod tests;
