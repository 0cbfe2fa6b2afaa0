//! One pass over an event's JSON: all of it is checked, and of the objects that are asked for each member is handed out
//! by its place. No value is built.
//!
//! It takes exactly what serde_json takes, less what an event must not hold: NUL characters, halves of surrogate pairs,
//! and nesting beyond [`MAX_DEPTH`]. It never says what is wrong: that is for the slow path, which few events see.

use std::borrow::Cow;

use super::MAX_DEPTH;

/// Bytes of a text: from the first to behind the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub start: usize,
    pub end: usize,
}

/// Reads JSON from a text. Every method is none where the text is not what it reads.
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Scanner<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0, depth: 0 }
    }

    /// The byte after white space, which is passed over.
    pub fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        loop {
            let byte = *bytes.get(self.at)?;
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// How far it has come.
    pub fn place(&self) -> usize {
        self.at
    }

    /// Passes over the value that comes next; the bytes that it takes.
    pub fn value(&mut self) -> Option<Span> {
        let first = self.peek()?;
        let start = self.at;
        match first {
            b'"' => {
                self.string()?;
            }
            b'{' => self.object(|scanner, _| scanner.value().map(|_| ()))?,
            b'[' => self.array()?,
            b't' => self.word("true")?,
            b'f' => self.word("false")?,
            b'n' => self.word("null")?,
            _ => self.number()?,
        }
        Some(Span { start, end: self.at })
    }

    /// Reads an object. For each key, with the place of its quotation mark, `member` has to read the value.
    pub fn object(&mut self, mut member: impl FnMut(&mut Self, Key<'a>) -> Option<()>) -> Option<()> {
        self.open(b'{')?;
        if self.peek()? == b'}' {
            return self.close();
        }
        loop {
            if self.peek()? != b'"' {
                return None;
            }
            let start = self.at;
            let is_escaped = self.string()?;
            let raw = &self.text[start..self.at];
            let text = if is_escaped {
                Cow::Owned(serde_json::from_str(raw).ok()?)
            } else {
                Cow::Borrowed(&raw[1..raw.len() - 1])
            };
            if self.peek()? != b':' {
                return None;
            }
            self.at += 1;
            member(self, Key { text, start })?;
            if !self.more(b'}')? {
                return self.close();
            }
        }
    }

    fn array(&mut self) -> Option<()> {
        self.open(b'[')?;
        if self.peek()? == b']' {
            return self.close();
        }
        loop {
            self.value()?;
            if !self.more(b']')? {
                return self.close();
            }
        }
    }

    fn open(&mut self, bracket: u8) -> Option<()> {
        self.depth += 1;
        let is_open = self.peek()? == bracket && self.depth <= MAX_DEPTH;
        self.at += 1;
        is_open.then_some(())
    }

    fn close(&mut self) -> Option<()> {
        self.depth -= 1;
        self.at += 1;
        Some(())
    }

    /// Whether a comma comes next, which is passed over; not, if the bracket does.
    fn more(&mut self, bracket: u8) -> Option<bool> {
        match self.peek()? {
            b',' => {
                self.at += 1;
                Some(true)
            }
            byte => (byte == bracket).then_some(false),
        }
    }

    /// Reads a string from its quotation mark on; says whether it has escapes.
    fn string(&mut self) -> Option<bool> {
        let bytes = self.text.as_bytes();
        let mut is_escaped = false;
        self.at += 1;
        loop {
            self.at = special(bytes, self.at);
            match *bytes.get(self.at)? {
                b'"' => {
                    self.at += 1;
                    return Some(is_escaped);
                }
                b'\\' => {
                    self.escape()?;
                    is_escaped = true;
                }
                _ => return None,
            }
        }
    }

    /// Reads an escape from its backslash on.
    fn escape(&mut self) -> Option<()> {
        let bytes = self.text.as_bytes();
        let unit = |at: usize| {
            let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
            digits.iter().try_fold(0, |unit, &digit| Some(unit << 4 | char::from(digit).to_digit(16)?))
        };
        self.at += match *bytes.get(self.at + 1)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
            b'u' => match unit(self.at)? {
                0 | 0xdc00..=0xdfff => return None,
                0xd800..=0xdbff => match unit(self.at + 6)? {
                    0xdc00..=0xdfff => 12,
                    _ => return None,
                },
                _ => 6,
            },
            _ => return None,
        };
        Some(())
    }

    fn word(&mut self, word: &str) -> Option<()> {
        let is_there = self.text.as_bytes()[self.at..].starts_with(word.as_bytes());
        self.at += word.len();
        is_there.then_some(())
    }

    fn number(&mut self) -> Option<()> {
        let bytes = self.text.as_bytes();
        let next = |at: usize| bytes.get(at).copied();
        let digits = |from: usize| {
            let mut at = from;
            while next(at).is_some_and(|byte| byte.is_ascii_digit()) {
                at += 1;
            }
            (at > from).then_some(at)
        };
        let mut at = self.at + usize::from(next(self.at) == Some(b'-'));
        // Nothing stands behind a leading zero but a point or an exponent.
        at = if next(at) == Some(b'0') { at + 1 } else { digits(at)? };
        if next(at) == Some(b'.') {
            at = digits(at + 1)?;
        }
        if matches!(next(at), Some(b'e' | b'E')) {
            at = digits(at + 1 + usize::from(matches!(next(at + 1), Some(b'+' | b'-'))))?;
        }
        self.at = at;
        Some(())
    }
}

/// A member's key.
pub(super) struct Key<'a> {
    /// Without its quotation marks and escapes.
    pub text: Cow<'a, str>,
    /// The place of its quotation mark.
    pub start: usize,
}

/// Whether a text can stand in a JSON string as it is.
pub(super) fn is_plain(text: &str) -> bool {
    special(text.as_bytes(), 0) == text.len()
}

/// The first byte from `at` on that a string cannot hold as it is: a quotation mark, a backslash, a control character; eight
/// bytes at a time. (Mycroft's test: what it finds beyond the first is not reliable, and not looked at.)
fn special(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES << 7;
    let below = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word;
    while let Some(eight) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*eight);
        let is = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
        let found = (below(word, 0x20) | is(b'"') | is(b'\\')) & HIGHS;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().position(|&byte| byte < 0x20 || matches!(byte, b'"' | b'\\')).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests;
