//! The commands that look at a running Portico and change it: what they do, what they say, how they exit.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::house::{House, binary, command, until};
use crate::raw::{RawServer, answer_always};

mod objects;
mod people;
mod traffic;

/// Runs a command against a house.
fn portico(house: &House, words: &[&str]) -> Output {
    let data = house.data_dir();
    let more = ["--data-dir", data.to_str().unwrap()];
    command(house.folder.path(), &[words, &more].concat())
}

/// The same with something on standard input.
fn portico_reads(house: &House, words: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(binary())
        .args(words)
        .arg("--data-dir")
        .arg(house.data_dir())
        .current_dir(house.folder.path())
        .env_remove("PORTICO_URL")
        .env_remove("PORTICO_TOKEN")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The text of a command that did what it should.
fn done(house: &House, words: &[&str]) -> String {
    let output = portico(house, words);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{words:?}: {}{}",
        out(&output),
        err(&output)
    );
    out(&output)
}

/// The JSON of a command that did what it should.
fn json_of(house: &House, words: &[&str]) -> Value {
    let text = done(house, &[words, &["--json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{words:?}: {e}: {text}"))
}

/// What a command that failed says.
fn failed(house: &House, code: i32, words: &[&str]) -> String {
    let output = portico(house, words);
    assert_eq!(
        output.status.code(),
        Some(code),
        "{words:?}: {}{}",
        out(&output),
        err(&output)
    );
    err(&output)
}

#[tokio::test]
async fn services_and_status_show_everything_that_is_there() {
    let house = House::start(&[]);
    house
        .register("hello", 9, json!({ "metadata": { "x": "y" } }))
        .await;
    let table = done(&house, &["services"]);
    for part in [
        "SERVICE", "hello", "1.0.0", "registry", "gateway", "1 ready",
    ] {
        assert!(table.contains(part), "{part}: {table}");
    }
    assert!(!table.contains('\x1b'), "no colours where nobody sees them");
    let list = json_of(&house, &["services"]);
    assert!(
        list.as_array()
            .unwrap()
            .iter()
            .any(|s| s["name"] == "hello"),
        "{list}"
    );

    let status = done(&house, &["status"]);
    assert!(status.starts_with("Portico "), "{status}");
    assert!(
        status.contains("127.0.0.1:9") && status.contains("in this process"),
        "{status}"
    );
    let status = json_of(&house, &["status"]);
    assert_eq!(status["health"]["status"], "ok", "{status}");
    assert!(
        status["instances"]
            .as_array()
            .unwrap()
            .iter()
            .any(|i| i["name"] == "hello")
    );
    assert!(
        status["services"]
            .as_array()
            .unwrap()
            .iter()
            .any(|i| i["name"] == "registry")
    );
    failed(&house, 2, &["services", "--bogus"]);
}

#[tokio::test]
async fn a_watch_tells_changes_until_it_is_interrupted() {
    let house = House::start(&[]);
    for json in [false, true] {
        let mut watch = Command::new(binary());
        watch
            .args(["services", "--watch", "--data-dir"])
            .arg(house.data_dir());
        if json {
            watch.arg("--json");
        }
        let mut watch = watch.stdout(Stdio::piped()).spawn().unwrap();
        let lines = crate::run_command::Lines::of(watch.stdout.take().unwrap());
        until("it has begun", || async {
            lines.text().contains("registry")
        })
        .await;
        let name = if json { "second" } else { "first" };
        house.register(name, 9, json!({})).await;
        until("the change is told", || async {
            lines.text().contains(&format!("{name} "))
                || lines.text().contains(&format!("\"{name}\""))
        })
        .await;
        let pid = nix::unistd::Pid::from_raw(i32::try_from(watch.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        assert_eq!(watch.wait().unwrap().code(), Some(0));
        if json {
            for line in lines.text().lines() {
                serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            }
        } else {
            assert!(
                lines.text().contains("first 1.0.0 127.0.0.1:9  registered"),
                "{}",
                lines.text()
            );
        }
    }
}

#[tokio::test]
async fn instances_are_drained_resumed_weighed_and_kept_out() {
    let upstream = RawServer::start(|stream, _| answer_always(stream, "hello"));
    let other = RawServer::start(|stream, _| answer_always(stream, "other"));
    let house = House::start(&[]);
    let id = house.register("hello", upstream.port(), json!({})).await;
    let address = format!("hello/127.0.0.1:{}", upstream.port());

    assert!(done(&house, &["instances", "list"]).contains(&id));
    let list = json_of(&house, &["instances", "list", "--service", "hello"]);
    assert_eq!(list[0]["id"], json!(id));
    assert_eq!(
        json_of(&house, &["instances", "list", "--service", "nobody"]),
        json!([])
    );

    let now = json_of(
        &house,
        &["instances", "maintenance", &address, "--reason", "new disk"],
    );
    assert_eq!(
        (&now["id"], &now["state"]),
        (&json!(id), &json!("maintenance"))
    );
    assert_eq!(house.get("/api/hello/").await.status, 503);
    let text = done(&house, &["instances", "resume", &id]);
    assert!(text.contains("ready"), "{text}");
    assert_eq!(house.get("/api/hello/").await.status, 200);
    done(&house, &["instances", "weight", "hello", "7"]);
    assert_eq!(json_of(&house, &["instances", "list"])[0]["weight"], 7);
    done(&house, &["instances", "weight", "hello", "registered"]);
    assert_eq!(json_of(&house, &["instances", "list"])[0]["weight"], 100);
    let history = json_of(&house, &["instances", "history", "hello"]);
    let reasons: Vec<&str> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["reason"].as_str().unwrap())
        .collect();
    assert!(reasons.contains(&"new disk"), "{history}");
    assert!(done(&house, &["instances", "history", "hello"]).contains("new disk"));

    house.register("hello", other.port(), json!({})).await;
    let several = failed(&house, 1, &["instances", "drain", "hello"]);
    assert!(
        several.contains("2 instances") && several.contains(&address),
        "{several}"
    );
    assert!(
        failed(&house, 1, &["instances", "drain", "hello/127.0.0.1:1"]).contains("no instance")
    );
    failed(&house, 2, &["instances", "weight", &address, "1001"]);
    failed(&house, 2, &["instances", "drain"]);
    done(&house, &["instances", "drain", &address]);
    until("only the other one answers", || async {
        house.get("/api/hello/").await.text == "other"
            && house.get("/api/hello/").await.text == "other"
    })
    .await;
}

#[test]
fn a_process_that_is_gone_is_named_in_one_sentence() {
    let mut house = House::start(&[]);
    house.signal(nix::sys::signal::Signal::SIGKILL);
    house.wait();
    let text = failed(&house, 1, &["services"]);
    assert!(
        text.contains("does not answer") && text.contains("start it with `portico`"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 1, "{text}");
    let text = failed(&house, 1, &["reload"]);
    assert!(text.contains("no Portico runs on"), "{text}");

    let empty = tempfile::tempdir().unwrap();
    let output = command(empty.path(), &["status"]);
    let text = err(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.contains("portico-data/ready.json") && text.contains("--data-dir"),
        "{text}"
    );
    let output = command(empty.path(), &["status", "--url", "localhost:8080"]);
    assert_eq!(output.status.code(), Some(2), "{}", err(&output));
    let output = command(empty.path(), &["status", "--url", "http://portico.example"]);
    assert!(
        err(&output).contains("not on this machine"),
        "{}",
        err(&output)
    );
}

#[tokio::test]
async fn a_wrong_credential_is_told_what_to_do() {
    let house = House::start(&[]);
    let text = failed(
        &house,
        1,
        &[
            "services",
            "--token",
            "pop_wrong0000000000000000000000000000000000000000",
        ],
    );
    assert!(
        text.contains("401") && text.contains("PORTICO_TOKEN"),
        "{text}"
    );
    let token = done(&house, &["plugin", "token", "--service", "hello"]);
    let text = failed(&house, 1, &["route", "list", "--token", token.trim()]);
    assert!(
        text.contains("403") && text.contains("may not do this"),
        "{text}"
    );
}

#[tokio::test]
async fn tokens_and_names_come_and_go() {
    let house = House::start(&[]);
    let made = json_of(
        &house,
        &[
            "plugin",
            "token",
            "--service",
            "hello",
            "--days",
            "3",
            "--scope",
            "registry:kv:read",
        ],
    );
    let (id, token) = (
        made["id"].as_str().unwrap(),
        made["token"].as_str().unwrap(),
    );
    assert!(token.starts_with("prt_"), "{made}");
    let listed = done(&house, &["plugin", "tokens"]);
    assert!(listed.contains(id) && !listed.contains(token), "{listed}");
    assert_eq!(
        json_of(&house, &["plugin", "tokens"])[0]["name_pattern"],
        "hello"
    );
    assert_eq!(
        json_of(&house, &["plugin", "revoke", id]),
        json!({ "id": id, "revoked": true })
    );
    assert!(failed(&house, 1, &["plugin", "revoke", id]).contains("404"));
    let wrong = failed(&house, 1, &["plugin", "token", "--service", "NOT A NAME"]);
    assert!(wrong.contains("name_pattern"), "{wrong}");
    failed(&house, 2, &["plugin", "token"]);

    assert_eq!(
        json_of(&house, &["registry", "reserve", "mine"]),
        json!({ "name": "mine", "reserved": true })
    );
    assert_eq!(
        done(&house, &["registry", "release", "mine"]),
        "released mine\n"
    );
    assert!(failed(&house, 1, &["registry", "release", "mine"]).contains("404"));
    failed(&house, 2, &["registry", "reserve"]);
}

#[tokio::test]
async fn keys_and_values_are_written_read_listed_watched_and_removed() {
    let house = House::start(&[]);
    done(&house, &["kv", "put", "app/colour", "blue", "--flags", "7"]);
    assert_eq!(done(&house, &["kv", "get", "app/colour"]), "blue");
    let entry = json_of(&house, &["kv", "get", "app/colour"]);
    assert_eq!(
        (&entry["value"], &entry["flags"]),
        (&json!("blue"), &json!(7))
    );
    let index = entry["modify_index"].to_string();
    done(
        &house,
        &["kv", "put", "app/colour", "green", "--cas", &index],
    );
    assert!(
        failed(
            &house,
            1,
            &["kv", "put", "app/colour", "red", "--cas", &index]
        )
        .contains("changed meanwhile")
    );
    assert_eq!(done(&house, &["kv", "get", "app/colour"]), "green");

    let bytes = [0_u8, 0xff, b'\n'];
    std::fs::write(house.folder.path().join("logo"), bytes).unwrap();
    done(&house, &["kv", "put", "app/logo/small", "@logo"]);
    assert_eq!(
        portico(&house, &["kv", "get", "app/logo/small"]).stdout,
        bytes
    );
    assert_eq!(
        json_of(&house, &["kv", "get", "app/logo/small"])["value_base64"],
        "AP8K"
    );
    let piped = portico_reads(&house, &["kv", "put", "app/a b/ü"], b"from a pipe");
    assert!(piped.status.success(), "{}", err(&piped));

    assert_eq!(
        done(&house, &["kv", "ls", "app/"]),
        "app/a b/\napp/colour\napp/logo/\n"
    );
    assert_eq!(
        json_of(&house, &["kv", "ls", "-r"]),
        json!(["app/a b/ü", "app/colour", "app/logo/small"])
    );
    assert_eq!(done(&house, &["kv", "ls", "nothing/"]), "");

    let mut watch = Command::new(binary())
        .args(["kv", "watch", "app/", "-r", "--data-dir"])
        .arg(house.data_dir())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = crate::run_command::Lines::of(watch.stdout.take().unwrap());
    until("it tells what is there", || async {
        lines.text().contains("app/colour = green")
    })
    .await;
    done(&house, &["kv", "put", "app/colour", "black"]);
    until("it tells a change", || async {
        lines.text().contains("app/colour = black")
    })
    .await;
    assert_eq!(
        json_of(&house, &["kv", "rm", "app/logo/small"]),
        json!({ "key": "app/logo/small", "removed": true })
    );
    until("it tells a removal", || async {
        lines.text().contains("app/logo/small is removed")
    })
    .await;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(watch.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(watch.wait().unwrap().code(), Some(0));

    done(&house, &["kv", "rm", "app/", "--recurse"]);
    assert!(failed(&house, 1, &["kv", "get", "app/colour"]).contains("there is no key"));
    failed(&house, 2, &["kv", "get", "a/../b"]);
    failed(&house, 2, &["kv", "put", "x", "@missing-file"]);
    failed(&house, 2, &["kv", "get"]);
    assert!(failed(&house, 1, &["kv", "put", "portico/settings/x", "1"]).contains("404"));
}

#[test]
fn health_and_completion() {
    let mut house = House::start(&[]);
    assert_eq!(done(&house, &["health"]), "ready\n");
    assert_eq!(
        json_of(&house, &["health", "--url", &house.http])["ready"],
        true
    );
    let nowhere = ["health", "--url", "http://127.0.0.1:1", "--json"];
    let output = portico(&house, &nowhere);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["ready"],
        false
    );
    failed(&house, 2, &["health", "--url", "nonsense"]);
    house.stop();
    assert!(failed(&house, 1, &["health"]).contains("no running Portico"));

    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = command(folder.path(), &["completion", shell]);
        let text = out(&script);
        for word in ["instances", "release", "breaker", "--dry-run"] {
            // fish names long flags without their dashes.
            assert!(
                text.contains(word.trim_start_matches("--")),
                "{shell}: {word}"
            );
        }
    }
    let script = command(folder.path(), &["completion", "bash"]).stdout;
    std::fs::write(folder.path().join("c.sh"), script).unwrap();
    let bash = "source ./c.sh; COMP_WORDS=(portico inst); COMP_CWORD=1; _portico portico inst portico; echo \"${COMPREPLY[@]}\"";
    let words = Command::new("bash")
        .args(["-c", bash])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(
        out(&words).contains("instances"),
        "{}{}",
        out(&words),
        err(&words)
    );
    assert_eq!(
        command(folder.path(), &["completion", "cmd"]).status.code(),
        Some(2)
    );
}

#[test]
fn a_reload_says_what_came_of_it() {
    let text = "[settings]\n\"gateway.breaker.open_s\" = 30\n";
    let house = House::configured(text, &[]);
    let file = house.folder.path().join("portico.toml");
    assert_eq!(json_of(&house, &["reload"])["needs_restart"], json!([]));
    std::fs::write(
        &file,
        "[settings]\n\"gateway.breaker.open_s\" = \"broken\"\n",
    )
    .unwrap();
    let said = failed(&house, 1, &["reload"]);
    assert!(
        said.contains("gateway.breaker.open_s") && said.contains("old values hold"),
        "{said}"
    );
    let output = portico(&house, &["reload", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["ok"],
        false
    );
    std::fs::write(&file, "[node]\nzone = \"b\"\n").unwrap();
    let said = done(&house, &["reload"]);
    assert!(
        said.contains("read again") && said.contains("node.zone"),
        "{said}"
    );
    let mode = std::os::unix::fs::MetadataExt::mode(
        &std::fs::metadata(house.data_dir().join("reload.json")).unwrap(),
    );
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn every_help_is_printed_with_exit_code_0() {
    let folder = tempfile::tempdir().unwrap();
    for words in [
        "",
        "serve",
        "run",
        "status",
        "services",
        "instances",
        "instances drain",
        "instances weight",
        "route",
        "route apply",
        "route explain",
        "release",
        "release set",
        "release rollback",
        "cache",
        "cache purge",
        "breaker",
        "breaker open",
        "kv",
        "kv put",
        "plugin",
        "plugin token",
        "registry",
        "health",
        "reload",
        "config",
        "config show",
        "migrate",
        "completion",
        "version",
    ] {
        let mut words: Vec<&str> = words.split_whitespace().collect();
        words.push("--help");
        let output = command(folder.path(), &words);
        assert_eq!(output.status.code(), Some(0), "{words:?}");
        assert!(
            out(&output).contains("Usage: portico"),
            "{words:?}: {}",
            out(&output)
        );
    }
    assert_eq!(command(folder.path(), &["nonsense"]).status.code(), Some(2));
    assert_eq!(
        command(Path::new("/"), &["instances"]).status.code(),
        Some(2)
    );
}
