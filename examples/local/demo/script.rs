//! The story: what two visitors do, and when their events arrive.

use serde_json::json;
use session_tracking::session::{Millis, datetime, rfc3339};

/// The story's day: midnight of 2026-03-10 UTC, in milliseconds since 1970.
const DAY_MS: Millis = 1_773_100_800_000;
const MINUTE_MS: Millis = 60_000;

/// An event of the story.
pub struct Step {
    /// When the event arrives, as hours and minutes of the day.
    pub arrives: &'static str,
    /// When the event happened, as hours and minutes of the day.
    happened: &'static str,
    /// The visitor's `distinct_id`; empty for a step in which only time passes.
    pub visitor: &'static str,
    /// The event's name, then the page's path.
    pub what: &'static str,
    referrer: Option<&'static str>,
    /// An explanation that is shown below the event.
    pub note: &'static str,
    /// Whether the event is shown in full at the end.
    pub is_shown: bool,
}

impl Step {
    const fn new(arrives: &'static str, visitor: &'static str, what: &'static str, note: &'static str) -> Self {
        Self { arrives, happened: arrives, visitor, what, referrer: None, note, is_shown: false }
    }

    const fn happened_at(self, happened: &'static str) -> Self {
        Self { happened, ..self }
    }

    const fn from(self, referrer: &'static str) -> Self {
        Self { referrer: Some(referrer), ..self }
    }

    const fn shown(self) -> Self {
        Self { is_shown: true, ..self }
    }

    /// Returns the event's JSON as a client sends it. Returns `None` for a step in which only time passes.
    pub fn event(&self) -> Option<String> {
        let (event, page) = self.what.split_once(' ').unwrap_or((self.what, ""));
        let mut properties = json!({});
        if !page.is_empty() {
            properties["$current_url"] = json!(format!("https://shop.test{page}"));
        }
        if let Some(referrer) = self.referrer {
            properties["$referrer"] = json!(referrer);
        }
        let event = json!({
            "uuid": format!("{}-{}", self.visitor, self.happened),
            "event": event,
            "distinct_id": self.visitor,
            "timestamp": rfc3339(datetime(at(self.happened))),
            "properties": properties,
        });
        (!self.visitor.is_empty()).then(|| event.to_string())
    }
}

/// First a new campaign, then a gap that an out-of-order event fills, then an event that arrives hours late.
pub const SCRIPT: &[Step] = &[
    Step::new("10:00", "ada", "$pageview /?utm_source=news", ""),
    Step::new("10:05", "ada", "$pageview /shoes", ""),
    Step::new("10:12", "ada", "$pageview /sale?utm_source=ads", "another campaign begins a session").shown(),
    Step::new("10:20", "ada", "order_placed", ""),
    Step::new("10:20", "ben", "$pageview /", "").from("https://www.google.com/"),
    Step::new("10:52", "ben", "$pageview /boots", "32 minutes of silence: another session"),
    Step::new("10:54", "ben", "$pageview /socks", "of 10:50, out of order: there was no silence").happened_at("10:50"),
    Step::new("14:00", "ada", "review_written", "of 10:22, hours late: B grows, and its end is emitted again")
        .happened_at("10:22"),
    Step::new("15:00", "", "", ""),
];

/// Returns a time of the story's day, such as `10:05`, in milliseconds since 1970.
pub fn at(time: &str) -> Millis {
    let (hours, minutes) = time.split_once(':').unwrap_or((time, "0"));
    let number = |digits: &str| digits.parse::<Millis>().unwrap_or_default();
    DAY_MS + (number(hours) * 60 + number(minutes)) * MINUTE_MS
}

/// Returns a time as hours and minutes of the story's day.
pub fn clock_time(time: Millis) -> String {
    let minutes = (time - DAY_MS) / MINUTE_MS;
    format!("{:02}:{:02}", minutes / 60, minutes % 60)
}
