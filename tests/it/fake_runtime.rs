//! A Lambda Runtime API for tests, and a function's real binary that runs under it. An API and a port for each process, so that
//! what a killed one asked for last never reaches the next.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
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

/// No function takes so long, whatever else the machine does.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the function said, or did.
#[derive(Debug, PartialEq, Eq)]
pub enum Emitted {
    /// It took the invocation.
    Taken,
    Answer(String),
    Error(String),
}

struct Invocation {
    payload: String,
    deadline: Millis,
}

/// The API's side of a function.
struct Api {
    invocations: Mutex<UnboundedReceiver<Invocation>>,
    emitted: UnboundedSender<Emitted>,
}

async fn next(State(api): State<Arc<Api>>) -> Response {
    let Some(Invocation { payload, deadline }) = api.invocations.lock().await.recv().await else {
        return StatusCode::GONE.into_response();
    };
    let _ = api.emitted.send(Emitted::Taken);
    let headers = [
        ("lambda-runtime-aws-request-id", "request".to_owned()),
        ("lambda-runtime-deadline-ms", deadline.to_string()),
        ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:x:1:function:f".to_owned()),
    ];
    (headers, payload).into_response()
}

async fn answer(
    State(api): State<Arc<Api>>,
    Path((_request, kind)): Path<(String, String)>,
    body: String,
) -> StatusCode {
    let emitted = if kind == "response" { Emitted::Answer(body) } else { Emitted::Error(body) };
    let _ = api.emitted.send(emitted);
    StatusCode::ACCEPTED
}

/// A function's process.
pub struct Function {
    child: Child,
    api: tokio::task::JoinHandle<()>,
    invocations: UnboundedSender<Invocation>,
    emitted: UnboundedReceiver<Emitted>,
    output: JoinHandle<String>,
    log: JoinHandle<String>,
}

/// What is left of a function.
#[derive(Debug)]
pub struct Ended {
    /// Whole lines of its standard output; what was being written when it was killed is not one.
    pub lines: Vec<String>,
    /// What it wrote to standard error.
    pub log: String,
    pub status: ExitStatus,
}

impl Function {
    /// Starts a binary with these variables, and no others but what Lambda sets.
    pub async fn start(binary: &str, variables: &[(&str, &str)]) -> Self {
        Self::start_command(Command::new(binary), variables).await
    }

    /// As [`Function::start`], of a command that has been prepared.
    pub async fn start_command(mut command: Command, variables: &[(&str, &str)]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (invocations, receiver) = unbounded_channel();
        let (sender, emitted) = unbounded_channel();
        let api = Arc::new(Api { invocations: Mutex::new(receiver), emitted: sender });
        let router = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{request}/{kind}", post(answer))
            .layer(DefaultBodyLimit::disable())
            .with_state(api);
        let api = tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
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
        Self { child, api, invocations, emitted, output, log }
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Hands it an invocation that has this much time, and waits until it has it.
    pub async fn hand(&mut self, payload: String, time: Duration) {
        self.offer(payload, time);
        assert_eq!(self.emitted().await, Emitted::Taken);
    }

    /// Has an invocation ready for when it asks next, if it has not asked already.
    pub fn offer(&self, payload: String, time: Duration) {
        let deadline = SystemClock.now() + time.as_millis() as Millis;
        self.invocations.send(Invocation { payload, deadline }).unwrap();
    }

    /// What it says next.
    pub async fn emitted(&mut self) -> Emitted {
        self.emitted_within(PATIENCE).await
    }

    /// What it says next, if it has so much to do that it may take longer than others.
    pub async fn emitted_within(&mut self, patience: Duration) -> Emitted {
        match select(Box::pin(self.emitted.recv()), Box::pin(SystemClock.sleep(patience))).await {
            Either::Left((Some(emitted), _)) => emitted,
            _ => panic!("the function says nothing; has it ended? {:?}", self.child.try_wait()),
        }
    }

    /// Its answer to an invocation that has this much time.
    pub async fn invoke(&mut self, payload: String, time: Duration) -> String {
        self.hand(payload, time).await;
        match self.emitted().await {
            Emitted::Answer(answer) => answer,
            emitted => panic!("{emitted:?}"),
        }
    }

    /// Ends it at once, as SIGKILL does.
    pub fn kill(mut self) -> Ended {
        self.child.kill().unwrap();
        self.ended()
    }

    /// Waits until it ends by itself.
    pub fn ended(mut self) -> Ended {
        let status = self.child.wait().unwrap();
        self.api.abort();
        let mut output = self.output.join().unwrap();
        output.truncate(output.rfind('\n').map_or(0, |end| end + 1));
        Ended { lines: output.lines().map(str::to_owned).collect(), log: self.log.join().unwrap(), status }
    }
}

/// Reads to the end, so that the function never waits for a reader.
fn drain(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
