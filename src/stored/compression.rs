//! Packing: a byte that says whether what follows is compressed, then the stored form.

use std::borrow::Cow;
use std::cell::RefCell;

use flate2::FlushDecompress::None as Flow;
use flate2::Status::StreamEnd;
use flate2::{Compress, Compression, Decompress, FlushCompress};

/// Shorter forms stay as they are: with its other attributes such an item keeps within its first kilobyte.
const LEAST: usize = 800;
/// Bytes of an decompressed form at most. A writer refuses a longer one, so only bytes that are not ours exceed it; it is less than
/// a function's memory.
pub(super) const MAX_FORM_BYTES: usize = 16 * 1024 * 1024;
const PLAIN: u8 = 0;
const COMPRESSED: u8 = 1;

thread_local! {
    /// A compressor holds some 300 KB. Allocating and clearing them for each form took longer than compressing it, so each
    /// thread keeps one. Its level is the fastest: the best one takes three times as long to save a twentieth, and an item
    /// is billed by the kilobyte.
    static COMPRESSOR: RefCell<Compress> = RefCell::new(Compress::new(Compression::fast(), true));
}

/// Compresses a form, if that makes it shorter.
pub(super) fn compress(mut form: Vec<u8>) -> Vec<u8> {
    if form.len() >= LEAST
        && let Some(compressed) = deflate(&form)
    {
        return compressed;
    }
    form.insert(0, PLAIN);
    form
}

/// Returns a form compressed, with its mark; none where that is longer than the form.
fn deflate(form: &[u8]) -> Option<Vec<u8>> {
    // The compressor writes into this capacity and no further.
    let mut compressed = Vec::with_capacity(form.len());
    compressed.push(COMPRESSED);
    let end = COMPRESSOR.with_borrow_mut(|compressor| {
        compressor.reset();
        compressor.compress_vec(form, &mut compressed, FlushCompress::Finish)
    });
    (end.ok()? == StreamEnd && compressed.len() <= form.len()).then_some(compressed)
}

/// Decompresses a form; none where the bytes are not one.
pub(super) fn decompress(bytes: &[u8]) -> Option<Cow<'_, [u8]>> {
    match bytes.split_first()? {
        (&PLAIN, form) => Some(Cow::Borrowed(form)),
        (&COMPRESSED, compressed) => inflate(compressed).map(Cow::Owned),
        _ => None,
    }
}

/// Inflates a whole zlib stream; none where the bytes are not exactly one, or hold more than [`MAX_FORM_BYTES`].
fn inflate(compressed: &[u8]) -> Option<Vec<u8>> {
    let (mut form, mut stream) = (Vec::with_capacity(4 * compressed.len()), Decompress::new(true));
    // The stream's end counts, with its checksum behind it: a reader would take a truncated stream for a whole one.
    loop {
        if form.len() == form.capacity() {
            form.reserve(form.len().max(LEAST).min(MAX_FORM_BYTES + 1 - form.len()));
        }
        let before = (stream.total_in(), stream.total_out());
        let rest = compressed.get(stream.total_in() as usize..)?;
        if stream.decompress_vec(rest, &mut form, Flow).ok()? == StreamEnd {
            break;
        }
        // The inflater may return with room left and input unread, while it still hands out what its window holds. Only a
        // call that neither took nor gave a byte means that the stream is cut off.
        let is_stuck = before == (stream.total_in(), stream.total_out());
        if is_stuck || form.len() > MAX_FORM_BYTES {
            return None;
        }
    }
    let is_whole = stream.total_in() == compressed.len() as u64 && form.len() <= MAX_FORM_BYTES;
    is_whole.then_some(form)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_forms_are_compressed_where_it_helps() {
        let same = vec![7; LEAST];
        let noise: Vec<u8> = (0..LEAST as u64).map(|n| xxhash_rust::xxh3::xxh3_64(&n.to_be_bytes()) as u8).collect();
        for (form, is_compressed) in [(vec![], false), (same[1..].to_vec(), false), (same, true), (noise, false)] {
            let compressed = compress(form.clone());
            assert_eq!(compressed[0] == COMPRESSED, is_compressed);
            assert!(compressed.len() <= form.len() + 1);
            assert_eq!(decompress(&compressed).as_deref(), Some(form.as_slice()));
        }
    }

    #[test]
    fn a_form_is_compressed_the_same_whatever_was_compressed_before() {
        let noise: Vec<u8> = (0..9_000u64).map(|n| xxhash_rust::xxh3::xxh3_64(&n.to_be_bytes()) as u8).collect();
        let text = b"https://shop.test/ ".repeat(100);
        let alone = std::thread::spawn({
            let text = text.clone();
            move || compress(text)
        });
        let alone = alone.join().unwrap();
        // One that stops in the middle, because it does not become shorter, leaves nothing behind either.
        for before in [noise, text.clone(), vec![7; 100_000]] {
            compress(before);
            assert_eq!(compress(text.clone()), alone);
            assert_eq!(decompress(&alone).as_deref(), Some(text.as_slice()));
        }
    }

    #[test]
    fn what_is_no_compressed_form_is_none() {
        let compressed = compress(vec![7; LEAST]);
        let longer = [compressed.as_slice(), &[0]].concat();
        for bytes in [&[][..], &[2, 0], &compressed[..compressed.len() - 1], &longer, &[COMPRESSED]] {
            assert_eq!(decompress(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn the_longest_form_is_decompressed_and_a_longer_one_is_not() {
        for (length, is_read) in [(MAX_FORM_BYTES, true), (MAX_FORM_BYTES + 1, false), (2 * MAX_FORM_BYTES, false)] {
            let form = vec![0; length];
            let decompressed = decompress(&compress(form.clone())).map(Cow::into_owned);
            assert!(decompressed == is_read.then_some(form), "{length} bytes");
        }
    }

    /// The sizes around which an inflater's window and our buffer fill up.
    #[test]
    fn forms_of_every_length_and_regularity_are_decompressed() {
        let noise: Vec<u8> = (0..2048_u64).map(|n| xxhash_rust::xxh3::xxh3_64(&n.to_be_bytes()) as u8).collect();
        for length in [LEAST, 32_767, 32_768, 32_769, 33_000, 65_536, 100_000, 1_000_000] {
            for period in [1, 2, 63, 708, 1_908, 2_048] {
                let form: Vec<u8> = noise[..period].iter().copied().cycle().take(length).collect();
                let compressed = compress(form.clone());
                assert!(
                    decompress(&compressed).as_deref() == Some(form.as_slice()),
                    "{length} bytes of period {period}"
                );
                let cut = decompress(&compressed[..compressed.len() - 1]);
                assert!(compressed[0] == PLAIN || cut.is_none(), "{length} bytes of period {period}");
            }
        }
    }
}
