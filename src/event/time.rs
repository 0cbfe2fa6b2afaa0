//! When an event happened, by the clock of the service.

use super::part::Json;
use super::{Delivery, RejectCode, Rejection};
use crate::session::Millis;
use chrono::{DateTime, NaiveDateTime};

/// How far ahead of its receipt an event may lie; a later one is taken to happen at its receipt. 23 hours, as PostHog has
/// it: a wrong time zone passes, a wrong date does not.
const MAX_AHEAD: Millis = 23 * 3_600_000;
/// The earliest time an event may say: 2000-01-01T00:00:00Z. What lies before is a clock that was never set.
const EARLIEST: Millis = 946_684_800_000;

/// Why an event's time is not what it said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeFlag {
    /// It said a time too far ahead.
    ClampedFuture,
    /// What it said is not a time.
    Unparseable,
}

impl TimeFlag {
    /// The flag's name in `$time_flag`.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClampedFuture => "clamped_future",
            Self::Unparseable => "unparseable",
        }
    }
}

/// Reads an RFC 3339 time; without an offset it is taken as UTC.
fn parse(text: &str) -> Option<Millis> {
    usual(text.as_bytes()).or_else(|| unusual(text))
}

/// Reads a time as nearly all are written: `2026-03-10T12:00:00Z`, with or without a fraction of three to nine digits. It
/// says nothing of any other, nor of a leap second.
fn usual(text: &[u8]) -> Option<Millis> {
    let (head, fraction) = text.split_first_chunk::<19>()?;
    let [_, _, _, _, b'-', _, _, b'-', _, _, b'T', _, _, b':', _, _, b':', _, _] = head else { return None };
    let two = |at: usize| Some(10 * digit(head[at])? + digit(head[at + 1])?);
    let (year, month, day) = (100 * two(0)? + two(2)?, two(5)?, two(8)?);
    let (hour, minute, second) = (two(11)?, two(14)?, two(17)?);
    let days = match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if !(1..=12).contains(&month) || !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 59 {
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

fn is_leap(year: Millis) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn unusual(text: &str) -> Option<Millis> {
    let text = text.trim();
    let naive = || NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").ok();
    DateTime::parse_from_rfc3339(text)
        .map(|time| time.timestamp_millis())
        .ok()
        .or_else(|| naive().map(|time| time.and_utc().timestamp_millis()))
}

/// When the event was received: what the delivery says, or, from a trusted sender, an earlier time that the event says.
pub(super) fn received_at(stated: Json<'_>, delivery: Delivery) -> Millis {
    if !delivery.trusts_received_at {
        return delivery.received_at;
    }
    let stated = stated.text().and_then(|text| parse(&text));
    stated.map_or(delivery.received_at, |stated| stated.clamp(EARLIEST, delivery.received_at))
}

/// The event's time: its `timestamp`, corrected by how far the sender's clock was off when it said `sent_at`.
pub(super) fn event_time(
    timestamp: Json<'_>,
    sent_at: Json<'_>,
    received_at: Millis,
) -> Result<(Millis, Option<TimeFlag>), Rejection> {
    if !timestamp.part.is_given() {
        return Ok((received_at, None));
    }
    let Some(text) = timestamp.text() else {
        let message = "`timestamp` is not a string; send a time like \"2026-03-10T12:00:00Z\"";
        return Err(Rejection::new(RejectCode::InvalidTimestamp, message));
    };
    let Some(stated) = parse(&text) else { return Ok((received_at, Some(TimeFlag::Unparseable))) };
    let sent_at = sent_at.text().and_then(|text| parse(&text));
    let at = sent_at.map_or(stated, |sent_at| stated.saturating_add(received_at - sent_at));
    if at > received_at + MAX_AHEAD {
        return Ok((received_at, Some(TimeFlag::ClampedFuture)));
    }
    if at < EARLIEST {
        let message =
            "`timestamp`, corrected by `sent_at` if that is there, lies before the year 2000; send true times";
        return Err(Rejection::new(RejectCode::InvalidTimestamp, message));
    }
    Ok((at, None))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::part::Part;
    use super::super::scan::Scanner;
    use super::*;
    use crate::session::{datetime, time_text};

    fn json(text: &str) -> Json<'_> {
        Scanner::new(text).value(0).map_or(Part::ABSENT, Part::new).of(text)
    }

    fn raw(text: &str) -> String {
        format!("\"{text}\"")
    }

    /// Cases of the conformance list, by their ids: timestamp, sent_at, received_at, expected time and flag.
    #[test]
    fn event_times() {
        let at = |text: &str| parse(text).unwrap();
        let noon = "2026-03-10T12:00:00Z";
        for (id, timestamp, sent_at, time, flag) in [
            ("G01", "2026-03-10T11:00:00Z", Some("2026-03-10T12:00:10Z"), "2026-03-10T10:59:50Z", None),
            ("G02", "2026-03-10T11:00:00Z", Some("2026-03-10T11:59:50Z"), "2026-03-10T11:00:10Z", None),
            ("G04", "2026-03-11T11:30:00Z", None, noon, Some(TimeFlag::ClampedFuture)),
            ("G05", "yesterday-ish", None, noon, Some(TimeFlag::Unparseable)),
            ("G07", "2026-03-10T10:58:00Z", Some("2026-03-10T11:00:00Z"), "2026-03-10T11:58:00Z", None),
            ("an hour ahead", "2026-03-10T13:00:00Z", None, "2026-03-10T13:00:00Z", None),
            ("another offset", "2026-03-10T14:00:00+02:00", None, noon, None),
            ("no offset", "2026-03-10T12:00:00", None, noon, None),
            ("a bad sent_at", noon, Some("soon"), noon, None),
        ] {
            let (timestamp, sent_at) = (raw(timestamp), sent_at.map(raw).unwrap_or_default());
            let result = event_time(json(&timestamp), json(&sent_at), at(noon));
            assert_eq!(result, Ok((at(time), flag)), "{id}");
        }
        assert_eq!(event_time(json(""), json("null"), at(noon)), Ok((at(noon), None)));
        let never_set = raw("1970-01-01T00:00:09Z");
        assert!(event_time(json(&never_set), json(""), at(noon)).is_err());
    }

    #[test]
    fn only_a_trusted_sender_says_when_an_event_was_received_and_never_later() {
        let noon = parse("2026-03-10T12:00:00Z").unwrap();
        let delivery = |trusts_received_at| Delivery { received_at: noon, trusts_received_at };
        let (earlier, later) = (raw("2026-03-10T11:00:00Z"), raw("2026-03-10T13:00:00Z"));
        assert_eq!(received_at(json(&earlier), delivery(true)), noon - 3_600_000);
        assert_eq!(received_at(json(&earlier), delivery(false)), noon);
        assert_eq!(received_at(json(&later), delivery(true)), noon);
    }

    /// Digits near the bounds of what they may be, more often than others.
    fn digits(width: usize, bounds: &'static [u32]) -> impl Strategy<Value = String> {
        prop_oneof![prop::sample::select(bounds), 0..10_u32.pow(width as u32)].prop_map(move |n| format!("{n:0width$}"))
    }

    fn any_time() -> impl Strategy<Value = String> {
        let date = (
            digits(4, &[0, 1, 4, 1900, 1969, 1970, 1999, 2000, 2023, 2024, 2100, 2400, 9999]),
            digits(2, &[0, 1, 2, 3, 4, 11, 12, 13]),
            digits(2, &[0, 1, 28, 29, 30, 31, 32]),
        );
        let time = (digits(2, &[0, 23, 24]), digits(2, &[0, 59, 60]), digits(2, &[0, 59, 60, 61]));
        let rest = "(\\.[0-9]{0,10})?(Z|z|\\+00:00|-05:30|)";
        (date, time, rest).prop_map(|((year, month, day), (hour, minute, second), rest)| {
            format!("{year}-{month}-{day}T{hour}:{minute}:{second}{rest}")
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn what_is_read_fast_is_read_alike(time in any_time()) {
            if let Some(at) = usual(time.as_bytes()) {
                prop_assert_eq!(unusual(&time), Some(at), "{}", time);
            }
        }

        /// The other way round, but for leap seconds.
        #[test]
        fn every_usual_time_is_read_fast(at in -62_167_219_200_000..253_402_300_800_000_i64) {
            let text = time_text(datetime(at));
            prop_assert_eq!(usual(text.as_bytes()), Some(at), "{}", text);
        }

        #[test]
        fn a_time_with_a_byte_changed_is_read_alike(time in any_time(), at in any::<prop::sample::Index>(), byte in " -~") {
            let mut time = time;
            let at = at.index(time.len());
            time.replace_range(at..at + 1, &byte);
            if let Some(at) = usual(time.as_bytes()) {
                prop_assert_eq!(unusual(&time), Some(at), "{}", time);
            }
        }
    }
}
