//! Purges of the cache: in force here at once, on the other replicas by the outbox.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use portico_base::{Access, Context, FieldFault, Permission};
use portico_contract::audit::{Audit, Record};
use portico_db::{Db, News};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::cache::{By, Cache, PurgeOrder};
use crate::error::Error;
use crate::pipeline::Gate;
use crate::pipeline::operate::Audience;

const TOPIC: &str = "gateway.cache.purged";
const POLL: Duration = Duration::from_millis(500);

/// Orders and follows purges. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Purges {
    pub(crate) cache: Cache,
    pub(crate) db: Db,
    pub(crate) audit: Audit,
    /// Told after each order, of whichever replica: what is to be warm may be cold now.
    pub(crate) purged: Arc<Notify>,
    /// What the cache stands in; empty until it is built. Weak, because the gate holds the routes that hold this.
    pub(crate) gate: Arc<OnceLock<Weak<Gate>>>,
}

/// What somebody wants purged.
pub(crate) struct Wish {
    pub(crate) by: By,
    pub(crate) value: String,
    /// Only this tenant's copies; none for all that the caller rules over.
    pub(crate) tenant: Option<String>,
    /// Stale instead of gone.
    pub(crate) soft: bool,
}

impl Purges {
    /// The cache that is purged.
    pub(crate) const fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Says where the cache stands, once.
    pub(crate) fn know(&self, gate: &Arc<Gate>) {
        let _ = self.gate.set(Arc::downgrade(gate));
    }

    /// The gate, once it is built.
    pub(crate) fn gate(&self) -> Option<Arc<Gate>> {
        self.gate.get().and_then(Weak::upgrade)
    }

    /// Purges what is stored; answers when it took force, in Unix milliseconds. Whoever does not act for the whole
    /// installation purges the copies of its own tenant.
    pub(crate) async fn order(&self, cx: &Context, wish: Wish) -> Result<u64, Error> {
        cx.authorise(&Access::Permission(Permission::new("gateway:cache:write")))?;
        let at_ms = u64::try_from(cx.clock.unix_ms()).unwrap_or(0);
        let mut order = PurgeOrder {
            by: wish.by,
            value: wish.value,
            tenant: wish.tenant,
            soft: wish.soft,
            at_ms,
        };
        let faults = confined(&mut order, Audience::of(&cx.caller.principal));
        if !faults.is_empty() {
            return Err(Error::Invalid(faults));
        }
        let tx = self.db.begin().await?;
        let record = Record::done("gateway.cache.purged", "cache", &order.value, cx.tenant());
        self.audit.record(&tx, cx, record).await?;
        tx.publish(TOPIC, &order.value, &order)?;
        tx.commit().await?;
        self.cache.purge(&order);
        self.purged.notify_one();
        if let Err(error) = self.cache.publish_purge(&order).await {
            // The outbox has told the replicas that run; only one that starts now may miss it in the shared tier.
            tracing::warn!(err = %error, "a purge could not be written to the shared tier");
        }
        Ok(at_ms)
    }

    /// Follows the orders of other replicas until told to stop.
    pub(crate) async fn follow(self, stop: CancellationToken) {
        let work = async {
            let head = loop {
                match self.db.outbox().head().await {
                    Ok(head) => break head,
                    Err(_) => tokio::time::sleep(POLL).await,
                }
            };
            let mut follower = self.db.follow(&[TOPIC], head, POLL);
            loop {
                match follower.next().await {
                    Ok(News::Events(rows)) => {
                        for order in rows.iter().filter_map(|row| row.decode().ok()) {
                            self.cache.purge(&order);
                            self.purged.notify_one();
                        }
                    }
                    // Events were missed; the shared tier keeps a list of the last orders.
                    Ok(News::Reset) => {
                        let _next_sweep = self.cache.follow_purges().await;
                    }
                    Err(_) => tokio::time::sleep(POLL).await,
                }
            }
        };
        stop.run_until_cancelled(work).await;
    }
}

/// Keeps an order within what its giver rules over, and says all that is wrong with it.
fn confined(order: &mut PurgeOrder, audience: Audience) -> Vec<FieldFault> {
    let mut faults: Vec<FieldFault> = order
        .faults()
        .into_iter()
        .map(|(field, message)| FieldFault::new(field, "invalid", message))
        .collect();
    if let Audience::Tenant(own) = audience {
        let own = own.to_string();
        let value = Some(&order.value).filter(|_| order.by == By::Tenant);
        for (field, named) in [("tenant", order.tenant.as_ref()), ("value", value)] {
            if named.is_some_and(|tenant| *tenant != own) {
                faults.push(FieldFault::new(field, "foreign", "must be your own tenant"));
            }
        }
        order.tenant = Some(own);
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn order(by: By, value: &str, tenant: Option<Uuid>) -> PurgeOrder {
        PurgeOrder {
            by,
            value: value.to_owned(),
            tenant: tenant.map(|id| id.to_string()),
            soft: true,
            at_ms: 1,
        }
    }

    #[test]
    fn a_tenants_administrator_purges_its_own_copies() {
        let (own, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let mut url = order(By::Url, "/a", None);
        assert!(confined(&mut url, Audience::Tenant(own)).is_empty());
        assert_eq!(url.tenant, Some(own.to_string()));
        let mut all = order(By::Url, "/a", None);
        assert!(confined(&mut all, Audience::All).is_empty());
        assert_eq!(
            all.tenant, None,
            "the installation's own people purge for all"
        );
        for mut foreign in [
            order(By::Url, "/a", Some(other)),
            order(By::Tenant, &other.to_string(), None),
        ] {
            let faults = confined(&mut foreign, Audience::Tenant(own));
            assert_eq!(faults[0].code, "foreign", "{foreign:?}");
        }
    }

    #[test]
    fn all_faults_at_once() {
        let mut bad = order(By::Prefix, "/a?b", Some(Uuid::from_u128(2)));
        let faults = confined(&mut bad, Audience::Tenant(Uuid::from_u128(1)));
        let fields: Vec<&str> = faults.iter().map(|f| f.field.as_str()).collect();
        assert_eq!(fields, ["value", "tenant"]);
    }
}
