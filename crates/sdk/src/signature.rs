//! The signature of the identity headers: the text that is signed and its HMAC.

use aws_lc_rs::hmac;
use http::{HeaderMap, HeaderValue};

use crate::identity::Identity;

/// Header with the Unix time in milliseconds at which the gateway signed.
pub const TIMESTAMP_HEADER: &str = "x-portico-timestamp";
/// Header with the signature, `v1=` and 64 hexadecimal digits.
pub const SIGNATURE_HEADER: &str = "x-portico-signature";
/// Names in the signed text, in its order, and the headers that carry their values.
pub(crate) const SIGNED: [(&str, &str); 7] = [
    ("user", "x-portico-user"),
    ("tenant", "x-portico-tenant"),
    ("session", "x-portico-session"),
    ("roles", "x-portico-roles"),
    ("scopes", "x-portico-scopes"),
    ("aal", "x-portico-aal"),
    ("request-id", "x-portico-request-id"),
];

/// The values of the identity headers exactly as they are on the wire; empty means absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Values<'a> {
    /// Id of the user.
    pub user: &'a str,
    /// The tenant.
    pub tenant: &'a str,
    /// Id of the session.
    pub session: &'a str,
    /// Roles, sorted, joined by commas.
    pub roles: &'a str,
    /// Scopes, sorted, joined by spaces.
    pub scopes: &'a str,
    /// Level of authentication.
    pub aal: &'a str,
    /// The request's id.
    pub request_id: &'a str,
}

impl<'a> Values<'a> {
    const fn in_order(&self) -> [&'a str; 7] {
        [
            self.user,
            self.tenant,
            self.session,
            self.roles,
            self.scopes,
            self.aal,
            self.request_id,
        ]
    }
}

/// The text that is signed (`docs/plugins.md`): `portico/headers/1`, the timestamp in milliseconds, the
/// method, the target as forwarded (path, `?`, query), then one line `name:value` for each identity
/// header, present even when empty; joined by line feeds, without one at the end.
///
/// Header values and targets cannot contain line feeds; text from elsewhere must be checked before.
#[must_use]
pub fn signature_base(
    timestamp_ms: u64,
    method: &str,
    target: &str,
    values: &Values<'_>,
) -> String {
    let mut text = format!("portico/headers/1\n{timestamp_ms}\n{method}\n{target}");
    for ((name, _), value) in SIGNED.iter().zip(values.in_order()) {
        text.push('\n');
        text.push_str(name);
        text.push(':');
        text.push_str(value);
    }
    text
}

/// The signature of a base: `v1=` and the HMAC-SHA256 (RFC 2104) in lower-case hexadecimal. The key is the
/// text of the instance secret as it was given, with its prefix `pis_`.
#[must_use]
pub fn sign(secret: &str, base: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    format!("v1={}", hex::encode(hmac::sign(&key, base.as_bytes())))
}

/// The headers that a gateway sets on a request, for tests of plug-ins: nobody else has the secret.
///
/// Text that cannot stand in a header is left empty, which no verifier accepts for timestamp or signature.
#[must_use]
pub fn signed_headers(
    identity: &Identity,
    secret: &str,
    method: &str,
    target: &str,
    timestamp_ms: u64,
) -> HeaderMap {
    let sorted = |list: &[String], joint: &str| {
        let mut list = list.to_vec();
        list.sort_unstable();
        list.join(joint)
    };
    let (roles, scopes) = (sorted(&identity.roles, ","), sorted(&identity.scopes, " "));
    let aal = if identity.aal == 0 {
        String::new()
    } else {
        identity.aal.to_string()
    };
    let values = Values {
        user: identity.user.as_deref().unwrap_or_default(),
        tenant: identity.tenant.as_deref().unwrap_or_default(),
        session: identity.session.as_deref().unwrap_or_default(),
        roles: &roles,
        scopes: &scopes,
        aal: &aal,
        request_id: &identity.request_id,
    };
    let mut headers = HeaderMap::new();
    let mut put = |name: &'static str, text: &str| {
        headers.insert(
            name,
            HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("")),
        );
    };
    for ((_, header), value) in SIGNED.iter().zip(values.in_order()) {
        put(header, value);
    }
    put(TIMESTAMP_HEADER, &timestamp_ms.to_string());
    put(
        SIGNATURE_HEADER,
        &sign(
            secret,
            &signature_base(timestamp_ms, method, target, &values),
        ),
    );
    headers
}
