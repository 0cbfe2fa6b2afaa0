#![forbid(unsafe_code)]
pub mod attribution;
pub mod aws;
pub mod clock;
pub mod config;
pub mod ends;
pub mod event;
pub mod manager;
pub mod output;
pub mod rules;
pub mod session;
pub mod start;
pub mod storage;
pub mod stored;
pub mod timeline;
pub mod trigger;
