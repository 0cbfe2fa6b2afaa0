//! The same with `ingest-managed`: each process is killed with several invocations under way.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::{Either, select};
use session_tracking::clock::{Clock, SystemClock};

use super::{LATENESS_S, MAX_BATCH, TIME_LIMIT, TIMEOUT_S, World, run};
use crate::fake_runtime::{Function, RuntimeEvent};
use crate::managed;
use crate::pipeline::Batch;
use crate::proxy::{Cut, Proxy};
use crate::support::Seeded;

/// The number of invocations that a process has at once.
const INVOCATIONS: usize = 4;
/// The number of processes that are killed. Each loses several invocations.
const KILLS: usize = 100;

/// The invocations that a process works on, by request id.
type UnderWay = HashMap<String, Batch>;

impl World {
    /// Runs processes, one after the other, until all messages are done and enough processes were killed.
    async fn ingest_at_once(&self, seed: u64) {
        let mut random = Seeded(seed);
        let proxy = Proxy::start(&self.endpoint, Duration::ZERO).await;
        while !self.queue.is_done() || self.kills.load(Ordering::Relaxed) < self.min_kills {
            let Some(first) = self.queue.take(MAX_BATCH) else {
                // As in `World::ingest`.
                if self.queue.is_done() {
                    self.queue.redeliver_some();
                }
                SystemClock.sleep(Duration::from_millis(1)).await;
                continue;
            };
            let mut under_way = UnderWay::new();
            let (timeout, lateness) = (TIMEOUT_S.to_string(), LATENESS_S.to_string());
            let rules = [("TIMEOUT_SECONDS", timeout.as_str()), ("LATENESS_SECONDS", lateness.as_str())];
            let mut function = managed::start(&proxy.endpoint, INVOCATIONS, &rules).await;
            function.wait_for_polls(INVOCATIONS).await;
            self.deliver(&function, first, &mut under_way);
            for batch in (1..INVOCATIONS).map_while(|_| self.queue.take(MAX_BATCH)) {
                self.deliver(&function, batch, &mut under_way);
            }
            self.work_until_killed(&mut function, &proxy, &mut random, &mut under_way).await;
            self.kills.fetch_add(usize::from(!under_way.is_empty()), Ordering::Relaxed);
            under_way.into_values().for_each(|batch| self.queue.unanswered(batch));
            self.end(function);
        }
    }

    /// Gives a process an invocation with these messages.
    fn deliver(&self, function: &Function, batch: Batch, under_way: &mut UnderWay) {
        let id = self.invocations.fetch_add(1, Ordering::Relaxed).to_string();
        function.enqueue_as(&id, self.queue.payload(&batch), TIME_LIMIT);
        under_way.insert(id, batch);
    }

    /// Handles answers, with a new invocation for each, until the moment at which the process is to be killed, or until there is
    /// nothing left to do. That moment is a cut request to the database, or a random one within 150 ms.
    async fn work_until_killed(
        &self,
        function: &mut Function,
        proxy: &Proxy,
        random: &mut Seeded,
        under_way: &mut UnderWay,
    ) {
        let cut = (random.below(2) == 0).then(|| (random.below(12), [Cut::Before, Cut::After][random.below(2)]));
        let max_us = 1 + random.below(150_000);
        let delay = Duration::from_micros(random.below(max_us) as u64);
        proxy.plan(cut);
        let mut moment = Box::pin(async {
            match cut {
                Some(_) => proxy.wait_for_cut().await,
                None => SystemClock.sleep(delay).await,
            }
        });
        while !under_way.is_empty() {
            let request = match select(Box::pin(function.next_request()), &mut moment).await {
                Either::Left((request, _)) => Some(request),
                Either::Right(_) => None,
            };
            match request {
                Some((_, RuntimeEvent::Taken)) => {}
                Some((id, RuntimeEvent::Answer(answer))) => {
                    self.queue.answered(under_way.remove(&id).unwrap(), &answer);
                    if let Some(batch) = self.queue.take(MAX_BATCH) {
                        self.deliver(function, batch, under_way);
                    }
                }
                Some(error) => panic!("{error:?}"),
                None => {
                    self.kills_at_a_cut.fetch_add(usize::from(cut.is_some()), Ordering::Relaxed);
                    return;
                }
            }
        }
    }
}

/// `CRASH_KILLS=1000 cargo test --features managed-instances --test it crash::managed -- --nocapture` kills as many as asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::disallowed_methods, reason = "a test's own setting")]
async fn killed_with_several_invocations_under_way() {
    let asked = std::env::var("CRASH_KILLS").ok().and_then(|number| number.parse().ok()).unwrap_or(KILLS);
    for world in 0..asked.div_ceil(KILLS) {
        run(1 + world as u64, KILLS.min(asked), World::ingest_at_once).await;
    }
}
