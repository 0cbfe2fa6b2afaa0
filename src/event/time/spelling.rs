//! The spellings of a time: ISO 8601, RFC 3339 and their variants in SDKs and databases, the dates of mail and HTTP, and the
//! formats that languages print.

use chrono::{DateTime, NaiveDateTime};

use super::number;
use super::{days_in, days_to};
use crate::session::Millis;

/// Maximum length of a time, in bytes. JavaScript's format with a long zone name takes about 80.
const MAX_BYTES: usize = 128;
const DAY_MS: Millis = 86_400_000;
const HOUR_MS: Millis = 3_600_000;
const MINUTE_MS: Millis = 60_000;

/// Reads a time in any of the known spellings. A time without an offset is UTC.
pub(super) fn parse(text: &str) -> Option<Millis> {
    let text = text.trim();
    if text.len() > MAX_BYTES {
        return None;
    }
    // `/Date(1773136800000)/`, as .NET's older serializers write it.
    let text = text.strip_prefix("/Date(").and_then(|rest| rest.strip_suffix(")/")).unwrap_or(text);
    match text.as_bytes().first()? {
        byte if byte.is_ascii_digit() => number::parse(text).or_else(|| iso(text)).or_else(|| named_month(text)),
        _ => named_month(text),
    }
}

/// Reads a date with the month's name: from mail (RFC 2822) and HTTP (RFC 9110, all three forms), and as `date`, Java, Ruby and
/// JavaScript print it.
fn named_month(text: &str) -> Option<Millis> {
    // JavaScript writes the zone's name in parentheses after the offset.
    let bare = text.split_once(" (").map_or(text, |(bare, _)| bare);
    let with_offset = |format| DateTime::parse_from_str(bare, format).ok().map(|time| time.timestamp_millis());
    let in_utc =
        |format| NaiveDateTime::parse_from_str(bare, format).ok().map(|time| time.and_utc().timestamp_millis());
    let mail = || DateTime::parse_from_rfc2822(text).ok().map(|time| time.timestamp_millis());
    mail()
        .or_else(|| with_offset("%a %b %d %Y %H:%M:%S GMT%z"))
        .or_else(|| with_offset("%a %b %e %H:%M:%S %z %Y"))
        .or_else(|| in_utc("%a %b %e %H:%M:%S %Y"))
        .or_else(|| in_utc("%a %b %e %H:%M:%S UTC %Y"))
        .or_else(|| in_utc("%a %b %e %H:%M:%S GMT %Y"))
        .or_else(|| in_utc("%A, %d-%b-%y %H:%M:%S GMT"))
}

/// Reads an ISO 8601 date, an optional time of day after a `T` or blanks, and an optional offset.
fn iso(text: &str) -> Option<Millis> {
    let mut cursor = Cursor(text.as_bytes());
    let day = date(&mut cursor)? * DAY_MS;
    if let Some(offset) = zone(&mut cursor.clone()) {
        return Some(day - offset);
    }
    if !cursor.eat(b'T') && !cursor.eat(b't') && !cursor.skip_blanks() {
        return None;
    }
    cursor.skip_blanks();
    let time = time_of_day(&mut cursor)?;
    Some(day + time - zone(&mut cursor)?)
}

/// Reads a compact date or time of 8, 14 or 17 digits, such as `20260310`, `20260310120000` and `20260310120000123`.
pub(super) fn compact(digits: &str) -> Option<Millis> {
    let (date_part, time_part) = digits.split_at_checked(8)?;
    let day = date(&mut Cursor(date_part.as_bytes()))? * DAY_MS;
    match time_part.len() {
        0 => Some(day),
        6 => Some(day + time_of_day(&mut Cursor(time_part.as_bytes()))?),
        9 => {
            let (time, millis) = time_part.split_at(6);
            Some(day + time_of_day(&mut Cursor(time.as_bytes()))? + millis.parse::<Millis>().ok()?)
        }
        _ => None,
    }
}

/// Reads a date and returns the days from 1970-01-01 to it. It can be a calendar date (`2026-03-10`), a week date (`2026-W11-2`)
/// or an ordinal date (`2026-069`), with or without separators.
fn date(cursor: &mut Cursor<'_>) -> Option<Millis> {
    let year = cursor.number(4..=4)?;
    if let Some(separator) = [b'-', b'/', b'.'].into_iter().find(|&separator| cursor.eat(separator)) {
        if separator == b'-' && cursor.eat(b'W') {
            let week = cursor.number(2..=2)?;
            let day = if cursor.eat(b'-') { cursor.number(1..=1)? } else { 1 };
            return of_week(year, week, day);
        }
        if separator == b'-' && cursor.digits() == 3 {
            return of_year(year, cursor.number(3..=3)?);
        }
        let month = cursor.number(1..=2)?;
        return if cursor.eat(separator) { of_month(year, month, cursor.number(1..=2)?) } else { None };
    }
    if cursor.eat(b'W') {
        let has_day = cursor.digits() == 3;
        let week = cursor.exact_digits(2)?;
        return of_week(year, week, if has_day { cursor.exact_digits(1)? } else { 1 });
    }
    match cursor.digits() {
        3 => of_year(year, cursor.number(3..=3)?),
        4 => {
            let month = cursor.exact_digits(2)?;
            of_month(year, month, cursor.exact_digits(2)?)
        }
        _ => None,
    }
}

fn of_month(year: Millis, month: Millis, day: Millis) -> Option<Millis> {
    let is_valid = (1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day);
    is_valid.then(|| days_to(year, month, day))
}

fn of_year(year: Millis, day: Millis) -> Option<Millis> {
    let first = days_to(year, 1, 1);
    (1..=days_to(year + 1, 1, 1) - first).contains(&day).then_some(first + day - 1)
}

/// Returns the days from 1970-01-01 to a day of an ISO week. Weeks begin on Monday, and week 1 contains January 4.
fn of_week(year: Millis, week: Millis, day: Millis) -> Option<Millis> {
    let first_monday = |year| {
        let fourth = days_to(year, 1, 4);
        // 1970-01-01 was a Thursday.
        fourth - (fourth + 3).rem_euclid(7)
    };
    let monday = first_monday(year) + (week - 1) * 7;
    let is_valid = week >= 1 && monday < first_monday(year + 1) && (1..=7).contains(&day);
    is_valid.then_some(monday + day - 1)
}

/// Reads a time of day and returns the milliseconds since midnight. `24:00` is the end of the day, and second 60 is the first
/// second of the next minute.
fn time_of_day(cursor: &mut Cursor<'_>) -> Option<Millis> {
    let (hour, minute, second) = match cursor.digits() {
        6 => (cursor.exact_digits(2)?, cursor.exact_digits(2)?, Some(cursor.exact_digits(2)?)),
        4 => (cursor.exact_digits(2)?, cursor.exact_digits(2)?, None),
        digits @ 1..=2 => {
            let hour = cursor.number(1..=2)?;
            // `9` alone is not a time of day, but `9:05` and `09` are.
            match cursor.eat(b':') {
                false if digits == 1 => return None,
                false => (hour, 0, None),
                true => {
                    let minute = cursor.number(2..=2)?;
                    (hour, minute, if cursor.eat(b':') { Some(cursor.number(2..=2)?) } else { None })
                }
            }
        }
        _ => return None,
    };
    let millis = if second.is_some() && (cursor.eat(b'.') || cursor.eat(b',')) { cursor.fraction()? } else { 0 };
    let second = second.unwrap_or(0);
    let is_end_of_day = (hour, minute, second, millis) == (24, 0, 0, 0);
    let is_valid = is_end_of_day || (hour <= 23 && minute <= 59 && second <= 60);
    is_valid.then_some(hour * HOUR_MS + minute * MINUTE_MS + second * 1000 + millis)
}

/// Reads the zone at the end of a time: `Z`, `UTC`, an offset, or nothing. Returns how far local time is ahead of UTC, in
/// milliseconds. Returns `None` if anything else follows.
fn zone(cursor: &mut Cursor<'_>) -> Option<Millis> {
    cursor.skip_blanks();
    if cursor.is_empty() {
        return Some(0);
    }
    let is_named = ["UTC", "GMT", "UT", "Z"].into_iter().any(|name| cursor.eat_word(name));
    cursor.skip_blanks();
    let sign = match () {
        () if cursor.eat(b'+') => Some(1),
        // U+2212 is the minus sign that ISO 8601 asks for.
        () if cursor.eat(b'-') || cursor.eat_word("\u{2212}") => Some(-1),
        () => None,
    };
    let offset = match sign {
        Some(sign) => sign * offset(cursor, is_named)?,
        None if is_named => 0,
        None => return None,
    };
    cursor.skip_zone_names().then_some(offset)
}

/// Reads an offset without its sign: `02`, `0200` or `02:00`, and after `UTC` also `2`.
fn offset(cursor: &mut Cursor<'_>, is_named: bool) -> Option<Millis> {
    let (hour, minute) = match cursor.digits() {
        4 => (cursor.exact_digits(2)?, cursor.exact_digits(2)?),
        digits if digits == 2 || (digits == 1 && is_named) => {
            let hour = cursor.number(1..=2)?;
            (hour, if cursor.eat(b':') { cursor.number(2..=2)? } else { 0 })
        }
        _ => return None,
    };
    (hour <= 23 && minute <= 59).then_some(hour * HOUR_MS + minute * MINUTE_MS)
}

/// The part of a string that is not read yet.
#[derive(Clone)]
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns how many digits come next.
    fn digits(&self) -> usize {
        self.0.iter().take_while(|byte| byte.is_ascii_digit()).count()
    }

    /// Reads a number if its number of digits is in `digits`.
    fn number(&mut self, digits: std::ops::RangeInclusive<usize>) -> Option<Millis> {
        let found = self.digits();
        // More digits may follow a year, as in `20260310`.
        let taken = if digits.contains(&4) { found.min(4) } else { found };
        if digits.contains(&taken) { self.exact_digits(taken) } else { None }
    }

    /// Reads a number of exactly `digits` digits.
    fn exact_digits(&mut self, digits: usize) -> Option<Millis> {
        let (taken, rest) = self.0.split_at_checked(digits)?;
        self.0 = rest;
        std::str::from_utf8(taken).ok()?.parse().ok()
    }

    /// Reads the digits of a fraction and returns milliseconds. Digits after the third are dropped.
    fn fraction(&mut self) -> Option<Millis> {
        let digits = self.digits();
        let (all, rest) = self.0.split_at(digits);
        self.0 = rest;
        let digit = |at: usize| Millis::from(all.get(at).map_or(0, |digit| digit - b'0'));
        (digits > 0).then(|| 100 * digit(0) + 10 * digit(1) + digit(2))
    }

    /// Skips `byte` if it comes next. Returns whether it did.
    fn eat(&mut self, byte: u8) -> bool {
        let rest = self.0.strip_prefix(&[byte]);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// Skips a word, in any case, if it comes next. Returns whether it did.
    fn eat_word(&mut self, word: &str) -> bool {
        let rest = self.0.split_at_checked(word.len()).filter(|(start, _)| start.eq_ignore_ascii_case(word.as_bytes()));
        self.0 = rest.map_or(self.0, |(_, rest)| rest);
        rest.is_some()
    }

    /// Skips blanks. Returns whether there were any.
    fn skip_blanks(&mut self) -> bool {
        let rest = self.0.trim_ascii_start();
        let found = rest.len() < self.0.len();
        self.0 = rest;
        found
    }

    /// Skips names of a zone whose offset is known: `[Europe/Berlin]` (RFC 9557, Java), `CET` and a monotonic reading (Go),
    /// `(Central European Time)` (JavaScript). Returns whether that reaches the end.
    fn skip_zone_names(&mut self) -> bool {
        loop {
            self.skip_blanks();
            let end = match self.0.first() {
                None => return true,
                Some(b'[') => self.0.iter().position(|&byte| byte == b']').map(|end| end + 1),
                Some(b'(') => self.0.iter().position(|&byte| byte == b')').map(|end| end + 1),
                Some(b'm') if self.0.starts_with(b"m=") => Some(self.0.len()),
                Some(_) => {
                    let letters = self.0.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
                    Some(letters).filter(|letters| (3..=5).contains(letters))
                }
            };
            let Some(rest) = end.and_then(|end| self.0.get(end..)) else { return false };
            self.0 = rest;
        }
    }
}
