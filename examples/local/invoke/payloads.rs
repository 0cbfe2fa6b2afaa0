//! Reads the payloads of a file one after the other, each as soon as it is complete. A payload is one line, or a JSON value over
//! many lines.

use std::io::{self, BufRead};

use serde_json::value::RawValue;

/// A payload, or an error in its place.
#[derive(Debug, PartialEq, Eq)]
pub enum Payload {
    /// A JSON value.
    Json(String),
    /// Something that is not JSON.
    Invalid {
        /// The line at which it begins, counted from 1.
        line: usize,
        /// The reason, as a part of a sentence.
        why: String,
    },
}

/// The payloads of a reader.
pub struct Payloads<R> {
    reader: R,
    /// The bytes that were read.
    buffer: Vec<u8>,
    /// The index in `buffer` of the first byte that was not returned yet.
    from: usize,
    /// The line of that byte, counted from 1.
    line: usize,
    nesting: Nesting,
    is_at_end: bool,
    /// Whether the buffer has to be returned now: all its brackets are closed, or the reader is at its end.
    is_ready: bool,
}

impl<R: BufRead> Payloads<R> {
    /// Returns the payloads of a reader.
    pub fn new(reader: R) -> Self {
        let nesting = Nesting::default();
        Self { reader, buffer: Vec::new(), from: 0, line: 1, nesting, is_at_end: false, is_ready: false }
    }

    /// Returns the next payload, or `None` at the end.
    ///
    /// # Errors
    /// The reader's errors.
    pub fn next_payload(&mut self) -> io::Result<Option<Payload>> {
        loop {
            self.skip_space();
            if self.from == self.buffer.len() {
                self.buffer.clear();
                (self.from, self.is_ready) = (0, false);
            }
            if self.is_ready {
                return Ok(Some(self.take()));
            }
            if self.is_at_end {
                return Ok(None);
            }
            let before = self.buffer.len();
            self.is_at_end = self.reader.read_until(b'\n', &mut self.buffer)? == 0;
            // Brackets are counted once for each byte, so that a long payload of short lines stays cheap.
            self.is_ready = self.nesting.is_closed_after(&self.buffer[before..]) || self.is_at_end;
        }
    }

    /// Takes the value at the start of the buffer. If there is none, takes the bytes that belong to the error.
    fn take(&mut self) -> Payload {
        let (bytes, line) = (&self.buffer[self.from..], self.line);
        let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<Box<RawValue>>();
        let (payload, used) = match values.next() {
            Some(Ok(value)) => (Payload::Json(value.get().to_owned()), values.byte_offset()),
            Some(Err(error)) if !error.is_eof() => {
                let why = format!("not JSON at line {}, column {}", line + error.line() - 1, error.column());
                (Payload::Invalid { line, why }, next_start(bytes, error.line()))
            }
            _ => (Payload::Invalid { line, why: "the JSON ends too early".to_owned() }, bytes.len()),
        };
        self.skip(used);
        payload
    }

    fn skip_space(&mut self) {
        self.skip(self.buffer[self.from..].iter().take_while(|byte| byte.is_ascii_whitespace()).count());
    }

    fn skip(&mut self, used: usize) {
        self.line += memchr::memchr_iter(b'\n', &self.buffer[self.from..self.from + used]).count();
        self.from += used;
    }
}

/// Returns where the next payload may begin after an error: at the line of the error, unless it is the first line, or at a later
/// line. Lines that begin with white space or a closing bracket are skipped, because no payload begins like that.
fn next_start(bytes: &[u8], error_line: usize) -> usize {
    let mut at = line_start(bytes, error_line.max(2));
    while at < bytes.len() && matches!(bytes[at], b' ' | b'\t' | b'}' | b']') {
        at = memchr::memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |end| at + end + 1);
    }
    at
}

/// Returns the index at which a line begins. Lines are counted from 1.
fn line_start(bytes: &[u8], line: usize) -> usize {
    match line.checked_sub(2) {
        None => 0,
        Some(before) => memchr::memchr_iter(b'\n', bytes).nth(before).map_or(bytes.len(), |at| at + 1),
    }
}

/// Counts the open brackets of JSON that is read line by line.
#[derive(Default)]
struct Nesting(usize);

impl Nesting {
    /// Reads more lines; returns whether all brackets are closed.
    fn is_closed_after(&mut self, lines: &[u8]) -> bool {
        // A JSON string cannot contain a line break.
        let (mut is_string, mut is_escaped) = (false, false);
        for byte in lines {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' if is_string => is_escaped = true,
                b'"' => is_string = !is_string,
                b'{' | b'[' if !is_string => self.0 += 1,
                b'}' | b']' if !is_string => self.0 = self.0.saturating_sub(1),
                _ => {}
            }
        }
        self.0 == 0
    }
}
