//! When an event happened, by the clock of the service.

use super::{Delivery, RejectCode, Rejection, text_of};
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
    let text = text.trim();
    let naive = || NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").ok();
    DateTime::parse_from_rfc3339(text)
        .map(|time| time.timestamp_millis())
        .ok()
        .or_else(|| naive().map(|time| time.and_utc().timestamp_millis()))
}

/// When the event was received: what the delivery says, or, from a trusted sender, an earlier time that the event says.
pub(super) fn received_at(stated: Option<&str>, delivery: Delivery) -> Millis {
    let stated = stated.filter(|_| delivery.trusts_received_at).and_then(text_of).and_then(|text| parse(&text));
    stated.map_or(delivery.received_at, |stated| stated.clamp(EARLIEST, delivery.received_at))
}

/// The event's time: its `timestamp`, corrected by how far the sender's clock was off when it said `sent_at`.
pub(super) fn event_time(
    timestamp: Option<&str>,
    sent_at: Option<&str>,
    received_at: Millis,
) -> Result<(Millis, Option<TimeFlag>), Rejection> {
    let Some(raw) = timestamp else { return Ok((received_at, None)) };
    let Some(text) = text_of(raw) else {
        let message = "`timestamp` is not a string; send a time like \"2026-03-10T12:00:00Z\"";
        return Err(Rejection::new(RejectCode::InvalidTimestamp, message));
    };
    let Some(stated) = parse(&text) else { return Ok((received_at, Some(TimeFlag::Unparseable))) };
    let sent_at = sent_at.and_then(text_of).and_then(|text| parse(&text));
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
    use super::*;

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
            let (timestamp, sent_at) = (raw(timestamp), sent_at.map(raw));
            let result = event_time(Some(&timestamp), sent_at.as_deref(), at(noon));
            assert_eq!(result, Ok((at(time), flag)), "{id}");
        }
        assert_eq!(event_time(None, None, at(noon)), Ok((at(noon), None)));
        let never_set = raw("1970-01-01T00:00:09Z");
        assert!(event_time(Some(&never_set), None, at(noon)).is_err());
    }

    #[test]
    fn only_a_trusted_sender_says_when_an_event_was_received_and_never_later() {
        let noon = parse("2026-03-10T12:00:00Z").unwrap();
        let delivery = |trusts_received_at| Delivery { received_at: noon, trusts_received_at };
        let (earlier, later) = (raw("2026-03-10T11:00:00Z"), raw("2026-03-10T13:00:00Z"));
        assert_eq!(received_at(Some(&earlier), delivery(true)), noon - 3_600_000);
        assert_eq!(received_at(Some(&earlier), delivery(false)), noon);
        assert_eq!(received_at(Some(&later), delivery(true)), noon);
    }
}
