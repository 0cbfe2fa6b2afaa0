//! What must hold for any bytes at all, at each place where bytes from outside are parsed.
//!
//! Every function here takes bytes and panics where a promise is broken. `cargo fuzz` calls them with bytes that it makes up;
//! `cargo test` calls them with all that lies in `corpus/` (`tests/it/corpus.rs`), so what fuzzing once found stays found.
//!
//! ```text
//! cargo install cargo-fuzz
//! RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none body -- -max_total_time=60
//! ```
//!
//! and `event`, `envelope`, `stored_timeline`, `stored_session` likewise. No sanitizer: the crate forbids unsafe code, and
//! what counts are panics, with overflow checked. Seeds are written by the ignored test `write_seeds`.

mod stored;
mod triggers;

pub use stored::{stored_session, stored_timeline};
pub use triggers::{body, envelope, event};
