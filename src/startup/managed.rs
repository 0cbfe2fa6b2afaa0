//! The ingest function of which several invocations run at once in one process, on Lambda Managed Instances.
//!
//! The invocations share the AWS clients, the connections, the retry budgets and the cache of timelines. None of these decides
//! what is stored: a write is conditional, so a timeline that another invocation changed is a conflict, as if another process
//! had changed it. What an invocation counts for its line in the log is its own.

use std::sync::Arc;

use lambda_runtime::{Error, LambdaEvent};
use serde_json::value::RawValue;

use super::{InvocationLog, Service, deadline};
use crate::clock::SystemClock;
use crate::config::ConfigError;
use crate::output::AnyOutput;
use crate::storage::Consumed;
use crate::trigger::Ingest;

/// The ingest function, for several invocations at once.
pub struct ManagedIngest {
    service: Service,
    output: AnyOutput<SystemClock>,
    rejects: AnyOutput<SystemClock>,
    log: InvocationLog,
}

impl ManagedIngest {
    /// Builds the function from a service.
    ///
    /// # Errors
    /// Returns a [`ConfigError`] if an output is not set or cannot be used.
    pub fn new(service: Service) -> Result<Self, ConfigError> {
        let (output, rejects, log) = (service.output()?, service.rejects()?, service.log());
        Ok(Self { service, output, rejects, log })
    }

    /// Handles one invocation and writes its line to the log.
    ///
    /// # Errors
    /// See [`Ingest::handle`].
    pub async fn handle(&self, event: LambdaEvent<Box<RawValue>>) -> Result<Box<RawValue>, Error> {
        let (context, service) = (&event.context, &self.service);
        let consumed = Arc::new(Consumed::default());
        let storage = service.manager.storage().clone().counting(Arc::clone(&consumed));
        let ingest = Ingest {
            manager: service.manager.for_invocation(storage),
            output: &self.output,
            rejects: &self.rejects,
            origins: service.origins(),
            public: service.public(),
        };
        let mut line = self.log.begin("ingest", context);
        let (role, payload) = (service.pipe_role(), event.payload.get());
        let handled = ingest.handle_measured(role, &context.request_id, payload, deadline(context)).await;
        line.counted(ingest.manager.take_counted());
        match handled {
            Ok(handled) => {
                handled.measure(&mut line);
                self.log.write_consumed(line, &consumed, "handled");
                Ok(RawValue::from_string(handled.json)?)
            }
            Err(error) => {
                line.failed(&error.to_string());
                self.log.write_consumed(line, &consumed, "failed");
                Err(error.into())
            }
        }
    }
}
