//! Records that the Kinesis Producer Library aggregated: four bytes that mark them, a protocol buffer, and its MD5.
//!
//! Of the buffer only the records are read (field 3), and of each only its data (field 3). Tables of keys and tags serve the
//! consumers of single shards. The MD5 is not checked: Kinesis itself guards what is stored, and a buffer that is not exactly in
//! this form is taken as it is.

/// The first bytes of an aggregated record.
const MAGIC: &[u8] = &[0xf3, 0x89, 0x9a, 0xc2];
/// The bytes of the MD5 at the end.
const DIGEST_BYTES: usize = 16;
/// The number of the field that is read, both in the aggregate and in each of its records.
const DATA_FIELD: u64 = 3;

/// Returns the data of each record in an aggregated one. Returns `None` if `data` is not aggregated.
pub(super) fn unpack(data: &[u8]) -> Option<Vec<&[u8]>> {
    let buffer = data.strip_prefix(MAGIC)?;
    let records = fields(&buffer[..buffer.len().checked_sub(DIGEST_BYTES)?])?;
    // A record has its data once.
    records.into_iter().map(|record| fields(record)?.into_iter().next_back()).collect()
}

/// Returns the values of all fields with the number [`DATA_FIELD`]. Returns `None` if the bytes are not a protocol buffer.
fn fields(mut buffer: &[u8]) -> Option<Vec<&[u8]>> {
    let mut found = Vec::new();
    while !buffer.is_empty() {
        let tag = varint(&mut buffer)?;
        match tag & 7 {
            0 => drop(varint(&mut buffer)?),
            1 => buffer = buffer.get(8..)?,
            2 => {
                let bytes = usize::try_from(varint(&mut buffer)?).ok()?;
                let (value, rest) = buffer.split_at_checked(bytes)?;
                if tag >> 3 == DATA_FIELD {
                    found.push(value);
                }
                buffer = rest;
            }
            5 => buffer = buffer.get(4..)?,
            _ => return None,
        }
    }
    Some(found)
}

/// Reads a number of 7 bits a byte, the lowest first.
fn varint(buffer: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = buffer.split_first()?;
        *buffer = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn field(number: u8, value: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2];
        let mut length = value.len();
        while length >= 0x80 {
            bytes.push(length as u8 | 0x80);
            length >>= 7;
        }
        bytes.push(length as u8);
        [bytes, value.to_vec()].concat()
    }

    /// Aggregates records as the library does: with a table of partition keys, of which each record names one.
    pub fn aggregate(records: &[&[u8]]) -> Vec<u8> {
        let record = |data: &&[u8]| field(3, &[vec![1 << 3, 0], field(3, data), field(4, &field(1, b"tag"))].concat());
        let records: Vec<Vec<u8>> = records.iter().map(record).collect();
        let buffer =
            [field(1, b"key"), field(2, b"170141183460469231731687303715884105728"), records.concat()].concat();
        [MAGIC, &buffer, &[0; DIGEST_BYTES]].concat()
    }

    #[test]
    fn records_are_unpacked() {
        let long = vec![b'x'; 300];
        for records in [vec![&b"{\"a\":1}"[..], b"", &long], vec![], vec![b"one"]] {
            assert_eq!(unpack(&aggregate(&records)).as_ref(), Some(&records));
        }
    }

    #[test]
    fn anything_else_is_not_aggregated() {
        let good = aggregate(&[b"{\"a\":1}"]);
        for bytes in [&b"{}"[..], MAGIC, b"", &good[1..], &[MAGIC, &[0xff; 40]].concat()] {
            assert_eq!(unpack(bytes), None, "{bytes:?}");
        }
        // A record without data.
        assert_eq!(unpack(&[MAGIC, &field(3, &[1 << 3, 0]), &[0; DIGEST_BYTES]].concat()), None);
        for cut in MAGIC.len()..good.len() {
            // No cut record panics.
            let _ = unpack(&good[..cut]);
        }
    }
}
