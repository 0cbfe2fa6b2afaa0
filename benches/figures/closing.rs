//! The speed of closing with a store that takes 5 ms a call, in virtual time.
#![allow(clippy::disallowed_methods, reason = "tokio's clock is virtual here")]

use std::time::Duration;

use futures_util::future::join_all;
use session_tracking::config::SessionConfig;
use session_tracking::manager::{SessionManager, Share};
use session_tracking::output::Output;
use session_tracking::session::Millis;
use tokio::time::Instant;

use crate::AnyError;
use crate::latency::{CALL_TIME, NOON, SlowStore, VirtualClock, apply, event};

/// Timelines for each closer.
const TIMELINES: usize = 20_000;
/// Ended sessions of one visitor: nearly as many as an item can have.
const SESSIONS: usize = 12_000;

/// A queue that takes 5 ms a call and accepts every line.
struct SlowQueue;

impl Output for &SlowQueue {
    async fn send(&self, _lines: &[String]) -> Vec<usize> {
        tokio::time::sleep(CALL_TIME).await;
        Vec::new()
    }
}

/// Returns how many timelines the closers close in a second. Each timeline has one ended session.
pub async fn rate(closers: u8) -> Result<f64, AnyError> {
    let (store, clock) = (SlowStore::default(), VirtualClock::new());
    let manager = || SessionManager::with_clock(SessionConfig::default(), &store, &clock);
    let timelines = TIMELINES * usize::from(closers);
    for first in (0..timelines).step_by(1000) {
        let events: Vec<String> =
            (first..first + 1000).map(|n| event(&format!("v{n}"), &format!("e{n}"), NOON)).collect();
        apply(&manager(), &events).await.map_err(|failed| format!("{} events failed", failed.len()))?;
    }
    tokio::time::sleep(Duration::from_hours(24)).await;
    let managers: Vec<_> = (0..closers).map(|_| manager()).collect();
    let shares = (0..closers).map(|index| Share::new(index, closers)).collect::<Option<Vec<_>>>().ok_or("no share")?;
    let queue = &SlowQueue;
    let began = Instant::now();
    let runs = managers.iter().zip(shares).map(|(manager, share)| manager.cleanup_share(&queue, Millis::MAX, share));
    let closed: usize = join_all(runs).await.iter().map(|report| report.closed).sum();
    if closed != timelines {
        return Err(format!("{closed} of {timelines} timelines were closed").into());
    }
    Ok(timelines as f64 / began.elapsed().as_secs_f64())
}

/// Returns how long it takes to close a visitor with thousands of ended sessions, and how many there are.
pub async fn large() -> Result<(Duration, usize), AnyError> {
    let (store, clock) = (SlowStore::default(), VirtualClock::new());
    let manager = SessionManager::with_clock(SessionConfig::default(), &store, &clock);
    let at = |n: usize| NOON - 2 * 86_400_000 - n as Millis * 4_000_000;
    for first in (0..SESSIONS).step_by(500) {
        let events: Vec<String> = (first..first + 500).map(|n| event("v", &format!("e{n}"), at(n))).collect();
        apply(&manager, &events).await.map_err(|failed| format!("{} events failed", failed.len()))?;
    }
    tokio::time::sleep(Duration::from_hours(24)).await;
    let began = Instant::now();
    let report = manager.cleanup(&&SlowQueue, Millis::MAX).await;
    if report.closed != SESSIONS {
        return Err(format!("{} sessions were closed: {report:?}", report.closed).into());
    }
    Ok((began.elapsed(), report.closed))
}
