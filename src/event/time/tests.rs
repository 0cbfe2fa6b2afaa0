use proptest::prelude::*;

use super::super::raw_field::RawField;
use super::super::scan::Scanner;
use super::*;
use crate::session::{datetime, time_text};

fn json(text: &str) -> Json<'_> {
    Scanner::new(text).value(0).map_or(RawField::ABSENT, RawField::new).of(text)
}

fn raw(text: &str) -> String {
    format!("\"{text}\"")
}

fn at(text: &str) -> Millis {
    usual(text.as_bytes()).unwrap()
}

const NOON: &str = "2026-03-10T12:00:00Z";

fn origin() -> Origin<'static> {
    Delivery { received_at: at(NOON), trusts_received_at: false }.into()
}

fn tolerating(seconds: i64) -> SessionConfig {
    SessionConfig { clock_skew_tolerance: chrono::TimeDelta::seconds(seconds), ..SessionConfig::default() }
}

/// The time and the flag of an event that was received at noon.
fn time_of(timestamp: &str, sent_at: &str, config: &SessionConfig) -> (Millis, Option<TimeFlag>) {
    let time = event_time(json(timestamp), json(sent_at), &origin(), at(NOON), config);
    (time.at, time.flag)
}

/// Cases of the conformance list, by their ids: timestamp, sent_at, expected time and flag.
#[test]
fn event_times() {
    for (id, timestamp, sent_at, time, flag) in [
        ("G01", "2026-03-10T11:00:00Z", Some("2026-03-10T12:00:10Z"), "2026-03-10T10:59:50Z", None),
        ("G02", "2026-03-10T11:00:00Z", Some("2026-03-10T11:59:50Z"), "2026-03-10T11:00:10Z", None),
        ("G04", "2026-03-11T11:30:00Z", None, NOON, Some(TimeFlag::ClampedFuture)),
        ("G05", "yesterday-ish", None, NOON, Some(TimeFlag::Unparseable)),
        ("G07", "2026-03-10T10:58:00Z", Some("2026-03-10T11:00:00Z"), "2026-03-10T11:58:00Z", None),
        ("an hour ahead", "2026-03-10T13:00:00Z", None, "2026-03-10T13:00:00Z", Some(TimeFlag::Ahead)),
        ("the lateness ahead", "2026-03-10T12:05:00Z", None, "2026-03-10T12:05:00Z", None),
        ("more than it ahead", "2026-03-10T12:05:00.001Z", None, "2026-03-10T12:05:00.001Z", Some(TimeFlag::Ahead)),
        ("another offset", "2026-03-10T14:00:00+02:00", None, NOON, None),
        ("no offset", "2026-03-10T12:00:00", None, NOON, None),
        ("a bad sent_at", NOON, Some("soon"), NOON, None),
        ("a sent_at that was never filled", NOON, Some("0001-01-01T00:00:00Z"), NOON, None),
        ("a sent_at of the end of times", NOON, Some("9999-12-31T23:59:59Z"), NOON, None),
        (
            "a clock that was never set",
            "1970-01-01T00:01:00Z",
            Some("1970-01-01T00:02:00Z"),
            "2026-03-10T11:59:00Z",
            None,
        ),
        ("never set, and nothing tells", "1970-01-01T00:01:00Z", None, NOON, Some(TimeFlag::Unparseable)),
    ] {
        let sent_at = sent_at.map(raw).unwrap_or_default();
        assert_eq!(time_of(&raw(timestamp), &sent_at, &tolerating(0)), (at(time), flag), "{id}");
    }
    assert_eq!(time_of("", "null", &tolerating(0)), (at(NOON), None));
}

#[test]
fn what_is_no_time_costs_no_event() {
    for timestamp in [
        "{}",
        "[]",
        "true",
        "false",
        "0",
        "-1",
        "1e999",
        "-0.0",
        "\"\"",
        "\" \"",
        "\"0\"",
        "[2026]",
        "99999999999999999999999",
        "\"0001-01-01T00:00:00Z\"",
        "\"0000-00-00 00:00:00\"",
        "\"99999-01-01T00:00:00Z\"",
        "\"1999-12-31T23:59:59.999Z\"",
        "\"2026-02-30T12:00:00Z\"",
        "\"2026-03-10T25:00:00Z\"",
        "\"2026-03-10T24:00:01Z\"",
        "\"2026-03-10T3:33:07 PMZ\"",
        "\"2026-03-10 3:33:07 PM\"",
        "\"10/03/2026\"",
        "\"2026-03-10T12:00:00[Europe/Berlin]\"",
        "\"2026-03-10T12:00:00+25:00\"",
        "\"2026-W54-1\"",
        "\"2026-366\"",
        "\"2026-03-10T12:00:00.Z\"",
        "\"2026-03-10T12:60:00Z\"",
        "\"NaN\"",
        "\"Infinity\"",
    ] {
        assert_eq!(time_of(timestamp, "", &tolerating(60)), (at(NOON), Some(TimeFlag::Unparseable)), "{timestamp}");
        // Nor does it correct anything.
        assert_eq!(time_of(&raw(NOON), timestamp, &tolerating(60)), (at(NOON), None), "sent_at {timestamp}");
    }
}

#[test]
fn transit_is_no_skew() {
    let eleven = raw("2026-03-10T11:00:00Z");
    for (sent_at, tolerance, moved) in [
        ("2026-03-10T11:59:00Z", 60, 0),
        ("2026-03-10T12:01:00Z", 60, 0),
        ("2026-03-10T11:58:59.999Z", 60, 60_001),
        ("2026-03-10T12:01:00.001Z", 60, -60_001),
        ("2026-03-10T11:59:59.999Z", 0, 1),
    ] {
        let expected = at("2026-03-10T11:00:00Z") + moved;
        assert_eq!(time_of(&eleven, &raw(sent_at), &tolerating(tolerance)).0, expected, "{sent_at} {tolerance}");
    }
}

#[test]
fn the_batch_says_when_it_was_sent_for_events_that_do_not() {
    let origin = Origin { sent_at: Some(at("2026-03-10T14:00:00Z")), ..origin() };
    let own = raw("2026-03-10T13:00:00Z");
    let moved = |sent_at: &str| event_time(json(&own), json(sent_at), &origin, at(NOON), &tolerating(60)).at;
    assert_eq!(moved(""), at("2026-03-10T11:00:00Z"));
    assert_eq!(moved("null"), at("2026-03-10T11:00:00Z"));
    assert_eq!(moved("\"soon\""), at("2026-03-10T11:00:00Z"));
    assert_eq!(moved("\"2026-03-10T13:00:00Z\""), at(NOON));
}

#[test]
fn only_a_trusted_sender_says_when_an_event_was_received_and_never_later() {
    let noon = at(NOON);
    let delivery = |trusts_received_at| Delivery { received_at: noon, trusts_received_at };
    for (stated, trusted) in [
        ("\"2026-03-10T11:00:00Z\"", noon - 3_600_000),
        ("1773140400", noon - 3_600_000),
        ("\"2026-03-10 11:00:00.000+0000\"", noon - 3_600_000),
        ("\"2026-03-10T13:00:00Z\"", noon),
        ("\"0001-01-01T00:00:00Z\"", noon),
        ("0", noon),
        ("{}", noon),
    ] {
        assert_eq!(received_at(json(stated), delivery(true)), trusted, "{stated}");
        assert_eq!(received_at(json(stated), delivery(false)), noon, "{stated}");
    }
}

/// What SDKs, languages and databases print, and what it means: cut to milliseconds.
#[test]
fn spellings_by_name() {
    for (text, wanted) in [
        ("2026-03-10T10:00:00.000+0000", "2026-03-10T10:00:00Z"),
        ("2026-03-10T10:00:00+00", "2026-03-10T10:00:00Z"),
        ("2026-03-10t10:00:00z", "2026-03-10T10:00:00Z"),
        ("2026-03-10 10:00:00", "2026-03-10T10:00:00Z"),
        ("2026-03-10 10:00:00.123456 UTC", "2026-03-10T10:00:00.123Z"),
        ("2026-03-10 10:00:00.123456+00", "2026-03-10T10:00:00.123Z"),
        ("2026-03-10T10:00:00,999", "2026-03-10T10:00:00.999Z"),
        ("2026-03-10T10:00Z", "2026-03-10T10:00:00Z"),
        ("20260310T100000Z", "2026-03-10T10:00:00Z"),
        ("20260310T100000.5+0130", "2026-03-10T08:30:00.500Z"),
        ("20260310100000", "2026-03-10T10:00:00Z"),
        ("2026/03/10 10:00:00", "2026-03-10T10:00:00Z"),
        ("2026-3-10 9:05:00", "2026-03-10T09:05:00Z"),
        ("2026-03-10", "2026-03-10T00:00:00Z"),
        ("20260310", "2026-03-10T00:00:00Z"),
        ("2026-W11-2T10:00:00Z", "2026-03-10T10:00:00Z"),
        ("2026W112", "2026-03-10T00:00:00Z"),
        ("2026-069", "2026-03-10T00:00:00Z"),
        ("2026069T10Z", "2026-03-10T10:00:00Z"),
        ("2026-03-10T24:00:00Z", "2026-03-11T00:00:00Z"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
        ("2026-03-10T12:00:00+02:00[Europe/Berlin]", "2026-03-10T10:00:00Z"),
        ("2026-03-10T12:00:00\u{2212}0500", "2026-03-10T17:00:00Z"),
        ("2026-03-10 10:00:00.000000001 +0100 CET m=+0.001", "2026-03-10T09:00:00Z"),
        ("2026-03-10T10:00:00 GMT+2", "2026-03-10T08:00:00Z"),
        ("/Date(1773136800000)/", "2026-03-10T10:00:00Z"),
        ("1773136800", "2026-03-10T10:00:00Z"),
        ("1773136800.123456", "2026-03-10T10:00:00.123Z"),
        ("1.7731368E12", "2026-03-10T10:00:00Z"),
        ("1.7731368e9", "2026-03-10T10:00:00Z"),
        ("1773136800123", "2026-03-10T10:00:00.123Z"),
        ("1773136800123.9", "2026-03-10T10:00:00.123Z"),
        ("1773136800123456", "2026-03-10T10:00:00.123Z"),
        ("1773136800123456789", "2026-03-10T10:00:00.123Z"),
        ("Tue, 10 Mar 2026 10:00:00 GMT", "2026-03-10T10:00:00Z"),
        ("10 Mar 2026 12:00:00 +0200", "2026-03-10T10:00:00Z"),
        ("Tuesday, 10-Mar-26 10:00:00 GMT", "2026-03-10T10:00:00Z"),
        ("Tue Mar 10 10:00:00 2026", "2026-03-10T10:00:00Z"),
        ("Tue Mar 10 10:00:00 UTC 2026", "2026-03-10T10:00:00Z"),
        ("Tue Mar 10 2026 12:00:00 GMT+0200 (Eastern European Standard Time)", "2026-03-10T10:00:00Z"),
        ("  2026-03-10T10:00:00Z  ", "2026-03-10T10:00:00Z"),
    ] {
        assert_eq!(stated(json(&raw(text))).map(|stated| stated.at), Some(at(wanted)), "{text}");
        assert_eq!(of_json(&raw(text)), Some(at(wanted)), "{text}");
    }
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

/// A time to the nanosecond and the many ways to write it, each with what is lost in it: parts of a second, or of a day.
#[derive(Debug, Clone)]
struct Spelled {
    text: String,
    is_number: bool,
    at: Millis,
}

fn date_text(form: usize, at: chrono::DateTime<chrono::Utc>) -> String {
    let form = ["%Y-%m-%d", "%Y%m%d", "%Y/%m/%d", "%Y.%m.%d", "%G-W%V-%u", "%GW%V%u", "%Y-%j", "%Y%j"][form % 8];
    at.format(form).to_string()
}

/// Seconds since 1970 and nanoseconds, written in one of the ways that the numbers choose.
fn spelled(seconds: i64, nanos: u32, choice: [usize; 5]) -> Spelled {
    let [kind, date, time, zone, fraction] = choice;
    let exact = chrono::DateTime::from_timestamp(seconds, nanos).unwrap();
    let number = |text: String, at| Spelled { text, is_number: zone % 2 == 0, at };
    let cut = 9 - fraction % 10;
    // A fraction of so many digits; what is cut off it is lost.
    let kept = u64::from(nanos) / 10_u64.pow(cut as u32);
    let millis = i64::try_from(kept * 10_u64.pow(cut as u32) / 1_000_000).unwrap();
    let behind_point =
        |point: char| if fraction % 10 == 0 { String::new() } else { format!("{point}{kept:0w$}", w = fraction % 10) };
    let at = seconds * 1000 + millis;
    match kind % 8 {
        0 => number(format!("{seconds}{}", behind_point('.')), at),
        1 => number(
            format!("{}", seconds * 1000 + i64::from(nanos / 1_000_000)),
            seconds * 1000 + i64::from(nanos / 1_000_000),
        ),
        2 => number(
            format!("{}", seconds * 1_000_000 + i64::from(nanos / 1000)),
            seconds * 1000 + i64::from(nanos / 1_000_000),
        ),
        3 => number(
            format!("{}", seconds * 1_000_000_000 + i64::from(nanos)),
            seconds * 1000 + i64::from(nanos / 1_000_000),
        ),
        // Mail, HTTP, JavaScript: to the second.
        4 => {
            let form = [
                "%a, %d %b %Y %H:%M:%S GMT",
                "%a %b %e %H:%M:%S %Y",
                "%A, %d-%b-%y %H:%M:%S GMT",
                "%a %b %d %Y %H:%M:%S GMT+0000 (Coordinated Universal Time)",
                "%e %b %Y %H:%M:%S +0000",
            ][date % 5];
            Spelled {
                text: exact.format(form).to_string().trim_start().to_owned(),
                is_number: false,
                at: seconds * 1000,
            }
        }
        _ => {
            let minutes = [0, 0, 0, 60, -300, 345, 570, 840][zone % 8];
            let local = exact + chrono::TimeDelta::minutes(minutes);
            let (sign, abs) = (if minutes < 0 { '-' } else { '+' }, minutes.abs());
            let (hh, mm) = (abs / 60, abs % 60);
            let offset = match (minutes, (zone / 8) % 8) {
                (0, 0) => String::new(),
                (0, 1) => "Z".to_owned(),
                (0, 2) => "z".to_owned(),
                (0, 3) => " UTC".to_owned(),
                (0, 4) => "+00".to_owned(),
                (_, 5) => format!("{sign}{hh:02}{mm:02}"),
                (_, 6) => format!(" {sign}{hh:02}:{mm:02}"),
                (_, _) if mm == 0 => format!("{sign}{hh:02}"),
                _ => format!("{sign}{hh:02}:{mm:02}"),
            };
            let separator = ["T", " ", "t", "  "][time % 4];
            // Without separators between its digits a date asks for a time of the same kind behind a T, and the other way round;
            // all mixtures are read.
            let (clock, at) = match (time / 4) % 4 {
                0 => (format!("{}{}", local.format("%H:%M:%S"), behind_point('.')), at),
                1 => (format!("{}{}", local.format("%H:%M:%S"), behind_point(',')), at),
                2 => (format!("{}{}", local.format("%H%M%S"), behind_point('.')), at),
                _ => (local.format("%H:%M").to_string(), seconds.div_euclid(60) * 60_000),
            };
            Spelled { text: format!("{}{separator}{clock}{offset}", date_text(date, local)), is_number: false, at }
        }
    }
}

fn any_spelled() -> impl Strategy<Value = Spelled> {
    // From 2000 on, up to where every unit of numbers is told apart and two digits of a year mean one.
    let choice = [any::<usize>(), any::<usize>(), any::<usize>(), any::<usize>(), any::<usize>()];
    (946_771_200_i64..3_155_000_000, 0..1_000_000_000_u32, choice)
        .prop_map(|(seconds, nanos, choice)| spelled(seconds, nanos, choice))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn what_is_read_fast_is_read_alike(time in any_time()) {
        if let Some(at) = usual(time.as_bytes()) {
            prop_assert_eq!(unusual(&time).map(|stated| stated.at), Some(at), "{}", time);
        }
        // Our own reading of ISO 8601 agrees with the library's of RFC 3339.
        if let Ok(at) = chrono::DateTime::parse_from_rfc3339(&time) {
            prop_assert_eq!(spelling::parse(&time), Some(at.timestamp_millis()), "{}", time);
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
            prop_assert_eq!(unusual(&time).map(|stated| stated.at), Some(at), "{}", time);
        }
    }

    /// However a time is written, as a text or as a number, it is the same time.
    #[test]
    fn every_spelling_of_a_time_is_that_time(spelled in any_spelled(), is_text in any::<bool>()) {
        let value = if spelled.is_number && !is_text { spelled.text.clone() } else { raw(&spelled.text) };
        prop_assert_eq!(stated(json(&value)).map(|stated| stated.at), Some(spelled.at), "{}", value);
        prop_assert_eq!(of_json(&value), Some(spelled.at), "{}", value);
    }

    /// Whatever a time is, it is read without a panic, and it loses no event.
    #[test]
    fn any_text_comes_to_a_time(text in "[0-9TZ:.+ eE/W-]{0,40}|\\PC{0,200}") {
        let value = serde_json::to_string(&text).unwrap();
        let time = event_time(json(&value), json(&value), &origin(), at(NOON), &tolerating(60));
        prop_assert!((EARLIEST..=at(NOON) + MAX_AHEAD).contains(&time.at));
    }
}
