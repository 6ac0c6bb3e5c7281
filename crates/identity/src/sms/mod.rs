//! What all messages of a process share: the client, the breakers, the figures.

mod accounts;
pub(crate) mod metrics;
pub(crate) mod texts;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use portico_contract::settings::Settings;
use portico_host::Spawner;
use portico_sms::{Breakers, Limits, Link, Sender};
use portico_telemetry::metrics::Registry;
use uuid::Uuid;

pub(crate) use accounts::{Account, KNOWN};
pub(crate) use metrics::Metrics;

/// A connection that is not there after this time is none: the next provider still has its time then.
const CONNECT: Duration = Duration::from_millis(1_500);
/// Refusals that are audited in a second at most; an attacker must not fill the audit.
const AUDITED_A_SECOND: i64 = 20;

/// Messages of one process.
pub(crate) struct Sms {
    settings: Settings,
    /// Absent when the machine has no trust store: then nothing can be sent.
    sender: Option<Sender>,
    pub breakers: Arc<Breakers>,
    pub limits: Limits,
    pub metrics: Metrics,
    pub spawner: Spawner,
    /// The console provider may be used.
    dev: bool,
    /// Second and count of audited refusals, in one number.
    refusals: AtomicI64,
}

impl Sms {
    pub(crate) fn new(
        settings: Settings,
        spawner: Spawner,
        registry: &Registry,
        dev: bool,
    ) -> Self {
        let sender = Sender::new(CONNECT)
            .inspect_err(|error| tracing::error!(err = %error, "no message can be sent"))
            .ok();
        let breakers = Arc::new(Breakers::default());
        Self {
            metrics: Metrics::new(registry, &settings, &breakers, dev),
            settings,
            sender,
            breakers,
            limits: Limits::default(),
            spawner,
            dev,
            refusals: AtomicI64::new(0),
        }
    }

    /// The client.
    pub(crate) const fn sender(&self) -> Option<&Sender> {
        self.sender.as_ref()
    }

    /// The providers of a tenant in the order in which they are asked, those that are set up.
    pub(crate) fn links(&self, tenant: Uuid) -> Vec<Link> {
        self.accounts(tenant)
            .into_iter()
            .filter_map(|account| account.link.ok())
            .collect()
    }

    /// The providers of a tenant's chain, set up or not.
    pub(crate) fn accounts(&self, tenant: Uuid) -> Vec<Account> {
        accounts::of(&self.settings, tenant, self.dev)
    }

    /// True when a refusal of this second is to be audited.
    pub(crate) fn audits_refusal(&self, second: i64) -> bool {
        let mark = second << 8;
        let before = self.refusals.load(Ordering::Relaxed);
        let count = if before >> 8 == second {
            before & 0xff
        } else {
            0
        };
        if count >= AUDITED_A_SECOND {
            return false;
        }
        // Whoever loses the race is one more or less of twenty.
        self.refusals.store(mark | (count + 1), Ordering::Relaxed);
        true
    }
}
