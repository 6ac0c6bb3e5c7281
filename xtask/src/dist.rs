//! The release binary: one file, stripped, fat LTO; and what its owner notices first of it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

const MAX_BYTES: u64 = 40_000_000;
/// The memory of an idle process is looked at so long after its start.
const SETTLED: Duration = Duration::from_secs(10);

/// Builds with the `dist` profile, copies to `dist/portico`, checks the size and says how long a start takes.
pub(crate) fn run(root: &Path) -> Result<()> {
    let binary = build(root, &["portico"])?.join("portico");
    let folder = root.join("dist");
    std::fs::create_dir_all(&folder)?;
    let target = folder.join("portico");
    let bytes = std::fs::copy(binary, &target)?;
    println!("dist/portico: {:.1} MB", bytes as f64 / 1e6);
    if bytes > MAX_BYTES {
        bail!("the binary is larger than 40 MB");
    }
    let data = std::env::temp_dir().join(format!("portico-dist-{}", std::process::id()));
    let seen = try_out(&target, &data);
    std::fs::remove_dir_all(&data)?;
    seen
}

/// Builds packages as they are released and tells in which folder their binaries are.
pub(crate) fn build(root: &Path, packages: &[&str]) -> Result<PathBuf> {
    let packages = packages.iter().flat_map(|name| ["--package", *name]);
    let status = Command::new("cargo")
        .args(["build", "--profile", "dist", "--locked"])
        .args(packages)
        .current_dir(root)
        .status()?;
    if !status.success() {
        bail!("the build failed");
    }
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("dist"))
}

/// Starts it on an empty data directory and once more on what the first start left.
fn try_out(binary: &Path, data: &Path) -> Result<()> {
    let (first, took) = Running::start(binary, data)?;
    println!("start to first answer: {} ms first", took.as_millis());
    drop(first);
    let (again, took) = Running::start(binary, data)?;
    println!("start to first answer: {} ms warm", took.as_millis());
    std::thread::sleep(SETTLED);
    println!("idle: {:.1} MiB resident", again.resident_kib()? / 1024.0);
    Ok(())
}

/// A started gateway; ended when dropped.
struct Running(Child);

impl Running {
    fn start(binary: &Path, data: &Path) -> Result<(Self, Duration)> {
        let begun = Instant::now();
        let any = "127.0.0.1:0";
        let child = Command::new(binary)
            .arg("--data-dir")
            .arg(data)
            .args([
                "--listen",
                any,
                "--consul-listen",
                any,
                "--admin-listen",
                any,
                "--grpc-listen",
                any,
                "--internal-listen",
                any,
            ])
            .args(["--no-demo", "--ready-json"])
            .env("PORTICO__TELEMETRY__LOG__TARGET", "file")
            .stdout(Stdio::piped())
            .spawn()?;
        let mut running = Self(child);
        let out = running.0.stdout.take().context("no output")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        let ready: serde_json::Value = serde_json::from_str(&line).context("the ready line")?;
        let url = ready["http"].as_str().context("no address")?;
        let address = url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address)?;
        write!(stream, "GET /healthz HTTP/1.1\r\nHost: {address}\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        if status != *b"HTTP/1.1 200" {
            bail!("the first answer was {}", String::from_utf8_lossy(&status));
        }
        Ok((running, begun.elapsed()))
    }

    fn resident_kib(&self) -> Result<f64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:"));
        let number = line.and_then(|l| l.split_whitespace().next());
        Ok(number.context("no VmRSS")?.parse()?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has nothing to lose: the data directory goes next, or is its successor's to recover.
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}
