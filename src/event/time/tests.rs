use proptest::prelude::*;

use super::*;
use crate::session::{datetime, rfc3339};

/// Returns a field of this JSON. It is absent if the JSON is empty.
fn json(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn raw(text: &str) -> String {
    format!("\"{text}\"")
}

fn at(text: &str) -> Millis {
    parse_fast(text.as_bytes()).unwrap()
}

const NOON: &str = "2026-03-10T12:00:00Z";

fn origin() -> Origin<'static> {
    Delivery { received_at: at(NOON), trusts_received_at: false }.into()
}

fn tolerating(seconds: i64) -> SessionConfig {
    SessionConfig { clock_skew_tolerance: chrono::TimeDelta::seconds(seconds), ..SessionConfig::default() }
}

/// Returns the time and the flag of an event that was received at noon.
fn time_of(timestamp: &str, sent_at: &str, config: &SessionConfig) -> (Millis, Option<TimeFlag>) {
    let time = event_time(json(timestamp), json(sent_at), &origin(), at(NOON), config);
    (time.at, time.flag)
}

/// Cases of `tests/data/cases.jsonl` by their ids, and others: `timestamp`, `sent_at`, expected time and flag.
#[test]
fn event_times() {
    for (id, timestamp, sent_at, time, flag) in [
        ("G01", "2026-03-10T11:00:00Z", Some("2026-03-10T12:00:10Z"), "2026-03-10T10:59:50Z", None),
        ("G02", "2026-03-10T11:00:00Z", Some("2026-03-10T11:59:50Z"), "2026-03-10T11:00:10Z", None),
        ("G04", "2026-03-11T11:30:00Z", None, NOON, Some(TimeFlag::ClampedFuture)),
        ("G05", "yesterday-ish", None, NOON, Some(TimeFlag::Unparseable)),
        ("G07", "2026-03-10T10:58:00Z", Some("2026-03-10T11:00:00Z"), "2026-03-10T11:58:00Z", None),
        ("an hour ahead", "2026-03-10T13:00:00Z", None, "2026-03-10T13:00:00Z", Some(TimeFlag::Ahead)),
        ("the allowed lateness ahead", "2026-03-10T12:05:00Z", None, "2026-03-10T12:05:00Z", None),
        (
            "more than the allowed lateness ahead",
            "2026-03-10T12:05:00.001Z",
            None,
            "2026-03-10T12:05:00.001Z",
            Some(TimeFlag::Ahead),
        ),
        ("another offset", "2026-03-10T14:00:00+02:00", None, NOON, None),
        ("no offset", "2026-03-10T12:00:00", None, NOON, None),
        ("a bad sent_at", NOON, Some("soon"), NOON, None),
        ("a sent_at that was never filled", NOON, Some("0001-01-01T00:00:00Z"), NOON, None),
        ("a sent_at in the last year", NOON, Some("9999-12-31T23:59:59Z"), NOON, None),
        (
            "a clock that was never set",
            "1970-01-01T00:01:00Z",
            Some("1970-01-01T00:02:00Z"),
            "2026-03-10T11:59:00Z",
            None,
        ),
        ("never set, and no sent_at", "1970-01-01T00:01:00Z", None, NOON, Some(TimeFlag::Unparseable)),
    ] {
        let sent_at = sent_at.map(raw).unwrap_or_default();
        assert_eq!(time_of(&raw(timestamp), &sent_at, &tolerating(0)), (at(time), flag), "{id}");
    }
    assert_eq!(time_of("", "null", &tolerating(0)), (at(NOON), None));
}

#[test]
fn an_invalid_time_does_not_reject_the_event() {
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
        // As `sent_at`, it corrects nothing.
        assert_eq!(time_of(&raw(NOON), timestamp, &tolerating(60)), (at(NOON), None), "sent_at {timestamp}");
    }
}

#[test]
fn transit_time_is_not_clock_skew() {
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
fn the_sent_at_of_the_batch_applies_to_events_without_one() {
    let origin = Origin { sent_at: Some(at("2026-03-10T14:00:00Z")), ..origin() };
    let own = raw("2026-03-10T13:00:00Z");
    let moved = |sent_at: &str| event_time(json(&own), json(sent_at), &origin, at(NOON), &tolerating(60)).at;
    assert_eq!(moved(""), at("2026-03-10T11:00:00Z"));
    assert_eq!(moved("null"), at("2026-03-10T11:00:00Z"));
    assert_eq!(moved("\"soon\""), at("2026-03-10T11:00:00Z"));
    assert_eq!(moved("\"2026-03-10T13:00:00Z\""), at(NOON));
}

#[test]
fn received_at_counts_only_from_a_trusted_sender_and_only_if_earlier() {
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

/// Times as SDKs, languages and databases write them, and as they are read: truncated to milliseconds.
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
        assert_eq!(stated_time(&raw(text)).map(|stated| stated.at), Some(at(wanted)), "{text}");
        assert_eq!(of_json(&raw(text)), Some(at(wanted)), "{text}");
    }
}

/// Numbers of `width` digits, with the given bounds more often than others.
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

/// A time in one of its many spellings.
#[derive(Debug, Clone)]
struct SpelledTime {
    text: String,
    /// Whether it may also be written as a JSON number.
    is_number: bool,
    /// The time that is left, because a spelling can lose parts of a second or the seconds.
    at: Millis,
}

fn date_text(form: usize, at: chrono::DateTime<chrono::Utc>) -> String {
    let form = ["%Y-%m-%d", "%Y%m%d", "%Y/%m/%d", "%Y.%m.%d", "%G-W%V-%u", "%GW%V%u", "%Y-%j", "%Y%j"][form % 8];
    at.format(form).to_string()
}

/// Writes a time, in seconds since 1970 and nanoseconds, in the spelling that the numbers in `choice` select.
fn spelled(seconds: i64, nanos: u32, choice: [usize; 5]) -> SpelledTime {
    let [kind, date, time, zone, fraction] = choice;
    let exact = chrono::DateTime::from_timestamp(seconds, nanos).unwrap();
    let number = |text: String, at| SpelledTime { text, is_number: zone % 2 == 0, at };
    let cut = 9 - fraction % 10;
    // The fraction has `fraction % 10` digits. The others are lost.
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
        // Mail, HTTP and JavaScript write seconds without a fraction.
        4 => {
            let form = [
                "%a, %d %b %Y %H:%M:%S GMT",
                "%a %b %e %H:%M:%S %Y",
                "%A, %d-%b-%y %H:%M:%S GMT",
                "%a %b %d %Y %H:%M:%S GMT+0000 (Coordinated Universal Time)",
                "%e %b %Y %H:%M:%S +0000",
            ][date % 5];
            SpelledTime {
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
            // ISO 8601 does not mix a date with separators and a time without them, or the other way round. Both mixtures are
            // read.
            let (clock, at) = match (time / 4) % 4 {
                0 => (format!("{}{}", local.format("%H:%M:%S"), behind_point('.')), at),
                1 => (format!("{}{}", local.format("%H:%M:%S"), behind_point(',')), at),
                2 => (format!("{}{}", local.format("%H%M%S"), behind_point('.')), at),
                _ => (local.format("%H:%M").to_string(), seconds.div_euclid(60) * 60_000),
            };
            SpelledTime { text: format!("{}{separator}{clock}{offset}", date_text(date, local)), is_number: false, at }
        }
    }
}

fn any_spelled() -> impl Strategy<Value = SpelledTime> {
    // From the year 2000 up to where the unit of a number or a year of two digits would be ambiguous.
    let choice = [any::<usize>(), any::<usize>(), any::<usize>(), any::<usize>(), any::<usize>()];
    (946_771_200_i64..3_155_000_000, 0..1_000_000_000_u32, choice)
        .prop_map(|(seconds, nanos, choice)| spelled(seconds, nanos, choice))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn the_fast_path_agrees_with_the_slow_path(time in any_time()) {
        if let Some(at) = parse_fast(time.as_bytes()) {
            prop_assert_eq!(parse_slow(&time).map(|stated| stated.at), Some(at), "{}", time);
        }
        // Our parser of ISO 8601 agrees with chrono's parser of RFC 3339.
        if let Ok(at) = chrono::DateTime::parse_from_rfc3339(&time) {
            prop_assert_eq!(spelling::parse(&time), Some(at.timestamp_millis()), "{}", time);
        }
    }

    /// Every time in the form that the service writes takes the fast path.
    #[test]
    fn times_that_the_service_writes_take_the_fast_path(at in -62_167_219_200_000..253_402_300_800_000_i64) {
        let text = rfc3339(datetime(at));
        prop_assert_eq!(parse_fast(text.as_bytes()), Some(at), "{}", text);
    }

    #[test]
    fn a_time_with_a_changed_byte_is_read_the_same_on_both_paths(
        time in any_time(),
        at in any::<prop::sample::Index>(),
        byte in " -~",
    ) {
        let mut time = time;
        let at = at.index(time.len());
        time.replace_range(at..=at, &byte);
        if let Some(at) = parse_fast(time.as_bytes()) {
            prop_assert_eq!(parse_slow(&time).map(|stated| stated.at), Some(at), "{}", time);
        }
    }

    /// A time is read as the same time in every spelling, as a string or as a number.
    #[test]
    fn every_spelling_of_a_time_is_that_time(spelled in any_spelled(), is_string in any::<bool>()) {
        let value = if spelled.is_number && !is_string { spelled.text.clone() } else { raw(&spelled.text) };
        prop_assert_eq!(stated_time(&value).map(|stated| stated.at), Some(spelled.at), "{}", value);
        prop_assert_eq!(of_json(&value), Some(spelled.at), "{}", value);
    }

    /// Any string is read without a panic and results in a valid event time.
    #[test]
    fn any_string_results_in_a_time(text in "[0-9TZ:.+ eE/W-]{0,40}|\\PC{0,200}") {
        let value = serde_json::to_string(&text).unwrap();
        let time = event_time(json(&value), json(&value), &origin(), at(NOON), &tolerating(60));
        prop_assert!((EARLIEST..=at(NOON) + MAX_AHEAD_MS).contains(&time.at));
    }
}
