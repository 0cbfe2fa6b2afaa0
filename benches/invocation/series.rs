//! The invocations of one binary, by kind.

use crate::Failure;
use crate::process::{Usage, invoke, start, usage, wait_until_idle};
use crate::table::Table;
use crate::traffic::Visitors;

/// Batches of a group of visitors, which complete their visits of 21 events.
const BATCHES: usize = 7;
/// Groups of visitors whose whole visits one process gets.
const GROUPS: usize = 3;
/// Groups of visitors whose visits the next process continues.
const COLD_GROUPS: usize = 4;
/// Batches of such a group that are stored before.
const STORED_BATCHES: usize = 4;

/// Groups of visitors that fill a process's cache of timelines.
const SETTLING_GROUPS: usize = 12;
/// Groups of visitors that a settled process is measured with.
const SETTLED_GROUPS: usize = 3;

/// Returns the median of the page faults of a warm invocation in a process whose cache of timelines is full.
///
/// # Errors
/// The function did not answer a batch, or `/proc` cannot be read.
pub async fn settled_page_faults(command: &str, table: &Table) -> Result<u64, Failure> {
    let mut function = start(&[], command, table).await;
    let (id, mut faults) = (function.id(), Vec::new());
    for group in 0..SETTLING_GROUPS + SETTLED_GROUPS {
        let mut visitors = Visitors::new(format!("settled-{group}"));
        for batch in 0..BATCHES {
            let before = usage(id, table)?;
            invoke(&mut function, &mut visitors).await?;
            if group >= SETTLING_GROUPS && batch > 0 {
                faults.push(usage(id, table)?.since(before).page_faults);
            }
        }
    }
    function.kill();
    faults.sort_unstable();
    faults.get(faults.len() / 2).copied().ok_or_else(|| "nothing was measured".into())
}

/// The kind of an invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The process's first one: no connection is open and no visitor is known.
    First,
    /// All visitors are new.
    New,
    /// All visitors are in the process's cache.
    Warm,
    /// All visitors are stored, and none is in the process's cache.
    Cold,
}

impl Kind {
    /// All kinds, in the order of the rows.
    pub const ALL: [Self; 4] = [Self::First, Self::New, Self::Warm, Self::Cold];

    /// Returns the kind's name in the rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::New => "new",
            Self::Warm => "warm",
            Self::Cold => "cold",
        }
    }
}

/// A binary, and the resources that its invocations used.
pub struct Series {
    command: String,
    usages: Vec<(Kind, Usage)>,
    /// The visitors whose visits the next process continues.
    stored: Vec<Visitors>,
    processes: usize,
}

impl Series {
    /// Returns the series of a command, without invocations.
    pub fn new(command: &str) -> Self {
        Self { command: command.to_owned(), usages: Vec::new(), stored: Vec::new(), processes: 0 }
    }

    /// Runs one process through all kinds of invocations. They are only counted if `is_counted`.
    ///
    /// # Errors
    /// The function did not answer a batch, or `/proc` cannot be read.
    pub async fn process(&mut self, table: &Table, is_counted: bool) -> Result<(), Failure> {
        self.processes += 1;
        let hash = xxhash_rust::xxh3::xxh3_64(self.command.as_bytes()) & 0xffff;
        let name = |group: usize| format!("{hash:04x}-{}-{group}", self.processes);
        let mut function = start(&[], &self.command, table).await;
        let id = function.id();
        let mut measured = Vec::new();
        wait_until_idle(id).await?;
        // An idle process may not have started yet.
        while usage(id, table)?.sockets == 0 {
            wait_until_idle(id).await?;
        }
        for group in 0..GROUPS {
            let mut visitors = Visitors::new(name(group));
            for batch in 0..BATCHES {
                let kind = match (group, batch) {
                    (0, 0) => Some(Kind::First),
                    (_, 0) => Some(Kind::New),
                    // The cache is only used after reads have shown that it is worth it.
                    (0, 1) => None,
                    _ => Some(Kind::Warm),
                };
                let before = usage(id, table)?;
                invoke(&mut function, &mut visitors).await?;
                measured.extend(kind.map(|kind| (kind, before)).zip(Some(usage(id, table)?)));
            }
        }
        for mut visitors in std::mem::take(&mut self.stored) {
            let before = usage(id, table)?;
            invoke(&mut function, &mut visitors).await?;
            measured.push(((Kind::Cold, before), usage(id, table)?));
        }
        for group in 0..COLD_GROUPS {
            let mut visitors = Visitors::new(name(GROUPS + group));
            for _ in 0..STORED_BATCHES {
                invoke(&mut function, &mut visitors).await?;
            }
            self.stored.push(visitors);
        }
        function.kill();
        if is_counted {
            self.usages.extend(measured.into_iter().map(|((kind, before), after)| (kind, after.since(before))));
        }
        Ok(())
    }

    /// Returns the median of a value of all invocations of a kind.
    fn median(&self, kind: Kind, of: impl Fn(&Usage) -> f64) -> f64 {
        let mut values: Vec<f64> =
            self.usages.iter().filter(|(other, _)| *other == kind).map(|(_, usage)| of(usage)).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// Returns the median of the CPU time, in milliseconds.
    pub fn cpu_ms(&self, kind: Kind) -> f64 {
        self.median(kind, |usage| usage.cpu.as_secs_f64() * 1000.0)
    }

    /// Returns the median of the page faults.
    pub fn page_faults(&self, kind: Kind) -> f64 {
        self.median(kind, |usage| usage.page_faults as f64)
    }

    /// Returns the median of the calls of the table.
    pub fn calls(&self, kind: Kind) -> f64 {
        self.median(kind, |usage| usage.calls as f64)
    }

    /// Returns the median of the connections that were opened and are still open afterwards.
    pub fn connections(&self, kind: Kind) -> f64 {
        self.median(kind, |usage| usage.sockets as f64)
    }
}
