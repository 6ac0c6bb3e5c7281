//! How much of a thing a caller may have: rates and requests at once, by address, user, tenant, route … (GW-60…64).

pub mod concurrent;
pub mod headers;

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use portico_base::{Principal, PrincipalKind};
use portico_state::{Decision, KeyHasher, Limit, Limiter};

use crate::objects::doc::{Dimension, LimitDoc};
pub use concurrent::{Concurrent, Seat};

/// A compiled limit.
#[derive(Debug)]
pub struct Limited {
    pub name: Arc<str>,
    pub by: Dimension,
    header: Option<HeaderName>,
    rate: Option<Limit>,
    concurrent: Option<u32>,
    shared: bool,
    /// `RateLimit-Policy` of this limit.
    policy: HeaderValue,
}

/// The parts of a request that limits count by.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    pub address: IpAddr,
    pub principal: &'a Principal,
    pub service: &'a str,
    pub route: &'a str,
    /// Method and path as declared; empty when the path is not declared.
    pub endpoint: &'a str,
    pub headers: &'a HeaderMap,
    /// Claims of the token that limits count by.
    pub claims: &'a [(Box<str>, Box<str>)],
}

/// The limit that has least left, for the answer's headers.
#[derive(Debug, Clone)]
pub struct Tightest {
    pub policy: HeaderValue,
    pub name: Arc<str>,
    pub limit: u32,
    pub remaining: u32,
    pub reset_s: u32,
}

/// A limit that says no.
#[derive(Debug, Clone)]
pub struct Refused {
    pub tightest: Tightest,
    pub retry_after_s: u32,
    pub dimension: &'static str,
}

impl Limited {
    /// Compiles a document.
    #[must_use]
    pub fn compile(name: &Arc<str>, doc: &LimitDoc) -> Self {
        let rate = doc.per_s.map(|per_s| rate(per_s, doc.burst));
        Self {
            concurrent: doc.concurrent,
            ..Self::new(name, doc.by.clone(), rate, doc.shared)
        }
    }

    /// A limit of the settings or of an endpoint; nothing for a rate of 0.
    #[must_use]
    pub fn per_second(
        name: &str,
        by: Dimension,
        per_s: f64,
        burst: Option<u32>,
        shared: bool,
    ) -> Option<Self> {
        (per_s > 0.0).then(|| Self::new(&Arc::from(name), by, Some(rate(per_s, burst)), shared))
    }

    /// Only so many at the same time; nothing for 0.
    #[must_use]
    pub fn at_once(name: &str, by: Dimension, most: u32) -> Option<Self> {
        (most > 0).then(|| Self {
            concurrent: Some(most),
            ..Self::new(&Arc::from(name), by, None, false)
        })
    }

    fn new(name: &Arc<str>, by: Dimension, rate: Option<Limit>, shared: bool) -> Self {
        let header = match &by {
            Dimension::Header(name) => HeaderName::from_bytes(name.as_bytes()).ok(),
            _ => None,
        };
        let policy = rate.map_or_else(
            || format!("\"{name}\""),
            |r| format!("\"{name}\";q={};w={}", r.burst, window_s(r)),
        );
        let policy = HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("\"limit\""));
        Self {
            name: Arc::clone(name),
            by,
            header,
            rate,
            concurrent: None,
            shared,
            policy,
        }
    }

    /// The number that stands for the caller under this limit; nothing when it does not concern it.
    #[must_use]
    pub fn key(&self, hasher: &KeyHasher, subject: &Subject<'_>) -> Option<u64> {
        let network;
        let principal = subject.principal;
        let value: &[u8] = match &self.by {
            Dimension::Address => {
                network = network_of(subject.address);
                &network
            }
            Dimension::User if principal.is_authenticated() => principal.subject.as_bytes(),
            Dimension::ApiKey if principal.kind == PrincipalKind::ApiKey => {
                principal.subject.as_bytes()
            }
            Dimension::Tenant if principal.is_authenticated() => principal.tenant.as_bytes(),
            Dimension::User | Dimension::ApiKey | Dimension::Tenant => return None,
            Dimension::Service => subject.service.as_bytes(),
            Dimension::Route => subject.route.as_bytes(),
            Dimension::Endpoint => subject.endpoint.as_bytes(),
            Dimension::Header(_) => subject.headers.get(self.header.as_ref()?)?.as_bytes(),
            Dimension::Claim(name) => {
                let claim = subject.claims.iter().find(|(have, _)| **have == **name)?;
                claim.1.as_bytes()
            }
        };
        Some(hasher.key(&[self.name.as_bytes(), self.by.as_str().as_bytes(), value]))
    }

    /// Takes one request out of the rate.
    ///
    /// # Errors
    /// When nothing is left.
    pub fn take(
        &self,
        limiter: &Limiter,
        key: u64,
        now_ns: u64,
    ) -> Result<Option<Tightest>, Refused> {
        let Some(rate) = self.rate else {
            return Ok(None);
        };
        let decision = if self.shared {
            limiter.check(key, rate, now_ns)
        } else {
            limiter.check_local(key, rate, now_ns)
        };
        let tightest = self.tightest(rate, &decision);
        match decision.retry_after_s() {
            Some(retry_after_s) if !decision.allowed => Err(self.refused(tightest, retry_after_s)),
            _ if !decision.allowed => Err(self.refused(tightest, 1)),
            _ => Ok(Some(tightest)),
        }
    }

    /// Takes a seat among the requests at the same time; it is given back when dropped.
    ///
    /// # Errors
    /// When all are taken.
    pub fn sit(&self, table: &Arc<Concurrent>, key: u64) -> Result<Option<Seat>, Refused> {
        let Some(most) = self.concurrent else {
            return Ok(None);
        };
        table.sit(key, most).map_err(|_| {
            let tightest = Tightest {
                policy: self.policy.clone(),
                name: Arc::clone(&self.name),
                limit: most,
                remaining: 0,
                reset_s: 1,
            };
            self.refused(tightest, 1)
        })
    }

    fn tightest(&self, rate: Limit, decision: &Decision) -> Tightest {
        let reset_s =
            u32::try_from(decision.reset_after_ns.div_ceil(1_000_000_000)).unwrap_or(u32::MAX);
        Tightest {
            policy: self.policy.clone(),
            name: Arc::clone(&self.name),
            limit: rate.burst,
            remaining: decision.remaining,
            reset_s,
        }
    }

    fn refused(&self, tightest: Tightest, retry_after_s: u32) -> Refused {
        Refused {
            tightest,
            retry_after_s,
            dimension: self.by.as_str(),
        }
    }
}

/// A rate whose burst is one second's worth, at least 1, when nothing else is said.
fn rate(per_s: f64, burst: Option<u32>) -> Limit {
    Limit::new(per_s, burst.unwrap_or_else(|| (per_s.ceil() as u32).max(1)))
}

/// Seconds in which a whole burst comes back.
fn window_s(rate: Limit) -> u64 {
    ((f64::from(rate.burst) / rate.rate_per_s).ceil() as u64).max(1)
}

/// The address that is counted: all of IPv4, the /64 of IPv6.
#[must_use]
pub fn network_of(address: IpAddr) -> [u8; 9] {
    let mut out = [0; 9];
    match address {
        IpAddr::V4(v4) => out[1..5].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => out[1..5].copy_from_slice(&v4.octets()),
            None => {
                out[0] = 6;
                out[1..].copy_from_slice(&v6.octets()[..8]);
            }
        },
    }
    out
}

/// Of two limits the one with the smaller share left.
#[must_use]
pub fn tighter(a: Option<Tightest>, b: Option<Tightest>) -> Option<Tightest> {
    match (a, b) {
        (Some(a), Some(b)) => {
            let left = |t: &Tightest| f64::from(t.remaining) / f64::from(t.limit.max(1));
            Some(if left(&b) < left(&a) { b } else { a })
        }
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use portico_base::id::TENANT_DEFAULT;

    use super::*;

    fn key(limited: &Limited, subject: &Subject<'_>) -> Option<u64> {
        limited.key(&KeyHasher::new(1), subject)
    }

    #[test]
    fn limits_count_by_what_they_name() {
        let (anonymous, headers) = (Principal::anonymous(), HeaderMap::new());
        let user = Principal::new(PrincipalKind::User, "u", TENANT_DEFAULT);
        let claims = [("plan".into(), "free".into())];
        let base = Subject {
            address: [10, 0, 0, 1].into(),
            principal: &anonymous,
            service: "s",
            route: "r",
            endpoint: "GET /x",
            headers: &headers,
            claims: &claims,
        };
        let limit = |by| Limited::per_second("l", by, 1.0, None, false).expect("a rate");
        assert_eq!(key(&limit(Dimension::User), &base), None, "nobody is known");
        assert_eq!(key(&limit(Dimension::Header("x-a".into())), &base), None);
        assert!(key(&limit(Dimension::Claim("plan".into())), &base).is_some());
        let known = Subject {
            principal: &user,
            ..base
        };
        assert!(
            key(&limit(Dimension::User), &known).is_some()
                && key(&limit(Dimension::ApiKey), &known).is_none()
        );
        let v6 = |text: &str| Subject {
            address: text.parse().expect("an address"),
            ..base
        };
        let address = limit(Dimension::Address);
        assert_eq!(
            key(&address, &v6("2001:db8::1")),
            key(&address, &v6("2001:db8::ffff:2"))
        );
        assert_ne!(
            key(&address, &v6("2001:db8::1")),
            key(&address, &v6("2001:db8:0:1::1"))
        );
        assert_eq!(key(&address, &v6("::ffff:10.0.0.1")), key(&address, &base));
        assert!(Limited::per_second("l", Dimension::User, 0.0, None, false).is_none());
    }

    #[test]
    fn policies_and_the_tightest_are_said() {
        let limited =
            Limited::per_second("api", Dimension::Address, 2.0, Some(10), false).expect("a rate");
        assert_eq!(limited.policy, "\"api\";q=10;w=5");
        let t = |remaining, limit| {
            Some(Tightest {
                policy: HeaderValue::from_static("x"),
                name: "x".into(),
                limit,
                remaining,
                reset_s: 1,
            })
        };
        assert_eq!(tighter(t(5, 10), t(2, 100)).map(|t| t.limit), Some(100));
        assert_eq!(tighter(None, t(1, 1)).map(|t| t.limit), Some(1));
    }
}
