//! Prints lines on standard output, for local use and for a log group with a subscription.

use std::io::{self, Write};

use super::Output;

/// Prints lines on standard output.
#[derive(Debug, Clone, Copy, Default)]
pub struct StdoutOutput;

impl Output for StdoutOutput {
    async fn send(&self, lines: &[String]) -> Vec<usize> {
        // The lock is held until all lines are written, so that no other output comes between them.
        match print(io::stdout().lock(), lines) {
            Ok(()) => Vec::new(),
            // How much was written is unknown, so all lines are reported. Sending them again is safe.
            Err(error) => {
                tracing::warn!(%error, lines = lines.len(), "lines could not be written to standard output");
                (0..lines.len()).collect()
            }
        }
    }
}

/// Size of one write, in bytes. Writing in chunks avoids a copy of all lines at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Writes each line with a line feed, many lines in one write.
fn print(mut to: impl Write, lines: &[String]) -> io::Result<()> {
    let mut chunk = String::with_capacity(CHUNK_BYTES);
    for line in lines {
        if !chunk.is_empty() && chunk.len() + line.len() >= CHUNK_BYTES {
            to.write_all(chunk.as_bytes())?;
            chunk.clear();
        }
        chunk.push_str(line);
        chunk.push('\n');
    }
    to.write_all(chunk.as_bytes())?;
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_ends_with_a_line_feed() {
        let mut out = Vec::new();
        print(&mut out, &["{}".to_owned(), "[1]".to_owned()]).unwrap();
        assert_eq!(out, b"{}\n[1]\n");
        let lines: Vec<String> = (0..40).map(|line| format!("{line}").repeat(4_000)).collect();
        let mut out = Vec::new();
        print(&mut out, &lines).unwrap();
        assert_eq!(out, format!("{}\n", lines.join("\n")).as_bytes());
    }
}
