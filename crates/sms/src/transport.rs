//! How a signed request leaves: one client for all vendors, with time-outs, capped answers and no redirects.

use std::time::Duration;

use tokio::time::timeout;

use crate::provider::Outgoing;

/// Largest answer that is read.
pub(crate) const ANSWER_LIMIT: usize = 256 * 1024;

/// Connections that nobody used for so long are closed: one that the vendor closed first costs an ambiguous send.
const IDLE: Duration = Duration::from_secs(15);

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A whole answer.
    Answer {
        /// HTTP status.
        status: u16,
        /// At most [`ANSWER_LIMIT`] bytes.
        body: Vec<u8>,
    },
    /// No byte of the request left.
    NotSent(&'static str),
    /// Bytes left, and no whole answer came.
    NoAnswer(&'static str),
}

/// Sends requests to vendors.
#[derive(Debug, Clone)]
pub struct Sender(reqwest::Client);

impl Sender {
    /// A sender that gives up on connecting after `connect`.
    ///
    /// # Errors
    /// When the machine's trust store cannot be used.
    pub fn new(connect: Duration) -> Result<Self, reqwest::Error> {
        reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(connect)
            .pool_idle_timeout(IDLE)
            // A second request of the client's own making would be a second message.
            .retry(reqwest::retry::never())
            .user_agent(concat!("portico/", env!("CARGO_PKG_VERSION")))
            .build()
            .map(Self)
    }

    /// Sends a request and reads its answer within `limit`.
    pub async fn post(&self, request: Outgoing, limit: Duration) -> Reply {
        let mut builder = self.0.post(&request.url);
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        // A credential with a line break in it, or the like, is no request.
        let Ok(built) = builder.body(request.body).build() else {
            return Reply::NotSent("request_invalid");
        };
        match timeout(limit, self.exchange(built)).await {
            Ok(reply) => reply,
            Err(_) => Reply::NoAnswer("timeout"),
        }
    }

    /// True when anything at all answers there.
    pub async fn reaches(&self, url: &str, limit: Duration) -> bool {
        matches!(timeout(limit, self.0.get(url).send()).await, Ok(Ok(_)))
    }

    async fn exchange(&self, request: reqwest::Request) -> Reply {
        let mut response = match self.0.execute(request).await {
            Ok(response) => response,
            Err(error) if error.is_connect() => return Reply::NotSent("connect_failed"),
            Err(error) if was_never_written(&error) => return Reply::NotSent("not_written"),
            Err(_) => return Reply::NoAnswer("connection_lost"),
        };
        let status = response.status().as_u16();
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= ANSWER_LIMIT => {
                    body.extend_from_slice(&chunk);
                }
                Ok(Some(_)) => return Reply::NoAnswer("answer_too_large"),
                Ok(None) => return Reply::Answer { status, body },
                Err(_) => return Reply::NoAnswer("answer_cut_off"),
            }
        }
    }
}

/// A kept connection that ended before the request was taken from the queue.
fn was_never_written(error: &reqwest::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(hyper) = cause.downcast_ref::<hyper::Error>() {
            return hyper.is_canceled();
        }
        source = cause.source();
    }
    false
}
