#![forbid(unsafe_code)]
pub mod attribution;
pub mod config;
pub mod event;
pub mod rules;
pub mod session;
pub mod timeline;
