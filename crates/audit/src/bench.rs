//! What the benchmark needs of the inside: records with and without the chain, the sealer, the search.

use std::sync::Arc;
use std::time::Duration;

use portico_base::envelope::MasterKeys;
use portico_base::{SystemClock, SystemRandom, id};
use portico_contract::audit::{Filter, Record};
use portico_contract::settings::Settings;
use portico_db::{Db, WriteTx};
use portico_objects::Objects;
use portico_telemetry::metrics::Registry;
use tokio_util::sync::CancellationToken;

use crate::domain::record::Entry;
use crate::hub::{Core, Parts};
use crate::ops::{seal, search};
use crate::store;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// The audit on a database, without a process around it.
#[derive(Clone)]
pub struct Bench(Arc<Core>);

impl Bench {
    /// Migrates the database and begins; objects go to `folder`.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn begin(db: &Db, folder: &std::path::Path) -> Result<Self, Error> {
        db.migrate(&[("audit", crate::migrations::all())]).await?;
        let registry = Registry::default();
        let (core, _notes) = Core::new(Parts {
            db: db.clone(),
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            settings: Settings::defaults(),
            objects: Objects::local(folder, &registry)?,
            keys: Arc::new(MasterKeys::new("mk1", [7; 32])),
            registry,
        })
        .await?;
        Ok(Self(core))
    }

    /// Writes a record of a usual size in a transaction; `chained`: it is to be sealed.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn record(&self, tx: &WriteTx, target: &str, chained: bool) -> Result<(), Error> {
        let cx = self.0.own_context("bench");
        let record = Record::done("bench.thing.changed", "thing", target, id::TENANT_DEFAULT)
            .change("status", Some("active".into()), Some("disabled".into()))
            .change("display_name", Some("one".into()), Some("other".into()));
        let stored = Entry::new(&cx, record).store(&self.0.masker);
        if chained {
            store::records::insert(tx, &stored).await?;
        } else {
            store::records::insert_alone(tx, &stored).await?;
        }
        let core = Arc::clone(&self.0);
        tx.after_commit(Box::new(move || core.committed.notify_one()));
        Ok(())
    }

    /// Seals until told to stop, and then what is left.
    pub async fn seal(&self, stop: CancellationToken) {
        seal::run(Arc::clone(&self.0), Arc::from("bench"), stop).await;
        if let Err(error) = seal::Sealer::new(&self.0, None).work().await {
            tracing::error!(err = %error, "the rest could not be sealed");
        }
    }

    /// The time of a first page.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn first_page(&self, filter: &Filter) -> Result<(Duration, usize), Error> {
        let began = std::time::Instant::now();
        let part = search::find(&self.0, filter, None, 50).await?;
        Ok((began.elapsed(), part.items.len()))
    }
}
