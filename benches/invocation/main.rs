//! Measures an invocation of the shipped function: CPU, page faults, calls. `run` describes the method.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads clocks and its environment")]

#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/it/fake_runtime.rs"]
mod fake_runtime;
mod process;
mod rows;
mod series;
mod table;
#[path = "../../dev/tls.rs"]
mod tls;
mod traffic;

use std::time::{Duration, Instant};

use series::Series;
use table::Table;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Processes of each binary, in turns; the first of each is not counted.
const PROCESSES: usize = 8;

/// How often instructions are counted; the lowest count is taken.
const COUNTS: usize = 4;

const USAGE: &str = "usage: invocation measure INGEST PLAIN [BEFORE] | invocation count INGEST | \
                     invocation repeat INGEST SECONDS";

/// Measures the binaries in turns and prints the rows.
async fn measure(ingest: &str, plain: &str, before: Option<&str>) -> Result<(), Failure> {
    let mut all: Vec<Series> = [Some(ingest), Some(plain), before].into_iter().flatten().map(Series::new).collect();
    let table = Table::start_with_tls().await?;
    for round in 0..PROCESSES {
        for series in &mut all {
            series.process(&table, round > 0).await?;
        }
    }
    rows::print(&all[0], &all[1], all.get(2));
    rows::print_settled(series::settled_page_faults(ingest, &table).await?);
    Ok(())
}

/// Counts the instructions and the calls of a warm invocation. It uses no TLS, whose instructions depend on the processor. On a
/// busy machine a call may be retried, which only adds instructions, so the lowest count is taken.
async fn count(ingest: &str) -> Result<(), Failure> {
    let table = Table::start().await?;
    let (mut few, mut many, mut calls) = (u64::MAX, u64::MAX, usize::MAX);
    for _ in 0..COUNTS {
        few = few.min(process::instructions(ingest, &table, 0).await?.0);
        let (found, made) = process::instructions(ingest, &table, process::COUNTED).await?;
        (many, calls) = (many.min(found), calls.min(made));
    }
    println!("instructions {}", many.saturating_sub(few) / process::COUNTED as u64);
    println!("calls {calls}");
    Ok(())
}

/// Invokes one binary for some seconds, for a profiler.
async fn repeat(ingest: &str, seconds: &str) -> Result<(), Failure> {
    let seconds = Duration::from_secs(seconds.parse()?);
    let table = Table::start_with_tls().await?;
    let (mut series, began) = (Series::new(ingest), Instant::now());
    while began.elapsed() < seconds {
        series.process(&table, true).await?;
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    // `cargo bench` adds an argument of its own.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["measure", ingest, plain] => measure(ingest, plain, None).await,
        ["measure", ingest, plain, before] => measure(ingest, plain, Some(before)).await,
        ["count", ingest] => count(ingest).await,
        ["repeat", ingest, seconds] => repeat(ingest, seconds).await,
        _ => Err(USAGE.into()),
    }
}
