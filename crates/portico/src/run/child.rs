//! A program as a child process: own process group, free port, told to end and then made to.
#![expect(
    unsafe_code,
    reason = "a child asks the kernel to be ended with its parent, which can only be set between fork and exec; \
              prctl is async-signal-safe and touches no memory of ours"
)]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

/// A free port on loopback. Somebody else may take it before the program does; then the program fails and is told.
pub(super) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr()?.port())
}

/// Starts the program with its port in `PORT` and in place of `{port}`.
pub(super) fn start(
    command: &[String],
    port: u16,
    environment: &BTreeMap<String, String>,
) -> Result<Child> {
    let words: Vec<String> = command
        .iter()
        .map(|word| word.replace("{port}", &port.to_string()))
        .collect();
    let (program, arguments) = words.split_first().context("no command was given")?;
    let mut builder = Command::new(program);
    builder
        .args(arguments)
        .env("PORT", port.to_string())
        .envs(environment)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    // SAFETY: the closure runs in the child between fork and exec and makes one system call
    // (prctl) that is async-signal-safe and does not allocate.
    unsafe {
        builder.pre_exec(|| {
            nix::sys::prctl::set_pdeathsig(Signal::SIGTERM).map_err(std::io::Error::from)
        });
    }
    builder
        .spawn()
        .with_context(|| format!("`{program}` cannot be started"))
}

/// Waits until something accepts connections on the port, at most `limit`.
pub(super) async fn listens(port: u16, limit: Duration) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let attempts = async {
        loop {
            if tokio::net::TcpStream::connect(address).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(4)).await;
        }
    };
    tokio::time::timeout(limit, attempts).await.is_ok()
}

/// SIGTERM to the whole group, SIGKILL after `grace`.
pub(super) async fn end(child: &mut Child, grace: Duration) -> Option<ExitStatus> {
    let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) else {
        return child.wait().await.ok();
    };
    let group = Pid::from_raw(id);
    // The group may be gone already; then waiting returns at once.
    let _ = killpg(group, Signal::SIGTERM);
    if let Ok(status) = tokio::time::timeout(grace, child.wait()).await {
        // Grandchildren that ignored the signal shall not outlive the program.
        let _ = killpg(group, Signal::SIGKILL);
        return status.ok();
    }
    let _ = killpg(group, Signal::SIGKILL);
    child.wait().await.ok()
}

/// The exit code as a shell gives it: 128 and the signal's number for a killed program.
pub(super) fn code(status: Option<ExitStatus>) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;
    let Some(status) = status else { return 1 };
    let number = status
        .code()
        .or_else(|| status.signal().map(|s| 128 + s))
        .unwrap_or(1);
    u8::try_from(number).unwrap_or(1)
}
