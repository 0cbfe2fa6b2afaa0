//! Sessions for analytics events: exact under races, repeats, disorder and faults, at one DynamoDB write a visitor a batch.
//!
//! The modules, in reading order:
//!
//! - [`session`]: a session, its visitor, its id, what an event says of where it came from
//! - [`config`]: every option; the functions' environment
//! - [`event`]: one tracking event: what we read of it, and the rest as it came
//! - [`attribution`]: hosts, external referrers, campaigns, click ids
//! - [`model`]: what the rules work on: events, and the shapes of a session
//! - [`rules`]: which event begins a session, and why: the plain definition, as one fold
//! - [`timeline`]: a visitor's recent sessions; applying events to them, settling what can no longer change
//! - [`stored`]: the stored form of timelines and sessions
//! - [`storage`]: the store's contract, in DynamoDB and in memory
//! - [`manager`]: the session manager: decides purely, then acts in one place; closes what went stale
//! - [`emitted`]: what the service says of its own accord: ends, merges, splits
//! - [`output`]: where annotated events and ends go
//! - [`trigger`]: AWS envelopes in, answers out
//! - [`clock`], [`aws`], [`startup`]: what the functions take from outside: time, clients, their start
//!
//! What always holds, each with a test that would fail:
//!
//! - Nothing in `session`, `attribution`, `rules`, `timeline` and `stored` awaits, reads a clock or draws a random number
//!   (`clippy.toml`).
//! - Applying events again changes nothing (`tests/it/small_worlds.rs`).
//! - Within the lateness, final sessions do not depend on order, batches, races or crashes (`tests/it/sim`).
//! - A visitor of a batch costs one conditional write, a batch that brings nothing new none (`tests/it/storage.rs`).
//! - An id once given out is a session's, or leads to the one it was merged into (`tests/it/small_worlds.rs`).
//! - Of a session's accounts, one version has one content (`tests/it/sim/check.rs`).
//! - What is stored and breaks our rules is an error that names it, never a new session (`tests/it/stored.rs`).

#![forbid(unsafe_code)]

pub mod attribution;
pub mod aws;
pub mod clock;
pub mod config;
pub mod emitted;
pub mod event;
pub mod manager;
pub mod model;
pub mod output;
pub mod rules;
pub mod session;
pub mod startup;
pub mod storage;
pub mod stored;
pub mod timeline;
pub mod trigger;

pub use config::SessionConfig;
pub use manager::SessionManager;
pub use session::{DeviceInfo, EventType, GeoInfo, Session, SessionContext, UtmParams};
pub use storage::{DynamoDbSessionStorage, InMemorySessionStorage, SessionError, SessionStorage};
