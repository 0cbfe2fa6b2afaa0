//! The payloads of a file, one after the other, as soon as they are whole: one value over many lines, or one a line.

use std::io::{self, BufRead};

use serde_json::value::RawValue;

/// A payload, or what stands in place of one.
#[derive(Debug, PartialEq, Eq)]
pub enum Payload {
    Json(String),
    /// What begins at this line is not JSON.
    Bad {
        line: usize,
        why: String,
    },
}

/// The payloads of a reader.
pub struct Payloads<R> {
    reader: R,
    /// What is read; from where on it is not given out, and the line that begins there.
    text: Vec<u8>,
    from: usize,
    line: usize,
    nesting: Nesting,
    is_at_end: bool,
    /// Whether what was read has to be given out, whatever its nesting is.
    is_ready: bool,
}

impl<R: BufRead> Payloads<R> {
    pub fn new(reader: R) -> Self {
        let nesting = Nesting::default();
        Self { reader, text: Vec::new(), from: 0, line: 1, nesting, is_at_end: false, is_ready: false }
    }

    /// Returns the next payload, none at the end.
    pub fn next_payload(&mut self) -> io::Result<Option<Payload>> {
        loop {
            self.skip_space();
            if self.from == self.text.len() {
                self.text.clear();
                (self.from, self.is_ready) = (0, false);
            }
            if self.is_ready {
                return Ok(Some(self.take()));
            }
            if self.is_at_end {
                return Ok(None);
            }
            let before = self.text.len();
            self.is_at_end = self.reader.read_until(b'\n', &mut self.text)? == 0;
            // Brackets are counted once for each byte, so that a long payload of short lines stays cheap.
            self.is_ready = self.nesting.is_closed_after(&self.text[before..]) || self.is_at_end;
        }
    }

    /// Takes the value off that the text begins with; where there is none, as much as belongs to the mistake.
    fn take(&mut self) -> Payload {
        let (text, line) = (&self.text[self.from..], self.line);
        let mut values = serde_json::Deserializer::from_slice(text).into_iter::<Box<RawValue>>();
        let (payload, used) = match values.next() {
            Some(Ok(value)) => (Payload::Json(value.get().to_owned()), values.byte_offset()),
            Some(Err(error)) if !error.is_eof() => {
                let why = format!("not JSON at line {}, column {}", line + error.line() - 1, error.column());
                (Payload::Bad { line, why }, resume(text, error.line()))
            }
            _ => (Payload::Bad { line, why: "the JSON ends too early".to_owned() }, text.len()),
        };
        self.skip(used);
        payload
    }

    fn skip_space(&mut self) {
        self.skip(self.text[self.from..].iter().take_while(|byte| byte.is_ascii_whitespace()).count());
    }

    fn skip(&mut self, used: usize) {
        self.line += memchr::memchr_iter(b'\n', &self.text[self.from..self.from + used]).count();
        self.from += used;
    }
}

/// Returns where the next payload may begin behind a mistake: at the mistake's own line, unless it is the first, or at one
/// behind that, if it begins as a payload does.
fn resume(text: &[u8], mistake: usize) -> usize {
    let mut at = line_start(text, mistake.max(2));
    while at < text.len() && matches!(text[at], b' ' | b'\t' | b'}' | b']') {
        at = memchr::memchr(b'\n', &text[at..]).map_or(text.len(), |end| at + end + 1);
    }
    at
}

/// Returns where a line of a text begins, counted from 1.
fn line_start(text: &[u8], line: usize) -> usize {
    match line.checked_sub(2) {
        None => 0,
        Some(before) => memchr::memchr_iter(b'\n', text).nth(before).map_or(text.len(), |at| at + 1),
    }
}

/// How many brackets are open, of a text that comes line by line.
#[derive(Default)]
struct Nesting(usize);

impl Nesting {
    /// Reads on; returns whether all brackets are closed.
    fn is_closed_after(&mut self, text: &[u8]) -> bool {
        // No string goes on over the end of a line.
        let (mut is_string, mut is_escaped) = (false, false);
        for byte in text {
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
