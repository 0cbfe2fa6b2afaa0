//! Packing: a byte that says whether what follows is packed, then the stored form.

use std::borrow::Cow;
use std::io::Read;

use flate2::FlushDecompress::None as Flow;
use flate2::Status::StreamEnd;
use flate2::read::ZlibEncoder;
use flate2::{Compression, Decompress};

/// Shorter forms stay as they are: with its other attributes such an item keeps within its first kilobyte.
const LEAST: usize = 800;
/// Bytes of a form at the most, unpacked: more than any of ours has, and less than a function's memory.
const MOST: usize = 16 * 1024 * 1024;
const PLAIN: u8 = 0;
const PACKED: u8 = 1;

/// Packs a form, if that makes it shorter.
pub(super) fn pack(mut form: Vec<u8>) -> Vec<u8> {
    if form.len() >= LEAST {
        let mut packed = vec![PACKED];
        let result = ZlibEncoder::new(form.as_slice(), Compression::best()).read_to_end(&mut packed);
        if result.is_ok() && packed.len() <= form.len() {
            return packed;
        }
    }
    form.insert(0, PLAIN);
    form
}

/// Unpacks a form; none where the bytes are not one.
pub(super) fn unpack(bytes: &[u8]) -> Option<Cow<'_, [u8]>> {
    match bytes.split_first()? {
        (&PLAIN, form) => Some(Cow::Borrowed(form)),
        (&PACKED, packed) => {
            let (mut form, mut stream) = (Vec::with_capacity(4 * packed.len()), Decompress::new(true));
            // The stream's end counts, with its checksum behind it: a reader would take a cut one for whole.
            while stream.decompress_vec(packed.get(stream.total_in() as usize..)?, &mut form, Flow).ok()? != StreamEnd {
                if form.len() < form.capacity() || form.len() >= MOST {
                    return None;
                }
                form.reserve(form.len().max(LEAST));
            }
            (stream.total_in() == packed.len() as u64).then_some(Cow::Owned(form))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_forms_are_packed_where_it_helps() {
        let same = vec![7; LEAST];
        let noise: Vec<u8> = (0..LEAST as u64).map(|n| xxhash_rust::xxh3::xxh3_64(&n.to_be_bytes()) as u8).collect();
        for (form, is_packed) in [(vec![], false), (same[1..].to_vec(), false), (same, true), (noise, false)] {
            let packed = pack(form.clone());
            assert_eq!(packed[0] == PACKED, is_packed);
            assert!(packed.len() <= form.len() + 1);
            assert_eq!(unpack(&packed).as_deref(), Some(form.as_slice()));
        }
    }

    #[test]
    fn what_is_no_packed_form_is_none() {
        let packed = pack(vec![7; LEAST]);
        let longer = [packed.as_slice(), &[0]].concat();
        for bytes in [&[][..], &[2, 0], &packed[..packed.len() - 1], &longer, &[PACKED]] {
            assert_eq!(unpack(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        assert_eq!(unpack(&pack(vec![0; 2 * MOST])), None);
    }
}
