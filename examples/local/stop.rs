//! Ctrl-C and SIGTERM: the first one asks a command to end, the second one ends the process.

use std::io;

use tokio::sync::watch;

use crate::failure::{Failure, reason};

/// The exit status of a process that Ctrl-C ended, by the convention of shells.
const INTERRUPTED: i32 = 130;

/// Tells whether the process was asked to end.
#[derive(Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Starts to listen for signals. The second signal ends the process at once.
    ///
    /// # Errors
    /// The system cannot register the signals.
    pub fn listen() -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::work(format!("signals cannot be listened for: {}", reason(&error)));
        let (sender, receiver) = watch::channel(false);
        // Needs its own thread and runtime, because the others may block while they print.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        // Registers once, before anything else, so that no signal is missed.
        let mut signals = {
            let _inside = runtime.enter();
            Signals::new().map_err(failed)?
        };
        std::thread::spawn(move || {
            runtime.block_on(async {
                signals.next().await;
                // If nothing waits for the first signal, the second one ends the process.
                let _ = sender.send(true);
                signals.next().await;
            });
            std::process::exit(INTERRUPTED);
        });
        Ok(Self(receiver))
    }

    /// Returns once the process is asked to end.
    pub async fn wait(&self) {
        // The sender exists until the process ends, so this never fails.
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
