//! The whole service on one machine, on an embedded DynamoDB.
//!
//! ```text
//! cargo run --release --example local                     replays real traffic and shows what comes of it
//! … -- replay FILE|- [--batch N] [--rules JSON] [--annotated OUT] [--sessions OUT]
//! … -- serve [--port 9000] [--dynamodb-port 8000] [--rules JSON]
//! ```

use std::error::Error;
use std::path::PathBuf;

use lexopt::{Arg, ValueExt};
use session_tracking::config::SessionConfig;

#[path = "../../dev/dynamodb.rs"]
mod dynamodb;
mod ledger;
mod replay;
mod report;
mod serve;

type AnyError = Box<dyn Error + Send + Sync>;

/// The real traffic that the repository carries.
const TRAFFIC: &str = "tests/data/weblog-events.ndjson";

const USAGE: &str = "usage:
  local                                      replay real traffic and show what comes of it
  local replay FILE [--batch N] [--rules JSON] [--annotated OUT] [--sessions OUT]
                                             replay NDJSON; `-` is standard input
  local serve [--port 9000] [--dynamodb-port 8000] [--rules JSON]
                                             the HTTP API and the closer, live, until stopped";

/// What the command line asks for.
enum Command {
    Replay(replay::Options),
    Serve(serve::Options),
    Help,
}

#[tokio::main]
async fn main() {
    let result = match command() {
        Ok(Command::Replay(options)) => replay::run(options).await,
        Ok(Command::Serve(options)) => serve::run(options).await,
        Ok(Command::Help) => {
            println!("{USAGE}");
            Ok(())
        }
        Err(error) => Err(format!("{error}\n{USAGE}").into()),
    };
    if let Err(error) = result {
        eprintln!("local: {error}");
        std::process::exit(2);
    }
}

fn command() -> Result<Command, AnyError> {
    let mut words = lexopt::Parser::from_env();
    let Some(word) = words.next()? else {
        // From any folder of the repository or none: the path is the crate's.
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(TRAFFIC);
        return Ok(Command::Replay(replay::Options { file, ..replay::Options::default() }));
    };
    match word {
        Arg::Value(word) if word == "replay" => replay_options(words).map(Command::Replay),
        Arg::Value(word) if word == "serve" => serve_options(words).map(Command::Serve),
        Arg::Long("help") | Arg::Short('h') => Ok(Command::Help),
        other => Err(other.unexpected().into()),
    }
}

fn replay_options(mut words: lexopt::Parser) -> Result<replay::Options, AnyError> {
    let mut options = replay::Options::default();
    let mut file = None;
    while let Some(word) = words.next()? {
        match word {
            Arg::Long("batch") => options.batch = words.value()?.parse()?,
            Arg::Long("rules") => options.rules = rules(words.value()?.string()?)?,
            Arg::Long("annotated") => options.annotated = Some(words.value()?.into()),
            Arg::Long("sessions") => options.sessions = Some(words.value()?.into()),
            Arg::Value(path) if file.is_none() => file = Some(path.into()),
            other => return Err(other.unexpected().into()),
        }
    }
    options.file = file.ok_or("replay needs a file, or `-` for standard input")?;
    if options.batch == 0 {
        return Err("--batch must be at least 1".into());
    }
    Ok(options)
}

fn serve_options(mut words: lexopt::Parser) -> Result<serve::Options, AnyError> {
    let mut options = serve::Options::default();
    while let Some(word) = words.next()? {
        match word {
            Arg::Long("port") => options.port = words.value()?.parse()?,
            Arg::Long("dynamodb-port") => options.dynamodb_port = words.value()?.parse()?,
            Arg::Long("rules") => options.rules = rules(words.value()?.string()?)?,
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(options)
}

fn rules(text: String) -> Result<SessionConfig, AnyError> {
    let value = serde_json::from_str(&text).map_err(|error| format!("--rules is not JSON: {error}"))?;
    Ok(SessionConfig::from_rules(value)?)
}
