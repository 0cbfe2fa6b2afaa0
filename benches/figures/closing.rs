//! How fast closing is on a store that takes its time, in virtual time.
#![allow(clippy::disallowed_methods, reason = "time is virtual here")]

use std::time::Duration;

use futures_util::future::join_all;
use session_tracking::config::SessionConfig;
use session_tracking::manager::{SessionManager, Share};
use session_tracking::output::Output;
use session_tracking::session::Millis;
use tokio::time::Instant;

use crate::AnyError;
use crate::latency::{CALL, NOON, Slow, Virtual, apply, event};

/// Timelines for each closer.
const TIMELINES: usize = 20_000;
/// Ended sessions of one visitor: nearly as many as an item holds.
const SESSIONS: usize = 12_000;

/// A queue that takes its time, and everything.
struct Queue;

impl Output for &Queue {
    async fn send(&self, _lines: &[String]) -> Vec<usize> {
        tokio::time::sleep(CALL).await;
        Vec::new()
    }
}

/// Timelines that so many closers close in a second, each with a session that is over.
pub async fn rate(closers: u8) -> Result<f64, AnyError> {
    let (store, clock) = (Slow::default(), Virtual::new());
    let manager = || SessionManager::with_clock(SessionConfig::default(), &store, &clock);
    let timelines = TIMELINES * usize::from(closers);
    for first in (0..timelines).step_by(1000) {
        let texts: Vec<String> =
            (first..first + 1000).map(|n| event(&format!("v{n}"), &format!("e{n}"), NOON)).collect();
        apply(&manager(), &texts).await.map_err(|failed| format!("{} events failed", failed.len()))?;
    }
    tokio::time::sleep(Duration::from_secs(86_400)).await;
    let managers: Vec<_> = (0..closers).map(|_| manager()).collect();
    let shares = (0..closers).map(|index| Share::new(index, closers)).collect::<Option<Vec<_>>>().ok_or("no share")?;
    let queue = &Queue;
    let began = Instant::now();
    let runs = managers.iter().zip(shares).map(|(manager, share)| manager.cleanup_share(&queue, Millis::MAX, share));
    let closed: usize = join_all(runs).await.iter().map(|report| report.closed).sum();
    if closed != timelines {
        return Err(format!("{closed} of {timelines} timelines were closed").into());
    }
    Ok(timelines as f64 / began.elapsed().as_secs_f64())
}

/// How long it takes to close a visitor of thousands of ended sessions, and how many they are.
pub async fn large() -> Result<(Duration, usize), AnyError> {
    let (store, clock) = (Slow::default(), Virtual::new());
    let manager = SessionManager::with_clock(SessionConfig::default(), &store, &clock);
    let at = |n: usize| NOON - 2 * 86_400_000 - n as Millis * 4_000_000;
    for first in (0..SESSIONS).step_by(500) {
        let texts: Vec<String> = (first..first + 500).map(|n| event("v", &format!("e{n}"), at(n))).collect();
        apply(&manager, &texts).await.map_err(|failed| format!("{} events failed", failed.len()))?;
    }
    tokio::time::sleep(Duration::from_secs(86_400)).await;
    let began = Instant::now();
    let report = manager.cleanup(&&Queue, Millis::MAX).await;
    if report.closed != SESSIONS {
        return Err(format!("{} sessions were closed: {report:?}", report.closed).into());
    }
    Ok((began.elapsed(), report.closed))
}
