//! A person's data through the real binary: a copy that Python opens, and an erasure that leaves no name in any
//! table (ID-150…153).

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use nix::sys::signal::Signal;
use portico_objects::testing::{BUCKET, S3Server};
use reqwest::Method;
use serde_json::{Value, json};

use crate::house::{House, answer, client, command, until};

const PASSWORD: &str = "quartz lantern 88 ferry";
const NAME: &str = "annabella-q7";
const EMAIL: &str = "annabella.q7@example.com";
const PHONE: &str = "+8613812347788";

/// Says which files are in a zip file and what is in each, after a test of all checksums.
const OPEN: &str = "
import json, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as z:
    assert z.testzip() is None
    print(json.dumps({i.filename: z.read(i).decode() for i in z.infolist()}))
";

/// Says in which tables of a SQLite file one of some words stands, in any column.
const SEARCH: &str = "
import json, sqlite3, sys
db = sqlite3.connect(sys.argv[1])
words = [w.lower() for w in sys.argv[2:]]
found = {}
tables = [r[0] for r in db.execute(\"select name from sqlite_master where type = 'table'\")]
for table in tables:
    for row in db.execute(f'select * from \"{table}\"'):
        for value in row:
            text = value.decode('latin-1') if isinstance(value, bytes) else str(value)
            for word in words:
                if word in text.lower():
                    found.setdefault(table, []).append(text[:300])
print(json.dumps({'tables': len(tables), 'found': found}))
";

fn python(script: &str, arguments: &[&str]) -> Value {
    let run = Command::new("python3")
        .args(["-c", script])
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}");
    serde_json::from_slice(&run.stdout).unwrap()
}

fn search(house: &House) -> Value {
    let file = house.data_dir().join("portico.db");
    let digits = PHONE.trim_start_matches('+');
    python(SEARCH, &[file.to_str().unwrap(), NAME, EMAIL, digits])
}

/// Runs a command that does what it should.
fn done(house: &House, words: &[&str]) -> String {
    let data = house.data_dir();
    let more = ["--data-dir", data.to_str().unwrap()];
    let ran = command(house.folder.path(), &[words, &more].concat());
    let (out, err) = (
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr),
    );
    assert_eq!(ran.status.code(), Some(0), "{words:?}: {out}{err}");
    out.into_owned()
}

async fn ask(house: &House, token: &str, method: Method, path: &str) -> (u16, Value) {
    let request = client()
        .request(method, format!("{}{path}", house.http))
        .bearer_auth(token);
    let got = answer(request).await.unwrap();
    (got.status, got.json())
}

/// A person with a name, an address and a number, who is logged in: id and access token.
async fn person(house: &House) -> (String, String) {
    let words = ["admin", "create-user", NAME, "--email", EMAIL];
    let link = done(house, &words);
    let (_, token) = link.trim().rsplit_once('#').expect("a link");
    let post = async |path: &str, body: Value| {
        let url = format!("{}/api/identity{path}", house.http);
        answer(client().post(url).json(&body)).await.unwrap()
    };
    let wish = json!({ "token": token, "password": PASSWORD });
    let set = post("/password/reset/confirm", wish).await;
    assert_eq!(set.status, 204, "{}", set.text);
    let device = json!({ "platform": "cli", "name": format!("{NAME}'s laptop") });
    let wish = json!({ "identifier": NAME, "password": PASSWORD, "device": device });
    let result = post("/login/password", wish).await.json();
    let id = result["user"]["id"].as_str().unwrap().to_owned();
    let body = json!({ "phone": PHONE });
    let path = format!("/api/identity/users/{id}");
    let edited = house.operate(Method::PATCH, &path, Some(&body)).await;
    assert_eq!(edited.status, 200, "{}", edited.text);
    let token = result["tokens"]["access_token"].as_str().unwrap();
    (id, token.to_owned())
}

/// The person's own copy, in a file.
async fn own_copy(house: &House, token: &str, to: &Path) {
    let (status, asked) = ask(house, token, Method::POST, "/api/identity/me/export").await;
    assert_eq!(status, 202, "{asked}");
    let path = format!("/api/identity/exports/{}", asked["id"].as_str().unwrap());
    until("the copy is ready", || async {
        ask(house, token, Method::GET, &path).await.1["state"] == "ready"
    })
    .await;
    let url = format!("{}{path}/file", house.http);
    let response = client().get(&url).bearer_auth(token).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/zip");
    let bytes = response.bytes().await.unwrap();
    let told = ask(house, token, Method::GET, &path).await.1;
    assert_eq!(json!(bytes.len()), told["bytes"]);
    std::fs::write(to, bytes).unwrap();
    // The link alone is worth nothing.
    assert_eq!(house.get(&format!("{path}/file")).await.status, 401);
    let file = format!("{path}/file");
    let operator = house.operate(Method::GET, &file, None).await;
    assert_eq!(operator.status, 404, "{}", operator.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_opened_elsewhere_and_an_erasure_leaves_no_name() {
    let mut house = House::start(&[]);
    let (id, token) = person(&house).await;
    let zip = house.folder.path().join("own.zip");
    own_copy(&house, &token, &zip).await;
    let files = python(OPEN, &[zip.to_str().unwrap()]);
    let profile: Value =
        serde_json::from_str(files["identity/profile.json"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&profile["username"], &profile["email"], &profile["phone"]),
        (&json!(NAME), &json!(EMAIL), &json!(PHONE))
    );
    assert!(files["README.txt"].as_str().unwrap().contains("个人数据"));
    assert!(!files.to_string().contains("$argon2"));

    // The operator's copy, by the command; a file that is there is not written over.
    let words = ["user", "export", NAME, "--reason", "asked by letter"];
    let copy = house.folder.path().join("copy.zip");
    let more = ["--output", copy.to_str().unwrap()];
    done(&house, &[&words[..], &more].concat());
    let copied = python(OPEN, &[copy.to_str().unwrap()]);
    assert_eq!(
        copied["identity/devices.json"],
        files["identity/devices.json"]
    );
    let data = house.data_dir();
    let at = ["--data-dir", data.to_str().unwrap()];
    let again = command(house.folder.path(), &[&words[..], &more, &at].concat());
    assert_eq!(again.status.code(), Some(1));

    let before = search(&house);
    assert!(before["found"]["users"].is_array(), "{before}");
    assert!(before["found"]["devices"].is_array(), "{before}");
    done(
        &house,
        &["user", "erase", NAME, "--reason", "asked by letter"],
    );
    assert_eq!(
        ask(&house, &token, Method::GET, "/api/identity/me").await.0,
        401
    );
    let path = format!("/api/identity/users/{id}/erasure");
    until("everything is erased", || async {
        let told = house.operate(Method::GET, &path, None).await;
        assert_eq!(told.status, 200, "{}", told.text);
        told.json()["finished_at"].is_string()
    })
    .await;
    let report = house.operate(Method::GET, &path, None).await.json();
    let parts = report["parts"].as_array().unwrap();
    assert!(parts.iter().all(|part| part["state"] == "done"), "{report}");
    house.signal(Signal::SIGTERM);
    assert_eq!(house.wait(), 0);
    let after = search(&house);
    assert_eq!(after["found"], json!({}), "in {} tables", after["tables"]);
    let exports = house.data_dir().join("objects/identity/exports");
    let left = walk(&exports);
    assert_eq!(left, [""; 0], "no copy is left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_are_kept_in_a_bucket_where_one_is_configured() {
    let Some(server) = S3Server::start() else {
        return;
    };
    let port = server.port();
    let text = format!(
        "[objects]\nkind = \"s3\"\nendpoint = \"http://127.0.0.1:{port}\"\nbucket = {BUCKET:?}\n\
         prefix = \"house\"\naccess_key = \"AKIDTEST\"\nsecret_key_file = \"{{folder}}/secret\"\n"
    );
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let text = text.replace("{folder}", &folder.path().display().to_string());
    std::fs::write(folder.path().join("secret"), "s3cr3t-of-the-bucket\n").unwrap();
    std::fs::write(folder.path().join("portico.toml"), text).unwrap();
    let house = House::at(folder, &[]);
    let (_, token) = person(&house).await;
    let zip = house.folder.path().join("own.zip");
    own_copy(&house, &token, &zip).await;
    assert!(python(OPEN, &[zip.to_str().unwrap()])["README.txt"].is_string());
    let listed = server.ask("GET", &format!("/{BUCKET}?list-type=2"), "");
    assert!(listed.contains("<Key>house/identity/exports/"), "{listed}");
    assert!(!house.data_dir().join("objects").exists());
    assert!(!house.log().contains("s3cr3t-of-the-bucket"));
}

/// Files below a directory.
fn walk(path: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(path) else {
        return Vec::new();
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(walk(&path)),
            false => files.push(path.display().to_string()),
        }
    }
    files
}
