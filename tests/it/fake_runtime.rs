//! A Lambda Runtime API for tests, and the real binary of a function that runs under it. Each process has an API and a port of its
//! own, so that the last request of a killed process never reaches the next one.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::future::{Either, select};
use session_tracking::clock::{Clock, SystemClock};
use session_tracking::session::Millis;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Longer than a function takes for its next request, even on a busy machine.
const MAX_WAIT: Duration = Duration::from_mins(1);

/// A request of the function to the Runtime API.
#[derive(Debug, PartialEq, Eq)]
pub enum RuntimeEvent {
    /// It has taken the next invocation.
    Taken,
    /// The answer to an invocation.
    Answer(String),
    /// The error of an invocation.
    Error(String),
}

struct Invocation {
    request_id: String,
    payload: String,
    deadline: Millis,
}

/// The state of the API for one function.
struct Api {
    invocations: Mutex<UnboundedReceiver<Invocation>>,
    /// How many requests wait for an invocation.
    polls: AtomicUsize,
    /// What the function asks and answers, each with the id of the invocation.
    events: UnboundedSender<(String, RuntimeEvent)>,
}

async fn next(State(api): State<Arc<Api>>) -> Response {
    api.polls.fetch_add(1, Ordering::Relaxed);
    let invocation = api.invocations.lock().await.recv().await;
    api.polls.fetch_sub(1, Ordering::Relaxed);
    let Some(Invocation { request_id, payload, deadline }) = invocation else {
        return StatusCode::GONE.into_response();
    };
    let _ = api.events.send((request_id.clone(), RuntimeEvent::Taken));
    let headers = [
        ("lambda-runtime-aws-request-id", request_id),
        ("lambda-runtime-deadline-ms", deadline.to_string()),
        ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:x:1:function:f".to_owned()),
    ];
    (headers, payload).into_response()
}

async fn answer(
    State(api): State<Arc<Api>>,
    Path((request_id, kind)): Path<(String, String)>,
    body: String,
) -> StatusCode {
    let event = if kind == "response" { RuntimeEvent::Answer(body) } else { RuntimeEvent::Error(body) };
    let _ = api.events.send((request_id, event));
    StatusCode::ACCEPTED
}

/// A function's process.
pub struct Function {
    child: Process,
    #[cfg_attr(
        not(feature = "managed-instances"),
        allow(dead_code, reason = "only tests of that feature count polls")
    )]
    api: Arc<Api>,
    server: tokio::task::JoinHandle<()>,
    invocations: UnboundedSender<Invocation>,
    events: UnboundedReceiver<(String, RuntimeEvent)>,
    output: JoinHandle<String>,
    log: JoinHandle<String>,
}

/// A process that ends with the test that started it, also if that panics.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It fails if the process has ended, which is as well.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A function whose process has ended.
#[derive(Debug)]
pub struct Exited {
    /// The complete lines of its standard output. A line that was being written when it was killed is left out.
    pub lines: Vec<String>,
    /// Its standard error.
    pub log: String,
    pub status: ExitStatus,
}

impl Function {
    /// Starts a binary with these variables and those that Lambda sets.
    pub async fn start(binary: &str, variables: &[(&str, &str)]) -> Self {
        Self::start_command(Command::new(binary), variables).await
    }

    /// Like [`Function::start`], but with a prepared command.
    pub async fn start_command(mut command: Command, variables: &[(&str, &str)]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (invocations, receiver) = unbounded_channel();
        let (sender, events) = unbounded_channel();
        let api = Arc::new(Api { invocations: Mutex::new(receiver), polls: AtomicUsize::new(0), events: sender });
        let router = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{request}/{kind}", post(answer))
            .layer(DefaultBodyLimit::disable())
            .with_state(Arc::clone(&api));
        let server = tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        let mut child = command
            .env_clear()
            .envs([("AWS_LAMBDA_RUNTIME_API", address.as_str()), ("AWS_LAMBDA_FUNCTION_NAME", "f")])
            .envs([("AWS_LAMBDA_FUNCTION_VERSION", "1"), ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512")])
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (output, log) = (drain(child.stdout.take().unwrap()), drain(child.stderr.take().unwrap()));
        Self { child: Process(child), api, server, invocations, events, output, log }
    }

    /// Returns its process id.
    pub fn id(&self) -> u32 {
        self.child.0.id()
    }

    /// Gives it an invocation with this time limit, and waits until it has taken it.
    pub async fn deliver(&mut self, payload: String, time: Duration) {
        self.enqueue(payload, time);
        assert_eq!(self.next_event().await, RuntimeEvent::Taken);
    }

    /// Keeps an invocation ready for its next request.
    pub fn enqueue(&self, payload: String, time: Duration) {
        self.enqueue_as("request", payload, time);
    }

    /// Like [`Function::enqueue`], with a request id of its own.
    pub fn enqueue_as(&self, request_id: &str, payload: String, time: Duration) {
        let deadline = SystemClock.now() + time.as_millis() as Millis;
        self.invocations.send(Invocation { request_id: request_id.to_owned(), payload, deadline }).unwrap();
    }

    /// Waits until as many of its requests wait for an invocation.
    #[cfg(feature = "managed-instances")]
    pub async fn wait_for_polls(&self, polls: usize) {
        let deadline = SystemClock.now() + MAX_WAIT.as_millis() as Millis;
        while self.api.polls.load(Ordering::Relaxed) < polls {
            assert!(SystemClock.now() < deadline, "the function asks for too few invocations at once");
            SystemClock.sleep(Duration::from_millis(5)).await;
        }
    }

    /// Returns its next request.
    pub async fn next_event(&mut self) -> RuntimeEvent {
        self.next_event_within(MAX_WAIT).await
    }

    /// Returns its next request, which may take as long as `max_wait`.
    pub async fn next_event_within(&mut self, max_wait: Duration) -> RuntimeEvent {
        self.next_request_within(max_wait).await.1
    }

    /// Returns its next request with the id of the invocation.
    #[cfg(feature = "managed-instances")]
    pub async fn next_request(&mut self) -> (String, RuntimeEvent) {
        self.next_request_within(MAX_WAIT).await
    }

    async fn next_request_within(&mut self, max_wait: Duration) -> (String, RuntimeEvent) {
        match select(Box::pin(self.events.recv()), Box::pin(SystemClock.sleep(max_wait))).await {
            Either::Left((Some(request), _)) => request,
            _ => panic!("the function sends nothing; has it ended? {:?}", self.child.0.try_wait()),
        }
    }

    /// Returns its answer to an invocation with this time limit.
    pub async fn invoke(&mut self, payload: String, time: Duration) -> String {
        self.deliver(payload, time).await;
        match self.next_event().await {
            RuntimeEvent::Answer(answer) => answer,
            event => panic!("{event:?}"),
        }
    }

    /// Ends it at once, as SIGKILL does.
    pub fn kill(mut self) -> Exited {
        self.child.0.kill().unwrap();
        self.wait()
    }

    /// Waits until it ends.
    pub fn wait(mut self) -> Exited {
        let status = self.child.0.wait().unwrap();
        self.server.abort();
        let mut output = self.output.join().unwrap();
        output.truncate(output.rfind('\n').map_or(0, |end| end + 1));
        Exited { lines: output.lines().map(str::to_owned).collect(), log: self.log.join().unwrap(), status }
    }
}

/// Reads an output to its end in a thread, so that the function never blocks on it.
fn drain(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
