//! A whole door over a directory made by hand, with instances that answer as a test wants.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::Mutex;
use portico_base::{SeededRandom, SystemClock};
use portico_contract::address::{AddressGuard, Refused};
use portico_contract::credentials::Credentials;
use portico_contract::directory::{
    Directory, DirectoryListener, DirectorySource, Instance, Observation, Service,
};
use portico_contract::settings::{Settings, SettingsListener, SettingsSource};
use portico_state::{Deps, State};
use portico_telemetry::metrics::Registry;
use portico_telemetry::trace::Tracer;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::cache::{Cache, CacheConfig};
use crate::objects::{Object, Objects};
use crate::pipeline::{Builtins, Door, Entrance, Gate, Parts};
use crate::route::build::Names;
use crate::route::service::fixture;
use crate::serve::{Listener, Options, ServeLimits, Server, bind};

/// A directory that tests change.
#[derive(Default)]
pub(super) struct Fake {
    current: Mutex<Arc<Directory>>,
    listeners: Mutex<Vec<DirectoryListener>>,
    pub(super) seen: Mutex<Vec<(Uuid, Observation)>>,
}

impl Fake {
    pub(super) fn set(&self, services: Vec<Service>) {
        let seq = self.current.lock().seq + 1;
        let services = services
            .into_iter()
            .map(|s| (s.key.clone(), Arc::new(s)))
            .collect();
        let directory = Arc::new(Directory { seq, services });
        *self.current.lock() = Arc::clone(&directory);
        for listener in self.listeners.lock().iter() {
            listener(&directory);
        }
    }
}

impl DirectorySource for Fake {
    fn current(&self) -> Arc<Directory> {
        Arc::clone(&self.current.lock())
    }

    fn subscribe(&self, listener: DirectoryListener) {
        listener(&self.current());
        self.listeners.lock().push(listener);
    }

    fn observe(&self, instance: Uuid, what: Observation) {
        self.seen.lock().push((instance, what));
    }
}

struct Anywhere;

impl AddressGuard for Anywhere {
    fn check(&self, _address: SocketAddr) -> Result<(), Refused> {
        Ok(())
    }
}

struct Fixed(Vec<(&'static str, Value)>);

impl SettingsSource for Fixed {
    fn value(&self, _tenant: Uuid, key: &str) -> Option<Arc<Value>> {
        self.0
            .iter()
            .find(|(k, _)| *k == key)
            .map(|(_, v)| Arc::new(v.clone()))
    }

    fn subscribe(&self, _listener: SettingsListener) {}
}

/// What a rig is made with.
#[derive(Default)]
pub(super) struct Setup {
    pub(super) services: Vec<Service>,
    pub(super) objects: Objects,
    pub(super) settings: Vec<(&'static str, Value)>,
    pub(super) builtins: Builtins,
    pub(super) entrance: Entrance,
    pub(super) credentials: Credentials,
    /// The listener that the rig pretends to be.
    pub(super) listener: Option<&'static str>,
    pub(super) names: Names,
    pub(super) file_roots: Vec<std::path::PathBuf>,
    pub(super) trusted: Vec<ipnet::IpNet>,
}

pub(super) struct Rig {
    pub(super) address: SocketAddr,
    pub(super) fake: Arc<Fake>,
    pub(super) gate: Arc<Gate>,
    pub(super) metrics: Registry,
    runtime: tokio::runtime::Runtime,
    server: Option<Server>,
    stop: CancellationToken,
}

impl Rig {
    pub(super) fn new(services: Vec<Service>) -> Self {
        Self::with(Setup {
            services,
            ..Setup::default()
        })
    }

    pub(super) fn with(setup: Setup) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let fake = Arc::new(Fake::default());
        fake.set(setup.services);
        let metrics = Registry::default();
        let clock: Arc<dyn portico_base::Clock> = Arc::new(SystemClock);
        let random: Arc<dyn portico_base::Random> = Arc::new(SeededRandom::new(7));
        let deps = Deps {
            registry: metrics.clone(),
            clock: Arc::clone(&clock),
            random: Arc::clone(&random),
        };
        let (state, _driver) = State::local(&deps);
        let mut names = setup.names;
        names.builtin = setup.builtins.services.keys().copied().collect();
        names
            .roots
            .extend(setup.builtins.roots.iter().map(|(p, _)| *p));
        let gate = Gate::new(Parts {
            names,
            builtins: setup.builtins,
            trusted: setup.trusted,
            file_roots: setup.file_roots,
            directory: Arc::clone(&fake) as Arc<dyn DirectorySource>,
            settings: Settings::new(Arc::new(Fixed(setup.settings))),
            objects: Arc::new(setup.objects),
            credentials: setup.credentials,
            entrance: setup.entrance,
            addresses: Arc::new(Anywhere),
            limiter: state.limiter().clone(),
            limit_seed: 1,
            cache: Cache::new(CacheConfig::default()),
            registry: metrics.clone(),
            access: None,
            tracer: Tracer::disabled(),
            clock,
            random,
            breakers: Arc::new(|_| {}),
            failures: None,
        });
        let stop = CancellationToken::new();
        runtime.spawn(Arc::clone(&gate).run(stop.clone()));
        let listener = setup.listener.unwrap_or("http");
        let bound = bind(&Listener::plain(listener, ([127, 0, 0, 1], 0).into()), 1).unwrap();
        let address = bound.address;
        let options = Options {
            workers: 1,
            limits: ServeLimits::default(),
            shared: runtime.handle().clone(),
        };
        let shared = Arc::clone(&gate);
        let server = Server::start(&options, vec![bound], move |worker| {
            Door::new(&shared, worker)
        })
        .unwrap();
        Self {
            address,
            fake,
            gate,
            metrics,
            runtime,
            server: Some(server),
            stop,
        }
    }

    /// Changes the directory and waits until it is in use.
    pub(super) fn set(&self, services: Vec<Service>) {
        self.fake.set(services);
        self.runtime.block_on(self.gate.settled());
    }

    pub(super) fn set_objects(&self, objects: Objects) {
        self.gate.set_objects(Arc::new(objects));
        self.runtime.block_on(self.gate.settled());
    }

    pub(super) fn get(&self, path: &str) -> Reply {
        self.ask(&format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        ))
    }

    pub(super) fn get_with(&self, path: &str, headers: &str) -> Reply {
        self.ask(&format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n"
        ))
    }

    pub(super) fn post(&self, path: &str, body: &str) -> Reply {
        let length = body.len();
        self.ask(&format!("POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"))
    }

    /// Sends bytes and reads until the connection ends.
    pub(super) fn ask(&self, bytes: &str) -> Reply {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream.write_all(bytes.as_bytes()).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        Reply::parse(&String::from_utf8_lossy(&all))
    }

    /// Requests under way at all instances.
    pub(super) fn in_flight(&self) -> u32 {
        let table = self.gate.table();
        let nodes = table.services().flat_map(|(_, named)| named.all());
        nodes
            .flat_map(|n| n.versions.iter().flat_map(|v| v.instances.iter()))
            .map(|i| i.load.in_flight())
            .sum()
    }

    pub(super) fn metric(&self, line: &str) -> bool {
        self.metrics
            .render(portico_telemetry::metrics::Format::Prometheus)
            .lines()
            .any(|l| l.starts_with(line))
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.stop(Duration::ZERO));
        }
    }
}

/// An answer taken apart.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Reply {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .unwrap_or(0);
        Self {
            status,
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|l| l.split_once(':'))
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.trim())
    }

    /// The code of a problem document.
    pub(super) fn code(&self) -> String {
        let problem: Value = serde_json::from_str(&self.body).unwrap_or_default();
        problem["code"].as_str().unwrap_or("").to_owned()
    }
}

/// A request as an instance saw it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) head: String,
}

impl Seen {
    pub(super) fn line(&self) -> &str {
        self.head.lines().next().unwrap_or("")
    }

    pub(super) fn all(&self, name: &str) -> Vec<&str> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|l| l.split_once(':'))
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.trim())
            .collect()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }
}

/// What an instance does with a request.
pub(super) enum Does {
    /// Sends these bytes and keeps the connection.
    Answer(String),
    /// Closes the connection without a word.
    Close,
    /// Says nothing and keeps the connection.
    Hang,
}

/// An instance.
pub(super) struct Backend {
    pub(super) port: u16,
    pub(super) requests: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<Mutex<Vec<TcpStream>>>,
    dead: Arc<AtomicBool>,
}

impl Backend {
    pub(super) fn new(does: impl Fn(&Seen, usize) -> Does + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let connections: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let dead: Arc<AtomicBool> = Arc::default();
        let (does, number) = (Arc::new(does), Arc::new(AtomicUsize::new(0)));
        let (log, open, over) = (
            Arc::clone(&requests),
            Arc::clone(&connections),
            Arc::clone(&dead),
        );
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if over.load(SeqCst) {
                    return;
                }
                open.lock().push(stream.try_clone().unwrap());
                let (does, log, number) =
                    (Arc::clone(&does), Arc::clone(&log), Arc::clone(&number));
                std::thread::spawn(move || serve(stream, &*does, &log, &number));
            }
        });
        Self {
            port,
            requests,
            connections,
            dead,
        }
    }

    pub(super) fn answering(body: &'static str) -> Self {
        Self::new(move |_, _| Does::Answer(ok(body)))
    }

    /// As `kill -9` does: the port is closed, and every connection.
    pub(super) fn kill(&self) {
        self.dead.store(true, SeqCst);
        // Wakes the accepting thread, which ends and closes the port.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        while TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
            std::thread::yield_now();
        }
        for connection in self.connections.lock().iter() {
            let _gone = connection.shutdown(std::net::Shutdown::Both);
        }
    }

    pub(super) fn count(&self) -> usize {
        self.requests.lock().len()
    }

    pub(super) fn last(&self) -> Seen {
        self.requests
            .lock()
            .last()
            .cloned()
            .expect("a request came")
    }

    pub(super) fn instance(&self, id: u128, version: &str) -> Instance {
        fixture::instance(id, version, self.port)
    }
}

pub(super) fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn serve(
    mut stream: TcpStream,
    does: &(dyn Fn(&Seen, usize) -> Does + Send + Sync),
    log: &Mutex<Vec<Seen>>,
    number: &AtomicUsize,
) {
    let mut have = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let end = loop {
            if let Some(at) = have.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            match stream.read(&mut chunk) {
                Ok(n) if n > 0 => have.extend_from_slice(&chunk[..n]),
                _ => return,
            }
        };
        let seen = Seen {
            head: String::from_utf8_lossy(&have[..end]).trim_end().to_owned(),
        };
        let length: usize = seen
            .header("content-length")
            .and_then(|l| l.parse().ok())
            .unwrap_or(0);
        while have.len() < end + length {
            match stream.read(&mut chunk) {
                Ok(n) if n > 0 => have.extend_from_slice(&chunk[..n]),
                _ => return,
            }
        }
        have.drain(..end + length);
        log.lock().push(seen.clone());
        match does(&seen, number.fetch_add(1, SeqCst)) {
            Does::Answer(bytes) => {
                if stream.write_all(bytes.as_bytes()).is_err() {
                    return;
                }
            }
            Does::Close => {
                // The list of connections holds a copy, so that dropping this one closes nothing.
                let _gone = stream.shutdown(std::net::Shutdown::Both);
                return;
            }
            Does::Hang => {}
        }
    }
}

/// A public service with these instances.
pub(super) fn service(name: &str, instances: Vec<Instance>) -> Service {
    fixture::service(name, instances)
}

/// An object of the installation from JSON.
pub(super) fn object<T: serde::de::DeserializeOwned>(name: &str, doc: Value) -> Object<T> {
    Object {
        name: name.into(),
        tenant: None,
        created_at: portico_base::Timestamp::default(),
        doc: Arc::new(serde_json::from_value(doc).expect("a document")),
    }
}
