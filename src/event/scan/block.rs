//! The bytes that a JSON string cannot hold as they are, 64 at a time.

use wide::u8x16;

/// Bytes that a mask tells of.
pub(super) const BLOCK: usize = 64;

/// A bit for each byte from `at` on, the lowest for the first: whether it is a quotation mark, a backslash or a control
/// character. What lies behind the end counts as one.
#[inline]
pub(super) fn specials(bytes: &[u8], at: usize) -> u64 {
    match bytes.get(at..).and_then(<[u8]>::first_chunk) {
        Some(block) => mask(block),
        None => last(bytes, at),
    }
}

/// Apart, so that the others do not pay for its copy.
#[inline(never)]
fn last(bytes: &[u8], at: usize) -> u64 {
    let rest = bytes.get(at..).unwrap_or_default();
    let mut block = [0; BLOCK];
    block[..rest.len()].copy_from_slice(rest);
    mask(&block)
}

#[inline]
fn mask(block: &[u8; BLOCK]) -> u64 {
    let (parts, _) = block.as_chunks::<16>();
    parts.iter().rev().fold(0, |mask, part| mask << 16 | u64::from(mask_of_16(*part)))
}

#[inline]
fn mask_of_16(bytes: [u8; 16]) -> u32 {
    let bytes = u8x16::new(bytes);
    // With this bit turned the quotation mark, 0x22, stands right behind the control characters, and nothing else there.
    let low = (bytes ^ u8x16::splat(0x02)).simd_lt(u8x16::splat(0x21));
    (low | bytes.simd_eq(u8x16::splat(b'\\'))).to_bitmask()
}
