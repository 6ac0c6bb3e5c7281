//! The immutable table: from host, path, method and headers to a service, a route, or the reason why not (GW-10…14).

use std::sync::Arc;

use foldhash::HashMap;
use http::{HeaderMap, Method};
use uuid::Uuid;

use super::callers::Callers;
use super::condition::Conditions;
use super::host::{HostKind, Hosts};
use super::path::{Normalised, is_clean_prefix};
use super::pattern::{Pattern, Tree};
use super::plan::Plan;
use super::service::ServiceNode;
use crate::objects::doc::{BlockDoc, RouteDoc, Target};
use crate::pipeline::settings::Values;

/// Everything that a request is decided by.
#[derive(Debug)]
pub struct Table {
    /// Position of the directory that it was made from.
    pub seq: u64,
    /// Version of the objects that it was made from.
    pub objects: u64,
    /// Milliseconds of the gateway's clock.
    pub built_ms: u64,
    pub values: Values,
    pub hosts: Hosts,
    pub blocks: Box<[Arc<BlockDoc>]>,
    pub(super) names: HashMap<Arc<str>, Arc<Named>>,
    pub(super) bound: HashMap<Box<str>, RouteSet>,
    /// Suffixes with their dot, longest first.
    pub(super) wild: Vec<(Box<str>, RouteSet)>,
    pub(super) any: RouteSet,
    /// Root prefixes of built-in services, longest first.
    pub(super) roots: Arc<[&'static str]>,
    /// Which service may call which.
    pub callers: Arc<Callers>,
}

/// All services of one name.
#[derive(Debug)]
pub struct Named {
    pub global: Option<Arc<ServiceNode>>,
    pub tenants: Vec<(Uuid, Arc<ServiceNode>)>,
    /// Runs in this process.
    pub builtin: bool,
    pub plan: Arc<Plan>,
}

impl Named {
    /// The service that a tenant reaches under this name: its own, else the global one.
    #[must_use]
    pub fn of(&self, tenant: Uuid) -> Option<&Arc<ServiceNode>> {
        let own = self
            .tenants
            .iter()
            .find(|(id, _)| *id == tenant)
            .map(|(_, node)| node);
        own.or(self.global.as_ref())
    }

    /// All of them, for lists.
    pub fn all(&self) -> impl Iterator<Item = &Arc<ServiceNode>> {
        self.global
            .iter()
            .chain(self.tenants.iter().map(|(_, node)| node))
    }
}

/// A written route, compiled.
#[derive(Debug)]
pub struct Route {
    pub name: Arc<str>,
    pub tenant: Option<Uuid>,
    pub doc: Arc<RouteDoc>,
    pub conditions: Conditions,
    /// For patterns: takes the parameters out of a path.
    pub pattern: Option<Pattern>,
    /// Segments that no `..` may climb above.
    pub depth: usize,
    pub plan: Arc<Plan>,
}

impl Route {
    /// The services that it may lead to, with their shares.
    pub fn services(&self) -> impl Iterator<Item = (&str, Option<&str>, u32)> {
        let (one, several) = match &self.doc.target {
            Target::Service(one) => (Some(one), [].as_slice()),
            Target::Services(several) => (None, several.as_slice()),
            _ => (None, [].as_slice()),
        };
        one.map(|t| (t.name.as_str(), t.version.as_deref(), 1))
            .into_iter()
            .chain(
                several
                    .iter()
                    .map(|t| (t.name.as_str(), t.version.as_deref(), t.weight)),
            )
    }
}

/// The routes of one host.
#[derive(Debug, Default)]
pub struct RouteSet {
    exact: Tree<Arc<Route>>,
    patterns: Tree<Arc<Route>>,
    prefixes: Tree<Arc<Route>>,
}

/// Which of the three looks a route belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Exact,
    Pattern,
    Prefix,
}

impl RouteSet {
    pub(super) fn insert(&mut self, look: Look, pattern: &Pattern, route: &Arc<Route>) {
        let tree = match look {
            Look::Exact => &mut self.exact,
            Look::Pattern => &mut self.patterns,
            Look::Prefix => &mut self.prefixes,
        };
        tree.insert(pattern, Arc::clone(route));
    }

    fn find(&self, ask: &Ask<'_, '_>) -> Option<&Arc<Route>> {
        let path = ask.path.as_str();
        let holds = |route: &Arc<Route>| route.conditions.hold(ask.method, ask.headers, ask.query);
        let same_slash = |route: &Arc<Route>| {
            route.doc.path.text().ends_with('/') == path.ends_with('/') && holds(route)
        };
        let trees = [
            (&self.exact, true),
            (&self.patterns, false),
            (&self.prefixes, false),
        ];
        trees
            .into_iter()
            .filter(|(tree, _)| !tree.is_empty())
            .find_map(|(tree, exact)| {
                if exact {
                    tree.find(path, same_slash)
                } else {
                    tree.find(path, holds)
                }
            })
    }
}

/// What a look-up needs of a request.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a, 'r> {
    /// Lower case, without port.
    pub host: &'a str,
    /// What [`Hosts::find`] says of it.
    pub kind: Option<HostKind>,
    pub path: &'a Normalised<'a>,
    pub query: Option<&'a str>,
    pub method: &'r Method,
    pub headers: &'r HeaderMap,
}

/// Where a request goes.
#[derive(Debug)]
pub enum Found<'t, 'a> {
    /// `/api/{service}[@version]/{path}`.
    Service {
        name: &'a str,
        named: &'t Arc<Named>,
        version: Option<&'a str>,
        below: &'a str,
    },
    /// A written route.
    Route(&'t Arc<Route>),
    /// A root path of a built-in service, by its prefix.
    Root(&'static str),
    /// `/` where nothing else is: the page to go to.
    Home(&'static str),
}

/// Why a request goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Miss<'a> {
    /// 421: none of our names.
    UnknownHost,
    /// 400: leads above the service's prefix, or hides something in it.
    BadPath,
    /// 404: no service of this name.
    NoService(&'a str),
    /// 404: nothing at this path.
    Nothing,
}

impl Table {
    /// The services of a name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Arc<Named>> {
        self.names.get(name)
    }

    /// All names, for lists.
    pub fn services(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Named>)> {
        self.names.iter()
    }

    /// Finds where a request goes.
    ///
    /// # Errors
    /// Says why it goes nowhere.
    pub fn find<'t, 'a>(&'t self, ask: &Ask<'a, '_>) -> Result<Found<'t, 'a>, Miss<'a>> {
        let kind = ask.kind.ok_or(Miss::UnknownHost)?;
        if let Some(route) = self.bound_route(ask) {
            return climb(route, ask);
        }
        let path = ask.path.as_str();
        if let Some(rest) = below(path, "/api")
            && matches!(
                kind,
                HostKind::Whole | HostKind::Api | HostKind::Admin | HostKind::Auth
            )
        {
            return self.service(ask, rest, 2, kind);
        }
        if let Some(root) = self.roots.iter().find(|root| below(path, root).is_some())
            && kind.shows(root)
        {
            return if ask.path.stays_below(1) {
                Ok(Found::Root(root))
            } else {
                Err(Miss::BadPath)
            };
        }
        if kind == HostKind::Api && path != "/" {
            return self.service(ask, path, 1, kind);
        }
        if kind == HostKind::Whole
            && let Some(route) = self.any.find(ask)
        {
            return climb(route, ask);
        }
        if path == "/"
            && matches!(kind, HostKind::Whole | HostKind::Admin)
            && let Some(home) = self.home()
        {
            return Ok(Found::Home(home));
        }
        Err(Miss::Nothing)
    }

    /// Where somebody who typed nothing but the host begins: the console, else the API page.
    fn home(&self) -> Option<&'static str> {
        let has = |root| self.roots.contains(&root);
        has("/console")
            .then_some("/console/")
            .or_else(|| has("/docs").then_some("/docs"))
    }

    fn bound_route(&self, ask: &Ask<'_, '_>) -> Option<&Arc<Route>> {
        if self.bound.is_empty() && self.wild.is_empty() {
            return None;
        }
        let exact = self.bound.get(ask.host).and_then(|set| set.find(ask));
        exact.or_else(|| {
            let fits = |suffix: &str| ask.host.len() > suffix.len() && ask.host.ends_with(suffix);
            self.wild
                .iter()
                .filter(|(suffix, _)| fits(suffix))
                .find_map(|(_, set)| set.find(ask))
        })
    }

    /// `rest` begins behind the prefix, with a slash or at its end.
    fn service<'t, 'a>(
        &'t self,
        ask: &Ask<'a, '_>,
        rest: &'a str,
        depth: usize,
        kind: HostKind,
    ) -> Result<Found<'t, 'a>, Miss<'a>> {
        let rest = rest.strip_prefix('/').unwrap_or(rest);
        let end = memchr::memchr(b'/', rest.as_bytes()).unwrap_or(rest.len());
        let (segment, below) = rest.split_at(end);
        if !ask.path.stays_below(depth) || !is_clean_prefix(segment) {
            return Err(Miss::BadPath);
        }
        let (name, version) = match memchr::memchr(b'@', segment.as_bytes()) {
            Some(at) => (&segment[..at], Some(&segment[at + 1..])),
            None => (segment, None),
        };
        if name.is_empty() {
            return Err(Miss::Nothing);
        }
        // The host of identity shows identity's API alone.
        if kind == HostKind::Auth && name != "identity" {
            return Err(Miss::NoService(name));
        }
        let named = self.names.get(name).ok_or(Miss::NoService(name))?;
        Ok(Found::Service {
            name,
            named,
            version,
            below: if below.is_empty() { "/" } else { below },
        })
    }
}

fn climb<'t, 'a>(route: &'t Arc<Route>, ask: &Ask<'a, '_>) -> Result<Found<'t, 'a>, Miss<'a>> {
    if ask.path.stays_below(route.depth) {
        Ok(Found::Route(route))
    } else {
        Err(Miss::BadPath)
    }
}

/// What is behind a prefix of whole segments.
fn below<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    path.strip_prefix(prefix)
        .filter(|rest| rest.is_empty() || rest.starts_with('/'))
}
