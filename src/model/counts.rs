//! Counts of the events that `counted_events` names, and sums of one of their properties.
//!
//! A count is kept among the custom properties, under a key that begins with NUL, which no custom property has: of an entry, of a
//! session, and of an anchor's late events. So what has no counts is stored and compared as if there were none. Sums are in
//! millionths. They are whole numbers, because a sum of floating-point numbers depends on their order.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::session::EventTotal;

/// What the key of a count begins with, before the event's name.
const COUNT: &str = "\0count:";
/// What the key of a count of late events begins with, as long as their session has no finalized event.
const LATE_COUNT: &str = "\0late:";
/// A value beyond this adds nothing to a sum. So a sum of as many values as a session can count does not overflow.
const MAX_VALUE: f64 = 1e12;

/// Counts by key.
pub type Counts = BTreeMap<String, String>;

/// A count, and the sum of those events that have a value.
#[derive(Default)]
struct Count {
    events: u32,
    millionths: Option<i128>,
}

impl Count {
    fn read(json: &str) -> Option<Self> {
        let (events, sum): (u32, Option<Cow<'_, str>>) = serde_json::from_str(json).ok()?;
        let millionths = sum.map(|sum| sum.parse()).transpose().ok()?;
        Some(Self { events, millionths })
    }

    fn json(&self) -> String {
        match self.millionths {
            Some(millionths) => format!("[{},\"{millionths}\"]", self.events),
            None => format!("[{},null]", self.events),
        }
    }

    fn add(&mut self, other: &Self) {
        self.events = self.events.saturating_add(other.events);
        self.millionths = match (self.millionths, other.millionths) {
            (Some(one), Some(other)) => Some(one.saturating_add(other)),
            (one, other) => one.or(other),
        };
    }
}

/// Returns the property of an entry that counts as one event of this name, with this value.
pub(crate) fn one(name: &str, value: Option<f64>) -> (String, String) {
    let value = value.filter(|value| value.abs() <= MAX_VALUE);
    let millionths = value.map(|value| (value * 1e6).round() as i128);
    (format!("{COUNT}{name}"), Count { events: 1, millionths }.json())
}

/// Returns whether the key of a property is that of a count, and the property none of the session's own.
pub(crate) fn is_count(key: &str) -> bool {
    key.starts_with('\0')
}

/// Returns whether the key is that of a count of late events.
pub(crate) fn is_late_count(key: &str) -> bool {
    key.starts_with(LATE_COUNT)
}

/// Returns whether a property is either no count or can be read.
pub(crate) fn is_readable(key: &str, json: &str) -> bool {
    !is_count(key) || Count::read(json).is_some()
}

/// Adds a count to those under the same key.
pub(crate) fn add(counts: &mut Counts, key: &str, json: &str) {
    let read = |json: &str| Count::read(json).unwrap_or_default();
    match counts.get_mut(key) {
        Some(known) => {
            let mut sum = read(known);
            sum.add(&read(json));
            *known = sum.json();
        }
        None => drop(counts.insert(key.to_owned(), json.to_owned())),
    }
}

/// Adds the count of a late event to those of its session's late events.
pub(crate) fn add_late(counts: &mut Counts, key: &str, json: &str) {
    if let Some(name) = key.strip_prefix(COUNT) {
        add(counts, &format!("{LATE_COUNT}{name}"), json);
    }
}

/// Moves the counts of late events to those of their session.
pub(crate) fn settle(late: &mut Counts, counts: &mut Counts) {
    for (key, json) in std::mem::take(late) {
        if let Some(name) = key.strip_prefix(LATE_COUNT) {
            add(counts, &format!("{COUNT}{name}"), &json);
        }
    }
}

/// Returns the counts among a session's properties, by the events' names.
pub(crate) fn totals(properties: &Counts) -> BTreeMap<String, EventTotal> {
    let total = |(key, json): (&String, &String)| {
        let (name, count) = (key.strip_prefix(COUNT)?, Count::read(json)?);
        let sum = count.millionths.and_then(|millionths| RawValue::from_string(decimal(millionths)).ok());
        Some((name.to_owned(), EventTotal { count: count.events, sum }))
    };
    properties.iter().filter_map(total).collect()
}

/// Writes millionths as a decimal number.
fn decimal(millionths: i128) -> String {
    let (sign, all) = (if millionths < 0 { "-" } else { "" }, millionths.unsigned_abs());
    let (whole, rest) = (all / 1_000_000, all % 1_000_000);
    match rest {
        0 => format!("{sign}{whole}"),
        rest => format!("{sign}{whole}.{}", format!("{rest:06}").trim_end_matches('0')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals_of(values: &[Option<f64>]) -> String {
        let mut counts = Counts::new();
        for &value in values {
            let (key, json) = one("order", value);
            add(&mut counts, &key, &json);
        }
        serde_json::to_string(&totals(&counts)).unwrap()
    }

    #[test]
    fn sums_are_exact_and_in_any_order_the_same() {
        for (values, wanted) in [
            (&[Some(0.1), Some(0.2)][..], r#"{"order":{"count":2,"sum":0.3}}"#),
            (&[Some(12.5), None, Some(-2.5)], r#"{"order":{"count":3,"sum":10}}"#),
            (&[Some(1e12), Some(0.000_001), Some(-1e12)], r#"{"order":{"count":3,"sum":0.000001}}"#),
            (&[Some(-0.000_000_4), Some(-1.05)], r#"{"order":{"count":2,"sum":-1.05}}"#),
            (&[None, None], r#"{"order":{"count":2}}"#),
            // What is no amount is counted, and adds nothing.
            (&[Some(1e300), Some(f64::NAN), Some(f64::INFINITY)], r#"{"order":{"count":3}}"#),
        ] {
            assert_eq!(totals_of(values), wanted);
            let backwards: Vec<Option<f64>> = values.iter().rev().copied().collect();
            assert_eq!(totals_of(&backwards), wanted);
        }
    }

    #[test]
    fn late_counts_become_those_of_their_session() {
        let (mut late, mut counts) = (Counts::new(), Counts::new());
        let (key, json) = one("order", Some(2.0));
        add(&mut counts, &key, &json);
        add_late(&mut late, &key, &json);
        assert!(late.keys().all(|key| is_late_count(key) && is_count(key)) && !is_late_count(&key));
        settle(&mut late, &mut counts);
        assert_eq!(
            (late.len(), serde_json::to_string(&totals(&counts)).unwrap()),
            (0, r#"{"order":{"count":2,"sum":4}}"#.into())
        );
        assert!(is_readable(&key, &counts[&key]) && !is_readable(&key, "7") && is_readable("plan", "7"));
    }
}
