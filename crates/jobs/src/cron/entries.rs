//! Rows of the table `cron_entries`: what is due again and again in this installation, by any process.

use std::time::Duration;

use portico_base::{Context, Timestamp};
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, OnConflict, Order, Query, UpdateStatement};
use portico_db::{Db, DbError, WriteTx};
use serde_json::{Value, json};

use super::Schedule;
use super::runs::{self, CronRun};
use crate::queue::{Job, enqueue, is_live};

const TABLE: &str = "cron_entries";
/// Told when somebody wants a periodic job to run at once.
pub(crate) const ASKED: &str = "job.periodic_asked";
/// The key by which runs of one schedule never meet.
pub(super) const ONE: &str = "cron";
/// Entries of which no process spoke for so long are of an older version.
const FORGOTTEN: chrono::Duration = chrono::Duration::hours(3);
/// Runs that the trend shows.
const TREND: u64 = 20;
/// Moments that are foretold.
const NEXT: usize = 5;

/// How it is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// At moments of a calendar, once in the installation.
    Cron,
    /// At an interval.
    Interval,
}

/// Why a run cannot be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAsked {
    /// There is no such schedule.
    Unknown,
    /// Its last run has not ended.
    Running,
}

/// Something that is due again and again.
#[derive(Debug, Clone, PartialEq)]
pub struct CronEntry {
    /// `service.verb`.
    pub name: String,
    /// How it is due.
    pub form: Form,
    /// The interval.
    pub every: Option<Duration>,
    /// One process runs it for all; otherwise each for itself.
    pub alone: bool,
    /// The setting that holds the expression.
    pub setting: Option<String>,
    /// The expression in force.
    pub expression: Option<String>,
    /// Its time zone.
    pub zone: Option<String>,
    /// False: its moments pass.
    pub enabled: bool,
    /// Why the value of the setting is not in force.
    pub fault: Option<String>,
    /// The next moments.
    pub next: Vec<Timestamp>,
    /// What became of the last ones, newest first.
    pub runs: Vec<CronRun>,
}

/// What a process says of an entry at its start.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) name: &'static str,
    pub(crate) form: Form,
    pub(crate) every: Option<Duration>,
    pub(crate) alone: bool,
    pub(crate) setting: Option<&'static str>,
}

/// The schedule's part of an entry.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) expression: Option<String>,
    pub(super) zone: Option<String>,
    pub(super) enabled: bool,
    pub(super) last_tick: Option<Timestamp>,
}

/// All entries by name, or one.
///
/// # Errors
/// When the database cannot be reached.
pub async fn list(db: &Db, name: Option<&str>, now: Timestamp) -> Result<Vec<CronEntry>, DbError> {
    let mut select = Query::select();
    select
        .columns(
            "name form every_ms alone setting expression zone enabled fault"
                .split_ascii_whitespace(),
        )
        .from(TABLE)
        .and_where(Expr::col("seen_at").gt(now - FORGOTTEN))
        .order_by("name", Order::Asc);
    if let Some(name) = name {
        select.and_where(Expr::col("name").eq(name));
    }
    let mut entries = Vec::new();
    for row in db.reader().query_all(&select).await? {
        let mut entry = from_row(&row)?;
        entry.runs = runs::last(db.reader(), &entry.name, TREND).await?;
        entry.next = foretold(&entry, now);
        entries.push(entry);
    }
    Ok(entries)
}

/// Switches a schedule on or off; its moments pass meanwhile. Gives what it was before, or nothing when
/// there is no such schedule.
///
/// # Errors
/// When the database refuses.
pub async fn switch(
    tx: &WriteTx,
    name: &str,
    enabled: bool,
    now: Timestamp,
) -> Result<Option<bool>, DbError> {
    let Some(row) = lock(tx, name).await? else {
        return Ok(None);
    };
    if row.enabled != enabled {
        let mut update = change(name);
        update.value("enabled", enabled).value("last_tick", now);
        tx.execute(&update).await?;
    }
    Ok(Some(row.enabled))
}

/// Asks for a run at once: of a schedule as a job, of what is due at an interval by a word to whoever runs
/// it. Gives the job, where there is one.
///
/// # Errors
/// When the database refuses.
pub async fn ask(
    tx: &WriteTx,
    cx: &Context,
    name: &str,
) -> Result<Result<Option<uuid::Uuid>, NotAsked>, DbError> {
    let mut select = Query::select();
    select
        .column("form")
        .from(TABLE)
        .and_where(Expr::col("name").eq(name));
    let Some(row) = tx.query_one(&select).await? else {
        return Ok(Err(NotAsked::Unknown));
    };
    if form(&row)? == Form::Interval {
        tx.publish(ASKED, name, &Value::Null)?;
        return Ok(Ok(None));
    }
    if is_live(tx, name, ONE).await? {
        return Ok(Err(NotAsked::Running));
    }
    Ok(Ok(Some(begin(tx, cx, name, cx.now(), super::TRIES).await?)))
}

/// Asks for the job of a moment.
pub(super) async fn begin(
    tx: &WriteTx,
    cx: &Context,
    name: &str,
    tick: Timestamp,
    tries: u32,
) -> Result<uuid::Uuid, DbError> {
    let job = Job::new(name.to_owned(), &json!({ "tick": tick }))?
        .unique_until_ended(ONE)
        .max_tries(tries)
        .tick(tick);
    let id = enqueue(tx, cx, job).await?.0;
    let mut run = CronRun::new(tick, "waiting");
    run.job_id = Some(id);
    runs::note(tx, name, &run).await?;
    Ok(id)
}

/// Enters what a process runs.
pub(super) async fn see(tx: &WriteTx, all: &[Seen], now: Timestamp) -> Result<(), DbError> {
    if all.is_empty() {
        return Ok(());
    }
    let mut insert = Query::insert();
    insert
        .into_table(TABLE)
        .columns("name form every_ms alone setting enabled seen_at".split_ascii_whitespace());
    for seen in all {
        let every = seen.every.and_then(|e| i64::try_from(e.as_millis()).ok());
        insert.values_panic([
            seen.name.into(),
            match seen.form {
                Form::Cron => "cron".into(),
                Form::Interval => "interval".into(),
            },
            every.into(),
            seen.alone.into(),
            seen.setting.into(),
            true.into(),
            now.into(),
        ]);
    }
    insert.on_conflict(
        OnConflict::column("name")
            .update_columns(["form", "every_ms", "alone", "setting", "seen_at"])
            .to_owned(),
    );
    tx.execute(&insert).await?;
    Ok(())
}

/// The schedule's part, locked until the end of the transaction.
pub(super) async fn lock(tx: &WriteTx, name: &str) -> Result<Option<Row>, DbError> {
    let mut select = Query::select();
    select
        .columns(["expression", "zone", "enabled", "last_tick"])
        .from(TABLE)
        .and_where(Expr::col("name").eq(name))
        .and_where(Expr::col("form").eq("cron"))
        .lock_exclusive();
    let Some(row) = tx.query_one(&select).await? else {
        return Ok(None);
    };
    Ok(Some(Row {
        expression: row.try_get("", "expression")?,
        zone: row.try_get("", "zone")?,
        enabled: row.try_get("", "enabled")?,
        last_tick: row.try_get("", "last_tick")?,
    }))
}

/// Writes the expression in force; from now on, when it is another one than before.
pub(super) async fn define(
    tx: &WriteTx,
    name: &str,
    expression: &str,
    zone: &str,
    now: Timestamp,
) -> Result<(), DbError> {
    let before = lock(tx, name).await?;
    let same = before.is_some_and(|row| {
        row.expression.as_deref() == Some(expression)
            && row.zone.as_deref() == Some(zone)
            && row.last_tick.is_some()
    });
    let mut update = change(name);
    update.value("fault", None::<String>);
    if !same {
        update
            .value("expression", expression)
            .value("zone", zone)
            .value("last_tick", now);
    }
    tx.execute(&update).await?;
    Ok(())
}

/// Says why a new expression is not in force.
pub(super) async fn fault(tx: &WriteTx, name: &str, why: &str) -> Result<(), DbError> {
    let mut update = change(name);
    update.value("fault", why);
    tx.execute(&update).await?;
    Ok(())
}

/// Notes up to which moment everything is asked for.
pub(super) async fn advance(tx: &WriteTx, name: &str, tick: Timestamp) -> Result<(), DbError> {
    let mut update = change(name);
    update.value("last_tick", tick);
    tx.execute(&update).await?;
    Ok(())
}

fn foretold(entry: &CronEntry, now: Timestamp) -> Vec<Timestamp> {
    if !entry.enabled {
        return Vec::new();
    }
    if let (Some(expression), Some(zone)) = (&entry.expression, &entry.zone) {
        return Schedule::parse(expression, zone)
            .map_or_else(|_| Vec::new(), |s| s.next(now, NEXT));
    }
    let every = entry.every.and_then(|e| chrono::Duration::from_std(e).ok());
    let last = entry.runs.iter().find_map(|run| run.began_at);
    let (Some(every), Some(last)) = (every, last) else {
        return Vec::new();
    };
    // Only some of the runs are noted, so the last one may lie periods back.
    let step = Ord::max(every.num_milliseconds(), 1);
    let periods = Ord::max((now - last).num_milliseconds(), 0) / step;
    let moments = (1..).take(NEXT).map(|n| periods + n);
    moments
        .map(|n| last + chrono::Duration::milliseconds(step * n))
        .collect()
}

fn form(row: &QueryResult) -> Result<Form, DbError> {
    let form: String = row.try_get("", "form")?;
    Ok(if form == "cron" {
        Form::Cron
    } else {
        Form::Interval
    })
}

fn from_row(row: &QueryResult) -> Result<CronEntry, DbError> {
    let every: Option<i64> = row.try_get("", "every_ms")?;
    Ok(CronEntry {
        name: row.try_get("", "name")?,
        form: form(row)?,
        every: every
            .and_then(|ms| u64::try_from(ms).ok())
            .map(Duration::from_millis),
        alone: row.try_get("", "alone")?,
        setting: row.try_get("", "setting")?,
        expression: row.try_get("", "expression")?,
        zone: row.try_get("", "zone")?,
        enabled: row.try_get("", "enabled")?,
        fault: row.try_get("", "fault")?,
        next: Vec::new(),
        runs: Vec::new(),
    })
}

fn change(name: &str) -> UpdateStatement {
    let mut update = Query::update();
    update.table(TABLE).and_where(Expr::col("name").eq(name));
    update
}
