//! Closing sessions that are over: emit them, archive those that cannot stay in their timeline, write the timeline, in this order.
//! After a crash between two steps, a later run repeats the steps with the same content, and nothing is lost.
//!
//! A run lists all shards of the due index, reads due timelines in small groups, and closes each timeline by itself. A timeline
//! or a shard that is slow or fails does not hold up the others. A timeline with thousands of sessions is closed in bounded
//! steps, and such timelines take turns.

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
use crate::config::Projects;
use crate::output::Output;
use crate::session::{Millis, Visitor};
use crate::storage::{Due, Found, Reading, SessionError, SessionStorage};
use outbox::Outbox;
use queue::{PAGE_SIZE, Queue};
pub use report::{CloseReport, Share};
use step::{Step, StepOutcome};

/// How long after it is due a timeline is closed by default, in milliseconds. One minute allows for clocks that differ, and for
/// invocations that still process events that they received in time.
pub const CLOSE_GRACE_MS: Millis = 60_000;

/// The maximum number of shards that are listed concurrently. All have to be listed each minute, and most of them are empty. Each
/// concurrent call needs a connection.
const LISTS_AT_ONCE: usize = 16;
/// The maximum number of groups that are read concurrently. With [`queue::MAX_GROUP`] timelines of the largest size each, that is
/// 17 MB in transit.
const READS_AT_ONCE: usize = 6;
/// The maximum number of concurrent writes.
const WRITES_AT_ONCE: usize = 64;
/// The maximum number of concurrent storage calls.
pub(crate) const CLOSE_CALLS_AT_ONCE: usize = LISTS_AT_ONCE + READS_AT_ONCE + WRITES_AT_ONCE;
/// The maximum size, in bytes of its stored form, of a timeline that is read in a group. A larger one is read by itself. An
/// ordinary one has less than a thousand.
const MAX_SMALL_BYTES: usize = 16 * 1024;
/// The maximum number of sessions, and of corrections, that are closed in one step of a small timeline. If it has more, the rest
/// is closed like that of a large one.
const MAX_SMALL_STEP: usize = 32;
/// The maximum number of sessions, and of corrections, that are closed in one step of a large timeline. Each step writes the
/// remaining timeline, so with smaller steps these writes would cost more than the archive.
const MAX_LARGE_STEP: usize = 512;

/// What all tasks of a run share.
struct Run<'r, S, C, O> {
    manager: &'r SessionManager<S, C>,
    outbox: Outbox<'r, O>,
    lists: Semaphore,
    reads: Semaphore,
    writes: Semaphore,
    /// The time up to which due timelines are closed: the clock's time less the grace.
    now: Millis,
    deadline: Millis,
}

/// The result of a finished task of a run.
enum Done {
    /// A shard was listed.
    Listed {
        /// Its index in the queue.
        shard: usize,
        due: Result<Vec<Due>, SessionError>,
    },
    /// Each timeline of a group was closed, with this result.
    Closed(Vec<(Due, Step)>),
    /// A step of a large timeline was closed, with this result.
    Large(Due, Step),
}

impl<S: SessionStorage, C: Clock> SessionManager<S, C> {
    /// Closes all timelines that are due. Begins nothing less than [`DEADLINE_MARGIN_MS`](super::DEADLINE_MARGIN_MS) before
    /// `deadline`.
    #[doc(alias = "close_due")]
    pub async fn cleanup<O: Output>(&self, output: &O, deadline: Millis) -> CloseReport {
        self.cleanup_share(output, deadline, Share::WHOLE).await
    }

    /// Closes the timelines that are due in a share of the shards, like [`SessionManager::cleanup`]. Overlapping runs do some
    /// work twice, which is harmless.
    pub async fn cleanup_share<O: Output>(&self, output: &O, deadline: Millis, share: Share) -> CloseReport {
        let run = Run {
            manager: self,
            outbox: Outbox::new(output),
            lists: Semaphore::new(LISTS_AT_ONCE),
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
                Some(done) => record(done, &mut queue, &mut report, self.projects()),
                None => break,
            }
        }
        report.is_incomplete = queue.is_unfinished();
        report.oldest_due_seconds = queue.oldest().map(|due_at| (self.clock.now() - due_at) / 1000);
        report
    }
}

impl<S: SessionStorage, C: Clock, O: Output> Run<'_, S, C, O> {
    /// Begins as many tasks as may run concurrently; none once the time is up.
    fn begin<'j>(&'j self, queue: &mut Queue, jobs: &mut FuturesUnordered<BoxFuture<'j, Done>>) {
        if self.manager.is_time_up(self.deadline) {
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

    /// Lists the next due timelines of a shard, after `after`.
    async fn list(&self, shard: usize, number: u8, after: Option<Due>) -> Done {
        let _turn = self.lists.acquire().await;
        let due = self.manager.storage.due(number, after.as_ref(), self.now, PAGE_SIZE).await;
        Done::Listed { shard, due }
    }

    /// Reads a group of timelines with one call, and closes each by itself.
    async fn close_group(&self, group: Vec<Due>) -> Done {
        let visitors: Vec<Visitor> = group.iter().map(|due| due.visitor.clone()).collect();
        let found = {
            let _turn = self.reads.acquire().await;
            self.manager.storage.load_within(&visitors, MAX_SMALL_BYTES).await
        };
        let steps: Vec<_> = found.into_iter().map(|found| self.close_found(found, MAX_SMALL_STEP)).collect();
        let steps = futures_util::future::join_all(steps).await;
        Done::Closed(group.into_iter().zip(steps).collect())
    }

    /// Reads a large timeline and closes one step of it.
    async fn close_large(&self, due: Due) -> Done {
        let found = self.manager.storage.load(std::slice::from_ref(&due.visitor), Reading::Strong).await.pop();
        let found = found.unwrap_or(Ok(None)).map(|stored| stored.map(Found::Timeline));
        let step = Box::pin(self.close_found(found, MAX_LARGE_STEP)).await;
        Done::Large(due, step)
    }
}

/// Records the result of a task in the queue and in the report.
fn record(done: Done, queue: &mut Queue, report: &mut CloseReport, projects: &Projects) {
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
                if report.add(&step, &due.visitor.project, projects) {
                    queue.leave(&due);
                }
                if matches!(step.outcome, StepOutcome::TooLarge | StepOutcome::More) {
                    queue.push_large(due);
                }
            }
        }
        Done::Large(due, step) => {
            queue.large_is_done();
            if report.add(&step, &due.visitor.project, projects) {
                queue.leave(&due);
            }
            if step.outcome == StepOutcome::More {
                queue.push_large(due);
            }
        }
    }
}
