//! Calls to other services through the gateway.

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::{Incoming, MAX_ANSWER, Outgoing};
use crate::identity::Identity;
use crate::problem::Problem;
use crate::secret::Secret;

/// A request to another service.
#[derive(Debug, Clone)]
pub struct Call {
    method: Method,
    headers: HeaderMap,
    body: Option<Vec<u8>>,
    timeout: Duration,
    deadline: Option<Instant>,
}

/// A successful answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, at most 16 MiB.
    pub body: Vec<u8>,
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The gateway or the service refused.
    #[error("{0}")]
    Problem(Problem),
    /// No time was left before it began.
    #[error("no time was left for this call")]
    Deadline,
    /// The gateway was not reached, or did not finish in time.
    #[error("{}", chain(.0))]
    Transport(#[from] reqwest::Error),
    /// The answer is larger than 16 MiB.
    #[error("the answer has more than {MAX_ANSWER} bytes")]
    TooLarge,
    /// The body is not the JSON that was expected.
    #[error("the body is not the expected JSON: {0}")]
    Json(serde_json::Error),
}

impl Call {
    /// A call with any method.
    #[must_use]
    pub fn new(method: Method) -> Self {
        Self {
            method,
            headers: HeaderMap::new(),
            body: None,
            timeout: Duration::from_secs(30),
            deadline: None,
        }
    }

    /// GET.
    #[must_use]
    pub fn get() -> Self {
        Self::new(Method::GET)
    }

    /// POST of JSON.
    ///
    /// # Errors
    /// [`CallError::Json`] when the value cannot be JSON.
    pub fn post(body: &impl Serialize) -> Result<Self, CallError> {
        Self::new(Method::POST).json(body)
    }

    /// Sets a body of JSON.
    ///
    /// # Errors
    /// [`CallError::Json`] when the value cannot be JSON.
    pub fn json(mut self, body: &impl Serialize) -> Result<Self, CallError> {
        self.body = Some(serde_json::to_vec(body).map_err(CallError::Json)?);
        Ok(self)
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// Waits at most so long; default 30 s.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Never outlives the request that is being answered.
    #[must_use]
    pub const fn within(mut self, request: &Identity) -> Self {
        self.deadline = request.deadline;
        self
    }

    pub(crate) fn outgoing(
        mut self,
        url: String,
        credential: Option<&Secret>,
    ) -> Result<Outgoing<'_>, CallError> {
        let left = self.deadline.map_or(self.timeout, |deadline| {
            self.timeout
                .min(deadline.saturating_duration_since(Instant::now()))
        });
        let ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        if ms == 0 {
            return Err(CallError::Deadline);
        }
        self.headers
            .insert("x-portico-deadline-ms", HeaderValue::from(ms));
        Ok(Outgoing {
            method: self.method,
            url,
            credential,
            headers: self.headers,
            body: self.body,
            timeout: left,
        })
    }
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// [`CallError::Json`] when it is something else.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, CallError> {
        serde_json::from_slice(&self.body).map_err(CallError::Json)
    }
}

impl From<Incoming> for Answer {
    fn from(incoming: Incoming) -> Self {
        Self {
            status: incoming.status,
            headers: incoming.headers,
            body: incoming.body,
        }
    }
}

impl CallError {
    /// The status of a refusal.
    #[must_use]
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Problem(problem) => Some(problem.status),
            _ => None,
        }
    }
}

/// An error with its causes: reqwest alone says "error sending request".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
