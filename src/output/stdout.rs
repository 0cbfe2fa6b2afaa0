//! Lines on standard output: for local use, and for a log group that something subscribes to.

use std::io::{self, Write};

use super::Output;

/// Prints lines.
#[derive(Debug, Clone, Copy, Default)]
pub struct StdoutOutput;

impl Output for StdoutOutput {
    async fn send(&self, lines: &[String]) -> Vec<usize> {
        match print(io::stdout().lock(), lines) {
            Ok(()) => Vec::new(),
            // How much was written is unknown; all of it may come again.
            Err(error) => {
                tracing::warn!(%error, lines = lines.len(), "lines cannot be printed");
                (0..lines.len()).collect()
            }
        }
    }
}

/// Writes all lines at once, so that those of others do not come between.
fn print(mut to: impl Write, lines: &[String]) -> io::Result<()> {
    let mut text = String::with_capacity(lines.iter().map(|line| line.len() + 1).sum());
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    to.write_all(text.as_bytes())?;
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_each() {
        let mut out = Vec::new();
        print(&mut out, &["{}".to_owned(), "[1]".to_owned()]).unwrap();
        assert_eq!(out, b"{}\n[1]\n");
    }
}
