//! One test binary, so that the SDK is linked once.

mod conformance;
mod support;
mod traffic;
