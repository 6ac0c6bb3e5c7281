//! Address rules and blocks: listed, made with a trial run, lifted; waits of users lifted (ID-161…163).

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use portico_base::{Context, FieldFault, Timestamp, id};
use portico_contract::audit::Record;
use uuid::Uuid;

use super::{guard, need, scope, users};
use crate::address_rules;
use crate::domain::ip_rule::{IpRule, RuleKind, RuleSet, exempt};
use crate::error::{Error, Result, reason};
use crate::hub::Core;
use crate::permissions::{SECURITY_READ, SECURITY_WRITE, USER_WRITE};
use crate::store;
use crate::unit::Unit;

/// More rules than this nobody keeps by hand, and the door reads them for each request.
const MOST_RULES: usize = 1_000;
/// Longest note.
const NOTE: usize = 200;

/// A rule to be made.
#[derive(Debug)]
pub(crate) struct NewRule {
    pub cidr: String,
    pub kind: RuleKind,
    pub note: String,
    pub expires_at: Option<Timestamp>,
    /// Only says what would happen.
    pub dry_run: bool,
}

/// What a rule does.
#[derive(Debug)]
pub(crate) struct Effect {
    pub rule: IpRule,
    /// The caller would not be let in any more, so that it is not made.
    pub locks_out_caller: bool,
    /// Live sessions that were last seen on addresses which it would refuse.
    pub sessions: u64,
}

/// Rules that people made, newest first.
pub(crate) async fn list(core: &Core, cx: &Context) -> Result<Vec<IpRule>> {
    need(cx, SECURITY_READ)?;
    let mut rules = store::ip_rules::live(core.db.reader(), cx.now()).await?;
    rules.retain(|rule| !rule.is_block());
    Ok(rules)
}

/// What the machine has blocked, newest first.
pub(crate) async fn blocks(core: &Core, cx: &Context) -> Result<Vec<IpRule>> {
    need(cx, SECURITY_READ)?;
    let mut rules = store::ip_rules::live(core.db.reader(), cx.now()).await?;
    rules.retain(IpRule::is_block);
    Ok(rules)
}

/// Makes a rule, or only says what it would do.
pub(crate) async fn create(core: &Arc<Core>, cx: &Context, wish: NewRule) -> Result<Effect> {
    need(cx, SECURITY_WRITE)?;
    let rule = checked(cx, &wish)?;
    let unit = Unit::begin_durable(core, cx).await?;
    let mut rules = store::ip_rules::live(&unit.tx, cx.now()).await?;
    if rules.iter().filter(|r| !r.is_block()).count() >= MOST_RULES {
        return Err(reason::QUOTA_EXCEEDED.into());
    }
    if rules
        .iter()
        .any(|r| r.net == rule.net && r.kind == rule.kind && !r.is_block())
    {
        return Err(reason::RULE_EXISTS.into());
    }
    rules.push(rule.clone());
    let set = RuleSet::new(&rules);
    let locks_out_caller = refuses(&set, cx, cx.caller.address);
    let sessions = affected(&unit, &set).await?;
    let effect = Effect {
        rule,
        locks_out_caller,
        sessions,
    };
    if wish.dry_run {
        return Ok(effect);
    }
    if effect.locks_out_caller {
        return Err(reason::LOCKS_OUT_CALLER.into());
    }
    guard::add_rule(&unit, &effect.rule).await?;
    unit.commit().await?;
    core.address_rules.load().await?;
    Ok(effect)
}

/// Removes a rule that a person made. The last allowed network opens administration to everybody again; one
/// that held the caller is not removed while others are left.
pub(crate) async fn delete(core: &Arc<Core>, cx: &Context, rule: Uuid) -> Result<()> {
    remove(core, cx, rule, false).await
}

/// Lifts a block before its end.
pub(crate) async fn lift(core: &Arc<Core>, cx: &Context, block: Uuid) -> Result<()> {
    remove(core, cx, block, true).await
}

async fn remove(core: &Arc<Core>, cx: &Context, rule: Uuid, block: bool) -> Result<()> {
    need(cx, SECURITY_WRITE)?;
    let unit = Unit::begin_durable(core, cx).await?;
    let found = store::ip_rules::get(&unit.tx, rule)
        .await?
        .filter(|r| r.is_block() == block)
        .ok_or(reason::NOT_FOUND)?;
    let mut rules = store::ip_rules::live(&unit.tx, cx.now()).await?;
    rules.retain(|r| r.id != rule);
    if refuses(&RuleSet::new(&rules), cx, cx.caller.address) {
        return Err(reason::LOCKS_OUT_CALLER.into());
    }
    store::ip_rules::delete(&unit.tx, rule).await?;
    let action = if block {
        "identity.block.lifted"
    } else {
        "identity.ip_rule.deleted"
    };
    let record = Record::done(action, "ip_rule", rule.to_string(), id::TENANT_SYSTEM).change(
        "cidr",
        Some(found.net.to_string().into()),
        None,
    );
    unit.audit(record).await?;
    unit.publish(address_rules::CHANGED, &rule.to_string(), &rule)?;
    unit.commit().await?;
    if block {
        // Otherwise the next wrong password would block the network again.
        core.limits.forget_pairs(found.net).await;
    }
    core.address_rules.load().await
}

/// Lets a user try passwords again at once.
pub(crate) async fn unlock(core: &Arc<Core>, cx: &Context, user: Uuid) -> Result<()> {
    need(cx, USER_WRITE)?;
    let unit = Unit::begin_durable(core, cx).await?;
    let user = scope::user_to_change(&unit.tx, cx, user).await?;
    guard::forget(&unit, &user).await?;
    unit.audit(users::record("identity.user.unlocked", &user))
        .await?;
    unit.commit().await
}

/// Removes what means nothing any more: waits, ended rules, old replies.
pub(crate) async fn sweep(core: &Arc<Core>) -> Result<()> {
    let now = core.clock.now();
    let tx = core.db.begin().await?;
    store::locks::trim(&tx, crate::domain::lock::Lock::forgotten_before(now)).await?;
    store::ip_rules::trim(&tx, now).await?;
    store::replies::trim(&tx, now).await?;
    tx.commit().await?;
    Ok(())
}

fn checked(cx: &Context, wish: &NewRule) -> Result<IpRule> {
    let mut faults = Vec::new();
    let note = wish.note.trim();
    if note.chars().count() > NOTE {
        let message = format!("has at most {NOTE} characters");
        faults.push(FieldFault::new("note", "too_long", message));
    }
    if wish.expires_at.is_some_and(|end| end <= cx.now()) {
        faults.push(FieldFault::new(
            "expires_at",
            "past",
            "must be in the future",
        ));
    }
    let net = network(&wish.cidr);
    match net {
        None => {
            let message = "must be an address or a network like 203.0.113.0/24";
            faults.push(FieldFault::new("cidr", "form", message));
        }
        Some(net) if wish.kind == RuleKind::Deny && exempt(net.addr()) => {
            let message = "this machine itself is never refused";
            faults.push(FieldFault::new("cidr", "loopback", message));
        }
        Some(_) => {}
    }
    let (Some(net), true) = (net, faults.is_empty()) else {
        return Err(Error::Invalid(faults));
    };
    Ok(IpRule {
        id: cx.new_id(),
        net,
        kind: wish.kind,
        reason: note.to_owned(),
        source: cx.principal().subject.to_string(),
        created_at: cx.now(),
        expires_at: wish.expires_at,
    })
}

fn network(text: &str) -> Option<IpNet> {
    let text = text.trim();
    let net = match text.parse::<IpNet>() {
        Ok(net) => net,
        Err(_) => IpNet::from(text.parse::<IpAddr>().ok()?),
    };
    Some(net.trunc())
}

/// True when the address could not administer any more. The command line on this machine always can.
fn refuses(set: &RuleSet, cx: &Context, address: Option<IpAddr>) -> bool {
    address.is_some_and(|address| set.check_admin(address, cx.now().timestamp()).is_err())
}

/// Live sessions whose last address the rules would refuse.
async fn affected(unit: &Unit, set: &RuleSet) -> Result<u64> {
    let now_s = unit.now().timestamp();
    let addresses = store::ip_rules::addresses_of_sessions(&unit.tx).await?;
    Ok(addresses
        .into_iter()
        .filter(|(text, _)| {
            text.parse()
                .is_ok_and(|address| set.check(address, now_s).is_err())
        })
        .map(|(_, sessions)| sessions)
        .sum())
}
