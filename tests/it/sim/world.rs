//! One simulated world. It is made from a seed, run until everything is at rest, and checked at every step.

use std::future::Future;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use serde_json::{Value, json};
use session_tracking::config::{GivenRules, Projects};
use session_tracking::manager::SessionManager;
use session_tracking::session::{Millis, Visitor};
use session_tracking::trigger::Ingest;

use super::check::Checker;
use super::end_requests::{EndRequest, EndRequests};
use super::engine::Engine;
use super::erasures::{Erasure, Erasures, Moment};
use super::faulty::{FaultyOutput, FaultyStorage, SkewedClock};
use super::source::{SimEvent, Sources, Trigger};
use super::store::Store;
use crate::storage::COLLIDING_IDS;
use crate::support::Seeded;

const START: Millis = 1_773_144_000_000;
/// The allowed lateness. No delivery is delayed longer than this by faults, so everything is exact.
const LATENESS_S: i64 = 3_600;
/// A project with rules of its own. Some visitors belong to it in half of the worlds.
pub const OTHER_PROJECT: &str = "other";
/// The time limit of an invocation.
pub const INVOCATION_MS: Millis = 30_000;
/// The number of worlds at the edge: their allowed lateness is about as long as their slowest event takes. First those in which it
/// was too short, then those in which it was enough.
pub static AT_THE_EDGE: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
/// The number of fingerprints on a page, by seed. The worlds are small, and so are their pages.
const PAGE_SIZES: [usize; 5] = [1, 2, 5, 64, 64];
/// The maximum sizes of timelines with closed sessions, by seed: at rest, and with events. With some, closed sessions leave the
/// timeline sooner than in the service, or never stay in it.
const CLOSED_BYTES: [(usize, usize); 4] = [(512, 928), (400, 300), (2_000, 2_000), (0, 0)];
/// More steps than any world needs.
const MAX_STEPS: usize = 200_000;
/// One world of this many is managed.
const MANAGED_EVERY: u64 = 4;

type Worker<'w> = Ingest<&'w FaultyStorage<'w>, &'w SkewedClock<'w>, &'w FaultyOutput<'w>>;
type Running<'w> = Pin<Box<dyn Future<Output = String> + 'w>>;

/// What an invocation does.
enum Job {
    Close,
    Ingest(Trigger, Vec<usize>),
    /// Handles a request that ends a session.
    EndSession {
        request: usize,
        worker: usize,
    },
    /// Handles a request that erases a visitor.
    Erase(usize),
    /// It goes on with these messages after its time limit. Its caller was told that it failed.
    GivenUp(Vec<usize>),
}

struct Task<'w> {
    future: Running<'w>,
    job: Job,
    /// When Lambda ends it, or gives it up.
    ends_at: Millis,
    /// The step of the world, and the time, at which it began.
    began: (u64, Millis),
}

/// Whether a task was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a seed decides.
pub struct Plan {
    pub projects: Projects,
    pub events: Vec<SimEvent>,
    workers: usize,
    faults: usize,
    kills: usize,
    brown_out: std::ops::Range<Millis>,
    close_every: Millis,
    skew: usize,
    /// How far the closer's clock is ahead, in addition to `skew`.
    closer_ahead: Millis,
    /// Whether the oracle applies: no event is late.
    is_exact: bool,
    /// Whether all invocations are of one process at a time, which has several of them at once, as on Lambda Managed Instances. An
    /// invocation then goes on after its time limit, and a crash ends all that are under way.
    is_managed: bool,
    /// Whether the oracle applies if no event took longer than the allowed lateness, from its event time until it was applied.
    is_edge: bool,
}

impl Plan {
    fn new(seed: u64, random: &mut Seeded) -> Self {
        // By the seed, so that the other worlds are the same as without such worlds.
        let is_managed = seed.is_multiple_of(MANAGED_EVERY);
        let timeout = [10, 60, 600][random.below(3)];
        // In a quarter of the worlds, events come later than the allowed lateness, or the closer's clock is far ahead.
        let is_exact = random.below(4) > 0;
        let lateness = if is_exact || random.below(2) == 0 { LATENESS_S } else { 20 };
        // At the edge, every clock is right to within seconds.
        let is_edge = !is_exact && random.below(2) == 0;
        let lateness = if is_edge { 60 + random.below(840) as i64 } else { lateness };
        let boundary = ["inclusive", "exclusive"][random.below(2)];
        // `click` and `$screen` can be keep-alive or passive events, too.
        let (passive, keep_alive) = [
            (json!([]), json!(["$pageleave"])),
            (json!(["click"]), json!(["$pageleave", "$screen"])),
            (json!(["$screen"]), json!(["click"])),
            (json!(["$pageleave"]), json!([])),
        ][random.below(8).saturating_sub(4)]
        .clone();
        let internal_hosts = [vec![], vec!["*.b.test"], vec!["https://blog.shop.test/"]][random.below(3)].clone();
        let direct_then_source = ["continue", "split", "upgrade"][random.below(3)];
        let rules = json!({
            "timeout_seconds": timeout,
            "max_duration_seconds": timeout * if random.below(2) == 0 { 3 } else { 100 },
            "lateness_seconds": lateness,
            "boundary": boundary,
            "direct_then_source": direct_then_source,
            "first_campaign": (["continue", "split"][random.below(2)]),
            "internal_campaigns": (["split", "ignore"][random.below(2)]),
            "referrer_match": (["host", "site"][random.below(2)]),
            "utm_ignore_case": random.below(2) == 0,
            "internal_hosts": internal_hosts,
            "passive_events": passive,
            "keep_alive_events": keep_alive,
            "max_events": (random.below(4) == 0).then_some(3),
        });
        let mut events = events(random, timeout * 1000);
        // In half of the worlds that are not exact, some events are as old as offline queues and wrong clocks make them.
        if !is_exact && random.below(2) == 0 {
            make_some_old(random, &mut events);
        }
        let (projects, has_other) = projects(random, rules, timeout);
        if has_other {
            events
                .iter_mut()
                .for_each(|event| event.visitor.project = project_of(&event.visitor.distinct_id).to_owned());
        }
        let brown_out_at = START + random.below(300_000) as Millis;
        Self {
            projects,
            events,
            workers: 1 + random.below(4) + if is_managed { 2 } else { 0 },
            faults: [0, 20, 100, 250][random.below(4)],
            kills: [0, 10, 40][random.below(3)],
            brown_out: if random.below(4) == 0 { brown_out_at..brown_out_at + 600_000 } else { 0..0 },
            close_every: [60_000, 300_000, 1_200_000][random.below(3)],
            skew: [0, 2_000, 25_000][random.below(3)],
            closer_ahead: if is_exact || is_edge { 0 } else { random.below(7_200_000) as Millis },
            is_managed,
            is_exact,
            is_edge,
        }
    }
}

/// Returns the rules of a world, and whether there is [`OTHER_PROJECT`]. Its timeout and maximum duration are drawn anew, and
/// sometimes its other rules are the defaults.
fn projects(random: &mut Seeded, rules: Value, timeout: i64) -> (Projects, bool) {
    let lateness = rules["lateness_seconds"].clone();
    let service = GivenRules::of_json(rules).unwrap();
    if random.below(2) == 0 {
        return (service.read().unwrap().into(), false);
    }
    let other_timeout = [10, 60, 600, timeout / 2, timeout * 2][random.below(5)];
    let mut own = json!({
        "timeout_seconds": other_timeout,
        "max_duration_seconds": other_timeout * if random.below(2) == 0 { 3 } else { 100 },
        "boundary": (["inclusive", "exclusive"][random.below(2)]),
    });
    if random.below(3) == 0 {
        own["passive_events"] = json!(["click"]);
        own["keep_alive_events"] = json!(["$screen"]);
    }
    own["lateness_seconds"] = lateness;
    let projects = json!({ OTHER_PROJECT: { "rules": own } });
    (Projects::from_json(&service, &projects.to_string()).unwrap(), true)
}

/// Returns the project of a visitor in a world with [`OTHER_PROJECT`].
fn project_of(distinct_id: &str) -> &'static str {
    if matches!(distinct_id, "v1" | "short") { OTHER_PROJECT } else { "" }
}

/// Makes some events arrive hours after their event time, together or one by one. A wrong clock sets some back by three years.
fn make_some_old(random: &mut Seeded, events: &mut [SimEvent]) {
    let hours = |random: &mut Seeded| random.below(6 * 3_600_000) as Millis;
    let received_at = START + hours(random);
    let is_clock_wrong = random.below(4) == 0;
    for event in events {
        match random.below(4) {
            0 | 1 => event.arrives_at = received_at.max(event.at),
            2 if is_clock_wrong => event.at -= 3 * 365 * 86_400_000,
            2 => event.arrives_at = event.at + hours(random),
            _ => {}
        }
    }
}

/// Returns one of a world's visitors. With `have_equal_bits`, the first two have equal hash bits.
fn visitor(number: usize, have_equal_bits: bool) -> Visitor {
    match COLLIDING_IDS.get(number) {
        Some(id) if have_equal_bits => Visitor::new(id),
        _ => Visitor::new(&format!("v{number}")),
    }
}

/// Draws events over the gaps that matter, with and without a source. They arrive up to five minutes after their event time.
fn events(random: &mut Seeded, timeout: Millis) -> Vec<SimEvent> {
    let visitors = 1 + random.below(3);
    let have_equal_bits = visitors > 1 && random.below(3) == 0;
    let count = 2 + random.below(9);
    let mut at = START;
    let mut events = Vec::with_capacity(count);
    for index in 0..count {
        at += [0, 1, timeout / 3, timeout - 1, timeout, timeout + 1, 2 * timeout + 1][random.below(7)];
        let has_source = random.below(3) == 0;
        events.push(SimEvent {
            visitor: visitor(random.below(visitors), have_equal_bits),
            uuid: format!("{:02}-{index}", random.below(100)),
            name: ["$pageview", "click", "$pageview", "click", "$pageleave", "$screen"][random.below(6)],
            at,
            arrives_at: at + random.below(300_000) as Millis * random.below(2) as Millis,
            url: (random.below(4) > 0).then(|| {
                let campaign = ["", "?utm_source=ads", "#/r?UTM_Source=Ads", "#utm_source=mail"];
                format!("https://shop.test/{index}{}", campaign[if has_source { random.below(4) } else { 0 }])
            }),
            referrer: [
                None,
                Some("https://a.test/"),
                Some("https://www.b.test/x"),
                Some("https://m.a.test/"),
                Some("https://blog.shop.test/"),
                Some("https://shop.test/y"),
            ][if has_source { random.below(6) } else { 0 }],
            utm: [None, None, Some("ads"), Some("mail"), Some("ADS")][if has_source { random.below(5) } else { 0 }],
            is_poison: random.below(20) == 0,
            is_bare: false,
        });
    }
    if timeout == 10_000 && random.below(6) == 0 {
        events.extend(short_sessions(random, events.len(), at, timeout));
    }
    if timeout > 10_000 && random.below(8) == 0 {
        events.extend(long_visit(random, events.len(), timeout));
    }
    events
}

/// Returns a visit of so many events that most are finalized while it goes on.
fn long_visit(random: &mut Seeded, first: usize, timeout: Millis) -> Vec<SimEvent> {
    let mut at = START;
    let mut event = |index: usize| {
        at += [0, timeout / 3, timeout - 1, timeout][random.below(4)];
        SimEvent {
            visitor: Visitor::new("long"),
            uuid: format!("l-{}", first + index),
            name: ["$pageview", "click"][random.below(2)],
            at,
            arrives_at: at + random.below(300_000) as Millis * random.below(2) as Millis,
            url: None,
            referrer: None,
            utm: None,
            is_poison: false,
            is_bare: false,
        }
    };
    (0..40).map(&mut event).collect()
}

/// Returns more sessions of one visitor than a step of the close function takes. They arrive at one time.
fn short_sessions(random: &mut Seeded, first: usize, from: Millis, timeout: Millis) -> Vec<SimEvent> {
    let count = 34 + random.below(30);
    let arrives_at = from + count as Millis * (timeout + 1);
    let event = |index: usize| SimEvent {
        visitor: Visitor::new("short"),
        uuid: format!("s-{}", first + index),
        name: "$pageview",
        at: from + index as Millis * (timeout + 1),
        arrives_at,
        url: None,
        referrer: None,
        utm: None,
        is_poison: false,
        is_bare: false,
    };
    (0..count).map(event).collect()
}

/// Runs the world of a seed. Returns the lines that its consumer has read.
pub fn run(seed: u64, store: Store, is_verbose: bool) -> Vec<Value> {
    let mut random = Seeded(seed ^ 0x5eed_5eed);
    let mut plan = Plan::new(seed, &mut random);
    let sources = Sources::from_events(&plan.events, &mut random);
    // If a worker's clock is behind, it takes a message to be received at its own time, which differs from delivery to delivery.
    let is_stripped = plan.skew == 0 && random.below(3) == 0;
    if is_stripped {
        sources.strip(&mut plan.events, &mut random);
    }
    let engine = Engine::new(seed, START);
    engine.state().brown_out = plan.brown_out.clone();
    engine.state().faults = plan.faults;
    let storage = FaultyStorage::new(&engine, store);
    let (output, rejects) = (FaultyOutput::new(&engine), FaultyOutput::new(&engine));
    let clocks: Vec<SkewedClock<'_>> = (0..=plan.workers)
        .map(|worker| {
            let ahead = if worker == plan.workers { plan.closer_ahead } else { 0 };
            SkewedClock { engine: &engine, skew: Mutex::new(ahead + skew(&mut random, plan.skew)) }
        })
        .collect();
    let (at_rest, with_events) = CLOSED_BYTES[seed as usize / PAGE_SIZES.len() % CLOSED_BYTES.len()];
    let workers: Vec<Worker<'_>> = clocks
        .iter()
        .map(|clock| Ingest {
            manager: SessionManager::with_clock(plan.projects.clone(), &storage, clock)
                .with_page_size(PAGE_SIZES[seed as usize % PAGE_SIZES.len()])
                .with_closed_bytes(at_rest, with_events),
            output: &output,
            rejects: &rejects,
            origins: Default::default(),
            public: Default::default(),
        })
        .collect();
    let mut world = World {
        sources,
        end_requests: EndRequests::plan(
            &plan.events,
            plan.projects.default_rules().timeout.num_milliseconds(),
            &mut random,
        ),
        checker: Checker::new(&plan.events, &plan.projects, plan.skew as Millis, plan.is_exact, is_verbose),
        erasures: Erasures::plan(
            &plan.events,
            plan.projects.default_rules().timeout.num_milliseconds(),
            plan.projects.default_rules().lateness.num_milliseconds(),
            // Random numbers of their own, so that the other worlds are the same as without such worlds.
            &mut Seeded(seed ^ 0xe4a5_ed00),
        ),
        steps: 0,
        tasks: Vec::new(),
        next_close: START + plan.close_every,
        plan: &plan,
        engine: &engine,
        storage: &storage,
        output: &output,
        workers: &workers,
        clocks: &clocks,
        random,
        process: 0,
        slowest_ms: 0,
    };
    let ended = (0..MAX_STEPS).any(|_| world.step().is_break());
    let World { sources, end_requests, erasures, .. } = &world;
    assert!(ended, "the world does not come to rest: {:#?}, {end_requests:#?}, {erasures:#?}", sources.messages);
    let is_enough = world.slowest_ms <= plan.projects.default_rules().lateness.num_milliseconds();
    if plan.is_edge {
        AT_THE_EDGE[usize::from(is_enough)].fetch_add(1, Ordering::Relaxed);
    }
    world.checker.is_exact |= plan.is_edge && is_enough;
    let lines = world.checker.lines(&output.lines.lock().unwrap());
    let reader = SessionManager::with_clock(plan.projects.clone(), &storage.inner, &clocks[0]);
    world.checker.erased_at_rest(&storage, &reader, &lines);
    world.checker.at_rest(&storage, lines, &rejects.lines.lock().unwrap())
}

fn skew(random: &mut Seeded, max: usize) -> Millis {
    random.below(2 * max + 1) as Millis - max as Millis
}

struct World<'w> {
    plan: &'w Plan,
    engine: &'w Engine,
    storage: &'w FaultyStorage<'w>,
    output: &'w FaultyOutput<'w>,
    workers: &'w [Worker<'w>],
    clocks: &'w [SkewedClock<'w>],
    sources: Sources,
    end_requests: EndRequests,
    erasures: Erasures,
    checker: Checker<'w>,
    /// The number of steps so far.
    steps: u64,
    tasks: Vec<Option<Task<'w>>>,
    next_close: Millis,
    random: Seeded,
    /// The worker that is the process of a managed world.
    process: usize,
    /// The longest time from an event's event time until it was acknowledged.
    slowest_ms: Millis,
}

impl<'w> World<'w> {
    /// Runs one step of the world. Breaks when everything is at rest.
    fn step(&mut self) -> ControlFlow<()> {
        let now = self.engine.state().now;
        self.steps += 1;
        self.stop_faults_after_many_tries();
        if self.random.below(3) == 0 && self.start(now) {
            return ControlFlow::Continue(());
        }
        match self.engine.grant() {
            Some(task) if self.random.below(1000) < self.kills() => self.crash(task, now),
            Some(task) => self.poll(task, now),
            None if self.start(now) => {}
            None => return self.advance(now),
        }
        self.checker.after_step(self.storage);
        ControlFlow::Continue(())
    }

    /// Stops all faults once a message or a request was tried often, because it must be done within the allowed lateness.
    fn stop_faults_after_many_tries(&mut self) {
        let is_stuck = self.end_requests.0.iter().any(|request| request.tries > 8)
            || self.erasures.0.iter().any(|erasure| erasure.tries > 8);
        if is_stuck || self.sources.messages.iter().any(|message| message.deliveries > 8) {
            self.engine.state().faults = 0;
            self.engine.state().brown_out = 0..0;
        }
    }

    fn kills(&self) -> usize {
        if self.engine.state().faults == 0 { 0 } else { self.plan.kills }
    }

    /// Starts an invocation, if there is a worker and something to do.
    fn start(&mut self, now: Millis) -> bool {
        let running = |tasks: &[Option<Task<'_>>], close: bool| {
            tasks.iter().flatten().filter(|task| matches!(task.job, Job::Close) == close).count()
        };
        // Two closers can overlap, because the schedule does not wait.
        if self.next_close <= now && running(&self.tasks, true) < 2 {
            self.next_close = now + self.plan.close_every;
            let worker = &self.workers[self.plan.workers];
            // Usually the full time limit; sometimes hardly enough for a step.
            let time = [2 * INVOCATION_MS, 2 * INVOCATION_MS, 8_000, 3_500][self.random.below(4)];
            let deadline = now + time + *self.clocks[self.plan.workers].skew.lock().unwrap();
            let output = self.output;
            let close = async move { format!("{:?}", worker.manager.cleanup(&output, deadline).await) };
            self.spawn(Box::pin(close), Job::Close, now + 2 * INVOCATION_MS);
            return true;
        }
        if self.start_erasure(now) {
            return true;
        }
        if running(&self.tasks, false) >= self.plan.workers {
            return false;
        }
        if self.random.below(2) == 0
            && let Some(request) = self.end_requests.take(now)
        {
            self.request_end(request, now);
            return true;
        }
        let Some((trigger, messages)) = self.sources.deliver(now, &self.plan.events, &mut self.random) else {
            return false;
        };
        let payload = self.payload(trigger, &messages, now);
        let events = self.events_of(&messages);
        self.checker.delivered(&events, now);
        let at = self.worker();
        self.invoke(at, payload, Job::Ingest(trigger, messages), now);
        true
    }

    /// Sends a request that erases a visitor, if one is to be sent now.
    fn start_erasure(&mut self, now: Millis) -> bool {
        if !self.erasures.is_due(now) || self.random.below(2) == 0 {
            return false;
        }
        let is_closing = self.tasks.iter().flatten().any(|task| matches!(task.job, Job::Close));
        let mut visitors: Vec<&Visitor> =
            self.under_way().iter().map(|&event| &self.plan.events[event].visitor).collect();
        visitors.extend(self.end_requests.0.iter().filter(|request| request.in_flight).map(|request| &request.visitor));
        let is_under_way = |erasure: &Erasure| match erasure.moment {
            Moment::Any => true,
            Moment::Close => is_closing,
            Moment::Visitor => visitors.contains(&&erasure.visitor),
        };
        let Some(index) = self.erasures.take(now, is_under_way) else { return false };
        let Visitor { project, distinct_id } = &self.erasures.0[index].visitor;
        let payload = match project.as_str() {
            "" => json!({ "erase_visitor": distinct_id }),
            project => json!({ "erase_visitor": distinct_id, "project": project }),
        };
        let worker = self.worker();
        self.invoke(worker, payload.to_string(), Job::Erase(index), now);
        true
    }

    /// Returns the events of all invocations that are under way.
    fn under_way(&self) -> Vec<usize> {
        let messages = |task: &'_ Task<'w>| match &task.job {
            Job::Ingest(_, messages) | Job::GivenUp(messages) => messages.clone(),
            Job::Close | Job::EndSession { .. } | Job::Erase(_) => Vec::new(),
        };
        self.events_of(&self.tasks.iter().flatten().flat_map(messages).collect::<Vec<_>>())
    }

    /// Returns the events of messages.
    fn events_of(&self, messages: &[usize]) -> Vec<usize> {
        messages.iter().flat_map(|&message| self.sources.messages[message].events.clone()).collect()
    }

    /// Returns the worker of the next invocation.
    fn worker(&mut self) -> usize {
        if self.plan.is_managed { self.process } else { self.random.below(self.plan.workers) }
    }

    /// Sends a request to end a session, if its visitor has one. Usually it names the last session.
    fn request_end(&mut self, index: usize, now: Millis) {
        let request = &mut self.end_requests.0[index];
        let ids = self.checker.ids(self.storage, &request.visitor);
        let choice =
            if self.random.below(4) > 0 { ids.len().saturating_sub(1) } else { self.random.below(ids.len() + 1) };
        request.id = request.id.take().or_else(|| ids.get(choice).cloned());
        let Some(id) = &request.id else {
            return self.end_requests.finish(index, false, now + 1_000, &mut self.random);
        };
        let payload = json!({ "end_session": id }).to_string();
        let worker = self.worker();
        self.checker.end_requested(&self.end_requests.0[index].visitor);
        self.invoke(worker, payload, Job::EndSession { request: index, worker }, now);
    }

    fn invoke(&mut self, at: usize, payload: String, job: Job, now: Millis) {
        if self.random.below(10) == 0 {
            // The clock is set anew.
            *self.clocks[at].skew.lock().unwrap() = skew(&mut self.random, self.plan.skew);
        }
        let worker = &self.workers[at];
        // The deadline is in the time of the worker's own clock.
        let deadline = now + INVOCATION_MS + *self.clocks[at].skew.lock().unwrap();
        let handle = async move { worker.handle(&payload, deadline).await.unwrap() };
        self.spawn(Box::pin(handle), job, now + INVOCATION_MS);
    }

    fn payload(&self, trigger: Trigger, messages: &[usize], now: Millis) -> String {
        let body = |at: usize| {
            let events = &self.sources.messages[at].events;
            let lines: Vec<String> = events.iter().map(|&event| self.plan.events[event].json()).collect();
            lines.join("\n")
        };
        if trigger == Trigger::Http {
            return json!({
                "version": "2.0", "rawPath": "/events", "headers": { "content-type": "application/x-ndjson" },
                "requestContext": { "http": { "method": "POST", "path": "/events" }, "timeEpoch": now },
                "body": body(messages[0]), "isBase64Encoded": false,
            })
            .to_string();
        }
        let is_fifo = trigger == Trigger::Fifo;
        let records: Vec<Value> = messages
            .iter()
            .map(|&at| {
                let message = &self.sources.messages[at];
                json!({
                    "messageId": at.to_string(), "body": body(at), "eventSource": "aws:sqs",
                    "eventSourceARN": if is_fifo { "arn:aws:sqs:x:1:q.fifo" } else { "arn:aws:sqs:x:1:q" },
                    "attributes": {
                        "SentTimestamp": message.arrives_at.to_string(),
                        "MessageGroupId": self.plan.events[message.events[0]].visitor.distinct_id,
                    },
                })
            })
            .collect();
        json!({ "Records": records }).to_string()
    }

    fn spawn(&mut self, future: Running<'w>, job: Job, ends_at: Millis) {
        let task = Task { future, job, ends_at, began: (self.steps, self.engine.state().now) };
        let free = self.tasks.iter().position(Option::is_none);
        let at = free.unwrap_or_else(|| {
            self.tasks.push(None);
            self.tasks.len() - 1
        });
        self.tasks[at] = Some(task);
        let now = self.engine.state().now;
        self.poll(at, now);
    }

    fn poll(&mut self, at: usize, now: Millis) {
        let Some(task) = &mut self.tasks[at] else { return };
        self.engine.state().task = at;
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        // The futures of a task wait for each other, not only for the engine. So the task is polled until none of them can go on.
        let answer = loop {
            match task.future.as_mut().poll(&mut context) {
                Poll::Ready(answer) => break Some(answer),
                Poll::Pending if woken.0.swap(false, Ordering::Relaxed) => {}
                Poll::Pending => break None,
            }
        };
        self.record_deletions(at);
        let Some(answer) = answer else { return };
        let Some(task) = self.tasks[at].take() else { return };
        match task.job {
            Job::Close => {}
            Job::GivenUp(messages) => self.checker.delivery_is_over(&self.events_of(&messages), now),
            Job::Ingest(trigger, messages) => self.answered(trigger, messages, &answer, task.began, now),
            Job::Erase(index) => {
                let answer: Value = serde_json::from_str(&answer).unwrap();
                let visitor = &self.erasures.0[index].visitor;
                let found =
                    self.checker.erasure_answered(visitor, &answer, &self.output.lines.lock().unwrap(), task.began);
                match found {
                    Some(found_nothing) => self.erasures.succeeded(index, found_nothing, now),
                    None => self.erasures.failed(index, now + 1 + self.random.below(10_000) as Millis),
                }
            }
            Job::EndSession { request, worker } => {
                let answer: Value = serde_json::from_str(&answer).unwrap();
                let retry_at = now + 1 + self.random.below(10_000) as Millis;
                let is_done = answer.get("error").is_none();
                let clock = now + *self.clocks[worker].skew.lock().unwrap();
                let EndRequest { visitor, id, .. } = &self.end_requests.0[request];
                self.checker.end_answered(self.storage, visitor, id.as_deref().unwrap(), &answer, clock);
                self.end_requests.finish(request, is_done, retry_at, &mut self.random);
            }
        }
    }

    /// Tells the checker which steps of erasures took effect in this task.
    fn record_deletions(&mut self, task: usize) {
        let Some(began) = self.tasks[task].as_ref().map(|task| task.began) else { return };
        for deletion in std::mem::take(&mut *self.storage.deletions.lock().unwrap()) {
            let is_closing = self.tasks.iter().flatten().any(|task| matches!(task.job, Job::Close));
            let under_way = self.under_way();
            self.checker.deleted(self.storage, deletion, &under_way, is_closing, began, self.steps);
        }
    }

    /// Handles the answer to an invocation with events, which began at this step and time.
    fn answered(&mut self, trigger: Trigger, messages: Vec<usize>, answer: &str, began: (u64, Millis), now: Millis) {
        let answer: Value = serde_json::from_str(answer).unwrap();
        // What this invocation wrote is part of the checks of its acknowledgement.
        self.checker.after_step(self.storage);
        self.checker.delivery_is_over(&self.events_of(&messages), now);
        if trigger == Trigger::Http {
            self.checker.answered(&answer, &self.sources.messages[messages[0]].events);
        }
        let failed = failed(trigger, &answer);
        for message in messages {
            let is_done = !failed.contains(&message.to_string());
            if is_done {
                let message = &self.sources.messages[message];
                self.checker.acknowledged(self.storage, &message.events, began);
                if !message.was_done {
                    let times = message.events.iter().map(|&event| self.plan.events[event].at);
                    self.slowest_ms = times.map(|at| now - at).fold(self.slowest_ms, Millis::max);
                }
            }
            let retry_at = now + 1 + self.random.below(30_000) as Millis;
            self.sources.finish(message, is_done, retry_at, &mut self.random);
        }
    }

    /// Ends a task between two of its steps. In a managed world, it ends its whole process, unless it is a closer.
    fn crash(&mut self, at: usize, now: Millis) {
        let is_closer = matches!(self.tasks[at], Some(Task { job: Job::Close, .. }));
        if !self.plan.is_managed || is_closer {
            return self.kill(at, now);
        }
        for at in 0..self.tasks.len() {
            if self.tasks[at].as_ref().is_some_and(|task| !matches!(task.job, Job::Close)) {
                self.kill(at, now);
            }
        }
        // The next process may have an old cache.
        self.process = (self.process + 1) % self.plan.workers;
    }

    /// Ends a task at its time limit. In a managed world, it goes on for as long again, but its caller is told that it failed.
    fn time_out(&mut self, at: usize, now: Millis) {
        let Some(task) = &mut self.tasks[at] else { return };
        if !self.plan.is_managed || matches!(task.job, Job::Close | Job::GivenUp(_)) {
            return self.kill(at, now);
        }
        task.ends_at += INVOCATION_MS;
        let messages = if let Job::Ingest(_, messages) = &task.job { messages.clone() } else { Vec::new() };
        let job = std::mem::replace(&mut task.job, Job::GivenUp(messages));
        self.redeliver(job, now);
    }

    /// Ends a task between two of its steps.
    fn kill(&mut self, at: usize, now: Millis) {
        if let Some(task) = self.tasks[at].take() {
            self.redeliver(task.job, now);
        }
    }

    /// Arranges that what an invocation was for is tried again.
    fn redeliver(&mut self, job: Job, now: Millis) {
        match job {
            Job::Close => {}
            Job::GivenUp(messages) => self.checker.delivery_is_over(&self.events_of(&messages), now),
            Job::Ingest(_, messages) => {
                self.checker.delivery_is_over(&self.events_of(&messages), now);
                for message in messages {
                    self.sources.finish(message, false, now + 30_000, &mut self.random);
                }
            }
            Job::EndSession { request, .. } => self.end_requests.finish(request, false, now + 30_000, &mut self.random),
            Job::Erase(index) => self.erasures.failed(index, now + 30_000),
        }
    }

    /// Advances the time to the next thing that happens.
    fn advance(&mut self, now: Millis) -> ControlFlow<()> {
        let work = self.sources.next(now, &self.plan.events);
        let is_idle = self.sources.is_done()
            && self.end_requests.is_done()
            && self.erasures.is_done()
            && self.tasks.iter().all(Option::is_none);
        if is_idle {
            // From here on nothing fails, and the closer runs until nothing is left to close.
            self.engine.state().faults = 0;
            self.engine.state().brown_out = 0..0;
            match self.checker.next_due(self.storage) {
                None => return ControlFlow::Break(()),
                Some(due_at) => self.next_close = (due_at + 61_000 + self.plan.skew as Millis).max(now + 60_000),
            }
        }
        let step = self.engine.next_ready();
        let ends = self.tasks.iter().flatten().map(|task| task.ends_at).min();
        let close = Some(self.next_close);
        let request = self.end_requests.next(now);
        let next = [work, step, ends, close, request, self.erasures.next(now)]
            .into_iter()
            .flatten()
            .filter(|&time| time > now)
            .min()
            .unwrap_or(now + 1);
        self.engine.state().now = next;
        for at in 0..self.tasks.len() {
            if self.tasks[at].as_ref().is_some_and(|task| task.ends_at <= next) {
                self.time_out(at, next);
            }
        }
        ControlFlow::Continue(())
    }
}

/// Returns the ids of the messages that an answer reports as failed.
fn failed(trigger: Trigger, answer: &Value) -> Vec<String> {
    if trigger == Trigger::Http {
        // The caller retries the whole request, unless the answer is that it is done or can never be.
        let is_done = [200, 400].contains(&answer["statusCode"].as_u64().unwrap());
        return if is_done { Vec::new() } else { (0..1000).map(|message| message.to_string()).collect() };
    }
    let items = answer["batchItemFailures"].as_array().unwrap();
    items.iter().map(|item| item["itemIdentifier"].as_str().unwrap().to_owned()).collect()
}
