//! A world: up to five events of one visitor with their times, and the oracle's sessions for each set of them.

use std::cell::OnceCell;
use std::fmt;

use chrono::TimeDelta;
use session_tracking::config::{Boundary, DirectThenSource, SessionConfig};
use session_tracking::model::{Entry, Kind};
use session_tracking::session::{DeviceInfo, EventId, Millis, SessionContext, UtmParams, Visitor};
use session_tracking::timeline::Arrival;

use crate::oracle::{OracleEvent, OracleSession, sessions_with_ends};

/// The timeout of every world, in milliseconds.
pub const TIMEOUT: Millis = 10_000;
/// The maximum duration of every world. Steady activity exceeds it.
pub const MAX_DURATION: Millis = 2 * TIMEOUT;
/// When the first event happens.
const START: Millis = 1_773_144_000_000;
/// The maximum number of events in a world.
pub const MAX_EVENTS: usize = 5;
/// In worlds of up to this many events, each event also has a device, a user and a property, all of them its uuid. A session takes the
/// first device, the last user and the last property. (Larger worlds would take half as long again.)
const MAX_EVENTS_WITH_EXTRAS: usize = 3;
/// The events: uuid, whether it is a page view, URL. They are in time order, which is the order of their uuids.
const EVENTS: [(&str, bool, Option<&str>); MAX_EVENTS] = [
    ("a", false, Some("https://shop.test/a")),
    ("b", true, Some("https://shop.test/b")),
    ("c", true, None),
    ("d", false, None),
    ("e", true, Some("https://shop.test/e")),
];
/// The sources that an event can have: none, one of two referrers, one of two campaigns. `K` is a keep-alive event without a
/// source.
pub const SOURCES: [char; 6] = ['-', 'A', 'B', '1', '2', 'K'];
const KEEP_ALIVE: &str = "alive";

/// Returns the rules of this name.
fn rules(name: &str, lateness: Millis) -> SessionConfig {
    let default = SessionConfig {
        timeout: TimeDelta::milliseconds(TIMEOUT),
        max_duration: TimeDelta::milliseconds(MAX_DURATION),
        lateness: TimeDelta::milliseconds(lateness),
        keep_alive_events: vec![KEEP_ALIVE.to_owned()],
        ..SessionConfig::default()
    };
    match name {
        "default" => default,
        "exclusive" => SessionConfig { boundary: Boundary::Exclusive, ..default },
        "split" => SessionConfig { direct_then_source: DirectThenSource::Split, ..default },
        "upgrade" => SessionConfig { direct_then_source: DirectThenSource::Upgrade, ..default },
        "max_events" => SessionConfig { max_events: Some(2), ..default },
        other => panic!("no rules are called {other}"),
    }
}

/// Up to five events of one visitor, numbered in time order. A set of events is a bit set of their numbers.
#[derive(Debug)]
pub struct World {
    rules_name: String,
    gaps: Vec<Millis>,
    pub rules: SessionConfig,
    pub visitor: Visitor,
    /// Each event with each source. Its time of receipt is set when it is delivered.
    arrivals: Vec<[Arrival; SOURCES.len()]>,
    /// The oracle's sessions for each set of events, with each of their sources and each set of end requests; by [`key`].
    oracle: Vec<OnceCell<Expected>>,
}

/// Each event's source, as an index into [`SOURCES`].
pub type Sources = [usize; MAX_EVENTS];

/// The oracle's sessions of a set of events.
#[derive(Debug)]
pub struct Expected {
    pub sessions: Vec<OracleSession<'static>>,
    /// The set of each session's events.
    pub sets: Vec<usize>,
}

impl World {
    pub fn new(rules_name: &str, lateness: Millis, gaps: &[Millis]) -> Self {
        let rules = rules(rules_name, lateness);
        let mut at = START;
        let mut arrivals = Vec::new();
        for number in 0..=gaps.len() {
            at += number.checked_sub(1).map_or(0, |before| gaps[before]);
            arrivals.push(SOURCES.map(|source| arrival(number, at, source, gaps.len() < MAX_EVENTS_WITH_EXTRAS)));
        }
        let keys = (SOURCES.len() + 1).pow(arrivals.len() as u32) << arrivals.len();
        let oracle = (0..keys).map(|_| OnceCell::new()).collect();
        let (rules_name, gaps) = (rules_name.to_owned(), gaps.to_vec());
        Self { rules_name, gaps, visitor: Visitor::new("u"), arrivals, oracle, rules }
    }

    /// Parses the notation that [`fmt::Display`] writes.
    pub fn parse(world: &str) -> Self {
        let (rules, gaps) = world.split_once('|').unwrap();
        let (name, lateness) = rules.trim().split_once(' ').unwrap();
        let gaps: Vec<Millis> = gaps.split_whitespace().map(|gap| gap.parse().unwrap()).collect();
        Self::new(name, lateness.parse().unwrap(), &gaps)
    }

    /// Returns the number of events.
    pub fn len(&self) -> usize {
        self.arrivals.len()
    }

    /// Returns the set of all events.
    pub fn all(&self) -> usize {
        (1 << self.len()) - 1
    }

    pub fn has_extras(&self) -> bool {
        self.len() <= MAX_EVENTS_WITH_EXTRAS
    }

    pub fn arrival(&self, event: usize, source: usize) -> &Arrival {
        &self.arrivals[event][source]
    }

    /// Returns an event's time.
    pub fn at(&self, event: usize) -> Millis {
        self.arrivals[event][0].entry.at
    }

    pub fn lateness(&self) -> Millis {
        self.rules.lateness.num_milliseconds()
    }

    /// Returns the oracle's sessions of a set of events, where requests ended a session at the times of the events in `ends`.
    pub fn expected(&self, set: usize, sources: &Sources, ends: usize) -> &Expected {
        let key = (key(set, sources) << self.len()) + ends;
        self.oracle[key].get_or_init(|| {
            let event = |number| oracle_event(number, self.at(number), SOURCES[sources[number]]);
            let events: Vec<OracleEvent> = members(set).map(event).collect();
            let ends: Vec<(&str, Millis)> = members(ends).map(|event| ("u", self.at(event))).collect();
            let sessions = sessions_with_ends(&events, &ends, &self.rules);
            let set = |session: &OracleSession| session.events.iter().map(|uuid| 1 << event_of(uuid)).sum();
            let sets = sessions.iter().map(set).collect();
            Expected { sessions, sets }
        })
    }
}

/// Returns a number for a set of events and their sources.
fn key(set: usize, sources: &Sources) -> usize {
    let digit = |event: usize| if set >> event & 1 == 1 { sources[event] + 1 } else { 0 };
    (0..MAX_EVENTS).rev().fold(0, |key, event| key * (SOURCES.len() + 1) + digit(event))
}

/// Returns the events of a set, in time order.
pub fn members(set: usize) -> impl Iterator<Item = usize> + Clone {
    (0..MAX_EVENTS).filter(move |event| set >> event & 1 == 1)
}

/// Returns the event with this uuid.
pub fn event_of(uuid: &str) -> usize {
    EVENTS.iter().position(|(name, ..)| *name == uuid).unwrap()
}

pub fn uuid_of(event: usize) -> &'static str {
    EVENTS[event].0
}

pub fn is_page_view(event: usize) -> bool {
    EVENTS[event].1
}

pub fn url_of(event: usize) -> Option<&'static str> {
    EVENTS[event].2
}

/// Returns the URL that a page view shows.
pub fn page_of(event: usize) -> Option<&'static str> {
    url_of(event).filter(|_| is_page_view(event))
}

fn referrer(source: char) -> Option<&'static str> {
    match source {
        'A' => Some("https://a.test/"),
        'B' => Some("https://b.test/"),
        _ => None,
    }
}

fn campaign(source: char) -> Option<&'static str> {
    match source {
        '1' => Some("one"),
        '2' => Some("two"),
        _ => None,
    }
}

fn arrival(number: usize, at: Millis, source: char, has_extras: bool) -> Arrival {
    let (uuid, is_page_view, url) = EVENTS[number];
    let utm = campaign(source).map(|name| UtmParams { source: Some(name.to_owned()), ..UtmParams::default() });
    let device = has_extras.then(|| DeviceInfo { device_type: uuid.to_owned(), ..DeviceInfo::default() });
    let context = SessionContext {
        url: url.map(Into::into),
        referrer: referrer(source).map(Into::into),
        utm: utm.map(Into::into),
        device: device.map(Into::into),
        geo: None,
        user_id: has_extras.then(|| uuid.into()),
    };
    let kind = match (source, is_page_view) {
        ('K', _) => Kind::KeepAlive,
        (_, true) => Kind::Pageview,
        (_, false) => Kind::Event,
    };
    let properties = if has_extras { vec![("last".to_owned(), format!("\"{uuid}\""))] } else { Vec::new() };
    let entry = Entry { at, uuid: EventId::new(uuid), kind, context, click: None, properties };
    Arrival { entry, received_at: at, passive: false, timed_by_sent_at: false, may_change_time: false }
}

fn oracle_event(number: usize, at: Millis, source: char) -> OracleEvent<'static> {
    let (uuid, is_page_view, url) = EVENTS[number];
    OracleEvent {
        visitor: "u",
        uuid,
        at,
        name: match (source, is_page_view) {
            ('K', _) => KEEP_ALIVE,
            (_, true) => "$pageview",
            (_, false) => "event",
        },
        url,
        referrer: referrer(source),
        utm: [campaign(source), None, None, None, None],
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gaps: Vec<String> = self.gaps.iter().map(Millis::to_string).collect();
        write!(f, "{} {} | {}", self.rules_name, self.lateness(), gaps.join(" "))
    }
}
