//! The lines of the input, a batch at a time: read ahead by a thread, never held as a whole.

use std::collections::VecDeque;
use std::fs::{File, Metadata};
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use session_tracking::event::{MAX_EVENT_BYTES, time_of_json};
use session_tracking::session::Millis;
use tokio::sync::mpsc;

use crate::failure::{Failure, reason};

/// Bytes that are read at once. The lines that end in them are handed on together.
const READ_BYTES: usize = 64 * 1024;
/// Such groups of lines that are read ahead.
const READ_AHEAD: usize = 4;
/// How long a batch of a stream waits for its next lines.
const PAUSE: Duration = Duration::from_millis(250);
/// Bytes of a line that are kept. More than an event may have, so that a longer one is rejected for its size.
pub const MAX_LINE_BYTES: usize = 2 * MAX_EVENT_BYTES;
/// What some programs begin a file with.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A line of the input.
pub struct Line {
    /// Counted from 1, empty lines included.
    pub number: u64,
    pub text: Vec<u8>,
    /// Bytes of the whole line, of which `text` has the first [`MAX_LINE_BYTES`].
    pub bytes: u64,
    /// When it was received, by the input's time.
    pub received_at: Millis,
    /// Bytes of the input up to its end.
    pub end: u64,
}

/// The times of an event, if it says any.
#[derive(Deserialize, Default)]
struct Times<'a> {
    #[serde(borrow)]
    received_at: Option<&'a RawValue>,
    #[serde(borrow)]
    timestamp: Option<&'a RawValue>,
}

/// The input.
pub struct Input {
    lines: mpsc::Receiver<io::Result<Vec<Line>>>,
    /// What was received and not given out.
    pending: VecDeque<Line>,
    /// How long it is, where that is known.
    pub bytes: Option<u64>,
    name: String,
}

impl Input {
    /// Opens a file, or standard input for `-`.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let (reader, bytes): (Box<dyn Read + Send>, _) = match open(path, &name)? {
            None => (Box::new(io::stdin()), None),
            Some((file, data)) => (Box::new(file), data.is_file().then_some(data.len())),
        };
        let (sender, lines) = mpsc::channel(READ_AHEAD);
        std::thread::spawn(move || read(BufReader::with_capacity(READ_BYTES, reader), &sender));
        Ok(Self { lines, pending: VecDeque::new(), bytes, name })
    }

    /// Looks whether there is a regular file to read; what else there is shows when it is read.
    pub fn check(path: &Path) -> Result<(), Failure> {
        let name = path.display().to_string();
        match std::fs::metadata(path) {
            // A pipe can be opened once.
            Ok(data) if !data.is_file() && !data.is_dir() => Ok(()),
            _ => open(path, &name).map(drop),
        }
    }

    /// Returns the next batch, none at the end. One of a stream is smaller where the next line is long in coming. What is
    /// received of a batch stays when the future is dropped.
    pub async fn batch(&mut self, size: usize) -> Result<Option<Vec<Line>>, Failure> {
        if self.pending.is_empty() && !self.receive().await? {
            return Ok(None);
        }
        if self.bytes.is_some() {
            self.fill(size).await?;
        } else if let Ok(filled) = tokio::time::timeout(PAUSE, self.fill(size)).await {
            filled?;
        }
        let count = size.min(self.pending.len());
        Ok(Some(self.pending.drain(..count).collect()))
    }

    /// Returns all that was received and not given out.
    pub fn pending(&mut self) -> Vec<Line> {
        self.pending.drain(..).collect()
    }

    async fn fill(&mut self, size: usize) -> Result<(), Failure> {
        while self.pending.len() < size && self.receive().await? {}
        Ok(())
    }

    /// Receives more lines; returns whether there are any.
    async fn receive(&mut self) -> Result<bool, Failure> {
        let Some(lines) = self.lines.recv().await else { return Ok(false) };
        self.pending.extend(lines.map_err(|error| unreadable(&self.name, &error))?);
        Ok(true)
    }
}

/// Opens a file that can hold lines; none for standard input.
fn open(path: &Path, name: &str) -> Result<Option<(File, Metadata)>, Failure> {
    if path == Path::new("-") {
        return Ok(None);
    }
    let file = File::open(path).map_err(|error| unreadable(name, &error))?;
    let data = file.metadata().map_err(|error| unreadable(name, &error))?;
    if data.is_dir() {
        return Err(unreadable(name, &io::ErrorKind::IsADirectory.into()));
    }
    Ok(Some((file, data)))
}

fn unreadable(name: &str, error: &io::Error) -> Failure {
    Failure::work(format!("the input `{name}` cannot be read: {}", reason(error)))
}

/// Reads lines until the input ends or nobody takes them any more. Whenever the next line has to be waited for, those
/// before it are handed on.
fn read(mut reader: BufReader<impl Read>, to: &mpsc::Sender<io::Result<Vec<Line>>>) {
    let (mut number, mut end, mut newest) = (0, 0, 0);
    let mut group = Vec::new();
    loop {
        let next = next_line(&mut reader, &mut end);
        let is_over = !matches!(next, Ok(Some(_)));
        if let Ok(Some((text, bytes))) = next {
            number += 1;
            group.extend(line(number, text, bytes, end, &mut newest));
        } else if let Err(error) = next {
            // Nobody takes it: then nobody needs it.
            let _ = to.blocking_send(Ok(std::mem::take(&mut group)));
            let _ = to.blocking_send(Err(error));
        }
        let is_waiting = is_over || memchr::memchr(b'\n', reader.buffer()).is_none();
        if is_waiting && !group.is_empty() && to.blocking_send(Ok(std::mem::take(&mut group))).is_err() || is_over {
            return;
        }
    }
}

/// Returns a line with when it was received: at its `received_at`, else when the newest event so far happened. None where
/// there is nothing in it.
fn line(number: u64, mut text: Vec<u8>, bytes: u64, end: u64, newest: &mut Millis) -> Option<Line> {
    if number == 1 && text.starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len());
    }
    if text.trim_ascii().is_empty() {
        return None;
    }
    // What is no event is for the event parser to reject. An array would be read as the members in their order.
    let object = Some(text.trim_ascii()).filter(|text| text.starts_with(b"{"));
    let times: Times<'_> = object.and_then(|text| serde_json::from_slice(text).ok()).unwrap_or_default();
    let parse = |json: Option<&RawValue>| time_of_json(json?.get());
    let stated = parse(times.received_at);
    *newest = (*newest).max(stated.or_else(|| parse(times.timestamp)).unwrap_or(*newest));
    Some(Line { number, text, bytes, received_at: stated.unwrap_or(*newest), end })
}

/// Returns the next line without its end, as much of it as is kept, and how long it is; adds all that was read to `end`.
fn next_line(reader: &mut impl BufRead, end: &mut u64) -> io::Result<Option<(Vec<u8>, u64)>> {
    let (mut line, mut length, mut is_any) = (Vec::new(), 0, false);
    loop {
        let (used, is_whole) = {
            let bytes = match reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                bytes => bytes?,
            };
            if bytes.is_empty() {
                return Ok(is_any.then_some((line, length)));
            }
            let (part, used) = match memchr::memchr(b'\n', bytes) {
                Some(at) => (&bytes[..at], at + 1),
                None => (bytes, bytes.len()),
            };
            let room = MAX_LINE_BYTES.saturating_sub(line.len());
            line.extend_from_slice(&part[..part.len().min(room)]);
            length += part.len() as u64;
            (used, used > part.len())
        };
        is_any = true;
        reader.consume(used);
        *end += used as u64;
        if is_whole {
            return Ok(Some((line, length)));
        }
    }
}
