//! The command line as scripts see it: exit codes, texts, files.

use serde_json::Value;

use crate::house::{House, command};

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
    let output = command(
        house.folder.path(),
        &[
            "--data-dir",
            data.to_str().unwrap(),
            "--listen",
            "127.0.0.1:0",
            "--consul-listen",
            "off",
            "--admin-listen",
            "off",
        ],
    );
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains(&format!("pid {}", house.pid())), "{text}");
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
            "--no-demo",
        ],
    );
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("listen.http") && text.contains(&address),
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
        list.as_array()
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
