//! Against guessing: who has to wait after wrong passwords (ID-161), and which address is blocked for trying many (ID-162).

use portico_base::{Context, Secret};
use portico_contract::audit::{Outcome, Record};
use portico_db::sea_orm::ConnectionTrait;
use serde_json::json;
use uuid::Uuid;

use crate::address_rules;
use crate::domain::ip_rule::{IpRule, RuleKind, STUFFING, exempt};
use crate::domain::lock::{Lock, LockRules};
use crate::domain::user::User;
use crate::error::{Error, Result, reason};
use crate::hub::Core;
use crate::limits::{Subject, UnderWay, network};
use crate::settings::limit;
use crate::store;
use crate::unit::Unit;

/// Seconds after which a try that came while others of the same name were under way may come again.
const BUSY_RETRY_S: u32 = 1;

/// For whom a password is tried.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Whose<'a> {
    /// Somebody who typed a name, whether there is such an account or not. Each name of an account counts for
    /// itself: if they counted together, one of them would tell of the others.
    Name(&'a str),
    /// A device that proved itself: strangers' failures do not count against it.
    Device(Uuid),
    /// Somebody who is logged in already.
    User(Uuid),
}

impl Whose<'_> {
    fn subject(self, core: &Core) -> Subject {
        match self {
            Self::Name(name) => core.limits.subject(&["name", name]),
            Self::Device(id) => core.limits.subject(&["device", &id.to_string()]),
            Self::User(id) => core.limits.subject(&["user", &id.to_string()]),
        }
    }
}

/// A try that may be made.
pub(crate) struct Try {
    subject: Subject,
    /// There are failures to be forgotten when it succeeds.
    marked: bool,
    _under_way: UnderWay,
}

/// Begins a try, unless its subject has to wait.
///
/// # Errors
/// 429 with the time that is left.
pub(crate) async fn begin(
    core: &Core,
    conn: &impl ConnectionTrait,
    cx: &Context,
    whose: Whose<'_>,
) -> Result<Try> {
    let subject = whose.subject(core);
    let lock = store::locks::get(conn, subject).await?;
    let rules = rules(core);
    let mut free = rules.free.count;
    if let Some(lock) = &lock {
        if let Some(seconds) = lock.wait_s(cx.now()) {
            return Err(Error::Later(reason::ACCOUNT_LOCKED, seconds));
        }
        free = lock.free(&rules, cx.now());
    }
    let under_way = core
        .limits
        .begin(subject, free)
        .ok_or(Error::Later(reason::ACCOUNT_LOCKED, BUSY_RETRY_S))?;
    Ok(Try {
        subject,
        marked: lock.is_some(),
        _under_way: under_way,
    })
}

impl Try {
    /// It was wrong: counted within the unit.
    pub(crate) async fn failed(&self, unit: &Unit) -> Result<()> {
        let rules = rules(&unit.core);
        let lock = store::locks::count(&unit.tx, self.subject, unit.now()).await?;
        let lock = lock
            .unwrap_or(Lock::first(unit.now()))
            .counted(&rules, unit.now());
        store::locks::put(&unit.tx, self.subject, &lock).await?;
        if lock.locked_until.is_some() {
            unit.core.limits.locks.account.inc();
        }
        Ok(())
    }

    /// It was right: earlier failures are forgotten.
    pub(crate) async fn succeeded(self, core: &Core) -> Result<()> {
        if self.marked {
            let tx = core.db.begin().await?;
            store::locks::forget(&tx, &[self.subject]).await?;
            tx.commit().await?;
        }
        Ok(())
    }
}

/// Forgets all waits of a user: by every name, and as somebody who is logged in.
pub(crate) async fn forget(unit: &Unit, user: &User) -> Result<u64> {
    let core = &unit.core;
    let devices = store::devices::of_user(&unit.tx, user.tenant, user.id).await?;
    let mut subjects: Vec<Subject> = names(user)
        .iter()
        .flat_map(|name| {
            // The tenant `default` and `system` are meant also by whoever names none.
            [Some(user.tenant), None].map(|tenant| typed(tenant, name))
        })
        .map(|name| Whose::Name(&name).subject(core))
        .collect();
    subjects.push(Whose::User(user.id).subject(core));
    subjects.extend(devices.iter().map(|d| Whose::Device(d.id).subject(core)));
    Ok(store::locks::forget(&unit.tx, &subjects).await?)
}

/// A name that was typed, with the tenant where one was chosen.
pub(crate) fn typed(tenant: Option<Uuid>, name: &str) -> String {
    match tenant {
        Some(tenant) => format!("{tenant}|{name}"),
        None => format!("|{name}"),
    }
}

/// Blocks the caller's network when it has tried too many different wrong pairs of name and password. An
/// allowed network is never blocked, and neither is this machine. True when it did.
pub(crate) async fn judge_pair(unit: &Unit, name: &str, password: &Secret<String>) -> Result<bool> {
    let core = &unit.core;
    let Some(address) = unit.cx.caller.address.filter(|a| !exempt(*a)) else {
        return Ok(false);
    };
    let net = network(address);
    let stuffing = core.limits.is_stuffing(net, name, password).await;
    let now_s = unit.now().timestamp();
    if !stuffing || core.address_rules.current().allows(address, now_s) {
        return Ok(false);
    }
    let block_s = core.settings.system(&limit::STUFFING_BLOCK_S);
    let rule = IpRule {
        id: unit.cx.new_id(),
        net,
        kind: RuleKind::Deny,
        reason: "many different wrong names and passwords".to_owned(),
        source: STUFFING.to_owned(),
        created_at: unit.now(),
        expires_at: Some(unit.now() + chrono::Duration::seconds(i64::from(block_s))),
    };
    add_rule(unit, &rule).await?;
    core.limits.locks.address.inc();
    Ok(true)
}

/// Writes a rule, tells every replica of it, and records it.
pub(crate) async fn add_rule(unit: &Unit, rule: &IpRule) -> Result<()> {
    store::ip_rules::insert(&unit.tx, rule).await?;
    unit.audit(
        Record::done(
            "identity.ip_rule.created",
            "ip_rule",
            rule.id.to_string(),
            portico_base::id::TENANT_SYSTEM,
        )
        .change("cidr", None, Some(rule.net.to_string().into()))
        .change("kind", None, Some(rule.kind.as_str().into()))
        .change("reason", None, Some(rule.reason.clone().into()))
        .change("source", None, Some(rule.source.clone().into()))
        .change("expires_at", None, Some(json!(rule.expires_at))),
    )
    .await?;
    unit.publish(address_rules::CHANGED, &rule.id.to_string(), &rule.id)
}

/// The record of a login that failed.
pub(crate) fn login_failed(tenant: Uuid, user: Option<Uuid>, code: &'static str) -> Record {
    let target = user.map_or_else(|| "unknown".to_owned(), |id| id.to_string());
    Record {
        outcome: Outcome::Failed,
        code: Some(code),
        ..Record::done("identity.login.failed", "user", target, tenant)
    }
}

/// The names of a user as a login reads them.
pub(crate) fn names(user: &User) -> Vec<String> {
    use crate::domain::contact::{email_key, username_key};
    [
        user.username.as_deref().map(username_key),
        user.email.as_deref().map(email_key),
        user.phone.clone(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn rules(core: &Core) -> LockRules {
    LockRules {
        free: core.settings.system(&limit::ACCOUNT_FAILURES),
        waits_s: core.settings.system(&limit::ACCOUNT_WAITS_S),
    }
}
