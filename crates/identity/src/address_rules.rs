//! Address rules in memory: read at start, followed from the outbox, asked by the door for each request.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use portico_base::Clock;
use portico_contract::address_rules::{AddressBlocked, AddressRules};
use portico_db::Db;
use portico_telemetry::metrics::{GaugeFamily, Registry};
use tokio_util::sync::CancellationToken;

use crate::domain::ip_rule::RuleSet;
use crate::error::Result;
use crate::store;

/// Published with every change.
pub(crate) const CHANGED: &str = "identity.ip_rule.changed";

/// Longest time until a change of another replica is known when its wake-up is lost.
const POLL: Duration = Duration::from_millis(500);

static BLOCKS: GaugeFamily = GaugeFamily::new(
    "portico_identity_blocks_active",
    "networks that are blocked for trying many names and passwords",
    &[],
    1,
);

/// Declares the families, for the documentation.
pub(crate) fn declare(registry: &Registry) {
    registry.declare(&[BLOCKS.family()]);
}

/// The rules as this process knows them.
pub(crate) struct Rules {
    db: Db,
    clock: Arc<dyn Clock>,
    set: ArcSwap<RuleSet>,
}

impl Rules {
    pub(crate) fn new(db: Db, clock: Arc<dyn Clock>, registry: &Registry) -> Arc<Self> {
        registry.declare(&[BLOCKS.family()]);
        let rules = Arc::new(Self {
            db,
            clock,
            set: ArcSwap::default(),
        });
        let weak = Arc::downgrade(&rules);
        registry.collect_with(move |samples| {
            if let Some(rules) = weak.upgrade() {
                let blocks = rules.set.load().blocks(rules.clock.now().timestamp());
                samples.gauge(&BLOCKS, &[], blocks as f64);
            }
        });
        rules
    }

    /// Reads all rules.
    pub(crate) async fn load(&self) -> Result<()> {
        let rules = store::ip_rules::live(self.db.reader(), self.clock.now()).await?;
        self.set.store(Arc::new(RuleSet::new(&rules)));
        Ok(())
    }

    /// Follows the changes of all replicas until told to stop.
    pub(crate) async fn follow(&self, stop: CancellationToken) {
        let mut follower = self.db.follow(&[CHANGED], 0, POLL);
        loop {
            let news = tokio::select! {
                () = stop.cancelled() => return,
                news = follower.next() => news,
            };
            // What exactly changed does not matter: the table is small and read whole.
            let read = match news {
                Ok(_) => self.load().await,
                Err(error) => Err(error.into()),
            };
            if let Err(error) = read {
                tracing::warn!(err = %error, "address rules could not be read");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(POLL) => {}
                }
            }
        }
    }

    /// The rules now.
    pub(crate) fn current(&self) -> Arc<RuleSet> {
        self.set.load_full()
    }
}

impl AddressRules for Rules {
    fn check(&self, address: IpAddr, now_s: i64) -> std::result::Result<(), AddressBlocked> {
        self.set.load().check(address, now_s)
    }

    fn check_admin(&self, address: IpAddr, now_s: i64) -> std::result::Result<(), AddressBlocked> {
        self.set.load().check_admin(address, now_s)
    }
}
