//! An erasure in several steps, as the store in DynamoDB makes it: it deletes the timeline, lists the visitor's other items, and
//! deletes these. Other tasks go on between the steps, and a step can be the last one of an invocation that dies.

use std::collections::BTreeSet;

use futures_util::FutureExt;
use session_tracking::model::{FingerprintPage, SessionState};
use session_tracking::session::{Millis, Visitor};
use session_tracking::storage::{Commit, Erased, SessionError, SessionStorage, Stored};
use session_tracking::stored::Room;
use uuid::Uuid;

use super::faulty::FaultyStorage;
use super::store::Store;

/// The step of an erasure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Timeline,
    SomeItems,
    /// All items that were listed are deleted.
    LastItems,
}

/// A step of an erasure that took effect.
#[derive(Debug)]
pub struct Deletion {
    pub visitor: Visitor,
    /// The number of the erasure.
    pub attempt: usize,
    pub part: Part,
    /// Whether anything was deleted.
    pub was_there: bool,
    /// The ids of all sessions that were stored before.
    pub ids: BTreeSet<Uuid>,
}

/// A visitor's items.
struct Items {
    timeline: Option<Stored>,
    archived: Vec<SessionState>,
    pages: Vec<FingerprintPage>,
}

/// The number of deleted sessions, aliases and pages that identify listed items.
type Key = (Uuid, Option<(bool, u32)>);

impl FaultyStorage<'_> {
    pub(super) async fn erase_in_steps(&self, visitor: &Visitor) -> Result<Erased, SessionError> {
        // Sometimes the table throttles the first call for a while, and the SDK repeats it.
        self.engine.step([0, 0, 0, 5_000][self.engine.below(4)]).await;
        let attempt = {
            let mut attempts = self.erasures.lock().unwrap();
            *attempts += 1;
            *attempts
        };
        let mut erased = Erased::default();
        self.faulty(async || {
            erased.timelines = self.delete_timeline(visitor, attempt);
            Ok(())
        })
        .await?;
        let mut listed = BTreeSet::new();
        let mut delete = |part| {
            let items = self.items(visitor);
            if part == Part::SomeItems {
                listed = items.keys().collect();
            }
            let dies = |key: &Key| listed.contains(key) && (part == Part::LastItems || self.engine.below(2) == 0);
            let deleted = self.delete_items(visitor, items, dies, part, attempt);
            erased.archived_sessions += deleted.archived_sessions;
            erased.merged_ids += deleted.merged_ids;
            erased.pages += deleted.pages;
        };
        self.faulty(async || {
            delete(Part::SomeItems);
            Ok(())
        })
        .await?;
        self.faulty(async || {
            delete(Part::LastItems);
            Ok(())
        })
        .await?;
        Ok(erased)
    }

    /// Deletes the timeline alone. Returns how many there were.
    fn delete_timeline(&self, visitor: &Visitor, attempt: usize) -> usize {
        let mut items = self.items(visitor);
        let ids = items.ids();
        let timeline = items.timeline.take();
        let was_there = timeline.is_some();
        self.make_stale(visitor, timeline);
        now(self.inner.erase(visitor));
        put_back(&self.inner, visitor, items);
        let (visitor, part) = (visitor.clone(), Part::Timeline);
        self.deletions.lock().unwrap().push(Deletion { visitor, attempt, part, was_there, ids });
        usize::from(was_there)
    }

    /// Deletes those of the other items that die. Returns the numbers.
    fn delete_items(
        &self,
        visitor: &Visitor,
        mut items: Items,
        dies: impl Fn(&Key) -> bool,
        part: Part,
        attempt: usize,
    ) -> Erased {
        let ids = items.ids();
        let all = now(self.inner.erase(visitor));
        items.archived.retain(|state| !dies(&(state.id, None)));
        items.pages.retain(|page| !dies(&(page.session_id, Some((page.is_late, page.number)))));
        let kept_aliases: usize = items.archived.iter().map(|state| state.aliases.len()).sum();
        let deleted = Erased {
            archived_sessions: all.archived_sessions - items.archived.len(),
            merged_ids: all.merged_ids.saturating_sub(kept_aliases),
            pages: all.pages - items.pages.len(),
            ..Erased::default()
        };
        put_back(&self.inner, visitor, items);
        let (visitor, was_there) = (visitor.clone(), deleted != Erased::default());
        self.deletions.lock().unwrap().push(Deletion { visitor, attempt, part, was_there, ids });
        deleted
    }

    fn items(&self, visitor: &Visitor) -> Items {
        Items {
            timeline: now(self.inner.read(visitor)),
            archived: now(self.inner.archived(visitor, 0, Millis::MAX >> 16)),
            pages: self.all_pages(visitor),
        }
    }

    /// Returns all pages that are stored of a visitor, also those of sessions that are not stored.
    pub fn all_pages(&self, visitor: &Visitor) -> Vec<FingerprintPage> {
        let sessions = self.paged.lock().unwrap().get(visitor).cloned().unwrap_or_default();
        sessions.into_iter().flat_map(|id| now(self.inner.pages(visitor, id))).collect()
    }
}

impl Items {
    fn keys(&self) -> impl Iterator<Item = Key> {
        let pages = self.pages.iter().map(|page| (page.session_id, Some((page.is_late, page.number))));
        self.archived.iter().map(|state| (state.id, None)).chain(pages)
    }

    /// Returns the ids of all sessions, and those that were merged into them.
    fn ids(&self) -> BTreeSet<Uuid> {
        let timeline = self.timeline.iter().map(|stored| &stored.timeline);
        let anchors = timeline.clone().flat_map(|timeline| timeline.anchors.iter().map(|anchor| anchor.id));
        let here = timeline.flat_map(|timeline| timeline.finalized());
        here.chain(&self.archived).flat_map(SessionState::ids).chain(anchors).collect()
    }
}

/// Stores items again as they were.
fn put_back(store: &Store, visitor: &Visitor, items: Items) {
    let expires_at = Millis::MAX >> 16;
    if let Some(Stored { timeline, etag }) = &items.timeline {
        let (replaces, room) = (None, Room::ToClose);
        now(store.commit(Commit { timeline, replaces, etag: *etag, expires_at, room }));
    }
    for state in &items.archived {
        now(store.archive(visitor, state, expires_at));
    }
    now(store.put_pages(visitor, &items.pages, None));
}

/// Returns the result of a call. No store waits here: see [`super::store`].
fn now<T>(call: impl Future<Output = Result<T, SessionError>>) -> T {
    call.now_or_never().unwrap().unwrap()
}
