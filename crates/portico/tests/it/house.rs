//! A running binary with a data directory of its own.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portico_testkit::{AUDIENCE, ISSUER, TestKeys};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The binary under test.
pub(crate) fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_portico")
}

/// A running Portico. It is killed when it is dropped.
pub(crate) struct House {
    child: Child,
    pub(crate) http: String,
    pub(crate) consul: String,
    pub(crate) admin: String,
    pub(crate) folder: Arc<TempDir>,
    log: Arc<Mutex<String>>,
    readers: Vec<std::thread::JoinHandle<()>>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }
}

impl House {
    /// Starts with an empty data directory.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::at(Arc::new(tempfile::tempdir().unwrap()), arguments)
    }

    /// Starts with a configuration file; `{folder}` in it stands for the folder's path.
    pub(crate) fn configured(text: &str, arguments: &[&str]) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let text = text.replace("{folder}", &folder.path().display().to_string());
        std::fs::write(folder.path().join("portico.toml"), text).unwrap();
        Self::at(folder, arguments)
    }

    /// Starts with an issuer of users' tokens, and more lines of configuration.
    pub(crate) fn with_users(more: &str) -> (Self, TestKeys) {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let keys = TestKeys::new("test-1");
        let file = folder.path().join("jwks.json");
        keys.write(&file);
        let text = format!(
            "[auth]\njwks_file = {file:?}\nissuer = {ISSUER:?}\naudience = {AUDIENCE:?}\n{more}"
        );
        std::fs::write(folder.path().join("portico.toml"), text).unwrap();
        (Self::at(folder, &[]), keys)
    }

    /// Starts on a folder that an earlier process may have used.
    pub(crate) fn at(folder: Arc<TempDir>, arguments: &[&str]) -> Self {
        let mut child = Command::new(binary())
            .args(["--ready-json", "--no-demo", "--listen", "127.0.0.1:0"])
            .args([
                "--consul-listen",
                "127.0.0.1:0",
                "--admin-listen",
                "127.0.0.1:0",
                "--grpc-listen",
                "127.0.0.1:0",
                "--internal-listen",
                "127.0.0.1:0",
            ])
            .arg("--data-dir")
            .arg(data_dir(&folder))
            .args(arguments)
            .current_dir(folder.path())
            .env_remove("PORTICO_URL")
            .env_remove("PORTICO_TOKEN")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut ready = Value::Null;
        for line in lines.by_ref() {
            let line = line.unwrap();
            if let Ok(value) = serde_json::from_str::<Value>(&line)
                && value["event"] == "ready"
            {
                ready = value;
                break;
            }
            log.lock().unwrap().push_str(&(line + "\n"));
        }
        if ready.is_null() {
            let mut error = String::new();
            let _ = child.stderr.take().unwrap().read_to_string(&mut error);
            panic!("no ready line: {}\n{error}", log.lock().unwrap());
        }
        let sink = Arc::clone(&log);
        let told = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                sink.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        let mut errors = child.stderr.take().unwrap();
        let sink = Arc::clone(&log);
        let failed = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = errors.read_to_string(&mut text);
            sink.lock().unwrap().push_str(&text);
        });
        let url = |name: &str| ready[name].as_str().unwrap_or_default().to_owned();
        Self {
            http: url("http"),
            consul: url("consul"),
            admin: url("admin"),
            child,
            folder,
            log,
            readers: vec![told, failed],
        }
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        data_dir(&self.folder)
    }

    /// `host:port` of the public listener.
    pub(crate) fn address(&self) -> &str {
        self.http.trim_start_matches("http://")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to standard output and error so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The same after its end, whole.
    pub(crate) fn last_words(&mut self) -> String {
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        self.log()
    }

    pub(crate) fn operator(&self) -> String {
        let line = std::fs::read_to_string(self.data_dir().join("operator.token")).unwrap();
        line.trim()
            .trim_start_matches("Authorization: Bearer ")
            .to_owned()
    }

    /// A request with the operator's token.
    pub(crate) async fn operate(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let mut request = client()
            .request(method, format!("{}{path}", self.http))
            .bearer_auth(self.operator());
        if let Some(body) = body {
            request = request.json(body);
        }
        answer(request).await.unwrap()
    }

    /// A request of nobody.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        answer(client().get(format!("{}{path}", self.http)))
            .await
            .unwrap()
    }

    /// Saves one of the gateway's objects.
    pub(crate) async fn save(&self, kind: &str, name: &str, doc: Value) -> Answer {
        let answer = self
            .operate(
                Method::PUT,
                &format!("/api/gateway/{kind}/{name}"),
                Some(&json!({ "doc": doc })),
            )
            .await;
        assert_eq!(answer.status, 200, "{kind}/{name}: {}", answer.text);
        answer
    }

    /// Registers a public service at a port of this machine; answers the instance's id.
    pub(crate) async fn register(&self, name: &str, port: u16, more: Value) -> String {
        self.enrol(name, port, more).await["id"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// The same, with the whole answer.
    pub(crate) async fn enrol(&self, name: &str, port: u16, more: Value) -> Value {
        let mut body = json!({
            "name": name, "version": "1.0.0", "host": "127.0.0.1", "port": port, "default_access": "public",
        });
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().cloned().unwrap_or_default());
        let answer = self
            .operate(Method::POST, "/api/registry/register", Some(&body))
            .await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer.json()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(
            Pid::from_raw(i32::try_from(self.child.id()).unwrap()),
            signal,
        )
        .unwrap();
    }

    /// Waits for the end and answers the exit code; -1 for an end by signal.
    pub(crate) fn wait(&mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap_or(-1)
    }

    /// SIGTERM, and the exit code.
    pub(crate) fn stop(&mut self) -> i32 {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// A figure of `/metrics`: the sum over all series whose text begins like this.
    pub(crate) async fn metric(&self, begin: &str) -> f64 {
        let text = answer(client().get(format!("{}/metrics", self.admin)))
            .await
            .unwrap()
            .text;
        text.lines()
            .filter(|line| line.starts_with(begin))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn data_dir(folder: &TempDir) -> PathBuf {
    folder.path().join("data")
}

/// A token of a user of the default tenant, for an hour.
pub(crate) fn token(keys: &TestKeys, roles: &[&str], scopes: &str) -> String {
    let now = chrono::Utc::now().timestamp();
    keys.sign(&json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "sid": "session-1", "iat": now, "exp": now + 3600,
        "roles": roles, "scope": scopes, "aal": 1,
    }))
}

pub(crate) fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(30))
        .build()
        .unwrap()
}

pub(crate) async fn answer(request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
    let response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Ok(Answer {
        status,
        headers,
        text: response.text().await?,
    })
}

/// Runs a command of the binary to its end.
pub(crate) fn command(folder: &Path, arguments: &[&str]) -> std::process::Output {
    Command::new(binary())
        .args(arguments)
        .current_dir(folder)
        .env_remove("PORTICO_URL")
        .env_remove("PORTICO_TOKEN")
        .output()
        .unwrap()
}

/// Asks again and again until it is so, at most 20 seconds: for what another process does in its own time.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is_so().await {
        assert!(Instant::now() < end, "still not: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Reports a test that cannot run here past the harness's capture; in CI that is a failure.
pub(crate) fn skip(why: &str) {
    use std::io::Write as _;
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "CI must not skip its tests: {why}"
    );
    let _ = std::io::stderr().write_all(format!("skipped: {why}\n").as_bytes());
}
