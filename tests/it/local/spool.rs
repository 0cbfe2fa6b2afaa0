//! The external sort: notes are returned by key and in their order, however often they were written to disk.

use std::collections::BTreeMap;

use crate::support::Seeded;

#[path = "../../../examples/local/replay/spool.rs"]
#[allow(dead_code, reason = "the example uses its default limit")]
mod examined;

use examined::Spool;

#[test]
fn notes_come_back_by_key_in_their_order() {
    let mut seeded = Seeded(7);
    for limit in [1, 50, 300, 5_000, 1_000_000] {
        let mut spool = Spool::with_limit(limit);
        let mut expected: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
        for number in 0..400_u32 {
            // Keys with common prefixes, an empty key, and notes that are empty or longer than a run.
            let key = "k\0b".repeat(seeded.below(3)) + &"x".repeat(seeded.below(4));
            let note = number.to_string().repeat(seeded.below(40)).into_bytes();
            spool.push(&key, &note).unwrap();
            expected.entry(key).or_default().push(note);
        }
        let mut groups = spool.into_groups().unwrap();
        let mut found = Vec::new();
        while let Some(group) = groups.next_group().unwrap() {
            found.push(group);
        }
        assert_eq!(found, expected.into_values().collect::<Vec<_>>(), "{limit}");
    }
}
