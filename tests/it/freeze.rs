//! Lambda freezes a function between invocations. Meanwhile DynamoDB closes its idle connections.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use session_tracking::clock::{Clock, SystemClock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::binaries::{INGEST, variables};
use crate::dynamodb::EmbeddedDynamoDb;
use crate::fake_runtime::{Function, RuntimeEvent};

/// The time limit of an invocation. None comes near it.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// More visitors than there are writes at once, so that as many connections as possible are open.
const VISITORS: usize = 100;

/// Starts a proxy that closes connections after this idle time, on both sides. Returns its endpoint and its number of connections
/// so far.
async fn proxy_that_closes_idle_connections(endpoint: &str, idle: Duration) -> (String, Arc<AtomicUsize>) {
    let to = endpoint.strip_prefix("http://").unwrap().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            let server = TcpStream::connect(&to).await.unwrap();
            // Either side may close at any time. That ends the connection and is not an error of the test.
            tokio::spawn(async move { pass(client, server, idle).await.ok() });
        }
    });
    (endpoint, connections)
}

/// Passes bytes in both directions until one side closes, or until the connection is idle for too long.
async fn pass(mut client: TcpStream, mut server: TcpStream, idle: Duration) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut request, mut answer) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            read = client.read(&mut request) => match read? {
                0 => return Ok(()),
                read => server.write_all(&request[..read]).await?,
            },
            read = server.read(&mut answer) => match read? {
                0 => return Ok(()),
                read => client.write_all(&answer[..read]).await?,
            },
            () = SystemClock.sleep(idle) => return Ok(()),
        }
    }
}

fn signal(function: &Function, name: &str) {
    let sent = Command::new("kill").args([name, &function.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Returns a payload with an event of each visitor.
fn payload(round: usize) -> String {
    let event = |at: usize| json!({ "uuid": format!("e{round}-{at}"), "event": "x", "distinct_id": format!("v{at}") });
    json!({ "events": (0..VISITORS).map(event).collect::<Vec<_>>() }).to_string()
}

/// Checks that every event has a session, and that only the first round begins sessions.
fn check(answer: &str, round: usize) {
    let answer: Value = serde_json::from_str(answer).unwrap();
    assert_eq!(answer["failed"], Value::Null, "{answer:#}");
    let events = answer["events"].as_array().unwrap();
    assert_eq!(events.len(), VISITORS);
    assert!(events.iter().all(|event| event["properties"]["$session_start"] == json!(round == 0)));
}

/// Runs an invocation, then freezes the function three times. Each time an invocation waits when the function thaws.
async fn freeze(idle: Duration, frozen: Duration) {
    let database = EmbeddedDynamoDb::start(0).unwrap();
    let (endpoint, connections) = proxy_that_closes_idle_connections(&database.endpoint, idle).await;
    let mut function = Function::start(INGEST, &variables(&endpoint)).await;
    check(&function.invoke(payload(0), TIME_LIMIT).await, 0);
    for round in 1..=3 {
        let before = connections.load(Ordering::Relaxed);
        signal(&function, "-STOP");
        SystemClock.sleep(frozen).await;
        // It may have been stopped before it requested an invocation.
        function.enqueue(payload(round), TIME_LIMIT);
        signal(&function, "-CONT");
        assert_eq!(function.next_event().await, RuntimeEvent::Taken);
        let RuntimeEvent::Answer(answer) = function.next_event().await else { panic!("no answer") };
        check(&answer, round);
        assert!(connections.load(Ordering::Relaxed) > before, "the old connections are still used");
    }
    let ended = function.kill();
    assert!(!ended.log.contains("WARN") && !ended.log.contains("ERROR"), "{}", ended.log);
}

/// The client itself would keep using these connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_closed_during_a_short_freeze_are_replaced() {
    freeze(Duration::from_secs(1), Duration::from_secs(3)).await;
}

/// Somewhat longer than servers of AWS keep idle connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes four minutes"]
async fn connections_closed_during_a_long_freeze_are_replaced() {
    freeze(Duration::from_secs(60), Duration::from_secs(70)).await;
}
