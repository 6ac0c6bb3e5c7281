//! The client side (GW-105): few long-lived connections, a deadline on every call, tries where they are
//! safe, everything closed on drop.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use portico_base::{Random, Secret};
use portico_telemetry::logs::current;
use portico_telemetry::trace::{TraceContext, TraceState};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// Tries of a call that may be repeated.
const TRIES: u32 = 3;
/// The wait before the second try; doubled before the third, and half of it is random.
const BACKOFF: Duration = Duration::from_millis(100);

/// Where a service's instances are, as URLs; asked before each call, so answered from memory.
pub trait Targets: Send + Sync + 'static {
    /// The instances that are there now. An empty list means that it is not known: then the last one that
    /// was not empty holds.
    fn targets(&self) -> Vec<String>;
}

impl<F: Fn() -> Vec<String> + Send + Sync + 'static> Targets for F {
    fn targets(&self) -> Vec<String> {
        self()
    }
}

/// How a client calls.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// A connection is asked so often whether it still answers.
    pub keep_alive: Duration,
    /// Connections to each target; one carries a few thousand calls a second.
    pub connections: usize,
    /// Sent as `Authorization: Bearer`.
    pub token: Option<Secret<String>>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            keep_alive: Duration::from_secs(20),
            connections: 1,
            token: None,
        }
    }
}

/// Connections to the instances of a service. Dropping it closes them.
pub struct Channels {
    targets: Arc<dyn Targets>,
    options: ClientOptions,
    random: Arc<dyn Random>,
    open: Mutex<Open>,
    next: AtomicUsize,
}

#[derive(Default)]
struct Open {
    by_target: HashMap<String, Vec<Channel>>,
    /// The last list that was not empty.
    known: Vec<String>,
}

impl Channels {
    /// Connections that are made when they are needed.
    pub fn new(targets: impl Targets, options: ClientOptions, random: Arc<dyn Random>) -> Self {
        Self {
            targets: Arc::new(targets),
            options,
            random,
            open: Mutex::default(),
            next: AtomicUsize::new(0),
        }
    }

    /// Calls a method within `deadline`; `make` makes the call on a channel, with a request from
    /// [`Channels::request`]. When the method is idempotent and nobody is there (`UNAVAILABLE`), it is
    /// tried up to three times, each time at the next target.
    ///
    /// # Errors
    /// The last status; `DEADLINE_EXCEEDED` when the time is over.
    pub async fn call<T, F, Fut>(
        &self,
        deadline: Duration,
        idempotent: bool,
        make: F,
    ) -> Result<T, Status>
    where
        F: Fn(Channel, Duration) -> Fut,
        Fut: Future<Output = Result<T, Status>>,
    {
        let end = Instant::now() + deadline;
        let mut tries = 0;
        loop {
            tries += 1;
            let left = end.saturating_duration_since(Instant::now());
            let channel = self.channel().await?;
            let made = tokio::time::timeout_at(end, make(channel, left)).await;
            let over = || Status::deadline_exceeded("the deadline is over");
            let status = match made {
                Ok(Ok(answer)) => return Ok(answer),
                // The channel has a timer of its own, which may be the first, and another word for it.
                Ok(Err(status)) if status.code() == Code::Cancelled && Instant::now() >= end => {
                    return Err(over());
                }
                Ok(Err(status)) => status,
                Err(_) => return Err(over()),
            };
            if !idempotent || tries >= TRIES || status.code() != Code::Unavailable {
                return Err(status);
            }
            let whole = BACKOFF * 2_u32.pow(tries - 1);
            let us = u64::try_from(whole.as_micros()).unwrap_or(u64::MAX);
            let wait = whole / 2 + Duration::from_micros(self.random.below(us / 2));
            if Instant::now() + wait >= end {
                return Err(status);
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// A request with its deadline, the credential, and the request id and trace of whoever works on it.
    pub fn request<T>(&self, message: T, deadline: Duration) -> Request<T> {
        let mut request = request(message, deadline);
        if let Some(token) = &self.options.token
            && let Ok(mut value) = MetadataValue::try_from(format!("Bearer {}", token.expose()))
        {
            value.set_sensitive(true);
            request.metadata_mut().insert("authorization", value);
        }
        request
    }

    /// The next target's channel.
    async fn channel(&self) -> Result<Channel, Status> {
        let wanted = self.targets.targets();
        let mut open = self.open.lock().await;
        if !wanted.is_empty() && wanted != open.known {
            open.by_target.retain(|target, _| wanted.contains(target));
            open.known = wanted;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let count = open.known.len();
        let Some(target) = open.known.get(number % count.max(1)).cloned() else {
            return Err(Status::unavailable("no instance is known"));
        };
        let most = self.options.connections.max(1);
        if let Some(channels) = open.by_target.get(&target)
            && channels.len() >= most
        {
            return Ok(channels[number / count % most].clone());
        }
        let endpoint = Endpoint::from_shared(target.clone())
            .map_err(|error| Status::internal(format!("the target {target}: {error}")))?
            .connect_timeout(self.options.connect_timeout)
            .http2_keep_alive_interval(self.options.keep_alive)
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        let channel = endpoint.connect_lazy();
        open.by_target
            .entry(target)
            .or_default()
            .push(channel.clone());
        Ok(channel)
    }
}

/// A request with a deadline and the request id and trace of whoever works on it.
pub fn request<T>(message: T, deadline: Duration) -> Request<T> {
    let mut request = Request::new(message);
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(&crate::timeout::text(deadline)) {
        headers.insert("grpc-timeout", value);
    }
    if let Some(context) = current() {
        let id = context.request_id.as_deref();
        if let Some(Ok(value)) = id.map(HeaderValue::from_str) {
            headers.insert("x-request-id", value);
        }
        if let (Some(trace_id), Some(span_id)) = (context.trace_id, context.span_id) {
            let trace = TraceContext {
                trace_id,
                span_id,
                sampled: context.tracer.is_some(),
                state: TraceState::default(),
            };
            trace.inject(&mut headers);
        }
    }
    *request.metadata_mut() = MetadataMap::from_headers(headers);
    request
}
