use super::*;

#[test]
fn an_id_contains_its_time_and_its_visitor() {
    let visitor = Visitor::new("u1");
    let id = session_id(visitor.bits(), 1_773_144_000_123, "e1", 0);
    assert_eq!(id.get_version_num(), 7);
    assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
    assert_eq!(id.as_u128() >> 80, 1_773_144_000_123);
    assert_eq!(visitor_bits(id), visitor.bits());
    assert_ne!(id, session_id(visitor.bits(), 1_773_144_000_123, "e1", 1));
}

/// Values that are derived from hashes are stored and emitted, so they must never change.
#[test]
fn hashes_never_change() {
    let (here, there) = (Visitor::new("u1"), Visitor { project: "p".to_owned(), ..Visitor::new("u1") });
    assert_eq!([here.bits(), there.bits()], [0x9205_d694_bcc7_27e6, 0xb2fc_a992_8434_26ff]);
    let id = |salt| session_id(here.bits(), 1_773_144_000_123, "e1", salt).to_string();
    assert_eq!([id(0), id(1)], ["019cd79e-467b-7aef-9205-d694bcc727e6", "019cd79e-467b-7af0-9205-d694bcc727e6"]);
    assert_eq!(fingerprint("e1"), 0x2402_3b50_eaef);
    assert_eq!([&here, &there].map(crate::storage::due_shard), [38, 63]);
}

#[test]
fn one_page_and_nothing_else_is_a_bounce() {
    let bounce = |page_views, event_count| {
        let mut state = crate::model::SessionState::empty(Uuid::nil());
        (state.facts.page_views, state.facts.event_count) = (page_views, event_count);
        state.ended_session(&Visitor::new("u")).is_bounce()
    };
    assert_eq!([(1, 1), (1, 2), (2, 2)].map(|(views, events)| bounce(views, events)), [true, false, false].map(Some));
    assert_eq!([bounce(0, 0), bounce(0, 1)], [None, None]);
}
