//! Ctrl-C and SIGTERM: the first asks a command to end, the second ends it.

use tokio::sync::watch;

/// The exit status of a process that Ctrl-C ended, as shells have it.
const INTERRUPTED: i32 = 130;

/// Whether the process was asked to end.
#[derive(Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Listens from now on. Whatever the process is at when it is asked the second time, it ends.
    pub fn listen() -> Self {
        let (sender, receiver) = watch::channel(false);
        // Before anything else happens, and once: no signal falls between two listeners.
        let signals = Signals::new();
        tokio::spawn(async move {
            let Some(mut signals) = signals else { return std::future::pending().await };
            signals.next().await;
            // Where nobody waits, the second one ends the process.
            let _ = sender.send(true);
            signals.next().await;
            std::process::exit(INTERRUPTED);
        });
        Self(receiver)
    }

    /// Returns once the process is asked to end.
    pub async fn wait(&self) {
        // The sender lives until the process ends.
        if self.0.clone().wait_for(|asked| *asked).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The signals that ask a process to end. None where they cannot be had: it is ended from outside then.
#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> Option<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let (interrupt, terminate) = (signal(SignalKind::interrupt()).ok()?, signal(SignalKind::terminate()).ok()?);
        Some(Self { interrupt, terminate })
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
    fn new() -> Option<Self> {
        Some(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
