//! HTTP/1.1 byte vectors: one request in is one request out, a refused one is never forwarded.
//!
//! The patterns are those that parsers are known to differ on: llhttp's own tests, the bugs that the
//! HTTP Garden found in proxies and servers, the mutations of smuggler, the cases of h1spec.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

mod table;

use table::Must::{self, Break, Either, Pass, Refuse};
use table::{BEHIND_HOST, CHUNKS, PIECES, SMUGGLED, WHOLE};

use crate::house::{House, until};
use crate::raw::RawServer;

/// An instance that keeps exactly what came, and answers what it understands.
struct Echo {
    server: RawServer,
    came: Arc<Mutex<Vec<Vec<u8>>>>,
    open: Arc<AtomicUsize>,
}

impl Echo {
    fn start() -> Self {
        let came: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let log = Arc::clone(&came);
        let open = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&open);
        let server = RawServer::start(move |stream, _| {
            counted.fetch_add(1, Ordering::SeqCst);
            keep(stream, &log);
            counted.fetch_sub(1, Ordering::SeqCst);
        });
        Self { server, came, open }
    }

    fn came(&self) -> Vec<Vec<u8>> {
        self.came.lock().unwrap().clone()
    }

    fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

/// Keeps what comes on a connection, and answers each whole request.
fn keep(mut stream: TcpStream, log: &Mutex<Vec<Vec<u8>>>) {
    let index = {
        let mut all = log.lock().unwrap();
        all.push(Vec::new());
        all.len() - 1
    };
    let mut answered = 0;
    let mut room = [0; 16 * 1024];
    while let Ok(n) = stream.read(&mut room) {
        if n == 0 {
            return;
        }
        let (whole, head_only) = {
            let mut all = log.lock().unwrap();
            all[index].extend_from_slice(&room[..n]);
            let read = requests_in(&all[index]);
            (read.whole, read.heads)
        };
        for method in head_only.iter().take(whole).skip(answered) {
            let answer: &[u8] = match method.as_str() {
                // Closed by the other side: each vector has connections of its own.
                "HEAD" => b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n",
                _ => b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
            };
            if stream.write_all(answer).is_err() {
                return;
            }
        }
        answered = whole;
    }
}

/// What a strict reader finds in a connection's bytes.
#[derive(Debug, Default)]
struct Read {
    /// The methods of the heads.
    heads: Vec<String>,
    /// Requests that ended.
    whole: usize,
    /// What is not as it must be.
    fault: Option<String>,
}

/// Reads requests as RFC 9112 has them, and nothing else.
fn requests_in(mut bytes: &[u8]) -> Read {
    let mut read = Read::default();
    while !bytes.is_empty() {
        let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
            return read;
        };
        let Ok(head) = std::str::from_utf8(&bytes[..end]) else {
            // Bytes above ASCII may stand in values; names and framing are read without them.
            let plain: Vec<u8> = bytes[..end]
                .iter()
                .map(|b| if b.is_ascii() { *b } else { b'?' })
                .collect();
            let rest = [&plain, &bytes[end..]].concat();
            let mut again = requests_in(&rest);
            again.heads.splice(0..0, read.heads);
            again.whole += read.whole;
            return again;
        };
        bytes = &bytes[end + 4..];
        let mut lines = head.split("\r\n");
        let line = lines.next().unwrap_or_default();
        read.heads
            .push(line.split(' ').next().unwrap_or_default().to_owned());
        if line.split(' ').count() != 3 || !line.ends_with(" HTTP/1.1") {
            read.fault = Some(format!("request line {line:?}"));
        }
        let (mut lengths, mut codings, mut hosts) = (Vec::new(), Vec::new(), 0);
        for line in lines {
            let Some((name, value)) = line.split_once(':') else {
                read.fault = Some(format!("field line {line:?}"));
                continue;
            };
            if name.is_empty()
                || !name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
                || value.contains(['\r', '\n', '\0'])
            {
                read.fault = Some(format!("field line {line:?}"));
            }
            match name.to_ascii_lowercase().replace('_', "-").as_str() {
                "content-length" => lengths.push(value.trim().to_owned()),
                "transfer-encoding" => codings.push(value.trim().to_owned()),
                "host" => hosts += 1,
                _ => {}
            }
        }
        if hosts != 1 || lengths.len() + codings.len() > 1 {
            read.fault = Some(format!(
                "{hosts} hosts, lengths {lengths:?}, codings {codings:?}"
            ));
            return read;
        }
        let Some(rest) = body_end(bytes, lengths.first(), codings.first(), &mut read.fault) else {
            return read;
        };
        bytes = rest;
        read.whole += 1;
    }
    read
}

/// The bytes behind a body; nothing when it has not ended.
fn body_end<'a>(
    mut bytes: &'a [u8],
    length: Option<&String>,
    coding: Option<&String>,
    fault: &mut Option<String>,
) -> Option<&'a [u8]> {
    if let Some(length) = length {
        let Ok(length) = length.parse::<usize>() else {
            *fault = Some(format!("length {length:?}"));
            return None;
        };
        return bytes.get(length..);
    }
    let Some(coding) = coding else {
        return Some(bytes);
    };
    if coding != "chunked" {
        *fault = Some(format!("coding {coding:?}"));
    }
    loop {
        let end = bytes.windows(2).position(|w| w == b"\r\n")?;
        let line = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let Some(size) = usize::from_str_radix(&line, 16)
            .ok()
            .filter(|_| !line.starts_with('+'))
        else {
            *fault = Some(format!("chunk size {line:?}"));
            return None;
        };
        bytes = &bytes[end + 2..];
        if size == 0 {
            break;
        }
        if bytes.get(size..size + 2)? != b"\r\n" {
            *fault = Some("a chunk that is not followed by a line end".to_owned());
        }
        bytes = &bytes[size + 2..];
    }
    loop {
        let end = bytes.windows(2).position(|w| w == b"\r\n")?;
        let line = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        bytes = &bytes[end + 2..];
        if line.is_empty() {
            return Some(bytes);
        }
        if [
            "content-length",
            "transfer-encoding",
            "host",
            "authorization",
            "x-portico",
        ]
        .iter()
        .any(|name| line.starts_with(name))
        {
            *fault = Some(format!("trailer {line:?}"));
        }
    }
}

/// Sends bytes, and reads until the other side closes, enough was answered, or nothing more comes.
fn converse(address: &str, bytes: &[u8], must: Must) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let patience = match must {
        Refuse | Pass(_) => 5000,
        Either | Break => 500,
    };
    stream
        .set_read_timeout(Some(Duration::from_millis(patience)))
        .unwrap();
    let _ = stream.write_all(bytes);
    let mut out = Vec::new();
    let mut room = [0; 4096];
    while let Ok(n) = stream.read(&mut room) {
        out.extend_from_slice(&room[..n]);
        let text = String::from_utf8_lossy(&out);
        let enough =
            matches!(must, Pass(wanted) if statuses(&text).len() == wanted && text.ends_with("ok"));
        if n == 0 || enough {
            break;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn statuses(text: &str) -> Vec<u16> {
    let parts = text.split("HTTP/1.1 ").skip(1);
    parts
        .filter_map(|part| part.get(..3)?.parse().ok())
        .filter(|status| *status >= 200)
        .collect()
}

fn check(name: &str, must: Must, answer: &str, came: &[Vec<u8>]) -> Result<(), String> {
    let reads: Vec<Read> = came.iter().map(|bytes| requests_in(bytes)).collect();
    let (heads, whole): (usize, usize) = (
        reads.iter().map(|r| r.heads.len()).sum(),
        reads.iter().map(|r| r.whole).sum(),
    );
    let statuses = statuses(answer);
    let show = || {
        format!(
            "{name:?}: {must:?}, but {statuses:?}, {heads} heads, {whole} whole: {:?}",
            came.iter()
                .map(|b| String::from_utf8_lossy(b))
                .collect::<Vec<_>>()
        )
    };
    if let Some(fault) = reads.iter().find_map(|r| r.fault.as_ref()) {
        return Err(format!("{}: {fault}", show()));
    }
    let refused =
        |status: &u16| matches!(status, 400 | 405 | 408 | 413 | 414 | 421 | 431 | 501 | 505);
    let right = match must {
        Refuse => heads == 0 && statuses.len() <= 1 && statuses.iter().all(refused),
        Pass(n) => heads == n && whole == n && statuses == vec![200; n],
        // Whatever is answered 200 came once, and nothing else did.
        Either => heads == statuses.iter().filter(|s| **s == 200).count() && whole == heads,
        Break => {
            whole == 0
                && heads <= 1
                && statuses.len() <= 1
                && statuses.iter().all(|s| refused(s) || *s == 502)
        }
    };
    if right { Ok(()) } else { Err(show()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::too_many_lines, reason = "one scene, read from top to bottom")]
async fn one_request_in_is_one_request_out() {
    let house = House::start(&[]);
    let echo = Echo::start();
    house
        .register("target", echo.server.port(), json!({}))
        .await;
    let mut vectors: Vec<(String, Must)> = Vec::new();
    for (text, must) in BEHIND_HOST {
        vectors.push((
            format!("POST /api/target/v HTTP/1.1\r\nHost: 127.0.0.1\r\n{text}"),
            *must,
        ));
    }
    for (text, must) in CHUNKS {
        let head =
            "POST /api/target/v HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        vectors.push((format!("{head}{text}"), *must));
    }
    for (text, must) in WHOLE {
        vectors.push((format!("{text}{SMUGGLED}"), *must));
    }
    let (count, mut faults, mut ends) = (vectors.len(), Vec::new(), Vec::new());
    for (n, (text, must)) in vectors.into_iter().enumerate() {
        // Each has words of its own, so that what arrives late is still known for what it is.
        let named = |text: &str, n: &str| {
            text.replace("/target/v", &format!("/target/v{n}"))
                .replace("/smuggled", &format!("/s{n}"))
        };
        let alone = named(&text, &format!("{n}a"));
        ends.push((
            format!("{n}a"),
            must,
            converse(house.address(), alone.as_bytes(), must),
        ));
        if must == Refuse {
            // The same behind a good request, in one write: what was refused ends the connection.
            let both = format!(
                "GET /api/target/first HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n{text}{SMUGGLED}"
            );
            let both = named(&both, &format!("{n}b"));
            let answer = converse(house.address(), both.as_bytes(), must);
            if statuses(&answer).first() != Some(&200) || statuses(&answer).len() > 2 {
                faults.push(format!("pipelined {text:?}: {:?}", statuses(&answer)));
            }
            ends.push((
                format!("{n}b"),
                Refuse,
                answer
                    .rsplit_once("HTTP/1.1 200")
                    .map_or(String::new(), |(_, rest)| rest.to_owned()),
            ));
        }
    }
    until("all connections to the instance are over", || async {
        echo.open() == 0
    })
    .await;
    let came = echo.came();
    let mut known = came
        .iter()
        .filter(|bytes| String::from_utf8_lossy(bytes).contains("/first "))
        .count();
    for (n, must, answer) in ends {
        let own = [
            format!("/v{n} "),
            format!("/s{n} "),
            format!("/v{n}#"),
            format!("/v{n}?"),
        ];
        let of: Vec<Vec<u8>> = came
            .iter()
            .filter(|bytes| {
                own.iter()
                    .any(|name| String::from_utf8_lossy(bytes).contains(name))
            })
            .cloned()
            .collect();
        known += of.len();
        faults.extend(check(&n, must, &answer, &of).err());
    }
    assert_eq!(
        known,
        came.len(),
        "something was forwarded that nobody sent"
    );
    assert!(
        faults.is_empty(),
        "{} of {count}:\n{}",
        faults.len(),
        faults.join("\n")
    );
    assert_eq!(house.get("/api/target/v").await.text, "ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_in_pieces_is_waited_for() {
    let house = House::start(&[]);
    let word = json!({ "path": { "exact": "/hello" }, "target": { "fixed": { "status": 200, "body": "hello" } } });
    house.save("routes", "hello", word).await;
    let mut open: Vec<(&str, TcpStream)> = PIECES
        .iter()
        .map(|piece| {
            let mut stream = TcpStream::connect(house.address()).unwrap();
            stream.write_all(piece.as_bytes()).unwrap();
            (*piece, stream)
        })
        .collect();
    // An answer to all of these at once shows that the pieces were read by now.
    for _ in 0..5 {
        assert_eq!(house.get("/hello").await.text, "hello");
    }
    for (piece, stream) in &mut open {
        stream.set_nonblocking(true).unwrap();
        let got = stream.read(&mut [0; 64]);
        assert!(got.is_err(), "{piece:?} was answered: {got:?}");
        stream.set_nonblocking(false).unwrap();
    }
    let whole = "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for (piece, mut stream) in open {
        if let Some(rest) = whole.strip_prefix(piece) {
            stream.write_all(rest.as_bytes()).unwrap();
            let head = crate::raw::read_head(&mut stream).unwrap_or_default();
            assert!(head.starts_with("HTTP/1.1 200"), "{piece:?}: {head:?}");
        }
    }
}
