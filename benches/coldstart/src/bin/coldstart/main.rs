//! Measures cold starts, sizes and memory of the shipped functions. `run` describes the method.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads clocks and its environment")]

mod batch;
mod endpoint;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../../../../tests/it/fake_runtime.rs"]
mod fake_runtime;
mod report;
mod share;
mod start;
#[path = "../../../../../dev/tls.rs"]
mod tls;

use std::time::Duration;

use endpoint::Endpoint;
use report::Row;
use share::Share;
use start::Trust;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Starts of each binary, in turns; the figure is their median.
const STARTS: usize = 31;
/// How often CPU time is granted to a small function: Linux's default period, and a shorter one in which a start has to wait
/// sooner.
const PERIODS_MS: [u64; 2] = [100, 20];
/// Bytes that a function may use in addition to four times its payload.
const MEMORY_FLOOR: f64 = 12.0 * 1024.0 * 1024.0;
const MB: f64 = 1024.0 * 1024.0;

/// The binaries, in the order of the command line.
struct Binaries {
    ingest: String,
    close: String,
    bare: String,
    default_tls: String,
}

impl Binaries {
    fn from_args(args: &[String]) -> Result<Self, Failure> {
        let [ingest, close, bare, default_tls] = args else {
            return Err("usage: coldstart INGEST CLOSE BARE DEFAULT_TLS [--json]".into());
        };
        let [ingest, close, bare, default_tls] = [ingest, close, bare, default_tls].map(String::clone);
        Ok(Self { ingest, close, bare, default_tls })
    }
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

/// Measures the rows of cold starts, with a share of a core or a whole one.
async fn starts(binaries: &Binaries, share: Option<&Share>, endpoint: &mut Endpoint) -> Result<[Row; 4], Failure> {
    let all = [
        (&binaries.ingest, Trust::Few),
        (&binaries.bare, Trust::Machine),
        (&binaries.default_tls, Trust::Machine),
        (&binaries.bare, Trust::Few),
        (&binaries.ingest, Trust::Machine),
    ];
    let mut times = [const { Vec::new() }; 5];
    for round in 0..=STARTS {
        for ((binary, trust), times) in all.into_iter().zip(&mut times) {
            let time = start::first_write(binary, trust, share, endpoint).await?;
            // The first round fills the machine's caches.
            if round > 0 {
                times.push(time);
            }
        }
    }
    let [ingest, bare, default_tls, bare_few, ingest_machine] = times.map(median);
    let at = share.map(|share| format!(", CPU of 128 MB every {} ms", share.period_ms)).unwrap_or_default();
    let row = |name: &str, value: f64, ms: f64| {
        Row::of(format!("{name}{at}"), value).from(format!("{ingest:.1} ms; the other: {ms:.1} ms"))
    };
    let least = if share.is_some() { 10.0 } else { 5.0 };
    Ok([
        row("first write, over a function without SDK", ingest / bare, bare).at_most(2.2),
        row("first write with the SDK's own TLS, over ours", default_tls / ingest, default_tls).at_least(least),
        row("first write, over one without SDK that trusts as few", ingest / bare_few, bare_few),
        row("first write by the machine's bundle, over ours", ingest_machine / ingest, ingest_machine),
    ])
}

/// Returns the compressed size of a bootstrap, in MB.
fn compressed_mb(binary: &str) -> Result<f64, Failure> {
    let file = std::fs::File::open(binary)?;
    let mut compressed = flate2::read::GzEncoder::new(file, flate2::Compression::best());
    Ok(std::io::copy(&mut compressed, &mut std::io::sink())? as f64 / MB)
}

async fn memory(binaries: &Binaries, endpoint: &Endpoint) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for (name, event_bytes, max_events) in [("1 KB events", 1024, usize::MAX), ("10,000 small events", 0, 10_000)] {
        let payload = batch::batch(event_bytes, max_events);
        let size = payload.len() as f64;
        let peak = start::peak_memory(&binaries.ingest, payload, endpoint).await? as f64;
        let (peak_mb, size_mb) = (peak / MB, size / MB);
        rows.push(
            Row::of(format!("peak memory, {name}, over 4 × payload + 12 MB"), peak / (4.0 * size + MEMORY_FLOOR))
                .at_most(1.0)
                .from(format!("{peak_mb:.1} MB for a payload of {size_mb:.2} MB: {:.1} times", peak / size)),
        );
    }
    Ok(rows)
}

async fn measure(binaries: &Binaries) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    let mut endpoint = Endpoint::start().await?;
    rows.extend(starts(binaries, None, &mut endpoint).await?);
    for period_ms in PERIODS_MS {
        match Share::new(period_ms) {
            Ok(share) => rows.extend(starts(binaries, Some(&share), &mut endpoint).await?),
            Err(why) => eprintln!("no rows at the CPU of 128 MB: {why}"),
        }
    }
    for (name, binary) in [("ingest", &binaries.ingest), ("close", &binaries.close)] {
        rows.push(Row::of(format!("bootstrap of {name}, gzip, MB"), compressed_mb(binary)?).at_most(3.0));
    }
    rows.extend(memory(binaries, &endpoint).await?);
    Ok(rows)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let as_json = args.iter().any(|arg| arg == "--json");
    args.retain(|arg| arg != "--json");
    let rows = measure(&Binaries::from_args(&args)?).await?;
    report::print(&rows, as_json);
    Ok(())
}
