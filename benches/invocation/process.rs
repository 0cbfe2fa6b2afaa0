//! A function's process under a fake Runtime API, and the resources that it has used so far.

use std::process::Command;
use std::time::Duration;

use crate::Failure;
use crate::fake_runtime::{Function, RuntimeEvent};
use crate::table::Table;
use crate::traffic::Visitors;

/// The time limit of an invocation, which is never reached.
const TIME_LIMIT: Duration = Duration::from_mins(2);
/// A process that uses no CPU for this long waits for its next invocation.
const QUIET: Duration = Duration::from_millis(12);
/// How many warm invocations are counted.
pub const COUNTED: usize = 5;

/// The resources that a process has used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// User and system time of all its threads.
    pub cpu: Duration,
    /// Minor and major page faults.
    pub page_faults: u64,
    /// Calls of the table.
    pub calls: usize,
    /// Open sockets.
    pub sockets: usize,
}

impl Usage {
    /// Returns the usage since an earlier one.
    pub fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            page_faults: self.page_faults - before.page_faults,
            calls: self.calls - before.calls,
            sockets: self.sockets.saturating_sub(before.sockets),
        }
    }
}

/// Starts a function with the environment of `template.yaml`. `command` is a binary, after variables that are set differently
/// (`NAME=value`). `wrapper` is a program that runs the binary.
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

/// Returns the variables of `template.yaml` for the C library's allocator.
fn malloc_settings() -> impl Iterator<Item = (&'static str, &'static str)> {
    let lines = include_str!("../../template.yaml").lines().map(str::trim);
    let settings = lines.filter(|line| line.starts_with("MALLOC_")).filter_map(|line| line.split_once(": "));
    settings.map(|(name, value)| (name, value.trim_matches('"')))
}

/// Invokes a function with a batch, and waits until it has answered and waits for the next invocation.
pub async fn invoke(function: &mut Function, visitors: &mut Visitors) -> Result<(), Failure> {
    let answer = function.invoke(visitors.batch(), TIME_LIMIT).await;
    if !answer.starts_with(r#"{"events":[{"#)
        || answer.contains(r#""rejected":[{"#)
        || answer.contains(r#""failed":[{"#)
    {
        return Err(format!("not an answer to a batch: {answer:.300}").into());
    }
    wait_until_idle(function.id()).await
}

/// Waits until a process uses no CPU.
pub async fn wait_until_idle(id: u32) -> Result<(), Failure> {
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

/// Returns the resources that a process has used since its start.
pub fn usage(id: u32, table: &Table) -> Result<Usage, Failure> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    // The third field and all later ones follow the process's name, which may contain any characters.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let field =
        |number: usize| fields.get(number - 3).and_then(|field| field.parse::<u64>().ok()).ok_or("/proc/…/stat");
    let sockets = std::fs::read_dir(format!("/proc/{id}/fd"))?
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|link| link.to_string_lossy().starts_with("socket:"))
        .count();
    Ok(Usage { cpu: cpu(id)?, page_faults: field(10)? + field(12)?, calls: table.calls(), sockets })
}

/// Returns the CPU time of a process's threads, to the nanosecond.
fn cpu(id: u32) -> Result<Duration, Failure> {
    let mut nanoseconds = 0;
    for thread in std::fs::read_dir(format!("/proc/{id}/task"))? {
        let stat = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        nanoseconds += stat.split(' ').next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Returns the instructions of a process that is invoked `2 + warm` times with the same visitors, and the calls of the last
/// invocation.
pub async fn instructions(command: &str, table: &Table, warm: usize) -> Result<(u64, usize), Failure> {
    let valgrind = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"];
    let mut function = start(&valgrind, command, table).await;
    let (mut visitors, mut calls) = (Visitors::new(format!("count-{warm}-{}", table.calls())), 0);
    for _ in 0..2 + warm {
        let before = table.calls();
        function.deliver(visitors.batch(), TIME_LIMIT).await;
        match function.next_event().await {
            RuntimeEvent::Answer(_) => calls = table.calls() - before,
            emitted => return Err(format!("{emitted:?}").into()),
        }
    }
    // Waits until it waits for the next invocation. It is slow under valgrind.
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Valgrind logs its count when it is asked to end.
    Command::new("kill").args(["-TERM", &function.id().to_string()]).status()?;
    let log = function.wait().log;
    let count = log.lines().find_map(|line| line.split_once("I   refs:")).ok_or("valgrind logged no count")?;
    Ok((count.1.replace(',', "").trim().parse()?, calls))
}
