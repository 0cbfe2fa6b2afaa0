//! The spellings of a time: ISO 8601 and RFC 3339 with what SDKs and databases make of them, the dates of mail and HTTP, and
//! what languages print.

use chrono::{DateTime, NaiveDateTime};

use super::number;
use super::{days_in, days_to};
use crate::session::Millis;

/// Bytes of a time at most: what JavaScript prints, with a long name of its zone, has some 80.
const MAX_BYTES: usize = 128;
const DAY_MS: Millis = 86_400_000;
const HOUR_MS: Millis = 3_600_000;
const MINUTE_MS: Millis = 60_000;

/// Returns the time that a text writes in any of the known spellings; without an offset it is UTC.
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

/// Reads a date that names its month: of mail (RFC 2822), of HTTP (RFC 9110, all three forms), as `date`, Java, Ruby and
/// JavaScript print it.
fn named_month(text: &str) -> Option<Millis> {
    // JavaScript names the zone behind its offset.
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

/// Reads a date, a time of day behind a `T` or blanks, and an offset; the last two may be missing.
fn iso(text: &str) -> Option<Millis> {
    let mut rest = Rest(text.as_bytes());
    let day = date(&mut rest)? * DAY_MS;
    if let Some(offset) = zone(&mut rest.clone()) {
        return Some(day - offset);
    }
    if !rest.eat(b'T') && !rest.eat(b't') && !rest.blanks() {
        return None;
    }
    rest.blanks();
    let time = time_of_day(&mut rest)?;
    Some(day + time - zone(&mut rest)?)
}

/// Reads the fourteen or seventeen digits of a compact time, which number parsers leave alone.
pub(super) fn compact(digits: &str) -> Option<Millis> {
    let (date_part, time_part) = digits.split_at_checked(8)?;
    let day = date(&mut Rest(date_part.as_bytes()))? * DAY_MS;
    match time_part.len() {
        0 => Some(day),
        6 => Some(day + time_of_day(&mut Rest(time_part.as_bytes()))?),
        9 => {
            let (time, millis) = time_part.split_at(6);
            Some(day + time_of_day(&mut Rest(time.as_bytes()))? + millis.parse::<Millis>().ok()?)
        }
        _ => None,
    }
}

/// Returns the days from 1970-01-01 to a date: of a calendar, of a week, or the number of a day in its year; each with
/// separators or without.
fn date(rest: &mut Rest<'_>) -> Option<Millis> {
    let year = rest.number(4..=4)?;
    if let Some(separator) = [b'-', b'/', b'.'].into_iter().find(|&separator| rest.eat(separator)) {
        if separator == b'-' && rest.eat(b'W') {
            let week = rest.number(2..=2)?;
            let day = if rest.eat(b'-') { rest.number(1..=1)? } else { 1 };
            return of_week(year, week, day);
        }
        if separator == b'-' && rest.digits() == 3 {
            return of_year(year, rest.number(3..=3)?);
        }
        let month = rest.number(1..=2)?;
        return if rest.eat(separator) { of_month(year, month, rest.number(1..=2)?) } else { None };
    }
    if rest.eat(b'W') {
        let has_day = rest.digits() == 3;
        let week = rest.part(2)?;
        return of_week(year, week, if has_day { rest.part(1)? } else { 1 });
    }
    match rest.digits() {
        3 => of_year(year, rest.number(3..=3)?),
        4 => {
            let month = rest.part(2)?;
            of_month(year, month, rest.part(2)?)
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

/// ISO weeks begin on Mondays; the first is the one with January 4.
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

/// Returns the milliseconds from midnight on. `24:00` ends a day; second 60 is the first of the next minute.
fn time_of_day(rest: &mut Rest<'_>) -> Option<Millis> {
    let (hour, minute, second) = match rest.digits() {
        6 => (rest.part(2)?, rest.part(2)?, Some(rest.part(2)?)),
        4 => (rest.part(2)?, rest.part(2)?, None),
        digits @ 1..=2 => {
            let hour = rest.number(1..=2)?;
            // An hour of one digit is none without its minutes, nor is one of two with a single digit behind it.
            match rest.eat(b':') {
                false if digits == 1 => return None,
                false => (hour, 0, None),
                true => {
                    let minute = rest.number(2..=2)?;
                    (hour, minute, if rest.eat(b':') { Some(rest.number(2..=2)?) } else { None })
                }
            }
        }
        _ => return None,
    };
    let millis = if second.is_some() && (rest.eat(b'.') || rest.eat(b',')) { rest.fraction()? } else { 0 };
    let second = second.unwrap_or(0);
    let is_end_of_day = (hour, minute, second, millis) == (24, 0, 0, 0);
    let is_valid = is_end_of_day || (hour <= 23 && minute <= 59 && second <= 60);
    is_valid.then_some(hour * HOUR_MS + minute * MINUTE_MS + second * 1000 + millis)
}

/// Returns how far local time is ahead of UTC, in milliseconds, where nothing else follows: `Z`, an offset, `UTC`, or nothing.
fn zone(rest: &mut Rest<'_>) -> Option<Millis> {
    rest.blanks();
    if rest.is_empty() {
        return Some(0);
    }
    let is_named = ["UTC", "GMT", "UT", "Z"].into_iter().any(|name| rest.eat_word(name));
    rest.blanks();
    let sign = match () {
        () if rest.eat(b'+') => Some(1),
        // The minus sign proper is what ISO 8601 asks for.
        () if rest.eat(b'-') || rest.eat_word("\u{2212}") => Some(-1),
        () => None,
    };
    let offset = match sign {
        Some(sign) => sign * offset(rest, is_named)?,
        None if is_named => 0,
        None => return None,
    };
    rest.names_of_zone().then_some(offset)
}

/// Reads an offset behind its sign: `02`, `0200`, `02:00`; behind `UTC` also `2`.
fn offset(rest: &mut Rest<'_>, is_named: bool) -> Option<Millis> {
    let (hour, minute) = match rest.digits() {
        4 => (rest.part(2)?, rest.part(2)?),
        digits if digits == 2 || (digits == 1 && is_named) => {
            let hour = rest.number(1..=2)?;
            (hour, if rest.eat(b':') { rest.number(2..=2)? } else { 0 })
        }
        _ => return None,
    };
    (hour <= 23 && minute <= 59).then_some(hour * HOUR_MS + minute * MINUTE_MS)
}

/// What of a text is not read yet.
#[derive(Clone)]
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many digits come next.
    fn digits(&self) -> usize {
        self.0.iter().take_while(|byte| byte.is_ascii_digit()).count()
    }

    /// Reads a number whose digits are so many.
    fn number(&mut self, digits: std::ops::RangeInclusive<usize>) -> Option<Millis> {
        let found = self.digits();
        // A year is followed by more digits where nothing separates them.
        let taken = if digits.contains(&4) { found.min(4) } else { found };
        if digits.contains(&taken) { self.part(taken) } else { None }
    }

    /// Reads the next so many digits.
    fn part(&mut self, digits: usize) -> Option<Millis> {
        let (part, rest) = self.0.split_at_checked(digits)?;
        self.0 = rest;
        std::str::from_utf8(part).ok()?.parse().ok()
    }

    /// Reads the digits of a fraction, of which three count.
    fn fraction(&mut self) -> Option<Millis> {
        let digits = self.digits();
        let (all, rest) = self.0.split_at(digits);
        self.0 = rest;
        let digit = |at: usize| Millis::from(all.get(at).map_or(0, |digit| digit - b'0'));
        (digits > 0).then(|| 100 * digit(0) + 10 * digit(1) + digit(2))
    }

    fn eat(&mut self, byte: u8) -> bool {
        let rest = self.0.strip_prefix(&[byte]);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// Passes over a word in any case.
    fn eat_word(&mut self, word: &str) -> bool {
        let rest = self.0.split_at_checked(word.len()).filter(|(start, _)| start.eq_ignore_ascii_case(word.as_bytes()));
        self.0 = rest.map_or(self.0, |(_, rest)| rest);
        rest.is_some()
    }

    /// Passes over blanks; whether there were any.
    fn blanks(&mut self) -> bool {
        let rest = self.0.trim_ascii_start();
        let found = rest.len() < self.0.len();
        self.0 = rest;
        found
    }

    /// Whether nothing follows but names of the zone whose offset is known: `[Europe/Berlin]` (RFC 9557, Java), `CET` and a
    /// monotonic reading (Go), `(Central European Time)` (JavaScript).
    fn names_of_zone(&mut self) -> bool {
        loop {
            self.blanks();
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
