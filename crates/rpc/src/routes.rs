//! The gRPC services of one part of the platform: each method with who may call it.

use std::collections::HashMap;
use std::convert::Infallible;

use axum::response::IntoResponse;
use portico_base::Access;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;
use tonic::service::Routes;

/// A method and who may call it.
#[derive(Debug, Clone)]
pub struct Method {
    pub(crate) name: &'static str,
    pub(crate) access: Access,
    pub(crate) streams: bool,
}

impl Method {
    /// A method that answers once, within the client's deadline or 30 s.
    #[must_use]
    pub const fn unary(name: &'static str, access: Access) -> Self {
        Self {
            name,
            access,
            streams: false,
        }
    }

    /// A method that streams: it ends when the client says, or when the process leaves.
    #[must_use]
    pub const fn stream(name: &'static str, access: Access) -> Self {
        Self {
            name,
            access,
            streams: true,
        }
    }
}

/// A method that nobody may call because nothing is declared for it, or a declared one that is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("gRPC method `{0}` is not declared, or declared and not there")]
pub struct Undeclared(pub String);

/// Services with their methods.
#[derive(Clone, Default)]
pub struct RpcRoutes {
    pub(crate) routes: Option<Routes>,
    /// By path, `/package.Service/Method`.
    pub(crate) methods: HashMap<String, Method>,
    pub(crate) services: Vec<&'static str>,
    pub(crate) descriptors: Vec<&'static [u8]>,
}

impl RpcRoutes {
    /// No services.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a generated server with its methods. A method that is not named is refused to everyone.
    #[must_use]
    pub fn add<S>(mut self, server: S, methods: impl IntoIterator<Item = Method>) -> Self
    where
        S: Service<http::Request<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Response: IntoResponse,
        S::Future: Send + 'static,
    {
        for method in methods {
            let path = format!("/{}/{}", S::NAME, method.name);
            self.methods.insert(path, method);
        }
        self.services.push(S::NAME);
        self.routes = Some(match self.routes.take() {
            None => Routes::new(server),
            Some(routes) => routes.add_service(server),
        });
        self
    }

    /// Adds the file descriptor set that the services come from, for reflection.
    #[must_use]
    pub fn describe(mut self, descriptors: &'static [u8]) -> Self {
        self.descriptors.push(descriptors);
        self
    }

    /// Adds the services of another part.
    pub fn extend(&mut self, other: Self) {
        self.methods.extend(other.methods);
        self.services.extend(other.services);
        self.descriptors.extend(other.descriptors);
        self.routes = match (self.routes.take(), other.routes) {
            (Some(mine), Some(others)) => {
                let both = mine.into_axum_router().merge(without_fallback(others));
                Some(Routes::from(both))
            }
            (mine, others) => mine.or(others),
        };
    }

    /// True without any service.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.routes.is_none()
    }

    /// Names of the services.
    #[must_use]
    pub fn services(&self) -> &[&'static str] {
        &self.services
    }

    /// Compares the declared methods with the described ones: whoever forgets one learns it at the start.
    ///
    /// # Errors
    /// Names the first that is only in one of both.
    pub fn check(&self) -> Result<(), Undeclared> {
        let mut described = Vec::new();
        for bytes in &self.descriptors {
            let set = FileDescriptorSet::decode(*bytes)
                .map_err(|error| Undeclared(format!("({error})")))?;
            for file in set.file {
                for service in &file.service {
                    let full = format!("{}.{}", file.package(), service.name());
                    if !self.services.contains(&&*full) {
                        continue;
                    }
                    for method in &service.method {
                        described.push(format!("/{full}/{}", method.name()));
                    }
                }
            }
        }
        let missing = described
            .iter()
            .find(|path| !self.methods.contains_key(*path));
        let unknown = self.methods.keys().find(|path| !described.contains(path));
        match missing.or(unknown) {
            Some(path) => Err(Undeclared(path.clone())),
            None => Ok(()),
        }
    }
}

/// Two routers with a fallback each cannot be merged; one answer `UNIMPLEMENTED` is enough.
fn without_fallback(routes: Routes) -> axum::Router {
    routes.into_axum_router().reset_fallback()
}
