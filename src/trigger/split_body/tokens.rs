//! The tokens of a body: what is found without knowing whether it is valid JSON.

/// The bytes that are neither white space nor inside of a string, with their indexes. Of a string, the opening quotation mark is
/// among them.
pub(super) struct Tokens<'a> {
    pub(super) bytes: &'a [u8],
    /// Where the next one is looked for.
    pub(super) at: usize,
}

impl Iterator for Tokens<'_> {
    type Item = (usize, u8);

    fn next(&mut self) -> Option<Self::Item> {
        let (start, byte) = token_at(self.bytes, self.at)?;
        self.at = if byte == b'"' { string_end(self.bytes, start + 1) } else { start + 1 };
        Some((start, byte))
    }
}

/// Returns the first byte from `from` on that is not white space, with its index.
pub(super) fn token_at(bytes: &[u8], from: usize) -> Option<(usize, u8)> {
    (from..).zip(bytes.get(from..)?.iter().copied()).find(|&(_, byte)| !is_space(byte))
}

/// Returns the index after the closing quotation mark of a string, or the end of the body if it has none.
pub(super) fn string_end(body: &[u8], mut at: usize) -> usize {
    while let Some(&byte) = body.get(at) {
        at += match byte {
            b'"' => return at + 1,
            // An escaped quotation mark does not end the string.
            b'\\' => 2,
            _ => 1,
        };
    }
    body.len()
}

/// Returns whether a byte is white space in JSON.
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

pub(super) fn trim(bytes: &[u8]) -> &[u8] {
    let Some(start) = bytes.iter().position(|&byte| !is_space(byte)) else { return &[] };
    let end = bytes.iter().rposition(|&byte| !is_space(byte)).map_or(start, |last| last + 1);
    &bytes[start..end]
}
