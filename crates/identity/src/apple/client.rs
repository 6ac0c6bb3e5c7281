//! What is asked of Apple's servers: keys, tokens for a code, revocation. Time-limited, size-capped, never logged whole.

use std::time::Duration;

use portico_base::Secret;
use portico_token::KeySet;
use serde::{Deserialize, Serialize};

use super::account::Account;

/// Larger answers are not read.
const ANSWER_LIMIT: usize = 256 * 1024;
const CONNECT: Duration = Duration::from_secs(2);
/// A login waits for this.
const WHOLE: Duration = Duration::from_secs(5);
/// Longest word of an error that is kept.
const WORD: usize = 64;

/// Asks Apple. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Client(Option<reqwest::Client>);

/// Why Apple did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// It did not answer, or nothing that can be understood.
    #[error("apple cannot be reached: {0}")]
    Unavailable(&'static str),
    /// It answered with an error (RFC 6749 §5.2): `invalid_grant`, `invalid_client`, …
    #[error("apple refuses: {0}")]
    Refused(String),
    /// Our key signs nothing.
    #[error("the client secret cannot be signed")]
    Key,
}

/// What a code was good for.
#[derive(Debug, Deserialize)]
pub(crate) struct Granted {
    pub refresh_token: Option<Secret<String>>,
    pub id_token: Option<Secret<String>>,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
}

/// A code that is shown to Apple.
pub(crate) struct Code<'a> {
    pub code: &'a Secret<String>,
    /// The client id that got it.
    pub client_id: &'a str,
    /// Of a browser.
    pub redirect_uri: Option<&'a str>,
}

#[derive(Serialize)]
struct ExchangeForm<'a> {
    client_id: &'a str,
    client_secret: &'a str,
    code: &'a str,
    grant_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    redirect_uri: Option<&'a str>,
}

#[derive(Serialize)]
struct RevokeForm<'a> {
    client_id: &'a str,
    client_secret: &'a str,
    token: &'a str,
    token_type_hint: &'static str,
}

impl Client {
    /// A client; without a trust store on this machine it reaches nobody.
    pub(super) fn new() -> Self {
        let built = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .timeout(WHOLE)
            // A code is good once: a second request of the client's own making would spoil the first.
            .retry(reqwest::retry::never())
            .user_agent(concat!("portico/", env!("CARGO_PKG_VERSION")))
            .build();
        Self(
            built
                .inspect_err(|error| tracing::error!(err = %error, "apple cannot be asked"))
                .ok(),
        )
    }

    /// Apple's public keys.
    pub(super) async fn keys(&self, url: &str) -> Result<KeySet, Failure> {
        let client = self.0.as_ref().ok_or(NO_CLIENT)?;
        let (status, body) = answer(client.get(url)).await?;
        if status != 200 {
            return Err(Failure::Unavailable("it has no keys now"));
        }
        KeySet::parse(&body).map_err(|_| Failure::Unavailable("its keys cannot be read"))
    }

    /// Shows a code and gets tokens for it.
    pub(crate) async fn exchange(
        &self,
        url: &str,
        account: &Account,
        code: Code<'_>,
        now_s: i64,
    ) -> Result<Granted, Failure> {
        let secret = account.client_secret(code.client_id, now_s)?;
        let form = ExchangeForm {
            client_id: code.client_id,
            client_secret: secret.expose(),
            code: code.code.expose(),
            grant_type: "authorization_code",
            redirect_uri: code.redirect_uri,
        };
        let body = self.post(url, &form).await?;
        serde_json::from_slice(&body).map_err(|_| Failure::Unavailable("its answer is no JSON"))
    }

    /// Revokes a refresh token. One that is not good any more is revoked already.
    pub(crate) async fn revoke(
        &self,
        url: &str,
        account: &Account,
        client_id: &str,
        token: &Secret<String>,
        now_s: i64,
    ) -> Result<(), Failure> {
        let secret = account.client_secret(client_id, now_s)?;
        let form = RevokeForm {
            client_id,
            client_secret: secret.expose(),
            token: token.expose(),
            token_type_hint: "refresh_token",
        };
        self.post(url, &form).await.map(|_| ())
    }

    async fn post<T: Serialize>(&self, url: &str, form: &T) -> Result<Vec<u8>, Failure> {
        let client = self.0.as_ref().ok_or(NO_CLIENT)?;
        let form = serde_urlencoded::to_string(form)
            .map_err(|_| Failure::Unavailable("the request cannot be written"))?;
        let request = client
            .post(url)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form);
        match answer(request).await? {
            (200, body) => Ok(body),
            (400 | 401, body) => Err(match serde_json::from_slice::<Refusal>(&body) {
                Ok(refusal) => Failure::Refused(word(&refusal.error)),
                Err(_) => Failure::Unavailable("its refusal is no JSON"),
            }),
            _ => Err(Failure::Unavailable("it answers with another status")),
        }
    }
}

const NO_CLIENT: Failure = Failure::Unavailable("there is no client");

async fn answer(request: reqwest::RequestBuilder) -> Result<(u16, Vec<u8>), Failure> {
    let lost = |_| Failure::Unavailable("the connection failed");
    let mut response = request.send().await.map_err(lost)?;
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(lost)? {
        if body.len() + chunk.len() > ANSWER_LIMIT {
            return Err(Failure::Unavailable("its answer is too large"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((status, body))
}

/// A word of an error as it may stand in a log.
fn word(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '_')
        .take(WORD)
        .collect()
}
