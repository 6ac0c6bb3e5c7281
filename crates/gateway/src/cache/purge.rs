//! Purging by URL, prefix, tag, service or tenant at a bounded cost, without walking the cache.
//!
//! An order only notes "everything fetched before now is out" for its target (prefixes go into a short list). A
//! look-up compares one counter; only after a new order are an object's own handful of targets read again.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use super::key;
use super::marks::{Marks, Presence};

/// Prefix orders kept one by one; older ones widen to "everything".
const PREFIXES_MAX: usize = 256;
/// Longest target of an order, bytes.
const VALUE_MAX: usize = 2048;
/// Most tags of one answer, and the length of each.
pub(super) const TAGS_MAX: usize = 64;
const TAG_BYTES_MAX: usize = 256;

/// What an order selects by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// `https://host/path?query`, `host/path?query`, or `/path?query` on every host.
    Url,
    /// Like a URL, without a query; everything that begins with it.
    Prefix,
    /// A member of the answers' `Cache-Tag` field.
    Tag,
    Service,
    Tenant,
}

/// One purge, as it travels over the bus and lies in the shared ledger. Unknown fields of newer replicas are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeOrder {
    pub by: By,
    pub value: String,
    /// Only this tenant's copies; none for all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Stale from now on instead of gone.
    #[serde(default = "yes")]
    pub soft: bool,
    pub at_ms: u64,
}

/// What the orders so far mean for one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Live,
    /// Stale since then, Unix milliseconds.
    StaleSince(u64),
    Gone,
}

/// What an object is purged by: its address, owner and tags, and the hashes of all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    pub host: String,
    pub path: String,
    pub query: Option<String>,
    pub tenant: String,
    pub service: String,
    pub tags: Vec<String>,
    targets: Box<[u64]>,
    /// The target of the address for its tenant alone.
    url: u64,
}

/// The orders that this process knows.
pub struct Ledger {
    epoch: AtomicU64,
    marks: Marks,
    presence: Presence,
    prefixes: RwLock<Prefixes>,
}

#[derive(Default)]
struct Prefixes {
    orders: Vec<PrefixOrder>,
    /// Everything fetched before these times is gone, or stale.
    floor_hard: u64,
    floor_soft: u64,
}

struct PrefixOrder {
    host: Option<String>,
    path: String,
    tenant: Option<String>,
    soft: bool,
    at_ms: u64,
}

impl PurgeOrder {
    /// What is wrong with the order, as (field, message).
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if self.value.is_empty() || self.value.len() > VALUE_MAX {
            faults.push(("value", format!("must have 1 to {VALUE_MAX} bytes")));
        } else if matches!(self.by, By::Url | By::Prefix) && address(&self.value).is_none() {
            faults.push(("value", "must be a URL, host/path or /path".to_owned()));
        } else if self.by == By::Prefix && self.value.contains('?') {
            faults.push(("value", "a prefix has no query".to_owned()));
        }
        if self.by == By::Tenant && self.tenant.as_ref().is_some_and(|t| *t != self.value) {
            faults.push(("tenant", "differs from the tenant to purge".to_owned()));
        }
        faults
    }
}

impl Subject {
    /// The targets of an answer: its address with and without host, service, tenant and tags, each for its
    /// tenant alone and for all.
    pub fn new(
        host: &str,
        path: &str,
        query: Option<&str>,
        tenant: &str,
        service: &str,
        tags: Vec<String>,
    ) -> Self {
        let full = path_and_query(path, query);
        let url = format!("{host}{full}");
        let mut targets = vec![target('n', tenant, None)];
        for tenant in [None, Some(tenant)] {
            targets.extend([
                target('u', &url, tenant),
                target('u', &full, tenant),
                target('s', service, tenant),
            ]);
            targets.extend(tags.iter().map(|tag| target('t', tag, tenant)));
        }
        Self {
            host: host.to_owned(),
            path: path.to_owned(),
            query: query.map(str::to_owned),
            tenant: tenant.to_owned(),
            service: service.to_owned(),
            tags,
            targets: targets.into(),
            url: target('u', &url, Some(tenant)),
        }
    }

    /// Bytes on the heap, for the cache's weight.
    pub fn heap_bytes(&self) -> usize {
        let tags: usize = self.tags.iter().map(|tag| tag.len() + 24).sum();
        let query = self.query.as_ref().map_or(0, String::len);
        self.host.len()
            + self.path.len()
            + query
            + self.tenant.len()
            + self.service.len()
            + tags
            + self.targets.len() * 8
    }
}

/// The tags of an answer's `Cache-Tag` lines; `None` when there are more than we keep, because an answer that
/// could not be purged by one of its tags must not be stored.
pub(super) fn tags<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Option<Vec<String>> {
    let mut found = Vec::new();
    for tag in lines
        .flat_map(|line| line.split(|b| *b == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|t| !t.is_empty())
    {
        if found.len() == TAGS_MAX || tag.len() > TAG_BYTES_MAX {
            return None;
        }
        found.push(String::from_utf8_lossy(tag).into_owned());
    }
    Some(found)
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            epoch: AtomicU64::new(1),
            marks: Marks::default(),
            presence: Presence::default(),
            prefixes: RwLock::default(),
        }
    }
}

impl Ledger {
    /// Grows with each order; an object that was checked at this value needs no check.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Takes an order in. Orders may come twice and in any order; one that says nothing new costs nothing after.
    pub(super) fn apply(&self, order: &PurgeOrder) {
        let tenant = order.tenant.as_deref();
        let mark = |id| self.marks.mark(id, order.soft, order.at_ms);
        let news = match order.by {
            By::Url => address(&order.value)
                .is_some_and(|(host, rest)| mark(target('u', &format!("{host}{rest}"), tenant))),
            By::Prefix => self.prefix(order),
            By::Tag => mark(target('t', &order.value, tenant)),
            By::Service => mark(target('s', &order.value, tenant)),
            By::Tenant => mark(target('n', &order.value, None)),
        };
        if news {
            self.epoch.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// RFC 9111 §4.4: an unsafe request was answered without error, so the tenant's copies of this address are
    /// out. Most unsafe requests go to addresses that nobody ever stored: those leave no trace.
    pub(super) fn invalidate(&self, tenant: &str, host: &str, path_and_query: &str, now_ms: u64) {
        let target = target('u', &format!("{host}{path_and_query}"), Some(tenant));
        if self.presence.maybe(target, now_ms) && self.marks.mark(target, false, now_ms) {
            self.epoch.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Notes that an answer of this address may be stored until then.
    pub(super) fn expect(&self, subject: &Subject, until_ms: u64) {
        self.presence.note(subject.url, until_ms);
    }

    /// The same for an address that is about to be fetched.
    pub(super) fn expect_address(
        &self,
        host: &str,
        path: &str,
        query: Option<&str>,
        tenant: &str,
        until_ms: u64,
    ) {
        let url = format!("{host}{}", path_and_query(path, query));
        self.presence
            .note(target('u', &url, Some(tenant)), until_ms);
    }

    /// What the orders mean for an object whose fetch began at `fetched_ms`, give or take `skew_ms` when another
    /// replica's clock wrote that time.
    pub fn standing(&self, subject: &Subject, fetched_ms: u64, skew_ms: u64) -> Standing {
        let before = fetched_ms.saturating_sub(skew_ms);
        let mut since = 0;
        for id in &subject.targets {
            let mark = self.marks.get(*id);
            if reaches(mark.hard_ms, before) {
                return Standing::Gone;
            }
            since = since.max(mark.soft_ms);
        }
        let prefixes = self.prefixes.read();
        if reaches(prefixes.floor_hard, before) {
            return Standing::Gone;
        }
        since = since.max(prefixes.floor_soft);
        for order in prefixes
            .orders
            .iter()
            .filter(|o| o.at_ms >= before && o.matches(subject))
        {
            if !order.soft {
                return Standing::Gone;
            }
            since = since.max(order.at_ms);
        }
        if reaches(since, before) {
            Standing::StaleSince(since)
        } else {
            Standing::Live
        }
    }

    /// Returns whether that is news.
    fn prefix(&self, order: &PurgeOrder) -> bool {
        let Some((host, path)) = address(&order.value) else {
            return false;
        };
        let host = (!host.is_empty()).then(|| host.to_owned());
        let mut prefixes = self.prefixes.write();
        let known = prefixes.orders.iter().position(|had| {
            had.host == host
                && had.path == path
                && had.tenant == order.tenant
                && had.soft == order.soft
        });
        if let Some(known) = known {
            let had = &mut prefixes.orders[known];
            let news = order.at_ms > had.at_ms;
            had.at_ms = had.at_ms.max(order.at_ms);
            return news;
        }
        if prefixes.orders.len() == PREFIXES_MAX {
            let oldest = prefixes.orders.remove(0);
            let floor = if oldest.soft {
                &mut prefixes.floor_soft
            } else {
                &mut prefixes.floor_hard
            };
            *floor = (*floor).max(oldest.at_ms);
        }
        prefixes.orders.push(PrefixOrder {
            host,
            path: path.to_owned(),
            tenant: order.tenant.clone(),
            soft: order.soft,
            at_ms: order.at_ms,
        });
        true
    }
}

impl PrefixOrder {
    fn matches(&self, subject: &Subject) -> bool {
        self.host.as_ref().is_none_or(|h| *h == subject.host)
            && self.tenant.as_ref().is_none_or(|t| *t == subject.tenant)
            && subject.path.starts_with(&self.path)
    }
}

/// `https://Host/path?query#x` → (`host`, `/path?query`); the host is empty for `/path`.
fn address(value: &str) -> Option<(String, &str)> {
    let rest = value.split_once("://").map_or(value, |(_, rest)| rest);
    let rest = rest.split('#').next().unwrap_or_default();
    if rest.is_empty()
        || rest
            .bytes()
            .any(|b| b.is_ascii_whitespace() || b.is_ascii_control())
    {
        return None;
    }
    match rest.find('/') {
        Some(at) => Some((rest[..at].to_ascii_lowercase(), &rest[at..])),
        None => Some((rest.to_ascii_lowercase(), "/")),
    }
}

fn path_and_query(path: &str, query: Option<&str>) -> String {
    match query {
        None => path.to_owned(),
        Some(query) => format!("{path}?{query}"),
    }
}

/// Whether an order of that time covers an object fetched then; zero is "no order yet".
fn reaches(order_ms: u64, fetched_ms: u64) -> bool {
    order_ms != 0 && order_ms >= fetched_ms
}

fn target(kind: char, value: &str, tenant: Option<&str>) -> u64 {
    key::hash(format!("{kind}\u{1f}{}\u{1f}{value}", tenant.unwrap_or("*")).as_bytes())
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn order(by: By, value: &str, soft: bool, at_ms: u64) -> PurgeOrder {
        PurgeOrder {
            by,
            value: value.to_owned(),
            tenant: None,
            soft,
            at_ms,
        }
    }

    fn subject() -> Subject {
        Subject::new(
            "example.org",
            "/a/b",
            Some("x=1"),
            "acme",
            "demo",
            vec!["red".to_owned(), "blue".to_owned()],
        )
    }

    #[test]
    fn each_target_reaches_the_object() {
        for (by, value, hit) in [
            (By::Url, "https://example.org/a/b?x=1", true),
            (By::Url, "EXAMPLE.org/a/b?x=1#frag", true),
            (By::Url, "/a/b?x=1", true),
            (By::Url, "/a/b", false),
            (By::Url, "https://example.org/a/b?x=2", false),
            (By::Url, "https://example.com/a/b?x=1", false),
            (By::Prefix, "/a", true),
            (By::Prefix, "example.org/a/", true),
            (By::Prefix, "https://example.org", true),
            (By::Prefix, "example.com/a/", false),
            (By::Prefix, "/b", false),
            (By::Tag, "red", true),
            (By::Tag, "green", false),
            (By::Service, "demo", true),
            (By::Service, "other", false),
            (By::Tenant, "acme", true),
            (By::Tenant, "umbrella", false),
        ] {
            for soft in [false, true] {
                let ledger = Ledger::default();
                ledger.apply(&order(by, value, soft, 100));
                let expected = match (hit, soft) {
                    (false, _) => Standing::Live,
                    (true, true) => Standing::StaleSince(100),
                    (true, false) => Standing::Gone,
                };
                assert_eq!(
                    ledger.standing(&subject(), 90, 0),
                    expected,
                    "{by:?} {value} {soft}"
                );
                assert_eq!(
                    ledger.standing(&subject(), 101, 0),
                    Standing::Live,
                    "fetched afterwards: {value}"
                );
            }
        }
    }

    #[test]
    fn a_tenant_purges_only_its_own() {
        for by in [By::Url, By::Prefix, By::Tag, By::Service] {
            let value = match by {
                By::Url => "/a/b?x=1",
                By::Prefix => "/a",
                By::Tag => "red",
                _ => "demo",
            };
            let ledger = Ledger::default();
            ledger.apply(&PurgeOrder {
                tenant: Some("umbrella".to_owned()),
                ..order(by, value, false, 100)
            });
            assert_eq!(ledger.standing(&subject(), 90, 0), Standing::Live, "{by:?}");
            ledger.apply(&PurgeOrder {
                tenant: Some("acme".to_owned()),
                ..order(by, value, false, 100)
            });
            assert_eq!(ledger.standing(&subject(), 90, 0), Standing::Gone, "{by:?}");
        }
    }

    #[test]
    fn skewed_clocks_err_towards_purged() {
        let ledger = Ledger::default();
        ledger.apply(&order(By::Tag, "red", true, 1000));
        assert_eq!(ledger.standing(&subject(), 1500, 0), Standing::Live);
        assert_eq!(
            ledger.standing(&subject(), 1500, 1000),
            Standing::StaleSince(1000)
        );
    }

    #[test]
    fn prefixes_stay_bounded_and_widen() {
        let ledger = Ledger::default();
        for n in 0..=PREFIXES_MAX as u64 {
            ledger.apply(&order(By::Prefix, &format!("/p{n}/"), true, 1000 + n));
        }
        assert_eq!(ledger.prefixes.read().orders.len(), PREFIXES_MAX);
        assert_eq!(
            ledger.standing(&subject(), 900, 0),
            Standing::StaleSince(1000),
            "the forgotten order covers all"
        );
        assert_eq!(ledger.standing(&subject(), 1001, 0), Standing::Live);
        ledger.apply(&order(By::Prefix, "/p9/", true, 5000));
        assert_eq!(
            ledger.prefixes.read().orders.len(),
            PREFIXES_MAX,
            "a repeated order replaces itself"
        );
        let epoch = ledger.epoch();
        ledger.apply(&order(By::Prefix, "/p9/", true, 4000));
        ledger.apply(&order(By::Tag, "red", true, 0));
        assert_eq!(ledger.epoch(), epoch, "no news, nothing to check again");
    }

    #[test]
    fn unsafe_requests_touch_their_tenant_only() {
        let ledger = Ledger::default();
        let before = ledger.epoch();
        ledger.invalidate("acme", "example.org", "/a/b?x=1", 100);
        assert_eq!(ledger.epoch(), before, "nobody stored it");
        ledger.expect(&subject(), 10_000);
        ledger.invalidate("umbrella", "example.org", "/a/b?x=1", 100);
        assert_eq!(ledger.standing(&subject(), 90, 0), Standing::Live);
        ledger.invalidate("acme", "example.org", "/a/b?x=1", 100);
        assert_eq!(ledger.standing(&subject(), 90, 0), Standing::Gone);
    }

    #[test]
    fn bad_orders_are_named() {
        assert!(order(By::Url, "/a", true, 0).faults().is_empty());
        assert_eq!(order(By::Url, "", true, 0).faults().len(), 1);
        assert_eq!(order(By::Prefix, "/a?b", true, 0).faults()[0].0, "value");
        assert_eq!(order(By::Url, "a b", true, 0).faults().len(), 1);
        let crossed = PurgeOrder {
            tenant: Some("x".to_owned()),
            ..order(By::Tenant, "y", true, 0)
        };
        assert_eq!(crossed.faults()[0].0, "tenant");
        let read: PurgeOrder =
            serde_json::from_str(r#"{"by":"tag","value":"red","at_ms":5,"later":1}"#)
                .expect("unknown fields pass");
        assert!(read.soft, "soft is the default");
    }

    #[test]
    fn tags_have_limits() {
        let of = |text: &str| tags(std::iter::once(text.as_bytes()));
        assert_eq!(
            of("a, b ,,c"),
            Some(vec!["a".to_owned(), "b".to_owned(), "c".to_owned()])
        );
        assert_eq!(of(&vec!["t"; TAGS_MAX + 1].join(",")), None);
        assert_eq!(of(&"x".repeat(TAG_BYTES_MAX + 1)), None);
    }

    proptest! {
        #[test]
        fn orders_commute_and_never_panic(values in proptest::collection::vec((0u8..5, ".{0,20}", any::<bool>(), 0u64..1000), 0..20)) {
            let (forth, back) = (Ledger::default(), Ledger::default());
            let kinds = [By::Url, By::Prefix, By::Tag, By::Service, By::Tenant];
            let orders: Vec<_> = values.iter().map(|(k, v, s, at)| order(kinds[*k as usize], v, *s, *at)).collect();
            orders.iter().for_each(|o| forth.apply(o));
            orders.iter().rev().for_each(|o| back.apply(o));
            prop_assert_eq!(forth.standing(&subject(), 500, 0), back.standing(&subject(), 500, 0));
        }
    }
}
