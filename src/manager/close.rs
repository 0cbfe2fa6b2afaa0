//! Closing what is over: emit it, archive it, take it out of the timeline, in this order. A crash between any two steps
//! repeats them with the same content, and loses nothing.
//!
//! A run lists all shards of the due index, reads what is due in small groups, and closes each timeline by itself: one that is
//! slow or fails holds up no other, nor does a shard. A timeline of thousands of sessions is closed in bounded steps, in turn
//! with others of its kind.

mod outbox;
mod queue;
mod report;
mod step;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Semaphore;

use super::SessionManager;
use crate::clock::Clock;
use crate::output::Output;
use crate::session::{Millis, Visitor};
use crate::storage::{Due, Found, Reading, SessionError, SessionStorage};
use outbox::Outbox;
use queue::{PAGE, Queue};
pub use report::{CloseReport, Share};
use step::{Outcome, Step};

/// How long after it is due a timeline is closed by default, in milliseconds: a minute for clocks that differ and for invocations
/// that are still at work on events they received in time.
pub const CLOSE_GRACE_MS: Millis = 60_000;

/// Shards that are listed at once. All have to be asked each minute, most for nothing; each at once is a connection to make.
const LISTED_AT_ONCE: usize = 16;
/// Groups that are read at once: with [`queue::MAX_GROUP`] timelines of the largest size each, 17 MB are on their way.
const READS_AT_ONCE: usize = 6;
/// Writes of the store under way at once.
const WRITES_AT_ONCE: usize = 64;
/// Calls of the store under way at once, at most.
pub(crate) const CLOSE_CALLS_AT_ONCE: usize = LISTED_AT_ONCE + READS_AT_ONCE + WRITES_AT_ONCE;
/// Bytes of a timeline's stored form that is read along with others; a larger one is read by itself. Ordinary ones have less
/// than a thousand.
const SMALL_BYTES: usize = 16 * 1024;
/// Sessions of a small timeline that are closed at once, and corrections; if there are more, it goes on as a large one.
const SMALL_STEP: usize = 32;
/// Sessions of a large timeline that are closed at once, and corrections. Each step writes what remains of the timeline: with
/// smaller ones that would cost more than the archive.
const LARGE_STEP: usize = 512;

/// What all chunks of a run share.
struct Run<'r, S, C, O> {
    manager: &'r SessionManager<S, C>,
    outbox: Outbox<'r, O>,
    lists: Semaphore,
    reads: Semaphore,
    writes: Semaphore,
    /// What was due then is closed.
    now: Millis,
    deadline: Millis,
}

/// Something that a run was waiting for.
enum Done {
    Listed {
        shard: usize,
        due: Result<Vec<Due>, SessionError>,
    },
    /// How it went with each timeline of a group.
    Closed(Vec<(Due, Step)>),
    /// How it went with a large timeline.
    Large(Due, Step),
}

impl<S: SessionStorage, C: Clock> SessionManager<S, C> {
    /// Closes what is due, until nothing is left or the time is up.
    #[doc(alias = "close_due")]
    pub async fn cleanup<O: Output>(&self, output: &O, deadline: Millis) -> CloseReport {
        self.cleanup_share(output, deadline, Share::WHOLE).await
    }

    /// Closes what is due in a share of the shards. Runs that overlap repeat work and do no harm.
    pub async fn cleanup_share<O: Output>(&self, output: &O, deadline: Millis, share: Share) -> CloseReport {
        let run = Run {
            manager: self,
            outbox: Outbox::new(output),
            lists: Semaphore::new(LISTED_AT_ONCE),
            reads: Semaphore::new(READS_AT_ONCE),
            writes: Semaphore::new(WRITES_AT_ONCE),
            now: self.clock.now() - self.close_grace,
            deadline,
        };
        let mut report = CloseReport::default();
        let mut queue = Queue::new(share.shards());
        let mut jobs: FuturesUnordered<BoxFuture<'_, Done>> = FuturesUnordered::new();
        loop {
            run.begin(&mut queue, &mut jobs);
            match jobs.next().await {
                Some(done) => take_note(done, &mut queue, &mut report),
                None => break,
            }
        }
        report.is_incomplete = queue.is_unfinished();
        report.oldest_due_seconds = queue.oldest().map(|due_at| (self.clock.now() - due_at) / 1000);
        report
    }
}

impl<'r, S: SessionStorage, C: Clock, O: Output> Run<'r, S, C, O> {
    /// Begins as much as may be under way at once; nothing once the time is up.
    fn begin<'j>(&'j self, queue: &mut Queue, jobs: &mut FuturesUnordered<BoxFuture<'j, Done>>) {
        if self.manager.is_late(self.deadline) {
            return;
        }
        while let Some((shard, number, after)) = queue.shard_to_list() {
            jobs.push(Box::pin(self.list(shard, number, after)));
        }
        while let Some(group) = queue.group() {
            jobs.push(Box::pin(self.close_group(group)));
        }
        while let Some(due) = queue.large() {
            jobs.push(Box::pin(self.close_large(due)));
        }
    }

    /// Lists the next timelines of a shard.
    async fn list(&self, shard: usize, number: u8, after: Option<Due>) -> Done {
        let _turn = self.lists.acquire().await;
        let due = self.manager.storage.due(number, after.as_ref(), self.now, PAGE).await;
        Done::Listed { shard, due }
    }

    /// Reads a group of timelines at once, and closes each by itself.
    async fn close_group(&self, group: Vec<Due>) -> Done {
        let visitors: Vec<Visitor> = group.iter().map(|due| due.visitor.clone()).collect();
        let found = {
            let _turn = self.reads.acquire().await;
            self.manager.storage.load_within(&visitors, SMALL_BYTES).await
        };
        let steps: Vec<_> = found.into_iter().map(|found| self.close_found(found, SMALL_STEP)).collect();
        let steps = futures_util::future::join_all(steps).await;
        Done::Closed(group.into_iter().zip(steps).collect())
    }

    /// Reads a large timeline, and closes a chunk of it.
    async fn close_large(&self, due: Due) -> Done {
        let found = self.manager.storage.load(std::slice::from_ref(&due.visitor), Reading::Strong).await.pop();
        let found = found.unwrap_or(Ok(None)).map(|stored| stored.map(Found::Timeline));
        let step = Box::pin(self.close_found(found, LARGE_STEP)).await;
        Done::Large(due, step)
    }
}

/// Takes note of what was done.
fn take_note(done: Done, queue: &mut Queue, report: &mut CloseReport) {
    match done {
        Done::Listed { shard, due } => {
            if let Err(error) = &due {
                let (kind, error) = (error.kind_name(), error.with_causes());
                tracing::error!(shard, kind, %error, "due timelines cannot be listed");
                report.unlisted += 1;
            }
            queue.listed(shard, due.ok());
        }
        Done::Closed(steps) => {
            queue.group_is_done(steps.iter().any(|(_, step)| step.is_heavy()));
            report.examined += steps.len();
            for (due, step) in steps {
                if report.add(&step) {
                    queue.leave(&due);
                }
                if matches!(step.outcome, Outcome::TooLarge | Outcome::More) {
                    queue.push_large(due);
                }
            }
        }
        Done::Large(due, step) => {
            queue.large_is_done();
            if report.add(&step) {
                queue.leave(&due);
            }
            if step.outcome == Outcome::More {
                queue.push_large(due);
            }
        }
    }
}
