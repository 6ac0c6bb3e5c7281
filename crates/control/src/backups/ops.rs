//! The use-cases of backups.

use std::sync::Arc;

use portico_backup::{BackupError, Pending};
use portico_base::{Context, ErrorKind, id};
use portico_contract::audit::Record;
use portico_db::Backend;
use portico_jobs::{Job, enqueue};
use portico_objects::{Key, Object, ObjectError};
use uuid::Uuid;

use super::store::{self, Row};
use super::work::{self, About, CHECK, MAKE, RESTORE, RestoreOrder};
use crate::error::{Error, Result, reason};
use crate::hub::Core;
use crate::ops::need;
use crate::permissions::{BACKUP_READ, BACKUP_RESTORE, BACKUP_WRITE};
use crate::unit::Unit;

/// What is wished of a restore.
pub(super) struct Wish {
    /// The backup's name, typed by whoever means it.
    pub confirm: String,
    pub keep_sessions: bool,
    pub include_objects: bool,
}

/// Backups, the newest first.
pub(super) async fn list(
    core: &Core,
    cx: &Context,
    after: Option<Uuid>,
    limit: u64,
) -> Result<Vec<Row>> {
    need(cx, BACKUP_READ)?;
    Ok(store::list(core.db.reader(), after, limit).await?)
}

/// One backup.
pub(super) async fn show(core: &Core, cx: &Context, id: Uuid) -> Result<Row> {
    need(cx, BACKUP_READ)?;
    found(core, id).await
}

/// Asks for a backup of now.
pub(super) async fn create(core: &Arc<Core>, cx: &Context, whole: bool) -> Result<Row> {
    need(cx, BACKUP_WRITE)?;
    let by = cx.principal().subject.to_string();
    let taken = core.backups.taken(whole);
    let row = work::new_row(core, cx.new_id(), "manual", taken, &by, cx.now());
    let unit = Unit::begin(core, cx).await?;
    store::insert(&unit.tx, &row).await?;
    let job = Job::new(MAKE, &About { backup: row.id })?.max_tries(3);
    enqueue(&unit.tx, cx, job).await?;
    unit.audit(record("control.backup.requested", &row)).await?;
    unit.commit().await?;
    Ok(row)
}

/// Asks for a verification.
pub(super) async fn verify(core: &Arc<Core>, cx: &Context, id: Uuid) -> Result<Row> {
    need(cx, BACKUP_WRITE)?;
    let row = usable(core, id).await?;
    let unit = Unit::begin(core, cx).await?;
    let begun = [("state", "verifying".into())];
    if !store::set(&unit.tx, id, &["done"], begun).await? {
        return Err(reason::BACKUP_STATE.into());
    }
    let job = Job::new(CHECK, &About { backup: id })?.max_tries(1);
    enqueue(&unit.tx, cx, job).await?;
    unit.audit(record("control.backup.verification_requested", &row))
        .await?;
    unit.commit().await?;
    found(core, id).await
}

/// Asks for a restore: the process prepares it, starts anew and restores before it opens anything.
pub(super) async fn restore(core: &Arc<Core>, cx: &Context, id: Uuid, wish: Wish) -> Result<Row> {
    need(cx, BACKUP_RESTORE)?;
    let row = usable(core, id).await?;
    if wish.confirm != row.location {
        let text = "must be the name of the backup, its `location`";
        return Err(Error::field("confirm", "mismatch", text));
    }
    if core.db.backend() != Backend::Sqlite {
        return Err(reason::RESTORE_BY_COMMAND.into());
    }
    let pending = Pending::find(&core.backups.data_dir).map_err(refused)?;
    if pending.is_some() {
        return Err(reason::BACKUP_STATE.into());
    }
    let order = RestoreOrder {
        backup: id,
        keep_sessions: wish.keep_sessions,
        objects: wish.include_objects,
        asked_by: cx.principal().subject.to_string(),
    };
    let unit = Unit::begin(core, cx).await?;
    let begun = [
        ("state", "restoring".into()),
        ("error", None::<String>.into()),
    ];
    if !store::set(&unit.tx, id, &["done"], begun).await? {
        return Err(reason::BACKUP_STATE.into());
    }
    let job = Job::new(RESTORE, &order)?
        .max_tries(1)
        .unique_until_ended("restore");
    enqueue(&unit.tx, cx, job).await?;
    unit.audit(record("control.backup.restore_requested", &row).change(
        "keep_sessions",
        None,
        Some(wish.keep_sessions.into()),
    ))
    .await?;
    unit.commit().await?;
    found(core, id).await
}

/// Removes a backup.
pub(super) async fn remove(core: &Arc<Core>, cx: &Context, id: Uuid) -> Result<()> {
    need(cx, BACKUP_WRITE)?;
    let row = found(core, id).await?;
    if !["done", "failed", "missing"].contains(&row.state.as_str()) {
        return Err(reason::BACKUP_STATE.into());
    }
    here(core, &row)?;
    work::remove(core, cx, &row, "control.backup.removed").await?;
    work::refresh(core).await
}

/// Opens a backup's file for whoever takes it away; leaves a record.
pub(super) async fn file(core: &Arc<Core>, cx: &Context, id: Uuid) -> Result<(Row, Object)> {
    need(cx, BACKUP_WRITE)?;
    let row = found(core, id).await?;
    here(core, &row)?;
    let key = Key::new(&*row.location).map_err(|error| refused(error.into()))?;
    let store = core.backups.store().map_err(refused)?;
    let object = store.get(&key).await.map_err(|e| refused(e.into()))?;
    let unit = Unit::begin(core, cx).await?;
    unit.audit(record("control.backup.downloaded", &row))
        .await?;
    unit.commit().await?;
    Ok((row, object))
}

/// An error of the file or of where it is kept, as an answer.
pub(super) fn refused(error: BackupError) -> Error {
    match error {
        BackupError::Object(ObjectError::NotFound) => reason::BACKUP_FILE_GONE.into(),
        BackupError::Db(error) => error.into(),
        other => {
            tracing::warn!(err = %portico_web::problem::chain(&other), "where backups are kept");
            match other.kind() {
                ErrorKind::Invalid => reason::BACKUP_STATE.into(),
                _ => reason::BACKUP_STORE.into(),
            }
        }
    }
}

async fn found(core: &Core, id: Uuid) -> Result<Row> {
    let row = store::get(core.db.reader(), id).await?;
    row.ok_or_else(|| reason::BACKUP_NOT_FOUND.into())
}

async fn usable(core: &Core, id: Uuid) -> Result<Row> {
    let row = found(core, id).await?;
    if row.state != "done" {
        return Err(reason::BACKUP_STATE.into());
    }
    here(core, &row)?;
    Ok(row)
}

/// A file beside another replica cannot be reached from here.
fn here(core: &Core, row: &Row) -> Result<()> {
    if row.node.is_some() && row.node != core.backups.node() {
        return Err(reason::BACKUP_ELSEWHERE.into());
    }
    Ok(())
}

fn record(action: &'static str, row: &Row) -> Record {
    Record::done(action, "backup", row.id.to_string(), id::TENANT_SYSTEM).change(
        "location",
        None,
        Some(row.location.as_str().into()),
    )
}
