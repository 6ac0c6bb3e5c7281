//! Erasing a person: what is private in their records is taken out, and the chain stays whole (CT-41).

use std::sync::Arc;

use portico_base::Context;
use portico_contract::audit::{Change, Record};
use portico_db::sea_orm::ConnectionTrait;
use serde_json::Value;
use uuid::Uuid;

use super::write;
use crate::domain::chain::Redactions;
use crate::domain::record::Entry;
use crate::error::Result;
use crate::hub::Core;
use crate::store;

/// The action of the records that say so: a private part may be missing only at the moment of one.
pub(crate) const ACTION: &str = "audit.person.redacted";
/// The changed path that lists them.
const RECORDS: &str = "records";
/// Records of one transaction: their ids fit into the record that says so.
const BATCH: u64 = 500;

/// Takes out what is private in everything that a person did and that was done to them; gives the number of
/// records. What is left names them by their id only.
pub(crate) async fn person(
    core: &Arc<Core>,
    cx: &Context,
    tenant: Uuid,
    user: Uuid,
) -> Result<u64> {
    let mut all = 0;
    loop {
        let done = batch(core, cx, tenant, user).await?;
        if done == 0 {
            return Ok(all);
        }
        all += done;
    }
}

async fn batch(core: &Arc<Core>, cx: &Context, tenant: Uuid, user: Uuid) -> Result<u64> {
    let conn = core.db.reader();
    let mut ids = store::records::of_person(conn, user, true, BATCH).await?;
    if ids.is_empty() {
        ids = store::records::of_person(conn, user, false, BATCH).await?;
    }
    if ids.is_empty() {
        return Ok(0);
    }
    // Not as the caller: the record of an erasure must not hold the erased person's address.
    let mut own = core.own_context("audit.redact");
    own.caller.request_id = Arc::clone(&cx.caller.request_id);
    let record = Record::done(ACTION, "erased_person", user.to_string(), tenant);
    let mut entry = Entry::new(&own, record);
    entry.reason = Some("the person was erased".to_owned());
    let tx = core.db.begin().await?;
    // Two erasures of the same person at once: the second one finds nothing left.
    let done = store::records::redact(&tx, &ids, entry.at).await?;
    if done == ids.len() as u64 {
        entry.changes = vec![
            change("count", done.into()),
            change(RECORDS, ids.iter().map(Uuid::to_string).collect()),
        ];
        write::insert(core, &tx, entry).await?;
        tx.commit().await?;
    } else {
        tx.rollback().await?;
    }
    Ok(ids.len() as u64)
}

/// Which records were redacted when, as the records of it say.
pub(crate) async fn told(conn: &impl ConnectionTrait) -> Result<Redactions> {
    let mut all = Redactions::new();
    for (at, _, private) in store::records::told(conn, ACTION).await? {
        let private: Value = { private.as_deref() }
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        let changes = private["changes"].as_array();
        let ids = { changes.into_iter().flatten() }
            .filter(|change| change["path"] == RECORDS)
            .flat_map(|change| change["after"].as_array().cloned().unwrap_or_default())
            .filter_map(|id| Uuid::parse_str(id.as_str()?).ok());
        all.entry(at).or_default().extend(ids);
    }
    Ok(all)
}

fn change(path: &str, after: Value) -> Change {
    Change {
        path: path.to_owned(),
        before: None,
        after: Some(after),
    }
}
