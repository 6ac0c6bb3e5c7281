//! One instance of a service: start → register → heartbeat → serve → deregister → stop.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method, Response, StatusCode, Uri};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::call::{Answer, Call, CallError};
use crate::client::Client;
use crate::config::ServiceConfig;
use crate::identity::Identity;
use crate::options::Options;
use crate::problem::Problem;
use crate::secret::Secret;
use crate::verify::Verifier;

mod registrar;
mod signals;

pub(crate) use registrar::IdentityKeys;
use signals::Signals;

/// How long a request waits for the registry's answer, which brings the secret to check it with.
const PATIENCE: Duration = Duration::from_secs(2);
const DEREGISTER: Duration = Duration::from_secs(5);

/// One instance of one service. Clones are the same instance.
#[derive(Debug, Clone)]
pub struct Plugin(Arc<Inner>);

/// Where a plug-in stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not started.
    New,
    /// Somebody else registers this process (`portico run`).
    Managed,
    /// Looking for its registry.
    Waiting,
    /// Registered, heartbeats are answered.
    Registered,
    /// Taken out by an operator; heartbeats go on, because an operator may bring it back.
    Drained,
    /// Stopping.
    Stopping,
}

/// Why a plug-in cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is nothing to register with.
    #[error("PORTICO_TOKEN is not set: make one with `portico plugin token`, or use `portico run`")]
    NoToken,
    /// The HTTP client cannot be built.
    #[error("cannot build the HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

/// The outcome of [`Plugin::check`].
#[derive(Debug)]
pub enum Checked {
    /// The request came through the gateway; this is who calls.
    Identified(Identity),
    /// A path that is served without a signature, such as the OpenAPI document.
    Unsigned,
    /// Answer this at once: the health endpoint, or a refusal.
    Answer(Response<String>),
}

#[derive(Debug)]
struct Inner {
    config: ServiceConfig,
    options: Options,
    client: Client,
    verifier: Verifier,
    health_path: String,
    openapi_path: Option<String>,
    status: Mutex<Status>,
    /// A registration is under way.
    registering: watch::Sender<bool>,
    stopping: watch::Sender<bool>,
    /// Signals after the first one, once that has come.
    signals: Mutex<Option<Signals>>,
    registrar: Mutex<Option<JoinHandle<()>>>,
    #[cfg(feature = "jwks")]
    keys: crate::jwks::Keys,
}

#[derive(Debug)]
struct Status {
    state: State,
    id: Option<String>,
    identity: IdentityKeys,
    /// Where services call each other.
    internal_url: Option<String>,
}

impl Plugin {
    /// A plug-in that has not started yet.
    ///
    /// # Errors
    /// [`StartError::NoToken`] when there is neither a token nor an instance secret.
    pub fn new(mut config: ServiceConfig, options: Options) -> Result<Self, StartError> {
        let managed = options.instance_secret.is_some();
        if !managed && options.token.is_none() {
            return Err(StartError::NoToken);
        }
        if let Some(name) = &options.service {
            config.name.clone_from(name);
        }
        config.port = options.port.unwrap_or(config.port);
        let inner = Inner {
            client: Client::new(&options.url)?,
            verifier: Verifier::new(options.instance_secret.clone()),
            health_path: path_of(&config.health_check_url),
            openapi_path: config.openapi_url.as_deref().map(path_of),
            status: Mutex::new(Status {
                state: if managed { State::Managed } else { State::New },
                id: None,
                identity: IdentityKeys::default(),
                internal_url: None,
            }),
            registering: watch::Sender::new(false),
            stopping: watch::Sender::new(false),
            signals: Mutex::new(None),
            registrar: Mutex::new(None),
            #[cfg(feature = "jwks")]
            keys: crate::jwks::Keys::default(),
            config,
            options,
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Name of the service.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.config.name
    }

    /// Where to listen: the configured host, or every address for `auto`; port 0 takes a free one.
    #[must_use]
    pub fn bind_address(&self) -> (String, u16) {
        let host = if self.0.config.host == "auto" {
            "0.0.0.0"
        } else {
            &self.0.config.host
        };
        (host.to_owned(), self.0.config.port)
    }

    /// Registers in the background, with the port that listens by now. Repeating it is harmless; under
    /// `portico run` it does nothing. Must be called within a Tokio runtime.
    pub fn start(&self, port: u16) {
        let mut status = self.0.status();
        if status.state == State::New {
            status.state = State::Waiting;
            let task = tokio::spawn(registrar::run(Arc::clone(&self.0), port));
            *self
                .0
                .registrar
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(task);
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.0.status().state
    }

    /// Id of the instance, once it is registered.
    #[must_use]
    pub fn id(&self) -> Option<String> {
        self.0.status().id.clone()
    }

    /// Where the public keys of the gateway's identity are (JWKS, RFC 7517), once it is registered.
    #[must_use]
    pub fn jwks_url(&self) -> Option<String> {
        Some(self.0.status().identity.jwks_url.clone()).filter(|url| !url.is_empty())
    }

    /// The issuer whose keys those are, once it is registered.
    #[must_use]
    pub fn issuer(&self) -> Option<String> {
        Some(self.0.status().identity.issuer.clone()).filter(|issuer| !issuer.is_empty())
    }

    /// The verifier, for servers that do not go through [`Plugin::check`].
    #[must_use]
    pub fn verifier(&self) -> &Verifier {
        &self.0.verifier
    }

    /// Checks one request before it is served.
    ///
    /// The health endpoint is answered here, 503 from the moment that the process is told to stop; GET and
    /// HEAD of the OpenAPI document need no signature; whatever else did not come through the gateway is
    /// answered 401. The first requests may be faster than the registry's answer to the registration, so
    /// they wait for it up to 2 s.
    pub async fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Checked {
        let reading = method == Method::GET || method == Method::HEAD;
        if reading && uri.path() == self.0.health_path {
            return Checked::Answer(self.health());
        }
        if reading && self.0.openapi_path.as_deref() == Some(uri.path()) {
            return Checked::Unsigned;
        }
        if self.0.verifier.newest().is_none() {
            let mut registering = self.0.registering.subscribe();
            // Out of time means that there is still no secret, and that is refused below.
            let _ = timeout(PATIENCE, registering.wait_for(|under_way| !under_way)).await;
        }
        let target = uri
            .path_and_query()
            .map_or("/", http::uri::PathAndQuery::as_str);
        match self
            .0
            .verifier
            .verify(method, target, headers, SystemTime::now())
        {
            Ok(identity) => Checked::Identified(identity),
            Err(refused) => {
                tracing::warn!(%method, path = uri.path(), %refused, "refused a request that the gateway did not sign");
                let code = format!("{}.signature_invalid", self.name());
                let problem = Problem::new(
                    StatusCode::UNAUTHORIZED,
                    code,
                    "this service answers its gateway only",
                );
                Checked::Answer(problem.into_response())
            }
        }
    }

    fn health(&self) -> Response<String> {
        let stopping = *self.0.stopping.borrow();
        let mut response = Response::new(
            if stopping {
                r#"{"status":"draining"}"#
            } else {
                r#"{"status":"ok"}"#
            }
            .to_owned(),
        );
        if stopping {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        response.headers_mut().insert(
            http::header::CONTENT_TYPE,
            http::HeaderValue::from_static("application/json"),
        );
        response
    }

    /// Calls a service through the gateway as this service, by the listener between services where the
    /// registration named one. `path` begins with `/` and may have a query; `service` may be `name@version`.
    ///
    /// # Errors
    /// [`CallError`]; a refusal of gateway or service is [`CallError::Problem`].
    pub async fn call(&self, service: &str, path: &str, call: Call) -> Result<Answer, CallError> {
        let path = format!("/api/{service}/{}", path.trim_start_matches('/'));
        let internal = self.0.status().internal_url.clone();
        let url = self.0.client.url_below(internal.as_deref(), &path);
        let credential = self.0.credential();
        let outgoing = call.outgoing(url, credential.as_ref())?;
        self.0.client.send(outgoing).await.map(Answer::from)
    }

    /// Waits for SIGTERM or SIGINT, then [drains](Plugin::drain). Made to be the signal of a server's graceful
    /// shutdown: when it resolves, stop listening and finish what is in flight, for as long as
    /// [`Plugin::overdue`] has not resolved.
    pub async fn stopped(&self) {
        let mut signals = Signals::new();
        signals.next().await;
        // What comes from now on is the second one, however late `overdue` looks.
        *self
            .0
            .signals
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(signals);
        self.drain().await;
    }

    /// Deregisters and serves on for a moment, while the news travels.
    pub async fn drain(&self) {
        self.0.stopping.send_replace(true);
        let registrar = self
            .0
            .registrar
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(mut task) = registrar {
            // A registration under way must end, so that there is an id to deregister.
            if timeout(DEREGISTER, &mut task).await.is_err() {
                task.abort();
            }
        }
        let id = {
            let mut status = self.0.status();
            status.state = State::Stopping;
            status.id.take()
        };
        if let Some(id) = id {
            let credential = self.0.credential();
            let body = serde_json::json!({ "reason": "stopping" });
            let path = format!("deregister/{id}");
            let answer = self
                .0
                .client
                .registry::<serde_json::Value>(&path, credential.as_ref(), &body, DEREGISTER)
                .await;
            if let Err(error) = answer {
                tracing::warn!(%error, "cannot deregister");
            }
        }
        sleep(self.0.options.linger).await;
    }

    /// Resolves when stopping takes too long, or when a second signal says that it must end now. Poll it from
    /// the beginning, beside the server.
    pub async fn overdue(&self) {
        let mut stopping = self.0.stopping.subscribe();
        // The sender lives as long as `self`.
        let _ = stopping.wait_for(|stopping| *stopping).await;
        let signals = self
            .0
            .signals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let mut signals = signals.unwrap_or_else(Signals::new);
        tokio::select! {
            () = sleep(2 * DEREGISTER + self.0.options.linger + self.0.options.drain) => {}
            () = signals.next() => {}
        }
    }

    /// Claims of an `X-Portico-Identity` statement that was made for this service.
    ///
    /// # Errors
    /// [`StatementError`](crate::StatementError) says why it is not believed.
    #[cfg(feature = "jwks")]
    pub async fn verify_statement<T: serde::de::DeserializeOwned>(
        &self,
        jwt: &str,
    ) -> Result<T, crate::StatementError> {
        self.verify_token(jwt, "pi+jwt", self.name()).await
    }

    /// Claims of any token that the gateway's keys signed (EdDSA), with its type and audience.
    ///
    /// # Errors
    /// [`StatementError`](crate::StatementError) says why it is not believed.
    #[cfg(feature = "jwks")]
    pub async fn verify_token<T: serde::de::DeserializeOwned>(
        &self,
        jwt: &str,
        kind: &str,
        audience: &str,
    ) -> Result<T, crate::StatementError> {
        let keys = self.0.status().identity.clone();
        self.0
            .keys
            .verify(
                &self.0.client,
                &keys,
                jwt,
                kind,
                audience,
                SystemTime::now(),
            )
            .await
    }
}

impl Inner {
    fn status(&self) -> std::sync::MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this instance shows: its secret, else its registration token.
    fn credential(&self) -> Option<Secret> {
        self.verifier
            .newest()
            .or_else(|| self.options.token.clone())
    }
}

/// The path of a path or URL.
fn path_of(target: &str) -> String {
    target
        .parse::<Uri>()
        .map_or_else(|_| target.to_owned(), |uri| uri.path().to_owned())
}
