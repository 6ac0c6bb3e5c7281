//! The server as clients see it, over real sockets.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::Request as Asked;
use axum::routing::{get, post, put};
use futures_util::{StreamExt as _, stream};
use tokio::io::AsyncReadExt as _;
use tokio::task::JoinHandle;

use super::*;

/// A running server.
struct Rig {
    address: SocketAddr,
    tasks: TaskTracker,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

impl Rig {
    async fn new(router: Router, limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let server = serve(listener, router, limits, tasks.clone(), stop.clone());
        Self {
            address,
            server: tokio::spawn(server),
            tasks,
            stop,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes and reads until the server closes.
    async fn talk(&self, bytes: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn end(self) {
        self.stop.cancel();
        self.server.await.unwrap();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn router() -> Router {
    let echo = async |body: Bytes| body;
    let early = async |_: Asked| (StatusCode::PAYLOAD_TOO_LARGE, "too large");
    let pieces = async || {
        let words = ["one", "two", "three"];
        Body::from_stream(stream::iter(words).map(Ok::<_, io::Error>))
    };
    Router::new()
        .route("/", get(async || "hello"))
        .route("/echo", post(echo))
        .route("/early", put(early))
        .route("/pieces", get(pieces))
        .route("/large", get(async || vec![b'x'; 3 * READ]))
}

/// Reads until `end` has come.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    while !text.contains(end) {
        let mut bytes = [0; 4096];
        let n = stream.read(&mut bytes).await.unwrap();
        assert!(n > 0, "the connection ended: {text}");
        text.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
    }
    text
}

#[tokio::test]
async fn a_common_client_is_served_and_drained() {
    let rig = Rig::new(router(), Limits::default()).await;
    let client = reqwest::Client::new();
    let url = |path: &str| format!("http://{}{path}", rig.address);
    for _ in 0..3 {
        let answer = client.get(url("/")).send().await.unwrap();
        assert!(answer.headers().contains_key("date"));
        assert_eq!(answer.text().await.unwrap(), "hello");
    }
    let long = "0123456789".repeat(30_000);
    let answer = client.post(url("/echo")).body(long.clone()).send().await;
    assert_eq!(answer.unwrap().text().await.unwrap(), long);
    let large = client.get(url("/large")).send().await.unwrap();
    assert_eq!(large.bytes().await.unwrap().len(), 3 * READ);
    let pieces = client.get(url("/pieces")).send().await.unwrap();
    assert_eq!(pieces.text().await.unwrap(), "onetwothree");
    let (address, head) = (rig.address, client.head(url("/")).send().await.unwrap());
    assert_eq!(head.headers()["content-length"], "5");
    rig.end().await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn bodies_of_every_framing_arrive() {
    let rig = Rig::new(router(), Limits::default()).await;
    let close = "Host: a\r\nConnection: close\r\n";
    let whole = rig
        .talk(&format!(
            "POST /echo HTTP/1.1\r\n{close}Content-Length: 3\r\n\r\nabc"
        ))
        .await;
    assert!(whole.ends_with("connection: close\r\n\r\nabc"), "{whole}");
    let chunked = rig
        .talk(&format!(
            "POST /echo HTTP/1.1\r\n{close}Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
        ))
        .await;
    assert!(chunked.contains("content-length: 3") && chunked.ends_with("\r\n\r\nabc"));
    let old = rig.talk("GET /pieces HTTP/1.0\r\n\r\n").await;
    assert!(old.ends_with("\r\n\r\nonetwothree"), "{old}");

    let mut stream = rig.connect().await;
    let expecting =
        format!("POST /echo HTTP/1.1\r\n{close}Expect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    stream.write_all(expecting.as_bytes()).await.unwrap();
    assert_eq!(
        read_until(&mut stream, "\r\n\r\n").await,
        "HTTP/1.1 100 Continue\r\n\r\n"
    );
    stream.write_all(b"abc").await.unwrap();
    assert!(
        read_until(&mut stream, "abc")
            .await
            .starts_with("HTTP/1.1 200")
    );
    rig.end().await;
}

#[tokio::test]
async fn requests_sent_ahead_are_answered_in_their_order() {
    let rig = Rig::new(router(), Limits::default()).await;
    let answers = rig
        .talk(
            "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nfirst\
             GET /pieces HTTP/1.1\r\nHost: a\r\n\r\n\
             GET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        )
        .await;
    let at = |text: &str| {
        answers
            .find(text)
            .unwrap_or_else(|| panic!("{text}: {answers}"))
    };
    assert!(at("first") < at("3\r\none\r\n"));
    assert!(at("0\r\n\r\n") < at("HTTP/1.1 404"));
    rig.end().await;
}

#[tokio::test]
async fn what_two_could_read_in_two_ways_is_refused() {
    let rig = Rig::new(router(), Limits::default()).await;
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("GET / HTTP/1.1\nHost: a\n\n", "400"),
        (
            "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "400",
        ),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", "501"),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", "505"),
    ] {
        let answer = rig.talk(request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains("close"),
            "{request:?}: {answer}"
        );
    }
    let broken = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    let answer = rig.talk(broken).await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    let long = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "x".repeat(40_000)
    );
    assert!(rig.talk(&long).await.starts_with("HTTP/1.1 431"));
    rig.end().await;
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let rig = Rig::new(router(), Limits::default()).await;
    let mut stream = rig.connect().await;
    let length = 100_000;
    let head = format!("PUT /early HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b'x'; length]).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413") && answer.ends_with("too large"));
    rig.end().await;
}

#[tokio::test]
async fn heads_that_trickle_and_silence_between_requests_end() {
    let limits = Limits {
        header_timeout: Duration::from_millis(50),
        idle: Duration::from_millis(50),
        ..Limits::default()
    };
    let rig = Rig::new(router(), limits).await;
    assert!(rig.talk("GET / HT").await.starts_with("HTTP/1.1 408"));
    assert_eq!(rig.talk("").await, "", "nothing was asked");
    let kept = rig.talk("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(kept.ends_with("hello"), "{kept}");
    rig.end().await;
}

/// Counts itself while it lives.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_handler_and_a_drain_waits_for_others() {
    let (running, release) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (count, released) = (Arc::clone(&running), Arc::clone(&release));
    let wait = move || {
        let (count, released) = (Arc::clone(&count), Arc::clone(&released));
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            let _counted = Counted(count);
            released.notified().await;
            "released"
        }
    };
    let router = Router::new().route("/wait", get(wait));
    let rig = Rig::new(router, Limits::default()).await;
    let ask = b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n";
    let (mut leaves, mut stays) = (rig.connect().await, rig.connect().await);
    leaves.write_all(ask).await.unwrap();
    stays.write_all(ask).await.unwrap();
    let until = async |n| {
        while running.load(Ordering::SeqCst) != n {
            tokio::task::yield_now().await;
        }
    };
    until(2).await;
    drop(leaves);
    until(1).await;
    rig.stop.cancel();
    release.notify_waiters();
    let mut answer = String::new();
    stays.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("connection: close") && answer.ends_with("released"));
    rig.end().await;
}
