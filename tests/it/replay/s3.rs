//! The chunks in S3, on a server of the test that speaks as much of S3 as is used: the real requests, signed and all.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_dynamodb::config::{Credentials, Region, SharedCredentialsProvider};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use session_tracking::config::SessionConfig;
use session_tracking::replay::chunk::{StoredEvent, pack};
use session_tracking::replay::{Inputs, ReplayEventType, ReplayStore, s3};

use super::{T0, World, change, full};

/// What the server got and holds.
#[derive(Default)]
struct Server {
    objects: Mutex<BTreeMap<String, Bytes>>,
    requests: Mutex<Vec<String>>,
    /// Statuses to answer with, before it works.
    faults: Mutex<Vec<u16>>,
}

async fn answer(
    State(server): State<Arc<Server>>,
    method: Method,
    uri: Uri,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let query = query.unwrap_or_default();
    let authorization = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=key/"), "{authorization}");
    assert!(authorization.contains("/eu-west-1/s3/aws4_request"), "{authorization}");
    assert_eq!(headers["x-amz-security-token"], "token");
    server.requests.lock().unwrap().push(format!("{method} {} {query}", uri.path()));
    if let Some(fault) = server.faults.lock().unwrap().pop() {
        return StatusCode::from_u16(fault).unwrap().into_response();
    }
    let key = uri.path().strip_prefix("/bucket").unwrap().trim_start_matches('/').to_owned();
    let mut objects = server.objects.lock().unwrap();
    match (method.as_str(), &*key) {
        ("PUT", _) => {
            objects.insert(key, body);
            [("etag", "\"e\"")].into_response()
        }
        ("GET", "") => list(&objects, &query).into_response(),
        ("GET", _) => match objects.get(&key) {
            Some(body) => {
                ([("etag", "\"e\""), ("last-modified", "Tue, 10 Mar 2026 12:00:00 GMT")], body.clone()).into_response()
            }
            None => StatusCode::NOT_FOUND.into_response(),
        },
        ("POST", "") if query.contains("delete") => {
            let body = String::from_utf8(body.to_vec()).unwrap();
            let keys: Vec<&str> =
                body.split("<Key>").skip(1).map(|rest| rest.split("</Key>").next().unwrap()).collect();
            let deleted: String = keys.iter().map(|key| format!("<Deleted><Key>{key}</Key></Deleted>")).collect();
            keys.iter().for_each(|key| drop(objects.remove(*key)));
            format!("<DeleteResult>{deleted}</DeleteResult>").into_response()
        }
        other => panic!("{other:?}"),
    }
}

/// A list in pages of two.
fn list(objects: &BTreeMap<String, Bytes>, query: &str) -> String {
    let parameters: BTreeMap<String, String> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let prefix = &parameters["prefix"];
    assert!(prefix.ends_with('/'), "a prefix of whole names: {prefix}");
    let after = parameters.get("continuation-token").map_or("", String::as_str);
    let found: Vec<_> = objects.iter().filter(|(key, _)| key.starts_with(prefix) && key.as_str() > after).collect();
    let contents: String = found.iter().take(2).map(|(key, body)| {
        format!("<Contents><Key>{key}</Key><Size>{}</Size><LastModified>2026-03-10T12:00:00.000Z</LastModified><ETag>e</ETag></Contents>", body.len())
    }).collect();
    let next = match found.len() {
        0..=2 => String::new(),
        _ => format!("<NextContinuationToken>{}</NextContinuationToken>", found[1].0),
    };
    format!("<ListBucketResult>{contents}{next}</ListBucketResult>")
}

async fn serve(server: &Arc<Server>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().fallback(answer).with_state(Arc::clone(server));
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

fn store(address: SocketAddr) -> ReplayStore {
    let credentials = Credentials::new("key", "secret", Some("token".to_owned()), None, "test");
    let aws = aws_config::SdkConfig::builder()
        .region(Region::new("eu-west-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build();
    let connector = session_tracking::aws::connector(None).unwrap();
    s3::in_bucket("bucket", Some(&format!("http://{address}")), &aws, connector, Inputs::Mask).unwrap()
}

#[tokio::test]
async fn chunks_are_written_read_and_deleted_in_a_bucket() {
    let server = Arc::new(Server::default());
    let world = World::with(SessionConfig::default(), store(serve(&server).await));
    let session = world.view("ada", T0, "/").await;
    let events: Vec<_> = (0..5).map(|n| change(T0 + n, "x")).collect();
    for event in &events {
        world.record("ada", std::slice::from_ref(event)).await;
    }
    world.record("ben", &[full(T0, "")]).await;
    assert_eq!(world.replay(&session).await, events);
    let puts = server.requests.lock().unwrap().iter().filter(|request| request.starts_with("PUT")).count();
    assert_eq!(puts, 6, "one write for a visitor and a batch");
    assert!(server.objects.lock().unwrap().keys().all(|key| key.starts_with("replay/") && key.ends_with(".gz")));
    let erased = world.function.manager.replay_store().unwrap().erase(&"ada".into()).await;
    assert_eq!(erased, Ok(5));
    assert_eq!(server.objects.lock().unwrap().len(), 1, "what is left is ben's");
}

/// A fault that passes is retried within the call; one that stays is a failure of the event, and a refusal is told apart.
#[tokio::test]
async fn faults_of_the_bucket_are_retried_once_and_then_told() {
    let server = Arc::new(Server::default());
    let store = store(serve(&server).await);
    let world = World::with(SessionConfig::default(), store.clone());
    server.faults.lock().unwrap().push(503);
    world.record("ada", &[full(T0, "")]).await;
    assert_eq!(server.requests.lock().unwrap().len(), 2);
    for (fault, kind) in [(500, "other"), (403, "denied")] {
        *server.faults.lock().unwrap() = vec![fault; 5];
        let event = StoredEvent { at: T0, stated_at: T0, event_type: ReplayEventType::Dom, data: "1".to_owned() };
        let error = store.put(&"ben".into(), pack(vec![event])).await.unwrap_err();
        assert_eq!(error.kind_name(), Some(kind), "{fault}");
    }
    server.faults.lock().unwrap().clear();
    assert_eq!(store.summary(&"ada".into()).await.unwrap().chunks, 1);
}

/// Nobody listens there.
#[tokio::test]
async fn a_bucket_that_does_not_answer_is_a_failure_in_time() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (store, visitor) = (store(closed), "ada".into());
    let asked = tokio::time::timeout(Duration::from_secs(5), store.summary(&visitor));
    assert_eq!(asked.await.unwrap().unwrap_err().code(), "storage_unavailable");
}
