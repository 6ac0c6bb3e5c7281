//! What jobs do: make a backup, verify one, prepare a restore, remove what nobody needs.

use std::sync::Arc;
use std::time::Duration;

use portico_backup::{
    BackupError, Dump, Made, ObjectsIn, Pending, Restore, Source, file_name, peek,
};
use portico_base::{Context, Timestamp};
use portico_contract::audit::Record;
use portico_db::{DbError, step_names};
use portico_jobs::{Cron, Failure, Handler, JobRun, JobSet, Periodic};
use portico_objects::Key;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::store::{self, Row};
use super::{restored, settings};
use crate::error::Error;
use crate::hub::Core;
use crate::unit::Unit;

/// Kinds of durable jobs.
pub(super) const MAKE: &str = "backup.make";
pub(super) const CHECK: &str = "backup.check";
pub(super) const RESTORE: &str = "backup.restore";
/// A large installation takes its time.
const LIMIT: Duration = Duration::from_secs(6 * 3_600);
/// Rows that are looked at for what can go; more than two backups an hour for a month.
const LOOK: u64 = 2_000;

/// Which backup a job is about.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct About {
    pub backup: Uuid,
}

/// What is restored.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RestoreOrder {
    pub backup: Uuid,
    pub keep_sessions: bool,
    pub objects: bool,
    pub asked_by: String,
}

/// All jobs.
pub(crate) fn jobs(core: &Arc<Core>) -> JobSet {
    let of = |core: &Arc<Core>| Arc::clone(core);
    let (make, check, restore) = (of(core), of(core), of(core));
    let (run, verify, prune) = (of(core), of(core), of(core));
    let alone = |handler: Handler| handler.at_once(1).limit(LIMIT);
    JobSet::new()
        .with_handler(alone(Handler::new(MAKE, move |run: JobRun| {
            let core = of(&make);
            async move {
                let about: About = run.payload()?;
                making(&core, about.backup, &run).await
            }
        })))
        .with_handler(alone(Handler::new(CHECK, move |run: JobRun| {
            let core = of(&check);
            async move {
                let about: About = run.payload()?;
                verifying(&core, about.backup, &run.context).await
            }
        })))
        .with_handler(alone(Handler::new(RESTORE, move |run: JobRun| {
            let core = of(&restore);
            async move {
                let order: RestoreOrder = run.payload()?;
                preparing(&core, order, &run).await
            }
        })))
        .cron(
            Cron::new(
                "backup.run",
                &core.settings,
                &settings::SCHEDULE,
                move |job| {
                    let core = of(&run);
                    async move { scheduled(&core, &job).await }
                },
            )
            .limit(LIMIT),
        )
        .cron(
            Cron::new(
                "backup.verify",
                &core.settings,
                &settings::VERIFY_SCHEDULE,
                move |job| {
                    let core = of(&verify);
                    async move {
                        match store::newest(core.db.reader()).await? {
                            Some(row) => verifying(&core, row.id, &job.context).await,
                            None => Ok(()),
                        }
                    }
                },
            )
            .limit(LIMIT),
        )
        .with(
            Periodic::new("backup.prune", Duration::from_secs(3_600), move |cx| {
                let core = of(&prune);
                async move { Ok(Box::pin(tidy(&core, &cx.context)).await?) }
            })
            .alone(),
        )
}

/// A new backup that waits for its making.
pub(super) fn new_row(
    core: &Core,
    id: Uuid,
    kind: &str,
    taken: ObjectsIn,
    by: &str,
    at: Timestamp,
) -> Row {
    let objects = match taken {
        ObjectsIn::None => "none",
        ObjectsIn::Names => "names",
        ObjectsIn::Whole => "whole",
    };
    Row {
        id,
        kind: kind.to_owned(),
        state: "waiting".to_owned(),
        location: file_name(id, at),
        node: core.backups.node(),
        objects: objects.to_owned(),
        bytes: None,
        rows: None,
        sha256: None,
        key_id: None,
        db_version: Some(core.backups.house.version.to_owned()),
        verified_at: None,
        restored_at: None,
        report: None,
        error: None,
        asked_by: by.to_owned(),
        at,
        ended_at: None,
    }
}

/// The backup of a moment of the schedule. A second run for the same moment goes on with the same row.
async fn scheduled(core: &Arc<Core>, run: &JobRun) -> Result<(), Failure> {
    let id = run.id().0;
    let taken = core.backups.taken(core.settings.system(&settings::OBJECTS));
    let at = run.tick().unwrap_or_else(|| run.context.now());
    let row = new_row(core, id, "scheduled", taken, "schedule", at);
    let unit = Unit::begin(core, &run.context).await?;
    store::insert(&unit.tx, &row).await?;
    unit.commit().await?;
    making(core, id, run).await
}

/// Makes a backup and notes how it went. Tried again, it finds what it made.
async fn making(core: &Arc<Core>, id: Uuid, run: &JobRun) -> Result<(), Failure> {
    let Some(row) = store::get(core.db.reader(), id).await? else {
        return Ok(());
    };
    if !["waiting", "running"].contains(&row.state.as_str()) {
        return Ok(());
    }
    let cx = &run.context;
    set(
        core,
        id,
        &["waiting", "running"],
        [("state", "running".into())],
    )
    .await?;
    match Box::pin(make(core, &row, &run.cancel)).await {
        Ok(made) => {
            done(core, cx, &row, made.as_ref()).await?;
            refresh(core).await?;
            Ok(())
        }
        Err(error) => {
            // What is wrong with the disk or the database may be over soon; whatever else is not.
            let again = !run.is_last() && error.kind() == portico_base::ErrorKind::Unavailable;
            if !again {
                failed(core, cx, &row, &error).await?;
                return Err(Failure::dead(error));
            }
            Err(Failure::Retry(error.into()))
        }
    }
}

/// Nothing when the file was there already: then somebody died before he could say so, or the row came out
/// of a backup that was made while it waited.
async fn make(
    core: &Core,
    row: &Row,
    cancel: &CancellationToken,
) -> Result<Option<Made>, BackupError> {
    let backups = &core.backups;
    let store = backups.store()?;
    let key = Key::new(&*row.location)?;
    if store.head(&key).await.is_ok() {
        return Ok(None);
    }
    let taken = match row.objects.as_str() {
        "whole" => ObjectsIn::Whole,
        "names" => ObjectsIn::Names,
        _ => ObjectsIn::None,
    };
    let steps = step_names(&backups.house.migrations)?;
    let lock = backups.lock()?;
    let dump = Dump {
        id: row.id,
        db: &core.db,
        steps: &steps,
        version: backups.house.version,
        objects: Some((&backups.objects, taken)),
        lock: &lock,
        clock: &*core.clock,
        random: &*core.random,
        cancel,
    };
    Box::pin(dump.to_store(store, &key)).await.map(Some)
}

async fn done(core: &Arc<Core>, cx: &Context, row: &Row, made: Option<&Made>) -> Result<(), Error> {
    let mut values = vec![
        ("state", "done".into()),
        ("error", None::<String>.into()),
        ("ended_at", cx.now().into()),
    ];
    if let Some(made) = made {
        let rows = made.summary.rows();
        values.extend([
            ("bytes", to_i64(made.bytes).into()),
            ("rows", to_i64(rows).into()),
            ("sha256", made.sha256.clone().into()),
            ("key_id", made.key_id.clone().into()),
            ("at", made.manifest.made_at.into()),
        ]);
    } else {
        let found = restored::looked_at(core, &row.location).await;
        values.push(("bytes", found.map(to_i64).into()));
    }
    let unit = Unit::begin(core, cx).await?;
    store::set(&unit.tx, row.id, &["waiting", "running"], values).await?;
    let news = json!({ "id": row.id, "kind": row.kind });
    unit.tx
        .publish("backup.finished", &row.id.to_string(), &news)?;
    unit.commit().await
}

async fn failed(
    core: &Arc<Core>,
    cx: &Context,
    row: &Row,
    error: &BackupError,
) -> Result<(), Error> {
    let text = chain(error);
    tracing::error!(backup = %row.id, err = text, "the backup failed");
    let unit = Unit::begin(core, cx).await?;
    let values = [
        ("state", "failed".into()),
        ("error", text.into()),
        ("ended_at", cx.now().into()),
    ];
    store::set(&unit.tx, row.id, &["waiting", "running"], values).await?;
    let news = json!({ "id": row.id, "kind": row.kind });
    unit.tx
        .publish("backup.failed", &row.id.to_string(), &news)?;
    unit.commit().await
}

/// Restores into a scratch database and notes what was found.
async fn verifying(core: &Arc<Core>, id: Uuid, cx: &Context) -> Result<(), Failure> {
    let Some(row) = store::get(core.db.reader(), id).await? else {
        return Ok(());
    };
    let begun = [("state", "verifying".into())];
    if !set(core, id, &["done", "verifying"], begun).await? {
        return Ok(());
    }
    let verified = Box::pin(verify(core, &row)).await;
    let now = cx.now();
    let mut values = vec![("state", "done".into())];
    match &verified {
        Ok(report) => {
            let good = report.is_good();
            let mut shown = serde_json::to_value(report)?;
            shown["good"] = good.into();
            values.push(("report", shown.into()));
            values.push(("verified_at", good.then_some(now).into()));
        }
        Err(error) => {
            let why = json!({ "service": "backup", "what": chain(error), "fault": true });
            let shown = json!({ "good": false, "findings": [why] });
            values.push(("report", shown.into()));
            values.push(("verified_at", None::<Timestamp>.into()));
        }
    }
    set(core, id, &["verifying"], values).await?;
    refresh(core).await?;
    // A damaged backup is told in its row; trying again would find the same.
    verified.map(drop).map_err(Failure::dead)
}

async fn verify(core: &Core, row: &Row) -> Result<portico_backup::Report, BackupError> {
    let backups = &core.backups;
    let source = source(core, row)?;
    let unlock = backups.unlock();
    let restore = restore_of(core, &source, &unlock, false);
    Box::pin(restore.verify(&backups.data_dir, Some(&backups.objects))).await
}

fn source(core: &Core, row: &Row) -> Result<Source, BackupError> {
    let store = core.backups.store()?.clone();
    Ok(Source::Object(store, Key::new(&*row.location)?))
}

fn restore_of<'a>(
    core: &'a Core,
    source: &'a Source,
    unlock: &'a portico_backup::Unlock,
    keep_sessions: bool,
) -> Restore<'a> {
    Restore {
        source,
        unlock,
        house: &core.backups.house,
        keep_sessions,
        clock: Arc::clone(&core.clock),
        random: Arc::clone(&core.random),
    }
}

/// Reads the backup whole, makes one of now for the way back, leaves the order and lets the process start
/// anew: nobody may have the database open while it is replaced (CT-122).
async fn preparing(core: &Arc<Core>, order: RestoreOrder, run: &JobRun) -> Result<(), Failure> {
    let cx = &run.context;
    let Some(row) = store::get(core.db.reader(), order.backup).await? else {
        return Ok(());
    };
    if row.state != "restoring" {
        return Ok(());
    }
    match Box::pin(prepare(core, &order, &row, run)).await {
        // Whoever started the process sees the order, stops it and starts it anew.
        Ok(()) => Ok(()),
        Err(error) => {
            let text = chain(&error);
            let values = [("state", "done".into()), ("error", text.into())];
            set(core, row.id, &["restoring"], values).await?;
            let unit = Unit::begin(core, cx).await?;
            let news = json!({ "id": row.id });
            unit.tx
                .publish("backup.failed", &row.id.to_string(), &news)?;
            unit.commit().await?;
            Err(Failure::dead(error))
        }
    }
}

async fn prepare(
    core: &Arc<Core>,
    order: &RestoreOrder,
    row: &Row,
    run: &JobRun,
) -> Result<(), BackupError> {
    run.progress(0, 3, "reading the backup");
    let source = source(core, row)?;
    let unlock = core.backups.unlock();
    restore_of(core, &source, &unlock, false).check().await?;
    run.progress(1, 3, "making a backup of now");
    let cx = &run.context;
    let taken = core.backups.taken(order.objects);
    let safety = new_row(
        core,
        cx.new_id(),
        "safety",
        taken,
        &order.asked_by,
        cx.now(),
    );
    insert(core, &safety).await?;
    let made = Box::pin(make(core, &safety, &run.cancel)).await;
    let noted = match &made {
        Ok(made) => done(core, cx, &safety, made.as_ref()).await,
        Err(error) => failed(core, cx, &safety, error).await,
    };
    made?;
    noted.map_err(|error| unfit(&error))?;
    run.progress(2, 3, "starting anew");
    let pending = Pending {
        backup: row.id,
        location: row.location.clone(),
        safety: safety.location,
        keep_sessions: order.keep_sessions,
        objects: order.objects && row.objects == "whole",
        asked_by: order.asked_by.clone(),
    };
    pending.leave(&core.backups.data_dir)
}

/// Removes scheduled backups that nobody needs any more, and sees what else lies where backups are kept.
async fn tidy(core: &Arc<Core>, cx: &Context) -> Result<(), Error> {
    restored::settle(core, cx).await?;
    let keep = core.settings.system(&settings::KEEP);
    let rows = store::list(core.db.reader(), None, LOOK).await?;
    let scheduled = rows
        .iter()
        .filter(|r| r.kind == "scheduled" && r.state == "done");
    let gone = keep.superfluous(scheduled.map(|row| (row.id, row.at)).collect());
    for row in rows.iter().filter(|row| gone.contains(&row.id)) {
        // A key of the bucket that can only write leaves this to the bucket's own rules.
        if let Err(error) = remove(core, cx, row, "control.backup.pruned").await {
            tracing::warn!(backup = row.location, err = %error, "a backup could not be removed");
        }
    }
    refresh(core).await
}

/// Removes a backup and its file. The file goes first: a row without a file says so at the next look.
pub(super) async fn remove(
    core: &Arc<Core>,
    cx: &Context,
    row: &Row,
    action: &'static str,
) -> Result<(), Error> {
    let key = Key::new(&*row.location).map_err(|error| unfit_db(&error))?;
    let store = core.backups.store().map_err(super::ops::refused)?;
    store
        .delete(&key)
        .await
        .map_err(|error| super::ops::refused(error.into()))?;
    let unit = Unit::begin(core, cx).await?;
    if store::delete(&unit.tx, row.id).await? {
        let tenant = portico_base::id::TENANT_SYSTEM;
        let record = Record::done(action, "backup", row.id.to_string(), tenant);
        let record = record.change("location", Some(row.location.as_str().into()), None);
        unit.audit(record).await?;
        unit.commit().await?;
    }
    Ok(())
}

/// Shows the figures anew.
pub(super) async fn refresh(core: &Core) -> Result<(), Error> {
    let newest = store::newest(core.db.reader()).await?;
    let rows = store::list(core.db.reader(), None, LOOK).await?;
    core.backups.figures.show(newest.as_ref(), &rows);
    Ok(())
}

async fn insert(core: &Core, row: &Row) -> Result<(), BackupError> {
    let tx = core.db.begin().await?;
    store::insert(&tx, row).await?;
    tx.commit().await?;
    Ok(())
}

async fn set(
    core: &Core,
    id: Uuid,
    from: &[&'static str],
    values: impl IntoIterator<Item = (&'static str, portico_db::sea_query::Value)>,
) -> Result<bool, DbError> {
    let tx = core.db.begin().await?;
    let changed = store::set(&tx, id, from, values).await?;
    tx.commit().await?;
    Ok(changed)
}

/// What a file says that it is; nothing when it cannot be opened.
pub(super) async fn manifest(core: &Core, location: &Key) -> Option<portico_backup::Manifest> {
    let store = core.backups.store().ok()?.clone();
    let source = Source::Object(store, location.clone());
    peek(&source, &core.backups.unlock()).await.ok()
}

pub(super) fn to_i64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unfit(error: &Error) -> BackupError {
    BackupError::Unfit(error.to_string())
}

fn unfit_db(error: &dyn std::error::Error) -> DbError {
    DbError::Codec(error.to_string())
}

fn chain(error: &BackupError) -> String {
    portico_web::problem::chain(error)
}
