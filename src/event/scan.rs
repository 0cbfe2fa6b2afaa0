//! One pass over an event's JSON: all of it is checked, and of the objects that are asked for each member is handed out
//! by its place. No value is built.
//!
//! It takes exactly what serde_json takes, less what an event must not hold: NUL characters, halves of surrogate pairs,
//! and nesting beyond [`MAX_DEPTH`]. It never says what is wrong: that is for the slow path, which few events see.

mod block;

use super::raw_field::{RawField, Shape};
use super::{MAX_DEPTH, MAX_EVENT_BYTES};
use block::{BLOCK, specials};

/// Bytes of a text: from the first to behind the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub start: usize,
    pub end: usize,
}

/// A value as it was passed over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value {
    pub start: usize,
    pub end: usize,
    pub shape: Shape,
}

/// Reads JSON from the first bytes of a text, as many as an event may have. Every method begins `at` a place, and is none where
/// that is not what it reads.
pub(super) struct Scanner<'a> {
    bytes: &'a [u8],
    depth: usize,
    /// Where the block begins that `specials` tells of.
    block: usize,
    specials: u64,
}

// What is always inlined every member of an event goes through, where a call costs as much as the work itself. What is cold is
// rare, or long.
impl<'a> Scanner<'a> {
    pub fn new(text: &'a str) -> Self {
        let bytes = &text.as_bytes()[..text.len().min(MAX_EVENT_BYTES)];
        Self { bytes, depth: 0, block: 0, specials: specials(bytes, 0) }
    }

    /// The value that comes next.
    #[inline(always)]
    pub fn value(&mut self, at: usize) -> Option<Value> {
        if self.bytes.get(at) != Some(&b'"') {
            return Some(self.any_value(at)?.value());
        }
        let (end, shape) = self.string(at + 1)?;
        Some(Value { start: at, end, shape })
    }

    /// The same. (A part is returned faster: it fits into a register.)
    #[cold]
    #[inline(never)]
    fn any_value(&mut self, at: usize) -> Option<RawField> {
        let start = space(self.bytes, at);
        let (end, shape) = match self.bytes.get(start)? {
            b'"' | b'{' | b'[' => return self.string_or_nested(start),
            b't' => (self.word(start, b"true")?, Shape::Other),
            b'f' => (self.word(start, b"false")?, Shape::Other),
            b'n' => (self.word(start, b"null")?, Shape::Null),
            _ => (self.number(start)?, Shape::Other),
        };
        Some(RawField::new(Value { start, end, shape }))
    }

    #[inline(never)]
    fn string_or_nested(&mut self, start: usize) -> Option<RawField> {
        let (end, shape) = match self.bytes.get(start)? {
            b'"' => self.string(start + 1)?,
            b'{' => (self.object(start, &mut ())?, Shape::Object),
            _ => (self.array(start)?, Shape::Other),
        };
        Some(RawField::new(Value { start, end, shape }))
    }

    /// Reads an object; where it ends.
    #[inline(always)]
    pub fn object(&mut self, at: usize, members: &mut impl Members) -> Option<usize> {
        let bytes = self.bytes;
        // Out here it costs nothing where no key is escaped.
        let mut unescaped: String;
        let mut at = self.open(at, b'{')?;
        if let Some(end) = pass(bytes, at, b'}') {
            return self.close(end);
        }
        loop {
            at = pass(bytes, at, b'"')?;
            let start = at - 1;
            let (end, shape) = self.string(at)?;
            let text = if shape == Shape::Plain {
                bytes.get(at..end - 1)?
            } else {
                unescaped = serde_json::from_slice(bytes.get(start..end)?).ok()?;
                unescaped.as_bytes()
            };
            at = pass(bytes, end, b':')?;
            at = members.member(self, Key { text, start }, at)?;
            let Some(next) = pass(bytes, at, b',') else { break };
            at = next;
        }
        let end = pass(bytes, at, b'}')?;
        self.close(end)
    }

    fn array(&mut self, at: usize) -> Option<usize> {
        let mut at = self.open(at, b'[')?;
        if let Some(end) = pass(self.bytes, at, b']') {
            return self.close(end);
        }
        loop {
            at = self.value(at)?.end;
            let Some(next) = pass(self.bytes, at, b',') else { break };
            at = next;
        }
        let end = pass(self.bytes, at, b']')?;
        self.close(end)
    }

    fn open(&mut self, at: usize, bracket: u8) -> Option<usize> {
        self.depth += 1;
        pass(self.bytes, at, bracket).filter(|_| self.depth <= MAX_DEPTH)
    }

    fn close(&mut self, end: usize) -> Option<usize> {
        self.depth -= 1;
        Some(end)
    }

    /// Reads a string from behind its quotation mark on; where it ends.
    #[inline(always)]
    fn string(&mut self, at: usize) -> Option<(usize, Shape)> {
        let end = self.special(at);
        if *self.bytes.get(end)? == b'"' { Some((end + 1, Shape::Plain)) } else { self.escaped_string(end) }
    }

    /// Reads a string on from its first escape.
    #[cold]
    #[inline(never)]
    fn escaped_string(&mut self, mut at: usize) -> Option<(usize, Shape)> {
        loop {
            at = match *self.bytes.get(at)? {
                b'"' => return Some((at + 1, Shape::Escaped)),
                b'\\' => self.escape(at)?,
                _ => return None,
            };
            at = self.special(at);
        }
    }

    /// The first byte from `at` on that a string cannot hold as it is; else a place behind the text.
    #[inline(always)]
    fn special(&mut self, at: usize) -> usize {
        let offset = at - self.block;
        let ahead = if offset < BLOCK { self.specials >> offset } else { 0 };
        if ahead == 0 { self.special_beyond(at) } else { at + ahead.trailing_zeros() as usize }
    }

    /// The same, where the known block has none.
    #[cold]
    #[inline(never)]
    fn special_beyond(&mut self, at: usize) -> usize {
        self.block = at.max(self.block + BLOCK);
        self.specials = specials(self.bytes, self.block);
        if self.specials == 0 {
            return self.special_far();
        }
        self.block + self.specials.trailing_zeros() as usize
    }

    /// The same, where this block has none: apart, as few strings are so long.
    #[cold]
    #[inline(never)]
    fn special_far(&mut self) -> usize {
        while self.specials == 0 {
            self.block += BLOCK;
            self.specials = specials(self.bytes, self.block);
        }
        self.block + self.specials.trailing_zeros() as usize
    }

    /// Reads an escape from its backslash on; where it ends.
    fn escape(&self, at: usize) -> Option<usize> {
        let bytes = self.bytes;
        let unit = |at: usize| {
            let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
            digits.iter().try_fold(0, |unit, &digit| Some(unit << 4 | char::from(digit).to_digit(16)?))
        };
        let length = match *bytes.get(at + 1)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
            b'u' => match unit(at)? {
                0 | 0xdc00..=0xdfff => return None,
                0xd800..=0xdbff => match unit(at + 6)? {
                    0xdc00..=0xdfff => 12,
                    _ => return None,
                },
                _ => 6,
            },
            _ => return None,
        };
        Some(at + length)
    }

    #[inline]
    fn word<const N: usize>(&self, at: usize, word: &[u8; N]) -> Option<usize> {
        (self.bytes.get(at..)?.first_chunk() == Some(word)).then_some(at + N)
    }

    fn number(&self, at: usize) -> Option<usize> {
        let next = |at: usize| self.bytes.get(at).copied().unwrap_or_default();
        let digits = |from: usize| {
            let mut at = from;
            while next(at).is_ascii_digit() {
                at += 1;
            }
            (at > from).then_some(at)
        };
        let mut at = at + usize::from(next(at) == b'-');
        // Nothing stands behind a leading zero but a point or an exponent.
        at = if next(at) == b'0' { at + 1 } else { digits(at)? };
        if next(at) == b'.' {
            at = digits(at + 1)?;
        }
        if matches!(next(at), b'e' | b'E') {
            at = digits(at + 1 + usize::from(matches!(next(at + 1), b'+' | b'-')))?;
        }
        Some(at)
    }
}

/// Where white space ends.
#[inline(always)]
pub(super) fn space(bytes: &[u8], at: usize) -> usize {
    if bytes.get(at).is_some_and(|&byte| byte > b' ') { at } else { end_of_space(bytes, at) }
}

#[cold]
#[inline(never)]
fn end_of_space(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t')).count()
}

/// The place behind `byte`, which comes next or behind white space.
#[inline(always)]
fn pass(bytes: &[u8], at: usize, byte: u8) -> Option<usize> {
    if bytes.get(at) == Some(&byte) { Some(at + 1) } else { pass_with_space(bytes, at, byte) }
}

#[cold]
#[inline(never)]
fn pass_with_space(bytes: &[u8], at: usize, byte: u8) -> Option<usize> {
    let at = space(bytes, at);
    (bytes.get(at) == Some(&byte)).then_some(at + 1)
}

/// What becomes of an object's members. (A closure cannot be told to be inlined.)
pub(super) trait Members {
    /// Reads the value that stands `at` this place behind a key; where it ends.
    fn member(&mut self, scanner: &mut Scanner<'_>, key: Key<'_>, at: usize) -> Option<usize>;
}

/// They are passed over.
impl Members for () {
    #[inline(always)]
    fn member(&mut self, scanner: &mut Scanner<'_>, _key: Key<'_>, at: usize) -> Option<usize> {
        Some(scanner.value(at)?.end)
    }
}

/// A member's key.
pub(super) struct Key<'k> {
    /// Without its quotation marks and escapes.
    pub text: &'k [u8],
    /// The place of its quotation mark.
    pub start: usize,
}

/// Whether a text can stand in a JSON string as it is.
pub(super) fn is_plain(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (mut at, mut found) = (0, 0);
    while found == 0 {
        found = specials(bytes, at);
        at += if found == 0 { BLOCK } else { found.trailing_zeros() as usize };
    }
    at >= bytes.len()
}

#[cfg(test)]
mod tests;
