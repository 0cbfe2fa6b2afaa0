//! The example `local` as its users run it: the binary itself, its files, its pipes, its signals.

mod cli;
mod demo;
mod invoke;
mod replay;
mod serve;
mod spool;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::Value;

/// How long a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Cargo builds the examples along with the tests, into a folder beside theirs.
fn binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().unwrap().parent().unwrap().join("examples").join("local");
    assert!(path.exists(), "{} is not built; run `cargo build --example local`", path.display());
    path
}

/// The command, in a folder.
fn local(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(words).current_dir(folder);
    command
}

/// How a command ended, with this on its standard input.
fn run_with(folder: &Path, words: &[&str], input: &str) -> Output {
    let mut command = local(folder, words);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // Beside it: whoever writes all of its input first may wait for ever.
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    // A command that needs no input does not read it.
    let _ = writer.join().unwrap();
    output
}

fn run(folder: &Path, words: &[&str]) -> Output {
    run_with(folder, words, "")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The lines of JSON of a text.
fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

/// What a command has to say that cannot do what it was told: one sentence, nothing on standard output, a status.
fn refused(folder: &Path, words: &[&str], status: i32) -> String {
    let output = run(folder, words);
    let emitted = text(&output.stderr).to_owned();
    assert_eq!(output.status.code(), Some(status), "{words:?}: {emitted}");
    assert_eq!(text(&output.stdout), "", "{words:?}");
    assert_eq!(emitted.lines().count(), 1, "{words:?}: {emitted}");
    // Nothing of Rust, and no number of the system's.
    for word in ["os error", "Err(", "Error {", "panicked", "i64", "u16", "usize", "invalid digit", "::"] {
        assert!(!emitted.contains(word), "{words:?}: {emitted}");
    }
    emitted.trim_end().to_owned()
}

/// A folder of a test's own, gone when the test is done with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("local-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // One that stays behind is in nobody's way.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A command at work: its lines as they come.
struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

impl Running {
    fn start(folder: &Path, words: &[&str]) -> Self {
        let mut command = local(folder, words);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take();
        let (stdout, stderr) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
        Self { child, stdin, stdout, stderr }
    }

    fn write(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    /// The next line of standard output.
    fn line(&self) -> String {
        self.stdout.recv_timeout(PATIENCE).expect("a line on standard output")
    }

    /// The next line of standard error with this in it.
    fn log(&self, with: &str) -> String {
        loop {
            let line = self.stderr.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no `{with}` on standard error"));
            if line.contains(with) {
                return line;
            }
        }
    }

    /// Sends a signal. The process may have ended, but nobody else has its number: it is not waited for yet.
    fn signal(&self, name: &str) {
        Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status().unwrap();
    }

    /// Its exit status, which has to come in this time.
    fn ends_within(&mut self, time: Duration) -> i32 {
        // Standard error ends with the process.
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
            Err(RecvTimeoutError::Timeout) => panic!("still at work after {time:?}"),
            Err(error) => panic!("{error}"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended cannot be ended.
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
