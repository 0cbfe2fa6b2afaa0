//! Ctrl-C and SIGTERM: the first asks a command to end, the second ends it.

use std::io;

use tokio::sync::watch;

use crate::failure::{Failure, reason};

/// The exit status of a process that Ctrl-C ended, as shells have it.
const INTERRUPTED: i32 = 130;

/// Whether the process was asked to end.
#[derive(Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Listens from now on. Whatever the process is at when it is asked the second time, it ends.
    pub fn listen() -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::work(format!("signals cannot be listened for: {}", reason(&error)));
        let (sender, receiver) = watch::channel(false);
        // A thread and a runtime of its own: the others may wait for somebody to read what they print.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        // Before anything else happens, and once: no signal falls between two listeners.
        let mut signals = {
            let _inside = runtime.enter();
            Signals::new().map_err(failed)?
        };
        std::thread::spawn(move || {
            runtime.block_on(async {
                signals.next().await;
                // Where nobody waits, the second one ends the process.
                let _ = sender.send(true);
                signals.next().await;
            });
            std::process::exit(INTERRUPTED);
        });
        Ok(Self(receiver))
    }

    /// Returns once the process is asked to end.
    pub async fn wait(&self) {
        // The sender lives until the process ends.
        if self.0.clone().wait_for(|asked| *asked).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The signals that ask a process to end.
#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
