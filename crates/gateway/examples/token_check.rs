//! What the check of a token costs on one worker (ID-171): remembered, seen for the first time, and one raw Ed25519
//! verification of the same bytes beside them. CPU time of the thread, not elapsed time.

#![expect(clippy::print_stdout, reason = "a measurement prints its result")]

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};
use portico_base::id::TENANT_DEFAULT;
use portico_base::{Principal, PrincipalKind, SystemRandom};
use portico_contract::credentials::Credentials;
use portico_gateway::identify::{Denied, Identifier, Origin, TokenVerifier, Verified};
use portico_token::jws::{self, Parts};
use portico_token::{AccessClaims, Issuer, SigningKey, VerifyingKey, access};
use uuid::Uuid;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NOW_S: i64 = 1_800_000_000;
const TOKENS: usize = 2_000;
const REMEMBERED: usize = 2_000_000;

/// Verifies as identity's edge does, without its memory of revocations.
struct Edge {
    key: VerifyingKey,
    issuer: Issuer,
}

impl TokenVerifier for Edge {
    fn verify(&self, token: &str, now_s: i64) -> Result<Verified, Denied> {
        let claims = access::verify(token, &self.issuer, |_| Ok(&self.key), now_s)?;
        let user = claims.user.to_string();
        let principal = Principal {
            roles: claims.roles.into(),
            session: Some(claims.session.to_string().into()),
            aal: claims.aal,
            ..Principal::new(PrincipalKind::User, user, claims.tenant)
        };
        Ok(Verified {
            principal: Arc::new(principal),
            tenant_name: None,
            claims: Box::default(),
            expires_s: claims.expires_s,
            stamp: None,
        })
    }

    fn epoch(&self) -> u64 {
        1
    }
}

fn token(key: &SigningKey, issuer: &Issuer, number: usize) -> String {
    let id = |kind: u128| Uuid::from_u128(kind << 64 | number as u128);
    let claims = AccessClaims {
        user: id(1),
        tenant: TENANT_DEFAULT,
        session: id(2),
        device: id(3),
        issued_s: NOW_S - 10,
        expires_s: NOW_S + 1_800,
        id: id(4),
        tv: 1,
        te: 1,
        ge: 1,
        roles: ["user", "editor", "reviewer", "publisher", "guest"]
            .map(str::to_owned)
            .to_vec(),
        scope: None,
        amr: vec!["pwd".to_owned()],
        aal: 1,
        auth_time_s: NOW_S - 10,
        network: None,
        audiences: Vec::new(),
    };
    let made = access::mint(key, issuer, &claims).expect("claims are JSON");
    made.expose().clone()
}

fn headers(token: &str) -> HeaderMap {
    let value = HeaderValue::try_from(format!("Bearer {token}")).expect("a token is visible ASCII");
    HeaderMap::from_iter([(header::AUTHORIZATION, value)])
}

/// Nanoseconds of CPU that a piece of work takes, each.
fn each(count: usize, mut work: impl FnMut(usize)) -> f64 {
    let before = cpu_ns();
    for number in 0..count {
        work(number);
    }
    (cpu_ns() - before) as f64 / count as f64
}

/// CPU time of this thread.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells it");
    let first = text.split_whitespace().next().expect("three numbers");
    first.parse().expect("nanoseconds")
}

fn main() {
    let (key, _seed) = SigningKey::generate(&SystemRandom).expect("32 bytes are a seed");
    let issuer = Issuer {
        issuer: "https://portico.example".into(),
        audience: "urn:portico:bench".into(),
    };
    let tokens: Vec<String> = (0..TOKENS).map(|n| token(&key, &issuer, n)).collect();
    let requests: Vec<HeaderMap> = tokens.iter().map(|t| headers(t)).collect();
    let verifying = VerifyingKey::from_jwk(&key.public_jwk()).expect("it is a key");
    let parts: Vec<Parts<'_>> = tokens.iter().filter_map(|t| jws::split(t).ok()).collect();
    let raw = each(TOKENS, |n| {
        assert!(verifying.verify(parts[n].signed, &parts[n].signature));
    });
    let edge = Edge {
        key: verifying,
        issuer,
    };
    let identifier = Identifier::new(Credentials::default(), Some(Arc::new(edge)), None);
    let from = Origin {
        address: Some(IpAddr::from([127, 0, 0, 1])),
        direct_loopback: true,
        https: false,
    };
    let check = |headers: &HeaderMap| {
        let shown = identifier.identify(headers, from, NOW_S, false);
        black_box(shown.expect("the token is good"));
    };
    let first = each(TOKENS, |n| check(&requests[n]));
    let remembered = each(REMEMBERED, |n| check(&requests[n % TOKENS]));
    println!(
        "{{\"raw_us\": {:.2}, \"first_us\": {:.2}, \"first_ratio\": {:.2}, \"remembered_us\": {:.3}, \"token_bytes\": {}}}",
        raw / 1e3,
        first / 1e3,
        first / raw,
        remembered / 1e3,
        tokens[0].len()
    );
}
