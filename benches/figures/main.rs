//! Measures the figures of the README and `docs/performance.md`, which describes how each is taken.
//!
//! ```text
//! cargo bench --bench figures                        cost, latency and CPU
//! … -- cpu | cost | latency                          only one of them
//! … -- gates                                         the figures that ci/gates compares
//! … -- count WHAT BATCHES                            work for callgrind: ours, parse, envelope, envelope_parse, nothing
//! … -- sessions FILE                                 the sessions of a file of events, as CSV
//! ```

mod closing;
mod cost;
mod cpu;
#[path = "../../dev/dynamodb.rs"]
mod dynamodb;
mod latency;
mod plain;
#[path = "../../dev/seeded.rs"]
mod seeded;
mod sessions;
mod sizes;
mod trace;

use std::error::Error;

type AnyError = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["count", what, batches] => println!("{}", cpu::count(what, batches.parse()?)),
        ["sessions", file] => sessions::print(file)?,
        ["cpu"] => cpu::print(),
        ["latency"] => tokio::task::block_in_place(latency::print)?,
        [] => {
            cost::print().await?;
            tokio::task::block_in_place(latency::print)?;
            cpu::print();
        }
        ["cost"] => cost::print().await?,
        ["gates"] => cost::gates().await?.iter().for_each(|(name, figure)| println!("{name} {figure:.3}")),
        _ => return Err("figures: cpu, cost, latency, gates, count WHAT BATCHES or sessions FILE".into()),
    }
    Ok(())
}
