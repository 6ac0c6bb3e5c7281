//! Secrets of everything that identity does, at the chattiest log level: none of them is in a log, an audit record,
//! a metric, a refusal or, readable, in the database (identity §11, §12.9).

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portico_testkit::{SmtpServer, totp};
use serde_json::{Value, json};

use crate::house::{Answer, House, answer, client};

const ROOT: &str = "violet anchor 41 parsnip";
const USER: &str = "copper window 73 lantern";
const NEW: &str = "marble kettle 58 orchard";
const WRONG: &str = "never-right-62-phrase";
const PHONE: &str = "+8613812345678";
const EMAIL: &str = "leaky.person@example.com";
const WIDE: &str = r#"["100000/min"]"#;
/// Harmless words that are told on purpose: whatever finds no secret must find them.
const CANARY: &str = "canary7f3a";

/// One house, what was said to it, and what must not come out of it.
struct Drive {
    house: House,
    mail: SmtpServer,
    /// What it is, and its text.
    secrets: Vec<(String, String)>,
    /// Bodies of refusals.
    problems: String,
}

impl Drive {
    async fn start() -> Self {
        let mail = SmtpServer::start().await;
        let text = format!(
            "[node]\ndev = true\n[telemetry.log]\nlevel = \"trace\"\nformat = \"json\"\n[settings]\n\
             \"gateway.access_log\" = \"all\"\n\"mail.smtp.host\" = \"127.0.0.1\"\n\"mail.smtp.port\" = {}\n\
             \"mail.smtp.tls\" = \"none\"\n\"mail.from\" = \"id@example.com\"\n\
             \"identity.limit.registration_per_address\" = {WIDE}\n\
             \"identity.limit.password_per_address\" = {WIDE}\n",
            mail.port()
        );
        Self {
            house: House::configured(&text, &[]),
            mail,
            secrets: Vec::new(),
            problems: String::new(),
        }
    }

    /// Remembers a secret; answers it.
    fn secret(&mut self, what: &str, value: &Value) -> String {
        let text = value
            .as_str()
            .unwrap_or_else(|| panic!("{what}: {value}"))
            .to_owned();
        assert!(text.len() >= 6, "{what}: {text:?} could be found by chance");
        self.secrets.push((what.to_owned(), text.clone()));
        text
    }

    fn tokens(&mut self, what: &str, tokens: &Value) -> (String, String) {
        if tokens["device_secret"].is_string() {
            self.secret(&format!("device secret {what}"), &tokens["device_secret"]);
        }
        let access = self.secret(&format!("access token {what}"), &tokens["access_token"]);
        let refresh = self.secret(&format!("refresh token {what}"), &tokens["refresh_token"]);
        (access, refresh)
    }

    async fn send(&mut self, request: reqwest::RequestBuilder) -> Answer {
        let answer = answer(request).await.unwrap();
        if answer.status >= 400 {
            self.problems.push_str(&answer.text);
            self.problems.push('\n');
        }
        answer
    }

    async fn post(&mut self, path: &str, token: Option<&str>, body: &Value) -> Answer {
        let request = client().post(format!("{}/api/identity/{path}", self.house.http));
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        self.send(request.json(body)).await
    }

    /// The same, and the answer has this status.
    async fn done(&mut self, status: u16, path: &str, token: Option<&str>, body: &Value) -> Value {
        let answer = self.post(path, token, body).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
        answer.json()
    }

    /// The token of the link in the mail that comes next.
    async fn link(&mut self, what: &str, count: usize) -> String {
        let mails = self.mail.wait_for(count).await;
        let text = mails[count - 1].text();
        let token = text.split('#').nth(1).unwrap().split_whitespace().next();
        self.secret(what, &json!(token.unwrap()))
    }
}

fn device() -> Value {
    json!({ "platform": "cli" })
}

/// The first administrator: link, password, second factor, recovery codes.
async fn administrator(drive: &mut Drive) -> String {
    let operator = drive.house.operator();
    drive.secret("operator's token", &json!(operator));
    let link = drive
        .done(201, "setup/link", Some(&operator), &Value::Null)
        .await;
    let token = link["url"].as_str().unwrap().rsplit('#').next().unwrap();
    let token = drive.secret("set-up link", &json!(token));
    let wish = json!({ "token": token, "username": "root", "password": ROOT, "device": device() });
    let begun = drive.done(201, "setup", None, &wish).await;
    let ticket = drive.secret("ticket to set a factor up", &begun["ticket"]);
    let wish = json!({ "ticket": ticket });
    let factor = drive.done(200, "login/mfa/totp", None, &wish).await;
    let secret = drive.secret("TOTP secret", &factor["secret"]);
    let code = drive.secret("TOTP code", &json!(totp(&secret, 0)));
    let wish = json!({ "ticket": ticket, "code": code });
    let result = drive.done(200, "login/mfa/totp/confirm", None, &wish).await;
    for code in result["recovery_codes"].as_array().unwrap() {
        drive.secret("recovery code", code);
    }
    drive.tokens("of the set-up", &result["tokens"]);

    // Again, with a recovery code as the second factor; a used one is refused.
    let wish =
        json!({ "identifier": "root", "tenant": "system", "password": ROOT, "device": device() });
    let used = &result["recovery_codes"][0];
    let begun = drive.done(200, "login/password", None, &wish).await;
    let ticket = drive.secret("ticket of a login", &begun["ticket"]);
    let wish = json!({ "ticket": ticket, "recovery_code": used });
    let result = drive.done(200, "login/mfa", None, &wish).await;
    assert_eq!(drive.post("login/mfa", None, &wish).await.status, 401);
    drive.tokens("of the administrator", &result["tokens"]).0
}

/// A user by name: wrong passwords, refreshes, an API key used in every way it can be sent.
async fn user(drive: &mut Drive) -> String {
    let wish = json!({ "method": "username", "identifier": "leaky", "password": USER, "device": device() });
    let made = drive.done(201, "register", None, &wish).await;
    let (_, refresh) = drive.tokens("of a user", &made["tokens"]);
    let login =
        |password: &str| json!({ "identifier": "leaky", "password": password, "device": device() });
    drive.done(401, "login/password", None, &login(WRONG)).await;
    let wish = json!({ "refresh_token": refresh });
    let next = drive.done(200, "token/refresh", None, &wish).await;
    let (access, refresh) = drive.tokens("of a refresh", &next);
    let broken = format!("{}x", &refresh[..refresh.len() - 1]);
    let wish = json!({ "refresh_token": broken });
    drive.done(401, "token/refresh", None, &wish).await;
    let forged = format!("{}AAAA", &access[..access.len() - 4]);
    drive.secret("forged access token", &json!(forged));
    drive.done(401, "logout", Some(&forged), &json!({})).await;

    let wish = json!({ "name": "k", "scopes": [] });
    let key = drive.done(201, "me/api-keys", Some(&access), &wish).await;
    let key = drive.secret("API key", &key["key"]);
    let me = format!("{}/api/identity/me", drive.house.http);
    for request in [
        client().get(&me).header("x-api-key", &key),
        client().get(format!("{me}?api_key={key}")),
        client().get(format!("{me}?access_token={access}")),
        client().get(&me).header("x-api-key", &access),
        client()
            .get(&me)
            .header("authorization", format!("Basic {}", STANDARD.encode(&key))),
        client()
            .get(&me)
            .header("cookie", format!("portico_at={access}; other={key}")),
        client().get(format!("{}/v1/kv/{CANARY}?token={key}", drive.house.consul)),
        client()
            .get(format!("{}/v1/agent/self", drive.house.consul))
            .header("x-consul-token", &key),
    ] {
        drive.send(request).await;
    }
    // Where people paste them by mistake.
    for place in [
        format!("/api/identity/users/{key}"),
        format!("/api/nobody/{access}"),
        format!("/{refresh}"),
    ] {
        let request = client().get(format!("{}{place}", drive.house.http));
        drive.send(request).await;
    }
    // In the browser's way.
    let wish = json!({ "identifier": "leaky", "password": USER, "transport": "cookie",
        "device": { "platform": "web" } });
    let browser = drive.post("login/password", None, &wish).await;
    for line in browser.headers.get_all("set-cookie") {
        let pair = line.to_str().unwrap().split(';').next().unwrap();
        let (name, value) = pair.split_once('=').unwrap();
        drive.secret(name, &json!(value));
    }
    access
}

/// Bodies that are wrong in their form, with secrets in the fields: the fault is told, not the value.
async fn nonsense(drive: &mut Drive) {
    for body in [
        json!({ "identifier": "leaky", "password": 731_998_244, "device": device() }),
        json!({ "identifier": "leaky", "password": [WRONG], "device": device() }),
        json!({ "identifier": "leaky", "password": { "text": WRONG }, "device": device() }),
        json!({ "ticket": 731_998_244, "code": 731_998_244 }),
    ] {
        for path in ["login/password", "login/mfa", "step-up"] {
            let answer = drive.post(path, None, &body).await;
            assert!([400, 401].contains(&answer.status), "{}", answer.text);
        }
    }
    drive.secret("a number as password", &json!("731998244"));
    drive.secret("a number as code", &json!("731_998_244"));
    let path = format!("{}/api/identity/login/password", drive.house.http);
    let cut = format!(r#"{{"identifier":"leaky","password":"{WRONG}"#);
    let request = client()
        .post(path)
        .header("content-type", "application/json");
    drive.send(request.body(cut)).await;
    let wish = json!({ CANARY: 1 });
    drive.done(400, "login/password", None, &wish).await;
}

/// A number: its code is in the log of a house for development, on purpose and once.
async fn number(drive: &mut Drive) -> String {
    let wish = json!({ "phone": PHONE });
    let sent = drive.done(202, "login/sms/send", None, &wish).await;
    let told = drive.house.log();
    let line = told.lines().find(|line| line.contains("DEVELOPMENT ONLY"));
    let line: Value = serde_json::from_str(line.expect("the code is told")).unwrap();
    let code = digits(&line).expect("six digits");
    let wish = |code: &str| json!({ "transaction_id": sent["transaction_id"], "code": code, "device": device() });
    let guess = if code == "000000" { "000001" } else { "000000" };
    drive
        .done(401, "login/sms/verify", None, &wish(guess))
        .await;
    let result = drive
        .done(200, "login/sms/verify", None, &wish(&code))
        .await;
    drive.tokens("by message", &result["tokens"]);
    code
}

fn digits(line: &Value) -> Option<String> {
    match line {
        Value::String(text) if text.len() == 6 && text.bytes().all(|b| b.is_ascii_digit()) => {
            Some(text.clone())
        }
        Value::Object(map) => map.values().find_map(digits),
        _ => None,
    }
}

/// An address: verification, reset, a new password; and an invitation.
async fn address(drive: &mut Drive, operator: &str) {
    let wish =
        json!({ "method": "email", "identifier": EMAIL, "password": USER, "device": device() });
    drive.done(202, "register", None, &wish).await;
    let token = drive.link("verification link", 1).await;
    drive
        .done(204, "email/verify", None, &json!({ "token": token }))
        .await;
    let wish = json!({ "identifier": EMAIL });
    drive.done(202, "password/reset", None, &wish).await;
    let token = drive.link("reset link", 2).await;
    let wish = json!({ "token": token, "password": NEW });
    drive.done(204, "password/reset/confirm", None, &wish).await;
    drive.done(401, "password/reset/confirm", None, &wish).await;
    let wish = json!({ "identifier": EMAIL, "password": NEW, "device": device() });
    let result = drive.done(200, "login/password", None, &wish).await;
    drive.tokens("after the reset", &result["tokens"]);

    let made = drive
        .done(201, "invitations", Some(operator), &json!({}))
        .await;
    let token = made["link"].as_str().unwrap().rsplit('#').next().unwrap();
    let token = drive.secret("invitation", &json!(token));
    let wish = json!({ "method": "username", "identifier": "invited", "password": USER,
        "invitation": token, "device": device() });
    let made = drive.done(201, "register", None, &wish).await;
    drive.tokens("of an invited user", &made["tokens"]);
    let path = format!(
        "users/{}/reset-password",
        made["user"]["id"].as_str().unwrap()
    );
    let handed = drive
        .done(200, &path, Some(operator), &json!({ "how": "temporary" }))
        .await;
    drive.secret("temporary password", &handed["password"]);
}

/// Everything that came out of the house, by where it came out.
fn collected(drive: &mut Drive, metrics: String) -> BTreeMap<&'static str, String> {
    let mut out = BTreeMap::new();
    let mut log = drive.house.last_words();
    for file in files(&drive.house.data_dir().join("logs")) {
        log.push_str(&String::from_utf8_lossy(&std::fs::read(file).unwrap()));
    }
    let (audit, log): (Vec<&str>, Vec<&str>) = log
        .lines()
        .partition(|line| line.contains(r#""target":"audit""#));
    // Where records are rows, they are looked at with the database.
    if !audit.is_empty() {
        out.insert("audit", audit.join("\n"));
    }
    out.insert("log", log.join("\n"));
    out.insert("metrics", metrics);
    out.insert("problems", drive.problems.clone());
    let mut database = String::new();
    for file in files(&drive.house.data_dir()) {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("portico.db") {
            database.push_str(&String::from_utf8_lossy(&std::fs::read(&file).unwrap()));
        }
    }
    out.insert("database", database);
    out
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let all = entries.map(|entry| entry.unwrap().path());
    all.filter(|path| path.is_file()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_comes_out_anywhere() {
    let mut drive = Drive::start().await;
    let root = administrator(&mut drive).await;
    let access = user(&mut drive).await;
    nonsense(&mut drive).await;
    let code = number(&mut drive).await;
    let operator = drive.house.operator();
    address(&mut drive, &operator).await;
    // Canaries: a role's name for the audit, an address for the log; a service's name is a label of metrics.
    let role = json!({ "name": CANARY, "title_en": "C", "title_zh": "C", "permissions": [] });
    drive.done(201, "roles", Some(&operator), &role).await;
    drive.house.get(&format!("/{CANARY}")).await;
    drive.house.register(CANARY, 9, json!({})).await;
    drive.house.get(&format!("/api/{CANARY}/x")).await;

    let wish = json!({ "emergency": true, "reason": "drill" });
    drive.done(200, "keys/rotate", Some(&root), &wish).await;
    drive.done(401, "logout", Some(&access), &json!({})).await;
    let metrics = answer(client().get(format!("{}/metrics", drive.house.admin)))
        .await
        .unwrap()
        .text;
    assert_eq!(drive.house.stop(), 0);

    let master = std::fs::read_to_string(drive.house.data_dir().join("master.key")).unwrap();
    drive.secret("master key", &json!(master.trim()));
    for (what, text) in [
        ("a password", ROOT),
        ("a password", USER),
        ("a password", NEW),
        ("a wrong password", WRONG),
    ] {
        drive.secret(what, &json!(text));
    }
    let out = collected(&mut drive, metrics);
    judge(&drive, &code, &out);
}

fn judge(drive: &Drive, code: &str, out: &BTreeMap<&'static str, String>) {
    // The search works where it looks, and there was something to look at.
    for (place, all) in out {
        assert!(all.contains(CANARY), "no canary in {place}");
    }
    for part in [
        r#""level":"trace""#,
        "/api/identity/login/password",
        "/api/identity/me/api-keys",
    ] {
        assert!(out["log"].contains(part), "no {part} in the log");
    }
    // What a house for development says on purpose is found by the same search.
    let (told, log): (Vec<&str>, Vec<&str>) = out["log"]
        .lines()
        .partition(|line| line.contains("DEVELOPMENT ONLY"));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains(code), "{told:?}");

    let log = log.join("\n");
    let mut found = Vec::new();
    let mut look = |what: &str, text: &str, places: &[(&str, &str)]| {
        for (place, all) in places {
            if let Some(at) = all.find(text) {
                let begin = all[..at].rfind('\n').map_or(0, |n| n + 1);
                let line: String = all[begin..].lines().next().unwrap_or_default().into();
                let line = if *place == "database" { "" } else { &line };
                found.push(format!("{what} in {place}: {line:.600}"));
            }
        }
    };
    let told = [
        ("log", log.as_str()),
        ("audit", out.get("audit").map_or("", String::as_str)),
        ("metrics", &out["metrics"]),
        ("problems", &out["problems"]),
    ];
    let kept = [("database", out["database"].as_str())];
    for (what, text) in &drive.secrets {
        look(what, text, &told);
        // In base64, as some transports write it.
        look(what, &STANDARD.encode(text), &told);
        // The signature alone, the secret part alone: what is left when a prefix was masked.
        let tail: String = text.chars().skip(text.chars().count() / 2).collect();
        if tail.len() >= 16 {
            look(&format!("half of {what}"), &tail, &told);
        }
        if !what.contains("forged") && what != "TOTP code" && !what.contains("as code") {
            look(what, text, &kept);
        }
    }
    for (what, text) in [
        ("number", PHONE),
        ("national number", &PHONE[3..]),
        ("address", EMAIL),
    ] {
        look(what, text, &told);
    }
    look("code of the message", &format!("\"{code}\""), &told);
    assert!(
        found.is_empty(),
        "{} leaks:\n{}",
        found.len(),
        found.join("\n")
    );
}
