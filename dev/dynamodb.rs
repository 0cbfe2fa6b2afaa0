//! An embedded DynamoDB for the example, the tests and the benches. It runs in the process, serves HTTP on its own port, and has
//! the table that `template.yaml` defines.

use std::net::{SocketAddr, TcpListener};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use dynoxide::Database;
use dynoxide::actions::create_table::CreateTableRequest;
use serde_json::{Value, json};

/// The table's name.
pub const TABLE: &str = "sessions";

/// A DynamoDB that runs until the process ends.
#[derive(Debug, Clone)]
pub struct EmbeddedDynamoDb {
    /// Its URL.
    pub endpoint: String,
}

impl EmbeddedDynamoDb {
    /// Starts a DynamoDB on a port of the loopback interface (0: any free port) and creates the table.
    ///
    /// # Errors
    /// The port is taken, or the template's table is invalid.
    pub fn start(port: u16) -> Result<Self, String> {
        Self::start_on(Database::memory().map_err(|error| error.to_string())?, port)
    }

    /// Creates the table in this database, and serves it on a port.
    ///
    /// # Errors
    /// See [`EmbeddedDynamoDb::start`].
    pub fn start_on(database: Database, port: u16) -> Result<Self, String> {
        database.create_table(create_table_request()?).map_err(|error| error.to_string())?;
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port)))
            .map_err(|error| format!("port {port} of 127.0.0.1 cannot be used: {}", without_number(&error)))?;
        let endpoint = format!("http://{}", listener.local_addr().map_err(|error| error.to_string())?);
        listener.set_nonblocking(true).map_err(|error| error.to_string())?;
        // Needs its own runtime and thread, so that the database never waits for the code that uses it.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        std::thread::spawn(move || {
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).map_err(|error| error.to_string())?;
                dynoxide::server::serve_with_shutdown(listener, database, std::future::pending()).await
            })
        });
        Ok(Self { endpoint })
    }

    /// Returns a client of this DynamoDB.
    pub fn client(&self) -> Client {
        client(&self.endpoint)
    }
}

/// Returns an I/O error as a part of a sentence, without its number.
fn without_number(error: &std::io::Error) -> String {
    let message = error.to_string();
    message.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// Returns a client of a local DynamoDB at this URL.
pub fn client(endpoint: &str) -> Client {
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("local"))
        .credentials_provider(Credentials::new("local", "local", None, None, "local"))
        .endpoint_url(endpoint)
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    Client::from_conf(config)
}

/// Returns the request that creates the template's table in an embedded DynamoDB.
///
/// # Errors
/// The template is not YAML, or its table lacks a property.
pub fn create_table_request() -> Result<CreateTableRequest, String> {
    let table = table_definition(include_str!("../template.yaml"))?;
    serde_json::from_value(table).map_err(|error| format!("template.yaml: SessionsTable: {error}"))
}

/// Returns the request that creates the template's table, as JSON.
///
/// # Errors
/// As [`create_table_request`].
pub fn table_definition(template: &str) -> Result<Value, String> {
    let template: serde_yaml_ng::Value = serde_yaml_ng::from_str(template).map_err(|error| error.to_string())?;
    let properties = &template["Resources"]["SessionsTable"]["Properties"];
    let mut request = json!({ "TableName": TABLE });
    for name in ["AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode"] {
        let value = serde_json::to_value(&properties[name]).map_err(|error| format!("{name}: {error}"))?;
        if value.is_null() {
            return Err(format!("template.yaml: SessionsTable has no {name}"));
        }
        request[name] = value;
    }
    Ok(request)
}
