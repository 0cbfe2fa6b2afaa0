use proptest::prelude::*;

use super::super::ReplayEventType;
use super::super::chunk::{pack, unpack};
use super::*;

/// The session of these tests: from 1,000,000 to 1,000,100 ms; before it, a session that covers the time up to 999,990.
const SPAN: Span = Span { free_from: 999_991, start: 1_000_000, end: 1_000_100 };

fn event(at: Millis, data: &str) -> StoredEvent {
    StoredEvent { at, stated_at: at, event_type: ReplayEventType::Custom, data: data.to_owned() }
}

/// Reads all pages of at most `limit` events, as the store does: chunks in the order of their names, two at a time.
fn read(batches: &[Vec<StoredEvent>], limit: usize) -> Vec<StoredEvent> {
    let mut chunks: Vec<_> = batches.iter().flat_map(|batch| pack(batch.clone())).collect();
    chunks.sort_by_key(|chunk| chunk.name);
    chunks.dedup();
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let limits = PageLimits { events: limit, bytes: 1_000_000, size: |event| event.data.len() };
        let mut pager = Pager::new(SPAN, |at| (SPAN.start..=SPAN.end).contains(&at), after, limits);
        let (from, to) = pager.needs();
        let needed: Vec<_> = chunks.iter().filter(|chunk| chunk.name.last >= from && chunk.name.first <= to).collect();
        let mut next = None;
        for group in needed.chunks(2) {
            if pager.is_full_before(group[0].name.first) {
                next = Some(group[0].name.first);
                break;
            }
            group.iter().for_each(|chunk| pager.add(chunk.name, unpack(&chunk.bytes).unwrap()));
        }
        let page = pager.finish(next);
        assert!(page.events.len() <= limit);
        found.extend(page.events);
        match page.after {
            Some(position) => {
                assert_eq!(ReplayPosition::read(&position.write()), Some(position));
                assert!(after.is_none_or(|before: ReplayPosition| before.place < position.place), "pages move on");
                after = Some(position);
            }
            None => return found,
        }
    }
}

proptest! {
    /// However events are split into batches, in whatever order, with whatever duplicates: pages of every size give every event of the
    /// session once, in order of time.
    #[test]
    fn pages_of_any_size_give_each_event_once(
        batches in prop::collection::vec(prop::collection::vec((999_960_i64..1_000_140, 0_u8..4), 1..12), 0..12),
        limit in 1_usize..9,
    ) {
        let event = |(at, data): &(Millis, u8)| event(*at, &data.to_string());
        let batches: Vec<Vec<StoredEvent>> = batches.iter().map(|batch| batch.iter().map(event).collect()).collect();
        let found = read(&batches, limit);
        prop_assert!(found.is_sorted_by_key(|event| event.at));
        let sorted = |mut events: Vec<StoredEvent>| {
            events.sort_by(|one, other| (one.at, &one.data).cmp(&(other.at, &other.data)));
            events
        };
        let mut wanted = sorted(batches.concat());
        wanted.dedup();
        wanted.retain(|event| (SPAN.free_from..=SPAN.end).contains(&event.at));
        prop_assert_eq!(sorted(found), wanted);
    }
}

/// A session that begins in the middle of a page begins with that page.
#[test]
fn a_replay_begins_with_the_last_whole_page_if_it_needs_one() {
    let of = |at: Millis, kind: u64| event(at, &format!("{{\"type\":{kind},\"timestamp\":{at}}}"));
    let (old, meta, page, change) =
        (of(999_900, FULL_SNAPSHOT), of(999_950, META), of(999_951, FULL_SNAPSHOT), of(999_960, INCREMENTAL));
    let before = vec![old, meta.clone(), page.clone(), change.clone()];
    let with = |own: &[StoredEvent]| read(&[before.clone(), own.to_vec()], 3);
    let own_change = of(1_000_010, INCREMENTAL);
    assert_eq!(with(std::slice::from_ref(&own_change)), [meta, page, change, own_change.clone()]);
    let own_page = of(1_000_005, FULL_SNAPSHOT);
    assert_eq!(with(&[own_page.clone(), own_change.clone()]), [own_page, own_change.clone()]);
    let other = event(1_000_005, "1");
    assert_eq!(with(std::slice::from_ref(&other)), [other]);
    // Without a page there is nothing to begin with.
    assert_eq!(read(&[vec![of(999_960, INCREMENTAL)], vec![own_change.clone()]], 3), [own_change]);
}

#[test]
fn a_position_is_read_as_it_was_written() {
    let name = ChunkName { first: 1, last: 1 << 40, hash: u128::MAX };
    let position = ReplayPosition { begin: 5, place: (7, name, 12) };
    assert_eq!(ReplayPosition::read(&position.write()), Some(position));
    for text in ["", "5", "ü", &"f".repeat(80), &"-".repeat(90), &"g".repeat(90)] {
        assert_eq!(ReplayPosition::read(text), None, "{text}");
    }
}
