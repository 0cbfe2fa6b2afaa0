//! The input, sorted by visitor, then time, then `uuid`: an external sort, so that memory does not grow with the input.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Seek, Write};
use std::path::PathBuf;

use session_tracking::config::{ProjectRules, Projects};
use session_tracking::event::{Event, Rejection};
use session_tracking::session::Millis;
use xxhash_rust::xxh3::Xxh3;

use super::parsed::{RawLine, with_events};
use crate::failure::{Failure, reason};
use crate::replay::input::Input;
use crate::replay::spool::{Spool, temporary_file};

/// Lines that are read at once.
const LINES: usize = 1_000;
/// The maximum number of events that are sent at once: less than a timeline holds before it finalizes the oldest.
const MAX_BATCH: usize = 600;
/// The maximum number of skipped lines that are printed.
const MAX_PRINTED: u64 = 100;

/// What the input is.
#[derive(Debug, Default, Clone, Copy)]
pub struct Summary {
    pub events: u64,
    pub visitors: u64,
    /// Sessions that end by a timeout. Other rules can make more.
    pub sessions: u64,
    /// A write for each visitor of a batch.
    pub writes: u64,
    /// Lines that cannot be used, or that state no time.
    pub skipped: u64,
    /// A hash of the sorted events.
    pub hash: u128,
}

/// The sorted input, in a temporary file. A line begins with whether its event can begin a batch: it is the first of its visitor, or
/// the timeout has passed since the one before. The close function may end a session between two batches, and its rest would be late.
pub struct Sorted {
    lines: BufReader<File>,
    batches: Batches,
    /// The line after the last batch.
    next: Option<RawLine>,
    pub summary: Summary,
}

/// The marks of a line.
const BEGINS: u8 = b'+';
const CONTINUES: u8 = b' ';

/// Decides where batches begin.
#[derive(Debug, Clone, Copy)]
struct Batches {
    size: usize,
    /// The events of the batch so far.
    events: usize,
}

impl Batches {
    /// Adds an event. Returns whether it begins a batch.
    fn add(&mut self, can_begin: bool) -> bool {
        let begins = self.events >= MAX_BATCH || (self.events >= self.size && can_begin);
        self.events = if begins { 1 } else { self.events + 1 };
        begins
    }
}

/// The event before the next one.
struct Before {
    visitor: Vec<u8>,
    at: Millis,
}

impl Sorted {
    /// Reads and sorts the input. `batch` is the number of events that will be sent at once.
    ///
    /// # Errors
    /// A file cannot be read, or no temporary file can be written.
    pub async fn of(files: &[PathBuf], projects: &Projects, batch: usize, now: Millis) -> Result<Self, Failure> {
        let mut spool = Spool::default();
        let mut skipped = 0;
        for path in files {
            let mut input = Input::open(path)?;
            while let Some(lines) = input.batch(LINES).await? {
                let numbers: Vec<u64> = lines.iter().map(|line| line.number).collect();
                let lines: Vec<RawLine> =
                    lines.into_iter().map(|line| RawLine { text: line.text, bytes: line.bytes }).collect();
                let mut kept = |events: Vec<Result<Event<'_>, Rejection>>| -> io::Result<()> {
                    for ((event, line), number) in events.into_iter().zip(&lines).zip(&numbers) {
                        let why = match event {
                            Ok(event) if line.is_dated() => {
                                spool.push(&key(&event, projects), line.text.trim_ascii())?;
                                continue;
                            }
                            Ok(_) => "no_time: the event states no time; set `timestamp`".to_owned(),
                            Err(rejection) => format!("{}: {}", rejection.code.name(), rejection.message),
                        };
                        skipped += 1;
                        if skipped <= MAX_PRINTED {
                            eprintln!("{}, line {number}: {why}", path.display());
                        }
                    }
                    Ok(())
                };
                with_events(&lines, projects, now, async |events| kept(events))
                    .await
                    .map_err(|error| temporary(&error))?;
            }
        }
        let summary = Summary { skipped, ..Summary::default() };
        Self::written(spool, summary, batch).map_err(|error| temporary(&error))
    }

    /// Writes the sorted events, and counts.
    fn written(spool: Spool, mut summary: Summary, size: usize) -> io::Result<Self> {
        let mut file = BufWriter::new(temporary_file()?);
        let (mut hash, mut before) = (Xxh3::new(), None);
        let batches = Batches { size, events: 0 };
        let mut counted = batches;
        let mut groups = spool.into_groups()?;
        while let Some((key, texts)) = groups.next_keyed_group()? {
            for text in texts {
                hash.update(&text);
                hash.update(b"\n");
                let can_begin = count(&mut summary, &mut before, &key, &mut counted);
                file.write_all(&[if can_begin { BEGINS } else { CONTINUES }])?;
                file.write_all(&text)?;
                file.write_all(b"\n")?;
            }
        }
        summary.hash = hash.digest128();
        let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        Ok(Self { lines: BufReader::new(file), batches, next: None, summary })
    }

    /// Returns the next events, `None` at the end.
    ///
    /// # Errors
    /// The temporary file cannot be read.
    pub fn batch(&mut self) -> Result<Option<Vec<RawLine>>, Failure> {
        let mut batch = Vec::new();
        batch.extend(self.next.take());
        while let Some((can_begin, line)) = self.line()? {
            if self.batches.add(can_begin) {
                self.next = Some(line);
                break;
            }
            batch.push(line);
        }
        Ok((!batch.is_empty()).then_some(batch))
    }

    /// Leaves out the first events.
    ///
    /// # Errors
    /// The temporary file cannot be read.
    pub fn skip(&mut self, events: u64) -> Result<(), Failure> {
        for _ in 0..events {
            self.line()?;
        }
        Ok(())
    }

    /// Returns the next line, and whether it can begin a batch.
    fn line(&mut self) -> Result<Option<(bool, RawLine)>, Failure> {
        let mut text = Vec::new();
        if self.lines.read_until(b'\n', &mut text).map_err(|error| temporary(&error))? == 0 {
            return Ok(None);
        }
        text.pop();
        let can_begin = text.first() == Some(&BEGINS);
        text.drain(..1);
        Ok(Some((can_begin, RawLine { bytes: text.len() as u64, text })))
    }
}

/// Returns an event's key. The bytes of keys are in the order of visitor, time and `uuid`. It begins with the timeout of the visitor's
/// project, which the counts need, and the visitor ends with a character that no other part has.
fn key(event: &Event<'_>, projects: &Projects) -> String {
    let timeout = projects.rules_of(&event.project).timeout.num_milliseconds();
    format!("{timeout} {}\u{0}{}\u{0}{:015}{}", event.project, event.distinct_id, event.at, event.uuid)
}

/// Counts an event with this key. Returns whether it can begin a batch.
fn count(summary: &mut Summary, before: &mut Option<Before>, key: &[u8], batches: &mut Batches) -> bool {
    // The time follows the last NUL character. No event has one: it would be rejected or replaced.
    let end = memchr::memrchr(0, key).map_or(0, |at| at + 1);
    let number = |digits: &[u8]| std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    let at: Millis = key.get(end..end + 15).and_then(number).unwrap_or_default();
    let timeout: Millis = key.split(|&byte| byte == b' ').next().and_then(number).unwrap_or_default();
    let visitor = &key[..end];
    let same = before.as_ref().filter(|before| before.visitor == visitor);
    let (is_new, can_begin) = (same.is_none(), same.is_none_or(|before| at - before.at > timeout));
    let begins_batch = batches.add(can_begin);
    summary.events += 1;
    summary.visitors += u64::from(is_new);
    summary.sessions += u64::from(can_begin);
    summary.writes += u64::from(is_new || begins_batch);
    *before = Some(Before { visitor: visitor.to_vec(), at });
    can_begin
}

fn temporary(error: &io::Error) -> Failure {
    Failure::work(format!("a temporary file cannot be used: {}; `TMPDIR` chooses the folder", reason(error)))
}
