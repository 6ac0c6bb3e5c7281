//! How commands speak to a running process: HTTP, with an address and a credential.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use portico_base::Secret;
use portico_host::datadir::{OPERATOR_TOKEN, READY, read_operator_token};
use reqwest::{Method, Response};
use serde::Serialize;
use serde_json::Value;

use crate::cli::ConnectArgs;

/// A connection to a running process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    /// The gateway, without a final slash.
    pub(crate) url: String,
    token: Secret<String>,
    /// File with the credential as a header line, for commands that people copy.
    pub(crate) token_file: Option<PathBuf>,
}

/// An answer that was an error.
#[derive(Debug, thiserror::Error)]
#[error("{status} {code}: {detail}")]
pub(crate) struct ApiError {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) detail: String,
}

impl Client {
    /// Finds address and credential: flags, environment, data directory.
    pub(crate) fn connect(args: &ConnectArgs) -> Result<Self> {
        let data_dir = data_dir_or_default(&args.data_dir);
        let url = match args
            .url
            .clone()
            .or_else(|| std::env::var("PORTICO_URL").ok())
        {
            Some(url) => url,
            None => ready(&data_dir, "http")?,
        };
        let (token, token_file) = match args
            .token
            .clone()
            .or_else(|| std::env::var("PORTICO_TOKEN").ok())
        {
            Some(token) => (Secret::from(token), None),
            None => operator(&data_dir)?,
        };
        Self::new(&url, token, token_file)
    }

    /// A connection with a known address and credential.
    pub(crate) fn new(
        url: &str,
        token: Secret<String>,
        token_file: Option<PathBuf>,
    ) -> Result<Self> {
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(2))
            .timeout(Duration::from_secs(15))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .user_agent(concat!("portico/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("the HTTP client could not be made")?;
        Ok(Self {
            http,
            url: url.trim_end_matches('/').to_owned(),
            token,
            token_file,
        })
    }

    /// Calls and expects a JSON answer; an error answer is an [`ApiError`].
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<Value> {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.url))
            .bearer_auth(self.token.expose())
            .header("X-Portico-Protocol", "1");
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request
            .send()
            .await
            .with_context(|| format!("{} does not answer", self.url))?;
        answer(response).await
    }

    /// GET.
    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        self.call(Method::GET, path, None::<&Value>).await
    }

    /// POST with a JSON body.
    pub(crate) async fn post(&self, path: &str, body: &(impl Serialize + Sync)) -> Result<Value> {
        self.call(Method::POST, path, Some(body)).await
    }
}

async fn answer(response: Response) -> Result<Value> {
    let status = response.status();
    let bytes = response.bytes().await.context("the answer broke off")?;
    let value: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    if status.is_success() {
        return Ok(value);
    }
    let mut detail = value["detail"].as_str().unwrap_or("no detail").to_owned();
    for fault in value["errors"].as_array().into_iter().flatten() {
        detail.push_str(&format!(
            "\n  {}: {}",
            fault["field"].as_str().unwrap_or_default(),
            fault["message"].as_str().unwrap_or_default()
        ));
    }
    Err(ApiError {
        status: status.as_u16(),
        code: value["code"].as_str().unwrap_or("unknown").to_owned(),
        detail,
    }
    .into())
}

/// An address of the running process, from its ready file.
pub(crate) fn ready_value(data_dir: &Option<PathBuf>, name: &str) -> Result<String> {
    let data_dir = data_dir_or_default(data_dir);
    ready(&data_dir, name)
}

fn data_dir_or_default(data_dir: &Option<PathBuf>) -> PathBuf {
    data_dir
        .clone()
        .or_else(|| std::env::var_os("PORTICO__NODE__DATA_DIR").map(PathBuf::from))
        .unwrap_or_else(|| PathBuf::from("portico-data"))
}

fn ready(data_dir: &Path, name: &str) -> Result<String> {
    let path = data_dir.join(READY);
    let text = std::fs::read_to_string(&path).map_err(|error| {
        anyhow!(
            "no running Portico was found: {} cannot be read ({error}); start `portico`, or give --url or PORTICO_URL",
            path.display()
        )
    })?;
    let ready: Value = serde_json::from_str(&text)?;
    match ready[name].as_str() {
        Some(url) => Ok(url.to_owned()),
        None => bail!("the process of {} has no such listener", data_dir.display()),
    }
}

fn operator(data_dir: &Path) -> Result<(Secret<String>, Option<PathBuf>)> {
    let path = data_dir.join(OPERATOR_TOKEN);
    match read_operator_token(&path) {
        Ok(Some(token)) => Ok((token, Some(path))),
        Ok(None) | Err(_) => bail!(
            "a credential is needed: the operator's token is in {}, readable by the user who started Portico; \
             run as that user, or give --token or PORTICO_TOKEN",
            path.display()
        ),
    }
}
