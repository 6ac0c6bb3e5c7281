//! The audit's sealed rows, for the rotation of the master key (CT-21).

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use portico_base::Random;
use portico_base::envelope::MasterKeys;
use portico_contract::sealed::{SealedError, SealedRows, Step};
use portico_db::Db;

use crate::domain::checkpoint::place;
use crate::error::Result;
use crate::store;

/// The keys that sign checkpoints: a handful of rows.
pub(crate) struct SealedKeys {
    pub db: Db,
    pub master: Arc<MasterKeys>,
    pub random: Arc<dyn Random>,
}

impl SealedRows for SealedKeys {
    fn name(&self) -> &'static str {
        "audit.keys"
    }

    fn count(&self) -> BoxFuture<'_, std::result::Result<BTreeMap<String, u64>, SealedError>> {
        Box::pin(async move {
            let keys = store::keys::list(self.db.reader()).await;
            let keys = keys.map_err(|error| SealedError(error.into()))?;
            let mut counts = BTreeMap::new();
            for key in keys {
                *counts.entry(key.master_key).or_default() += 1;
            }
            Ok(counts)
        })
    }

    fn reseal<'a>(
        &'a self,
        _after: Option<&'a str>,
        _limit: u64,
    ) -> BoxFuture<'a, std::result::Result<Step, SealedError>> {
        Box::pin(async move { self.step().await.map_err(|e| SealedError(e.into())) })
    }
}

impl SealedKeys {
    async fn step(&self) -> Result<Step> {
        let mut step = Step::default();
        let tx = self.db.begin_durable().await?;
        for key in store::keys::list(&tx).await? {
            if key.master_key == self.master.current() {
                continue;
            }
            let Ok(seed) = self.master.open(place(&key.key_id), &key.sealed) else {
                step.broken += 1;
                continue;
            };
            let place = place(&key.key_id);
            let sealed = self.master.seal(place, seed.expose(), &*self.random);
            let current = self.master.current();
            store::keys::reseal(&tx, &key.key_id, &sealed, current).await?;
            step.done += 1;
        }
        tx.commit().await?;
        Ok(step)
    }
}
