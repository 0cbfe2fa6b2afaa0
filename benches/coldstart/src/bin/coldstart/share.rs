//! The share of a core that Lambda gives a function of 128 MB.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;

/// 128 MB of the 1,769 MB for which Lambda gives one core.
const SHARE: (u64, u64) = (128, 1_769);
/// The possible mount points of the CPU controller: of version 1 and of version 2.
const HIERARCHIES: [&str; 2] = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup"];

/// A control group with that share.
pub struct Share {
    group: PathBuf,
    /// How often CPU time is granted, in milliseconds.
    pub period_ms: u64,
}

impl Share {
    /// Makes a control group.
    ///
    /// # Errors
    /// The process may not make one with a CPU quota.
    pub fn new(period_ms: u64) -> Result<Self, Failure> {
        for root in HIERARCHIES.map(Path::new).into_iter().filter(|root| root.join("cgroup.procs").exists()) {
            let share = Self { group: root.join(format!("coldstart-{}-{period_ms}", std::process::id())), period_ms };
            if std::fs::create_dir(&share.group).is_ok() && share.limit().is_ok() {
                return Ok(share);
            }
        }
        Err("no control group with a CPU quota can be made here; run it as root on a machine that allows it".into())
    }

    /// Writes the quota.
    fn limit(&self) -> std::io::Result<()> {
        let period = self.period_ms * 1_000;
        let quota = period * SHARE.0 / SHARE.1;
        if self.group.join("cpu.cfs_quota_us").exists() {
            std::fs::write(self.group.join("cpu.cfs_period_us"), period.to_string())?;
            return std::fs::write(self.group.join("cpu.cfs_quota_us"), quota.to_string());
        }
        std::fs::write(self.group.join("cpu.max"), format!("{quota} {period}"))
    }

    /// Makes a command start inside the group.
    ///
    /// # Errors
    /// The group cannot be written.
    pub fn confine(&self, command: &mut Command) -> Result<(), Failure> {
        let mut procs: File = OpenOptions::new().write(true).open(self.group.join("cgroup.procs"))?;
        // SAFETY: between fork and exec there is only one write to an open file, which is async-signal-safe.
        unsafe { command.pre_exec(move || procs.write_all(b"0")) };
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.group);
    }
}
