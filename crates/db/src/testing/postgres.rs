//! A private PostgreSQL from the system's binaries, on a unix socket, gone with the last test process.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, Permissions};
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::str::FromStr as _;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use tempfile::TempDir;

const URL_VARIABLE: &str = "PORTICO_TEST_DATABASE_URL";
const START_LIMIT: Duration = Duration::from_secs(60);
/// Safe from nothing and quick: the data lives as long as the test.
const SETTINGS: [&str; 14] = [
    "-c",
    "listen_addresses=",
    "-c",
    "fsync=off",
    "-c",
    "full_page_writes=off",
    "-c",
    "max_connections=400",
    "-c",
    "shared_buffers=64MB",
    "-c",
    "autovacuum=off",
    "-c",
    "log_min_messages=fatal",
];

/// Keeps the shared server alive while it exists, and knows how to reach it.
struct Shared {
    url: String,
    _lock: Option<File>,
}

static SHARED: OnceLock<Option<Shared>> = OnceLock::new();

/// Makes a database and gives its URL.
pub(super) async fn create_database(name: &str) -> Option<String> {
    let shared = shared()?;
    run(
        &shared.url,
        &format!("CREATE DATABASE {name} TEMPLATE template0"),
    )
    .await;
    Some(with_database(&shared.url, name))
}

pub(super) async fn drop_database(name: &str) {
    if let Some(shared) = shared() {
        let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
        run(&shared.url, &sql).await;
    }
}

async fn run(url: &str, sql: &str) {
    let mut conn = PgConnectOptions::from_str(url)
        .expect("the address of the test server is well formed")
        .connect()
        .await
        .expect("the test server answers");
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut conn)
        .await
        .expect("the test server makes and drops databases");
    conn.close().await.ok();
}

fn with_database(url: &str, name: &str) -> String {
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let host = base.rsplit_once('/').map_or(base, |(host, _)| host);
    format!("{host}/{name}?{query}")
}

fn shared() -> Option<&'static Shared> {
    let shared = SHARED.get_or_init(|| {
        if let Ok(url) = std::env::var(URL_VARIABLE) {
            return Some(Shared { url, _lock: None });
        }
        let Some(bin) = binaries() else {
            missing();
            return None;
        };
        Some(join_or_start(&bin))
    });
    shared.as_ref()
}

#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
fn missing() {
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "PostgreSQL is not installed, and CI must not skip its tests"
    );
    eprintln!("skipped: the PostgreSQL half of this test, because initdb was not found");
}

/// The folder with `initdb` and `postgres`: the newest of Debian's, else whatever the path has.
fn binaries() -> Option<PathBuf> {
    let mut debian: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| {
            let version = e.file_name().to_str()?.parse().ok()?;
            Some((version, e.path().join("bin")))
        })
        .collect();
    debian.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    debian
        .into_iter()
        .rev()
        .map(|(_, bin)| bin)
        .chain(std::env::split_paths(&path))
        .find(|bin| bin.join("initdb").is_file() && bin.join("postgres").is_file())
}

/// PostgreSQL refuses to run as root: then it runs as its own user, or as nobody.
#[derive(Clone, Copy)]
struct Account {
    uid: u32,
    gid: u32,
}

fn account() -> Option<Account> {
    let me = std::fs::metadata("/proc/self").ok()?.uid();
    if me != 0 {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    ["postgres:", "nobody:"].iter().find_map(|name| {
        let line = users.lines().find(|l| l.starts_with(name))?;
        let mut fields = line.split(':').skip(2);
        Some(Account {
            uid: fields.next()?.parse().ok()?,
            gid: fields.next()?.parse().ok()?,
        })
    })
}

fn command(program: impl Into<OsString>, account: Option<Account>) -> Command {
    let mut command = Command::new(program.into());
    command
        .current_dir("/")
        .env_remove("PGDATA")
        .env("LC_ALL", "C");
    if let Some(Account { uid, gid }) = account {
        command.uid(uid).gid(gid);
    }
    command
}

/// A directory that the server's account owns.
fn own_dir(dir: &Path, account: Option<Account>) {
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(dir)
        .expect("a directory for the test server can be made");
    if let Some(Account { uid, gid }) = account {
        chown(dir, Some(uid), Some(gid)).expect("root may give a directory away");
    }
}

fn init(bin: &Path, data: &Path, account: Option<Account>) {
    let output = command(bin.join("initdb"), account)
        .args(["-U", "postgres", "-A", "trust", "-E", "UTF8"])
        .args(["--locale=C", "--no-sync", "-D"])
        .arg(data)
        .output()
        .expect("initdb can be started");
    assert!(
        output.status.success(),
        "initdb failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn wait_for(socket_dir: &Path, port: u16) {
    let socket = socket_dir.join(format!(".s.PGSQL.{port}"));
    let start = Instant::now();
    // The process lives elsewhere, so that asking again is the only way to learn that it is up.
    while !answers(&socket) {
        assert!(
            start.elapsed() < START_LIMIT,
            "the test server did not start"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// True when the server takes a start-up packet and says anything but "starting up": SSLRequest is
/// answered by one byte as soon as it accepts connections (PostgreSQL documentation, 55.2.1).
fn answers(socket: &Path) -> bool {
    use std::io::Read as _;
    let Ok(mut stream) = UnixStream::connect(socket) else {
        return false;
    };
    // Protocol 3.0, user and database `postgres`.
    let body = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
    let length = u32::try_from(body.len() + 4).unwrap_or(0).to_be_bytes();
    let mut kind = [0];
    stream.write_all(&length).is_ok()
        && stream.write_all(body).is_ok()
        && stream.read_exact(&mut kind).is_ok()
        && kind == *b"R"
}

fn url_of(socket_dir: &Path) -> String {
    format!(
        "postgres://postgres@localhost/postgres?host={}",
        socket_dir.display()
    )
}

/// Runs the server in the background until no test process holds `users.lock`, lingers, and takes it down.
const SUPERVISOR: &str = r#"
dir=$1; shift
(
  "$@" &
  pid=$!
  while kill -0 $pid 2>/dev/null; do
    flock -x "$dir/users.lock" true
    sleep 3
    flock -n -x "$dir/users.lock" sh -c '
      kill -INT '$pid' 2>/dev/null
      while kill -0 '$pid' 2>/dev/null; do sleep 0.05; done
      rm -rf "$1/run"' sh "$dir" && exit 0
  done
) &
"#;

/// Uses the server that another test process has started, or starts one.
fn join_or_start(bin: &Path) -> Shared {
    let account = account();
    let me = std::fs::metadata("/proc/self").map_or(0, |m| m.uid());
    let dir = std::env::temp_dir().join(format!("portico-test-postgres-{me}"));
    own_dir(&dir, account);
    let open = |name: &str| {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join(name))
            .expect("lock files can be made");
        if let Some(Account { uid, gid }) = account {
            chown(dir.join(name), Some(uid), Some(gid)).expect("root may give a file away");
        }
        file
    };
    // Waits while the server is being taken down; from here on it stays up.
    let users = open("users.lock");
    users.lock_shared().expect("the lock of users can be taken");
    let starting = open("start.lock");
    starting.lock().expect("the lock of the start can be taken");
    let run = dir.join("run");
    if !answers(&run.join(".s.PGSQL.5432")) {
        let _ = std::fs::remove_dir_all(&run);
        own_dir(&run, account);
        init(bin, &run.join("data"), account);
        command("sh", account)
            .args(["-c", SUPERVISOR, "sh"])
            .arg(&dir)
            .arg(bin.join("postgres"))
            .args(SETTINGS)
            .arg("-D")
            .arg(run.join("data"))
            .arg("-k")
            .arg(&run)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .status()
            .expect("the supervisor of the test server can be started");
        wait_for(&run, 5432);
    }
    drop(starting);
    Shared {
        url: url_of(&run),
        _lock: Some(users),
    }
}

/// A server for one test, which may stop and start it.
pub struct PrivateServer {
    bin: PathBuf,
    dir: TempDir,
    account: Option<Account>,
    port: u16,
    more: Vec<String>,
    running: Option<(Child, ChildStdin)>,
}

/// What a server that encrypts shows and asks for, as PEM.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// Its certificate.
    pub certificate: String,
    /// The key of it.
    pub key: String,
    /// Clients must show a certificate of this authority, made out to the user's name.
    pub client_authority: Option<String>,
}

/// Runs the server until the end of standard input, so that it dies with the test process.
const KEEPER: &str = r#""$@" & pid=$!; cat >/dev/null; kill -QUIT $pid; wait $pid"#;

impl PrivateServer {
    /// Starts a server, where PostgreSQL is installed.
    ///
    /// # Panics
    /// When it does not start; or when it is not installed and the environment has `CI=true`.
    #[must_use]
    pub fn start() -> Option<Self> {
        let mut server = Self::prepare()?;
        server.up();
        Some(server)
    }

    /// The same on a free port of this machine, with or without encryption.
    ///
    /// # Panics
    /// As [`PrivateServer::start`] does.
    #[must_use]
    pub fn start_tcp(tls: Option<&ServerTls>) -> Option<Self> {
        let mut server = Self::prepare()?;
        server.port = TcpListener::bind("127.0.0.1:0")
            .and_then(|l| l.local_addr())
            .expect("there is a free port")
            .port();
        server.more = vec![
            "-c".to_owned(),
            "listen_addresses=127.0.0.1".to_owned(),
            "-p".to_owned(),
            server.port.to_string(),
        ];
        if let Some(tls) = tls {
            server.encrypt(tls);
        }
        server.up();
        Some(server)
    }

    fn prepare() -> Option<Self> {
        let Some(bin) = binaries() else {
            missing();
            return None;
        };
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let account = account();
        own_dir(dir.path(), account);
        init(&bin, &dir.path().join("data"), account);
        Some(Self {
            bin,
            dir,
            account,
            port: 5432,
            more: Vec::new(),
            running: None,
        })
    }

    fn encrypt(&mut self, tls: &ServerTls) {
        self.write("server.crt", &tls.certificate);
        self.write("server.key", &tls.key);
        self.more.extend(["-c".to_owned(), "ssl=on".to_owned()]);
        if let Some(authority) = &tls.client_authority {
            self.write("clients.crt", authority);
            let option = "ssl_ca_file=clients.crt".to_owned();
            self.more.extend(["-c".to_owned(), option]);
            self.write(
                "pg_hba.conf",
                "local all all trust\nhostssl all all 127.0.0.1/32 cert\n",
            );
        }
    }

    /// Writes a file into the data directory that only the server may read.
    fn write(&self, name: &str, text: &str) {
        let path = self.dir.path().join("data").join(name);
        std::fs::write(&path, text).expect("a file for the test server can be written");
        let mode = Permissions::from_mode(0o600);
        std::fs::set_permissions(&path, mode).expect("its owner may set its mode");
        if let Some(Account { uid, gid }) = self.account {
            chown(&path, Some(uid), Some(gid)).expect("root may give a file away");
        }
    }

    /// URL over TCP, for a host name of this machine.
    #[must_use]
    pub fn tcp_url(&self, host: &str) -> String {
        format!("postgres://postgres@{host}:{}/postgres", self.port)
    }

    /// URL of its database `postgres`.
    #[must_use]
    pub fn url(&self) -> String {
        url_of(self.dir.path())
    }

    /// Starts it again after [`PrivateServer::down`].
    ///
    /// # Panics
    /// When it does not start.
    pub fn up(&mut self) {
        let mut child = command("sh", self.account)
            .args(["-c", KEEPER, "sh"])
            .arg(self.bin.join("postgres"))
            .args(SETTINGS)
            .args(&self.more)
            .arg("-D")
            .arg(self.dir.path().join("data"))
            .arg("-k")
            .arg(self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the test server can be started");
        let stdin = child.stdin.take().expect("standard input was asked for");
        self.running = Some((child, stdin));
        wait_for(self.dir.path(), self.port);
    }

    /// Stops it at once, without letting sessions end.
    pub fn down(&mut self) {
        if let Some((mut child, stdin)) = self.running.take() {
            drop(stdin);
            let _ = child.wait();
        }
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        self.down();
    }
}
