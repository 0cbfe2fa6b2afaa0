//! Runs the whole service on one machine, with an embedded DynamoDB.
//!
//! ```text
//! cargo run --example local                 shows two visits as they arise, then real traffic
//! cargo run --example local -- --help       lists the commands
//! ```
//!
//! Each command has a file with its declaration (`COMMAND`, from which its help is made) and its `run`.

// The futures of the service and of the AWS client nest deeper than the compiler's default.
#![recursion_limit = "256"]

use std::process::ExitCode;

use lexopt::Arg;

mod backfill;
mod cli;
mod clock;
mod cost;
mod demo;
#[path = "../../dev/dynamodb.rs"]
mod dynamodb;
mod failure;
mod feed;
mod invoke;
mod page;
mod price;
#[path = "../../dev/price.rs"]
mod prices;
mod replay;
mod rules;
mod serve;
mod stop;
mod table;

use failure::Failure;

const COMMANDS: [&cli::Command; 5] =
    [&replay::COMMAND, &invoke::COMMAND, &serve::COMMAND, &cost::COMMAND, &backfill::COMMAND];

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { message, status }) => {
            if !message.is_empty() {
                eprintln!("local: {message}");
            }
            ExitCode::from(status)
        }
    }
}

async fn run() -> Result<(), Failure> {
    let mut arguments = lexopt::Parser::from_env();
    let first = arguments.next().map_err(|error| Failure::usage(error.to_string()))?;
    let command = match first {
        None => return demo::run().await,
        Some(Arg::Long("help") | Arg::Short('h')) => return print(&cli::overview(&COMMANDS)),
        Some(Arg::Long("version") | Arg::Short('V')) => {
            return print(concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"), "\n"));
        }
        Some(Arg::Value(name)) => command(&name.to_string_lossy())?,
        Some(Arg::Long(name)) => return Err(unknown_option(&format!("--{name}"))),
        Some(Arg::Short(letter)) => return Err(unknown_option(&format!("-{letter}"))),
    };
    let Some(words) = command.read(arguments)? else { return print(&cli::command_help(command)) };
    match command.name {
        "replay" => replay::run(replay::Options::read(&words)?).await,
        "cost" => cost::run(cost::Options::read(&words)?),
        "backfill" => backfill::run(backfill::Options::read(&words)?).await,
        "invoke" => invoke::run(invoke::Options::read(&words)?).await,
        _ => serve::run(serve::Options::read(&words)?).await,
    }
}

fn command(name: &str) -> Result<&'static cli::Command, Failure> {
    COMMANDS.into_iter().find(|command| command.name == name).ok_or_else(|| {
        let names = COMMANDS.map(|command| command.name);
        let hint = match cli::suggestion(name, names.into_iter()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the commands are {}", names.join(", ")),
        };
        Failure::usage(format!("there is no command `{name}`; {hint}"))
    })
}

fn unknown_option(option: &str) -> Failure {
    Failure::usage(format!(
        "`{option}` is no option here: options follow a command ({}); `local --help` lists the commands",
        COMMANDS.map(|command| command.name).join(", ")
    ))
}

fn print(help: &str) -> Result<(), Failure> {
    use std::io::Write;
    std::io::stdout().write_all(help.as_bytes()).map_err(|error| Failure::output("standard output", &error))
}
