//! `portico kv`: the store of keys and values, over the Consul-compatible listener that serves it.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use portico_base::Secret;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

use super::kv_text::{Known, entries, known, shown, summary};
use super::print_json;
use crate::cli::{KvArgs, KvCommand, Remote};
use crate::client::{
    checked, data_dir_or_default, http, operator_for, ready_value, unreachable, usage, variable,
};
use crate::table::plain;
use crate::text::{self, say};

/// How long one blocking query waits.
const WAIT: Duration = Duration::from_secs(10);
/// Largest value that is read from a file or standard input; the store's own limit is below.
const MAX_VALUE: u64 = 16 * 1024 * 1024;

/// The store, where it is served.
struct Store {
    http: reqwest::Client,
    url: String,
    token: Option<Secret<String>>,
}

/// Carries out one command.
pub(crate) async fn run(args: KvArgs) -> Result<u8> {
    let json = args.remote.json;
    let store = Store::find(&args.remote)?;
    match args.command {
        KvCommand::Get { key } => store.get(&key, json).await,
        KvCommand::Put {
            key,
            value,
            cas,
            flags,
        } => store.put(&key, value, cas, flags, json).await,
        KvCommand::Ls { prefix, recurse } => store.list(&prefix, recurse, json).await,
        KvCommand::Rm { key, recurse, cas } => store.remove(&key, recurse, cas, json).await,
        KvCommand::Watch { key, recurse } => tokio::select! {
            result = store.watch(&key, recurse, json) => result,
            () = crate::signal::first() => Ok(0),
        },
    }
}

impl Store {
    fn find(remote: &Remote) -> Result<Self> {
        let connect = &remote.connect;
        let given = connect.url.clone().or_else(|| variable("CONSUL_HTTP_ADDR"));
        let url = match &given {
            Some(url) if url.contains("://") => url.clone(),
            // Consul's own variable may leave the scheme out.
            Some(address) => format!("http://{address}"),
            None => ready_value(connect.data_dir.as_deref(), "consul")?,
        };
        let token = match connect.token.clone().or_else(|| variable("PORTICO_TOKEN")) {
            Some(token) => Some(Secret::from(token)),
            // Without a credential the listener decides: on loopback it may serve anonymous callers.
            None => operator_for(&url, &data_dir_or_default(connect.data_dir.as_deref()))
                .ok()
                .map(|(token, _)| token),
        };
        Ok(Self {
            http: http(WAIT + Duration::from_secs(10))?,
            url: checked(&url)?,
            token,
        })
    }

    fn request(&self, method: Method, key: &str, query: &str) -> Result<RequestBuilder> {
        let url = format!("{}/v1/kv/{}?{query}", self.url, path(key)?);
        let request = self.http.request(method, url);
        Ok(match &self.token {
            Some(token) => request.header("X-Consul-Token", token.expose()),
            None => request,
        })
    }

    /// What a read answers, and the index that a change raises.
    async fn read(&self, key: &str, query: &str) -> Result<(u64, Value)> {
        let request = self.request(Method::GET, key, query)?;
        let response = self.send(request).await?;
        let index = response
            .headers()
            .get("x-consul-index")
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.parse().ok())
            .unwrap_or(0);
        match response.status() {
            // Consul's answer for a key that is not there.
            StatusCode::NOT_FOUND => Ok((index, Value::Null)),
            status if status.is_success() => Ok((index, response.json().await?)),
            _ => Err(refused(response).await),
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response> {
        request
            .send()
            .await
            .map_err(|error| unreachable(&self.url, &error))
    }

    async fn get(&self, key: &str, as_json: bool) -> Result<u8> {
        let (_, found) = self.read(key, "").await?;
        let Some(entry) = entries(&found).into_iter().next() else {
            bail!("there is no key `{}`", plain(key));
        };
        if as_json {
            print_json(&shown(&entry))?;
            return Ok(0);
        }
        let mut out = std::io::stdout().lock();
        // Nobody reads any more: that is no failure of ours.
        let _ = out.write_all(&entry.value);
        if out.is_terminal() && !entry.value.ends_with(b"\n") {
            let _ = out.write_all(b"\n");
        }
        let _ = out.flush();
        Ok(0)
    }

    async fn put(
        &self,
        key: &str,
        value: Option<String>,
        cas: Option<u64>,
        flags: u64,
        as_json: bool,
    ) -> Result<u8> {
        let value = content(value.as_deref())?;
        let mut query = format!("flags={flags}");
        if let Some(index) = cas {
            query.push_str(&format!("&cas={index}"));
        }
        let request = self.request(Method::PUT, key, &query)?.body(value);
        self.done(key, request, "written", as_json).await
    }

    async fn remove(
        &self,
        key: &str,
        recurse: bool,
        cas: Option<u64>,
        as_json: bool,
    ) -> Result<u8> {
        let query = match (recurse, cas) {
            (true, _) => "recurse".to_owned(),
            (false, Some(index)) => format!("cas={index}"),
            (false, None) => String::new(),
        };
        let request = self.request(Method::DELETE, key, &query)?;
        self.done(key, request, "removed", as_json).await
    }

    async fn done(
        &self,
        key: &str,
        request: RequestBuilder,
        word: &str,
        as_json: bool,
    ) -> Result<u8> {
        let response = self.send(request).await?;
        if !response.status().is_success() {
            return Err(refused(response).await);
        }
        let done: bool = response
            .json()
            .await
            .context("the answer is not Consul's")?;
        if as_json {
            print_json(&json!({ "key": key, word: done }))?;
        }
        if !done {
            bail!(
                "`{}` is not {word}: it was changed meanwhile, its index is another",
                plain(key)
            );
        }
        if !as_json {
            say!("{}: {word}", plain(key));
        }
        Ok(0)
    }

    async fn list(&self, prefix: &str, recurse: bool, as_json: bool) -> Result<u8> {
        let query = if recurse { "keys" } else { "keys&separator=/" };
        let (_, found) = self.read(prefix, query).await?;
        let keys: Vec<&str> = found
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        if as_json {
            print_json(&json!(keys))?;
            return Ok(0);
        }
        let lines: String = keys.iter().map(|key| plain(key) + "\n").collect();
        text::print(&lines);
        Ok(0)
    }

    async fn watch(&self, key: &str, recurse: bool, as_json: bool) -> Result<u8> {
        let more = if recurse { "&recurse" } else { "" };
        let (mut index, mut before) = (0, Known::new());
        let mut away = false;
        loop {
            let query = format!("index={index}&wait={}s{more}", WAIT.as_secs());
            match self.read(key, &query).await {
                Ok((next, found)) => {
                    if away {
                        eprintln!("portico: the store answers again");
                    }
                    away = false;
                    let now = known(&found);
                    for line in summary(&before, &now, as_json) {
                        text::print(&(line + "\n"));
                    }
                    before = now;
                    // An index that falls means another store: from the beginning (Consul's own advice).
                    index = if next < index { 0 } else { next };
                }
                // What is refused at the beginning is wrong; later the store may be away for a while.
                Err(error) if index == 0 => return Err(error),
                Err(error) => {
                    if !away {
                        eprintln!("portico: {error:#}; trying on");
                    }
                    away = true;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

/// What the listener said instead of doing it, with what helps.
async fn refused(response: Response) -> anyhow::Error {
    let status = response.status();
    let why = response.text().await.unwrap_or_default();
    let help = match status {
        StatusCode::FORBIDDEN => {
            "; give a credential with the scopes registry:kv:read and registry:kv:write by --token or PORTICO_TOKEN"
        }
        _ => "",
    };
    anyhow!("{} ({}){help}", plain(why.trim()), status.as_u16())
}

/// The key as a path. A URL cannot hold the segments `.` and `..`, which would mean another key.
fn path(key: &str) -> Result<String> {
    if key.split('/').any(|part| matches!(part, "." | "..")) {
        return Err(usage(format!(
            "the key `{}` holds `.` or `..` between slashes",
            plain(key)
        )));
    }
    let parts: Vec<String> = key.split('/').map(crate::client::encoded).collect();
    Ok(parts.join("/"))
}

/// The value that an argument stands for.
fn content(argument: Option<&str>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match argument {
        None | Some("-") => {
            std::io::stdin()
                .lock()
                .take(MAX_VALUE)
                .read_to_end(&mut bytes)
                .context("standard input cannot be read")?;
        }
        Some(text) => match text.strip_prefix('@') {
            Some(file) => {
                std::fs::File::open(file)
                    .and_then(|f| f.take(MAX_VALUE).read_to_end(&mut bytes))
                    .map_err(|error| usage(format!("{file} cannot be read: {error}")))?;
            }
            None => bytes = text.as_bytes().to_vec(),
        },
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_as_paths() {
        assert_eq!(path("a b/c&d/").unwrap(), "a%20b/c%26d/");
        assert_eq!(path("").unwrap(), "");
        for bad in ["..", "a/./b", "../x"] {
            assert!(path(bad).is_err(), "{bad}");
        }
        assert!(path("a..b/...").is_ok());
    }
}
