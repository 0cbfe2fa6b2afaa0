//! A scanner that validates an event's JSON in one pass. It reports the positions of the members of selected objects, and builds
//! no values.
//!
//! It accepts exactly what `serde_json` accepts, except what an event must not contain: NUL characters, halves of surrogate pairs,
//! and nesting beyond [`MAX_DEPTH`]. It never reports what is wrong. That is left to the slow path, which few events take.

mod block;

use super::raw_field::{RawField, Shape};
use super::{MAX_DEPTH, MAX_EVENT_BYTES};
use block::{BLOCK, specials};

/// A range of bytes. `end` is exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// The first byte.
    pub start: usize,
    /// The byte after the last one.
    pub end: usize,
}

/// The position and type of a value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value {
    /// The first byte.
    pub start: usize,
    /// The byte after the last one.
    pub end: usize,
    /// The type.
    pub shape: Shape,
}

/// Scans the JSON at the beginning of a string, up to the maximum size of an event. Every method begins at the position `at` and
/// returns `None` if it finds anything other than what it scans.
pub(super) struct Scanner<'a> {
    bytes: &'a [u8],
    /// The number of objects and arrays that are open.
    depth: usize,
    /// The position of the block that `specials` describes.
    block_start: usize,
    /// One bit for each byte of the block; see [`specials`].
    specials: u64,
}

// Functions that run for every member of an event are `inline(always)`, because a call costs as much as the work itself.
// Functions that run rarely, or do much work, are `cold`.
impl<'a> Scanner<'a> {
    /// Creates a scanner for the JSON at the beginning of `json`.
    pub fn new(json: &'a str) -> Self {
        let bytes = &json.as_bytes()[..json.len().min(MAX_EVENT_BYTES)];
        Self { bytes, depth: 0, block_start: 0, specials: specials(bytes, 0) }
    }

    /// Scans the next value.
    #[inline(always)]
    pub fn value(&mut self, at: usize) -> Option<Value> {
        if self.bytes.get(at) != Some(&b'"') {
            return Some(self.any_value(at)?.value());
        }
        let (end, shape) = self.string(at + 1)?;
        Some(Value { start: at, end, shape })
    }

    /// Like [`Self::value`], for any value. (It returns a `RawField`, because that fits into a register.)
    #[cold]
    #[inline(never)]
    fn any_value(&mut self, at: usize) -> Option<RawField> {
        let start = skip_space(self.bytes, at);
        let (end, shape) = match self.bytes.get(start)? {
            b'"' | b'{' | b'[' => return self.string_or_nested(start),
            b't' => (self.literal(start, b"true")?, Shape::Other),
            b'f' => (self.literal(start, b"false")?, Shape::Other),
            b'n' => (self.literal(start, b"null")?, Shape::Null),
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

    /// Scans an object, passes its members to `members`, and returns where it ends.
    #[inline(always)]
    pub fn object(&mut self, at: usize, members: &mut impl MemberHandler) -> Option<usize> {
        let bytes = self.bytes;
        // Declared outside of the loop, it costs nothing if no key has an escape.
        let mut unescaped: String;
        let mut at = self.open(at, b'{')?;
        if let Some(end) = expect_byte(bytes, at, b'}') {
            return self.close(end);
        }
        loop {
            at = expect_byte(bytes, at, b'"')?;
            let start = at - 1;
            let (end, shape) = self.string(at)?;
            let name = if shape == Shape::PlainString {
                bytes.get(at..end - 1)?
            } else {
                unescaped = serde_json::from_slice(bytes.get(start..end)?).ok()?;
                unescaped.as_bytes()
            };
            at = expect_byte(bytes, end, b':')?;
            at = members.member(self, Key { name, start }, at)?;
            let Some(next) = expect_byte(bytes, at, b',') else { break };
            at = next;
        }
        let end = expect_byte(bytes, at, b'}')?;
        self.close(end)
    }

    fn array(&mut self, at: usize) -> Option<usize> {
        let mut at = self.open(at, b'[')?;
        if let Some(end) = expect_byte(self.bytes, at, b']') {
            return self.close(end);
        }
        loop {
            at = self.value(at)?.end;
            let Some(next) = expect_byte(self.bytes, at, b',') else { break };
            at = next;
        }
        let end = expect_byte(self.bytes, at, b']')?;
        self.close(end)
    }

    fn open(&mut self, at: usize, bracket: u8) -> Option<usize> {
        self.depth += 1;
        expect_byte(self.bytes, at, bracket).filter(|_| self.depth <= MAX_DEPTH)
    }

    #[expect(clippy::unnecessary_wraps, reason = "its callers end with it")]
    fn close(&mut self, end: usize) -> Option<usize> {
        self.depth -= 1;
        Some(end)
    }

    /// Scans a string from behind its first quotation mark, and returns where it ends.
    #[inline(always)]
    fn string(&mut self, at: usize) -> Option<(usize, Shape)> {
        let end = self.next_special(at);
        if *self.bytes.get(end)? == b'"' { Some((end + 1, Shape::PlainString)) } else { self.escaped_string(end) }
    }

    /// Continues [`Self::string`] at the first escape.
    #[cold]
    #[inline(never)]
    fn escaped_string(&mut self, mut at: usize) -> Option<(usize, Shape)> {
        loop {
            at = match *self.bytes.get(at)? {
                b'"' => return Some((at + 1, Shape::EscapedString)),
                b'\\' => self.escape(at)?,
                _ => return None,
            };
            at = self.next_special(at);
        }
    }

    /// Returns the position of the next byte that cannot be in a string unescaped. If there is none, it returns a position behind
    /// the end.
    #[inline(always)]
    fn next_special(&mut self, at: usize) -> usize {
        let offset = at - self.block_start;
        let ahead = if offset < BLOCK { self.specials >> offset } else { 0 };
        if ahead == 0 { self.next_special_block(at) } else { at + ahead.trailing_zeros() as usize }
    }

    /// Continues [`Self::next_special`] if the current block has none.
    #[cold]
    #[inline(never)]
    fn next_special_block(&mut self, at: usize) -> usize {
        self.block_start = at.max(self.block_start + BLOCK);
        self.specials = specials(self.bytes, self.block_start);
        if self.specials == 0 {
            return self.next_special_far();
        }
        self.block_start + self.specials.trailing_zeros() as usize
    }

    /// Continues [`Self::next_special_block`] if that block has none. A function of its own, because few strings are so long.
    #[cold]
    #[inline(never)]
    fn next_special_far(&mut self) -> usize {
        while self.specials == 0 {
            self.block_start += BLOCK;
            self.specials = specials(self.bytes, self.block_start);
        }
        self.block_start + self.specials.trailing_zeros() as usize
    }

    /// Scans an escape from its backslash, and returns where it ends.
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
    fn literal<const N: usize>(&self, at: usize, literal: &[u8; N]) -> Option<usize> {
        (self.bytes.get(at..)?.first_chunk() == Some(literal)).then_some(at + N)
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
        // Only a point or an exponent may follow a leading zero.
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

/// Returns the position behind white space at `at`.
#[inline(always)]
pub(super) fn skip_space(bytes: &[u8], at: usize) -> usize {
    if bytes.get(at).is_some_and(|&byte| byte > b' ') { at } else { skip_space_slow(bytes, at) }
}

#[cold]
#[inline(never)]
fn skip_space_slow(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t')).count()
}

/// Returns the position behind `byte`, which has to come next, after any white space.
#[inline(always)]
fn expect_byte(bytes: &[u8], at: usize, byte: u8) -> Option<usize> {
    if bytes.get(at) == Some(&byte) { Some(at + 1) } else { expect_byte_after_space(bytes, at, byte) }
}

#[cold]
#[inline(never)]
fn expect_byte_after_space(bytes: &[u8], at: usize, byte: u8) -> Option<usize> {
    let at = skip_space(bytes, at);
    (bytes.get(at) == Some(&byte)).then_some(at + 1)
}

/// Handles an object's members. (A trait, because a closure cannot be marked `inline(always)`.)
pub(super) trait MemberHandler {
    /// Scans the value of the member `key` at the position `at`, and returns where it ends.
    fn member(&mut self, scanner: &mut Scanner<'_>, key: Key<'_>, at: usize) -> Option<usize>;
}

/// Ignores the members.
impl MemberHandler for () {
    #[inline(always)]
    fn member(&mut self, scanner: &mut Scanner<'_>, _key: Key<'_>, at: usize) -> Option<usize> {
        Some(scanner.value(at)?.end)
    }
}

/// A member's key.
pub(super) struct Key<'k> {
    /// The key without its quotation marks and escapes.
    pub name: &'k [u8],
    /// The position of its first quotation mark.
    pub start: usize,
}

/// Returns whether a string can be written as a JSON string without escapes.
pub(super) fn needs_no_escape(value: &str) -> bool {
    let bytes = value.as_bytes();
    let (mut at, mut found) = (0, 0);
    while found == 0 {
        found = specials(bytes, at);
        at += if found == 0 { BLOCK } else { found.trailing_zeros() as usize };
    }
    at >= bytes.len()
}

#[cfg(test)]
mod tests;
