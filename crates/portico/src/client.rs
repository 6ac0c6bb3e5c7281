//! How commands speak to a running process: HTTP, with an address and a credential.

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use portico_base::Secret;
use portico_config::is_loopback_host;
use portico_host::datadir::{OPERATOR_TOKEN, READY, read_operator_token};
use portico_host::{StartError, exit};
use reqwest::{Method, RequestBuilder, Response, header};
use serde::Serialize;
use serde_json::Value;

use crate::cli::ConnectArgs;
use crate::table::plain;

/// Items a page when everything is wanted.
const PAGE: u32 = 200;
/// Pages that are read at most: beyond that something turns in a circle.
const MAX_PAGES: usize = 10_000;

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
#[error("{detail} ({status} {code}){hint}")]
pub(crate) struct ApiError {
    pub(crate) status: u16,
    pub(crate) code: String,
    /// The sentence for people, with all faults of the input.
    pub(crate) detail: String,
    /// All faults of the input: path and sentence.
    pub(crate) faults: Vec<(String, String)>,
    hint: &'static str,
}

impl Client {
    /// Finds address and credential: flags, environment, data directory.
    pub(crate) fn connect(args: &ConnectArgs) -> Result<Self> {
        let data_dir = data_dir_or_default(args.data_dir.as_deref());
        let url = match args.url.clone().or_else(|| variable("PORTICO_URL")) {
            Some(url) => url,
            // Administration may have a listener of its own (GW-9): then it is nowhere else.
            None => ready(&data_dir, "console")
                .or_else(|_| ready(&data_dir, "http"))
                .or_else(|why| ready(&data_dir, "https").map_err(|_| why))?,
        };
        let (token, token_file) = match args.token.clone().or_else(|| variable("PORTICO_TOKEN")) {
            Some(token) => (Secret::from(token), None),
            None => operator_for(&url, &data_dir)?,
        };
        Self::new(&url, token, token_file)
    }

    /// A connection with a known address and credential.
    pub(crate) fn new(
        url: &str,
        token: Secret<String>,
        token_file: Option<PathBuf>,
    ) -> Result<Self> {
        Ok(Self {
            http: http(Duration::from_secs(15))?,
            url: checked(url)?,
            token,
            token_file,
        })
    }

    /// A request with the credential.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.url))
            .bearer_auth(self.token.expose())
            .header("X-Portico-Protocol", "1")
    }

    /// Sends and expects a JSON answer; an error answer is an [`ApiError`].
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Value> {
        let response = request
            .send()
            .await
            .map_err(|e| unreachable(&self.url, &e))?;
        answer(response).await
    }

    /// Calls and expects a JSON answer; an error answer is an [`ApiError`].
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<Value> {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(body);
        }
        self.send(request).await
    }

    /// GET.
    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        self.call(Method::GET, path, None::<&Value>).await
    }

    /// GET of something that is no JSON, as it comes; an error answer is an [`ApiError`].
    pub(crate) async fn open(&self, path: &str) -> Result<Response> {
        let request = self.request(Method::GET, path);
        let sent = request.send().await;
        let response = sent.map_err(|e| unreachable(&self.url, &e))?;
        if response.status().is_success() {
            return Ok(response);
        }
        answer(response).await?;
        bail!("the answer says nothing that Portico would say")
    }

    /// GET of what may not be there.
    pub(crate) async fn find(&self, path: &str) -> Result<Option<Value>> {
        match self.get(path).await {
            Ok(value) => Ok(Some(value)),
            Err(error)
                if error
                    .downcast_ref::<ApiError>()
                    .is_some_and(|e| e.status == 404) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// POST with a JSON body.
    pub(crate) async fn post(&self, path: &str, body: &(impl Serialize + Sync)) -> Result<Value> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// PUT with a JSON body; with a version only if that one still holds.
    pub(crate) async fn put(
        &self,
        path: &str,
        body: &Value,
        version: Option<i64>,
    ) -> Result<Value> {
        let mut request = self.request(Method::PUT, path).json(body);
        if let Some(version) = version {
            request = request.header(header::IF_MATCH, format!("\"{version}\""));
        }
        self.send(request).await
    }

    /// The items of all pages of a list.
    pub(crate) async fn pages(&self, path: &str) -> Result<Vec<Value>> {
        let sign = if path.contains('?') { '&' } else { '?' };
        let mut items = Vec::new();
        let mut cursor = String::new();
        for _ in 0..MAX_PAGES {
            let page = self
                .get(&format!("{path}{sign}limit={PAGE}{cursor}"))
                .await?;
            items.extend(page["items"].as_array().into_iter().flatten().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={}", encoded(next)),
                None => return Ok(items),
            }
        }
        bail!("the list of {path} does not end")
    }
}

/// An HTTP client as commands use it: no proxy, no redirects, bounded in time.
pub(crate) fn http(timeout: Duration) -> Result<reqwest::Client> {
    reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(2))
        .timeout(timeout)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .user_agent(concat!("portico/", env!("CARGO_PKG_VERSION")))
        .build()
        .context("the HTTP client could not be made")
}

/// A part of a path or query as it travels in a URL.
pub(crate) fn encoded(text: &str) -> String {
    const KEPT: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~');
    percent_encoding::utf8_percent_encode(text, KEPT).to_string()
}

/// A mistake of whoever typed the command: exit code 2.
pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
    StartError::new(exit::USAGE, message).into()
}

/// What to say when nobody answers.
pub(crate) fn unreachable(url: &str, error: &reqwest::Error) -> anyhow::Error {
    let mut cause = error.source();
    let mut why = error.to_string();
    while let Some(inner) = cause {
        why = inner.to_string();
        cause = inner.source();
    }
    let why = if error.is_timeout() {
        "it took too long".to_owned()
    } else {
        plain(&why)
    };
    anyhow!(
        "{url} does not answer ({why}); is Portico running there? start it with `portico`, or give its address \
         with --url or PORTICO_URL"
    )
}

async fn answer(response: Response) -> Result<Value> {
    let status = response.status();
    let bytes = response.bytes().await.context("the answer broke off")?;
    let value: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    if status.is_success() {
        return Ok(value);
    }
    let text = |value: &Value| plain(value.as_str().unwrap_or_default());
    let faults: Vec<(String, String)> = value["errors"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|fault| (text(&fault["field"]), text(&fault["message"])))
        .collect();
    let mut detail = match value["detail"].as_str().or(value["title"].as_str()) {
        Some(detail) => plain(detail),
        None => "the answer says nothing that Portico would say".to_owned(),
    };
    for (field, message) in &faults {
        detail.push_str(&format!("\n  {field}: {message}"));
    }
    if !faults.is_empty() {
        detail.push('\n');
    }
    Err(ApiError {
        status: status.as_u16(),
        code: value["code"]
            .as_str()
            .map_or_else(|| "unknown".to_owned(), plain),
        detail,
        faults,
        hint: match status.as_u16() {
            401 => "; the credential is not accepted, give another with --token or PORTICO_TOKEN",
            403 => "; the credential may not do this",
            _ => "",
        },
    }
    .into())
}

/// An address of the running process, from its ready file.
pub(crate) fn ready_value(data_dir: Option<&Path>, name: &str) -> Result<String> {
    ready(&data_dir_or_default(data_dir), name)
}

/// The data directory that local commands look into.
pub(crate) fn data_dir_or_default(data_dir: Option<&Path>) -> PathBuf {
    data_dir
        .map(Path::to_owned)
        .or_else(|| variable("PORTICO__NODE__DATA_DIR").map(PathBuf::from))
        .unwrap_or_else(|| PathBuf::from("portico-data"))
}

/// A variable of the environment that says something.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// An address as a person gives it, checked before anything is sent there.
pub(crate) fn checked(url: &str) -> Result<String> {
    let parsed = reqwest::Url::parse(url).ok().filter(|parsed| {
        matches!(parsed.scheme(), "http" | "https") && parsed.host_str().is_some()
    });
    if parsed.is_none() {
        return Err(usage(format!(
            "`{}` is no address such as http://127.0.0.1:8080",
            plain(url)
        )));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

/// The operator's token of a data directory, for an address on this machine: the operator is taken from
/// here alone, and a stranger's server shall not be told who we are.
pub(crate) fn operator_for(
    url: &str,
    data_dir: &Path,
) -> Result<(Secret<String>, Option<PathBuf>)> {
    let here = reqwest::Url::parse(&checked(url)?)
        .ok()
        .and_then(|url| url.host_str().map(is_loopback_host))
        .unwrap_or(false);
    if !here {
        bail!(
            "{url} is not on this machine, where alone the operator's token is good; give a credential with \
             --token or PORTICO_TOKEN"
        );
    }
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

fn ready(data_dir: &Path, name: &str) -> Result<String> {
    let path = data_dir.join(READY);
    let text = std::fs::read_to_string(&path).map_err(|error| {
        anyhow!(
            "no running Portico was found: {} cannot be read ({error}); start `portico`, or say where it is with \
             --data-dir or --url",
            path.display()
        )
    })?;
    let ready: Value = serde_json::from_str(&text)
        .with_context(|| format!("{} is broken; start `portico` again", path.display()))?;
    match ready[name].as_str() {
        Some(url) => Ok(url.to_owned()),
        None => bail!(
            "the Portico of {} has no `{name}` listener (see its roles and its `listen` section)",
            data_dir.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_addresses_are_encoded() {
        assert_eq!(encoded("a b/ü&c=1"), "a%20b%2F%C3%BC%26c%3D1");
        assert_eq!(encoded("hello-1.0_x~"), "hello-1.0_x~");
    }

    #[test]
    fn addresses_are_checked_first() {
        for bad in ["", "localhost:8080", "ftp://x", "http://", "127.0.0.1"] {
            let error = checked(bad).unwrap_err();
            let code = error.downcast_ref::<StartError>().map(|e| e.code);
            assert_eq!(code, Some(exit::USAGE), "{bad}");
        }
        assert_eq!(
            checked("http://127.0.0.1:1/").unwrap(),
            "http://127.0.0.1:1"
        );
    }

    #[test]
    fn the_operator_token_stays_on_this_machine() {
        let folder = tempfile::tempdir().unwrap();
        let error = operator_for("http://portico.example:8080", folder.path()).unwrap_err();
        assert!(error.to_string().contains("not on this machine"), "{error}");
        let error = operator_for("http://[::1]:8080", folder.path()).unwrap_err();
        assert!(error.to_string().contains("operator.token"), "{error}");
    }
}
