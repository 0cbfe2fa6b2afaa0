//! One test binary, so that the SDK is linked once.

#![allow(clippy::pedantic, reason = "tests are data and arithmetic on it; the other lints hold")]

mod agents;
mod bad_input;
mod binaries;
mod brownout;
mod calls;
mod cases;
mod clients;
mod close_function;
mod closing;
mod conformance;
mod consumer;
mod corpus;
mod crash;
mod dependencies;
mod duplicates;
#[path = "../../dev/dynamodb.rs"]
mod dynamodb;
mod engine_http;
mod erasing;
mod expiry;
mod explain;
mod fake_runtime;
mod freeze;
#[path = "../../fuzz/src/lib.rs"]
mod fuzz;
mod hot_visitor;
mod identity;
mod late_table;
mod local;
#[cfg(feature = "managed-instances")]
mod managed;
mod manager;
mod memory;
mod mixes;
mod nexmark;
#[path = "../../dev/nexmark.rs"]
mod nexmark_bids;
mod openapi;
mod oracle;
mod outages;
mod pages;
mod pipeline;
mod profiles;
mod projects;
mod proxy;
mod redrive;
#[cfg(feature = "replay")]
mod replay;
mod reports;
mod seed;
#[path = "../../dev/seeded.rs"]
mod seeded;
#[cfg(feature = "managed-instances")]
#[path = "../../dev/shop.rs"]
#[allow(dead_code, reason = "the benches use more of it")]
mod shop;
mod sim;
mod small_worlds;
mod soak;
mod sparse;
mod storage;
mod stored;
mod support;
mod template;
mod timeline;
#[path = "../../dev/tls.rs"]
mod tls;
mod traffic;
mod trigger_snippets;
mod trust;
mod worked_consumers;
