//! Notes about visitors, kept out of memory until the end, and then given back by visitor, in the order in which they came.
//!
//! An external sort: notes gather in memory up to [`RUN_BYTES`], are sorted and written to a temporary file; at the end the
//! files are merged. Memory is one run, then a few kilobytes a run and one visitor's notes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Cursor, Read, Seek, Write};

use session_tracking::clock::{Clock, SystemClock};

/// Bytes of notes in memory.
const RUN_BYTES: usize = 8 * 1024 * 1024;
/// What else a note takes in memory: its place.
const PLACE_BYTES: usize = size_of::<Place>();

/// Where a note stands in the run: its key, then its text.
struct Place {
    start: u32,
    key_bytes: u32,
    text_bytes: u32,
}

/// Notes as they come.
pub struct Spool {
    bytes: Vec<u8>,
    places: Vec<Place>,
    runs: Vec<File>,
    /// Bytes in memory before a run is written.
    limit: usize,
}

impl Default for Spool {
    fn default() -> Self {
        Self::with_limit(RUN_BYTES)
    }
}

impl Spool {
    /// Returns one that keeps this many bytes in memory.
    pub fn with_limit(limit: usize) -> Self {
        Self { bytes: Vec::new(), places: Vec::new(), runs: Vec::new(), limit }
    }

    /// Keeps a note.
    pub fn push(&mut self, key: &str, text: &[u8]) -> io::Result<()> {
        let more = key.len() + text.len();
        let held = self.bytes.len() + self.places.len() * PLACE_BYTES;
        if held > 0 && held + more + PLACE_BYTES > self.limit {
            self.spill()?;
        }
        let size = |bytes: usize| u32::try_from(bytes).map_err(|_| io::Error::other("a note is too long"));
        self.places.push(Place {
            start: size(self.bytes.len())?,
            key_bytes: size(key.len())?,
            text_bytes: size(text.len())?,
        });
        self.bytes.extend_from_slice(key.as_bytes());
        self.bytes.extend_from_slice(text);
        Ok(())
    }

    /// Writes what is in memory to a file of its own.
    fn spill(&mut self) -> io::Result<()> {
        let mut file = BufWriter::new(temporary_file()?);
        self.write_sorted(&mut file)?;
        let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        self.runs.push(file);
        Ok(())
    }

    fn write_sorted(&mut self, to: &mut impl Write) -> io::Result<()> {
        let (bytes, mut places) = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.places));
        let key = |place: &Place| &bytes[place.start as usize..][..place.key_bytes as usize];
        // A stable sort: the notes of one visitor stay in their order.
        places.sort_by(|one, other| key(one).cmp(key(other)));
        for place in &places {
            to.write_all(&place.key_bytes.to_le_bytes())?;
            to.write_all(&place.text_bytes.to_le_bytes())?;
            let length = (place.key_bytes + place.text_bytes) as usize;
            to.write_all(&bytes[place.start as usize..][..length])?;
        }
        Ok(())
    }

    /// Returns the notes by key.
    pub fn into_groups(mut self) -> io::Result<Groups> {
        let mut last = Vec::with_capacity(self.bytes.len() + self.places.len() * 8);
        self.write_sorted(&mut last)?;
        let mut groups = Groups { runs: Vec::new(), heads: BinaryHeap::new() };
        for file in self.runs {
            groups.add(Box::new(BufReader::new(file)))?;
        }
        groups.add(Box::new(Cursor::new(last)))?;
        Ok(groups)
    }
}

/// A note at the head of a run: its key, the run, its text. Of one key, the notes of earlier runs come first.
type SessionAnchor = Reverse<(Vec<u8>, usize, Vec<u8>)>;

/// A key, and its notes in the order in which they came.
pub type Group = (Vec<u8>, Vec<Vec<u8>>);

/// Notes by key.
pub struct Groups {
    runs: Vec<Box<dyn Read + Send>>,
    heads: BinaryHeap<SessionAnchor>,
}

impl Groups {
    fn add(&mut self, run: Box<dyn Read + Send>) -> io::Result<()> {
        self.runs.push(run);
        self.advance(self.runs.len() - 1)
    }

    fn advance(&mut self, run: usize) -> io::Result<()> {
        let from = &mut self.runs[run];
        let mut sizes = [0; 8];
        match from.read(&mut sizes[..1])? {
            0 => return Ok(()),
            _ => from.read_exact(&mut sizes[1..])?,
        }
        let [a, b, c, d, e, f, g, h] = sizes;
        let mut key = vec![0; u32::from_le_bytes([a, b, c, d]) as usize];
        from.read_exact(&mut key)?;
        let mut text = vec![0; u32::from_le_bytes([e, f, g, h]) as usize];
        from.read_exact(&mut text)?;
        self.heads.push(Reverse((key, run, text)));
        Ok(())
    }

    /// Returns the notes of the next key, in the order in which they came.
    pub fn next_group(&mut self) -> io::Result<Option<Vec<Vec<u8>>>> {
        Ok(self.next_keyed_group()?.map(|(_, texts)| texts))
    }

    /// Returns the next key and its notes, in the order in which they came.
    pub fn next_keyed_group(&mut self) -> io::Result<Option<Group>> {
        let Some(Reverse((key, run, text))) = self.heads.pop() else { return Ok(None) };
        self.advance(run)?;
        let mut texts = vec![text];
        while self.heads.peek().is_some_and(|Reverse((next, ..))| *next == key) {
            let Some(Reverse((_, run, text))) = self.heads.pop() else { break };
            self.advance(run)?;
            texts.push(text);
        }
        Ok(Some((key, texts)))
    }
}

/// A file that is gone when it is closed.
pub fn temporary_file() -> io::Result<File> {
    let name = format!("session-tracking-{}-{:016x}", std::process::id(), SystemClock.random());
    let path = std::env::temp_dir().join(name);
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    // Its name goes at once: whatever ends the process, nothing is left behind.
    std::fs::remove_file(&path)?;
    Ok(file)
}
