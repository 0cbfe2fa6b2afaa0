//! The example `local` as its users run it: the real binary with files, pipes and signals.

mod backfill;
mod cli;
mod cost;
mod demo;
mod invoke;
mod page;
mod replay;
mod serve;
mod spool;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::Value;

/// How long a test waits for output.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// Returns the path of an example's binary. Cargo builds the examples along with the tests, into a folder next to theirs.
pub fn example(name: &str) -> String {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().unwrap().parent().unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is not built; run `cargo build --example {name}`", path.display());
    path.to_str().unwrap().to_owned()
}

/// Returns the command with these arguments, in a folder.
fn local(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(example("local"));
    command.args(args).current_dir(folder);
    command
}

/// Runs a command with this standard input.
fn run_with(folder: &Path, args: &[&str], input: &str) -> Output {
    let mut command = local(folder, args);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // In a thread, because a command that waits for its output to be read would block this one.
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    // A command that needs no input does not read it.
    let _ = writer.join().unwrap();
    output
}

fn run(folder: &Path, args: &[&str]) -> Output {
    run_with(folder, args, "")
}

/// Returns bytes as a string.
fn utf8(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Parses lines of JSON.
fn json_lines(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

/// Runs a command that must be refused: with one sentence on standard error, nothing on standard output, and this status. Returns
/// the sentence.
fn refused(folder: &Path, args: &[&str], status: i32) -> String {
    let output = run(folder, args);
    let message = utf8(&output.stderr).to_owned();
    assert_eq!(output.status.code(), Some(status), "{args:?}: {message}");
    assert_eq!(utf8(&output.stdout), "", "{args:?}");
    assert_eq!(message.lines().count(), 1, "{args:?}: {message}");
    // No Rust syntax, and no error number of the system.
    for word in ["os error", "Err(", "Error {", "panicked", "i64", "u16", "usize", "invalid digit", "::"] {
        assert!(!message.contains(word), "{args:?}: {message}");
    }
    message.trim_end().to_owned()
}

/// A temporary folder of a test. It is deleted when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("local-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.0.join(name), content).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that cannot be deleted does no harm.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running command, and the lines of its output.
struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

impl Running {
    fn start(folder: &Path, args: &[&str]) -> Self {
        let mut command = local(folder, args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take();
        let (stdout, stderr) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
        Self { child, stdin, stdout, stderr }
    }

    fn write(&mut self, input: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    /// Returns the next line of standard output.
    fn line(&self) -> String {
        self.stdout.recv_timeout(MAX_WAIT).expect("a line on standard output")
    }

    /// Returns the next line of standard error that contains `with`.
    fn log(&self, with: &str) -> String {
        loop {
            let line = self.stderr.recv_timeout(MAX_WAIT).unwrap_or_else(|_| panic!("no `{with}` on standard error"));
            if line.contains(with) {
                return line;
            }
        }
    }

    /// Sends a signal. The process may have ended, but it was not waited for, so no other process has its number.
    fn signal(&self, name: &str) {
        Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status().unwrap();
    }

    /// Waits until the command ends, at most for this time. Returns its exit status.
    fn ends_within(&mut self, time: Duration) -> i32 {
        // Standard error is closed when the process ends.
        let (sender, receiver) = channel();
        let stderr = std::mem::replace(&mut self.stderr, channel().1);
        std::thread::spawn(move || {
            let rest: Vec<String> = stderr.iter().collect();
            sender.send(rest)
        });
        match receiver.recv_timeout(time) {
            Ok(rest) => {
                let status = self.child.wait().unwrap();
                status.code().unwrap_or_else(|| panic!("ended by a signal: {rest:?}"))
            }
            Err(RecvTimeoutError::Timeout) => panic!("still running after {time:?}"),
            Err(error) => panic!("{error}"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(from: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines() {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
