//! What a handler knows of its call.

use portico_base::{Context, ErrorKind, Fault};
use tonic::{Request, Status};

use crate::status::to_status;

/// A call: who makes it. Found in the request's extensions.
#[derive(Debug, Clone)]
pub struct Call {
    /// The context for use-cases.
    pub context: Context,
}

impl Call {
    /// The status of a service's error. One of ours is logged here, once, with its sources.
    #[must_use]
    pub fn fail(&self, fault: &dyn Fault) -> Status {
        let request_id = &*self.context.caller.request_id;
        if fault.kind() == ErrorKind::Internal {
            tracing::error!(request_id, err = %chain(fault), "a gRPC call failed");
        }
        to_status(fault, request_id)
    }
}

/// The call of a request.
///
/// # Errors
/// `INTERNAL` when the request did not come through the chain, which is a defect of the composition.
pub fn call<T>(request: &Request<T>) -> Result<Call, Status> {
    request
        .extensions()
        .get::<Call>()
        .cloned()
        .ok_or_else(|| Status::internal("the call did not come through the chain"))
}

fn chain(fault: &dyn Fault) -> String {
    let mut text = fault.to_string();
    let mut source = fault.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
