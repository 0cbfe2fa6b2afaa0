//! A connection to the database that can be cut at a request of one's choice: before it arrives, or after it took effect and
//! before its answer.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use session_tracking::clock::{Clock, SystemClock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// It never arrives, and its connection breaks.
    Before,
    /// It takes effect; its connection breaks before the answer.
    After,
    /// It takes effect; its answer never comes.
    Held,
}

/// A proxy that passes bytes on.
pub struct Proxy {
    pub endpoint: String,
    shared: Arc<Shared>,
}

struct Shared {
    to: SocketAddr,
    /// How many requests to pass before the one that is cut.
    plan: Mutex<Option<(usize, Cut)>>,
    /// A request was cut.
    happened: Notify,
    /// How long every answer takes longer.
    delay: Duration,
}

impl Proxy {
    /// A proxy before the database at this endpoint, with answers that take longer.
    pub async fn start(endpoint: &str, delay: Duration) -> Self {
        let to = endpoint.strip_prefix("http://").unwrap().parse().unwrap();
        let shared = Arc::new(Shared { to, plan: Mutex::new(None), happened: Notify::new(), delay });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let shared = Arc::clone(&shared);
                    // Either end may break at any time: that ends the connection and is no error of the test.
                    tokio::spawn(async move { shared.serve(client).await.ok() });
                }
            }
        });
        Self { endpoint, shared }
    }

    /// Cuts the request after the next so many, once; or no request any more.
    pub fn plan(&self, plan: Option<(usize, Cut)>) {
        *self.shared.plan.lock().unwrap() = plan;
        // What happened before and was not waited for is of no interest any more.
        let _ = self.shared.happened.notified().now_or_never();
    }

    /// Waits until a request was cut.
    pub async fn happened(&self) {
        self.shared.happened.notified().await;
    }
}

impl Shared {
    /// What happens to the request that begins now.
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

    /// A connection, on which requests and answers take turns.
    async fn serve(&self, mut client: TcpStream) -> std::io::Result<()> {
        let mut server = TcpStream::connect(self.to).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (mut request, mut answer) = (vec![0; 65_536], vec![0; 65_536]);
        let (mut is_answered, mut cut) = (true, None);
        loop {
            tokio::select! {
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
                        self.happened.notify_one();
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
            self.happened.notify_one();
        }
        Ok(())
    }
}
