//! Statements and tokens that the gateway's identity signed, checked with its public keys (RFC 7517, RFC 8037).

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, Method};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, decode, decode_header};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use crate::call::CallError;
use crate::client::{Client, Outgoing};
use crate::plugin::IdentityKeys;

/// Longest token that is looked at, in bytes.
const LONGEST: usize = 8 * 1024;
/// An unknown key makes us ask again, but not more often than this.
const PAUSE: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(5);
/// How far `nbf` and `iat` may be in the future.
const SKEW_S: f64 = 60.0;

/// Why a token is not believed.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// It is too long, or its header is not one of ours.
    #[error("the header is not one of ours")]
    Header,
    /// No key with its id is known.
    #[error("no such key")]
    Key,
    /// The keys could not be fetched.
    #[error("cannot fetch the keys: {0}")]
    Fetch(CallError),
    /// Signature, issuer or audience is wrong, or the claims are not of the expected form.
    #[error("not believed: {0}")]
    Claims(jsonwebtoken::errors::Error),
    /// It has expired, or is not valid yet, or does not say.
    #[error("not valid now")]
    Time,
    /// The claims do not have the form that was asked for.
    #[error("the claims have another form: {0}")]
    Form(serde_json::Error),
}

/// The gateway's keys by id, fetched when first needed.
#[derive(Default)]
pub(crate) struct Keys(Mutex<Known>);

#[derive(Default)]
struct Known {
    by_id: HashMap<String, DecodingKey>,
    fetched: Option<Instant>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    pub(crate) async fn verify<T: DeserializeOwned>(
        &self,
        client: &Client,
        identity: &IdentityKeys,
        jwt: &str,
        kind: &str,
        audience: &str,
        now: SystemTime,
    ) -> Result<T, StatementError> {
        if jwt.len() > LONGEST {
            return Err(StatementError::Header);
        }
        let header = decode_header(jwt).map_err(|_| StatementError::Header)?;
        let id = key_id(&header, kind).ok_or(StatementError::Header)?;
        let key = self.key(client, identity, id).await?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_audience(&[audience]);
        validation.set_issuer(&[&identity.issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        // Times are checked below: the library has one leeway for all of them.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let claims = decode::<Map<String, Value>>(jwt, &key, &validation)
            .map_err(StatementError::Claims)?
            .claims;
        if !is_valid_at(&claims, now) {
            return Err(StatementError::Time);
        }
        serde_json::from_value(Value::Object(claims)).map_err(StatementError::Form)
    }

    async fn key(
        &self,
        client: &Client,
        identity: &IdentityKeys,
        id: &str,
    ) -> Result<DecodingKey, StatementError> {
        // The lock is held while fetching, so that many requests with a new key cause one fetch.
        let mut known = self.0.lock().await;
        let rested = known.fetched.is_none_or(|at| at.elapsed() >= PAUSE);
        if !known.by_id.contains_key(id) && rested {
            known.fetched = Some(Instant::now());
            known.by_id = fetch(client, &identity.jwks_url).await?;
        }
        known.by_id.get(id).cloned().ok_or(StatementError::Key)
    }
}

async fn fetch(client: &Client, url: &str) -> Result<HashMap<String, DecodingKey>, StatementError> {
    let outgoing = Outgoing {
        method: Method::GET,
        url: url.to_owned(),
        credential: None,
        headers: HeaderMap::new(),
        body: None,
        timeout: TIMEOUT,
    };
    let body = client
        .send(outgoing)
        .await
        .map_err(StatementError::Fetch)?
        .body;
    // One key of a kind that we do not know must not cost us the others.
    let document: Value =
        serde_json::from_slice(&body).map_err(|e| StatementError::Fetch(CallError::Json(e)))?;
    let keys = document
        .get("keys")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let known = keys
        .into_iter()
        .filter_map(|key| serde_json::from_value(key).ok())
        .collect();
    Ok(usable(&JwkSet { keys: known }))
}

fn usable(set: &JwkSet) -> HashMap<String, DecodingKey> {
    set.keys
        .iter()
        .filter(|jwk| matches!(&jwk.algorithm, AlgorithmParameters::OctetKeyPair(p) if p.curve == EllipticCurve::Ed25519))
        .filter_map(|jwk| Some((jwk.common.key_id.clone()?, DecodingKey::from_jwk(jwk).ok()?)))
        .collect()
}

/// The id of the key, when the header is one that the gateway would write.
fn key_id<'a>(header: &'a Header, kind: &str) -> Option<&'a str> {
    // A header that brings its own key, or asks for something that we do not do, is an attack (RFC 8725).
    let foreign = header.jku.is_some()
        || header.jwk.is_some()
        || header.x5u.is_some()
        || header.x5c.is_some()
        || header.crit.is_some()
        || header.enc.is_some()
        || header.zip.is_some()
        || header.extras.inner().contains_key("b64");
    let ours = header.alg == Algorithm::EdDSA && header.typ.as_deref() == Some(kind);
    if ours && !foreign {
        header.kid.as_deref()
    } else {
        None
    }
}

fn is_valid_at(claims: &Map<String, Value>, now: SystemTime) -> bool {
    let now = now
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |d| d.as_secs_f64());
    let begins = |name: &str| match claims.get(name) {
        None => true,
        Some(value) => value.as_f64().is_some_and(|at| at <= now + SKEW_S),
    };
    let ends = claims
        .get("exp")
        .and_then(Value::as_f64)
        .is_some_and(|at| at > now);
    ends && begins("nbf") && begins("iat")
}
