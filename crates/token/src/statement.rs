//! Statements about a caller for one service (`X-Portico-Identity`, ID-170): 60 seconds, signed, verifiable through the JWKS.

use portico_base::{Principal, Secret};
use portico_contract::tokens::Denied;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::access::Issuer;
use crate::signing::{Kind, SigningKey, VerifyingKey, open};

/// Life of a statement in seconds.
pub const LIFE_S: i64 = 60;
/// A service's clock may be behind by so much.
const SKEW_S: i64 = 60;

/// What a statement says: the same as the headers `X-Portico-*`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// The installation's issuer.
    pub iss: String,
    /// Name of the one service that it is for.
    pub aud: String,
    /// Id of the caller.
    pub sub: String,
    /// Its tenant.
    pub tid: String,
    /// Its session, for users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    /// What kind of caller it is.
    pub kind: String,
    /// Names of its roles, sorted.
    pub roles: Vec<String>,
    /// Its scopes, sorted, with spaces between.
    pub scope: String,
    /// Assurance level.
    pub aal: u8,
    /// Unix seconds.
    pub iat: i64,
    /// Unix seconds.
    pub exp: i64,
}

/// Signs a statement about a principal for a service.
///
/// # Errors
/// When the claims cannot be written as JSON, which texts and numbers can.
pub fn sign(
    key: &SigningKey,
    issuer: &Issuer,
    principal: &Principal,
    service: &str,
    now_s: i64,
) -> serde_json::Result<Secret<String>> {
    let statement = Statement {
        iss: issuer.issuer.to_string(),
        aud: service.to_owned(),
        sub: principal.subject.to_string(),
        tid: principal.tenant.to_string(),
        sid: principal.session.as_deref().map(str::to_owned),
        kind: principal.kind.as_str().to_owned(),
        roles: principal.roles.to_vec(),
        scope: principal.scopes.join(" "),
        aal: principal.aal,
        iat: now_s,
        exp: now_s + LIFE_S,
    };
    key.sign(Kind::Statement, &statement)
}

/// Verifies a statement as the service named by `service` does.
///
/// # Errors
/// Says why it is refused.
pub fn verify<'k>(
    text: &str,
    issuer: &str,
    service: &str,
    find: impl FnOnce(&str) -> Result<&'k VerifyingKey, Denied>,
    now_s: i64,
) -> Result<Statement, Denied> {
    let claims = open(text, Kind::Statement, find)?;
    let statement: Statement =
        serde_json::from_value(Value::Object(claims)).map_err(|_| Denied("claims"))?;
    if statement.iss != issuer {
        return Err(Denied("issuer"));
    }
    if statement.aud != service {
        return Err(Denied("audience"));
    }
    if now_s >= statement.exp {
        return Err(Denied::EXPIRED);
    }
    if statement.iat > now_s + SKEW_S {
        return Err(Denied("issued_later"));
    }
    Ok(statement)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use portico_base::{PrincipalKind, SystemRandom, id};

    use super::*;

    #[test]
    fn a_statement_is_for_one_service_and_a_minute() {
        let (key, _seed) = SigningKey::generate(&SystemRandom).unwrap();
        let public = VerifyingKey::from_jwk(&key.public_jwk()).unwrap();
        let issuer = Issuer {
            issuer: Arc::from("https://portico.example"),
            audience: Arc::from("urn:portico:x"),
        };
        let principal = Principal {
            roles: Arc::from(["auditor".to_owned(), "user".to_owned()]),
            session: Some(Arc::from("s1")),
            aal: 2,
            ..Principal::new(PrincipalKind::User, "u1", id::TENANT_DEFAULT)
        };
        let text = sign(&key, &issuer, &principal, "notes", 1_000).unwrap();
        let check = |service: &str, now_s: i64| {
            verify(
                text.expose(),
                &issuer.issuer,
                service,
                |_| Ok(&public),
                now_s,
            )
        };
        let statement = check("notes", 1_059).unwrap();
        assert_eq!(
            (&*statement.sub, &*statement.kind, statement.aal),
            ("u1", "user", 2)
        );
        assert_eq!(statement.roles, ["auditor", "user"]);
        assert_eq!(check("notes", 1_060), Err(Denied::EXPIRED));
        assert_eq!(check("notes", 939), Err(Denied("issued_later")));
        assert_eq!(check("other", 1_000), Err(Denied("audience")));
        let foreign = verify(text.expose(), "urn:x", "notes", |_| Ok(&public), 1_000);
        assert_eq!(foreign, Err(Denied("issuer")));
        let as_access = crate::access::verify(text.expose(), &issuer, |_| Ok(&public), 1_000);
        assert_eq!(as_access, Err(Denied("kind")));
    }
}
