//! One test binary, so that the SDK is linked once.

mod bad_input;
mod cases;
mod conformance;
mod consumer;
mod corpus;
#[path = "../../dev/dynamodb.rs"]
mod dynamodb;
mod engine_http;
#[path = "../../fuzz/src/lib.rs"]
mod fuzz;
mod oracle;
mod pipeline;
mod sim;
mod single;
mod storage;
mod stored;
mod support;
mod template;
mod traffic;
