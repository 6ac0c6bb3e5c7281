//! `/cache`: purge what is stored, look at how much there is, ask what an address would meet.

use std::sync::atomic::Ordering;

use axum::extract::State;
use http::{HeaderMap, Uri, header};
use portico_base::{Access, Permission, id};
use portico_web::{ApiResult, Cx, Json, Query, Routes, routes};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Api;
use crate::cache::{By, Outcome};
use crate::error::Error;
use crate::pipeline::operate::Audience;
use crate::pipeline::{CacheQuestion, CacheTold};
use crate::purges::Wish;

/// What to purge.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = GatewayPurge)]
struct PurgeBody {
    /// `url`, `prefix`, `tag`, `service` or `tenant`.
    #[schema(value_type = String)]
    by: By,
    /// The address, prefix, tag, service or tenant.
    value: String,
    /// Only this tenant's copies.
    tenant: Option<String>,
    /// Stale from now on (the default) instead of gone.
    #[serde(default = "yes")]
    soft: bool,
}

const fn yes() -> bool {
    true
}

/// A purge that is in force on this replica, and on the others within a second.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = GatewayPurged)]
struct Purged {
    /// When it took force, in Unix milliseconds.
    at_ms: u64,
}

/// What the cache of this replica holds and did since its start.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = GatewayCacheStats)]
struct Stats {
    /// Answers in memory that are fresh.
    l1_entries: u64,
    /// Their size in bytes.
    l1_bytes: u64,
    /// Answers in the shared tier, of all replicas, when they were counted last; 0 without one.
    l2_entries: u64,
    /// Their size in bytes.
    l2_bytes: u64,
    /// Answers kept for when their origin fails.
    l3_entries: u64,
    /// Their size in bytes.
    l3_bytes: u64,
    /// Requests that wait for somebody else's fetch.
    waiters: u64,
    /// Fetches under way.
    fetches: u64,
    /// Requests by how they met the cache.
    requests: Requests,
    /// Share of requests that were answered without a service, of those that the cache was asked for; 0 to 1.
    hit_ratio: f64,
    /// Answers of services that were stored.
    stored: u64,
    /// Answers of services that the rules of caching refused.
    refused: u64,
    /// Purge orders, those of other replicas included.
    purges: u64,
    /// Errors and time-outs of the shared tier.
    shared_errors: u64,
    /// Writes to the shared tier that were left out because too many waited.
    shared_dropped: u64,
}

/// Requests by how they met the cache.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = GatewayCacheRequests)]
struct Requests {
    hit_l1: u64,
    hit_l2: u64,
    /// Waited for another request's answer.
    collapsed: u64,
    /// The service said that the stored answer is still good.
    revalidated: u64,
    /// Stale within its window, refreshed behind.
    stale: u64,
    /// Stale because the service failed.
    stale_error: u64,
    miss: u64,
    /// Not storable a moment ago, so nobody waited.
    pass: u64,
    /// Around the cache.
    bypass: u64,
}

/// Which address.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Asked {
    /// `https://host/path?query`, or `/path?query` on the host of this request.
    url: String,
    /// The id of the tenant whose copy is meant; strangers belong to the default tenant.
    tenant: Option<Uuid>,
}

/// What a stranger's GET of the address would meet.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = GatewayCacheAnswer)]
struct Explained {
    url: String,
    /// Absent when no service answers there.
    found: Option<CacheTold>,
}

/// Adds the routes.
pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    let write = Permission::new("gateway:cache:write");
    let read = || {
        Access::AnyOf(vec![
            Permission::new("gateway:cache:read"),
            Permission::new("gateway:cache:write"),
        ])
    };
    all.add(Access::Permission(write), routes!(purge))
        .add(read(), routes!(stats))
        .add(read(), routes!(explain))
}

/// Purge the cache
///
/// Purges what is stored by URL, prefix, tag, service or tenant.
#[utoipa::path(post, path = "/cache/purge", tag = "gateway", request_body = PurgeBody,
    responses((status = 200, body = Purged)))]
async fn purge(
    State(api): State<Api>,
    Cx(cx): Cx,
    Json(body): Json<PurgeBody>,
) -> ApiResult<Json<Purged>> {
    let wish = Wish {
        by: body.by,
        value: body.value,
        tenant: body.tenant,
        soft: body.soft,
    };
    let at_ms = api.purges.order(&cx, wish).await?;
    Ok(Json(Purged { at_ms }))
}

/// Show figures of the cache
///
/// What the cache of this replica holds and did since its start.
#[utoipa::path(get, path = "/cache/stats", tag = "gateway", responses((status = 200, body = Stats)))]
async fn stats(State(api): State<Api>) -> Json<Stats> {
    let cache = api.purges.cache();
    let (gauges, stats) = (cache.gauges(), cache.stats());
    let of = |outcome| stats.total(outcome);
    let requests = Requests {
        hit_l1: of(Outcome::HitL1),
        hit_l2: of(Outcome::HitL2),
        collapsed: of(Outcome::Collapsed),
        revalidated: of(Outcome::Revalidated),
        stale: of(Outcome::Stale),
        stale_error: of(Outcome::StaleError),
        miss: of(Outcome::Miss),
        pass: of(Outcome::Pass),
        bypass: of(Outcome::Bypass),
    };
    Json(Stats {
        l1_entries: gauges.l1_entries,
        l1_bytes: gauges.l1_bytes,
        l2_entries: gauges.l2_entries,
        l2_bytes: gauges.l2_bytes,
        l3_entries: gauges.l3_entries,
        l3_bytes: gauges.l3_bytes,
        waiters: gauges.waiters,
        fetches: gauges.fetches,
        hit_ratio: requests.hit_ratio(),
        requests,
        stored: stats.stored.load(Ordering::Relaxed),
        refused: stats.refused.load(Ordering::Relaxed),
        purges: stats.purges.load(Ordering::Relaxed),
        shared_errors: stats.shared_errors.load(Ordering::Relaxed),
        shared_dropped: stats.shared_dropped.load(Ordering::Relaxed),
    })
}

/// Explain an address in the cache
///
/// What a GET of an address would meet in the cache of this replica: the key, the rule, and what is stored.
#[utoipa::path(get, path = "/cache/explain", tag = "gateway", params(Asked),
    responses((status = 200, body = Explained)))]
async fn explain(
    State(api): State<Api>,
    Cx(cx): Cx,
    headers: HeaderMap,
    Query(asked): Query<Asked>,
) -> ApiResult<Json<Explained>> {
    let own = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or("");
    let address = Address::parse(&asked.url, own)
        .ok_or_else(|| Error::field("url", "invalid", "must be an http(s) URL or a path"))?;
    let tenant = match Audience::of(&cx.caller.principal) {
        Audience::All => asked.tenant.unwrap_or(id::TENANT_DEFAULT),
        Audience::Tenant(own) if asked.tenant.is_none_or(|asked| asked == own) => own,
        Audience::Tenant(_) => {
            return Err(Error::field("tenant", "foreign", "must be your own tenant").into());
        }
    };
    let question = CacheQuestion {
        https: address.https,
        host: address.host,
        path: address.uri.path(),
        query: address.uri.query(),
        tenant,
        unix_ms: u64::try_from(cx.clock.unix_ms()).unwrap_or(0),
    };
    let found = api
        .purges
        .gate()
        .and_then(|gate| gate.explain_cache(&question));
    Ok(Json(Explained {
        found,
        url: asked.url,
    }))
}

/// A URL taken apart without being changed: what clients send is the key, not what a parser makes of it.
struct Address<'a> {
    https: bool,
    host: &'a str,
    uri: Uri,
}

impl<'a> Address<'a> {
    fn parse(url: &'a str, own_host: &'a str) -> Option<Self> {
        let url = url.split('#').next().unwrap_or(url);
        let (https, rest) = if let Some(rest) = url.strip_prefix("https://") {
            (true, rest)
        } else if let Some(rest) = url.strip_prefix("http://") {
            (false, rest)
        } else if url.starts_with('/') && !url.starts_with("//") {
            let uri = url.parse().ok()?;
            return Some(Self {
                https: false,
                host: own_host,
                uri,
            });
        } else {
            return None;
        };
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(at);
        let path = match path {
            "" => "/".to_owned(),
            path if path.starts_with('?') => format!("/{path}"),
            path => path.to_owned(),
        };
        if host.is_empty() || host.contains('@') {
            return None;
        }
        Some(Self {
            https,
            host,
            uri: path.parse().ok()?,
        })
    }
}

impl Requests {
    fn hit_ratio(&self) -> f64 {
        let hits = self.hit_l1 + self.hit_l2 + self.collapsed + self.stale + self.stale_error;
        let asked = hits + self.revalidated + self.miss + self.pass;
        if asked == 0 {
            return 0.0;
        }
        // Exact up to 2^53 requests.
        hits as f64 / asked as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_as_they_are() {
        for (url, expected) in [
            (
                "https://Example.org:8443/a%2Fb/../c?x#y",
                Some((true, "Example.org:8443", "/a%2Fb/../c?x")),
            ),
            ("http://h?x=1", Some((false, "h", "/?x=1"))),
            ("http://h", Some((false, "h", "/"))),
            ("/a?b", Some((false, "own", "/a?b"))),
            ("//evil/a", None),
            ("http://u@h/", None),
            ("ftp://h/", None),
            ("a", None),
            ("", None),
        ] {
            let got = Address::parse(url, "own");
            let got = got.as_ref().map(|a| (a.https, a.host, a.uri.to_string()));
            let got = got.as_ref().map(|(s, h, u)| (*s, *h, u.as_str()));
            assert_eq!(got, expected, "{url}");
        }
    }

    #[test]
    fn what_went_around_is_no_miss() {
        let none = Requests {
            hit_l1: 0,
            hit_l2: 0,
            collapsed: 0,
            revalidated: 0,
            stale: 0,
            stale_error: 0,
            miss: 0,
            pass: 0,
            bypass: 5,
        };
        assert!(none.hit_ratio().abs() < f64::EPSILON);
        let some = Requests {
            hit_l1: 3,
            miss: 1,
            ..none
        };
        assert!((some.hit_ratio() - 0.75).abs() < f64::EPSILON);
    }
}
