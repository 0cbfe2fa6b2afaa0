//! Every way through a world: each batch that may come next, in each order, and each action that may come before the batch after
//! it. Ways that begin alike share their beginning, so each step is taken and checked once. The source of an event is chosen when
//! the event is delivered, because it makes no difference before.

use std::collections::BTreeSet;

use session_tracking::model::Kind;
use session_tracking::model::SessionState;
use session_tracking::session::{Millis, Session};
use session_tracking::timeline::{Applied, Closing};

use super::consumer::{CheckResult, ensure};
use super::odometer::Odometer;
use super::run::{Clock, Run};
use super::world::{MAX_EVENTS, SOURCES, Sources, TIMEOUT, World, event_of, members};

/// The checks on a way.
pub trait Check {
    /// Returns when batches are received.
    fn clock(&self) -> Clock;
    /// Checks a run after a batch; `sessions` are those of `after`.
    fn delivered(
        &self,
        before: &Run,
        after: &Run,
        batch: &[usize],
        applied: &Applied,
        sessions: &[Session],
    ) -> CheckResult;
    /// Checks a run at any time.
    fn holds(&self, run: &Run) -> CheckResult;
    /// Checks a run after a close; `emitted` is what was emitted before the close.
    fn closed(&self, emitted: &[SessionState], run: &mut Run, closing: &Closing) -> CheckResult;
    /// Checks a run when everything is delivered and closed.
    fn finished(&self, run: &Run) -> CheckResult;
}

/// What may happen between two batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Between {
    /// Nothing. The closer runs when everything is delivered.
    Nothing,
    /// Each time, a close that finalizes as much as possible.
    Close,
    /// Nothing, a finalization as with many unfinalized events, or a close.
    Each,
    /// Nothing, or a close at any time that makes a difference.
    CloseAnytime,
    /// Nothing or a close, with or without a request before it that ends the session.
    EndRequests,
}

#[derive(Debug, Clone, Copy)]
enum Action {
    Nothing,
    End,
    EndAndClose(Millis),
    Finalize(Millis),
    Close(Millis),
}

/// Walks through worlds and counts the ways.
pub struct Walk<C> {
    pub check: C,
    pub between: Between,
    /// The maximum number of closed sessions that stay in the timeline.
    pub max_closed: usize,
    /// Some of [`SOURCES`].
    pub sources: &'static str,
    /// The number of ways so far.
    pub ways: u64,
}

impl<C: Check> Walk<C> {
    /// Goes every way through a world.
    pub fn world(&mut self, world: &World) {
        self.from(&Run::new(world, self.check.clock(), self.max_closed), 1);
    }

    /// Goes on in every way from a run. `ways` is how many have led to it; they differ only in the order within batches.
    fn from(&mut self, run: &Run, ways: u64) {
        let rest = run.world.all() & !run.delivered;
        let mut batch = rest;
        while batch != 0 {
            let mut odometer = Odometer::default();
            while odometer.next() {
                let sources = self.choose_sources(&mut odometer, run, batch);
                let (next, orders) = self.batch(run, batch, sources);
                if batch == rest {
                    self.ways += ways * orders;
                    finish(&self.check, next);
                } else {
                    for action in actions(self.between, &next) {
                        self.from(&perform(&self.check, next.clone(), action), ways * orders);
                    }
                }
            }
            batch = (batch - 1) & rest;
        }
    }

    /// Chooses the sources of a batch. The rules compare hosts and campaigns only for equality. So of two ways that differ only by
    /// an exchange of the two referrers or the two campaigns, one is enough: that in which the first of them comes first.
    fn choose_sources(&self, odometer: &mut Odometer, run: &Run, batch: usize) -> Sources {
        let mut sources = run.sources;
        let mut used: Vec<char> = members(run.delivered).map(|event| SOURCES[sources[event]]).collect();
        for event in members(batch) {
            let is_allowed = |source: &usize| {
                let is_used = |name| used.contains(&name);
                self.sources.contains(SOURCES[*source])
                    && (SOURCES[*source] != 'B' || is_used('A'))
                    && (SOURCES[*source] != '2' || is_used('1'))
            };
            let allowed: Vec<usize> = (0..SOURCES.len()).filter(is_allowed).collect();
            sources[event] = odometer.one_of(&allowed);
            used.push(SOURCES[sources[event]]);
        }
        sources
    }

    /// Delivers a batch in each order, which must not matter. Returns the number of orders.
    fn batch<'w>(&self, run: &Run<'w>, batch: usize, sources: Sources) -> (Run<'w>, u64) {
        let mut order: Vec<usize> = members(batch).collect();
        let mut next = run.clone();
        let applied = deliver(&self.check, run, &mut next, &order, sources);
        let mut orders = 1;
        while next_permutation(&mut order) {
            orders += 1;
            let (timeline, in_order) = run.applied(&order, &sources, run.time_for(batch));
            let sorted = |event: &usize| &applied.assignments[index_in(batch, *event)];
            let is_same = timeline == next.timeline && in_order.assignments.iter().eq(order.iter().map(sorted));
            assert!(is_same, "the order {order:?} within the batch matters at the end of \"{next}\"");
        }
        (next, orders)
    }
}

/// Goes one way, in the notation of [`super::EXACT_WAYS`].
pub fn replay<C: Check>(check: &C, way: &str, max_closed: usize) {
    let [rules, gaps, names, steps] = way.split('|').collect::<Vec<_>>()[..] else { panic!("{way}") };
    let world = World::parse(&format!("{rules}|{gaps}"));
    let mut sources = [0; MAX_EVENTS];
    for (source, name) in sources.iter_mut().zip(names.trim().chars()) {
        *source = SOURCES.iter().position(|known| *known == name).unwrap_or_default();
    }
    let mut run = Run::new(&world, check.clock(), max_closed);
    for step in steps.split_whitespace() {
        let time = |after: &str| world.at(0) + after.parse::<Millis>().unwrap();
        run = match step.split_at(1) {
            ("!", at) => perform(check, run, Action::Close(time(at))),
            ("~", at) => perform(check, run, Action::Finalize(time(at))),
            ("x", _) => perform(check, run, Action::End),
            _ => {
                let batch: Vec<usize> = step.split_inclusive(|_| true).map(event_of).collect();
                let mut next = run.clone();
                deliver(check, &run, &mut next, &batch, sources);
                next
            }
        };
    }
    if run.delivered == world.all() {
        finish(check, run);
    }
}

fn deliver<C: Check>(check: &C, run: &Run, next: &mut Run, batch: &[usize], sources: Sources) -> Applied {
    let applied = next.deliver(batch, sources);
    let sessions = next.sessions();
    let versions = sessions.iter().try_for_each(|session| next.versions.record(session));
    require(versions.and_then(|()| check.delivered(run, next, batch, &applied, &sessions)), next);
    applied
}

fn perform<'w, C: Check>(check: &C, mut run: Run<'w>, action: Action) -> Run<'w> {
    match action {
        Action::Nothing => {}
        Action::End => {
            // The request comes at this time, too.
            run.now = run.time_for(0);
            let is_active = run.sessions().pop().is_some_and(|last| last.is_active);
            let has_ended = run.end();
            let due_at = run.timeline.due_at;
            let is_due = due_at.is_some() && due_at <= run.timeline.next_due(&run.world.rules);
            let is_right = has_ended == is_active && (!has_ended || is_due);
            let sentence = format!("ended: {has_ended}, active before: {is_active}, due at {due_at:?}");
            require(if is_right { check.holds(&run) } else { Err(sentence) }, &run);
        }
        Action::EndAndClose(now) => run = perform(check, perform(check, run, Action::End), Action::Close(now)),
        Action::Finalize(now) => {
            run.finalize(now);
            require(check.holds(&run), &run);
        }
        Action::Close(now) => {
            let emitted = run.emitted.clone();
            let closing = run.close(now);
            let result = check.closed(&emitted, &mut run, &closing);
            require(result.and_then(|()| check.holds(&run)), &run);
        }
    }
    run
}

/// Closes whenever something is due, until nothing is left.
fn finish<C: Check>(check: &C, mut run: Run) {
    // Each close takes out, or moves forward, at least one session or the corrections of one batch.
    for _ in 0..=3 * run.world.len() {
        let Some(due) = run.timeline.due_at else { break };
        let now = due.max(run.now);
        run = perform(check, run, Action::Close(now));
    }
    require(is_empty(&run).and_then(|()| check.finished(&run)), &run);
}

fn is_empty(run: &Run) -> CheckResult {
    let timeline = &run.timeline;
    ensure!(timeline.due_at.is_none(), "the timeline stays due: {timeline:?}");
    // Keep-alive events outside any session make nothing due.
    let is_in_none = timeline.unfinalized.iter().all(|entry| entry.kind == Kind::KeepAlive);
    let is_empty = is_in_none && timeline.open.is_none() && timeline.anchors.is_empty();
    ensure!(
        is_empty && timeline.ended.is_empty() && timeline.corrections.is_empty(),
        "something is left: {timeline:?}"
    );
    Ok(())
}

fn require(result: CheckResult, run: &Run) {
    if let Err(sentence) = result {
        panic!("{sentence}\nat the end of \"{run}\"");
    }
}

/// Returns the actions that may come before the next batch.
fn actions(between: Between, run: &Run) -> Vec<Action> {
    let now = run.time_for(0);
    match between {
        Between::Nothing => vec![Action::Nothing],
        Between::Close => vec![Action::Close(now)],
        Between::EndRequests => vec![Action::Nothing, Action::End, Action::Close(now), Action::EndAndClose(now)],
        Between::Each => vec![Action::Nothing, Action::Finalize(now), Action::Close(now)],
        Between::CloseAnytime => {
            // What is finalized, and what is over, changes only at these times.
            let changes = |at: Millis| [at, at + 1, at + TIMEOUT, at + TIMEOUT + 1];
            let times = members(run.delivered).flat_map(|event| changes(run.world.at(event)));
            let times: BTreeSet<Millis> = times.map(|at| at + run.world.lateness()).chain([now]).collect();
            let is_next = |at: &Millis| {
                *at >= run.now && *at <= run.latest() && at - run.world.lateness() > run.timeline.watermark
            };
            let closes = times.into_iter().filter(is_next).map(Action::Close);
            std::iter::once(Action::Nothing).chain(closes).collect()
        }
    }
}

/// Returns the index of an event in a sorted batch.
fn index_in(batch: usize, event: usize) -> usize {
    members(batch).take_while(|&other| other < event).count()
}

/// Goes to the lexicographically next order of distinct numbers. Returns false after the last one.
fn next_permutation(order: &mut [usize]) -> bool {
    let Some(at) = order.windows(2).rposition(|pair| pair[0] < pair[1]) else { return false };
    let with = order.iter().rposition(|&other| other > order[at]).unwrap_or(at);
    order.swap(at, with);
    order[at + 1..].reverse();
    true
}

#[test]
fn every_order_once() {
    let mut order = [0, 1, 2, 3];
    let mut orders = vec![order];
    while next_permutation(&mut order) {
        orders.push(order);
    }
    orders.dedup();
    assert_eq!((orders.len(), orders[23]), (24, [3, 2, 1, 0]));
}
