//! Sessionization of analytics events on AWS Lambda and DynamoDB. It finds the session of each event as the event passes, and
//! emits an event when a session is over. Sessions are exact under concurrent writers, duplicates and out-of-order events. Each
//! visitor of a batch costs one conditional write.
//!
//! A Lambda function of your own can use the same table. Deploy it with `TABLE` and `OUTPUT` in its environment:
//!
//! ```no_run
#![doc = include_str!("../examples/own_function.rs")]
//! ```
//!
//! Without AWS, sessions are kept in memory:
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
//! To process batches of events as clients send them, use [`Ingest`] or [`SessionManager::resolve`].
//!
//! The modules, in reading order:
//!
//! - [`session`]: a session, its visitor, its id, its context
//! - [`config`]: all options, the projects and the profiles, and the functions' environment
//! - [`event`]: a tracking event: the fields that are read; the rest passes through unchanged
//! - [`dialect`]: requests of other tracking clients, translated into events
//! - [`agent`]: the device that a user agent describes, and bots
//! - [`attribution`]: hosts, external referrers, campaigns, click ids
//! - [`model`]: the types that the rules use: events, and the forms of a session
//! - [`rules`]: which event begins a session, and why: the definition of a session, as one fold
//! - [`timeline`]: a visitor's recent sessions and events: applies events, and finalizes what can no longer change
//! - [`stored`]: the stored form of timelines and sessions
//! - [`storage`]: the store's contract, and its implementations in DynamoDB and in memory
//! - [`manager`]: reads timelines, applies events, writes, retries after conflicts; closes sessions that are over
//! - [`emitted`]: the events that the service emits: ends and corrections
//! - [`output`]: the destinations of annotated events, ends and corrections
//! - [`trigger`]: reads the payloads of AWS services and answers them
//! - `replay`: recorded events of session replay, under the Cargo feature of that name (`docs/replay.md`)
//! - [`metrics`]: an invocation's line in the log, from which CloudWatch makes metrics
//! - [`clock`], [`aws`], [`startup`], [`notice`]: the time, the AWS clients, the start of a function, and its licences
//!
//! The invariants, each with the test that checks it:
//!
//! - Nothing in `session`, `attribution`, `model`, `rules`, `timeline` and `stored` awaits, reads a clock or draws a random
//!   number (`clippy.toml`).
//! - Applying events is idempotent (`tests/it/small_worlds.rs`).
//! - Within the allowed lateness, final sessions do not depend on order, batches, conflicts or crashes (`tests/it/sim`).
//! - Each visitor of a batch costs one conditional write. A batch of duplicates costs none (`tests/it/storage.rs`).
//! - A session id that was handed out stays valid: it is the id of a session, or an alias of the session that it was merged into
//!   (`tests/it/small_worlds.rs`).
//! - A version of a session has only one content (`tests/it/sim/check.rs`).
//! - A stored item that breaks the rules is an error that names the item, never a new session (`tests/it/stored.rs`).

#![forbid(unsafe_code)]

pub mod agent;
pub mod clock;
pub mod config;
pub mod dialect;
pub mod emitted;
pub mod event;
pub mod manager;
pub mod metrics;
pub mod model;
pub mod notice;
pub mod output;
#[cfg(feature = "replay")]
pub mod replay;
pub mod session;
pub mod startup;
pub mod storage;
pub mod stored;
pub mod timeline;
pub mod trigger;

// Public only for the tests and benchmarks of this repository.
#[doc(hidden)]
pub mod attribution;
#[doc(hidden)]
pub mod aws;
#[doc(hidden)]
pub mod rules;

pub use clock::{Clock, SystemClock};
pub use config::{Projects, SessionConfig};
pub use event::{Delivery, Event};
pub use manager::{Outcome, SessionManager};
pub use output::{Output, SqsOutput, StdoutOutput};
pub use session::{DeviceInfo, EventType, GeoInfo, Reason, Session, SessionContext, UtmParams, Visitor};
pub use startup::Service;
pub use storage::{DynamoDbSessionStorage, InMemorySessionStorage, SessionError, SessionStorage};
pub use trigger::Ingest;
