//! A proxy to the database that can cut a chosen request: before it arrives, or after it has taken effect and before its answer.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use session_tracking::clock::{Clock, SystemClock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

/// How a request is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// It does not arrive, and its connection is closed.
    Before,
    /// It takes effect, and its connection is closed before the answer.
    After,
    /// It takes effect, but its answer never comes.
    Held,
}

/// A proxy that passes bytes in both directions.
pub struct Proxy {
    pub endpoint: String,
    shared: Arc<Shared>,
}

struct Shared {
    to: SocketAddr,
    /// How many requests pass before the one that is cut, and how it is cut.
    plan: Mutex<Option<(usize, Cut)>>,
    /// Notified when a request was cut.
    cut: Notify,
    /// By how much every answer is delayed.
    delay: Duration,
    /// Whether it closes every connection.
    is_down: watch::Sender<bool>,
}

impl Proxy {
    /// Starts a proxy to the database at this endpoint, which delays every answer.
    pub async fn start(endpoint: &str, delay: Duration) -> Self {
        let to = endpoint.strip_prefix("http://").unwrap().parse().unwrap();
        let shared = Arc::new(Shared {
            to,
            plan: Mutex::new(None),
            cut: Notify::new(),
            delay,
            is_down: watch::Sender::new(false),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let shared = Arc::clone(&shared);
                    // Either side may close at any time. That ends the connection and is not an error of the test.
                    tokio::spawn(async move { shared.serve(client).await.ok() });
                }
            }
        });
        Self { endpoint, shared }
    }

    /// Closes every connection, those that are open and those to come, until it is up again.
    pub fn set_down(&self, is_down: bool) {
        self.shared.is_down.send_replace(is_down);
    }

    /// Cuts one request, after some others have passed; or, with `None`, no request.
    pub fn plan(&self, plan: Option<(usize, Cut)>) {
        *self.shared.plan.lock().unwrap() = plan;
        // Forgets an earlier cut that was not waited for.
        let _ = self.shared.cut.notified().now_or_never();
    }

    /// Waits until a request was cut.
    pub async fn wait_for_cut(&self) {
        self.shared.cut.notified().await;
    }
}

impl Shared {
    /// Returns how the request that begins now is cut.
    fn next(&self) -> Option<Cut> {
        let mut plan = self.plan.lock().unwrap();
        match &mut *plan {
            Some((0, _)) => plan.take().map(|(_, cut)| cut),
            Some((before, _)) => {
                *before -= 1;
                None
            }
            None => None,
        }
    }

    /// Serves a connection, on which requests and answers alternate.
    async fn serve(&self, mut client: TcpStream) -> std::io::Result<()> {
        let mut is_down = self.is_down.subscribe();
        if *is_down.borrow_and_update() {
            return Ok(());
        }
        let mut server = TcpStream::connect(self.to).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (mut request, mut answer) = (vec![0; 65_536], vec![0; 65_536]);
        let (mut is_answered, mut cut) = (true, None);
        loop {
            tokio::select! {
                _ = is_down.changed() => break,
                read = client.read(&mut request) => {
                    let read = read?;
                    if std::mem::take(&mut is_answered) {
                        cut = self.next();
                    }
                    if read == 0 || cut == Some(Cut::Before) {
                        break;
                    }
                    server.write_all(&request[..read]).await?;
                }
                read = server.read(&mut answer) => {
                    let read = read?;
                    if read == 0 || cut == Some(Cut::After) {
                        break;
                    }
                    if cut == Some(Cut::Held) {
                        self.cut.notify_one();
                        continue;
                    }
                    if !std::mem::replace(&mut is_answered, true) {
                        SystemClock.sleep(self.delay).await;
                    }
                    client.write_all(&answer[..read]).await?;
                }
            }
        }
        if cut.is_some() {
            self.cut.notify_one();
        }
        Ok(())
    }
}
