//! The figures that the README and `docs/performance.md` claim.

mod cpu;
mod trace;

use std::error::Error;

type AnyError = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), AnyError> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["count", what, batches] => {
            let prepared = cpu::prepare(batches.parse()?, 3);
            let mut bytes = 0;
            for batch in &prepared {
                bytes += match what {
                    "ours" => cpu::ours(batch),
                    "parse" => cpu::parse(batch),
                    _ => 0,
                };
            }
            println!("{bytes}");
        }
        ["cpu"] => {
            for each in [1, 3, 10] {
                let time = |work: fn(&cpu::Prepared) -> usize| {
                    let prepared = cpu::prepare(200, each);
                    #[allow(clippy::disallowed_methods, reason = "a measurement")]
                    let began = std::time::Instant::now();
                    for batch in &prepared {
                        std::hint::black_box(work(batch));
                    }
                    began.elapsed().as_secs_f64() / 200.0 / 100.0 * 1e6
                };
                let best = |work| (0..5).map(|_| time(work)).fold(f64::MAX, f64::min);
                let (ours, parse) = (best(cpu::ours), best(cpu::parse));
                println!("{each}: ours {ours:.2} us an event, parse {parse:.2} us, ratio {:.2}", ours / parse);
            }
        }
        _ => return Err("figures: cpu".into()),
    }
    Ok(())
}
