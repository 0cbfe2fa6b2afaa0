//! Sends lines to an SQS queue, many lines in a message.

use std::sync::LazyLock;
use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::DisplayErrorContext;
use aws_sdk_sqs::types::SendMessageBatchRequestEntry;
use futures_util::StreamExt;

use super::Output;
use super::batching::{Message, batch_lines};
use crate::clock::Clock;
use crate::config::ConfigError;

/// Maximum attempts to send a message, including the first.
const MAX_ATTEMPTS: u32 = 3;
/// Maximum pause before the second attempt, in milliseconds. The third attempt may wait twice as long.
const MAX_BACKOFF_MS: u64 = 50;
/// Requests that are sent concurrently.
const CONCURRENCY: usize = 4;

/// Sends lines to a standard queue. A message contains several lines, separated by line feeds.
#[derive(Debug)]
pub struct SqsOutput<C> {
    /// Created when the first line is sent. Creating it takes 7 % of what a start computes, and a function that returns events in
    /// its answer rarely needs it.
    client: LazyLock<Client, Box<dyn FnOnce() -> Client + Send>>,
    queue_url: String,
    clock: C,
}

/// Messages that the queue did not accept.
#[derive(Default)]
struct Refused {
    /// Messages that the queue may accept if they are sent again.
    retryable: Vec<Message>,
    /// Messages that are not sent again now, because the fault is ours or the client has already retried.
    failed: Vec<Message>,
}

impl<C: Clock> SqsOutput<C> {
    /// Creates an output to the queue with this URL.
    ///
    /// # Errors
    /// Returns a [`ConfigError`] if the URL is empty or that of a FIFO queue. A FIFO queue would need one message group for each
    /// visitor, but a message contains the events of many visitors.
    pub fn new(
        client: impl FnOnce() -> Client + Send + 'static,
        queue_url: impl Into<String>,
        clock: C,
    ) -> Result<Self, ConfigError> {
        let queue_url = queue_url.into();
        if queue_url.trim().is_empty() {
            return Err(ConfigError("the output queue's URL is empty; set it to a standard queue's URL".to_owned()));
        }
        #[expect(clippy::case_sensitive_file_extension_comparisons, reason = "names of FIFO queues end in lower case")]
        if queue_url.ends_with(".fifo") {
            return Err(ConfigError("the output queue is a FIFO queue; set it to a standard queue's URL".to_owned()));
        }
        Ok(Self { client: LazyLock::new(Box::new(client)), queue_url, clock })
    }

    /// Sends a batch until all messages are accepted or no attempt is left. Returns the indexes of the lines that were not
    /// accepted.
    async fn deliver(&self, mut messages: Vec<Message>, lines: &[String]) -> Vec<usize> {
        let mut failed = Vec::new();
        for attempt in 0..MAX_ATTEMPTS {
            if attempt > 0 {
                let max_pause_ms = MAX_BACKOFF_MS << (attempt - 1);
                self.clock.sleep(Duration::from_millis(self.clock.random() % max_pause_ms + 1)).await;
            }
            let refused = self.request(messages, lines).await;
            failed.extend(refused.failed);
            messages = refused.retryable;
            if messages.is_empty() {
                break;
            }
        }
        failed.into_iter().chain(messages).flat_map(|message| message.lines).collect()
    }

    /// Sends one request. Returns the messages that were not accepted.
    async fn request(&self, messages: Vec<Message>, lines: &[String]) -> Refused {
        let entry = |(position, message): (usize, &Message)| {
            let entry =
                SendMessageBatchRequestEntry::builder().id(position.to_string()).message_body(message.body(lines));
            // Building fails only without an id or a body.
            entry.build().ok()
        };
        let entries = messages.iter().enumerate().filter_map(entry).collect();
        let request = self.client.send_message_batch().queue_url(&self.queue_url).set_entries(Some(entries));
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => {
                tracing::warn!(error = %DisplayErrorContext(&error), "the request to the output queue failed");
                return Refused { retryable: Vec::new(), failed: messages };
            }
        };
        let mut refused = Refused::default();
        for (position, message) in messages.into_iter().enumerate() {
            let id = position.to_string();
            match response.failed().iter().find(|entry| entry.id() == id) {
                Some(entry) => {
                    tracing::warn!(
                        code = entry.code(),
                        sender_fault = entry.sender_fault(),
                        "the output queue did not accept a message"
                    );
                    if entry.sender_fault() { refused.failed.push(message) } else { refused.retryable.push(message) }
                }
                // A message that the response does not name was not accepted either.
                None if !response.successful().iter().any(|entry| entry.id() == id) => refused.retryable.push(message),
                None => {}
            }
        }
        refused
    }
}

impl<C: Clock> Output for SqsOutput<C> {
    async fn send(&self, lines: &[String]) -> Vec<usize> {
        let plan = batch_lines(lines);
        // The futures are collected before they run, because a lazy map over references would not be `Send`.
        let deliveries: Vec<_> = plan.batches.into_iter().map(|batch| self.deliver(batch, lines)).collect();
        let failed: Vec<Vec<usize>> =
            futures_util::stream::iter(deliveries).buffer_unordered(CONCURRENCY).collect().await;
        let mut failed = [plan.too_large, failed.concat()].concat();
        failed.sort_unstable();
        failed
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, channel};

    use aws_sdk_sqs::config::retry::RetryConfig;
    use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
    use serde_json::{Value, json};

    use super::*;
    use crate::session::Millis;

    /// A clock that does not wait, but records how long it should have.
    #[derive(Default)]
    struct NoWait(Mutex<Vec<Duration>>);

    impl Clock for NoWait {
        fn now(&self) -> Millis {
            0
        }
        async fn sleep(&self, time: Duration) {
            self.0.lock().unwrap().push(time);
        }
        fn random(&self) -> u64 {
            u64::MAX
        }
    }

    /// Returns an output to a queue that gives these answers in turn, and a channel with the requests that it received.
    fn queue(answers: Vec<(u16, Value)>) -> (SqsOutput<NoWait>, Receiver<Value>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, requests) = channel();
        std::thread::spawn(move || {
            for (status, answer) in answers {
                let mut stream = BufReader::new(listener.accept().unwrap().0);
                let (mut line, mut length) = (String::new(), 0);
                while stream.read_line(&mut line).unwrap() > 2 {
                    if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                    line.clear();
                }
                let mut body = vec![0; length];
                stream.read_exact(&mut body).unwrap();
                sender.send(serde_json::from_slice(&body).unwrap()).unwrap();
                let answer = answer.to_string();
                let head = format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {}\r\n", answer.len());
                let kind = "content-type: application/x-amz-json-1.0\r\n\r\n";
                stream.get_mut().write_all(format!("{head}{kind}{answer}").as_bytes()).unwrap();
            }
        });
        let config = aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-central-1"))
            .credentials_provider(Credentials::new("id", "secret", None, None, "test"))
            .retry_config(RetryConfig::disabled())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .endpoint_url(&url)
            .build();
        let output = SqsOutput::new(|| Client::from_conf(config), format!("{url}/1/out"), NoWait::default()).unwrap();
        (output, requests)
    }

    /// Returns the entries of a response for accepted messages.
    fn successful(ids: &[&str]) -> Value {
        ids.iter().map(|id| json!({"Id": id, "MessageId": "m", "MD5OfMessageBody": "x"})).collect()
    }

    fn lines(count: usize) -> Vec<String> {
        (0..count).map(|index| format!("{index}{}", "x".repeat(40_000))).collect()
    }

    #[tokio::test]
    async fn only_the_message_that_failed_is_sent_again() {
        let failed = json!([{"Id": "1", "SenderFault": false, "Code": "InternalError"}]);
        let (output, requests) = queue(vec![
            (200, json!({"Successful": successful(&["0", "2"]), "Failed": failed})),
            (200, json!({"Successful": successful(&["0"])})),
        ]);
        let lines = lines(3);
        assert_eq!(output.send(&lines).await, [0; 0]);
        assert_eq!(requests.recv().unwrap()["Entries"].as_array().unwrap().len(), 3);
        assert_eq!(requests.recv().unwrap()["Entries"], json!([{"Id": "0", "MessageBody": lines[1]}]));
        assert_eq!(*output.clock.0.lock().unwrap(), [Duration::from_millis(u64::MAX % 50 + 1)]);
    }

    #[tokio::test]
    async fn lines_that_are_never_accepted_are_returned() {
        let failed = json!([
            {"Id": "0", "SenderFault": true, "Code": "InvalidMessageContents"},
            {"Id": "1", "SenderFault": false, "Code": "InternalError"},
        ]);
        let refused = json!([{"Id": "0", "SenderFault": false, "Code": "InternalError"}]);
        let (output, requests) = queue(vec![
            (200, json!({"Successful": successful(&["2"]), "Failed": failed})),
            (200, json!({"Failed": refused})),
            (200, json!({"Failed": refused})),
        ]);
        assert_eq!(output.send(&lines(3)).await, [0, 1]);
        assert_eq!(requests.iter().count(), 3);
        assert_eq!(output.clock.0.lock().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn an_unavailable_queue_accepts_nothing() {
        let down = || (503, json!({"__type": "ServiceUnavailable"}));
        let (output, requests) = queue(vec![down()]);
        assert_eq!(output.send(&["{}".to_owned(), "{}".to_owned()]).await, [0, 1]);
        assert_eq!(requests.iter().count(), 1, "the client has already retried");
    }

    #[test]
    fn a_fifo_queue_is_rejected() {
        let client =
            || Client::from_conf(aws_sdk_sqs::Config::builder().behavior_version(BehaviorVersion::latest()).build());
        for url in ["https://sqs.eu-central-1.amazonaws.com/1/out.fifo", " "] {
            assert!(SqsOutput::new(client, url, NoWait::default()).is_err(), "{url}");
        }
    }
}
