//! The identity headers that a service gets, and their signature (`docs/plugins.md`, GW-22).
//!
//! What belongs to a principal is rendered once and remembered with it; a request adds its time, method,
//! target and id.

use aws_lc_rs::hmac;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use portico_base::{Principal, id};
use smallvec::SmallVec;

const USER: HeaderName = HeaderName::from_static("x-portico-user");
const TENANT: HeaderName = HeaderName::from_static("x-portico-tenant");
const SESSION: HeaderName = HeaderName::from_static("x-portico-session");
const ROLES: HeaderName = HeaderName::from_static("x-portico-roles");
const SCOPES: HeaderName = HeaderName::from_static("x-portico-scopes");
const AAL: HeaderName = HeaderName::from_static("x-portico-aal");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-portico-request-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("x-portico-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("x-portico-signature");

/// A principal as services are told of it.
#[derive(Debug, Clone)]
pub struct Wire {
    values: [(HeaderName, HeaderValue); 6],
    /// The lines of the signature's base from `user:` to `request-id:`.
    lines: Box<str>,
}

impl Wire {
    /// Renders a principal; `tenant` is its name where it has one.
    #[must_use]
    pub fn of(principal: &Principal, tenant: Option<&str>) -> Self {
        let known = principal.is_authenticated();
        let tenant = match (known, tenant) {
            (false, _) => String::new(),
            (true, Some(name)) => name.to_owned(),
            (true, None) if principal.tenant == id::TENANT_DEFAULT => "default".to_owned(),
            (true, None) if principal.tenant == id::TENANT_SYSTEM => "system".to_owned(),
            (true, None) => principal.tenant.to_string(),
        };
        let sorted = |list: &[String], between: &str| {
            let mut list: Vec<&str> = list.iter().map(String::as_str).collect();
            list.sort_unstable();
            list.join(between)
        };
        let texts = [
            (
                USER,
                if known {
                    principal.subject.to_string()
                } else {
                    String::new()
                },
            ),
            (TENANT, tenant),
            (
                SESSION,
                principal.session.as_deref().unwrap_or("").to_owned(),
            ),
            (ROLES, sorted(&principal.roles, ",")),
            (SCOPES, sorted(&principal.scopes, " ")),
            (
                AAL,
                if known {
                    principal.aal.to_string()
                } else {
                    String::new()
                },
            ),
        ];
        // What cannot stand in a header is left empty rather than altered: no service must mistake one for another.
        let values = texts.map(|(name, text)| {
            (
                name,
                HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("")),
            )
        });
        let mut lines = String::new();
        for (name, value) in &values {
            let short = name.as_str().trim_start_matches("x-portico-");
            lines.push_str(short);
            lines.push(':');
            lines.push_str(value.to_str().unwrap_or(""));
            lines.push('\n');
        }
        lines.push_str("request-id:");
        Self {
            values,
            lines: lines.into(),
        }
    }

    /// Puts the headers of the principal and the request into a request.
    pub fn write(&self, headers: &mut HeaderMap, request_id: &HeaderValue) {
        for (name, value) in &self.values {
            headers.insert(name.clone(), value.clone());
        }
        headers.insert(REQUEST_ID, request_id.clone());
    }
}

/// Signs for one instance.
pub struct Signer(hmac::Key);

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer")
    }
}

/// Takes time and signature out again: they were another instance's.
pub fn unsign(headers: &mut HeaderMap) {
    headers.remove(TIMESTAMP);
    headers.remove(SIGNATURE);
}

/// What a signature is about besides the principal.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// Unix milliseconds.
    pub now_ms: i64,
    pub method: &'a Method,
    /// Path and query as forwarded.
    pub target: &'a str,
    pub request_id: &'a HeaderValue,
}

impl Signer {
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// Puts time and signature into a request that already has the principal's headers.
    pub fn sign(&self, headers: &mut HeaderMap, wire: &Wire, what: &Signed<'_>) {
        let mut digits = itoa::Buffer::new();
        let time = digits.format(what.now_ms);
        let value = self.value(wire, what, time);
        if let Ok(time) = HeaderValue::from_str(time) {
            headers.insert(TIMESTAMP, time);
            headers.insert(SIGNATURE, value);
        }
    }

    fn value(&self, wire: &Wire, what: &Signed<'_>, time: &str) -> HeaderValue {
        let mut base: SmallVec<[u8; 512]> = SmallVec::new();
        for part in ["portico/headers/1", time, what.method.as_str(), what.target] {
            base.extend_from_slice(part.as_bytes());
            base.push(b'\n');
        }
        base.extend_from_slice(wire.lines.as_bytes());
        base.extend_from_slice(what.request_id.as_bytes());
        let tag = hmac::sign(&self.0, &base);
        let mut text = *b"v1=0000000000000000000000000000000000000000000000000000000000000000";
        hex::encode_to_slice(tag.as_ref(), &mut text[3..])
            .expect("SHA-256 has 32 bytes, 64 digits");
        HeaderValue::from_bytes(&text).expect("hexadecimal digits are visible")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use portico_base::PrincipalKind;

    use super::*;

    #[derive(serde::Deserialize)]
    struct Golden {
        cases: Vec<Case>,
    }

    #[derive(serde::Deserialize)]
    struct Case {
        name: String,
        secret: String,
        timestamp_ms: i64,
        method: String,
        target: String,
        identity: Identity,
        base: String,
        signature: String,
    }

    #[derive(serde::Deserialize)]
    struct Identity {
        user: String,
        tenant: String,
        session: String,
        roles: Vec<String>,
        scopes: Vec<String>,
        aal: String,
        request_id: String,
    }

    fn principal(identity: &Identity) -> Principal {
        if identity.user.is_empty() {
            return Principal::anonymous();
        }
        Principal {
            roles: identity.roles.clone().into(),
            scopes: identity.scopes.clone().into(),
            session: (!identity.session.is_empty()).then(|| Arc::from(identity.session.as_str())),
            aal: identity.aal.parse().expect("a level"),
            ..Principal::new(
                PrincipalKind::User,
                identity.user.as_str(),
                id::TENANT_DEFAULT,
            )
        }
    }

    #[test]
    fn signatures_are_the_golden_ones_that_every_sdk_checks() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../sdk/golden/signature.json"
        );
        let golden: Golden =
            serde_json::from_str(&std::fs::read_to_string(path).expect("the golden file"))
                .expect("its form");
        assert!(golden.cases.len() >= 4);
        for case in golden.cases {
            let wire = Wire::of(&principal(&case.identity), Some(&case.identity.tenant));
            let request_id = HeaderValue::from_str(&case.identity.request_id).expect("an id");
            let method = Method::from_bytes(case.method.as_bytes()).expect("a method");
            let mut headers = HeaderMap::new();
            wire.write(&mut headers, &request_id);
            let signed = Signed {
                now_ms: case.timestamp_ms,
                method: &method,
                target: &case.target,
                request_id: &request_id,
            };
            Signer::new(case.secret.as_bytes()).sign(&mut headers, &wire, &signed);
            assert!(
                case.base
                    .ends_with(&format!("{}{}", wire.lines, case.identity.request_id)),
                "{}",
                case.name
            );
            assert_eq!(headers[SIGNATURE], case.signature, "{}", case.name);
            assert_eq!(
                headers.len(),
                9,
                "each header is there once, even when empty"
            );
        }
    }
}
