//! Standard output. It has colors on a terminal, unless `NO_COLOR` is set (<https://no-color.org>).

use std::fmt::Display;
use std::io::{IsTerminal, Write};

use crate::failure::Failure;

/// The colors of sessions, in turn. They are of the terminal's own palette, so that they fit its background.
const SESSIONS: [u8; 5] = [32, 33, 36, 35, 34];

/// Standard output, with or without colors.
pub struct Screen {
    has_color: bool,
}

impl Screen {
    /// Returns the screen of standard output.
    pub fn standard() -> Self {
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self { has_color: std::io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb }
    }

    /// Prints a line.
    ///
    /// # Errors
    /// Standard output cannot be written.
    #[expect(clippy::unused_self, reason = "lines go to the screen")]
    pub fn line(&self, line: impl Display) -> Result<(), Failure> {
        writeln!(std::io::stdout(), "{line}").map_err(|error| Failure::output("standard output", &error))
    }

    /// Formats a heading.
    pub fn strong(&self, text: &str) -> String {
        self.paint(text, 1)
    }

    /// Formats less important text.
    pub fn dim(&self, text: &str) -> String {
        self.paint(text, 2)
    }

    /// Formats the name of an event that the service emitted, as wide as the longest.
    pub fn event(&self, name: &str) -> String {
        self.paint(&format!("{name:<15}"), 1)
    }

    /// Formats a property's name, as wide as the longest.
    pub fn name(&self, name: &str) -> String {
        self.paint(&format!("{name:<24}"), 36)
    }

    /// Formats a session's letter.
    pub fn session(&self, number: usize) -> String {
        let letter = char::from(b'A' + (number % 26) as u8);
        self.paint(&letter.to_string(), SESSIONS[number % SESSIONS.len()])
    }

    fn paint(&self, text: &str, code: u8) -> String {
        if self.has_color && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
