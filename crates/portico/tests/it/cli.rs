//! The command line as scripts see it: exit codes, texts, files.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use serde_json::Value;

use crate::house::{House, binary, command, skip, until};

#[test]
fn version_is_a_line_and_json() {
    let folder = tempfile::tempdir().unwrap();
    let output = command(folder.path(), &["version", "--json"]);
    assert!(output.status.success());
    let version: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert!(version["rustc"].as_str().unwrap().starts_with("rustc "));
}

#[test]
fn seven_mistakes_are_reported_at_once_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("portico.toml");
    std::fs::write(
        &file,
        "[databse]\nurl = \"x\"\n[listen]\nhttp = \"nowhere\"\nadmin = 5\n[node]\nroles = [\"gatway\"]\n\
         data_dir = \"data\"\n[server]\ntrusted_proxies = [\"10.0.0.0/99\"]\n[shutdown]\ngrace_s = \"soon\"\n\
         [settings]\n\"gateway.breaker.open_s\" = 100000\n",
    )
    .unwrap();
    for arguments in [&["config", "check"][..], &["--ready-json"][..]] {
        let output = command(folder.path(), arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}");
        for part in [
            "databse",
            "did you mean",
            "listen.http",
            "listen.admin",
            "gatway",
            "10.0.0.0/99",
            "shutdown.grace_s",
            "gateway.breaker.open_s",
        ] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
    }
    assert!(
        !folder.path().join("data").exists(),
        "nothing may be written"
    );
}

#[test]
fn the_default_file_is_good_and_complete() {
    let folder = tempfile::tempdir().unwrap();
    let output = command(folder.path(), &["config", "default"]);
    std::fs::write(folder.path().join("portico.toml"), &output.stdout).unwrap();
    let check = command(folder.path(), &["config", "check"]);
    assert!(
        check.status.success(),
        "{}",
        String::from_utf8_lossy(&check.stderr)
    );
    let schema = command(folder.path(), &["config", "schema"]);
    let schema: Value = serde_json::from_slice(&schema.stdout).unwrap();
    assert!(schema["properties"]["listen"].is_object());
}

#[test]
fn a_second_process_on_the_same_directory_is_refused_with_the_holder() {
    let house = House::start(&[]);
    let data = house.data_dir();
    let output = start(house.folder.path(), &["--data-dir", data.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains(&format!("pid {}", house.pid())), "{text}");
    assert!(
        text.contains("stop that process, or use --data-dir"),
        "{text}"
    );
}

/// A start that must fail: it listens nowhere that matters.
fn start(folder: &Path, more: &[&str]) -> Output {
    let quiet = [
        "--listen",
        "127.0.0.1:0",
        "--consul-listen",
        "off",
        "--admin-listen",
        "off",
        "--grpc-listen",
        "off",
        "--internal-listen",
        "off",
        "--no-demo",
    ];
    command(folder, &[&quiet[..], more].concat())
}

/// A folder in which this user may not write: by its mode, or for root, whom modes do not hold, because
/// its file system is mounted read-only.
fn read_only(folder: &Path) -> Option<Unmount> {
    let place = folder.join("closed");
    std::fs::create_dir(&place).unwrap();
    let me = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap());
    if me != 0 {
        std::fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o555))
            .unwrap();
        return Some(Unmount(place, false));
    }
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "ro,size=1m", "tmpfs"])
        .arg(&place)
        .output();
    if mounted.is_ok_and(|output| output.status.success()) {
        return Some(Unmount(place, true));
    }
    skip("a folder without the right to write, because this process may not mount one");
    None
}

struct Unmount(PathBuf, bool);

impl Drop for Unmount {
    fn drop(&mut self) {
        if self.1 {
            let _ = Command::new("umount").arg("-l").arg(&self.0).output();
        }
    }
}

#[test]
fn without_the_right_to_write_the_directory_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let Some(closed) = read_only(folder.path()) else {
        return;
    };
    let data = closed.0.join("data");
    let output = start(folder.path(), &["--data-dir", data.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains(data.to_str().unwrap())
            && text.contains("cannot write")
            && text.contains("--data-dir"),
        "{text}"
    );
}

#[tokio::test]
async fn a_directory_of_a_newer_version_is_left_alone() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    drop(House::at(folder.clone(), &[]));
    let file = folder.path().join("data/portico.db");
    let options = portico_db::DbOptions::new(format!("sqlite://{}", file.display()));
    let clock = Arc::new(portico_base::SystemClock);
    let db = portico_db::Db::connect(&options, clock).await.unwrap();
    // What the release after the next might bring: its schema wants its own version at least.
    let step = portico_db::Step::new("m0001_later", []).needs_binary("99.0.0");
    let later = portico_db::Migrations::new([step]);
    db.migrate(&[("later", later)]).await.unwrap_err();
    db.close().await;
    for words in [
        &["--data-dir", "data"][..],
        &["migrate", "--data-dir", "data"],
    ] {
        let output = if words[0] == "migrate" {
            command(folder.path(), words)
        } else {
            start(folder.path(), words)
        };
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(4), "{text}");
        assert!(
            text.contains("99.0.0") && text.contains("start that version again"),
            "{text}"
        );
    }
}

/// The ready line of a start; what else it writes is read and forgotten.
fn ready(child: &mut std::process::Child) -> Value {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let found = lines.by_ref().map_while(Result::ok).find_map(|line| {
        serde_json::from_str::<Value>(&line)
            .ok()
            .filter(|value| value["event"] == "ready")
    });
    std::thread::spawn(move || lines.map_while(Result::ok).count());
    found.unwrap_or(Value::Null)
}

#[tokio::test]
async fn a_reader_who_leaves_early_does_not_end_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(binary())
        .args([
            "--ready-json",
            "--no-demo",
            "--listen",
            "127.0.0.1:0",
            "--consul-listen",
            "off",
            "--admin-listen",
            "off",
            "--grpc-listen",
            "off",
            "--internal-listen",
            "off",
        ])
        .args(["--data-dir", "data"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    until("it is ready all the same", || async {
        command(folder.path(), &["health", "--data-dir", "data"])
            .status
            .success()
    })
    .await;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
}

/// What a start without a terminal writes until it is told to stop.
async fn said(more: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(binary())
        .args([
            "--no-demo",
            "--listen",
            "127.0.0.1:0",
            "--consul-listen",
            "off",
            "--admin-listen",
            "off",
            "--grpc-listen",
            "off",
            "--internal-listen",
            "off",
        ])
        .args(["--data-dir", "data"])
        .args(more)
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = crate::run_command::Lines::of(child.stdout.take().unwrap());
    until("it is ready", || async {
        command(folder.path(), &["health", "--data-dir", "data"])
            .status
            .success()
    })
    .await;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
    lines.text()
}

#[tokio::test]
async fn the_banner_is_short_plain_and_can_be_left_out() {
    let text = said(&[]).await;
    let banner: Vec<&str> = text.lines().filter(|line| !line.starts_with('{')).collect();
    assert!(banner.len() > 3 && banner.len() <= 12, "{text}");
    assert!(
        text.contains("is ready") && !text.contains('\x1b'),
        "{text}"
    );
    assert!(!said(&["--quiet"]).await.contains("is ready"));
    let json = said(&["--json"]).await;
    assert!(
        !json.contains("is ready") && json.contains("\"event\":\"ready\""),
        "{json}"
    );
}

#[test]
fn taken_ports_are_passed_over_only_when_nothing_was_chosen() {
    // Without an argument each listener takes the next free port, so two such starts get along.
    let house = |folder: &Path| {
        let mut child = Command::new(binary())
            .args(["--ready-json", "--no-demo"])
            .current_dir(folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let ready = ready(&mut child);
        (child, ready)
    };
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut first, a) = house(one.path());
    let (mut second, b) = house(two.path());
    for child in [&mut first, &mut second] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    for listener in ["http", "consul", "admin"] {
        assert!(
            a[listener].is_string() && b[listener].is_string(),
            "{a} {b}"
        );
        assert_ne!(a[listener], b[listener]);
    }
}

#[tokio::test]
async fn a_role_that_is_not_here_is_told() {
    let house = House::start(&["--roles", "gateway"]);
    let status = house_status(&house, &[]);
    assert!(
        status.contains("no process") && status.contains("its role is not in this process"),
        "{status}"
    );
    let json: Value = serde_json::from_str(&house_status(&house, &["--json"])).unwrap();
    let services = json["health"]["services"].as_array().unwrap();
    assert!(
        services.contains(&serde_json::json!({ "name": "registry", "process": false })),
        "{json}"
    );
    assert!(
        services.contains(&serde_json::json!({ "name": "gateway", "process": true })),
        "{json}"
    );
    let answer = house
        .operate(reqwest::Method::GET, "/api/registry/services", None)
        .await;
    assert_eq!(
        (answer.status, answer.json()["code"].as_str()),
        (503, Some("gateway.no_instance")),
        "{}",
        answer.text
    );
    assert!(answer.headers.contains_key("retry-after"));
    let health = command(house.folder.path(), &["health", "--data-dir", "data"]);
    assert!(health.status.success(), "{health:?}");

    let house = House::start(&["--roles", "registry"]);
    assert!(house.http.is_empty(), "no door without the gateway");
    let status = house_status(&house, &[]);
    assert!(
        status.contains("gateway") && status.contains("no process"),
        "{status}"
    );
    let health = command(house.folder.path(), &["health", "--data-dir", "data"]);
    assert!(health.status.success(), "{health:?}");
}

fn house_status(house: &House, more: &[&str]) -> String {
    let words = [&["status", "--data-dir", "data"][..], more].concat();
    let output = command(house.folder.path(), &words);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

#[test]
fn the_configuration_in_force_says_where_it_comes_from() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("portico.toml"),
        "[redis]\nurl = \"redis://:SECRET@127.0.0.1\"\n[node]\nzone = \"a\"\n",
    )
    .unwrap();
    let output = Command::new(binary())
        .args(["config", "show", "--origin", "--listen", "127.0.0.1:0"])
        .current_dir(folder.path())
        .env("PORTICO__NODE__REGION", "north")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    for part in [
        "portico.toml:4",
        "PORTICO__NODE__REGION",
        "--listen",
        "default",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("SECRET"), "{text}");
}

#[test]
fn a_browser_is_opened_only_when_asked_for() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let tools = folder.path().join("tools");
    std::fs::create_dir(&tools).unwrap();
    let fake = tools.join("xdg-open");
    std::fs::write(
        &fake,
        "#!/bin/sh\necho \"$1\" > \"$(dirname \"$0\")/opened\"\n",
    )
    .unwrap();
    std::fs::set_permissions(&fake, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let opened = |more: &[&str]| {
        let mut child = Command::new(binary())
            .args([
                "--ready-json",
                "--no-demo",
                "--listen",
                "127.0.0.1:0",
                "--consul-listen",
                "off",
                "--admin-listen",
                "off",
                "--grpc-listen",
                "off",
                "--internal-listen",
                "off",
            ])
            .args(more)
            .current_dir(folder.path())
            .env("PATH", &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let ready = ready(&mut child);
        // A clean stop comes after everything that a start does.
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap()),
            nix::sys::signal::Signal::SIGTERM,
        )
        .unwrap();
        assert!(child.wait().unwrap().success());
        ready["http"].as_str().unwrap().to_owned()
    };
    opened(&[]);
    assert!(!tools.join("opened").exists());
    let url = opened(&["--open"]);
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while std::fs::read_to_string(tools.join("opened"))
        .unwrap_or_default()
        .trim()
        != format!("{url}/docs")
    {
        assert!(std::time::Instant::now() < end, "no browser");
        std::thread::yield_now();
    }
}

#[test]
fn a_taken_port_is_one_clear_error() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let output = command(
        folder.path(),
        &[
            "--listen",
            &address,
            "--consul-listen",
            "off",
            "--admin-listen",
            "off",
            "--grpc-listen",
            "off",
            "--internal-listen",
            "off",
            "--no-demo",
        ],
    );
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("listen.http")
            && text.contains(&address)
            && text.contains("use --listen ADDR"),
        "{text}"
    );
}

#[tokio::test]
async fn status_shows_services_as_table_and_json() {
    let house = House::start(&[]);
    house.register("hello", 9, serde_json::json!({})).await;
    let data = house.data_dir();
    let arguments = ["status", "--data-dir", data.to_str().unwrap()];
    let table = command(house.folder.path(), &arguments);
    let text = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(
        text.contains("hello") && text.contains("127.0.0.1:9"),
        "{text}"
    );
    let json = command(house.folder.path(), &[&arguments[..], &["--json"]].concat());
    let list: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(
        list["instances"]
            .as_array()
            .unwrap()
            .iter()
            .any(|item| item["name"] == "hello"),
        "{list}"
    );
}

#[test]
fn without_a_credential_the_error_says_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let output = command(
        folder.path(),
        &[
            "run",
            "--name",
            "hello",
            "--url",
            "http://127.0.0.1:1",
            "--",
            "true",
        ],
    );
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("operator.token") && text.contains("readable by"),
        "{text}"
    );
}

#[test]
fn migrate_tells_and_does() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    let plan = command(folder.path(), &["migrate", "--data-dir", data, "plan"]);
    assert!(
        plan.status.success(),
        "{}",
        String::from_utf8_lossy(&plan.stderr)
    );
    assert!(
        String::from_utf8_lossy(&plan.stdout).contains("registry"),
        "{plan:?}"
    );
    let up = command(folder.path(), &["migrate", "--data-dir", data]);
    assert!(
        up.status.success(),
        "{}",
        String::from_utf8_lossy(&up.stderr)
    );
    let plan = command(folder.path(), &["migrate", "--data-dir", data, "plan"]);
    assert!(
        plan.stdout.is_empty(),
        "{}",
        String::from_utf8_lossy(&plan.stdout)
    );
}
