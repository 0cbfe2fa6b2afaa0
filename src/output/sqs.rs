//! Lines into an SQS queue, many to a message.

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

/// How often a message is sent at the most.
const ATTEMPTS: u32 = 3;
/// Milliseconds before the second attempt at the most; twice that before the third.
const BACKOFF_MS: u64 = 50;
/// Batches on their way at once.
const CONCURRENCY: usize = 4;

/// Sends lines to a standard queue. A message holds several, each ended by a line feed but the last.
#[derive(Debug)]
pub struct SqsOutput<C> {
    /// Made when the first line is sent: it would be 7 % of what a start computes, and where callers get their answers few
    /// starts need it.
    client: LazyLock<Client, Box<dyn FnOnce() -> Client + Send>>,
    queue_url: String,
    clock: C,
}

/// Messages that the queue did not take.
#[derive(Default)]
struct Refused {
    /// It may take them next time.
    again: Vec<Message>,
    /// It is of no use to send these again now: the fault is ours, or the client has tried again already.
    lost: Vec<Message>,
}

impl<C: Clock> SqsOutput<C> {
    /// An output to the queue at this address.
    ///
    /// # Errors
    /// An address that is empty or a FIFO queue's: such a queue would need a group for each visitor, and a message holds the
    /// events of many.
    pub fn new(
        client: impl FnOnce() -> Client + Send + 'static,
        queue_url: impl Into<String>,
        clock: C,
    ) -> Result<Self, ConfigError> {
        let queue_url = queue_url.into();
        if queue_url.trim().is_empty() {
            return Err(ConfigError("the output queue's URL is empty; set it to a standard queue's URL".to_owned()));
        }
        if queue_url.ends_with(".fifo") {
            return Err(ConfigError("the output queue is a FIFO queue; set it to a standard queue's URL".to_owned()));
        }
        Ok(Self { client: LazyLock::new(Box::new(client)), queue_url, clock })
    }

    /// Sends a batch until all of it is taken or no attempt is left; returns the indexes of lines that were not taken.
    async fn deliver(&self, mut messages: Vec<Message>, lines: &[String]) -> Vec<usize> {
        let mut lost = Vec::new();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                let most = BACKOFF_MS << (attempt - 1);
                self.clock.sleep(Duration::from_millis(self.clock.random() % most + 1)).await;
            }
            let refused = self.request(messages, lines).await;
            lost.extend(refused.lost);
            messages = refused.again;
            if messages.is_empty() {
                break;
            }
        }
        lost.into_iter().chain(messages).flat_map(|message| message.lines).collect()
    }

    /// Sends one request; returns what was not taken.
    async fn request(&self, messages: Vec<Message>, lines: &[String]) -> Refused {
        let entry = |(position, message): (usize, &Message)| {
            let entry =
                SendMessageBatchRequestEntry::builder().id(position.to_string()).message_body(message.body(lines));
            // Building fails only without an id or a body.
            entry.build().ok()
        };
        let entries = messages.iter().enumerate().filter_map(entry).collect();
        let request = self.client.send_message_batch().queue_url(&self.queue_url).set_entries(Some(entries));
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(error = %DisplayErrorContext(&error), "the output queue did not answer");
                return Refused { again: Vec::new(), lost: messages };
            }
        };
        let mut refused = Refused::default();
        for (position, message) in messages.into_iter().enumerate() {
            let id = position.to_string();
            match answer.failed().iter().find(|failed| failed.id() == id) {
                Some(failed) => {
                    tracing::warn!(
                        code = failed.code(),
                        sender_fault = failed.sender_fault(),
                        "a message was not taken"
                    );
                    if failed.sender_fault() { refused.lost.push(message) } else { refused.again.push(message) }
                }
                // A message that the answer does not name was not taken either.
                None if !answer.successful().iter().any(|taken| taken.id() == id) => refused.again.push(message),
                None => {}
            }
        }
        refused
    }
}

impl<C: Clock> Output for SqsOutput<C> {
    async fn send(&self, lines: &[String]) -> Vec<usize> {
        let plan = batch_lines(lines);
        // Futures are collected before they run: a lazy map of references would not be `Send`.
        let deliveries: Vec<_> = plan.batches.into_iter().map(|batch| self.deliver(batch, lines)).collect();
        let lost: Vec<Vec<usize>> =
            futures_util::stream::iter(deliveries).buffer_unordered(CONCURRENCY).collect().await;
        let mut lost = [plan.too_large, lost.concat()].concat();
        lost.sort_unstable();
        lost
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

    /// A clock that notes how long it was asked to wait, and does not.
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

    /// A queue that gives these answers in turn, and the requests that it was sent.
    fn queue(answers: Vec<(u16, Value)>) -> (SqsOutput<NoWait>, Receiver<Value>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
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
            .endpoint_url(&address)
            .build();
        let output =
            SqsOutput::new(|| Client::from_conf(config), format!("{address}/1/out"), NoWait::default()).unwrap();
        (output, requests)
    }

    fn taken(ids: &[&str]) -> Value {
        ids.iter().map(|id| json!({"Id": id, "MessageId": "m", "MD5OfMessageBody": "x"})).collect()
    }

    fn lines(count: usize) -> Vec<String> {
        (0..count).map(|index| format!("{index}{}", "x".repeat(40_000))).collect()
    }

    #[tokio::test]
    async fn a_message_that_fails_is_sent_again_alone() {
        let failed = json!([{"Id": "1", "SenderFault": false, "Code": "InternalError"}]);
        let (output, requests) = queue(vec![
            (200, json!({"Successful": taken(&["0", "2"]), "Failed": failed})),
            (200, json!({"Successful": taken(&["0"])})),
        ]);
        let lines = lines(3);
        assert_eq!(output.send(&lines).await, [0; 0]);
        assert_eq!(requests.recv().unwrap()["Entries"].as_array().unwrap().len(), 3);
        assert_eq!(requests.recv().unwrap()["Entries"], json!([{"Id": "0", "MessageBody": lines[1]}]));
        assert_eq!(*output.clock.0.lock().unwrap(), [Duration::from_millis(u64::MAX % 50 + 1)]);
    }

    #[tokio::test]
    async fn what_is_not_taken_in_the_end_is_named() {
        let failed = json!([
            {"Id": "0", "SenderFault": true, "Code": "InvalidMessageContents"},
            {"Id": "1", "SenderFault": false, "Code": "InternalError"},
        ]);
        let refused = json!([{"Id": "0", "SenderFault": false, "Code": "InternalError"}]);
        let (output, requests) = queue(vec![
            (200, json!({"Successful": taken(&["2"]), "Failed": failed})),
            (200, json!({"Failed": refused})),
            (200, json!({"Failed": refused})),
        ]);
        assert_eq!(output.send(&lines(3)).await, [0, 1]);
        assert_eq!(requests.iter().count(), 3);
        assert_eq!(output.clock.0.lock().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_queue_that_never_answers_takes_nothing() {
        let down = || (503, json!({"__type": "ServiceUnavailable"}));
        let (output, requests) = queue(vec![down()]);
        assert_eq!(output.send(&["{}".to_owned(), "{}".to_owned()]).await, [0, 1]);
        assert_eq!(requests.iter().count(), 1, "what the client tried again already is not repeated");
    }

    #[test]
    fn a_fifo_queue_is_refused() {
        let client =
            || Client::from_conf(aws_sdk_sqs::Config::builder().behavior_version(BehaviorVersion::latest()).build());
        for url in ["https://sqs.eu-central-1.amazonaws.com/1/out.fifo", " "] {
            assert!(SqsOutput::new(client, url, NoWait::default()).is_err(), "{url}");
        }
    }
}
