//! Which version of a service a request gets: chosen by the caller, or by the release's split (GW-13, GW-80).

use std::cmp::Ordering;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use portico_base::{Permission, Principal};
use semver::Version;

use crate::balance::dice::{Dice, mix};
use crate::objects::doc::{Matcher, Phase, ReleaseDoc, Sticky};

/// Whoever holds it may pick any version.
const PICK_ANY: Permission = Permission::new("gateway:release:write");

/// A version's place among the others: stable ones above labels above prereleases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rank {
    Stable(Version),
    Label(String),
    Pre(Version),
}

impl Rank {
    /// Reads `1`, `v1.4`, `1.4.2-rc.1`; anything else is a label.
    #[must_use]
    pub fn of(text: &str) -> Self {
        match parse(text) {
            Some(version) if version.pre.is_empty() => Self::Stable(version),
            Some(version) => Self::Pre(version),
            None => Self::Label(text.to_owned()),
        }
    }

    const fn class(&self) -> u8 {
        match self {
            Self::Pre(_) => 0,
            Self::Label(_) => 1,
            Self::Stable(_) => 2,
        }
    }
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Stable(a), Self::Stable(b)) | (Self::Pre(a), Self::Pre(b)) => a.cmp(b),
            (Self::Label(a), Self::Label(b)) => a.cmp(b),
            _ => self.class().cmp(&other.class()),
        }
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Semantic versions, also with fewer than three numbers.
fn parse(text: &str) -> Option<Version> {
    let text = text.strip_prefix('v').unwrap_or(text);
    if let Ok(version) = Version::parse(text) {
        return Some(version);
    }
    let (numbers, rest) = text
        .find(['-', '+'])
        .map_or((text, ""), |at| text.split_at(at));
    match numbers.split('.').count() {
        1 => Version::parse(&format!("{numbers}.0.0{rest}")).ok(),
        2 => Version::parse(&format!("{numbers}.0{rest}")).ok(),
        _ => None,
    }
}

/// True when `wanted` names `have` exactly or as `1`, `1.4`.
#[must_use]
pub fn names(wanted: &str, have: &str) -> bool {
    if wanted == have {
        return true;
    }
    let plain = |text: &str| text.strip_prefix('v').unwrap_or(text).to_owned();
    let (wanted, have) = (plain(wanted), plain(have));
    let numeric = !wanted.is_empty()
        && wanted
            .split('.')
            .all(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
    let release = have.split(['-', '+']).next().unwrap_or("");
    numeric
        && parse(&have).is_some()
        && (release == wanted
            || release
                .strip_prefix(&wanted)
                .is_some_and(|r| r.starts_with('.')))
}

/// What a choice may depend on.
#[derive(Clone, Copy)]
pub struct Asker<'a> {
    pub headers: &'a HeaderMap,
    pub principal: &'a Principal,
    pub address: IpAddr,
    pub dice: &'a Dice,
}

/// A compiled release.
#[derive(Debug, Default)]
pub struct Split {
    seed: u64,
    stable: Option<Arc<str>>,
    candidate: Option<Arc<str>>,
    /// The trial that requests are counted under.
    run: Option<i64>,
    /// Tenths of a percent.
    weight: u64,
    matchers: Vec<Test>,
    sticky: Sticky,
    pickable: Pickable,
}

#[derive(Debug, Default)]
enum Pickable {
    /// No release: nobody said otherwise.
    #[default]
    All,
    /// And the version before, while its window is open.
    StableAndCandidate(Option<String>),
    Listed(Vec<String>),
}

#[derive(Debug)]
enum Test {
    Header(HeaderName, Option<String>),
    Cookie(String, Option<String>),
    User(String),
    Tenant(uuid::Uuid),
    Role(String),
    Percent(u64),
}

/// The version that a request gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one that the caller named, by its place in the list.
    Picked(usize),
    Stable,
    Candidate,
}

/// The caller named a version that is not there, or not for it; these are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionNotFound {
    pub present: Vec<Arc<str>>,
}

impl Split {
    /// Compiles a document for a service.
    #[must_use]
    pub fn compile(service: &str, doc: &ReleaseDoc) -> Self {
        let candidate = doc.candidate.as_ref();
        let state = doc.state.as_ref();
        // A candidate that was stopped gets nobody, whatever its matchers say; whoever names it still may.
        let stopped = state.is_some_and(|s| s.phase == Phase::Aborted);
        let trial = candidate.filter(|_| !stopped);
        let kept = state.and_then(|s| s.previous.as_ref());
        let kept = kept.filter(|p| !p.over).map(|p| p.version.clone());
        Self {
            seed: hash(0, service.as_bytes()),
            stable: doc.stable.as_deref().map(Arc::from),
            candidate: candidate.map(|c| Arc::from(c.version.as_str())),
            run: candidate.and(state).map(|s| s.run),
            weight: trial.map_or(0, |c| (c.weight * 10.0).round() as u64),
            matchers: trial.map_or_else(Vec::new, |c| c.matchers.iter().filter_map(test).collect()),
            sticky: doc.sticky,
            pickable: doc
                .pickable
                .clone()
                .map_or(Pickable::StableAndCandidate(kept), Pickable::Listed),
        }
    }

    #[must_use]
    pub fn stable(&self) -> Option<&str> {
        self.stable.as_deref()
    }

    #[must_use]
    pub fn candidate(&self) -> Option<&str> {
        self.candidate.as_deref()
    }

    /// The trial of the candidate; nothing without one, or without a state to count it under.
    #[must_use]
    pub const fn run(&self) -> Option<i64> {
        self.run
    }

    /// The candidate's weight in percent.
    #[must_use]
    pub fn weight(&self) -> f64 {
        self.weight as f64 / 10.0
    }

    /// Finds the version that a caller named among `versions`, best first.
    ///
    /// # Errors
    /// Lists the versions that the caller may know of.
    pub fn pick(
        &self,
        wanted: &str,
        versions: &[Arc<str>],
        default: &str,
        principal: &Principal,
    ) -> Result<usize, VersionNotFound> {
        let any = principal.may(&PICK_ANY);
        let allowed = |version: &str| {
            any || match &self.pickable {
                Pickable::All => true,
                Pickable::Listed(list) => list.iter().any(|v| v == version),
                Pickable::StableAndCandidate(kept) => {
                    version == default
                        || self.candidate() == Some(version)
                        || kept.as_deref() == Some(version)
                }
            }
        };
        let exact = versions.iter().position(|v| **v == *wanted && allowed(v));
        exact
            .or_else(|| versions.iter().position(|v| names(wanted, v) && allowed(v)))
            .ok_or_else(|| VersionNotFound {
                present: versions.iter().filter(|v| allowed(v)).cloned().collect(),
            })
    }

    /// The side of a request whose caller named no version.
    #[must_use]
    pub fn side(&self, asker: &Asker<'_>) -> Side {
        if self.candidate.is_none() {
            return Side::Stable;
        }
        if self.matchers.iter().any(|test| self.matches(test, asker)) {
            return Side::Candidate;
        }
        let place = match self.sticky {
            Sticky::None => asker.dice.below(1000) as u64,
            _ => self.place(asker),
        };
        if place < self.weight {
            Side::Candidate
        } else {
            Side::Stable
        }
    }

    /// The caller's place in 0..1000: below the weight it gets the candidate. It never changes, so that
    /// a growing weight only adds callers.
    fn place(&self, asker: &Asker<'_>) -> u64 {
        let principal = asker.principal;
        let known = principal.is_authenticated();
        let session = principal.session.as_deref();
        let key = match self.sticky {
            Sticky::User if known => Some(&*principal.subject),
            Sticky::User | Sticky::Session => session,
            Sticky::Address | Sticky::None => None,
        };
        let hashed = match key {
            Some(key) => hash(self.seed, key.as_bytes()),
            None => match asker.address {
                IpAddr::V4(v4) => hash(self.seed, &v4.octets()),
                IpAddr::V6(v6) => hash(self.seed, &v6.octets()[..8]),
            },
        };
        hashed % 1000
    }

    fn matches(&self, test: &Test, asker: &Asker<'_>) -> bool {
        let fits =
            |wanted: &Option<String>, have: &str| wanted.as_deref().is_none_or(|w| w == have);
        match test {
            Test::Header(name, value) => asker
                .headers
                .get_all(name)
                .iter()
                .any(|v| v.to_str().is_ok_and(|v| fits(value, v))),
            Test::Cookie(name, value) => {
                cookie(asker.headers, name).is_some_and(|v| fits(value, v))
            }
            Test::User(user) => {
                asker.principal.is_authenticated() && *asker.principal.subject == **user
            }
            Test::Tenant(tenant) => {
                asker.principal.is_authenticated() && asker.principal.tenant == *tenant
            }
            Test::Role(role) => asker.principal.roles.iter().any(|r| r == role),
            Test::Percent(tenths) => {
                asker.principal.is_authenticated()
                    && hash(self.seed ^ 1, asker.principal.subject.as_bytes()) % 1000 < *tenths
            }
        }
    }
}

fn test(matcher: &Matcher) -> Option<Test> {
    Some(match matcher {
        Matcher::Header(one) => Test::Header(
            HeaderName::from_bytes(one.name.as_bytes()).ok()?,
            one.value.clone(),
        ),
        Matcher::Cookie(one) => Test::Cookie(one.name.clone(), one.value.clone()),
        Matcher::User(user) => Test::User(user.clone()),
        Matcher::Tenant(tenant) => Test::Tenant(*tenant),
        Matcher::Role(role) => Test::Role(role.clone()),
        Matcher::Percent(share) => Test::Percent((share * 10.0).round() as u64),
    })
}

/// The value of a cookie (RFC 6265 §4.2.1), from however many lines.
#[must_use]
pub fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let lines = headers
        .get_all(http::header::COOKIE)
        .iter()
        .filter_map(|v| v.to_str().ok());
    let mut pairs = lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(n, _)| *n == name).map(|(_, value)| value)
}

/// FNV-1a with a finaliser: the same on every replica and in every version of the program.
#[must_use]
pub fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ seed;
    mix(bytes.iter().fold(start, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3)
    }))
}

#[cfg(test)]
mod tests {
    use portico_base::PrincipalKind;
    use portico_base::id::TENANT_DEFAULT;
    use serde_json::json;

    use super::*;

    fn split(doc: serde_json::Value) -> Split {
        Split::compile("shop", &serde_json::from_value(doc).expect("a release"))
    }

    fn user(name: &str) -> Principal {
        Principal::new(PrincipalKind::User, name, TENANT_DEFAULT)
    }

    fn side(split: &Split, principal: &Principal, headers: &HeaderMap) -> Side {
        split.side(&Asker {
            headers,
            principal,
            address: [10, 0, 0, 1].into(),
            dice: &Dice::new(1),
        })
    }

    #[test]
    fn versions_are_ranked_and_named_by_their_beginning() {
        let mut versions = ["1.4.0", "nightly", "2.0.0-rc.1", "v1.10", "1.4.2"].map(Rank::of);
        versions.sort();
        assert_eq!(versions[4], Rank::of("1.10.0"));
        assert_eq!(versions[0], Rank::of("2.0.0-rc.1"));
        assert_eq!(versions[1], Rank::Label("nightly".into()));
        for (wanted, have, yes) in [
            ("1", "1.4.2", true),
            ("1.4", "1.4.2", true),
            ("1.4", "1.40.0", false),
            ("v1", "1.0.0", true),
            ("nightly", "nightly", true),
            ("n", "nightly", false),
            ("", "1.0.0", false),
            ("1.", "1.0.0", false),
            ("2", "2", true),
        ] {
            assert_eq!(names(wanted, have), yes, "{wanted} {have}");
        }
    }

    #[test]
    fn a_user_never_changes_sides_while_the_weight_only_grows() {
        let empty = HeaderMap::new();
        let mut on_candidate = std::collections::HashSet::new();
        for weight in [0.0, 0.1, 1.0, 5.0, 25.0, 50.0, 100.0] {
            let split =
                split(json!({"stable": "1", "candidate": {"version": "2", "weight": weight}}));
            let now: std::collections::HashSet<u32> = (0..2_000)
                .filter(|i| side(&split, &user(&format!("u{i}")), &empty) == Side::Candidate)
                .collect();
            assert!(on_candidate.is_subset(&now), "at {weight}");
            let share = now.len() as f64 / 20.0;
            assert!((share - weight).abs() < 3.0, "{share} at {weight}");
            on_candidate = now;
        }
    }

    #[test]
    fn matchers_choose_the_candidate_whatever_the_weight() {
        let split = split(
            json!({"candidate": {"version": "2", "weight": 0, "matchers": [
                {"header": {"name": "X-Beta", "value": "1"}}, {"cookie": {"name": "beta"}}, {"user": "ann"}, {"role": "tester"}
            ]}}),
        );
        let headers = |name: &'static str, value: &'static str| {
            HeaderMap::from_iter([(
                HeaderName::from_static(name),
                http::HeaderValue::from_static(value),
            )])
        };
        assert_eq!(
            side(&split, &user("bob"), &headers("x-beta", "0")),
            Side::Stable
        );
        assert_eq!(
            side(&split, &user("bob"), &headers("x-beta", "1")),
            Side::Candidate
        );
        assert_eq!(
            side(&split, &user("bob"), &headers("cookie", "a=b; beta=yes")),
            Side::Candidate
        );
        assert_eq!(
            side(&split, &user("ann"), &HeaderMap::new()),
            Side::Candidate
        );
        let tester = Principal {
            roles: Arc::from(["tester".to_owned()]),
            ..user("eve")
        };
        assert_eq!(side(&split, &tester, &HeaderMap::new()), Side::Candidate);
    }

    #[test]
    fn callers_pick_among_what_the_release_allows() {
        let versions: Vec<Arc<str>> = ["3.0.0", "2.1.0", "2.0.0", "1.0.0"].map(Arc::from).into();
        let open = Split::default();
        assert_eq!(open.pick("2", &versions, "3.0.0", &user("a")), Ok(1));
        let closed =
            split(json!({"stable": "2.0.0", "candidate": {"version": "3.0.0", "weight": 1.0}}));
        assert_eq!(closed.pick("2", &versions, "2.0.0", &user("a")), Ok(2));
        assert_eq!(closed.pick("3.0", &versions, "2.0.0", &user("a")), Ok(0));
        let refused = closed
            .pick("1", &versions, "2.0.0", &user("a"))
            .unwrap_err();
        assert_eq!(refused.present.len(), 2);
        assert_eq!(
            closed.pick("1", &versions, "2.0.0", &Principal::operator()),
            Ok(3)
        );
        let listed = split(json!({"stable": "2.0.0", "pickable": ["1.0.0"]}));
        assert_eq!(listed.pick("1", &versions, "2.0.0", &user("a")), Ok(3));
        assert!(listed.pick("2", &versions, "2.0.0", &user("a")).is_err());
    }

    #[test]
    fn a_stopped_candidate_gets_nobody_and_can_still_be_named() {
        let doc = |phase: &str| {
            split(
                json!({"stable": "1", "candidate": {"version": "2", "weight": 0, "matchers": [{"user": "ann"}]},
                "state": {"phase": phase, "run": 7, "since": "2026-01-01T00:00:00Z"}}),
            )
        };
        let empty = HeaderMap::new();
        assert_eq!(side(&doc("paused"), &user("ann"), &empty), Side::Candidate);
        let stopped = doc("aborted");
        assert_eq!(side(&stopped, &user("ann"), &empty), Side::Stable);
        assert_eq!(stopped.run(), Some(7));
        let versions: Vec<Arc<str>> = ["2", "1"].map(Arc::from).into();
        assert_eq!(stopped.pick("2", &versions, "1", &user("ann")), Ok(0));
    }

    #[test]
    fn the_version_before_can_be_named_while_its_window_is_open() {
        let doc = |over: bool| {
            split(
                json!({"stable": "2", "state": {"phase": "steady", "since": "2026-01-01T00:00:00Z",
                "previous": {"version": "1", "until": "2026-01-01T00:10:00Z", "over": over}}}),
            )
        };
        let versions: Vec<Arc<str>> = ["3", "2", "1"].map(Arc::from).into();
        assert_eq!(doc(false).pick("1", &versions, "2", &user("a")), Ok(2));
        assert!(doc(false).pick("3", &versions, "2", &user("a")).is_err());
        assert!(doc(true).pick("1", &versions, "2", &user("a")).is_err());
    }

    proptest::proptest! {
        /// Whoever is told by user, session or address keeps the side while the weight only grows.
        #[test]
        fn a_caller_keeps_its_side_while_the_weight_only_grows(
            callers in proptest::collection::vec(("[a-z0-9]{1,12}", proptest::num::u32::ANY, proptest::bool::ANY), 1..40),
            tenths in proptest::collection::vec(0_u32..=1000, 1..20),
            sticky in proptest::sample::select(vec!["user", "session", "address"]),
        ) {
            let mut tenths = tenths;
            tenths.sort_unstable();
            let mut moved = vec![false; callers.len()];
            for tenth in tenths {
                let weight = f64::from(tenth) / 10.0;
                let split = split(json!({"stable": "1", "sticky": sticky, "candidate": {"version": "2", "weight": weight}}));
                for (at, (name, address, known)) in callers.iter().enumerate() {
                    let principal = if *known { user(name) } else { Principal::anonymous() };
                    let principal = Principal { session: Some(Arc::from(name.as_str())), ..principal };
                    let asker = Asker {
                        headers: &HeaderMap::new(),
                        principal: &principal,
                        address: std::net::Ipv4Addr::from(*address).into(),
                        dice: &Dice::new(u64::from(tenth)),
                    };
                    let on_candidate = split.side(&asker) == Side::Candidate;
                    proptest::prop_assert!(on_candidate || !moved[at], "back at {}", weight);
                    proptest::prop_assert!(tenth < 1000 || on_candidate);
                    moved[at] = on_candidate;
                }
            }
        }
    }
}
