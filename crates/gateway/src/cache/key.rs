//! Cache keys: which requests are the same resource for the same audience, and which variant of it they select.
//!
//! A key is the whole text, compared byte by byte, not a digest of it: two callers can never meet in one key by
//! a collision. Every part is length-prefixed, so no part can pretend to be its neighbour.

use std::hash::{BuildHasher, Hasher};

use foldhash::quality::FixedState;
use http::Method;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_LANGUAGE, AUTHORIZATION, COOKIE, HeaderMap, HeaderName,
    PROXY_AUTHORIZATION, VARY,
};
use sha2::{Digest, Sha256};

use super::directives::split_unquoted;
use super::policy::Refusal;
use super::rule::{RulePolicy, Scope};

/// Most request fields that one resource may vary by.
pub(super) const VARY_MAX: usize = 16;
/// Longest key; a longer one is not cached. A request line has at most 8 KiB.
const KEY_MAX: usize = 16 * 1024;
/// A selecting value longer than this goes into the key as its digest.
const VALUE_MAX: usize = 256;

/// A key that outlives its look-up.
pub(super) type KeyBuf = Box<[u8]>;

/// What the cache needs to know of a request. The caller has normalised host and path already (the very form
/// that routing and authorisation used, so that nobody sees a copy that they may not see).
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    pub method: &'a Method,
    pub scheme: &'a str,
    /// Lower case, with the port unless it is the scheme's default.
    pub host: &'a str,
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
    pub tenant: &'a str,
    /// The identified caller; none for anonymous.
    pub principal: Option<&'a str>,
    /// The caller may steer the cache with request directives, as far as the route allows it.
    pub trusted: bool,
    pub service: &'a str,
    /// The version that was chosen for this caller; empty when the service has none.
    pub version: &'a str,
    pub route: &'a str,
}

/// The request fields by which a resource varies, sorted and in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VaryRule {
    names: Vec<HeaderName>,
}

impl VaryRule {
    /// Reads `Vary`; refuses what no key can express: `*`, too many names, and identity fields that the gateway
    /// adds itself and that the key does not hold.
    pub fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let mut names: Vec<HeaderName> = Vec::new();
        for line in headers.get_all(VARY) {
            for member in line
                .as_bytes()
                .split(|b| *b == b',')
                .map(<[u8]>::trim_ascii)
            {
                if member.is_empty() {
                    continue;
                }
                if member == b"*" {
                    return Err(Refusal::VaryStar);
                }
                let name = HeaderName::from_bytes(member).map_err(|_| Refusal::VaryUnkeyed)?;
                let ours = name.as_str().starts_with("x-portico-");
                if ours && !matches!(name.as_str(), "x-portico-user" | "x-portico-tenant") {
                    return Err(Refusal::VaryUnkeyed);
                }
                names.push(name);
            }
        }
        Self::from_names(names)
    }

    /// Makes a rule of names; more than [`VARY_MAX`] are refused.
    pub fn from_names(mut names: Vec<HeaderName>) -> Result<Self, Refusal> {
        names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        if names.len() > VARY_MAX {
            Err(Refusal::VaryUnkeyed)
        } else {
            Ok(Self { names })
        }
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub fn names(&self) -> &[HeaderName] {
        &self.names
    }

    /// Both rules together: a variant chosen by the wider rule is always right for the narrower one.
    pub fn union(&self, other: &Self) -> Result<Self, Refusal> {
        Self::from_names(self.names.iter().chain(&other.names).cloned().collect())
    }
}

/// Writes the primary key: scheme, host, path, query, tenant and, on routes cached per user, the principal. Route,
/// service and version are in it because fields outside the key (a header that a route asks for, a version that a
/// caller wishes) may have chosen them: nobody must be able to plant another service's answer at an address.
pub(super) fn write_primary(
    key: &mut Vec<u8>,
    view: &RequestView<'_>,
    rule: &RulePolicy,
) -> Result<(), Refusal> {
    key.clear();
    key.push(1);
    part(key, view.scheme.as_bytes());
    part(key, view.host.as_bytes());
    part(key, view.tenant.as_bytes());
    part(key, view.route.as_bytes());
    part(key, view.service.as_bytes());
    part(key, view.version.as_bytes());
    match (rule.scope, view.principal) {
        (Scope::User, Some(principal)) => {
            key.push(b'u');
            part(key, principal.as_bytes());
        }
        (Scope::User, None) => key.push(b'a'),
        _ => key.push(b's'),
    }
    part(key, view.path.as_bytes());
    match view.query {
        None => key.push(b'-'),
        Some(query) => {
            key.push(b'?');
            if rule.sort_query || !rule.ignore_query_parameters.is_empty() {
                part(key, reduced(query, rule).as_bytes());
            } else {
                part(key, query.as_bytes());
            }
        }
    }
    if key.len() > KEY_MAX {
        Err(Refusal::KeyTooLong)
    } else {
        Ok(())
    }
}

/// Extends a primary key by the values of the selecting fields.
pub(super) fn secondary(primary: &[u8], vary: &VaryRule, view: &RequestView<'_>) -> KeyBuf {
    let mut key = Vec::with_capacity(primary.len() + 128);
    key.extend_from_slice(primary);
    key.push(b'v');
    for name in vary.names() {
        part(&mut key, name.as_str().as_bytes());
        match name.as_str() {
            "x-portico-user" => optional(&mut key, view.principal.map(str::as_bytes)),
            "x-portico-tenant" => part(&mut key, view.tenant.as_bytes()),
            _ => optional(&mut key, selecting_value(name, view.headers).as_deref()),
        }
    }
    key.into()
}

/// The name of a key in the shared tier: fixed length, and no credential or path readable in it.
pub(super) fn shared_name(key: &[u8]) -> String {
    format!("gwc:o:{}", hex::encode(Sha256::digest(key)))
}

/// The hash that shards, purge slots and the pass table use; stable within a process only.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = FixedState::with_seed(0x706f_7274_6963_6f31).build_hasher();
    hasher.write(bytes);
    hasher.finish()
}

/// A key in words, for administrators.
pub fn describe(view: &RequestView<'_>, rule: &RulePolicy) -> String {
    let audience = match (rule.scope, view.principal) {
        (Scope::User, Some(principal)) => format!(" user={principal}"),
        (Scope::User, None) => " user=anonymous".to_owned(),
        _ => String::new(),
    };
    let query = view.query.map(|q| format!("?{q}")).unwrap_or_default();
    let version = if view.version.is_empty() {
        String::new()
    } else {
        format!("@{}", view.version)
    };
    format!(
        "{}://{}{}{query} tenant={} route={} service={}{version}{audience}",
        view.scheme, view.host, view.path, view.tenant, view.route, view.service
    )
}

fn part(key: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    key.extend_from_slice(&length.to_le_bytes());
    key.extend_from_slice(bytes);
}

/// Absent and empty are different values.
fn optional(key: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        None => key.push(b'0'),
        Some(bytes) => {
            key.push(b'1');
            part(key, bytes);
        }
    }
}

/// The value of a selecting field in normal form: lines joined, white space around commas gone (RFC 9111 §4.1),
/// the two negotiation fields by their meaning. Secrets and long values are represented by their digest.
fn selecting_value(name: &HeaderName, headers: &HeaderMap) -> Option<Vec<u8>> {
    if !headers.contains_key(name) {
        return None;
    }
    let lines = headers.get_all(name).iter().map(|v| v.as_bytes());
    let mut value: Vec<u8> = Vec::new();
    if *name == ACCEPT_ENCODING || *name == ACCEPT_LANGUAGE {
        value = negotiation(lines);
    } else {
        for line in lines {
            for member in split_unquoted(line)
                .map(<[u8]>::trim_ascii)
                .filter(|m| !m.is_empty())
            {
                if !value.is_empty() {
                    value.push(b',');
                }
                value.extend_from_slice(member);
            }
        }
    }
    let secret = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION].contains(name) || name == "x-api-key";
    if secret || value.len() > VALUE_MAX {
        value = Sha256::digest(&value).to_vec();
    }
    Some(value)
}

/// `de, en;q=0.5` as a list ordered by preference, then by name: order among equals has no meaning.
fn negotiation<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut choices: Vec<(u16, Vec<u8>)> = Vec::new();
    for member in lines.flat_map(|line| line.split(|b| *b == b',')) {
        let mut pieces = member.split(|b| *b == b';').map(<[u8]>::trim_ascii);
        let name = pieces.next().unwrap_or_default().to_ascii_lowercase();
        let weight = pieces
            .find_map(|p| p.strip_prefix(b"q=").or_else(|| p.strip_prefix(b"Q=")))
            .map_or(1000, quality);
        if !name.is_empty() && choices.len() < 64 {
            choices.push((weight, name));
        }
    }
    choices.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    choices.dedup();
    let mut out = Vec::new();
    for (weight, name) in choices {
        out.extend_from_slice(&name);
        out.push(b';');
        out.extend_from_slice(weight.to_string().as_bytes());
        out.push(b',');
    }
    out
}

/// A qvalue in thousandths; an unreadable one is the least preference.
fn quality(text: &[u8]) -> u16 {
    let parsed = std::str::from_utf8(text)
        .ok()
        .and_then(|t| t.parse::<f32>().ok())
        .unwrap_or(0.0);
    if !(0.0..=1.0).contains(&parsed) {
        return 0;
    }
    // The range has just been checked: 0 to 1000 fits.
    (parsed * 1000.0).round() as u16
}

fn reduced(query: &str, rule: &RulePolicy) -> String {
    let mut kept: Vec<&str> = query
        .split('&')
        .filter(|pair| {
            let name = pair.split('=').next().unwrap_or_default();
            !rule
                .ignore_query_parameters
                .iter()
                .any(|ignored| ignored == name)
        })
        .collect();
    if rule.sort_query {
        kept.sort_unstable();
    }
    kept.join("&")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    pub(crate) fn primary(view: &RequestView<'_>, rule: &RulePolicy) -> Result<KeyBuf, Refusal> {
        let mut key = Vec::new();
        write_primary(&mut key, view, rule)?;
        Ok(key.into())
    }

    /// An anonymous GET of `/a` that tests change as they need.
    pub(crate) fn view(headers: &HeaderMap) -> RequestView<'_> {
        RequestView {
            method: &Method::GET,
            scheme: "https",
            host: "example.org",
            path: "/a",
            query: None,
            headers,
            tenant: "default",
            principal: None,
            trusted: false,
            service: "demo",
            version: "1.0.0",
            route: "api",
        }
    }

    fn selected(name: &str, lines: &[&str]) -> KeyBuf {
        let mut map = HeaderMap::new();
        let name = HeaderName::from_bytes(name.as_bytes()).expect("name");
        for line in lines {
            map.append(&name, HeaderValue::from_str(line).expect("value"));
        }
        secondary(
            b"k",
            &VaryRule::from_names(vec![name]).expect("rule"),
            &view(&map),
        )
    }

    #[test]
    fn parts_cannot_borrow_from_each_other() {
        let none = HeaderMap::new();
        let rule = RulePolicy::default();
        let base = view(&none);
        let keys = [
            base,
            RequestView {
                scheme: "http",
                ..base
            },
            RequestView {
                host: "example.org/a",
                path: "",
                ..base
            },
            RequestView {
                host: "example.or",
                path: "g/a",
                ..base
            },
            RequestView {
                query: Some(""),
                ..base
            },
            RequestView {
                path: "/a?x=1",
                ..base
            },
            RequestView {
                query: Some("x=1"),
                ..base
            },
            RequestView {
                tenant: "other",
                ..base
            },
        ]
        .map(|v| primary(&v, &rule).expect("short"));
        for (i, a) in keys.iter().enumerate() {
            for b in &keys[i + 1..] {
                assert_ne!(a, b);
            }
        }
    }

    #[test]
    fn the_principal_counts_only_on_routes_per_user() {
        let none = HeaderMap::new();
        let (alice, bob) = (
            RequestView {
                principal: Some("alice"),
                ..view(&none)
            },
            RequestView {
                principal: Some("bob"),
                ..view(&none)
            },
        );
        let user = RulePolicy {
            scope: Scope::User,
            ..RulePolicy::default()
        };
        let auto = RulePolicy::default();
        assert_ne!(primary(&alice, &user), primary(&bob, &user));
        assert_ne!(primary(&alice, &user), primary(&view(&none), &user));
        assert_eq!(primary(&alice, &auto), primary(&bob, &auto));
        assert!(
            describe(&alice, &user)
                .ends_with("tenant=default route=api service=demo@1.0.0 user=alice")
        );
    }

    #[test]
    fn queries_keep_their_order_unless_told_otherwise() {
        let none = HeaderMap::new();
        let with = |query| RequestView {
            query: Some(query),
            ..view(&none)
        };
        let plain = RulePolicy::default();
        assert_ne!(
            primary(&with("a=1&b=2"), &plain),
            primary(&with("b=2&a=1"), &plain)
        );
        let loose = RulePolicy {
            sort_query: true,
            ignore_query_parameters: vec!["utm_source".to_owned()],
            ..RulePolicy::default()
        };
        assert_eq!(
            primary(&with("a=1&b=2"), &loose),
            primary(&with("b=2&utm_source=x&a=1"), &loose)
        );
        assert_ne!(
            primary(&with("a=1&b=2"), &loose),
            primary(&with("a=1&b=3"), &loose)
        );
    }

    #[test]
    fn selecting_values_are_normalised() {
        assert_eq!(selected("foo", &["1, 2"]), selected("foo", &["1", "2"]));
        assert_eq!(selected("foo", &["1,2"]), selected("foo", &[" 1, 2 "]));
        assert_ne!(selected("foo", &["1,2"]), selected("foo", &["2,1"]));
        assert_ne!(
            selected("foo", &["\"a, b\""]),
            selected("foo", &["\"a,b\""])
        );
        assert_ne!(selected("foo", &[]), selected("foo", &[""]));
        assert_eq!(
            selected("accept-language", &["en, de"]),
            selected("accept-language", &["dE ,   eN"])
        );
        assert_ne!(
            selected("accept-language", &["en, de"]),
            selected("accept-language", &["en;q=0.5, de"])
        );
        assert_eq!(
            selected("accept-encoding", &["gzip, br"]),
            selected("accept-encoding", &["br,gzip;q=1.0"])
        );
    }

    #[test]
    fn secrets_are_not_readable_in_keys() {
        let key = selected("authorization", &["Bearer hunter2"]);
        assert!(!String::from_utf8_lossy(&key).contains("hunter2"));
        assert_ne!(key, selected("authorization", &["Bearer hunter3"]));
        assert!(selected("foo", &[&"x".repeat(8000)]).len() < 100);
    }

    #[test]
    fn identity_fields_in_vary() {
        let of = |text: &str| {
            let mut map = HeaderMap::new();
            map.insert(VARY, HeaderValue::from_str(text).expect("value"));
            VaryRule::of(&map)
        };
        assert_eq!(of("X-Portico-Roles"), Err(Refusal::VaryUnkeyed));
        assert_eq!(of("bad name"), Err(Refusal::VaryUnkeyed));
        let many: Vec<String> = (0..=VARY_MAX).map(|n| format!("h{n}")).collect();
        assert_eq!(of(&many.join(",")), Err(Refusal::VaryUnkeyed));
        let user = of("X-Portico-User, foo, Foo").expect("keyed");
        assert_eq!(user.names().len(), 2);
        let none = HeaderMap::new();
        let alice = RequestView {
            principal: Some("alice"),
            ..view(&none)
        };
        assert_ne!(
            secondary(b"k", &user, &alice),
            secondary(b"k", &user, &view(&none))
        );
    }

    #[test]
    fn what_was_chosen_for_a_caller_is_in_the_key() {
        let none = HeaderMap::new();
        let base = view(&none);
        let key = |view: &RequestView<'_>| primary(view, &RulePolicy::default());
        for other in [
            RequestView {
                version: "2.0.0",
                ..base
            },
            RequestView {
                route: "beta",
                ..base
            },
            RequestView {
                service: "other",
                ..base
            },
        ] {
            assert_ne!(key(&other), key(&base), "{other:?}");
        }
    }

    #[test]
    fn a_key_has_a_limit() {
        let none = HeaderMap::new();
        let long = "x".repeat(KEY_MAX);
        let got = primary(
            &RequestView {
                path: &long,
                ..view(&none)
            },
            &RulePolicy::default(),
        );
        assert_eq!(got, Err(Refusal::KeyTooLong));
    }

    proptest! {
        #[test]
        fn different_requests_have_different_keys(
            a in (".{0,12}", ".{0,12}", ".{0,12}", proptest::option::of(".{0,12}")),
            b in (".{0,12}", ".{0,12}", ".{0,12}", proptest::option::of(".{0,12}")),
        ) {
            let none = HeaderMap::new();
            let rule = RulePolicy { scope: Scope::User, ..RulePolicy::default() };
            let key = |t: &(String, String, String, Option<String>)| primary(&RequestView {
                host: &t.0, path: &t.1, tenant: &t.2, principal: t.3.as_deref(), ..view(&none)
            }, &rule);
            prop_assert_eq!(a == b, key(&a) == key(&b));
        }
    }
}
