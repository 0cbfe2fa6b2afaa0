//! How far a replay is: on standard error, and only where a person looks at it.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// The least time between two of them.
const EVERY: Duration = Duration::from_millis(200);

/// A line that is written over again and again.
pub struct Progress {
    is_shown: bool,
    total_bytes: Option<u64>,
    began: Instant,
    shown: Option<Instant>,
}

impl Progress {
    pub fn new(total_bytes: Option<u64>) -> Self {
        Self { is_shown: std::io::stderr().is_terminal(), total_bytes, began: now(), shown: None }
    }

    /// Returns the time since the beginning.
    pub fn took(&self) -> Duration {
        now() - self.began
    }

    /// Shows how far it is, if it is time to.
    pub fn show(&mut self, events: u64, bytes: u64) {
        if self.is_shown && self.shown.is_none_or(|shown| now() - shown >= EVERY) {
            self.shown = Some(now());
            self.write(&format!("\r\x1b[K  {}", progress_line(events, bytes, self.total_bytes, self.took())));
        }
    }

    /// Makes room for another line.
    pub fn clear(&mut self) {
        if self.shown.take().is_some() {
            self.write("\r\x1b[K");
        }
    }

    #[expect(clippy::unused_self, reason = "whoever writes owns the line that is shown")]
    fn write(&self, text: &str) {
        // Progress that cannot be shown is no reason to stop.
        let mut stderr = std::io::stderr().lock();
        let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
    }
}

/// Returns how far it is, at what rate, and, where the input's size is known, the time that is left.
fn progress_line(events: u64, bytes: u64, total: Option<u64>, took: Duration) -> String {
    let seconds = took.as_secs_f64().max(1e-3);
    let rate = events as f64 / seconds;
    match total {
        Some(total) if total > 0 && bytes > 0 => {
            let share = (bytes as f64 / total as f64).min(1.0);
            let left = seconds / share - seconds;
            format!("{:.0} % · {events} events · {rate:.0} a second · {} left", share * 100.0, span(left))
        }
        _ => format!("{events} events · {rate:.0} a second"),
    }
}

/// Returns a time as people say it.
fn span(seconds: f64) -> String {
    let seconds = seconds.ceil() as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[allow(clippy::disallowed_methods, reason = "the rate that is shown is of real time")]
fn now() -> Instant {
    Instant::now()
}
