//! Measures the figures of the README and `docs/performance.md`, which describes how each is taken.
//!
//! ```text
//! cargo bench --bench figures                        cost, latency and CPU
//! … -- cpu | cost | latency                          only one of them
//! … -- gates                                         the figures that ci/gates compares
//! … -- count WHAT BATCHES                            work for callgrind: ours, parse, envelope, envelope_parse, nothing
//! … -- count visit                                   a visit of 10,000 events, for callgrind
//! … -- sessions RULES FILE                           the sessions of a file of events, as CSV; RULES is JSON
//! … -- loop GAP_SECONDS FILE                         the same by a plain loop
//! … -- nexmark EVENTS                                the bids among so many events of Nexmark, for the two before
//! ```

mod closing;
mod cost;
mod cpu;
#[path = "../../dev/dynamodb.rs"]
mod dynamodb;
mod latency;
mod long_visit;
#[path = "../../dev/nexmark.rs"]
mod nexmark;
mod plain;
mod plain_loop;
#[path = "../../dev/price.rs"]
mod prices;
#[path = "../../dev/seeded.rs"]
mod seeded;
mod sessions;
#[path = "../../dev/shop.rs"]
mod shop;
mod sizes;

use std::error::Error;
use std::io::{BufWriter, Write};

type AnyError = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["count", "visit"] => println!("{}", long_visit::count()),
        ["count", what, batches] => println!("{}", cpu::count(what, batches.parse()?)),
        ["sessions", rules, file] => sessions::print(rules, file)?,
        ["loop", gap_seconds, file] => plain_loop::print(gap_seconds.parse()?, file)?,
        ["nexmark", events] => print_bids(events.parse()?)?,
        ["cpu"] => cpu::print(),
        ["latency"] => tokio::task::block_in_place(latency::print)?,
        [] => {
            cost::print().await?;
            tokio::task::block_in_place(latency::print)?;
            cpu::print();
        }
        ["cost"] => cost::print().await?,
        ["gates"] => cost::gates().await?.iter().for_each(|(name, figure)| println!("{name} {figure:.3}")),
        _ => return Err("figures: not understood; the arguments are at the top of benches/figures/main.rs".into()),
    }
    Ok(())
}

fn print_bids(events: usize) -> Result<(), AnyError> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    for (number, bid) in nexmark::bids(events).enumerate() {
        writeln!(out, "{}", nexmark::event(number, &bid))?;
    }
    Ok(out.flush()?)
}
