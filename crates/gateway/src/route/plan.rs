//! What holds for a route besides where it leads: time-outs, retries, access, limits, CORS, transforms, caching.

use std::sync::Arc;
use std::time::Duration;

use http::Method;

use super::callers::Callers;
use crate::cache::RulePolicy;
use crate::limit::Limited;
use crate::objects::doc::{AccessDoc, Object, Objects, RouteDoc, Scope};
use crate::pipeline::cors::Cors;
use crate::pipeline::settings::Values;
use crate::pipeline::transform::Transform;

/// Everything that is decided before a request comes.
#[derive(Debug)]
pub struct Plan {
    /// Name of the service, empty for routes without one.
    pub service: Arc<str>,
    /// Name of the route; `api` for the one that nobody wrote.
    pub route: Arc<str>,
    /// Number of the pair for metrics; 0 stands for all beyond the first.
    pub label: u32,
    pub connect: Duration,
    pub first_byte: Duration,
    pub between_bytes: Duration,
    pub total: Option<Duration>,
    pub idle_stream: Duration,
    pub attempts: u8,
    pub retry_statuses: Box<[u16]>,
    pub failure_statuses: Box<[u16]>,
    pub access: Option<AccessDoc>,
    /// `u64::MAX` for no limit.
    pub body_max: u64,
    pub limits: Box<[(Filter, Arc<Limited>)]>,
    pub cors: Box<[(Filter, Arc<Cors>)]>,
    pub transforms: Box<[(Filter, Arc<Transform>)]>,
    pub cache: Box<[(Filter, Arc<RulePolicy>)]>,
}

/// What is left of a scope once service and route are known.
#[derive(Debug, Default)]
pub struct Filter {
    prefix: Option<Box<str>>,
    methods: Box<[Method]>,
}

impl Filter {
    fn of(scope: &Scope) -> Self {
        Self {
            prefix: scope
                .path_prefix
                .as_deref()
                .map(|p| p.trim_end_matches('/').into()),
            methods: scope
                .methods
                .iter()
                .filter_map(|m| Method::from_bytes(m.as_bytes()).ok())
                .collect(),
        }
    }

    #[must_use]
    pub fn fits(&self, method: &Method, path: &str) -> bool {
        let below = |prefix: &str| {
            path.strip_prefix(prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        (self.methods.is_empty() || self.methods.contains(method))
            && self.prefix.as_deref().is_none_or(below)
    }
}

/// The first of a list that fits a request.
pub fn first<'p, T>(
    list: &'p [(Filter, Arc<T>)],
    method: &Method,
    path: &str,
) -> Option<&'p Arc<T>> {
    list.iter()
        .find(|(filter, _)| filter.fits(method, path))
        .map(|(_, it)| it)
}

/// Objects compiled once for all plans.
#[derive(Debug, Default)]
pub struct Compiled {
    pub limits: Vec<(Scope, Arc<Limited>)>,
    pub cors: Vec<(Scope, Arc<Cors>)>,
    pub transforms: Vec<(Scope, Arc<Transform>)>,
    pub cache: Vec<(Scope, Arc<RulePolicy>)>,
    pub callers: Arc<Callers>,
}

impl Compiled {
    #[must_use]
    pub fn of(objects: &Objects) -> Self {
        fn all<D, T>(
            list: &[Object<D>],
            scope: impl Fn(&D) -> &Scope,
            compile: impl Fn(&Object<D>) -> T,
        ) -> Vec<(Scope, Arc<T>)> {
            list.iter()
                .map(|o| (scope(&o.doc).clone(), Arc::new(compile(o))))
                .collect()
        }
        Self {
            limits: all(
                &objects.limits,
                |d| &d.scope,
                |o| Limited::compile(&o.name, &o.doc),
            ),
            cors: all(&objects.cors, |d| &d.scope, |o| Cors::compile(&o.doc)),
            transforms: all(
                &objects.transforms,
                |d| &d.scope,
                |o| Transform::compile(&o.doc),
            ),
            cache: all(&objects.cache_rules, |d| &d.scope, |o| o.doc.policy.clone()),
            callers: Arc::new(Callers::compile(&objects.callers)),
        }
    }
}

fn about<T>(list: &[(Scope, Arc<T>)], service: &str, route: &str) -> Box<[(Filter, Arc<T>)]> {
    let names = |list: &[String], name: &str| list.is_empty() || list.iter().any(|n| n == name);
    let fitting = list
        .iter()
        .filter(|(scope, _)| names(&scope.services, service) && names(&scope.routes, route));
    fitting
        .map(|(scope, it)| (Filter::of(scope), Arc::clone(it)))
        .collect()
}

impl Plan {
    /// The plan of a service's own route (no document) or of a written one.
    #[must_use]
    pub fn new(
        service: &Arc<str>,
        route: &Arc<str>,
        label: u32,
        doc: Option<&RouteDoc>,
        values: &Values,
        compiled: &Compiled,
    ) -> Self {
        let times = doc.map(|d| d.timeouts).unwrap_or_default();
        let ms = |wanted: Option<u32>, default: Duration| {
            wanted.map_or(default, |ms| Duration::from_millis(u64::from(ms)))
        };
        let retries = doc.map(|d| d.retries.clone()).unwrap_or_default();
        let mut cache = about(&compiled.cache, service, route).into_vec();
        if let Some(rule) = doc.and_then(|d| d.cache.clone()) {
            cache.insert(0, (Filter::default(), Arc::new(rule)));
        }
        let body_max = match doc
            .and_then(|d| d.body_max_bytes)
            .unwrap_or(values.body_max)
        {
            0 => u64::MAX,
            bytes => bytes,
        };
        Self {
            service: Arc::clone(service),
            route: Arc::clone(route),
            label,
            connect: ms(times.connect_ms, values.connect),
            first_byte: ms(times.first_byte_ms, values.first_byte),
            between_bytes: ms(times.between_bytes_ms, values.between_bytes),
            total: times
                .total_ms
                .map(|ms| Duration::from_millis(u64::from(ms))),
            idle_stream: times
                .idle_stream_s
                .map_or(values.idle_stream, |s| Duration::from_secs(u64::from(s))),
            attempts: retries.attempts.unwrap_or(values.attempts),
            retry_statuses: retries
                .statuses
                .unwrap_or_else(|| vec![502, 503, 504])
                .into(),
            failure_statuses: doc
                .map(|d| d.failure_statuses.clone().into())
                .unwrap_or_default(),
            access: doc.and_then(|d| d.access.clone()),
            body_max,
            limits: about(&compiled.limits, service, route),
            cors: about(&compiled.cors, service, route),
            transforms: about(&compiled.transforms, service, route),
            cache: cache.into(),
        }
    }
}
