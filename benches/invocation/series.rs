//! The invocations of one binary, by kind.

use crate::Failure;
use crate::process::{Taken, invoke, quiet, start, taken};
use crate::table::Table;
use crate::traffic::Visitors;

/// Batches of some visitors while their visits last: 21 events of each.
const BATCHES: usize = 7;
/// Groups of visitors whom a process sees from their first batch on.
const GROUPS: usize = 3;
/// Groups whose visits another process goes on with, and the batches that it finds stored.
const COLD: usize = 4;
const STORED: usize = 4;

/// What kind of batch it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A process's first: no connection is there, no visitor is known.
    First,
    /// All visitors are new.
    New,
    /// All visitors are in the process's memory.
    Warm,
    /// All visitors are stored, and none is in the process's memory.
    Cold,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::First, Self::New, Self::Warm, Self::Cold];

    pub fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::New => "new",
            Self::Warm => "warm",
            Self::Cold => "cold",
        }
    }
}

/// A binary, and what its invocations took.
pub struct Series {
    command: String,
    taken: Vec<(Kind, Taken)>,
    /// Whose visits the next process goes on with.
    stored: Vec<Visitors>,
    processes: usize,
}

impl Series {
    pub fn new(command: &str) -> Self {
        Self { command: command.to_owned(), taken: Vec::new(), stored: Vec::new(), processes: 0 }
    }

    /// Runs one process through all kinds; what it takes counts, or does not.
    pub async fn process(&mut self, table: &Table, counts: bool) -> Result<(), Failure> {
        self.processes += 1;
        let hash = xxhash_rust::xxh3::xxh3_64(self.command.as_bytes()) & 0xffff;
        let name = |group: usize| format!("{hash:04x}-{}-{group}", self.processes);
        let mut function = start(&[], &self.command, table).await;
        let id = function.id();
        let mut measured = Vec::new();
        quiet(id).await?;
        // It may not have begun yet.
        while taken(id, table)?.sockets == 0 {
            quiet(id).await?;
        }
        for group in 0..GROUPS {
            let mut visitors = Visitors::new(name(group));
            for batch in 0..BATCHES {
                let kind = match (group, batch) {
                    (0, 0) => Some(Kind::First),
                    (_, 0) => Some(Kind::New),
                    // What is in memory is used once reads have shown that it is worth it.
                    (0, 1) => None,
                    _ => Some(Kind::Warm),
                };
                let before = taken(id, table)?;
                invoke(&mut function, &mut visitors).await?;
                measured.extend(kind.map(|kind| (kind, before)).zip(Some(taken(id, table)?)));
            }
        }
        for mut visitors in std::mem::take(&mut self.stored) {
            let before = taken(id, table)?;
            invoke(&mut function, &mut visitors).await?;
            measured.push(((Kind::Cold, before), taken(id, table)?));
        }
        for group in 0..COLD {
            let mut visitors = Visitors::new(name(GROUPS + group));
            for _ in 0..STORED {
                invoke(&mut function, &mut visitors).await?;
            }
            self.stored.push(visitors);
        }
        function.kill();
        if counts {
            self.taken.extend(measured.into_iter().map(|((kind, before), after)| (kind, after.since(before))));
        }
        Ok(())
    }

    /// The median of something that invocations of a kind took.
    fn median(&self, kind: Kind, of: impl Fn(&Taken) -> f64) -> f64 {
        let mut values: Vec<f64> =
            self.taken.iter().filter(|(known, _)| *known == kind).map(|(_, taken)| of(taken)).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }

    pub fn cpu_ms(&self, kind: Kind) -> f64 {
        self.median(kind, |taken| taken.cpu.as_secs_f64() * 1000.0)
    }

    pub fn page_faults(&self, kind: Kind) -> f64 {
        self.median(kind, |taken| taken.page_faults as f64)
    }

    pub fn calls(&self, kind: Kind) -> f64 {
        self.median(kind, |taken| taken.calls as f64)
    }

    /// Connections that are there afterwards and were not before.
    pub fn connections(&self, kind: Kind) -> f64 {
        self.median(kind, |taken| taken.sockets as f64)
    }
}
