//! Every way through a world: each batch that may come next, in each order, with or without a close before the one after it.
//! Ways that begin alike share their beginning, so each step is taken, and checked, once; and what an event says of its source
//! is chosen when it is delivered: before that it makes no difference.

use std::collections::BTreeSet;

use session_tracking::model::Kind;
use session_tracking::model::SessionState;
use session_tracking::session::{Millis, Session};
use session_tracking::timeline::{Applied, Closing};

use super::consumer::{Verdict, ensure};
use super::odometer::Odometer;
use super::run::{Clock, Run};
use super::world::{MOST, SOURCES, Sources, TIMEOUT, World, event_of, members};

/// What has to hold on the way.
pub trait Check {
    /// When batches are received.
    fn clock(&self) -> Clock;
    /// After a batch was delivered; `sessions` are those of `after`.
    fn delivered(&self, before: &Run, after: &Run, batch: &[usize], applied: &Applied, sessions: &[Session])
    -> Verdict;
    /// At any time.
    fn holds(&self, run: &Run) -> Verdict;
    /// After a close; `archived` is what was closed before.
    fn closed(&self, archived: &[SessionState], run: &mut Run, closing: &Closing) -> Verdict;
    /// When everything is delivered and closed.
    fn finished(&self, run: &Run) -> Verdict;
}

/// What may happen between two batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Between {
    /// Nothing: the close function comes when everything is delivered.
    Nothing,
    /// A close that finalizes as much as it may, each time.
    Close,
    /// Nothing, a settling as on a long unfinalized events, or a close: each time each of them.
    Each,
    /// Nothing, or a close at any time that makes a difference.
    Anywhen,
    /// Nothing or a close, each with or without a call before it that ends the session.
    Ends,
}

#[derive(Debug, Clone, Copy)]
enum Then {
    Nothing,
    End,
    EndAndClose(Millis),
    Settle(Millis),
    Close(Millis),
}

/// Walks through worlds and counts the ways.
pub struct Walk<C> {
    pub check: C,
    pub between: Between,
    /// Some of [`SOURCES`].
    pub sources: &'static str,
    /// Ways through worlds: sources, arrival order, batch split and what happens in between.
    pub ways: u64,
}

impl<C: Check> Walk<C> {
    /// Goes every way through a world.
    pub fn world(&mut self, world: &World) {
        self.from(&Run::new(world, self.check.clock()), 1);
    }

    /// Goes on in every way. `ways` is how many have led here: they differ in the order within batches only.
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
                    for then in thens(self.between, &next) {
                        self.from(&go_on(&self.check, next.clone(), then), ways * orders);
                    }
                }
            }
            batch = (batch - 1) & rest;
        }
    }

    /// Chooses the sources of a batch. The rules compare hosts and campaigns only for equality, so of the ways that
    /// differ by an exchange of the two referrers or the two campaigns one is gone: where the first comes first.
    fn choose_sources(&self, odometer: &mut Odometer, run: &Run, batch: usize) -> Sources {
        let mut sources = run.sources;
        let mut emitted: Vec<char> = members(run.delivered).map(|event| SOURCES[sources[event]]).collect();
        for event in members(batch) {
            let is_open = |source: &usize| {
                let is_emitted = |name| emitted.contains(&name);
                self.sources.contains(SOURCES[*source])
                    && (SOURCES[*source] != 'B' || is_emitted('A'))
                    && (SOURCES[*source] != '2' || is_emitted('1'))
            };
            let open: Vec<usize> = (0..SOURCES.len()).filter(is_open).collect();
            sources[event] = odometer.one_of(&open);
            emitted.push(SOURCES[sources[event]]);
        }
        sources
    }

    /// Delivers a batch in each order, which must not matter; says in how many.
    fn batch<'w>(&self, run: &Run<'w>, batch: usize, sources: Sources) -> (Run<'w>, u64) {
        let mut order: Vec<usize> = members(batch).collect();
        let mut next = run.clone();
        let applied = deliver(&self.check, run, &mut next, &order, sources);
        let mut orders = 1;
        while next_permutation(&mut order) {
            orders += 1;
            let (timeline, in_order) = run.applied(&order, &sources, run.time_for(batch));
            let sorted = |event: &usize| &applied.assignments[place(batch, *event)];
            let is_same = timeline == next.timeline && in_order.assignments.iter().eq(order.iter().map(sorted));
            assert!(is_same, "the order {order:?} within the batch matters at the end of \"{next}\"");
        }
        (next, orders)
    }
}

/// Goes one way, as [`Run`] writes it.
pub fn go<C: Check>(check: &C, text: &str) {
    let [rules, gaps, names, steps] = text.split('|').collect::<Vec<_>>()[..] else { panic!("{text}") };
    let world = World::parse(&format!("{rules}|{gaps}"));
    let mut sources = [0; MOST];
    for (source, name) in sources.iter_mut().zip(names.trim().chars()) {
        *source = SOURCES.iter().position(|known| *known == name).unwrap_or_default();
    }
    let mut run = Run::new(&world, check.clock());
    for step in steps.split_whitespace() {
        let time = |text: &str| world.at(0) + text.parse::<Millis>().unwrap();
        run = match step.split_at(1) {
            ("!", at) => go_on(check, run, Then::Close(time(at))),
            ("~", at) => go_on(check, run, Then::Settle(time(at))),
            ("x", _) => go_on(check, run, Then::End),
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
    let accounts = sessions.iter().try_for_each(|session| next.accounts.take(session));
    must(accounts.and_then(|()| check.delivered(run, next, batch, &applied, &sessions)), next);
    applied
}

fn go_on<'w, C: Check>(check: &C, mut run: Run<'w>, then: Then) -> Run<'w> {
    match then {
        Then::Nothing => {}
        Then::End => {
            // The call comes at this time, too.
            run.now = run.time_for(0);
            let is_active = run.sessions().pop().is_some_and(|last| last.is_active);
            let has_ended = run.end();
            let due_at = run.timeline.due_at;
            let is_due = due_at.is_some() && due_at <= run.timeline.next_due(&run.world.rules);
            let is_right = has_ended == is_active && (!has_ended || is_due);
            let sentence = format!("ended: {has_ended}, active before: {is_active}, due at {due_at:?}");
            must(if is_right { check.holds(&run) } else { Err(sentence) }, &run);
        }
        Then::EndAndClose(now) => run = go_on(check, go_on(check, run, Then::End), Then::Close(now)),
        Then::Settle(now) => {
            run.finalize(now);
            must(check.holds(&run), &run);
        }
        Then::Close(now) => {
            let archived = run.archive.clone();
            let closing = run.close(now);
            let verdict = check.closed(&archived, &mut run, &closing);
            must(verdict.and_then(|()| check.holds(&run)), &run);
        }
    }
    run
}

/// Closes as the close function does, whenever something is due, until nothing is left.
fn finish<C: Check>(check: &C, mut run: Run) {
    // Each close takes out or brings forward at least one session or one batch's corrections.
    for _ in 0..=3 * run.world.len() {
        let Some(due) = run.timeline.due_at else { break };
        let now = due.max(run.now);
        run = go_on(check, run, Then::Close(now));
    }
    must(is_empty(&run).and_then(|()| check.finished(&run)), &run);
}

fn is_empty(run: &Run) -> Verdict {
    let timeline = &run.timeline;
    ensure!(timeline.due_at.is_none(), "it never comes to an end: {timeline:?}");
    // Keep-alive events in no session make nothing due; what they hang on would.
    let is_in_none = timeline.unfinalized.iter().all(|entry| entry.kind == Kind::KeepAlive);
    let is_empty = is_in_none && timeline.open.is_none() && timeline.anchors.is_empty();
    ensure!(
        is_empty && timeline.ended.is_empty() && timeline.corrections.is_empty(),
        "something is left: {timeline:?}"
    );
    Ok(())
}

fn must(verdict: Verdict, run: &Run) {
    if let Err(sentence) = verdict {
        panic!("{sentence}\nwent wrong at the end of \"{run}\"");
    }
}

/// What may happen before the next batch.
fn thens(between: Between, run: &Run) -> Vec<Then> {
    let now = run.time_for(0);
    match between {
        Between::Nothing => vec![Then::Nothing],
        Between::Close => vec![Then::Close(now)],
        Between::Ends => vec![Then::Nothing, Then::End, Then::Close(now), Then::EndAndClose(now)],
        Between::Each => vec![Then::Nothing, Then::Settle(now), Then::Close(now)],
        Between::Anywhen => {
            // What is finalized, and what is over, changes at these horizons only.
            let horizons = |at: Millis| [at, at + 1, at + TIMEOUT, at + TIMEOUT + 1];
            let times = members(run.delivered).flat_map(|event| horizons(run.world.at(event)));
            let times: BTreeSet<Millis> = times.map(|at| at + run.world.lateness()).chain([now]).collect();
            let is_next = |at: &Millis| {
                *at >= run.now && *at <= run.latest() && at - run.world.lateness() > run.timeline.watermark
            };
            let closes = times.into_iter().filter(is_next).map(Then::Close);
            std::iter::once(Then::Nothing).chain(closes).collect()
        }
    }
}

/// The place of an event in a sorted batch.
fn place(batch: usize, event: usize) -> usize {
    members(batch).take_while(|&other| other < event).count()
}

/// The next order of distinct numbers, in the order of words in a dictionary; false after the last one.
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
