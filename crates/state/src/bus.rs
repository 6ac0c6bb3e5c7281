//! The bus: wake-ups between replicas (architecture §1, rule 3). A lost message costs time, never truth.

mod wire;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use portico_base::Clock;
use portico_telemetry::metrics::{Counter, CounterFamily, Family, Histogram, HistogramFamily};
use tokio::sync::{broadcast, mpsc};

use crate::link::Link;
use crate::options::Deps;

pub(crate) use self::wire::Origin;

static MESSAGES: CounterFamily = CounterFamily::new(
    "portico_bus_messages_total",
    "Messages of the bus: in (from other replicas), out, dropped (queue full or Redis away).",
    &["direction"],
    3,
);
static LAG: HistogramFamily = HistogramFamily::seconds(
    "portico_bus_lag_seconds",
    "Time of a message from another replica to here, by both machines' clocks.",
    &[],
    1,
);
static LAGGED: CounterFamily = CounterFamily::new(
    "portico_bus_lagged_total",
    "Times that a subscriber was told to look for itself because messages were lost.",
    &["reason"],
    2,
);

pub(crate) static FAMILIES: [&Family; 3] = [MESSAGES.family(), LAG.family(), LAGGED.family()];

/// Messages that wait for a slow subscriber; then it is told that it lags.
const WAITING: usize = 256;
/// Messages that wait for Redis.
const OUTBOUND: usize = 4_096;
/// Longest payload: a wake-up says where to look, not what is there.
const MAX_PAYLOAD: usize = 64 * 1024;
/// Without a message for this long the connection is asked whether it lives.
const IDLE: Duration = Duration::from_secs(5);

/// What a subscriber gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Somebody published.
    Message(Bytes),
    /// Messages may have been lost (a slow subscriber, or Redis came back): read what was missed from
    /// the source by sequence number.
    Lagged,
}

/// Publishes and subscribes. Cheap to clone.
#[derive(Clone)]
pub struct Bus(Arc<Inner>);

struct Inner {
    topics: Mutex<HashMap<String, broadcast::Sender<Event>>>,
    origin: Origin,
    clock: Arc<dyn Clock>,
    lag: Histogram,
    outbound: Option<mpsc::Sender<(String, Bytes)>>,
    inbound: Counter,
    published: Counter,
    dropped: Counter,
    slow: Counter,
    reconnected: Counter,
}

/// The driver's end of the queue to Redis.
pub(crate) type Outbound = mpsc::Receiver<(String, Bytes)>;

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bus")
            .field("topics", &self.0.topics.lock().len())
            .finish_non_exhaustive()
    }
}

impl Bus {
    pub(crate) fn new(deps: &Deps, shared: bool) -> (Self, Option<Outbound>) {
        let messages = deps.registry.counter(&MESSAGES);
        let lagged = deps.registry.counter(&LAGGED);
        let (sender, receiver) = if shared {
            let (sender, receiver) = mpsc::channel(OUTBOUND);
            (Some(sender), Some(receiver))
        } else {
            (None, None)
        };
        let bus = Self(Arc::new(Inner {
            topics: Mutex::default(),
            origin: Origin::random(&*deps.random),
            clock: Arc::clone(&deps.clock),
            lag: deps.registry.histogram(&LAG).with(&[]),
            outbound: sender,
            inbound: messages.with(&["in"]),
            published: messages.with(&["out"]),
            dropped: messages.with(&["dropped"]),
            slow: lagged.with(&["slow"]),
            reconnected: lagged.with(&["reconnected"]),
        }));
        (bus, receiver)
    }

    /// Wakes the subscribers of `topic`: those of this process at once, those of other replicas through
    /// Redis. Never waits and never fails: what cannot be sent is counted, and followers poll. A payload
    /// above 64 KiB wakes with an empty one.
    pub fn publish(&self, topic: &str, payload: impl Into<Bytes>) {
        let mut payload = payload.into();
        if payload.len() > MAX_PAYLOAD {
            tracing::warn!(
                topic,
                bytes = payload.len(),
                "a bus message is too long and goes without payload"
            );
            payload = Bytes::new();
        }
        self.0.published.inc();
        self.deliver(topic, Event::Message(payload.clone()));
        if let Some(outbound) = &self.0.outbound
            && outbound.try_send((topic.to_owned(), payload)).is_err()
        {
            self.0.dropped.inc();
        }
    }

    /// Wakes the subscribers of this process only; for bridges from another bus (LISTEN/NOTIFY).
    pub(crate) fn deliver_here(&self, topic: &str, payload: impl Into<Bytes>) {
        self.0.inbound.inc();
        self.deliver(topic, Event::Message(payload.into()));
    }

    /// Follows a topic from now on.
    #[must_use]
    pub fn subscribe(&self, topic: &str) -> Subscription {
        let mut topics = self.0.topics.lock();
        // Topics that nobody follows any more leave with the next newcomer.
        topics.retain(|_, sender| sender.receiver_count() > 0);
        let sender = topics
            .entry(topic.to_owned())
            .or_insert_with(|| broadcast::channel(WAITING).0);
        Subscription {
            receiver: sender.subscribe(),
            slow: self.0.slow.clone(),
        }
    }

    fn deliver(&self, topic: &str, event: Event) {
        if let Some(sender) = self.0.topics.lock().get(topic) {
            let _ = sender.send(event);
        }
    }

    fn tell_all_to_look(&self) {
        self.0.reconnected.inc();
        for sender in self.0.topics.lock().values() {
            let _ = sender.send(Event::Lagged);
        }
    }

    /// Carries published messages to Redis; ends only with the process.
    pub(crate) async fn send_out(&self, link: &Link, mut outbound: Outbound) {
        let mut batch = Vec::with_capacity(64);
        loop {
            if outbound.recv_many(&mut batch, 64).await == 0 {
                return std::future::pending().await;
            }
            for (topic, payload) in batch.drain(..) {
                let channel = wire::channel(&link.prefix, &topic);
                let message = self.0.origin.wrap(self.0.clock.unix_ms(), &payload);
                let mut publish = redis::cmd("PUBLISH");
                publish.arg(channel).arg(message);
                if link.query::<i64>("publish", &publish).await.is_err() {
                    self.0.dropped.inc();
                }
            }
        }
    }

    /// Takes messages of other replicas from Redis; reconnects by itself.
    pub(crate) async fn take_in(&self, link: &Link) {
        let mut failures = 0_u32;
        loop {
            if let Ok(pubsub) = link.pubsub().await {
                let (mut sink, mut messages) = pubsub.split();
                let pattern = wire::channel(&link.prefix, "*");
                if sink.psubscribe(&pattern).await.is_ok() {
                    failures = 0;
                    link.set_bus_up(true);
                    // Whatever was published while we were away is lost.
                    self.tell_all_to_look();
                    self.read(link, &mut sink, &mut messages).await;
                    link.set_bus_up(false);
                }
            }
            failures = failures.saturating_add(1);
            tokio::time::sleep(link.backoff(failures)).await;
        }
    }

    async fn read(
        &self,
        link: &Link,
        sink: &mut redis::aio::PubSubSink,
        messages: &mut redis::aio::PubSubStream,
    ) {
        loop {
            match tokio::time::timeout(IDLE, messages.next()).await {
                Ok(Some(message)) => {
                    let channel = message.get_channel_name();
                    let Some(topic) = wire::topic(&link.prefix, channel) else {
                        continue;
                    };
                    let bytes = message.get_payload_bytes();
                    if let Some((at_ms, payload)) = self.0.origin.unwrap(bytes) {
                        let lag = self.0.clock.unix_ms().saturating_sub(at_ms);
                        let lag = Duration::from_millis(u64::try_from(lag).unwrap_or(0));
                        self.0.lag.observe(lag);
                        self.deliver_here(topic, payload);
                    }
                }
                Ok(None) => return,
                Err(_) => {
                    // A peer that vanished without a word is found by asking.
                    let ping = tokio::time::timeout(IDLE, sink.ping::<redis::Value>()).await;
                    if !matches!(ping, Ok(Ok(_))) {
                        return;
                    }
                }
            }
        }
    }
}

/// One subscriber's place in a topic.
#[derive(Debug)]
pub struct Subscription {
    receiver: broadcast::Receiver<Event>,
    slow: Counter,
}

impl Subscription {
    /// The next event. A subscriber that is more than 256 messages behind gets [`Event::Lagged`] instead
    /// of them. Cancel safe.
    pub async fn recv(&mut self) -> Event {
        match self.receiver.recv().await {
            Ok(event) => event,
            Err(broadcast::error::RecvError::Lagged(_)) => {
                self.slow.inc();
                Event::Lagged
            }
            // The bus itself is gone: nothing will ever come.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }

    /// An event that is there already.
    pub fn try_recv(&mut self) -> Option<Event> {
        match self.receiver.try_recv() {
            Ok(event) => Some(event),
            Err(broadcast::error::TryRecvError::Lagged(_)) => {
                self.slow.inc();
                Some(Event::Lagged)
            }
            Err(_) => None,
        }
    }
}
