//! Purges of the cache: in force here at once, on the other replicas by the outbox.

use std::time::Duration;

use portico_base::{Access, Context, Permission};
use portico_contract::audit::{Audit, Record};
use portico_db::{Db, News};
use tokio_util::sync::CancellationToken;

use crate::cache::{By, Cache, PurgeOrder};
use crate::error::Error;

const TOPIC: &str = "gateway.cache.purged";
const POLL: Duration = Duration::from_millis(500);

/// Orders and follows purges. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Purges {
    pub(crate) cache: Cache,
    pub(crate) db: Db,
    pub(crate) audit: Audit,
}

impl Purges {
    /// The cache that is purged.
    pub(crate) const fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Purges what is stored; answers when it took force, in Unix milliseconds.
    pub(crate) async fn order(
        &self,
        cx: &Context,
        by: By,
        value: String,
        soft: bool,
    ) -> Result<u64, Error> {
        cx.authorise(&Access::Permission(Permission::new("gateway:cache:write")))?;
        if value.is_empty() || value.len() > 4096 {
            return Err(Error::field(
                "value",
                "invalid",
                "must be of 1 to 4096 bytes",
            ));
        }
        let at_ms = u64::try_from(cx.clock.unix_ms()).unwrap_or(0);
        let order = PurgeOrder {
            by,
            value,
            tenant: None,
            soft,
            at_ms,
        };
        let tx = self.db.begin().await?;
        let record = Record::done("gateway.cache.purged", "cache", &order.value, cx.tenant());
        self.audit.record(&tx, cx, record).await?;
        tx.publish(TOPIC, &order.value, &order)?;
        tx.commit().await?;
        self.cache.purge(&order);
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
                        }
                    }
                    Ok(News::Reset) => {}
                    Err(_) => tokio::time::sleep(POLL).await,
                }
            }
        };
        stop.run_until_cancelled(work).await;
    }
}
