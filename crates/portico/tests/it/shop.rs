//! A service that keeps books, and patrons that notice every failed, wrong or doubled request.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::response::IntoResponse;
use axum::response::sse::{Event, Sse};
use axum::routing::{get, post};
use futures_util::StreamExt as _;
use tokio::task::JoinSet;

use crate::house::House;
use crate::wire::Wire;

/// How often each order came, over all instances.
pub(crate) type Ledger = Arc<Mutex<HashMap<String, u32>>>;

/// A running instance; it ends with the test's runtime.
pub(crate) struct Shop {
    pub(crate) port: u16,
}

impl Shop {
    /// An instance that writes into `ledger`.
    pub(crate) async fn open(ledger: &Ledger) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new()
            .route("/item", get(item))
            .route("/orders", post(order))
            .route("/feed", get(feed))
            .route("/talk", get(talk))
            .with_state(Arc::clone(ledger));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { port }
    }
}

async fn item(Query(query): Query<HashMap<String, String>>) -> String {
    query.get("id").cloned().unwrap_or_default()
}

async fn order(State(ledger): State<Ledger>, id: String) -> String {
    *ledger.lock().unwrap().entry(id.clone()).or_default() += 1;
    id
}

async fn feed() -> impl IntoResponse {
    let ticks = futures_util::stream::unfold(0_u64, |n| async move {
        if n > 0 {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Some((
            Ok::<_, Infallible>(Event::default().data(n.to_string())),
            n + 1,
        ))
    });
    Sse::new(ticks)
}

async fn talk(upgrade: WebSocketUpgrade) -> impl IntoResponse {
    upgrade.on_upgrade(|mut socket| async move {
        while let Some(Ok(message)) = socket.next().await {
            if matches!(message, Message::Text(_) | Message::Binary(_))
                && socket.send(message).await.is_err()
            {
                return;
            }
        }
    })
}

/// Where a replica is, as a load balancer knows it.
#[derive(Clone, Default)]
struct Place {
    address: String,
    admin: String,
    ready: bool,
}

/// A load balancer that looks at `/readyz`, and what its clients saw.
#[derive(Default)]
pub(crate) struct Town {
    places: Mutex<Vec<Place>>,
    stop: AtomicBool,
    ids: AtomicU64,
    pub(crate) done: AtomicUsize,
    /// Orders that were answered well.
    acknowledged: Mutex<Vec<String>>,
    failures: Mutex<Vec<String>>,
    /// Streams open at this moment.
    pub(crate) streams: AtomicUsize,
    /// Streams that were closed as the protocol says: 1001, GOAWAY, the end of the body.
    pub(crate) told: AtomicUsize,
    pub(crate) moved: AtomicUsize,
    begun: Mutex<Option<Instant>>,
}

impl Town {
    pub(crate) fn new(houses: &[&House]) -> Arc<Self> {
        let town = Arc::new(Self::default());
        for (index, house) in houses.iter().enumerate() {
            town.place(index, house);
        }
        *town.begun.lock().unwrap() = Some(Instant::now());
        let looking = Arc::clone(&town);
        tokio::spawn(async move {
            while !looking.stopped() {
                let places = looking.places.lock().unwrap().clone();
                for (index, place) in places.iter().enumerate() {
                    let ready = is_ready(&place.admin).await;
                    let mut now = looking.places.lock().unwrap();
                    // One that did not answer in time keeps its place: it may only be busy.
                    if let Some(ready) = ready.filter(|_| now[index].admin == place.admin) {
                        now[index].ready = ready;
                    }
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        town
    }

    /// A replica is there, or there again.
    pub(crate) fn place(&self, index: usize, house: &House) {
        let mut places = self.places.lock().unwrap();
        if places.len() <= index {
            places.resize(index + 1, Place::default());
        }
        places[index] = Place {
            address: house.address().to_owned(),
            admin: house.admin.trim_start_matches("http://").to_owned(),
            ready: true,
        };
    }

    /// A ready replica, `wish` if it is.
    pub(crate) fn choose(&self, wish: usize) -> Option<String> {
        let places = self.places.lock().unwrap();
        let wished = places.get(wish % places.len()).filter(|place| place.ready);
        wished
            .or_else(|| places.iter().find(|place| place.ready))
            .map(|place| place.address.clone())
    }

    /// The same, as soon as there is one.
    pub(crate) async fn find(&self, wish: usize) -> String {
        loop {
            if let Some(address) = self.choose(wish) {
                return address;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What failed so far.
    pub(crate) fn failures(&self) -> String {
        self.failures.lock().unwrap().join("\n")
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    pub(crate) fn fail(&self, what: impl Into<String>) {
        let at = self
            .begun
            .lock()
            .unwrap()
            .map_or(0.0, |b| b.elapsed().as_secs_f64());
        self.failures
            .lock()
            .unwrap()
            .push(format!("{at:.2} s: {}", what.into()));
    }

    pub(crate) fn id(&self) -> String {
        format!("n{}", self.ids.fetch_add(1, Ordering::SeqCst))
    }

    pub(crate) fn acknowledge(&self, id: String) {
        self.acknowledged.lock().unwrap().push(id);
    }

    /// Requests that were answered well so far.
    pub(crate) fn done(&self) -> usize {
        self.done.load(Ordering::SeqCst)
    }

    /// Everybody goes home; what went wrong, and the orders that were answered well.
    pub(crate) async fn close(&self, patrons: JoinSet<()>) -> (Vec<String>, Vec<String>) {
        self.stop.store(true, Ordering::SeqCst);
        patrons.join_all().await;
        let failures = std::mem::take(&mut *self.failures.lock().unwrap());
        (
            failures,
            std::mem::take(&mut *self.acknowledged.lock().unwrap()),
        )
    }

    /// Keeps asking over one connection after the other; `posts` buy, the others look.
    /// `strict`: every error counts, otherwise only wrong answers do.
    pub(crate) async fn patron(
        self: Arc<Self>,
        wish: usize,
        posts: bool,
        period: Duration,
        strict: bool,
    ) {
        let mut wire: Option<Wire> = None;
        let mut tick = tokio::time::interval(period);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !self.stopped() {
            tick.tick().await;
            let id = self.id();
            match self.ask(&mut wire, wish, posts, &id).await {
                Ok(()) => {
                    self.done.fetch_add(1, Ordering::SeqCst);
                    if posts {
                        self.acknowledge(id);
                    }
                }
                Err(Bad::Wrong(text)) => self.fail(format!("{id} answered wrongly: {text}")),
                Err(Bad::None(text)) => {
                    wire = None;
                    if strict {
                        self.fail(format!(
                            "{} {id}: {text}",
                            if posts { "POST" } else { "GET" }
                        ));
                    } else {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
            }
        }
    }

    async fn ask(
        &self,
        wire: &mut Option<Wire>,
        wish: usize,
        posts: bool,
        id: &str,
    ) -> Result<(), Bad> {
        if wire.as_mut().is_some_and(Wire::is_closed) {
            *wire = None;
        }
        if wire.is_none() {
            let address = self.find(wish).await;
            let made = Wire::connect(&address)
                .await
                .map_err(|e| Bad::None(format!("connect: {e}")))?;
            *wire = Some(made);
        }
        let wire = wire.as_mut().unwrap();
        let request = if posts {
            format!(
                "POST /api/shop/orders HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n\r\n{id}",
                id.len()
            )
        } else {
            format!("GET /api/shop/item?id={id} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        };
        let reply = wire
            .ask(&request)
            .await
            .map_err(|e| Bad::None(format!("no answer: {e:?}")))?;
        match reply.status {
            200 if reply.text() == id => Ok(()),
            200 => Err(Bad::Wrong(reply.text())),
            status => Err(Bad::None(format!("{status} {}", reply.text()))),
        }
    }
}

enum Bad {
    /// No good answer.
    None(String),
    /// An answer that is somebody else's.
    Wrong(String),
}

/// What `/readyz` says; false when nobody listens, nothing when there was no answer in time.
async fn is_ready(admin: &str) -> Option<bool> {
    let ask = async {
        let Ok(mut wire) = Wire::connect(admin).await else {
            return false;
        };
        let text = "GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
        wire.ask(text).await.is_ok_and(|reply| reply.status == 200)
    };
    tokio::time::timeout(Duration::from_secs(2), ask).await.ok()
}

/// Fails when an order came twice, or one that was acknowledged never.
pub(crate) fn check_orders(ledger: &Ledger, acknowledged: &[String]) -> usize {
    let ledger = ledger.lock().unwrap();
    let doubled: Vec<_> = ledger.iter().filter(|(_, count)| **count > 1).collect();
    assert!(
        doubled.is_empty(),
        "{} orders came more than once: {:?}",
        doubled.len(),
        doubled.first()
    );
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|id| !ledger.contains_key(*id))
        .collect();
    assert!(
        lost.is_empty(),
        "{} acknowledged orders are lost: {:?}",
        lost.len(),
        lost.first()
    );
    ledger.len()
}
