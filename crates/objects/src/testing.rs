//! A real S3 server for tests, in its own process: the PyPI package moto, installed by
//! `scripts/install-test-deps.sh`.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use portico_base::Secret;

use crate::s3::{Encryption, S3Options};

/// Name of the server's one bucket.
pub const BUCKET: &str = "portico-test";

/// A server with one bucket; gone when dropped.
#[derive(Debug)]
pub struct S3Server {
    child: Child,
    port: u16,
}

impl S3Server {
    /// Starts one; `None`, with a line on standard error, where it is not installed.
    ///
    /// # Panics
    /// When it is missing and `CI=true`, or when it does not start.
    #[must_use]
    pub fn start() -> Option<Self> {
        let server = Self::start_with(&[])?;
        let answer = server.ask("PUT", &format!("/{BUCKET}"), "");
        assert!(answer.contains(" 200 "), "{answer}");
        Some(server)
    }

    /// Starts one with further variables in its environment; it has no bucket.
    ///
    /// # Panics
    /// As [`Self::start`].
    #[must_use]
    pub fn start_with(environment: &[(&str, &str)]) -> Option<Self> {
        let program = program();
        if !program.exists() {
            let ci = std::env::var("CI").is_ok_and(|v| v == "true");
            assert!(!ci, "{} is not installed", program.display());
            let line =
                b"SKIPPED: moto_server is not installed, the S3 half of this test did not run\n";
            let _ = std::io::stderr().write_all(line);
            return None;
        }
        let mut child = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", "0"])
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the S3 server starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped"));
        let mut seen = String::new();
        let port = loop {
            let mut line = String::new();
            let read = lines.read_line(&mut line).expect("the server speaks");
            assert!(read > 0, "the S3 server ended: {seen}");
            if let Some((_, rest)) = line.split_once("http://127.0.0.1:") {
                let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                break digits.parse().expect("a port");
            }
            seen.push_str(&line);
        };
        // It logs each request; a full pipe would stop it.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Some(Self { child, port })
    }

    /// Its port on this machine.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// How to reach it.
    ///
    /// # Panics
    /// Never: its address is a URL.
    #[must_use]
    pub fn options(&self, prefix: &str) -> S3Options {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        S3Options {
            endpoint: Some(endpoint.parse().expect("a URL")),
            region: String::new(),
            bucket: BUCKET.to_owned(),
            prefix: prefix.to_owned(),
            credentials: Some((Secret::from("AKIDTEST"), Secret::from("secret"))),
            path_style: true,
            encryption: Encryption::None,
        }
    }

    /// One request by hand; the whole answer as text.
    ///
    /// # Panics
    /// When the server does not answer.
    #[must_use]
    pub fn ask(&self, method: &str, target: &str, headers: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("connects");
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: 0\r\nAuthorization: AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request\r\n{headers}\r\n"
        );
        stream.write_all(request.as_bytes()).expect("sends");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("answers");
        String::from_utf8_lossy(&answer).into_owned()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> PathBuf {
    let directory = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let cache = directory("PORTICO_TEST_CACHE").unwrap_or_else(|| {
        directory("XDG_CACHE_HOME")
            .or_else(|| directory("HOME").map(|home| home.join(".cache")))
            .unwrap_or_default()
            .join("portico")
    });
    cache.join("s3/venv/bin/moto_server")
}
