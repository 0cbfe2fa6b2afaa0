//! Compression of stored forms. The first byte is [`PLAIN`] or [`COMPRESSED`]; the form follows.

use std::borrow::Cow;
use std::cell::RefCell;

use flate2::FlushDecompress::None as Flow;
use flate2::Status::StreamEnd;
use flate2::{Compress, Compression, Decompress, FlushCompress};

/// Shorter forms are not compressed: together with the other attributes, the item stays within its first kilobyte.
const MIN_FORM_BYTES: usize = 800;
/// The maximum size of a decompressed form in bytes. A writer refuses a longer form, so only bytes that this service did not
/// write exceed it. The limit is below a function's memory.
pub(super) const MAX_FORM_BYTES: usize = 16 * 1024 * 1024;
/// The form is stored as it is.
const PLAIN: u8 = 0;
/// The form is stored as a zlib stream.
const COMPRESSED: u8 = 1;

thread_local! {
    /// Each thread keeps a compressor, because it holds some 300 KB: to allocate and clear them for each form took longer than to
    /// compress it. The level is the fastest one. The best one takes three times as long and saves a twentieth, which rarely
    /// matters because an item is billed in steps of a kilobyte.
    static COMPRESSOR: RefCell<Compress> = RefCell::new(Compress::new(Compression::fast(), true));
}

/// Compresses a form, if that makes it shorter.
pub(super) fn compress(mut form: Vec<u8>) -> Vec<u8> {
    if form.len() >= MIN_FORM_BYTES
        && let Some(compressed) = deflate(&form)
    {
        return compressed;
    }
    form.insert(0, PLAIN);
    form
}

/// Returns the compressed form with its first byte. Returns `None` if that is longer than the form.
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

/// Returns the decompressed form. Returns `None` if the bytes are not a stored form.
pub(super) fn decompress(bytes: &[u8]) -> Option<Cow<'_, [u8]>> {
    match bytes.split_first()? {
        (&PLAIN, form) => Some(Cow::Borrowed(form)),
        (&COMPRESSED, compressed) => inflate(compressed).map(Cow::Owned),
        _ => None,
    }
}

/// Inflates a zlib stream. Returns `None` if the bytes are not exactly one complete stream, or if its content is longer than
/// [`MAX_FORM_BYTES`].
fn inflate(compressed: &[u8]) -> Option<Vec<u8>> {
    let (mut form, mut stream) = (Vec::with_capacity(4 * compressed.len()), Decompress::new(true));
    // Not a `Read` adapter: that would accept a truncated stream. Only `StreamEnd`, which includes the checksum, means that the
    // stream is complete.
    loop {
        if form.len() == form.capacity() {
            form.reserve(form.len().max(MIN_FORM_BYTES).min(MAX_FORM_BYTES + 1 - form.len()));
        }
        let before = (stream.total_in(), stream.total_out());
        let rest = compressed.get(stream.total_in() as usize..)?;
        if stream.decompress_vec(rest, &mut form, Flow).ok()? == StreamEnd {
            break;
        }
        // The inflater can return with room left and input unread while its window still holds output. Only a call that neither
        // consumes nor produces a byte means that the stream is cut off.
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
        let same = vec![7; MIN_FORM_BYTES];
        let noise: Vec<u8> =
            (0..MIN_FORM_BYTES as u64).map(|n| xxhash_rust::xxh3::xxh3_64(&n.to_be_bytes()) as u8).collect();
        for (form, is_compressed) in [(vec![], false), (same[1..].to_vec(), false), (same, true), (noise, false)] {
            let compressed = compress(form.clone());
            assert_eq!(compressed[0] == COMPRESSED, is_compressed);
            assert!(compressed.len() <= form.len() + 1);
            assert_eq!(decompress(&compressed).as_deref(), Some(form.as_slice()));
        }
    }

    #[test]
    fn compression_does_not_depend_on_earlier_forms() {
        let noise: Vec<u8> = (0..9_000u64).map(|n| xxhash_rust::xxh3::xxh3_64(&n.to_be_bytes()) as u8).collect();
        let form = b"https://shop.test/ ".repeat(100);
        let by_new_compressor = std::thread::spawn({
            let form = form.clone();
            move || compress(form)
        });
        let by_new_compressor = by_new_compressor.join().unwrap();
        // The noise does not become shorter, so its compression stops in the middle. That must leave nothing behind either.
        for before in [noise, form.clone(), vec![7; 100_000]] {
            compress(before);
            assert_eq!(compress(form.clone()), by_new_compressor);
            assert_eq!(decompress(&by_new_compressor).as_deref(), Some(form.as_slice()));
        }
    }

    #[test]
    fn invalid_bytes_are_refused() {
        let compressed = compress(vec![7; MIN_FORM_BYTES]);
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

    /// Tests lengths around which the inflater's window and our buffer fill up.
    #[test]
    fn forms_of_every_length_and_regularity_are_decompressed() {
        let noise: Vec<u8> = (0..2048_u64).map(|n| xxhash_rust::xxh3::xxh3_64(&n.to_be_bytes()) as u8).collect();
        for length in [MIN_FORM_BYTES, 32_767, 32_768, 32_769, 33_000, 65_536, 100_000, 1_000_000] {
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
