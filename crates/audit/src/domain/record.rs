//! A record: its public part, which the chain proves, and its private part, which can be taken out (P§14).

use std::borrow::Cow;

use chrono::SecondsFormat;
use portico_base::{Context, Principal, PrincipalKind, Timestamp};
use portico_contract::audit::{Change, Outcome, Record};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::jcs;
use super::mask::Masker;

/// Bytes of the private part's changes; with everything else a record stays below 64 KiB.
const CHANGES_LIMIT: usize = 48 * 1024;
/// Bytes of a target's id, a reason and a request id; what is longer is cut.
const TARGET_LIMIT: usize = 1_024;
const REASON_LIMIT: usize = 4_096;
const REQUEST_LIMIT: usize = 200;
/// Bytes of the list of changed paths that a search looks at.
const PATHS_LIMIT: usize = 4_096;
/// What stands in place of a value that was too long.
const CUT: &str = "«cut»";
/// Path under which a private part names the order that many changes belong to.
pub(crate) const BATCH: &str = "batch_id";

/// SHA-256.
pub(crate) type Hash = [u8; 32];

/// What the chain proves. The fields stand in the order of RFC 8785, so that its JSON is canonical.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Public<'a> {
    #[serde(borrow)]
    pub action: Cow<'a, str>,
    #[serde(borrow)]
    pub actor: Actor<'a>,
    #[serde(borrow)]
    pub at: Cow<'a, str>,
    #[serde(borrow)]
    pub error_code: Option<Cow<'a, str>>,
    pub id: Uuid,
    #[serde(borrow)]
    pub outcome: Cow<'a, str>,
    #[serde(borrow)]
    pub private_hash: Cow<'a, str>,
    #[serde(borrow)]
    pub request_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub target: Target<'a>,
    pub tenant_id: Option<Uuid>,
    #[serde(borrow)]
    pub trace_id: Option<Cow<'a, str>>,
    pub v: u8,
}

/// Whoever acted; what does not apply is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Actor<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aal: Option<u8>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub api_key_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<Uuid>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<Uuid>,
}

/// What it was about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Target<'a> {
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    pub kind: Cow<'a, str>,
}

/// A record as its row holds it. Most columns repeat the public part, for the indexes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub id: Uuid,
    pub at: Timestamp,
    pub tenant: Uuid,
    pub actor_kind: String,
    pub actor_id: String,
    pub action: String,
    pub target_type: String,
    pub target_id: String,
    pub request_id: String,
    pub trace_id: Option<String>,
    pub outcome: String,
    pub error_code: Option<String>,
    /// Canonical JSON, exactly what was hashed.
    pub public: String,
    /// The same; nothing once it was taken out.
    pub private: Option<String>,
    /// In hex; goes with the private part, so that nobody can guess what it was.
    pub salt: Option<String>,
    pub private_hash: String,
    pub batch: Option<Uuid>,
    pub ip: Option<String>,
    /// Changed paths, each between two line feeds; empty once the private part was taken out.
    pub paths: String,
    pub redacted_at: Option<Timestamp>,
}

/// What a record is made from, before it is written down.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub context: Context,
    pub at: Timestamp,
    pub action: &'static str,
    pub target_type: &'static str,
    pub target: String,
    pub tenant: Uuid,
    pub changes: Vec<Change>,
    pub outcome: Outcome,
    pub code: Option<String>,
    pub reason: Option<String>,
    pub batch: Option<Uuid>,
}

impl Entry {
    /// A use-case's record.
    pub(crate) fn new(context: &Context, record: Record) -> Self {
        Self {
            context: context.clone(),
            at: context.now(),
            action: record.action,
            target_type: record.target_type,
            target: record.target,
            tenant: record.tenant,
            changes: record.changes,
            outcome: record.outcome,
            code: record.code.map(str::to_owned),
            reason: record.reason,
            batch: record.batch_id,
        }
    }

    /// Writes it down: masked, cut to its bounds, hashed.
    pub(crate) fn store(self, masker: &Masker) -> Stored {
        let (id, at) = (self.context.new_id(), self.at);
        let mut salt = [0; 16];
        self.context.random.fill(&mut salt);
        let ip = self.context.caller.address.map(|ip| ip.to_string());
        // First, so that no cut takes it away.
        let batch = self.batch.map(|batch| Change {
            path: BATCH.to_owned(),
            before: None,
            after: Some(batch.to_string().into()),
        });
        let changes: Vec<Value> = { batch.into_iter().chain(self.changes) }
            .map(|change| shown(change, masker))
            .collect();
        let (changes, whole) = within(changes, CHANGES_LIMIT);
        let paths = paths(&changes);
        let mut private = json!({
            "actor_name": null,
            "changes": changes,
            "ip": ip,
            "reason": self.reason.map(|reason| cut(&reason, REASON_LIMIT).to_owned()),
            "target_name": null,
            "user_agent": self.context.caller.agent.as_deref(),
        });
        if let (Some(hash), Some(members)) = (whole, private.as_object_mut()) {
            members.insert("changes_hash".to_owned(), hash.into());
            members.insert("truncated".to_owned(), true.into());
        }
        let private = jcs::text(&private);
        let private_hash = hex::encode(private_hash(&salt, &private));
        let principal = self.context.principal();
        let target = cut(&self.target, TARGET_LIMIT);
        let request_id = cut(&self.context.caller.request_id, REQUEST_LIMIT);
        let public = Public {
            action: self.action.into(),
            actor: actor(principal),
            at: moment(at).into(),
            error_code: self.code.as_deref().map(Cow::from),
            id,
            outcome: outcome(self.outcome).into(),
            private_hash: (&*private_hash).into(),
            request_id: Some(request_id.into()),
            target: Target {
                id: target.into(),
                kind: self.target_type.into(),
            },
            tenant_id: Some(self.tenant),
            trace_id: self.context.caller.trace_id.as_deref().map(Cow::from),
            v: 1,
        };
        Stored {
            id,
            at,
            tenant: self.tenant,
            actor_kind: public.actor.kind.clone().into_owned(),
            actor_id: public.actor.id.clone().into_owned(),
            action: self.action.to_owned(),
            target_type: self.target_type.to_owned(),
            target_id: target.to_owned(),
            request_id: request_id.to_owned(),
            trace_id: public.trace_id.clone().map(Cow::into_owned),
            outcome: public.outcome.clone().into_owned(),
            error_code: self.code.clone(),
            public: canonical(&public),
            private: Some(private),
            salt: Some(hex::encode(salt)),
            private_hash: private_hash.clone(),
            batch: self.batch,
            ip,
            paths,
            redacted_at: None,
        }
    }
}

impl Stored {
    /// A record from its two parts alone, as an export holds it; nothing when they cannot be read.
    pub(crate) fn of_parts(
        text: &str,
        private: Option<String>,
        salt: Option<String>,
    ) -> Option<Self> {
        let public: Public<'_> = serde_json::from_str(text).ok()?;
        let read: Value = match &private {
            Some(private) => serde_json::from_str(private).ok()?,
            None => Value::Null,
        };
        let changes = read["changes"].as_array().cloned().unwrap_or_default();
        let at = public.at.parse().ok()?;
        Some(Self {
            id: public.id,
            at,
            tenant: public.tenant_id.unwrap_or_default(),
            actor_kind: public.actor.kind.clone().into_owned(),
            actor_id: public.actor.id.clone().into_owned(),
            action: public.action.clone().into_owned(),
            target_type: public.target.kind.clone().into_owned(),
            target_id: public.target.id.clone().into_owned(),
            request_id: { public.request_id.clone() }.map_or_else(String::new, Cow::into_owned),
            trace_id: public.trace_id.clone().map(Cow::into_owned),
            outcome: public.outcome.clone().into_owned(),
            error_code: public.error_code.clone().map(Cow::into_owned),
            private_hash: public.private_hash.clone().into_owned(),
            batch: batch(&changes),
            ip: read["ip"].as_str().map(str::to_owned),
            paths: paths(&changes),
            redacted_at: private.is_none().then_some(at),
            public: text.to_owned(),
            private,
            salt,
        })
    }

    /// What of the record is not as its hash says; nothing when all is well. `redactions` tells whether the
    /// private part was taken out in order at a moment.
    pub(crate) fn fault(&self, redactions: impl Fn(Timestamp) -> bool) -> Option<String> {
        let Ok(public) = serde_json::from_str::<Public<'_>>(&self.public) else {
            return Some("the public part is not what was written".to_owned());
        };
        let same = |a: Option<&str>, b: Option<&Cow<'_, str>>| a == b.map(|b| &**b);
        let columns = [
            ("id", self.id == public.id),
            ("at", moment(self.at) == public.at),
            ("tenant_id", Some(self.tenant) == public.tenant_id),
            ("actor_kind", self.actor_kind == public.actor.kind),
            ("actor_id", self.actor_id == public.actor.id),
            ("action", self.action == public.action),
            ("target_type", self.target_type == public.target.kind),
            ("target_id", self.target_id == public.target.id),
            (
                "request_id",
                same(Some(&self.request_id), public.request_id.as_ref()),
            ),
            (
                "trace_id",
                same(self.trace_id.as_deref(), public.trace_id.as_ref()),
            ),
            ("outcome", self.outcome == public.outcome),
            (
                "error_code",
                same(self.error_code.as_deref(), public.error_code.as_ref()),
            ),
            ("private_hash", self.private_hash == public.private_hash),
        ];
        let wrong: Vec<&str> = { columns.iter() }
            .filter(|(_, same)| !same)
            .map(|(name, _)| *name)
            .collect();
        if !wrong.is_empty() {
            return Some(format!("{} differs from the public part", wrong.join(", ")));
        }
        self.private_fault(redactions)
    }

    fn private_fault(&self, redactions: impl Fn(Timestamp) -> bool) -> Option<String> {
        let (private, salt) = match (&self.private, &self.salt, self.redacted_at) {
            (Some(private), Some(salt), None) => (private, salt),
            (None, None, Some(at)) => {
                let bare = self.ip.is_none() && self.batch.is_none() && self.paths.is_empty();
                return match (bare, redactions(at)) {
                    (true, true) => None,
                    (false, _) => Some("something private is left of a redacted record".to_owned()),
                    (_, false) => Some(
                        "the private part is gone and no record says that it was redacted"
                            .to_owned(),
                    ),
                };
            }
            _ => return Some("the private part is there in parts".to_owned()),
        };
        let Ok(salt) = hex::decode(salt) else {
            return Some("the salt is not what was written".to_owned());
        };
        if hex::encode(private_hash(&salt, private)) != self.private_hash {
            return Some("the private part or its salt is not what was written".to_owned());
        }
        let read: Value = serde_json::from_str(private).unwrap_or_default();
        let changes = read["changes"].as_array().cloned().unwrap_or_default();
        if self.ip.as_deref() != read["ip"].as_str() {
            return Some("ip differs from the private part".to_owned());
        }
        if self.paths != paths(&changes) {
            return Some("paths differs from the private part".to_owned());
        }
        (self.batch != batch(&changes)).then(|| "batch_id differs from the private part".to_owned())
    }
}

/// Hash of a private part with its salt.
pub(crate) fn private_hash(salt: &[u8], private: &str) -> Hash {
    Sha256::new()
        .chain_update("portico/audit/1/private\n")
        .chain_update(salt)
        .chain_update(private)
        .finalize()
        .into()
}

/// Hash of a public part.
pub(crate) fn record_hash(public: &str) -> Hash {
    Sha256::new()
        .chain_update("portico/audit/1/record\n")
        .chain_update(public)
        .finalize()
        .into()
}

/// The word in the public part.
pub(crate) const fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Done => "success",
        Outcome::Denied => "denied",
        Outcome::Failed => "failed",
    }
}

/// A moment as records write it: UTC with microseconds.
pub(crate) fn moment(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// The canonical text of a public part: its fields stand in order already.
pub(crate) fn canonical(public: &Public<'_>) -> String {
    serde_json::to_string(public).expect("a public part has only text keys and serialises")
}

fn actor(principal: &Principal) -> Actor<'_> {
    let somewhere = !matches!(
        principal.kind,
        PrincipalKind::Anonymous
            | PrincipalKind::AnonymousLocal
            | PrincipalKind::Operator
            | PrincipalKind::System
    );
    let id = if principal.subject.is_empty() {
        principal.kind.as_str()
    } else {
        &principal.subject
    };
    Actor {
        aal: (principal.aal > 0).then_some(principal.aal),
        api_key_id: (principal.kind == PrincipalKind::ApiKey)
            .then_some((&*principal.subject).into()),
        id: cut(id, TARGET_LIMIT).into(),
        kind: principal.kind.as_str().into(),
        on_behalf_of: principal.owner,
        sid: principal.session.as_deref().map(Cow::from),
        tenant_id: somewhere.then_some(principal.tenant),
    }
}

fn shown(change: Change, masker: &Masker) -> Value {
    let (before, after) = (
        change.before.unwrap_or(Value::Null),
        change.after.unwrap_or(Value::Null),
    );
    json!({
        "before": masker.value(&change.path, before),
        "after": masker.value(&change.path, after),
        "path": change.path,
    })
}

/// Changes as far as they fit, and the hash of all of them when they do not.
fn within(changes: Vec<Value>, limit: usize) -> (Vec<Value>, Option<String>) {
    let sizes: Vec<usize> = changes.iter().map(|c| jcs::text(c).len() + 1).collect();
    if sizes.iter().sum::<usize>() <= limit {
        return (changes, None);
    }
    let whole = Value::Array(changes);
    let hash = hex::encode(Sha256::digest(jcs::text(&whole)));
    let Value::Array(changes) = whole else {
        return (Vec::new(), Some(hash));
    };
    let (mut kept, mut used) = (Vec::new(), 0);
    for (change, size) in changes.into_iter().zip(sizes) {
        let mut short = Map::new();
        let path = change["path"].as_str().unwrap_or_default();
        short.insert("path".to_owned(), cut(path, TARGET_LIMIT).into());
        short.insert("before".to_owned(), CUT.into());
        short.insert("after".to_owned(), CUT.into());
        let short = Value::Object(short);
        // One value that is too long does not drive the others out.
        let (change, size) = if used + size <= limit && size <= limit / 2 {
            (change, size)
        } else {
            let size = jcs::text(&short).len() + 1;
            (short, size)
        };
        if used + size > limit {
            break;
        }
        used += size;
        kept.push(change);
    }
    (kept, Some(hash))
}

/// The order that a list of changes names.
fn batch(changes: &[Value]) -> Option<Uuid> {
    let named = |c: &&Value| c["path"] == BATCH && c["before"].is_null();
    let text = changes.first().filter(named)?["after"].as_str()?;
    Uuid::parse_str(text).ok()
}

fn paths(changes: &[Value]) -> String {
    let mut out = String::new();
    for path in changes.iter().filter_map(|c| c["path"].as_str()) {
        if out.len() + path.len() + 2 > PATHS_LIMIT {
            break;
        }
        if out.is_empty() {
            out.push('\n');
        }
        out.push_str(path);
        out.push('\n');
    }
    out
}

/// The beginning of a text, at most `limit` bytes.
pub(crate) fn cut(text: &str, limit: usize) -> &str {
    if text.len() <= limit {
        return text;
    }
    let mut end = limit;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
