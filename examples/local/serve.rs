//! Serves the HTTP API and runs the closer. Requests go through the function's own handler, in API Gateway's envelope.

mod clock;
mod http;
mod page;
mod shown;
mod tap;
mod traffic;

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use serde_json::Value;
use session_tracking::clock::{Clock, SystemClock};
use session_tracking::config::{AllowedOrigins, Projects, PublicAccess};
use session_tracking::manager::{CloseReport, SessionManager};
#[cfg(feature = "replay")]
use session_tracking::replay::{Inputs, ReplayStore};
use session_tracking::storage::DynamoDbSessionStorage;
use session_tracking::trigger::Ingest;

use crate::cli::{Command, Files, Opt, Takes, Words};
use crate::dynamodb::{EmbeddedDynamoDb, TABLE};
use crate::failure::{Failure, reason};
use crate::feed::Feed;
use crate::rules::{PROFILE, PROJECTS, RULES, projects};
use crate::stop::Stop;
use clock::{MAX_SPEED, ServeClock};
use http::Api;
use tap::Tap;
use traffic::Traffic;

/// The declaration of `serve`.
pub const COMMAND: Command = Command {
    name: "serve",
    about: "Serves the HTTP API, with the closer on a schedule and a DynamoDB, until it is stopped.",
    files: Files::None,
    options: &[
        Opt {
            name: "port",
            value: "PORT",
            takes: Takes::Whole(0, 65_535),
            default: "9000",
            about: "the port of 127.0.0.1 that takes events; 0 is any free port",
        },
        Opt {
            name: "dynamodb-port",
            value: "PORT",
            takes: Takes::Whole(0, 65_535),
            default: "8000",
            about: "the port of 127.0.0.1 that the DynamoDB listens on",
        },
        PROFILE,
        RULES,
        PROJECTS,
        Opt {
            name: "answer",
            value: "DETAIL",
            takes: Takes::Answer,
            default: "full",
            about: "`full`: requests count as signed, as by AWS credentials; `ids`: as anyone's, who gets ids and counters",
        },
        #[cfg(feature = "replay")]
        Opt {
            name: "replay",
            value: "FOLDER",
            takes: Takes::Text,
            default: "none",
            about: "keeps recorded events of session replay in this folder; without it, replay is off",
        },
        #[cfg(feature = "replay")]
        Opt {
            name: "replay-inputs",
            value: "WHAT",
            takes: Takes::Inputs,
            default: "mask",
            about: "`mask` hides what was typed before it is stored; `keep` keeps it as the recorder sent it",
        },
        Opt {
            name: "close-every",
            value: "SECONDS",
            takes: Takes::Whole(1, 3_600),
            default: "60",
            about: "how often the closer runs",
        },
        Opt {
            name: "grace",
            value: "SECONDS",
            takes: Takes::Whole(0, 3_600),
            default: "60",
            about: "how long after its due time a session is closed; deployed, it is a minute, because clocks differ",
        },
        Opt {
            name: "fast-forward",
            value: "",
            takes: Takes::Nothing,
            default: "off",
            about: "lets the page send sample traffic and make time run faster",
        },
    ],
    notes: "
In a browser, the port shows the sessions as they arise. Ends go to standard output, one line of JSON each. The log goes to standard error. To see an end soon:
  local serve --close-every 1 --grace 0 --rules '{\"timeout_seconds\":10,\"lateness_seconds\":5}'
Ctrl-C (or SIGTERM) ends it when the requests in progress are answered, after at most two seconds; a second one, at once.",
};

/// The time limit of a request, in milliseconds: API Gateway's.
const REQUEST_MS: i64 = 30_000;
/// The time limit of a run of the closer, in milliseconds: the close function's.
const CLOSE_MS: i64 = 60_000;
/// How long the process waits at its end for requests in progress.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// The options of `serve`.
pub struct Options {
    port: u16,
    dynamodb_port: u16,
    projects: Projects,
    /// Whether requests count as signed.
    is_trusted: bool,
    close_every: Duration,
    grace: TimeDelta,
    /// Whether the page may make time run faster.
    has_time_travel: bool,
    /// Where recorded events are kept.
    #[cfg(feature = "replay")]
    replay: Option<ReplayStore>,
}

impl Options {
    /// Reads the options of the command line.
    ///
    /// # Errors
    /// An invalid value.
    pub fn read(words: &Words) -> Result<Self, Failure> {
        let port = |name| words.whole(name).map(|port| u16::try_from(port).unwrap_or_default());
        Ok(Self {
            port: port("port")?,
            dynamodb_port: port("dynamodb-port")?,
            projects: projects(words)?,
            is_trusted: match words.text("answer")? {
                None | Some("full") => true,
                Some("ids") => false,
                Some(other) => return Err(words.wrong("answer", other)),
            },
            #[cfg(feature = "replay")]
            replay: replay(words)?,
            close_every: Duration::from_secs(words.whole("close-every")?),
            grace: TimeDelta::seconds(i64::try_from(words.whole("grace")?).unwrap_or_default()),
            has_time_travel: words.is_given("fast-forward"),
        })
    }
}

/// Reads where recorded events are kept.
#[cfg(feature = "replay")]
fn replay(words: &Words) -> Result<Option<ReplayStore>, Failure> {
    let inputs = match words.text("replay-inputs")? {
        None | Some("mask") => Inputs::Mask,
        Some("keep") => Inputs::Keep,
        Some(other) => return Err(words.wrong("replay-inputs", other)),
    };
    let store = words.path("replay").map(|folder| ReplayStore::in_folder(folder, inputs)).transpose();
    store.map_err(|error| Failure::usage(format!("--replay: {error}")))
}

/// The ingest function.
type Function = Ingest<DynamoDbSessionStorage, ServeClock, Tap>;

/// Runs `serve`.
///
/// # Errors
/// A port cannot be used.
pub async fn run(options: Options) -> Result<(), Failure> {
    let stop = Stop::listen()?;
    start_log();
    let database =
        EmbeddedDynamoDb::start(options.dynamodb_port).map_err(|error| format!("--dynamodb-port: {error}"))?;
    let port = options.port;
    let unusable = |error: std::io::Error| {
        Failure::work(format!("--port: port {port} of 127.0.0.1 cannot be used: {}", reason(&error)))
    };
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.map_err(unusable)?;
    let bound = listener.local_addr().map_err(unusable)?;
    eprintln!("HTTP API   http://{bound}/events");
    eprintln!("page       http://{bound}/");
    eprintln!("DynamoDB   {} (table {TABLE})", database.endpoint);
    eprintln!("ends of sessions go to standard output, as lines of JSON; stop with Ctrl-C");
    let close_every = TimeDelta::from_std(options.close_every).unwrap_or(TimeDelta::MAX).num_milliseconds();
    let api = Arc::new(api(options, &database, stop.clone()));
    let routes = page::routes(api.has_time_travel).fallback(http::answer);
    let app = routes.with_state(Arc::clone(&api));
    let stop_serving = stop.clone();
    let serving = axum::serve(listener, app).with_graceful_shutdown(async move { stop_serving.wait().await });
    let shutdown = async {
        stop.wait().await;
        eprintln!("stopping when the requests in progress are answered; Ctrl-C again ends it at once");
        SystemClock.sleep(SHUTDOWN_TIMEOUT).await;
    };
    tokio::select! {
        served = async { serving.await } => served.map_err(|error| Failure::work(format!("serving: {}", reason(&error)))),
        // A request that is not complete may never end.
        () = shutdown => Ok(()),
        () = close(&api, close_every) => Ok(()),
    }
}

/// Returns what the handlers of requests and the closer share.
fn api(options: Options, database: &EmbeddedDynamoDb, stop: Stop) -> Api {
    let (clock, feed) = (ServeClock::new(), Arc::<Feed>::default());
    let storage = DynamoDbSessionStorage::new(database.client(), TABLE);
    let manager = SessionManager::with_clock(options.projects, storage, clock.clone()).with_close_grace(options.grace);
    #[cfg(not(feature = "replay"))]
    let has_replay = false;
    #[cfg(feature = "replay")]
    let has_replay = options.replay.is_some();
    #[cfg(feature = "replay")]
    let manager = match options.replay {
        Some(replay) => manager.with_replay(replay),
        None => manager,
    };
    let output = Tap { feed: Arc::clone(&feed), clock: clock.clone(), is_rejects: false };
    let rejects = Tap { is_rejects: true, ..output.clone() };
    let function =
        Ingest { manager, output, rejects, origins: AllowedOrigins::default(), public: PublicAccess::default() };
    // A request takes real time, while the clock may run faster.
    let speed = if options.has_time_travel { i64::from(MAX_SPEED) } else { 1 };
    Api {
        function,
        is_trusted: options.is_trusted,
        request_ms: REQUEST_MS * speed,
        close_ms: CLOSE_MS * speed,
        clock,
        has_time_travel: options.has_time_travel,
        has_replay,
        feed,
        traffic: Traffic::default(),
        process: format!("{:016x}", SystemClock.random()),
        stop,
    }
}

/// Starts the log, which goes to standard error like the functions' logs.
fn start_log() {
    let log = tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_target(false);
    log.with_writer(std::io::stderr).init();
}

/// Runs the close function on its schedule, in the time of the service's clock.
async fn close(api: &Api, every_ms: i64) {
    loop {
        api.clock.wait_until(api.clock.now() + every_ms).await;
        let function = &api.function;
        let report = function.manager.cleanup(&function.output, api.clock.now() + api.close_ms).await;
        if report.examined > 0 || report.failed > 0 {
            tracing::info!("closed {}", fields(&report));
        }
    }
}

/// Returns the report of a run of the closer as the fields of a log line.
fn fields(report: &CloseReport) -> String {
    let report = serde_json::to_value(report).unwrap_or_default();
    let field = |(name, value): (&String, &Value)| format!("{name}={value}");
    let fields: Vec<String> = report.as_object().into_iter().flatten().map(field).collect();
    fields.join(" ")
}
