//! Registration tokens (PL-3): made once, shown once, kept as a hash.

use std::sync::Arc;

use portico_base::secret::{new_token, token_hash};
use portico_base::{Context, FieldFault, Permission, Secret, Timestamp};
use uuid::Uuid;

use super::{acts_for_all, audited, need};
use crate::domain::rights::{Rights, Tenants};
use crate::domain::token::{NamePattern, SCOPES, TOKEN_PREFIX, Token, registrar};
use crate::error::{Error, Result};
use crate::hub::Core;
use crate::ops::register::tenant;
use crate::writer::Writer;

const WRITE: Permission = Permission::new("registry:token:write");
/// Tokens of an installation.
const MOST: usize = 10_000;

/// A wish for a token.
#[derive(Debug, Clone)]
pub(crate) struct NewToken {
    /// A service name, or the beginning of one followed by `*`.
    pub name_pattern: String,
    pub scopes: Vec<String>,
    pub max_instances: u32,
    pub allow_public: bool,
    pub allow_credentials: bool,
    pub tenant: Option<String>,
    pub expires_at: Option<Timestamp>,
    pub note: String,
}

/// Makes a token; its text is in the answer and nowhere else.
pub(crate) async fn create(
    core: &Arc<Core>,
    cx: &Context,
    new: NewToken,
) -> Result<(Token, Secret<String>)> {
    need(cx, WRITE)?;
    let home = Rights::of_principal(cx.principal());
    let (pattern, tenant) = checked(cx, &new, &home)?;
    let text = new_token(TOKEN_PREFIX, &*core.random);
    let id = cx.new_id();
    let token = Token {
        id,
        principal: registrar(id, &pattern, tenant, &new.scopes),
        pattern,
        scopes: new.scopes,
        max_instances: new.max_instances,
        allow_public: new.allow_public,
        allow_credentials: new.allow_credentials,
        tenant,
        hash: token_hash(text.expose()),
        expires_at: new.expires_at,
        used_at: None,
        created_by: cx.principal().subject.to_string(),
        created_at: cx.now(),
        note: new.note,
    };
    let mut w = Writer::begin(core, cx).await?;
    if core.model.read().tokens().count() >= MOST {
        return Err(Error::Conflict("there are as many tokens as there may be"));
    }
    w.put_token(token.clone()).await?;
    let record = audited("registry.token.created", "token", id.to_string(), tenant)
        .change("name_pattern", None, Some(token.pattern.text().into()))
        .change("scopes", None, Some(token.scopes.clone().into()))
        .change("allow_public", None, Some(token.allow_public.into()))
        .change(
            "allow_credentials",
            None,
            Some(token.allow_credentials.into()),
        );
    w.audit(record).await?;
    w.commit().await?;
    Ok((token, text))
}

fn checked(cx: &Context, new: &NewToken, home: &Rights) -> Result<(NamePattern, Option<Uuid>)> {
    let mut faults = Vec::new();
    let pattern = NamePattern::parse(&new.name_pattern)
        .map_err(|message| faults.push(FieldFault::new("name_pattern", "form", message)))
        .ok();
    if let Some(NamePattern::Exact(name)) = &pattern
        && portico_base::name::is_reserved(name)
    {
        faults.push(FieldFault::new(
            "name_pattern",
            "reserved",
            "this name is reserved for the platform",
        ));
    }
    for (i, scope) in new.scopes.iter().enumerate() {
        if !SCOPES.contains(&scope.as_str()) {
            let message = format!("must be one of {}", SCOPES.join(", "));
            faults.push(FieldFault::new(format!("scopes[{i}]"), "choice", message));
        } else if !Permission::parse(scope).is_ok_and(|p| cx.principal().may(&p)) {
            let message = "you do not have it yourself";
            faults.push(FieldFault::new(
                format!("scopes[{i}]"),
                "not_allowed",
                message,
            ));
        }
    }
    if !(1..=100_000).contains(&new.max_instances) {
        faults.push(FieldFault::new(
            "max_instances",
            "range",
            "must be from 1 to 100000",
        ));
    }
    if new.expires_at.is_some_and(|at| at <= cx.now()) {
        faults.push(FieldFault::new(
            "expires_at",
            "past",
            "must be in the future",
        ));
    }
    if new.note.len() > 256 || new.note.chars().any(char::is_control) {
        faults.push(FieldFault::new(
            "note",
            "form",
            "must be at most 256 bytes without control characters",
        ));
    }
    let tenant = tenant(home, new.tenant.as_deref())
        .map_err(|fault| faults.push(fault))
        .ok();
    // Nobody hands out more than they have themselves.
    if new.allow_credentials && !home.credentials {
        faults.push(FieldFault::new(
            "allow_credentials",
            "not_allowed",
            "you may not do so yourself",
        ));
    }
    match (pattern, tenant) {
        (Some(pattern), Some(tenant)) if faults.is_empty() => Ok((pattern, tenant)),
        _ => Err(Error::Invalid {
            code: "registry.invalid",
            faults,
        }),
    }
}

/// All tokens that the caller may manage, newest first.
pub(crate) fn list(core: &Core, cx: &Context) -> Result<Vec<Arc<Token>>> {
    need(cx, WRITE)?;
    let model = core.model.read();
    let mut tokens: Vec<Arc<Token>> = model
        .tokens()
        .filter(|t| manages(cx, t))
        .map(Arc::clone)
        .collect();
    tokens.sort_by_key(|t| std::cmp::Reverse((t.created_at, t.id)));
    Ok(tokens)
}

fn manages(cx: &Context, token: &Token) -> bool {
    let home = Rights::of_principal(cx.principal()).tenants;
    acts_for_all(cx.principal()) || home == Tenants::Fixed(token.tenant)
}

/// Removes a token. Instances that registered with it live on with their own secrets.
pub(crate) async fn delete(core: &Arc<Core>, cx: &Context, id: Uuid) -> Result<()> {
    need(cx, WRITE)?;
    let mut w = Writer::begin(core, cx).await?;
    let token = {
        let model = core.model.read();
        model
            .token(id)
            .filter(|t| manages(cx, t))
            .map(Arc::clone)
            .ok_or(Error::UnknownToken)?
    };
    w.drop_token(id).await?;
    let record = audited(
        "registry.token.deleted",
        "token",
        id.to_string(),
        token.tenant,
    )
    .change("name", Some(token.pattern.text().into()), None);
    w.audit(record).await?;
    w.commit().await?;
    Ok(())
}
