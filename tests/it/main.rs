//! One test binary, so that the SDK is linked once.

mod conformance;
#[path = "../../dev/dynamodb.rs"]
mod dynamodb;
mod storage;
mod support;
mod traffic;
