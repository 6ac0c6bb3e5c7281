//! Starts the workers: a thread each, with its own runtime and its share of every listener.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tracing::{error, warn};

use super::accept::{self, Admission};
use super::control::{COMMANDS, Command, Control, Cut};
use super::handler::Handler;
use super::limits::ServeLimits;
use super::listen::Bound;
use super::stats::WorkerStats;
use super::tls::CertStore;
use super::worker::Worker;

/// A worker that is not there by then has failed.
const START: Duration = Duration::from_secs(10);

/// How the workers run.
#[derive(Clone)]
pub struct Options {
    pub workers: usize,
    pub limits: ServeLimits,
    /// The runtime of everything that is not the data plane.
    pub shared: tokio::runtime::Handle,
}

/// The running workers.
pub struct Server {
    control: Control,
    threads: Vec<JoinHandle<()>>,
}

/// What a worker's thread needs to begin.
struct Seat {
    index: usize,
    options: Options,
    sockets: Vec<Socket>,
    admission: Arc<Admission>,
    ids: Arc<AtomicU64>,
    commands: mpsc::Receiver<Command>,
    started: std::sync::mpsc::SyncSender<Arc<WorkerStats>>,
}

pub(super) struct Socket {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    pub(super) listener: std::net::TcpListener,
    pub(super) tls: Option<Arc<CertStore>>,
    pub(super) h2c: bool,
}

impl Server {
    /// Starts `options.workers` workers on `listeners`, which must be bound for as many. The factory
    /// runs once on each worker's thread.
    ///
    /// # Errors
    /// The system's, when a thread or a runtime cannot be made.
    pub fn start<H, F>(options: &Options, listeners: Vec<Bound>, factory: F) -> io::Result<Self>
    where
        H: Handler,
        F: Fn(&Rc<Worker>) -> Rc<H> + Send + Clone + 'static,
    {
        let admission = Arc::new(Admission::new(&options.limits));
        let ids = Arc::new(AtomicU64::new(1));
        let mut shares: Vec<Vec<Socket>> = (0..options.workers).map(|_| Vec::new()).collect();
        for bound in listeners {
            for (share, listener) in shares.iter_mut().zip(bound.sockets) {
                share.push(Socket {
                    name: bound.name,
                    address: bound.address,
                    listener,
                    tls: bound.tls.clone(),
                    h2c: bound.h2c,
                });
            }
        }
        let (mut workers, mut threads) = (Vec::new(), Vec::new());
        for (index, sockets) in shares.into_iter().enumerate() {
            let (sender, commands) = mpsc::channel(COMMANDS);
            let (started, stats) = std::sync::mpsc::sync_channel(1);
            let options = options.clone();
            let seat = Seat {
                index,
                options,
                sockets,
                admission: Arc::clone(&admission),
                ids: Arc::clone(&ids),
                commands,
                started,
            };
            let factory = factory.clone();
            let thread = std::thread::Builder::new()
                .name(format!("data-{index}"))
                .spawn(move || thread(seat, factory))?;
            threads.push(thread);
            let stats = stats
                .recv_timeout(START)
                .map_err(|_| io::Error::other("a data plane worker did not start"))?;
            workers.push((sender, stats));
        }
        Ok(Self {
            control: Control {
                workers: workers.into(),
            },
            threads,
        })
    }

    /// The handle for everything but stopping.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Drains as [`Control::drain`] and waits for the threads.
    pub async fn stop(self, deadline: Duration) -> Vec<Cut> {
        let cut = self.control.drain(deadline).await;
        let joined = tokio::task::spawn_blocking(|| {
            self.threads
                .into_iter()
                .map(JoinHandle::join)
                .filter(Result::is_err)
                .count()
        });
        if joined.await.is_ok_and(|panicked| panicked > 0) {
            error!("a data plane worker panicked");
        }
        cut
    }
}

fn thread<H, F>(seat: Seat, factory: F)
where
    H: Handler,
    F: Fn(&Rc<Worker>) -> Rc<H>,
{
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = match builder
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
    {
        Ok(runtime) => runtime,
        Err(e) => {
            error!(error = %e, "a data plane worker has no runtime");
            return;
        }
    };
    runtime.block_on(run(seat, factory));
    // What a name lookup or file read still does in the background must not hold the stop up.
    runtime.shutdown_background();
}

async fn run<H, F>(seat: Seat, factory: F)
where
    H: Handler,
    F: Fn(&Rc<Worker>) -> Rc<H>,
{
    let Seat {
        index,
        options,
        sockets,
        admission,
        ids,
        mut commands,
        started,
    } = seat;
    let worker = Worker::new(index, options.workers, options.limits, options.shared);
    let handler = factory(&worker);
    let ticking = Rc::clone(&worker);
    worker.spawn(async move { ticking.tick().await });
    watch_stalls(&worker);
    let mut accepting = Vec::new();
    for socket in sockets {
        let name = socket.name;
        match TcpListener::from_std(socket.listener) {
            Ok(listener) => {
                let gate = accept::Gate {
                    name,
                    address: socket.address,
                    tls: socket.tls,
                    h2c: socket.h2c,
                    admission: Arc::clone(&admission),
                    ids: Arc::clone(&ids),
                };
                let task = accept::run(listener, gate, Rc::clone(&worker), Rc::clone(&handler));
                accepting.push(tokio::task::spawn_local(task));
            }
            Err(e) => error!(error = %e, listener = name, "a listener cannot be used"),
        }
    }
    let _gone = started.send(Arc::clone(&worker.stats));
    while let Some(command) = commands.recv().await {
        match command {
            Command::CloseStreams(key, reply) => {
                let _gone = reply.send(worker.streams.cut(&key));
            }
            Command::OpenStreams(reply) => {
                let open = worker
                    .streams
                    .all()
                    .iter()
                    .filter(|s| s.is_busy())
                    .map(|s| s.describe())
                    .collect();
                let _gone = reply.send(open);
            }
            Command::Leave(reply) => {
                worker.leaving.set(true);
                worker.streams.all().iter().for_each(|s| s.wake());
                let _gone = reply.send(());
            }
            Command::Drain(deadline, reply) => {
                worker.begin_drain(deadline);
                for task in accepting {
                    let _ended = task.await;
                }
                let _gone = reply.send(drain(&worker, deadline).await);
                return;
            }
        }
    }
    warn!("a data plane worker ends without a drain");
}

/// Waits until nothing is open or the deadline has passed; then cuts.
async fn drain(worker: &Rc<Worker>, deadline: Duration) -> Vec<Cut> {
    let streams = worker.streams.all();
    for stream in &streams {
        stream.wake();
    }
    drop(streams);
    let emptied = async {
        while worker.stats.open.get() > 0 {
            worker.closed.notified().await;
        }
    };
    if tokio::time::timeout(deadline, emptied).await.is_ok() {
        return Vec::new();
    }
    let left = worker.streams.all();
    let cut = left
        .iter()
        .filter(|s| s.is_busy())
        .map(|s| Cut { what: s.describe() })
        .collect();
    for stream in &left {
        stream.cut();
    }
    drop(left);
    // One turn for the tasks to see it and close their connections in order.
    let ended = async {
        while worker.stats.open.get() > 0 {
            worker.closed.notified().await;
        }
    };
    let _late = tokio::time::timeout(Duration::from_millis(500), ended).await;
    cut
}

/// Cuts HTTP/2 streams whose clients do not read, now and then.
fn watch_stalls(worker: &Rc<Worker>) {
    let limit = u32::try_from(worker.limits.write_stall.as_millis() / 100).unwrap_or(u32::MAX);
    let weak = Rc::downgrade(worker);
    let mut next = 0;
    worker.on_tick(Box::new(move || {
        let Some(worker) = weak.upgrade() else { return };
        let now = worker.timers.now();
        if now >= next {
            next = now + 10;
            if let Some(tick) = now.checked_sub(limit) {
                worker.streams.cut_stalled(tick);
            }
        }
    }));
}
