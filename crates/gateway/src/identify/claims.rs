//! From verified claims to a principal: what a foreign issuer may say, and what it may not.

use std::sync::Arc;

use portico_base::name::RESERVED;
use portico_base::{Permission, Principal, PrincipalKind, id};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{Denied, Verified};

/// Roles of the house: a foreign issuer cannot give them (P§7, ID-21).
const BUILT_IN_ROLES: [&str; 4] = ["super_admin", "tenant_admin", "user", "auditor"];
const MOST_ROLES: usize = 100;
/// Further claims that limits can count by.
const MOST_CLAIMS: usize = 16;
const SKEW_S: i64 = 60;

/// What tokens of one issuer must say.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    pub issuer: Option<String>,
    pub audience: Option<String>,
    /// Claim that names the tenant; dots lead into objects.
    pub tenant_claim: String,
    /// Claim that lists the roles; dots lead into objects.
    pub roles_claim: String,
}

impl Expected {
    /// Checks the registered claims (RFC 7519 §4.1).
    pub(super) fn check(&self, claims: &Map<String, Value>, now_s: i64) -> Result<i64, Denied> {
        let expires = time(claims, "exp")?.ok_or(Denied("exp_missing"))?;
        if now_s >= expires {
            return Err(Denied("expired"));
        }
        for (name, why) in [("nbf", "not_yet"), ("iat", "issued_later")] {
            if time(claims, name)?.is_some_and(|t| t > now_s + SKEW_S) {
                return Err(Denied(why));
            }
        }
        if let Some(issuer) = &self.issuer
            && claims.get("iss").and_then(Value::as_str) != Some(issuer)
        {
            return Err(Denied("issuer"));
        }
        if let Some(audience) = &self.audience {
            let meant = match claims.get("aud") {
                Some(Value::String(one)) => one == audience,
                Some(Value::Array(several)) => several.iter().any(|a| a.as_str() == Some(audience)),
                _ => false,
            };
            if !meant {
                return Err(Denied("audience"));
            }
        }
        Ok(expires)
    }

    /// The principal that checked claims describe.
    pub(super) fn principal(
        &self,
        claims: &Map<String, Value>,
        expires_s: i64,
    ) -> Result<Verified, Denied> {
        let subject = claims.get("sub").and_then(Value::as_str).unwrap_or("");
        if subject.is_empty()
            || subject.len() > 255
            || !subject.bytes().all(|b| b.is_ascii_graphic())
        {
            return Err(Denied("subject"));
        }
        let (tenant, tenant_name) = tenant(find(claims, &self.tenant_claim))?;
        let mut roles = words(find(claims, &self.roles_claim));
        roles.retain(|r| !BUILT_IN_ROLES.contains(&r.as_str()));
        let scopes = words(claims.get("scope").or_else(|| claims.get("scp")));
        let permissions: Vec<Permission> = scopes
            .iter()
            .filter_map(|s| foreign_permission(s))
            .collect();
        let session = claims
            .get("sid")
            .and_then(Value::as_str)
            .filter(|s| s.len() <= 255 && s.bytes().all(|b| b.is_ascii_graphic()));
        let aal = claims
            .get("aal")
            .and_then(Value::as_u64)
            .unwrap_or(1)
            .min(3);
        let principal = Principal {
            roles: roles.into(),
            scopes: scopes.into(),
            permissions: permissions.into(),
            session: session.map(Arc::from),
            aal: u8::try_from(aal).unwrap_or(1),
            ..Principal::new(PrincipalKind::User, subject, tenant)
        };
        let claims = further(claims);
        Ok(Verified {
            principal: Arc::new(principal),
            tenant_name,
            claims,
            expires_s,
            stamp: None,
        })
    }
}

/// A NumericDate that is a whole number (RFC 7519 §2); fractions, texts and numbers beyond 2⁵³ are refused.
fn time(claims: &Map<String, Value>, name: &'static str) -> Result<Option<i64>, Denied> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => match value.as_i64() {
            Some(seconds) if (0..1 << 53).contains(&seconds) => Ok(Some(seconds)),
            _ => Err(Denied("time_form")),
        },
    }
}

/// A claim by its name, or by a path into objects.
fn find<'c>(claims: &'c Map<String, Value>, path: &str) -> Option<&'c Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let mut steps = path.split('.');
    let first = claims.get(steps.next()?)?;
    steps.try_fold(first, |value, step| value.get(step))
}

/// The tenant: an id, a name, or nothing for the default one. A name becomes an id of its own, the same each
/// time; the system's tenant belongs to nobody outside.
fn tenant(claim: Option<&Value>) -> Result<(Uuid, Option<Box<str>>), Denied> {
    let text = match claim {
        None | Some(Value::Null) => return Ok((id::TENANT_DEFAULT, None)),
        Some(Value::String(text)) => text,
        Some(_) => return Err(Denied("tenant")),
    };
    let good =
        (1..=100).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b',');
    if !good {
        return Err(Denied("tenant"));
    }
    let tenant = match Uuid::parse_str(text) {
        Ok(id) => id,
        Err(_) if text == "default" => id::TENANT_DEFAULT,
        Err(_) if text == "system" => id::TENANT_SYSTEM,
        Err(_) => {
            let digest = Sha256::digest([b"portico/tenant/", text.as_bytes()].concat());
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&digest[..16]);
            return Ok((
                uuid::Builder::from_custom_bytes(bytes).into_uuid(),
                Some(text.as_str().into()),
            ));
        }
    };
    if tenant == id::TENANT_SYSTEM {
        Err(Denied("tenant"))
    } else {
        Ok((tenant, None))
    }
}

/// A list of words, or one text with spaces; sorted, without those that cannot stand in a header.
fn words(claim: Option<&Value>) -> Vec<String> {
    let mut words: Vec<String> = match claim {
        Some(Value::String(text)) => text.split_ascii_whitespace().map(str::to_owned).collect(),
        Some(Value::Array(list)) => list
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        _ => Vec::new(),
    };
    words.retain(|w| {
        (1..=100).contains(&w.len()) && w.bytes().all(|b| b.is_ascii_graphic() && b != b',')
    });
    words.sort_unstable();
    words.dedup();
    words.truncate(MOST_ROLES);
    words
}

/// A scope as a permission of a plug-in; the house's own are never a foreign issuer's to give.
fn foreign_permission(scope: &str) -> Option<Permission> {
    let service = scope.split(':').next()?;
    let own = service == "*" || service.contains('*') || RESERVED.contains(&service);
    Permission::parse(scope).ok().filter(|_| !own)
}

/// Short top-level claims beside the registered ones.
fn further(claims: &Map<String, Value>) -> Box<[(Box<str>, Box<str>)]> {
    const KNOWN: [&str; 7] = ["iss", "aud", "exp", "nbf", "iat", "jti", "scope"];
    let short = claims
        .iter()
        .filter(|(name, _)| name.len() <= 64 && !KNOWN.contains(&name.as_str()));
    let texts = short.filter_map(|(name, value)| {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(yes) => yes.to_string(),
            _ => return None,
        };
        (text.len() <= 100).then(|| (name.as_str().into(), text.into()))
    });
    texts.take(MOST_CLAIMS).collect()
}
