//! HTTP to the gateway: bounded in time and size, without proxies, and without following redirects.

use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use reqwest::redirect::Policy;
use serde::de::DeserializeOwned;

use crate::call::CallError;
use crate::problem::Problem;
use crate::secret::Secret;

/// Longest answer that is read, in bytes.
pub(crate) const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// One request.
pub(crate) struct Outgoing<'a> {
    pub(crate) method: Method,
    pub(crate) url: String,
    pub(crate) credential: Option<&'a Secret>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Vec<u8>>,
    pub(crate) timeout: Duration,
}

/// What came back with a status of success.
pub(crate) struct Incoming {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
}

impl Client {
    pub(crate) fn new(base: &str) -> Result<Self, reqwest::Error> {
        // A credential must follow neither a redirect nor the environment's proxy to another host.
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .connect_timeout(Duration::from_secs(5))
            .build()?;
        Ok(Self {
            http,
            base: base.trim_end_matches('/').to_owned(),
        })
    }

    /// A URL below the gateway.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// A URL below another listener of the gateway, where there is one.
    pub(crate) fn url_below(&self, listener: Option<&str>, path: &str) -> String {
        match listener {
            Some(base) => format!("{}{path}", base.trim_end_matches('/')),
            None => self.url(path),
        }
    }

    /// POST of JSON to the registry.
    pub(crate) async fn registry<T: DeserializeOwned>(
        &self,
        path: &str,
        credential: Option<&Secret>,
        body: &impl serde::Serialize,
        timeout: Duration,
    ) -> Result<T, CallError> {
        let body = serde_json::to_vec(body).map_err(CallError::Json)?;
        let url = self.url(&format!("/api/registry/{path}"));
        let outgoing = Outgoing {
            method: Method::POST,
            url,
            credential,
            headers: HeaderMap::new(),
            body: Some(body),
            timeout,
        };
        let incoming = self.send(outgoing).await?;
        serde_json::from_slice(&incoming.body).map_err(CallError::Json)
    }

    /// Sends a request; anything but success is an error.
    pub(crate) async fn send(&self, outgoing: Outgoing<'_>) -> Result<Incoming, CallError> {
        let mut request = self
            .http
            .request(outgoing.method, outgoing.url)
            .timeout(outgoing.timeout)
            .headers(outgoing.headers)
            .header("x-portico-protocol", "1");
        if let Some(credential) = outgoing.credential {
            request = request.bearer_auth(credential.expose());
        }
        if let Some(body) = outgoing.body {
            request = request
                .header("content-type", "application/json")
                .body(body);
        }
        let mut response = request.send().await?;
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await? {
            if body.len() + part.len() > MAX_ANSWER {
                return Err(CallError::TooLarge);
            }
            body.extend_from_slice(&part);
        }
        let status = response.status();
        if !status.is_success() {
            return Err(CallError::Problem(Problem::read(status, &body)));
        }
        Ok(Incoming {
            status,
            headers: std::mem::take(response.headers_mut()),
            body,
        })
    }
}
