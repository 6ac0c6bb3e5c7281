//! A strict stand-in for Apple: keys, tokens and revocation on a port of this machine. It signs as Apple does (RS256), and
//! checks client secrets (ES256) by a library that is not ours.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256,
};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use portico_base::{Clock as _, ManualClock};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::apple::Endpoints;

pub(super) const TEAM: &str = "TEAM123456";
pub(super) const KEY_ID: &str = "KEYABC1234";
/// An app of ours.
pub(super) const BUNDLE: &str = "com.example.app";
/// Our pages.
pub(super) const SERVICES: &str = "com.example.web";
/// Key of Apple's that signs at first.
pub(super) const KID: &str = "apple-key-1";

/// What the stand-in does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behaviour {
    Well,
    /// Another status and no JSON.
    Broken,
    /// More than anybody should read.
    Huge,
    /// Waits until it is let go on.
    Hang,
}

/// A code that was given out.
#[derive(Debug, Clone)]
struct Code {
    client_id: String,
    redirect_uri: Option<String>,
    subject: String,
}

pub(super) struct Shared {
    clock: ManualClock,
    keys: Mutex<Vec<(String, Arc<KeyPair>)>>,
    team_key: EcdsaKeyPair,
    codes: Mutex<HashMap<String, Code>>,
    /// Refresh tokens and the client ids that got them.
    tokens: Mutex<HashMap<String, String>>,
    revoked: Mutex<Vec<String>>,
    refused: Mutex<Vec<String>>,
    behaviour: Mutex<Behaviour>,
    go_on: Notify,
    arrived: Notify,
    pub keys_asked: AtomicUsize,
    pub tokens_asked: AtomicUsize,
    pub revocations_asked: AtomicUsize,
}

/// Apple on this machine, until it is dropped.
pub(super) struct Standin {
    pub shared: Arc<Shared>,
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Standin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Standin {
    pub(super) async fn start(clock: &ManualClock) -> Self {
        let shared = Arc::new(Shared {
            clock: clock.clone(),
            keys: Mutex::new(vec![(KID.to_owned(), rsa(0))]),
            team_key: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            codes: Mutex::default(),
            tokens: Mutex::default(),
            revoked: Mutex::default(),
            refused: Mutex::default(),
            behaviour: Mutex::new(Behaviour::Well),
            go_on: Notify::new(),
            arrived: Notify::new(),
            keys_asked: AtomicUsize::new(0),
            tokens_asked: AtomicUsize::new(0),
            revocations_asked: AtomicUsize::new(0),
        });
        let router = Router::new()
            .route("/auth/keys", get(keys))
            .route("/auth/token", post(token))
            .route("/auth/revoke", post(revoke))
            .with_state(Arc::clone(&shared));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            shared,
            address,
            task,
        }
    }

    pub(super) fn endpoints(&self) -> Endpoints {
        Endpoints::standin(&format!("http://{}", self.address))
    }

    /// The team's key as Apple hands it out: PKCS#8 with the curve named inside and the public key beside it.
    pub(super) fn private_key(&self) -> String {
        let pair = &self.shared.team_key;
        let private = aws_lc_rs::encoding::AsBigEndian::<
            aws_lc_rs::encoding::EcPrivateKeyBin<'static>,
        >::as_be_bytes(&pair.private_key())
        .unwrap();
        let public = pair.public_key().as_ref();
        let ec = der(
            0x30,
            &[
                der(0x02, &[vec![1]]),
                der(0x04, &[private.as_ref().to_vec()]),
                der(0xa0, &[P256.to_vec()]),
                der(0xa1, &[der(0x03, &[vec![0], public.to_vec()])]),
            ],
        );
        let algorithm = der(0x30, &[EC.to_vec(), P256.to_vec()]);
        let whole = der(0x30, &[der(0x02, &[vec![0]]), algorithm, der(0x04, &[ec])]);
        let text = STANDARD.encode(whole);
        assert!(
            text.starts_with("MIGT"),
            "as the files of Apple begin: {}",
            &text[..8]
        );
        let lines: Vec<&str> = text
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).unwrap())
            .collect();
        let body = lines.join("\n");
        format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")
    }

    pub(super) fn behave(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock() = behaviour;
        self.shared.go_on.notify_waiters();
    }

    /// Waits until a request hangs.
    pub(super) async fn hanging(&self) {
        self.shared.arrived.notified().await;
    }

    /// Signs with another key from now on; the one before is not published any more.
    pub(super) fn rotate(&self, kid: &str) {
        let mut keys = self.shared.keys.lock();
        let other = usize::from(Arc::ptr_eq(&keys[0].1, &rsa(0)));
        *keys = vec![(kid.to_owned(), rsa(other))];
    }

    /// Claims of a statement about somebody, good for ten minutes.
    pub(super) fn claims(&self, client_id: &str, subject: &str, nonce: &str) -> Value {
        let now_s = self.shared.clock.now().timestamp();
        json!({
            "iss": "https://appleid.apple.com", "aud": client_id, "sub": subject,
            "iat": now_s, "exp": now_s + 600, "auth_time": now_s,
            "nonce": nonce, "nonce_supported": true, "c_hash": "x",
        })
    }

    /// Signs as Apple does.
    pub(super) fn sign(&self, claims: &Value) -> String {
        let kid = self.shared.keys.lock()[0].0.clone();
        self.sign_with(&json!({ "kid": kid, "alg": "RS256" }), claims)
    }

    /// The same with any header.
    pub(super) fn sign_with(&self, header: &Value, claims: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(header), encode(claims));
        let key = Arc::clone(&self.shared.keys.lock()[0].1);
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(rs256(&key, &signed)))
    }

    /// The public key that signs now, as SubjectPublicKeyInfo.
    pub(super) fn public_der(&self) -> Vec<u8> {
        let keys = self.shared.keys.lock();
        keys[0].1.public_key().as_der().unwrap().as_ref().to_vec()
    }

    /// A code as Apple gives it with a statement.
    pub(super) fn code(
        &self,
        client_id: &str,
        subject: &str,
        redirect_uri: Option<&str>,
    ) -> String {
        let mut codes = self.shared.codes.lock();
        let text = format!("c{}.0.{}", codes.len(), subject);
        let code = Code {
            client_id: client_id.to_owned(),
            redirect_uri: redirect_uri.map(str::to_owned),
            subject: subject.to_owned(),
        };
        codes.insert(text.clone(), code);
        text
    }

    /// Refresh tokens that were revoked.
    pub(super) fn revoked(&self) -> Vec<String> {
        self.shared.revoked.lock().clone()
    }

    /// Why requests were refused.
    pub(super) fn refused(&self) -> Vec<String> {
        self.shared.refused.lock().clone()
    }

    pub(super) fn keys_asked(&self) -> usize {
        self.shared.keys_asked.load(SeqCst)
    }
}

/// OID id-ecPublicKey.
const EC: [u8; 9] = [6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
/// OID prime256v1.
const P256: [u8; 10] = [6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];

fn der(tag: u8, parts: &[Vec<u8>]) -> Vec<u8> {
    let body = parts.concat();
    let length = u8::try_from(body.len()).unwrap();
    let head = if length < 0x80 {
        vec![tag, length]
    } else {
        vec![tag, 0x81, length]
    };
    [head, body].concat()
}

/// Making keys is slow, so each process makes two.
fn rsa(which: usize) -> Arc<KeyPair> {
    static KEYS: std::sync::LazyLock<[Arc<KeyPair>; 2]> = std::sync::LazyLock::new(|| {
        [(); 2].map(|()| Arc::new(KeyPair::generate(KeySize::Rsa2048).unwrap()))
    });
    Arc::clone(&KEYS[which])
}

fn rs256(key: &KeyPair, signed: &str) -> Vec<u8> {
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(
        &RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        signed.as_bytes(),
        &mut signature,
    )
    .unwrap();
    signature
}

impl Shared {
    /// An answer that is none, where the stand-in is told to.
    async fn misbehave(&self) -> Option<Response> {
        let behaviour = *self.behaviour.lock();
        match behaviour {
            Behaviour::Well => None,
            Behaviour::Broken => Some((http::StatusCode::BAD_GATEWAY, "<html>").into_response()),
            Behaviour::Huge => Some("x".repeat(300 * 1024).into_response()),
            Behaviour::Hang => {
                let go_on = self.go_on.notified();
                self.arrived.notify_one();
                go_on.await;
                None
            }
        }
    }

    fn refuse(&self, word: &str, why: &str) -> Response {
        self.refused.lock().push(format!("{word}: {why}"));
        let body = json!({ "error": word }).to_string();
        (http::StatusCode::BAD_REQUEST, body).into_response()
    }

    /// Checks a form and its client secret; answers the form.
    fn form(&self, body: &[u8]) -> Result<HashMap<String, String>, Response> {
        let form: HashMap<String, String> = serde_urlencoded::from_bytes(body)
            .map_err(|_| self.refuse("invalid_request", "no form"))?;
        let client_id = form.get("client_id").cloned().unwrap_or_default();
        if ![BUNDLE, SERVICES].contains(&client_id.as_str()) {
            return Err(self.refuse("invalid_client", "unknown client id"));
        }
        let secret = form.get("client_secret").map_or("", String::as_str);
        self.check_secret(secret, &client_id)
            .map_err(|why| self.refuse("invalid_client", &why))?;
        Ok(form)
    }

    fn check_secret(&self, secret: &str, client_id: &str) -> Result<(), String> {
        use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
        let point = self.team_key.public_key().as_ref();
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let key = DecodingKey::from_ec_components(&part(&point[1..33]), &part(&point[33..65]))
            .map_err(|e| e.to_string())?;
        let mut rules = Validation::new(Algorithm::ES256);
        // Times are judged by the clock of the test.
        rules.validate_exp = false;
        rules.set_audience(&["https://appleid.apple.com"]);
        rules.set_issuer(&[TEAM]);
        let token = decode::<Value>(secret, &key, &rules).map_err(|e| e.to_string())?;
        if token.header.kid.as_deref() != Some(KEY_ID) {
            return Err("another key id".to_owned());
        }
        if token.claims["sub"] != client_id {
            return Err("another client".to_owned());
        }
        let now_s = self.clock.now().timestamp();
        let (from, to) = (token.claims["iat"].as_i64(), token.claims["exp"].as_i64());
        let (Some(from), Some(to)) = (from, to) else {
            return Err("no times".to_owned());
        };
        if from > now_s || to <= now_s || to - from > 3_600 {
            return Err(format!("from {from} to {to} at {now_s}"));
        }
        Ok(())
    }
}

async fn keys(State(shared): State<Arc<Shared>>) -> Response {
    shared.keys_asked.fetch_add(1, SeqCst);
    if let Some(answer) = shared.misbehave().await {
        return answer;
    }
    let keys = shared.keys.lock();
    let jwk = |(kid, pair): &(String, Arc<KeyPair>)| {
        let public = pair.public_key();
        let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({
            "kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256",
            "n": number(public.modulus().big_endian_without_leading_zero()),
            "e": number(public.exponent().big_endian_without_leading_zero()),
        })
    };
    let keys: Vec<Value> = keys.iter().map(jwk).collect();
    json!({ "keys": keys }).to_string().into_response()
}

async fn token(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    shared.tokens_asked.fetch_add(1, SeqCst);
    if let Some(answer) = shared.misbehave().await {
        return answer;
    }
    let form = match shared.form(&body) {
        Ok(form) => form,
        Err(refused) => return refused,
    };
    if form.get("grant_type").map(String::as_str) != Some("authorization_code") {
        return shared.refuse("unsupported_grant_type", "a code it is");
    }
    // A code is good once, whatever comes of it.
    let code = form.get("code").and_then(|c| shared.codes.lock().remove(c));
    let Some(code) = code else {
        return shared.refuse("invalid_grant", "no such code");
    };
    if code.client_id != form["client_id"] || code.redirect_uri.as_ref() != form.get("redirect_uri")
    {
        return shared.refuse(
            "invalid_grant",
            "the code belongs to another client or address",
        );
    }
    let refresh = format!("r{}.{}", shared.tokens.lock().len(), code.subject);
    shared
        .tokens
        .lock()
        .insert(refresh.clone(), code.client_id.clone());
    let now_s = shared.clock.now().timestamp();
    let claims = json!({
        "iss": "https://appleid.apple.com", "aud": code.client_id, "sub": code.subject,
        "iat": now_s, "exp": now_s + 600,
    });
    let (kid, key) = shared.keys.lock()[0].clone();
    let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!(
        "{}.{}",
        encode(json!({ "kid": kid, "alg": "RS256" })),
        encode(claims)
    );
    let id_token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(rs256(&key, &signed)));
    json!({
        "access_token": "a", "token_type": "Bearer", "expires_in": 3600,
        "refresh_token": refresh, "id_token": id_token,
    })
    .to_string()
    .into_response()
}

async fn revoke(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    shared.revocations_asked.fetch_add(1, SeqCst);
    if let Some(answer) = shared.misbehave().await {
        return answer;
    }
    let form = match shared.form(&body) {
        Ok(form) => form,
        Err(refused) => return refused,
    };
    if form.get("token_type_hint").map(String::as_str) != Some("refresh_token") {
        return shared.refuse("invalid_request", "no hint");
    }
    let token = form.get("token").cloned().unwrap_or_default();
    if shared.tokens.lock().get(&token) != form.get("client_id") {
        return shared.refuse("invalid_grant", "the token belongs to another client");
    }
    shared.revoked.lock().push(token);
    http::StatusCode::OK.into_response()
}
