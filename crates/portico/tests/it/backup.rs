//! Backups of the real binary: made beside it and by it, killed, restored where nobody lives and in place.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::house::{Answer, House, answer, binary, client, command, until};

const PASSWORD: &str = "a long enough phrase, 7 words";
const BACKUPS: &str = "/api/control/backups";

/// A new user's access and refresh token.
async fn register(house: &House, name: &str) -> (String, String) {
    let body = json!({
        "method": "username", "identifier": name, "password": PASSWORD,
        "device": { "platform": "cli" },
    });
    let url = format!("{}/api/identity/register", house.http);
    let made = answer(client().post(url).json(&body)).await.unwrap();
    assert_eq!(made.status, 201, "{}", made.text);
    tokens(&made)
}

fn tokens(answer: &Answer) -> (String, String) {
    let tokens = &answer.json()["tokens"];
    let text = |name: &str| tokens[name].as_str().unwrap_or_default().to_owned();
    (text("access_token"), text("refresh_token"))
}

async fn login(url: &str, name: &str) -> Answer {
    let body = json!({
        "identifier": name, "password": PASSWORD, "device": { "platform": "cli" },
    });
    let url = format!("{url}/api/identity/login/password");
    answer(client().post(url).json(&body)).await.unwrap()
}

async fn me(url: &str, token: &str) -> u16 {
    let request = client().get(format!("{url}/api/identity/me"));
    answer(request.bearer_auth(token)).await.unwrap().status
}

async fn refresh(url: &str, token: &str) -> u16 {
    let url = format!("{url}/api/identity/token/refresh");
    let request = client().post(url).json(&json!({ "refresh_token": token }));
    answer(request).await.unwrap().status
}

async fn put_key(house: &House, key: &str, value: Vec<u8>) {
    let url = format!("{}/v1/kv/{key}", house.consul);
    let put = answer(client().put(url).body(value)).await.unwrap();
    assert_eq!(put.text.trim(), "true");
}

/// Runs a command about a data directory; its answer as JSON.
fn told(folder: &Path, arguments: &[&str]) -> (i32, Value) {
    let out = command(folder, &[arguments, &["--json"]].concat());
    let code = out.status.code().unwrap_or(-1);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let value = serde_json::from_str(&text);
    let error = String::from_utf8_lossy(&out.stderr).into_owned();
    (
        code,
        value.unwrap_or_else(|_| json!({ "stdout": text, "stderr": error })),
    )
}

fn words(report: &Value) -> String {
    let all = report["findings"].as_array().cloned().unwrap_or_default();
    let one = |f: &Value| format!("{}: {}", f["service"], f["what"]);
    all.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test]
async fn a_restore_lets_people_in_and_keeps_old_tokens_out() {
    let mut house = House::start(&[]);
    let (access, old_refresh) = register(&house, "ada").await;
    put_key(&house, "city", b"Berlin".to_vec()).await;
    let (folder, data) = (house.folder.path().to_owned(), house.data_dir());
    let data = shown(&data);

    // The running process makes one, verifies it and says so.
    let (code, made) = told(&folder, &["backup", "--data-dir", data]);
    assert_eq!((code, &made["state"]), (0, &json!("done")), "{made}");
    let id = made["id"].as_str().unwrap();
    let (_, all) = told(&folder, &["backup", "list", "--data-dir", data]);
    assert_eq!(all[0]["verified_at"], Value::Null);
    let (code, verified) = told(&folder, &["backup", "verify", id, "--data-dir", data]);
    assert_eq!(code, 0, "{verified}");
    let found = words(&verified["report"]);
    for part in [
        "\"audit\": \"the chain is whole",
        "2 signing keys can be opened",
    ] {
        assert!(found.contains(part), "{found}");
    }
    let (_, all) = told(&folder, &["backup", "list", "--data-dir", data]);
    assert!(all[0]["verified_at"].is_string(), "{all}");
    assert!(
        house
            .metric("portico_backup_last_success_timestamp_seconds")
            .await
            > 1e9
    );
    assert!(
        house
            .metric("portico_backup_verified_timestamp_seconds")
            .await
            > 1e9
    );
    assert!(house.metric("portico_backup_bytes").await > 1e3);

    // Another one beside it, and one more user that it does not hold.
    let file = folder.join("one.pbk");
    let arguments = ["backup", "now", "--to", shown(&file), "--data-dir", data];
    let (code, beside) = told(&folder, &arguments);
    assert_eq!(code, 0, "{beside}");
    register(&house, "bob").await;
    assert_eq!(me(&house.http, &access).await, 200);
    assert_eq!(house.stop(), 0);

    // The same without a process: made, listed and verified by the command itself.
    let (code, alone) = told(&folder, &["backup", "--data-dir", data]);
    assert_eq!(code, 0, "{alone}");
    let (_, all) = told(&folder, &["backup", "list", "--data-dir", data]);
    assert_eq!(all.as_array().map(Vec::len), Some(2), "{all}");
    let (code, verified) = told(
        &folder,
        &["backup", "verify", shown(&file), "--data-dir", data],
    );
    assert_eq!(code, 0, "{verified}");

    for keep in [false, true] {
        let other = Arc::new(tempfile::tempdir().unwrap());
        let into = other.path().join("data");
        let key = Path::new(data).join("master.key");
        let mut arguments = vec!["restore", shown(&file), "--into", shown(&into)];
        let (code, refused) = told(&folder, &arguments);
        assert_eq!(code, 6, "without the key: {refused}");
        arguments.extend(["--master-key", shown(&key)]);
        if keep {
            arguments.push("--keep-sessions");
        }
        let (code, report) = told(&folder, &arguments);
        assert_eq!(code, 0, "{report}");
        let found = words(&report);
        for part in [
            "every access token of before is dead",
            "the chain is whole",
            "the Consul index jumped to",
            "leases ended",
            "lost their worker",
        ] {
            assert!(found.contains(part), "{part}: {found}");
        }
        let (code, again) = told(&folder, &arguments);
        assert_eq!(code, 1, "somebody lives there: {again}");
        lives_on(other, &access, &old_refresh, keep).await;
    }
}

/// The restored house: the password and the key are there, the tokens are dead, the index never falls.
async fn lives_on(folder: Arc<TempDir>, access: &str, old_refresh: &str, keep: bool) {
    let restored = House::at(folder, &[]);
    let url = &restored.http;
    assert_eq!(me(url, access).await, 401, "an old token is good");
    let again = refresh(url, old_refresh).await;
    assert_eq!(again, if keep { 200 } else { 401 }, "keep {keep}");
    let entered = login(url, "ada").await;
    assert_eq!(entered.status, 200, "{}", entered.text);
    assert_eq!(me(url, &tokens(&entered).0).await, 200);
    assert_eq!(login(url, "bob").await.status, 401);
    let key = client().get(format!("{}/v1/kv/city?raw", restored.consul));
    let key = answer(key).await.unwrap();
    assert_eq!(key.text, "Berlin");
    put_key(&restored, "city", b"Paris".to_vec()).await;
    let list = client().get(format!("{}/v1/kv/city", restored.consul));
    let list = answer(list).await.unwrap();
    let index: u64 = list.headers["x-consul-index"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(index > 1_000_000, "{index}");
}

/// What the process says of itself at the moment: it may have started anew.
fn ready(data: &Path) -> Option<String> {
    let text = std::fs::read_to_string(data.join("ready.json")).ok()?;
    let ready: Value = serde_json::from_str(&text).ok()?;
    ready["http"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn a_running_process_restores_itself_when_it_is_meant() {
    let house = House::start(&[]);
    let (access, _) = register(&house, "ada").await;
    let made = house.operate(Method::POST, BACKUPS, Some(&json!({}))).await;
    assert_eq!(made.status, 200, "{}", made.text);
    let path = format!("{BACKUPS}/{}", made.json()["id"].as_str().unwrap());
    until("the backup is made", async || {
        house.operate(Method::GET, &path, None).await.json()["state"] == "done"
    })
    .await;
    register(&house, "bob").await;

    let order = format!("{path}/restore");
    let wrong = json!({ "confirm": "yes" });
    let refused = house.operate(Method::POST, &order, Some(&wrong)).await;
    assert_eq!(refused.status, 400, "{}", refused.text);
    let confirm = json!({ "confirm": made.json()["location"] });
    let asked = house.operate(Method::POST, &order, Some(&confirm)).await;
    assert_eq!(asked.status, 200, "{}", asked.text);

    let (data, before) = (house.data_dir(), house.http.clone());
    until("the process starts anew", async || {
        ready(&data).is_some_and(|url| url != before)
    })
    .await;
    let url = ready(&data).unwrap();
    let operate = async |path: &str| {
        let request = client().get(format!("{url}{path}"));
        let asked = answer(request.bearer_auth(house.operator())).await;
        asked.unwrap().json()
    };
    until("the restore is noted", async || {
        operate(&path).await["restored_at"].is_string()
    })
    .await;
    let noted = operate(&path).await;
    assert_eq!(
        (&noted["state"], &noted["report"]["good"]),
        (&json!("done"), &json!(true)),
        "{noted}"
    );
    assert_eq!(me(&url, &access).await, 401);
    assert_eq!(login(&url, "ada").await.status, 200);
    assert_eq!(login(&url, "bob").await.status, 401);
    let all = operate(BACKUPS).await;
    let items = all["items"].as_array().unwrap();
    let safety = items
        .iter()
        .find(|b| b["location"] == noted["report"]["safety"]);
    assert_eq!(safety.map(|b| &b["state"]), Some(&json!("done")), "{all}");
    let old = PathBuf::from(noted["report"]["replaced"].as_str().unwrap());
    assert!(old.exists(), "the database of before is kept");
    let records = operate("/api/audit/records?action=control.backup.restored").await;
    assert_eq!(
        records["items"].as_array().map(Vec::len),
        Some(1),
        "{records}"
    );
}

fn start(arguments: &[&str], folder: &Path) -> std::process::Child {
    Command::new(binary())
        .args(arguments)
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn a_killed_backup_leaves_no_half_file() {
    let house = House::start(&[]);
    for number in 0..40_u8 {
        put_key(&house, &format!("k{number}"), noise(number, 100_000)).await;
    }
    let data = house.data_dir();
    let folder = house.folder.path();
    let (mut whole, mut none) = (0, 0);
    for number in 0..16_u64 {
        let file = folder.join(format!("{number}.pbk"));
        let arguments = [
            "backup",
            "now",
            "--to",
            shown(&file),
            "--data-dir",
            shown(&data),
        ];
        let mut child = start(&arguments, folder);
        tokio::time::sleep(Duration::from_millis(20 * number)).await;
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let _ = kill(pid, Signal::SIGKILL);
        child.wait().unwrap();
        if file.exists() {
            whole += 1;
            let (code, verified) = told(
                folder,
                &["backup", "verify", shown(&file), "--data-dir", shown(&data)],
            );
            assert_eq!(code, 0, "{verified}");
        } else {
            none += 1;
        }
    }
    assert!(none > 0, "{whole} whole, {none} none");
    let file = folder.join("last.pbk");
    let arguments = [
        "backup",
        "now",
        "--to",
        shown(&file),
        "--data-dir",
        shown(&data),
    ];
    let (code, made) = told(folder, &arguments);
    assert_eq!(code, 0, "{made}");
}

/// Bytes that do not compress.
fn noise(seed: u8, len: usize) -> Vec<u8> {
    use portico_base::Random as _;
    let mut bytes = vec![0; len];
    portico_base::SeededRandom::new(u64::from(seed)).fill(&mut bytes);
    bytes
}

#[tokio::test]
async fn a_full_disk_is_said_and_nothing_is_left() {
    let mut house = House::start(&[]);
    put_key(&house, "big", noise(1, 300_000)).await;
    // Its log is empty after a stop: what the limit meets is the backup alone.
    assert_eq!(house.stop(), 0);
    let (folder, data) = (house.folder.path(), house.data_dir());
    let target = folder.join("target");
    std::fs::create_dir(&target).unwrap();
    let file = target.join("one.pbk");
    // A limit on the size of files looks like a full disk to whoever writes one.
    let script = "trap '' XFSZ; ulimit -f 200; exec \"$@\"";
    let out: Output = Command::new("sh")
        .args(["-c", script, "sh", binary(), "backup", "now", "--to"])
        .arg(&file)
        .arg("--data-dir")
        .arg(&data)
        .current_dir(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("the disk is full"), "{said}");
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 0);
    let (code, made) = told(
        folder,
        &[
            "backup",
            "now",
            "--to",
            shown(&file),
            "--data-dir",
            shown(&data),
        ],
    );
    assert_eq!(code, 0, "{made}");
}

#[tokio::test]
async fn a_copy_of_the_master_key_opens_with_its_passphrase() {
    let mut house = House::start(&[]);
    house.stop();
    let (folder, data) = (house.folder.path(), house.data_dir());
    let phrase = folder.join("phrase");
    std::fs::write(&phrase, "correct horse battery staple\n").unwrap();
    let (copy, key) = (folder.join("key.copy"), folder.join("again.key"));
    let with = ["--passphrase-file", shown(&phrase)];
    let export = [
        "secrets",
        "export",
        shown(&copy),
        "--data-dir",
        shown(&data),
    ];
    let out = command(folder, &[&export[..], &with[..]].concat());
    assert!(out.status.success(), "{out:?}");
    let master = std::fs::read_to_string(data.join("master.key")).unwrap();
    let text = std::fs::read_to_string(&copy).unwrap();
    assert!(!text.contains(master.trim()));
    let import = ["secrets", "import", shown(&copy), "--to", shown(&key)];
    std::fs::write(folder.join("wrong"), "correct horse battery stable\n").unwrap();
    let wrong = ["--passphrase-file", "wrong"];
    let out = command(folder, &[&import[..], &wrong[..]].concat());
    assert_eq!(out.status.code(), Some(6), "{out:?}");
    let out = command(folder, &[&import[..], &with[..]].concat());
    assert!(out.status.success(), "{out:?}");
    let again = std::fs::read_to_string(&key).unwrap();
    assert_eq!(again.trim(), master.trim());
}
