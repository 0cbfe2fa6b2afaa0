//! A function's process under a fake Runtime API, and what it has taken so far.

use std::process::Command;
use std::time::Duration;

use crate::Failure;
use crate::fake_runtime::{Emitted, Function};
use crate::table::Table;
use crate::traffic::Visitors;

/// The time of an invocation: plenty.
const TIME: Duration = Duration::from_secs(120);
/// A process that took no CPU for so long waits for its next invocation.
const QUIET: Duration = Duration::from_millis(12);
/// Warm invocations whose instructions are counted.
pub const COUNTED: usize = 5;

/// What a process has taken since it began.
#[derive(Debug, Clone, Copy, Default)]
pub struct Taken {
    /// Of all its threads, user and system.
    pub cpu: Duration,
    pub page_faults: u64,
    pub calls: usize,
    pub sockets: usize,
}

impl Taken {
    pub fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            page_faults: self.page_faults - before.page_faults,
            calls: self.calls - before.calls,
            sockets: self.sockets.saturating_sub(before.sockets),
        }
    }
}

/// Starts a function in the environment that `template.yaml` gives it. A command is a binary, and before it variables that are
/// set otherwise (`NAME=value`); `wrapper` is a program that runs it.
pub async fn start(wrapper: &[&str], command: &str, table: &Table) -> Function {
    let (settings, words): (Vec<&str>, Vec<&str>) = command.split(' ').partition(|word| word.contains('='));
    let words = [wrapper, &words].concat();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    let authority = table.authority.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let queue = format!("{}/1/queue", table.url);
    let path = std::env::var("PATH").unwrap_or_default();
    let mut variables: Vec<(&str, &str)> = vec![
        ("AWS_ENDPOINT_URL_DYNAMODB", table.url.as_str()),
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_SESSION_TOKEN", "token"),
        ("AWS_REGION", "eu-central-1"),
        ("SSL_CERT_FILE", &authority),
        ("AWS_CA_BUNDLE", &authority),
        ("TABLE", "sessions"),
        ("OUTPUT", &queue),
        ("REJECTS", &queue),
        // For a wrapper.
        ("PATH", &path),
    ];
    for (name, value) in malloc_settings() {
        variables.push((name, value));
    }
    variables.extend(settings.iter().filter_map(|setting| setting.split_once('=')));
    Function::start_command(command, &variables).await
}

/// What `template.yaml` tells the C library's allocator.
fn malloc_settings() -> impl Iterator<Item = (&'static str, &'static str)> {
    let lines = include_str!("../../template.yaml").lines().map(str::trim);
    let settings = lines.filter(|line| line.starts_with("MALLOC_")).filter_map(|line| line.split_once(": "));
    settings.map(|(name, value)| (name, value.trim_matches('"')))
}

/// Hands it a batch and waits for its answer, and until it asks for more.
pub async fn invoke(function: &mut Function, visitors: &mut Visitors) -> Result<(), Failure> {
    let answer = function.invoke(visitors.batch(), TIME).await;
    if !answer.starts_with(r#"{"events":[{"#)
        || answer.contains(r#""rejected":[{"#)
        || answer.contains(r#""failed":[{"#)
    {
        return Err(format!("not an answer to a batch: {answer:.300}").into());
    }
    quiet(function.id()).await
}

/// Waits until a process waits.
pub async fn quiet(id: u32) -> Result<(), Failure> {
    let mut before = Duration::MAX;
    loop {
        let now = cpu(id)?;
        if now == before {
            return Ok(());
        }
        before = now;
        tokio::time::sleep(QUIET).await;
    }
}

/// What a process has taken since it began.
pub fn taken(id: u32, table: &Table) -> Result<Taken, Failure> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    // Behind the name, which may hold anything, the third field and those after it.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let field =
        |number: usize| fields.get(number - 3).and_then(|field| field.parse::<u64>().ok()).ok_or("/proc/…/stat");
    let sockets = std::fs::read_dir(format!("/proc/{id}/fd"))?
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|link| link.to_string_lossy().starts_with("socket:"))
        .count();
    Ok(Taken { cpu: cpu(id)?, page_faults: field(10)? + field(12)?, calls: table.calls(), sockets })
}

/// The CPU time of a process's threads, to the nanosecond.
fn cpu(id: u32) -> Result<Duration, Failure> {
    let mut nanoseconds = 0;
    for thread in std::fs::read_dir(format!("/proc/{id}/task"))? {
        let stat = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        nanoseconds += stat.split(' ').next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// The instructions of a process that is invoked twice with one group of visitors and so often again, and the calls of the
/// last invocation.
pub async fn instructions(command: &str, table: &Table, warm: usize) -> Result<(u64, usize), Failure> {
    let valgrind = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"];
    let mut function = start(&valgrind, command, table).await;
    let (mut visitors, mut calls) = (Visitors::new(format!("count-{warm}-{}", table.calls())), 0);
    for _ in 0..2 + warm {
        let before = table.calls();
        function.hand(visitors.batch(), TIME).await;
        match function.emitted().await {
            Emitted::Answer(_) => calls = table.calls() - before,
            emitted => return Err(format!("{emitted:?}").into()),
        }
    }
    // Until it waits for the next one: it is slow here.
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Valgrind says its count when it is asked to end.
    Command::new("kill").args(["-TERM", &function.id().to_string()]).status()?;
    let log = function.ended().log;
    let count = log.lines().find_map(|line| line.split_once("I   refs:")).ok_or("valgrind says no count")?;
    Ok((count.1.replace(',', "").trim().parse()?, calls))
}
