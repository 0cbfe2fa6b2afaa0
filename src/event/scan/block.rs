//! Search for bytes that cannot be in a JSON string unescaped, 64 bytes at a time.

use wide::u8x16;

/// Size of a block in bytes: one bit of a mask for each.
pub(super) const BLOCK: usize = 64;

/// Returns one bit for each byte of the block at `at`, the lowest bit for the first byte. A bit is set for a quotation mark, a
/// backslash or a control character, and for every position behind the end.
#[inline]
pub(super) fn specials(bytes: &[u8], at: usize) -> u64 {
    match bytes.get(at..).and_then(<[u8]>::first_chunk) {
        Some(block) => block_mask(block),
        None => last_block_mask(bytes, at),
    }
}

/// Returns the mask of the last block. Not inlined, so that full blocks do not pay for the copy. The block is filled up with NUL
/// characters, which are control characters.
#[inline(never)]
fn last_block_mask(bytes: &[u8], at: usize) -> u64 {
    let rest = bytes.get(at..).unwrap_or_default();
    let mut block = [0; BLOCK];
    block[..rest.len()].copy_from_slice(rest);
    block_mask(&block)
}

#[inline]
fn block_mask(block: &[u8; BLOCK]) -> u64 {
    let (chunks, _) = block.as_chunks::<16>();
    chunks.iter().rev().fold(0, |mask, chunk| mask << 16 | u64::from(chunk_mask(*chunk)))
}

#[inline]
fn chunk_mask(bytes: [u8; 16]) -> u32 {
    let bytes = u8x16::new(bytes);
    // Flipping this bit maps the quotation mark, 0x22, to 0x20, right behind the control characters, which stay below 0x20. So
    // one comparison finds both.
    let low = (bytes ^ u8x16::splat(0x02)).simd_lt(u8x16::splat(0x21));
    (low | bytes.simd_eq(u8x16::splat(b'\\'))).to_bitmask()
}
