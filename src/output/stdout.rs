//! Lines on standard output: for local use, and for a log group that something subscribes to.

use std::io::{self, Write};

use super::Output;

/// Prints lines.
#[derive(Debug, Clone, Copy, Default)]
pub struct StdoutOutput;

impl Output for StdoutOutput {
    async fn send(&self, lines: &[String]) -> Vec<usize> {
        // Locked until all is written, so that the lines of others do not come between.
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

/// Bytes that are written at once: what is printed is not copied whole.
const CHUNK_BYTES: usize = 64 * 1024;

/// Writes lines, many at once.
fn print(mut to: impl Write, lines: &[String]) -> io::Result<()> {
    let mut text = String::with_capacity(CHUNK_BYTES);
    for line in lines {
        if !text.is_empty() && text.len() + line.len() >= CHUNK_BYTES {
            to.write_all(text.as_bytes())?;
            text.clear();
        }
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
        let lines: Vec<String> = (0..40).map(|line| format!("{line}").repeat(4_000)).collect();
        let mut out = Vec::new();
        print(&mut out, &lines).unwrap();
        assert_eq!(out, format!("{}\n", lines.join("\n")).as_bytes());
    }
}
