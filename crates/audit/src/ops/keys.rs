//! The installation's id and the key that signs checkpoints; both are made once.

use portico_base::id;
use uuid::Uuid;

use crate::domain::checkpoint::Signer;
use crate::error::{Error, Result};
use crate::hub::Parts;
use crate::store;

/// Reads the id and the key, and makes them when there are none. Of several first starts one wins.
pub(crate) async fn ensure(parts: &Parts) -> Result<(Uuid, Signer)> {
    if store::keys::state(parts.db.reader()).await?.is_none() {
        let key = Signer::make(&parts.keys, &*parts.random, parts.clock.now())?;
        let installation = id::new_id(&*parts.clock, &*parts.random);
        let tx = parts.db.begin_durable().await?;
        store::keys::begin(&tx, installation, &key).await?;
        tx.commit().await?;
    }
    let state = store::keys::state(parts.db.reader()).await?;
    let state = state.ok_or_else(|| gone("state"))?;
    let keys = store::keys::list(parts.db.reader()).await?;
    let key = keys.iter().find(|key| key.key_id == state.key_id);
    let signer = Signer::open(&parts.keys, key.ok_or_else(|| gone("key"))?)?;
    Ok((state.installation, signer))
}

fn gone(what: &str) -> Error {
    Error::Db(portico_db::DbError::Other(format!(
        "the audit's {what} is not there any more"
    )))
}
