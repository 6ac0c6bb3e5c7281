//! Attacks on accounts, against the real binary: keys that tokens bring, replayed refreshes, who exists, guessing
//! from many addresses, sessions that somebody else began.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nix::sys::signal::Signal;
use portico_testkit::{SmtpServer, TestKeys};
use reqwest::Method;
use serde_json::{Value, json};

use crate::house::{Answer, House, answer, client};
use crate::raw::{RawServer, answer_always};

const PASSWORD: &str = "quartz lantern 88 ferry";
const WIDE: &str = r#"["100000/min"]"#;

/// A request with headers of its own.
async fn post(house: &House, path: &str, body: &Value, headers: &[(&str, &str)]) -> Answer {
    let mut request = client()
        .post(format!("{}/api/identity/{path}", house.http))
        .json(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    answer(request).await.unwrap()
}

async fn register(house: &House, name: &str, headers: &[(&str, &str)]) -> Value {
    let body = json!({
        "method": "username", "identifier": name, "password": PASSWORD,
        "device": { "platform": "cli" },
    });
    let made = post(house, "register", &body, headers).await;
    assert_eq!(made.status, 201, "{}", made.text);
    made.json()
}

fn login(name: &str, password: &str) -> Value {
    json!({ "identifier": name, "password": password, "device": { "platform": "cli" } })
}

async fn me(house: &House, token: &str) -> Answer {
    let request = client().get(format!("{}/api/identity/me", house.http));
    answer(request.bearer_auth(token)).await.unwrap()
}

async fn refresh(house: &House, token: &Value) -> Answer {
    post(
        house,
        "token/refresh",
        &json!({ "refresh_token": token }),
        &[],
    )
    .await
}

fn code(answer: &Answer) -> (u16, String) {
    let code = answer.json()["code"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    (answer.status, code)
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, format!("identity.{code}"))
}

/// RFC 8725 §3.10: what a header says about keys is neither fetched nor believed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_a_token_brings_is_neither_fetched_nor_believed() {
    let house = House::start(&[]);
    let made = register(&house, "dora", &[]).await;
    let good = made["tokens"]["access_token"].as_str().unwrap();
    let part = |n: usize| -> Value {
        let part = good.split('.').nth(n).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    };
    let kid = part(0)["kid"].as_str().unwrap().to_owned();
    let mut claims = part(1);
    for own_id in [kid.as_str(), "mine", "../../jwks.json"] {
        let keys = TestKeys::new(own_id);
        let document = keys.jwks().to_string();
        let server = RawServer::start(move |stream, _| answer_always(stream, &document));
        let address = format!("http://{}/jwks.json", server.address);
        claims["roles"] = json!(["user", "super_admin"]);
        for forged in [
            keys.sign(&claims),
            keys.sign_with_own_key(&claims, &address),
        ] {
            let answer = me(&house, &forged).await;
            assert_eq!(code(&answer), refused(401, "token_invalid"), "{own_id}");
        }
        assert_eq!(server.connections(), 0, "{own_id}: the address was fetched");
    }
    assert_eq!(me(&house, good).await.status, 200);
}

#[tokio::test]
async fn refresh_tokens_out_of_order_end_the_session_for_good() {
    let mut house = House::start(&[]);
    let mut sessions = Vec::new();
    for name in ["ann", "bob"] {
        let first = register(&house, name, &[]).await["tokens"].clone();
        let second = refresh(&house, &first["refresh_token"]).await;
        assert_eq!(second.status, 200, "{}", second.text);
        let third = refresh(&house, &second.json()["refresh_token"]).await;
        assert_eq!(third.status, 200, "{}", third.text);
        sessions.push([first, second.json(), third.json()]);
    }
    let token = |session: &[Value; 3], n: usize| session[n]["refresh_token"].clone();
    // Two behind: somebody kept a copy. The newest dies with it, and so do the access tokens.
    let [ann, bob] = [&sessions[0], &sessions[1]];
    let reused = refresh(&house, &token(ann, 0)).await;
    assert_eq!(reused.status, 401, "{}", reused.text);
    for n in [2, 1, 0] {
        let again = refresh(&house, &token(ann, n)).await;
        assert_eq!(again.status, 401, "{n}: {}", again.text);
        let access = ann[n]["access_token"].as_str().unwrap();
        assert_eq!(
            code(&me(&house, access).await),
            refused(401, "session_revoked")
        );
    }
    // A kill forgets neither what was used nor what was not.
    house.signal(Signal::SIGKILL);
    house.wait();
    let house = House::at(house.folder.clone(), &[]);
    assert_eq!(refresh(&house, &token(ann, 2)).await.status, 401);
    let next = refresh(&house, &token(bob, 2)).await;
    assert_eq!(next.status, 200, "{}", next.text);
    // The token of one session says nothing about another, whatever is put together.
    let (ann, bob) = (token(ann, 2), next.json()["refresh_token"].clone());
    let (ann, bob) = (ann.as_str().unwrap(), bob.as_str().unwrap());
    for at in [8, 20, 30, 40] {
        let mixed = format!("{}{}", &bob[..at], &ann[at..]);
        if mixed != bob {
            let answer = refresh(&house, &json!(mixed)).await;
            assert_eq!(
                code(&answer),
                refused(401, "refresh_invalid"),
                "{at}: {mixed}"
            );
        }
    }
    assert_eq!(refresh(&house, &json!(bob)).await.status, 200);
}

/// What a client sees of an answer: everything but what differs by its nature.
fn seen(answer: &Answer) -> (u16, BTreeMap<String, String>, Value) {
    let own = ["date", "x-request-id", "ratelimit", "x-ratelimit-remaining"];
    let headers = answer
        .headers
        .iter()
        .filter(|(name, _)| !own.contains(&name.as_str()))
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    let mut body = answer.json();
    for name in ["request_id", "transaction_id"] {
        if let Some(own) = body.get_mut(name) {
            *own = json!(own.as_str().map(str::len));
        }
    }
    (answer.status, headers, body)
}

/// Registers by an address.
fn wish(address: &str) -> Value {
    json!({ "method": "email", "identifier": address, "password": PASSWORD,
        "device": { "platform": "cli" } })
}

/// The same request about somebody who exists and about nobody.
fn pairs() -> [(&'static str, Value, Value); 9] {
    [
        (
            "login/password",
            login("known", "wrong"),
            login("unknown", "wrong"),
        ),
        (
            "login/password",
            login("known@example.com", "wrong"),
            login("unknown@example.com", "wrong"),
        ),
        (
            "login/password",
            login("13812345678", "wrong"),
            login("13887654321", "wrong"),
        ),
        (
            "password/reset",
            json!({ "identifier": "known@example.com" }),
            json!({ "identifier": "other@example.com" }),
        ),
        (
            "password/reset",
            json!({ "identifier": "known" }),
            json!({ "identifier": "nobody" }),
        ),
        (
            "register",
            wish("known@example.com"),
            wish("new@example.com"),
        ),
        (
            "login/sms/send",
            json!({ "phone": "+8613812345678" }),
            json!({ "phone": "+8613887654321" }),
        ),
        (
            "login/sms/send",
            json!({ "phone": "+8613812345678", "purpose": "reset" }),
            json!({ "phone": "+8613887654321", "purpose": "reset" }),
        ),
        (
            "login/password",
            json!({ "identifier": "known", "password": "wrong", "tenant": "default", "device": { "platform": "cli" } }),
            json!({ "identifier": "known", "password": "wrong", "tenant": "no-such", "device": { "platform": "cli" } }),
        ),
    ]
}

/// ID-33: status, headers and text are the same for who exists and who does not.
#[tokio::test]
async fn no_answer_tells_whether_an_account_exists() {
    let mail = SmtpServer::start().await;
    let house = House::configured(
        &format!(
            "[node]\ndev = true\n[settings]\n\"mail.smtp.host\" = \"127.0.0.1\"\n\"mail.smtp.port\" = {}\n\
             \"mail.smtp.tls\" = \"none\"\n\"mail.from\" = \"id@example.com\"\n\
             \"identity.limit.registration_per_address\" = {WIDE}\n\"identity.limit.reset_per_address\" = {WIDE}\n\
             \"identity.sms.limit.phone\" = {WIDE}\n\"identity.sms.limit.ip\" = {WIDE}\n\
             \"identity.sms.limit.device\" = {WIDE}\n",
            mail.port()
        ),
        &[],
    );
    register(&house, "known", &[]).await;
    let begun = post(&house, "register", &wish("known@example.com"), &[]).await;
    assert_eq!(begun.status, 202, "{}", begun.text);
    let mails = mail.wait_for(1).await;
    let text = mails[0].text();
    let token = text.split('#').nth(1).unwrap();
    let token = json!({ "token": token.split_whitespace().next().unwrap() });
    let verified = post(&house, "email/verify", &token, &[]).await;
    assert_eq!(verified.status, 204, "{}", verified.text);
    let phone = json!({ "username": "caller", "phone": "+8613812345678" });
    let made = house
        .operate(Method::POST, "/api/identity/users", Some(&phone))
        .await;
    assert_eq!(made.status, 201, "{}", made.text);

    for (path, known, unknown) in pairs() {
        let known = post(&house, path, &known, &[]).await;
        let other = post(&house, path, &unknown, &[]).await;
        assert_eq!(seen(&known), seen(&other), "{path} {unknown}");
        if let (Some(a), Some(b)) = (
            known.json()["transaction_id"].as_str(),
            other.json()["transaction_id"].as_str(),
        ) {
            let guess = |id: &str| json!({ "transaction_id": id, "code": "000001", "device": { "platform": "cli" } });
            let a = post(&house, "login/sms/verify", &guess(a), &[]).await;
            let b = post(&house, "login/sms/verify", &guess(b), &[]).await;
            assert_eq!(seen(&a), seen(&b), "a wrong code");
            assert_eq!(a.status, 401, "{}", a.text);
        }
    }
}

/// ID-160, ID-161: an account has its own budget, whoever spends it, and its owner another one.
#[tokio::test]
async fn many_addresses_guess_no_faster_than_one_and_lock_nobody_out() {
    let text = "[server]\ntrusted_proxies = [\"127.0.0.0/8\"]\n";
    let house = House::configured(text, &[]);
    let mine = [("x-forwarded-for", "192.0.2.1")];
    let made = register(&house, "anna", &mine).await["tokens"].clone();
    let mut told = BTreeMap::<u16, u32>::new();
    for n in 0..40 {
        let from = format!("198.51.{n}.7");
        let body = login("anna", &format!("guess {n}"));
        let guess = post(
            &house,
            "login/password",
            &body,
            &[("x-forwarded-for", &from)],
        )
        .await;
        *told.entry(guess.status).or_default() += 1;
    }
    assert_eq!(told, BTreeMap::from([(401, 5), (429, 35)]));
    // Not even the right one is told from the wrong ones now.
    let from = [("x-forwarded-for", "203.0.113.9")];
    let right = post(&house, "login/password", &login("anna", PASSWORD), &from).await;
    assert_eq!(code(&right), refused(429, "account_locked"));
    assert!(right.headers.contains_key("retry-after"));
    // The owner comes in on the own device, from any address.
    let own = json!({
        "identifier": "anna", "password": PASSWORD,
        "device": { "platform": "cli", "device_id": made["device_id"], "device_secret": made["device_secret"] },
    });
    let owner = post(&house, "login/password", &own, &from).await;
    assert_eq!(owner.status, 200, "{}", owner.text);

    // Without a trusted proxy the header is a claim: it is one address that guesses, at ten a minute.
    let house = House::start(&[]);
    let mut refused = 0;
    for n in 0..14 {
        let from = format!("198.51.{n}.7");
        let body = login(&format!("somebody-{n}"), "guess");
        let headers = [
            ("x-forwarded-for", from.as_str()),
            ("x-real-ip", &from),
            ("forwarded", "for=1.2.3.4"),
        ];
        let guess = post(&house, "login/password", &body, &headers).await;
        refused += u32::from(guess.status == 429);
    }
    assert_eq!(refused, 4);
}

/// Nothing that a stranger puts into a browser before the login is worth anything after it.
#[tokio::test]
async fn a_session_that_somebody_else_began_is_never_taken_over() {
    let house = House::start(&[]);
    let (mallory, anna) = (
        register(&house, "mallory", &[]).await,
        register(&house, "anna", &[]).await,
    );
    assert_ne!(mallory["user"]["id"], anna["user"]["id"]);
    let with_cookies = |name: &str| {
        json!({ "identifier": name, "password": PASSWORD, "transport": "cookie",
            "device": { "platform": "web" } })
    };
    let planted = post(&house, "login/password", &with_cookies("mallory"), &[]).await;
    let planted = cookies(&planted);
    let jar: Vec<String> = planted.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let jar = jar.join("; ");
    // The victim logs in with the stranger's cookies in the jar.
    let own = house.http.clone();
    let headers = [
        ("cookie", jar.as_str()),
        ("origin", own.as_str()),
        ("x-portico-csrf", "1"),
    ];
    let victim = post(&house, "login/password", &with_cookies("anna"), &headers).await;
    assert_eq!(victim.status, 200, "{}", victim.text);
    let new = cookies(&victim);
    for name in ["portico_at", "portico_rt", "portico_dv"] {
        assert_ne!(new[name], planted[name], "{name}");
    }
    let whose = async |jar: &BTreeMap<String, String>| {
        let request = client()
            .get(format!("{}/api/identity/me", house.http))
            .header("cookie", format!("portico_at={}", jar["portico_at"]));
        answer(request).await.unwrap().json()["username"].clone()
    };
    assert_eq!(whose(&planted).await, "mallory");
    assert_eq!(whose(&new).await, "anna");
    // The device that was planted is not one of the victim's: it does not get past a lock.
    for _ in 0..5 {
        let wrong = post(&house, "login/password", &login("anna", "wrong"), &[]).await;
        assert_eq!(wrong.status, 401, "{}", wrong.text);
    }
    let (id, secret) = planted["portico_dv"].rsplit_once('.').unwrap();
    let known = json!({ "identifier": "anna", "password": PASSWORD,
        "device": { "platform": "web", "device_id": id, "device_secret": secret } });
    let stranger = post(&house, "login/password", &known, &[]).await;
    assert_eq!(code(&stranger), refused(429, "account_locked"));

    // A page elsewhere cannot log a browser in at all, and nobody chooses their own session.
    let evil = [("origin", "https://evil.example")];
    let forced = post(&house, "login/password", &with_cookies("mallory"), &evil).await;
    assert!([400, 403].contains(&forced.status), "{}", forced.text);
    assert!(!forced.headers.contains_key("set-cookie"));
    for name in ["session_id", "sid", "session", "access_token", "ticket"] {
        let mut body = login("mallory", PASSWORD);
        body[name] = anna["tokens"]["session_id"].clone();
        let chosen = post(&house, "login/password", &body, &[]).await;
        assert_eq!(chosen.status, 400, "{name}: {}", chosen.text);
    }
}

fn cookies(answer: &Answer) -> BTreeMap<String, String> {
    let lines = answer.headers.get_all("set-cookie").iter();
    let pairs = lines.filter_map(|line| line.to_str().ok()?.split(';').next()?.split_once('='));
    let found: BTreeMap<_, _> = pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    assert_eq!(found.len(), 3, "{} {:?}", answer.text, answer.headers);
    found
}
