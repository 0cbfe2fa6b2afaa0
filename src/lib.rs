//! Sessionization of analytics events on AWS Lambda and DynamoDB: finds the session of each event as it passes, and emits an
//! event when a session is over. Sessions are exact under concurrent writers, duplicates and disorder, at one conditional write for
//! each visitor of a batch.
//!
//! A Lambda function of your own on the same table, deployed with `TABLE` and `OUTPUT` in its environment:
//!
//! ```no_run
#![doc = include_str!("../examples/own_function.rs")]
//! ```
//!
//! Without AWS, sessions live in memory:
//!
//! ```
//! # use session_tracking::{EventType, InMemorySessionStorage, SessionConfig, SessionContext, SessionManager};
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let manager = SessionManager::new(SessionConfig::default(), InMemorySessionStorage::new());
//! let session = manager.get_or_create("ada", SessionContext::of_url("https://shop.test/?utm_source=news")).await?;
//! let session = manager.update(&session.id, EventType::Pageview("https://shop.test/shoes".to_owned())).await?;
//! assert_eq!((session.page_views, session.utm.and_then(|utm| utm.source).as_deref()), (1, Some("news")));
//! # Ok::<(), session_tracking::SessionError>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Batches of events as clients send them go through [`Ingest`], or through [`SessionManager::resolve`].
//!
//! The modules, in reading order:
//!
//! - [`session`]: a session, its visitor, its id, its context
//! - [`config`]: every option; the functions' environment
//! - [`event`]: one tracking event: the fields that are read, and the rest as it came
//! - [`attribution`]: hosts, external referrers, campaigns, click ids
//! - [`model`]: what the rules work on: events, and the shapes of a session
//! - [`rules`]: which event begins a session, and why; the plain definition, as one fold
//! - [`timeline`]: a visitor's recent sessions; applies events to them and finalizes what can no longer change
//! - [`stored`]: the stored form of timelines and sessions
//! - [`storage`]: the store's contract, in DynamoDB and in memory
//! - [`manager`]: the session manager: a pure decision, and a loop that acts; closes sessions that are over
//! - [`emitted`]: the events that the service emits: ends, merges, splits
//! - [`output`]: where annotated events and ends go
//! - [`trigger`]: AWS envelopes in, answers out
//! - [`clock`], [`aws`], [`startup`]: what the functions take from outside: time, clients, their start
//!
//! What always holds, each with a test that would fail:
//!
//! - Nothing in `session`, `attribution`, `model`, `rules`, `timeline` and `stored` awaits, reads a clock or draws a random number
//!   (`clippy.toml`).
//! - To apply events again changes nothing (`tests/it/small_worlds.rs`).
//! - Within the allowed lateness, final sessions do not depend on order, batches, conflicts or crashes (`tests/it/sim`).
//! - A visitor of a batch costs one conditional write, a batch of duplicates none (`tests/it/storage.rs`).
//! - An id once given out is a session's, or leads to the one it was merged into (`tests/it/small_worlds.rs`).
//! - One version of a session has one content (`tests/it/sim/check.rs`).
//! - A stored item that breaks the rules is an error that names it, never a new session (`tests/it/stored.rs`).

#![forbid(unsafe_code)]

pub mod clock;
pub mod config;
pub mod emitted;
pub mod event;
pub mod manager;
pub mod model;
pub mod output;
pub mod session;
pub mod startup;
pub mod storage;
pub mod stored;
pub mod timeline;
pub mod trigger;

// Not for callers: public for this repository's own tests and benchmarks.
#[doc(hidden)]
pub mod attribution;
#[doc(hidden)]
pub mod aws;
#[doc(hidden)]
pub mod rules;

pub use clock::{Clock, SystemClock};
pub use config::SessionConfig;
pub use event::{Delivery, Event};
pub use manager::{Outcome, SessionManager};
pub use output::{Output, SqsOutput, StdoutOutput};
pub use session::{DeviceInfo, EventType, GeoInfo, Reason, Session, SessionContext, UtmParams, Visitor};
pub use startup::Service;
pub use storage::{DynamoDbSessionStorage, InMemorySessionStorage, SessionError, SessionStorage};
pub use trigger::Ingest;
